"""Random changes of images that keep their meaning. A model trained for retrieval learns to ignore them."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

# Maps a random key and float32 images `[m, h, w, c]`, or other items of a model, to changed ones of the same shape.
Warp = Callable[[jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True)
class AffineWarp:
    """Rotates, scales, shears and shifts each image by random amounts of its own, each uniform within its limits.

    Attributes:
        rotation: degrees to either side.
        scale: limit of the logarithm of the scale, which is drawn for each axis by itself.
        shear: horizontal shift of a row for each row of distance from the middle.
        shift: as a fraction of the side.
        flip: whether half of the images are mirrored left to right; wrong for digits and letters.
    """

    rotation: float = 12.0
    scale: float = 0.15
    shear: float = 0.15
    shift: float = 0.06
    flip: bool = False

    def __post_init__(self) -> None:
        for name in ("rotation", "scale", "shear", "shift"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 <= value < math.inf):
                raise ValueError(f"{name} must be a number of at least 0, got {value!r}")

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Warps float32 images `[m, h, w, c]`, with bilinear interpolation. Beyond an edge, its pixels are repeated.

        Items of another shape are no images and are returned as they are.
        """
        if images.ndim != 4:
            return images
        keys = jax.random.split(key, len(images))
        return jax.vmap(self._warp)(keys, images)

    def _warp(self, key: jax.Array, image: jax.Array) -> jax.Array:
        height, width, _ = image.shape
        sides = jnp.array([height, width], jnp.float32)[:, None, None]
        matrix, shift = self._draw(key)
        positions = jnp.indices((height, width), dtype=jnp.float32) - (sides - 1) / 2
        positions = jnp.einsum("ij,jhw->ihw", matrix, positions) + (sides - 1) / 2 + shift[:, None, None] * sides
        bilinear = functools.partial(map_coordinates, coordinates=list(positions), order=1, mode="nearest")
        return jnp.stack([bilinear(image[:, :, channel]) for channel in range(image.shape[2])], axis=2)

    def _draw(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws a 2x2 matrix and a shift `[2]`, in sides, of (row, column)."""
        rotation_key, scale_key, shear_key, shift_key, flip_key = jax.random.split(key, 5)
        angle = _uniform(rotation_key, math.radians(self.rotation))
        across = jnp.exp(_uniform(scale_key, self.scale, (2,)))
        if self.flip:
            across *= jnp.array([1.0, jnp.where(jax.random.bernoulli(flip_key), -1.0, 1.0)], jnp.float32)
        rotation = jnp.array([[jnp.cos(angle), jnp.sin(angle)], [-jnp.sin(angle), jnp.cos(angle)]])
        shear = jnp.array([[1.0, 0.0], [_uniform(shear_key, self.shear), 1.0]])
        return rotation @ shear * across[None], _uniform(shift_key, self.shift, (2,))


def _uniform(key: jax.Array, limit: float, shape: tuple[int, ...] = ()) -> jax.Array:
    return jax.random.uniform(key, shape, jnp.float32, minval=-limit, maxval=limit)
