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


PLAIN = {"crop": (1.0, 1.0), "flip": False, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "tint": 0.0}
PLAIN |= {"grey": 0.0}


@pytest.fixture
def photos(rng):
    return jnp.asarray(rng.random((5, 9, 12, 3)), jnp.float32)


def test_photos_that_nothing_changes_stay_as_they_are(photos):
    np.testing.assert_allclose(jh.PhotoWarp(**PLAIN)(KEY, photos), photos, atol=1e-5)
    vectors = jnp.ones((4, 7))
    assert jh.PhotoWarp()(KEY, vectors) is vectors


def test_half_of_the_photos_are_mirrored(photos):
    many = jnp.tile(photos, (80, 1, 1, 1))
    warped = jh.PhotoWarp(**PLAIN | {"flip": True})(KEY, many)
    mirrored = jnp.isclose(warped, many[:, :, ::-1], atol=1e-5).all((1, 2, 3))
    assert (mirrored ^ jnp.isclose(warped, many, atol=1e-5).all((1, 2, 3))).all()
    assert 150 < mirrored.sum() < 250


def test_crops_are_enlarged_parts_at_all_places():
    across = jnp.tile(jnp.arange(21.0)[None, None, :, None] / 20, (200, 21, 1, 3))  # gets brighter to the right
    warped = jh.PhotoWarp(**PLAIN | {"crop": (0.5, 0.75)})(KEY, across)
    left, right = warped[:, 0, 0, 0], warped[:, 0, -1, 0]
    assert 0.5 - 1e-5 <= (right - left).min() < 0.55
    assert 0.7 < (right - left).max() <= 0.75 + 1e-5
    assert left.min() < 0.02
    assert right.max() > 0.98
    down = jh.PhotoWarp(**PLAIN | {"crop": (0.5, 0.75)})(KEY, across.transpose(0, 2, 1, 3))
    assert jnp.ptp(down[:, 0, 0, 0]) > 0.3


def test_colours_change_by_the_rule_of_their_names(photos):
    dark = 0.2 + 0.3 * photos  # so that nothing is clipped
    many = jnp.tile(dark, (40, 1, 1, 1))

    def changed(**limits):
        return jh.PhotoWarp(**PLAIN | limits)(KEY, many)

    ratio = changed(brightness=0.3) / many
    np.testing.assert_allclose(ratio, ratio[:, :1, :1, :1] * jnp.ones_like(ratio), rtol=1e-4)
    assert 0.7 <= ratio.min() < 0.75 < 1.25 < ratio.max() <= 1.3 + 1e-4
    ratio = changed(tint=0.3) / many
    np.testing.assert_allclose(ratio, ratio[:, :1, :1] * jnp.ones_like(ratio), rtol=1e-4)
    assert jnp.abs(ratio[..., 0] - ratio[..., 1]).max() > 0.1
    mean = many.mean((1, 2, 3), keepdims=True)
    ratio = (changed(contrast=0.3) - mean).std((1, 2, 3)) / (many - mean).std((1, 2, 3))
    assert 0.7 - 1e-4 <= ratio.min() < 0.75 < 1.25 < ratio.max() <= 1.3 + 1e-4
    np.testing.assert_allclose(changed(saturation=0.3).mean(3), many.mean(3), atol=1e-5)
    grey = changed(grey=0.5)
    lost = (jnp.ptp(grey, axis=3) < 1e-5).all((1, 2))
    assert 0.35 < lost.mean() < 0.65
    np.testing.assert_allclose(grey[~lost], many[~lost], atol=1e-5)


def test_the_default_warp_goes_by_the_number_of_channels(photos, images):
    default = jh.Retrieve().warp
    np.testing.assert_array_equal(default(KEY, photos), jh.PhotoWarp()(KEY, photos))
    np.testing.assert_array_equal(default(KEY, images), jh.AffineWarp()(KEY, images))
    np.testing.assert_array_equal(default(KEY, images[..., :1]), jh.AffineWarp()(KEY, images[..., :1]))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "tint", "grey"])
@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), "5"])
def test_wrong_limits_of_photo_warps_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        jh.PhotoWarp(**{name: value})


@pytest.mark.parametrize("crop", [(0, 1), (0.9, 0.8), (0.5, 1.1)])
def test_wrong_crops_are_refused(crop):
    with pytest.raises(ValueError, match="crop"):
        jh.PhotoWarp(crop=crop)
