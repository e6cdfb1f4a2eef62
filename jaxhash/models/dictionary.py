"""Image features from a dictionary of patches, learned without labels or gradients.

After Coates, Lee and Ng 2011, "An analysis of single-layer networks in unsupervised feature learning". Patches are
standardized, whitened and multiplied by the atoms of a dictionary. Positive and negative responses above a threshold
are averaged over a grid of cells. Square roots keep a few large values from dominating (Perronnin, Sanchez and Mensink
2010, "Improving the Fisher kernel for large-scale image classification"). Principal components remove mostly noise.

`jaxhash.models.atoms` learns a dictionary.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxhash.models.image_shape import ImageShape

PATCH_SIDE = 6
# Of patches; images with a shorter side use stride 1.
STRIDE, MIN_SIDE_FOR_STRIDE = 2, 16
CELLS_PER_SIDE = 3
# Added to the variance of a patch, 10 on the scale of bytes, so that flat patches are not scaled up to noise.
VARIANCE_FLOOR = 10 / 255**2
MIN_RESPONSE = 0.5
# On CPU, responses are pooled in small chunks that stay in cache, which takes two fifths of the time. Projection uses
# larger chunks, as the components do not fit into the cache.
IMAGES_IN_CACHE, IMAGES_PER_CHUNK = 16, 256


class Dictionary(NamedTuple):
    """Atoms of patches with d values, and the projection of their responses."""

    atoms: jax.Array  # float32 [d, a], whitening included
    offsets: jax.Array  # float32 [a], responses to the mean patch
    mean: jax.Array  # float32 [f], of pooled responses, f = CELLS_PER_SIDE^2 * 2 a, or fewer for small images
    components: jax.Array  # float32 [f, p], principal components, divided by the root of their deviations


def compute_components(dictionary: Dictionary, images: jax.Array) -> jax.Array:
    """Computes the features of images: float32 `[n, p]` from float32 `[n, h, w, c]` in [0, 1]; traceable."""

    def pool(images: jax.Array) -> jax.Array:
        return pool_responses(dictionary, images)

    def project(pooled: jax.Array) -> jax.Array:
        return (pooled - dictionary.mean[None]) @ dictionary.components

    def project_in_blocks(images: jax.Array) -> jax.Array:
        return project(_in_blocks(pool, images, IMAGES_IN_CACHE))

    return lax.platform_dependent(
        images,
        cpu=lambda images: _in_blocks(project_in_blocks, images, IMAGES_PER_CHUNK),
        default=lambda images: project(pool(images)),
    )


def pool_responses(dictionary: Dictionary, images: jax.Array) -> jax.Array:
    """Pools the responses of float32 images `[n, h, w, c]` to unit vectors, float32 `[n, f]`."""
    responses = extract_normalized_windows(images) @ dictionary.atoms - dictionary.offsets[None, None, None]
    # Without it, XLA recomputes the subtraction for each cell, and pooling takes two fifths longer.
    responses = lax.optimization_barrier(responses)
    cells = [
        jnp.sqrt(jax.nn.relu(sign * responses[:, rows, columns] - MIN_RESPONSE).mean((1, 2)))
        for rows in _split(responses.shape[1])
        for columns in _split(responses.shape[2])
        for sign in (1, -1)
    ]
    pooled = jnp.concatenate(cells, axis=1)
    return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=1, keepdims=True), 1e-6)


def extract_normalized_windows(images: jax.Array) -> jax.Array:
    """Computes `normalize_patches(extract_windows(images))` in under half the time: sums pixels before patches."""
    side, stride = _find_sides(images)
    means = jnp.stack([images.mean(3), (images**2).mean(3)], axis=3) / side**2
    means = lax.reduce_window(means, 0.0, lax.add, (1, side, side, 1), (1, stride, stride, 1), "valid")
    mean, square = jnp.split(means, 2, axis=3)
    return (extract_windows(images) - mean) * lax.rsqrt(jax.nn.relu(square - mean**2) + VARIANCE_FLOOR)


def extract_windows(images: jax.Array) -> jax.Array:
    """Extracts the patches of images `[n, h, w, c]` at every `STRIDE`-th position: `[n, i, j, d]`."""
    height, width = images.shape[1:3]
    side, stride = _find_sides(images)
    last_row, last_column = height - side + 1, width - side + 1
    # One axis after the other: compiling all windows at once takes four times as long.
    strips = jnp.concatenate([images[:, :, column : column + last_column : stride] for column in range(side)], axis=3)
    return jnp.concatenate([strips[:, row : row + last_row : stride] for row in range(side)], axis=3)


def normalize_patches(patches: jax.Array) -> jax.Array:
    """Standardizes each patch of `[..., d]`."""
    centered = patches - patches.mean(-1, keepdims=True)
    return centered * lax.rsqrt((centered**2).mean(-1, keepdims=True) + VARIANCE_FLOOR)


def _find_sides(images: jax.Array) -> tuple[int, int]:
    """Returns the side and the stride of patches of images `[n, h, w, c]`."""
    height, width = images.shape[1:3]
    return patch_side(height, width), STRIDE if min(height, width) >= MIN_SIDE_FOR_STRIDE else 1


def patch_side(height: int, width: int) -> int:
    """Returns the side of a patch, at most the side of the image."""
    return min(PATCH_SIDE, height, width)


def count_values(image_shape: ImageShape) -> int:
    """Returns the number of values of a patch, d."""
    height, width, depth = image_shape
    return patch_side(height, width) ** 2 * depth


def count_pooled(image_shape: ImageShape, num_atoms: int) -> int:
    """Returns the number of pooled responses of an image, f."""
    height, width, depth = image_shape
    shape = jax.eval_shape(extract_windows, jax.ShapeDtypeStruct((1, height, width, depth), jnp.float32)).shape
    return len(_split(shape[1])) * len(_split(shape[2])) * 2 * num_atoms


def _split(count: int) -> list[slice]:
    """Splits `count` positions into cells: a third for each outer one, the rest for the middle one."""
    outer = count // CELLS_PER_SIDE
    if not outer:
        return [slice(position, position + 1) for position in range(count)]
    return [slice(0, outer), slice(outer, count - outer), slice(count - outer, count)]


def _in_blocks(function: Callable[[jax.Array], jax.Array], images: jax.Array, size: int) -> jax.Array:
    """Applies a function to blocks of at most `size` images; `batch_size` of `lax.map` takes a third longer."""
    num_blocks = max(1, -(-len(images) // size))
    padded = jnp.pad(images, ((0, -len(images) % num_blocks), (0, 0), (0, 0), (0, 0)))
    outputs = lax.map(function, padded.reshape(num_blocks, len(padded) // num_blocks, *images.shape[1:]))
    return outputs.reshape(-1, outputs.shape[-1])[: len(images)]
