"""Random image augmentations, to which retrieval models learn to be invariant."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

# Maps a random key and float32 images `[m, h, w, c]`, or other items, to augmented ones of the same shape.
Warp = Callable[[jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True)
class AffineWarp:
    """Rotates, scales, shears and shifts each image by random amounts, uniform within limits.

    Attributes:
        rotation: maximum angle in degrees, to either side.
        scale: maximum absolute logarithm of the scale, drawn separately for each axis.
        shear: maximum horizontal shift of a row, per row of distance from the center.
        shift: maximum shift, as a fraction of the side.
        flip: whether to mirror half of the images left to right; wrong for digits and letters.
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
        """Warps float32 images `[m, h, w, c]`, with bilinear interpolation and repeated edge pixels.

        Items of another shape are returned unchanged.
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
        """Draws a 2x2 matrix and a shift `[2]` of (row, column), in units of the side."""
        rotation_key, scale_key, shear_key, shift_key, flip_key = jax.random.split(key, 5)
        angle = _uniform(rotation_key, math.radians(self.rotation))
        across = jnp.exp(_uniform(scale_key, self.scale, (2,)))
        if self.flip:
            across *= jnp.array([1.0, jnp.where(jax.random.bernoulli(flip_key), -1.0, 1.0)], jnp.float32)
        rotation = jnp.array([[jnp.cos(angle), jnp.sin(angle)], [-jnp.sin(angle), jnp.cos(angle)]])
        shear = jnp.array([[1.0, 0.0], [_uniform(shear_key, self.shear), 1.0]])
        return rotation @ shear * across[None], _uniform(shift_key, self.shift, (2,))


@dataclass(frozen=True)
class PhotoWarp:
    """Crops, mirrors and recolors each photograph by random amounts, uniform within limits.

    The defaults suit retrieval by class. On held-out training images of CIFAR-10, mirroring, tint and grayscale each
    help, and crops below 0.8 of the side hurt; the other changes hardly matter.

    Attributes:
        crop: smallest and largest share of the side to keep, at a random position; crops are enlarged to full size.
        flip: whether to mirror half of the images left to right.
        brightness: maximum relative change of the brightness.
        contrast: maximum relative change of the differences from the mean.
        saturation: maximum relative change of each pixel's differences from its gray value.
        tint: maximum relative change of each channel's brightness.
        gray: probability of conversion to grayscale.
    """

    crop: tuple[float, float] = (0.8, 1.0)
    flip: bool = True
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    tint: float = 0.2
    gray: float = 0.2

    def __post_init__(self) -> None:
        least, most = self.crop
        if not 0 < least <= most <= 1:
            raise ValueError(f"crop must be two shares of the side above 0 and at most 1, got {self.crop!r}")
        for name in ("brightness", "contrast", "saturation", "tint", "gray"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 <= value <= 1):
                raise ValueError(f"{name} must be a number between 0 and 1, got {value!r}")

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Warps float32 images `[m, h, w, c]` in [0, 1]; returns items of another shape unchanged."""
        if images.ndim != 4:
            return images
        # A single draw: each further one adds a second of compilation.
        drawn = jax.random.uniform(key, (len(images), 8 + images.shape[3]), jnp.float32)
        return jax.vmap(self._warp)(drawn, images)

    def _warp(self, drawn: jax.Array, image: jax.Array) -> jax.Array:
        size, top, left, mirrored, *_ = drawn
        share = self.crop[0] + (self.crop[1] - self.crop[0]) * size
        rows = _crop_weights(image.shape[0], share, top)
        columns = _crop_weights(image.shape[1], share, left)
        if self.flip:
            columns = jnp.where(mirrored < 0.5, columns[::-1], columns)
        return self._recolor(drawn[4:], jnp.einsum("ih,jw,hwc->ijc", rows, columns, image))

    def _recolor(self, drawn: jax.Array, image: jax.Array) -> jax.Array:
        limits = jnp.array([self.brightness, self.contrast, self.saturation], jnp.float32)
        brightness, contrast, saturation = 1 + limits * (2 * drawn[:3] - 1)
        tint = 1 + self.tint * (2 * drawn[4:] - 1)
        image = image * (brightness * tint)[None, None]
        image = image.mean() + contrast * (image - image.mean())
        gray = image.mean(axis=2, keepdims=True)
        saturation = jnp.where(drawn[3] < self.gray, 0.0, saturation)
        return jnp.clip(gray + saturation * (image - gray), 0.0, 1.0)


def _crop_weights(length: int, share: jax.Array, position: jax.Array) -> jax.Array:
    """Computes bilinear weights `[length, length]` that enlarge a share of a side, at a relative position in [0, 1]."""
    start = position * (1 - share) * (length - 1)
    positions = start + share * jnp.arange(length, dtype=jnp.float32)
    return jax.nn.relu(1 - jnp.abs(positions[:, None] - jnp.arange(length, dtype=jnp.float32)[None]))


@dataclass(frozen=True)
class DefaultWarp:
    """Applies `PhotoWarp` to images of three channels, `AffineWarp` to all others."""

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Warps float32 images `[m, h, w, c]`; returns items of another shape unchanged."""
        warp = PhotoWarp() if images.ndim == 4 and images.shape[3] == 3 else AffineWarp()
        return warp(key, images)


def _uniform(key: jax.Array, limit: float, shape: tuple[int, ...] = ()) -> jax.Array:
    return jax.random.uniform(key, shape, jnp.float32, minval=-limit, maxval=limit)
