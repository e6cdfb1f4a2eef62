import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhash as jh

STILL = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}
KEY = jax.random.key(0)


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.random((5, 9, 12, 2)), jnp.float32)


def test_limits_of_zero_change_nothing(images):
    np.testing.assert_allclose(jh.AffineWarp(**STILL)(KEY, images), images, atol=1e-5)


def test_vectors_stay_as_they_are():
    vectors = jnp.ones((4, 7))
    assert jh.AffineWarp()(KEY, vectors) is vectors


def test_half_of_the_images_are_mirrored(images):
    many = jnp.tile(images, (200, 1, 1, 1))
    warped = jh.AffineWarp(**STILL, flip=True)(KEY, many)
    mirrored = jnp.isclose(warped, many[:, :, ::-1], atol=1e-5).all((1, 2, 3))
    kept = jnp.isclose(warped, many, atol=1e-5).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 400 < mirrored.sum() < 600


def test_a_shift_moves_a_spot_within_its_limit():
    image = jnp.zeros((1, 21, 21, 1), jnp.float32).at[0, 10, 10].set(1.0)
    warped = jh.AffineWarp(**{**STILL, "shift": 0.2})(KEY, jnp.tile(image, (100, 1, 1, 1)))
    rows, columns = jnp.indices((21, 21), dtype=jnp.float32)
    centre = [(warped[..., 0] * axis[None]).sum((1, 2)) / warped.sum((1, 2, 3)) - 10 for axis in (rows, columns)]
    for moved in centre:
        assert jnp.abs(moved).max() < 0.2 * 21 + 0.01
        assert moved.min() < -2
        assert moved.max() > 2


def test_a_rotation_moves_a_spot_around_the_middle():
    image = jnp.zeros((1, 21, 21, 1), jnp.float32).at[0, 10, 18].set(1.0)
    warped = jh.AffineWarp(**{**STILL, "rotation": 90.0})(KEY, jnp.tile(image, (50, 1, 1, 1)))
    rows, columns = jnp.indices((21, 21), dtype=jnp.float32) - 10
    weight = warped[..., 0] / warped.sum((1, 2, 3))[:, None, None]
    distance = (weight * jnp.hypot(rows, columns)[None]).sum((1, 2))
    np.testing.assert_allclose(distance, np.full(50, 8.0), atol=0.5)
    assert (weight * rows[None]).sum((1, 2)).std() > 3


def test_beyond_an_edge_its_pixels_are_repeated():
    image = jnp.full((20, 8, 8, 3), 0.7, jnp.float32)
    np.testing.assert_allclose(jh.AffineWarp()(KEY, image), image, rtol=1e-5)


def test_each_image_is_warped_by_itself_and_the_key_decides(images):
    same = jnp.tile(images[:1], (3, 1, 1, 1))
    warped = jh.AffineWarp()(KEY, same)
    assert not jnp.allclose(warped[0], warped[1])
    np.testing.assert_array_equal(warped, jh.AffineWarp()(KEY, same))


@pytest.mark.parametrize("name", ["rotation", "scale", "shear", "shift"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "5"])
def test_wrong_limits_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        jh.AffineWarp(**{name: value})
