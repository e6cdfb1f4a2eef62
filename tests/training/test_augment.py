import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhash as jh

STILL = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}
KEY = jax.random.key(0)


def apply(warp, images):
    """In one program: called alone, a warp compiles some fifty small ones."""
    return np.asarray(jax.jit(warp)(KEY, images))


def spot(row, column):
    """A black image with one white pixel: float32 `[1, 21, 21, 1]`."""
    image = np.zeros((1, 21, 21, 1), np.float32)
    image[0, row, column] = 1
    return image


@pytest.fixture
def images(rng):
    return rng.random((5, 9, 12, 2), np.float32)


def test_limits_of_zero_change_nothing(images):
    np.testing.assert_allclose(apply(jh.training.AffineWarp(**STILL), images), images, atol=1e-5)


def test_vectors_stay_as_they_are():
    vectors = jnp.ones((4, 7))
    assert jh.training.AffineWarp()(KEY, vectors) is vectors


def test_half_of_the_images_are_mirrored(images):
    many = np.tile(images, (200, 1, 1, 1))
    warped = apply(jh.training.AffineWarp(**STILL, flip=True), many)
    mirrored = np.isclose(warped, many[:, :, ::-1], atol=1e-5).all((1, 2, 3))
    kept = np.isclose(warped, many, atol=1e-5).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 400 < mirrored.sum() < 600


def test_a_shift_moves_a_spot_within_its_limit():
    image = spot(10, 10)
    warped = apply(jh.training.AffineWarp(**{**STILL, "shift": 0.2}), np.tile(image, (100, 1, 1, 1)))
    rows, columns = np.indices((21, 21), dtype=np.float32)
    center = [(warped[..., 0] * axis[None]).sum((1, 2)) / warped.sum((1, 2, 3)) - 10 for axis in (rows, columns)]
    for moved in center:
        assert np.abs(moved).max() < 0.2 * 21 + 0.01
        assert moved.min() < -2
        assert moved.max() > 2


def test_a_rotation_moves_a_spot_around_the_middle():
    image = spot(10, 18)
    warped = apply(jh.training.AffineWarp(**{**STILL, "rotation": 90.0}), np.tile(image, (50, 1, 1, 1)))
    rows, columns = np.indices((21, 21), dtype=np.float32) - 10
    weight = warped[..., 0] / warped.sum((1, 2, 3))[:, None, None]
    distance = (weight * np.hypot(rows, columns)[None]).sum((1, 2))
    np.testing.assert_allclose(distance, np.full(50, 8.0), atol=0.5)
    assert (weight * rows[None]).sum((1, 2)).std() > 3


def test_beyond_an_edge_its_pixels_are_repeated():
    image = np.full((20, 8, 8, 3), 0.7, np.float32)
    np.testing.assert_allclose(apply(jh.training.AffineWarp(), image), image, rtol=1e-5)


def test_each_image_is_warped_by_itself_and_the_key_decides(images):
    same = np.tile(images[:1], (3, 1, 1, 1))
    warped = apply(jh.training.AffineWarp(), same)
    assert not np.allclose(warped[0], warped[1])
    np.testing.assert_array_equal(warped, apply(jh.training.AffineWarp(), same))


@pytest.mark.parametrize("name", ["rotation", "scale", "shear", "shift"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "5"])
def test_wrong_limits_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        jh.training.AffineWarp(**{name: value})


PLAIN = {"crop": (1.0, 1.0), "flip": False, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "tint": 0.0}
PLAIN |= {"gray": 0.0}


@pytest.fixture
def photos(rng):
    return rng.random((5, 9, 12, 3), np.float32)


def test_photos_that_nothing_changes_stay_as_they_are(photos):
    np.testing.assert_allclose(apply(jh.training.PhotoWarp(**PLAIN), photos), photos, atol=1e-5)
    vectors = jnp.ones((4, 7))
    assert jh.training.PhotoWarp()(KEY, vectors) is vectors


def test_half_of_the_photos_are_mirrored(photos):
    many = np.tile(photos, (80, 1, 1, 1))
    warped = apply(jh.training.PhotoWarp(**PLAIN | {"flip": True}), many)
    mirrored = np.isclose(warped, many[:, :, ::-1], atol=1e-5).all((1, 2, 3))
    assert (mirrored ^ np.isclose(warped, many, atol=1e-5).all((1, 2, 3))).all()
    assert 150 < mirrored.sum() < 250


def test_crops_are_enlarged_parts_at_all_places():
    across = np.tile(
        np.arange(21, dtype=np.float32)[None, None, :, None] / 20, (200, 21, 1, 3)
    )  # gets brighter to the right
    warped = apply(jh.training.PhotoWarp(**PLAIN | {"crop": (0.5, 0.75)}), across)
    left, right = warped[:, 0, 0, 0], warped[:, 0, -1, 0]
    assert 0.5 - 1e-5 <= (right - left).min() < 0.55
    assert 0.7 < (right - left).max() <= 0.75 + 1e-5
    assert left.min() < 0.02
    assert right.max() > 0.98
    down = apply(jh.training.PhotoWarp(**PLAIN | {"crop": (0.5, 0.75)}), across.transpose(0, 2, 1, 3))
    assert np.ptp(down[:, 0, 0, 0]) > 0.3


def test_colors_change_by_the_rule_of_their_names(photos):
    dark = np.float32(0.2) + np.float32(0.3) * photos  # so that nothing is clipped
    many = np.tile(dark, (40, 1, 1, 1))

    def changed(**limits):
        return apply(jh.training.PhotoWarp(**PLAIN | limits), many)

    ratio = changed(brightness=0.3) / many
    np.testing.assert_allclose(ratio, ratio[:, :1, :1, :1] * np.ones_like(ratio), rtol=1e-4)
    assert 0.7 <= ratio.min() < 0.75 < 1.25 < ratio.max() <= 1.3 + 1e-4
    ratio = changed(tint=0.3) / many
    np.testing.assert_allclose(ratio, ratio[:, :1, :1] * np.ones_like(ratio), rtol=1e-4)
    assert np.abs(ratio[..., 0] - ratio[..., 1]).max() > 0.1
    mean = many.mean((1, 2, 3), keepdims=True)
    ratio = (changed(contrast=0.3) - mean).std((1, 2, 3)) / (many - mean).std((1, 2, 3))
    assert 0.7 - 1e-4 <= ratio.min() < 0.75 < 1.25 < ratio.max() <= 1.3 + 1e-4
    np.testing.assert_allclose(changed(saturation=0.3).mean(3), many.mean(3), atol=1e-5)
    gray = changed(gray=0.5)
    lost = (np.ptp(gray, axis=3) < 1e-5).all((1, 2))
    assert 0.35 < lost.mean() < 0.65
    np.testing.assert_allclose(gray[~lost], many[~lost], atol=1e-5)


def test_the_default_warp_goes_by_the_number_of_channels(photos, images):
    default = jh.training.Retrieve().warp
    np.testing.assert_array_equal(apply(default, photos), apply(jh.training.PhotoWarp(), photos))
    np.testing.assert_array_equal(apply(default, images), apply(jh.training.AffineWarp(), images))
    np.testing.assert_array_equal(apply(default, images[..., :1]), apply(jh.training.AffineWarp(), images[..., :1]))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "tint", "gray"])
@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), "5"])
def test_wrong_limits_of_photo_warps_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        jh.training.PhotoWarp(**{name: value})


@pytest.mark.parametrize("crop", [(0, 1), (0.9, 0.8), (0.5, 1.1)])
def test_wrong_crops_are_refused(crop):
    with pytest.raises(ValueError, match="crop"):
        jh.training.PhotoWarp(crop=crop)
