"""Patches of images and their codes, against plain loops."""

import jax
import numpy as np
import pytest

import jaxhash as jh
from jaxhash.models import patches


def extract_by_loops(images, height, width, stride):
    return np.stack(
        [
            images[:, y : y + height, x : x + width]
            for y in range(0, images.shape[1] - height + 1, stride)
            for x in range(0, images.shape[2] - width + 1, stride)
        ],
        axis=1,
    )


@pytest.mark.parametrize("shape", [(3, 9, 7), (2, 8, 8, 3), (0, 5, 5)])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), ((2, 5), 2), ((5, 4), 3), (1, 1)])
def test_patches_equal_those_of_loops(shape, size, stride):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    height, width = size if isinstance(size, tuple) else (size, size)
    expected = extract_by_loops(images, height, width, stride)
    found = jh.models.extract_patches(images, size, stride=stride)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    traced = jax.jit(lambda x: jh.models.extract_patches(x, size, stride=stride))(images)
    assert np.array_equal(traced, expected)


def test_a_single_image_gives_its_patches():
    image = np.arange(20.0).reshape(4, 5)
    assert np.array_equal(jh.models.extract_patches(image, 2), extract_by_loops(image[None], 2, 2, 1)[0])


@pytest.fixture(scope="module")
def model():
    return jh.Autoencoder(12, 20, (16,))


def test_codes_of_patches_equal_those_of_encode(model, monkeypatch):
    images = np.random.default_rng(1).integers(0, 256, (7, 8, 9)).astype(np.uint8)
    expected = jh.encode(model, extract_by_loops(images, 3, 4, 2))
    assert np.array_equal(jh.models.encode_patches(model, images, (3, 4), stride=2), expected)
    monkeypatch.setattr(patches, "PATCHES_PER_CHUNK", 10)
    assert np.array_equal(jh.models.encode_patches(model, images, (3, 4), stride=2), expected)
    assert np.array_equal(jh.models.encode_patches(model, images[2], (3, 4), stride=2), expected[2])
    traced = jax.jit(lambda x: jh.models.encode_patches(model, x, (3, 4), stride=2))(images)
    assert np.array_equal(traced, expected)
    assert jh.models.encode_patches(model, images[:0], (3, 4), stride=2).shape == (0, 9, 1)


def test_an_image_is_found_by_its_patches(model):
    images = np.random.default_rng(2).integers(0, 256, (20, 8, 8)).astype(np.uint8)
    index = jh.build_index(jh.models.encode_patches(model, images, (3, 4)), 20, multi=True)
    moved = np.roll(images[:5], (2, 1), axis=(1, 2))
    found = jh.bag_search(index, jh.models.encode_patches(model, moved, (3, 4)), radius=1, k=1)
    assert found.ids[:, 0].tolist() == [0, 1, 2, 3, 4]


WRONG = [
    (((2, 3), 4), {}, ValueError, "at most the images' 2x3 pixels, got 4x4"),
    (((5,), 1), {}, ValueError, "images must have shape"),
    (((1, 2, 3, 4, 5), 1), {}, ValueError, "images must have shape"),
    (((4, 4), 0), {}, ValueError, "patch_size"),
    (((4, 4), 1.5), {}, TypeError, "patch_size"),
    (((4, 4), (1, 2, 3)), {}, ValueError, "one number or two"),
    (((4, 4), 2), {"stride": 0}, ValueError, "stride"),
]


@pytest.mark.parametrize(("given", "options", "error", "message"), WRONG)
def test_wrong_input_is_refused(model, given, options, error, message):
    shape, size = given
    with pytest.raises(error, match=message):
        jh.models.extract_patches(np.zeros(shape, np.uint8), size, **options)
    with pytest.raises(error, match=message):
        jh.models.encode_patches(model, np.zeros(shape, np.uint8), size, **options)
