"""Image patches: several codes per image for `bag_search`, as in Krizhevsky and Hinton (ESANN 2011).

A model of patches, applied at every position of an image, is a convolutional network with patch-sized windows.
"""

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxhash.core.checks import AnyArray, as_array, check_integer, is_traced
from jaxhash.models.encoder import Encoder
from jaxhash.models.encoding import encode

# Outside `jit`; patches take much more memory than their images.
PATCHES_PER_CHUNK = 2**15


def extract_patches(images: AnyArray, patch_size: int | tuple[int, int], *, stride: int = 1) -> AnyArray:
    """Extracts the patches of images at all positions, in row-major order.

    Args:
        images: `[h, w]`, `[n, h, w]` or `[n, h, w, c]`, of any dtype.
        patch_size: side of a patch in pixels, or its height and width.
        stride: step between patches in pixels, in both directions. Remaining pixels at the right and lower edge are in
            no patch.

    Returns:
        `[n, p, height, width]` or `[n, p, height, width, c]`, without n for a single image, in the images' dtype. A JAX
        array for JAX images, else a numpy array.

    Raises:
        ValueError: images have another number of axes or are smaller than a patch, or a number is below 1.
        TypeError: a number is not an integer.
    """
    shape = np.shape(images)
    rows, columns = _find_positions(shape, patch_size, check_integer("stride", stride, 1))
    array = as_array(images)
    batch = array[None] if len(shape) == 2 else array
    patches = batch[:, rows[:, None, :, None], columns[None, :, None, :]]
    patches = patches.reshape(len(batch), len(rows) * len(columns), *patches.shape[3:])
    return patches[0] if len(shape) == 2 else patches


def encode_patches(
    model: Encoder, images: ArrayLike, patch_size: int | tuple[int, int], *, stride: int = 1
) -> jax.Array:
    """Computes `encode(model, extract_patches(images, ...))` in bounded memory.

    Args:
        model: a model of items of the patch size.
        images: as in `extract_patches`.
        patch_size: as in `extract_patches`.
        stride: as in `extract_patches`.

    Returns:
        uint32 `[n, p, w]`, or `[p, w]` for a single image, for `build_index` with `multi=True` and `bag_search`.

    Raises:
        ValueError: as `extract_patches` and `encode`.
        TypeError: as `extract_patches` and `encode`.
    """
    shape = np.shape(images)
    rows, columns = _find_positions(shape, patch_size, check_integer("stride", stride, 1))
    if is_traced(model, images) or len(shape) == 2:
        return encode(model, extract_patches(as_array(images), patch_size, stride=stride))
    array, size = np.asarray(images), max(1, PATCHES_PER_CHUNK // (len(rows) * len(columns)))
    parts = [
        np.asarray(encode(model, extract_patches(array[start : start + size], patch_size, stride=stride)))
        for start in range(0, max(1, len(array)), size)
    ]
    return jax.device_put(np.concatenate(parts))  # `jnp.asarray` would compile a program for each shape


def _find_positions(
    shape: tuple[int, ...], patch_size: int | tuple[int, int], stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows and columns of the patches in images of a shape, int `[positions, side]` each."""
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"images must have shape [h, w], [n, h, w] or [n, h, w, c], got {shape}")
    image = shape if len(shape) == 2 else shape[1:3]
    sides = patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
    if len(sides) != 2:
        raise ValueError(f"patch_size must be one number or two, got {patch_size!r}")
    height, width = (check_integer("patch_size", side, 1) for side in sides)
    if height > image[0] or width > image[1]:
        raise ValueError(f"patch_size must be at most the images' {image[0]}x{image[1]} pixels, got {height}x{width}")
    starts = [np.arange(0, whole - side + 1, stride) for whole, side in zip(image, (height, width), strict=True)]
    rows, columns = (start[:, None] + np.arange(side) for start, side in zip(starts, (height, width), strict=True))
    return rows, columns
