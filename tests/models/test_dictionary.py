import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhash.models import dictionary as dictionary_module
from jaxhash.models.dictionary import Dictionary, compute_components, count_pooled, count_values

# One program for each shape, not one for each operation.
pool_responses = jax.jit(dictionary_module.pool_responses)


def make_dictionary(rng, shape, num_atoms=5, num_components=3):
    values, pooled = count_values(shape), count_pooled(shape, num_atoms)
    shapes = [(values, num_atoms), (num_atoms,), (pooled,), (pooled, num_components)]
    return Dictionary(*(jnp.asarray(rng.normal(size=size), jnp.float32) for size in shapes))


def pool_slowly(dictionary, image, side, stride, cells):
    """The pooled responses of an image, patch by patch."""
    height, width, _ = image.shape
    tops, lefts = range(0, height - side + 1, stride), range(0, width - side + 1, stride)
    sums = {}
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            patch = image[top : top + side, left : left + side].astype(np.float64).reshape(-1)
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + 10 / 255**2)
            atoms, offsets = (np.asarray(array, np.float64) for array in dictionary[:2])
            response = patch @ atoms - offsets
            cell = tuple(
                next(number for number, end in enumerate(ends) if place < end)
                for place, ends in zip((row, column), cells, strict=True)
            )
            sums.setdefault(cell, []).append(
                np.concatenate([np.maximum(response - 0.5, 0), np.maximum(-response - 0.5, 0)])
            )
    pooled = np.sqrt(np.concatenate([np.mean(sums[cell], axis=0) for cell in sorted(sums)]))
    return pooled / np.linalg.norm(pooled)


@pytest.mark.parametrize(
    ("shape", "side", "stride", "cells"),
    [
        ((20, 24, 3), 6, 2, ([2, 6, 8], [3, 7, 10])),
        ((10, 9, 1), 6, 1, ([1, 4, 5], [1, 3, 4])),
        ((7, 6, 2), 6, 1, ([1, 2], [1])),
        ((3, 5, 1), 3, 1, ([1], [1, 2, 3])),
    ],
)
def test_pooled_responses_are_those_of_a_walk_over_all_patches(shape, side, stride, cells, rng):
    dictionary, images = make_dictionary(rng, shape), rng.random((2, *shape), np.float32)
    expected = [pool_slowly(dictionary, image, side, stride, cells) for image in images]
    np.testing.assert_allclose(pool_responses(dictionary, jnp.asarray(images)), expected, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 16, 19, 300])
def test_images_do_not_see_each_other_whatever_their_number(count, rng):
    dictionary, images = make_dictionary(rng, (9, 8, 3)), jnp.asarray(rng.random((count, 9, 8, 3)), jnp.float32)
    found = jax.jit(compute_components)(dictionary, images)
    expected = (pool_responses(dictionary, images) - dictionary.mean[None]) @ dictionary.components
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_flat_images_have_features(rng):
    dictionary = make_dictionary(rng, (8, 8, 1))._replace(offsets=jnp.zeros(5, jnp.float32))
    images = jnp.ones((1, 8, 8, 1), jnp.float32)
    np.testing.assert_array_equal(pool_responses(dictionary, images), np.zeros((1, 90)))


def test_brightness_and_contrast_hardly_matter(rng):
    dictionary, images = make_dictionary(rng, (12, 12, 3)), jnp.asarray(rng.random((3, 12, 12, 3)), jnp.float32)
    changed = pool_responses(dictionary, 0.3 + 0.5 * images)
    np.testing.assert_allclose(changed, pool_responses(dictionary, images), atol=0.02)
