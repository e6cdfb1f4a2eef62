"""A convolutional autoencoder for images of any height, width and number of channels.

Each stage of the encoder halves height and width by a 3x3 convolution of stride 2. Each stage of the decoder doubles
them by a 1x1 convolution and depth-to-space (Shi et al. 2016, "Real-time single image and video super-resolution using
an efficient sub-pixel convolutional neural network", arXiv:1609.05158); 3x3 convolutions there would double the
training time. Dense layers in between see the whole image.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxhash.core.checks import check_integer, check_num_bits
from jaxhash.models.autoencoder import Autoencoder, check_activation
from jaxhash.models.encoder import Activation, apply_layers, check_widths, make_dense_layers
from jaxhash.models.image_shape import ImageShape, check_image_shape

WINDOW = 3
STRIDE = 2
# The default channels add stages until the longer side is at most this.
MAX_LAST_SIDE = 8
MAX_CHANNELS = 128


class ConvAutoencoder(Autoencoder):
    """A convolutional autoencoder with a binary code layer.

    Args:
        image_shape: `(h, w)` or `(h, w, c)`; c is 1 by default.
        num_bits: number of bits of a code, `b`.
        channels: output channels of each stage; by default 16, 32, 64, 128, 128, ... until at most 8x8 pixels remain.
        hidden_dims: widths of the dense layers between the last stage and the code layer.
        output_activation: as for `Autoencoder`, except "softmax".
        rngs: random keys for the initial weights; by default `nnx.Rngs(0)`.
    """

    image_shape: ImageShape

    def __init__(
        self,
        image_shape: Sequence[int],
        num_bits: int,
        channels: Sequence[int] | None = None,
        hidden_dims: Sequence[int] = (256,),
        *,
        output_activation: str | Activation = "sigmoid",
        rngs: nnx.Rngs | None = None,
    ):
        self.image_shape = height, width, depth = check_image_shape(image_shape)
        self.input_dim = math.prod(self.image_shape)
        self.num_bits = check_num_bits(num_bits)
        channels = default_channels(height, width) if channels is None else channels
        self.channels = tuple(check_integer("channels", count, 1) for count in channels)
        self.hidden_dims = check_widths(hidden_dims)
        if output_activation == "softmax":
            raise ValueError("output_activation softmax is for word counts: use an Autoencoder for these")
        self.output_activation = check_activation(output_activation)
        rngs = nnx.Rngs(0) if rngs is None else rngs
        flat = math.prod(self.last_shape)
        depths, widths = (depth, *self.channels), (flat, *self.hidden_dims, self.num_bits)
        stages = list(pairwise(depths))
        shrinking = (make_dense_layers((WINDOW**2 * a, b), rngs)[0] for a, b in stages)
        growing = (make_dense_layers((b, STRIDE**2 * a), rngs)[0] for a, b in reversed(stages))
        self.encoder = nnx.Sequential(*shrinking, *make_dense_layers(widths, rngs))
        self.decoder = nnx.Sequential(*make_dense_layers(widths[::-1], rngs), *growing)
        self._init_statistics()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one item, `(h, w, c)`."""
        return self.image_shape

    @property
    def layer_shapes(self) -> list[tuple[int, ...]]:
        """The shape of one item after each layer; the last is cropped to the image's height and width."""
        height, width, depth = self.image_shape
        sizes = [(-(-height // STRIDE**stage), -(-width // STRIDE**stage)) for stage in range(len(self.channels) + 1)]
        images = [(*size, count) for size, count in zip(sizes, (depth, *self.channels), strict=True)]
        dense = [(width,) for width in (*self.hidden_dims, self.num_bits, *self.hidden_dims[::-1])]
        return [*images[1:], *dense, (math.prod(self.last_shape),), *images[-2::-1]]

    @property
    def last_shape(self) -> tuple[int, int, int]:
        """The shape of an item after the last stage, `(h, w, c)`."""
        height, width, depth = self.image_shape
        shrink = STRIDE ** len(self.channels)
        return -(-height // shrink), -(-width // shrink), self.channels[-1] if self.channels else depth

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments, except `rngs`."""
        return {
            "image_shape": self.image_shape,
            "num_bits": self.num_bits,
            "channels": self.channels,
            "hidden_dims": self.hidden_dims,
            "output_activation": self.output_activation,
        }

    def code_logits(self, items: jax.Array) -> jax.Array:
        """Computes the code layer's outputs before normalization, `[n, b]`, of float32 items `[n, h, w, c]`."""
        stages, layers = len(self.channels), cast(Any, self.encoder.layers)
        x = pad_to_stages(self.standardize(items), self.last_shape, STRIDE**stages)
        for layer in layers[:stages]:
            x = jax.nn.relu(convolve(x, layer.kernel[...]) + layer.bias[...][None, None, None])
        return apply_layers(layers[stages:], x.reshape(len(items), -1))

    def output_logits(self, bits: jax.Array) -> jax.Array:
        """Decodes float32 bits `[n, b]` to outputs before the activation, `[n, h, w, c]`."""
        dense = len(self.hidden_dims) + 1
        x = apply_layers(self.decoder.layers[:dense], bits).reshape(len(bits), *self.last_shape)
        for layer in self.decoder.layers[dense:]:
            x = spread_channels(layer(jax.nn.relu(x)))
        height, width, _ = self.image_shape
        return self.restore(x[:, :height, :width])

    def init_output_bias(self, mean: np.ndarray) -> None:
        """Sets the output bias to the mean color of images, float64 `[h, w, c]`; a trained bias is kept."""
        super().init_output_bias(np.tile(mean.mean(axis=(0, 1)), STRIDE**2) if self.channels else mean)


def default_channels(height: int, width: int) -> tuple[int, ...]:
    """Returns 16, 32, 64, ... for the stages that halve the longer side to at most `MAX_LAST_SIDE`."""
    stages = max(1, math.ceil(math.log2(max(height, width) / MAX_LAST_SIDE)))
    return tuple(min(MAX_CHANNELS, 16 * 2**stage) for stage in range(stages))


def pad_to_stages(images: jax.Array, last_shape: tuple[int, int, int], shrink: int) -> jax.Array:
    """Pads images at the lower and right edge by repetition, so that every stage can halve them."""
    more = (last_shape[0] * shrink - images.shape[1], last_shape[1] * shrink - images.shape[2])
    return jnp.pad(images, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)), mode="edge")


def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves images `[n, h, w, c]` of even height and width: 3x3 windows, stride 2, zero padding.

    On CPU, XLA's convolution is slow inside `lax.scan`, so windows are gathered and multiplied instead. With 256 images
    of 28x28 pixels on two cores, a training step in a scan took 41 ms, not 413. Outside a scan both are equally fast.

    Args:
        images: float32 `[n, h, w, c]`.
        kernel: float32 `[9 c, d]`, the pixels of a window in row-major order.

    Returns:
        float32 `[n, h / 2, w / 2, d]`.
    """
    return lax.platform_dependent(images, kernel, cpu=convolve_by_product, default=convolve_directly)


def convolve_directly(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `convolve` by XLA's convolution."""
    window = kernel.reshape(WINDOW, WINDOW, images.shape[3], -1)
    padding = [(WINDOW // 2, WINDOW // 2)] * 2
    return lax.conv_general_dilated(
        images, window, (STRIDE, STRIDE), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def convolve_by_product(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes `convolve` by a matrix product of all windows."""
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [(row, column) for row in range(WINDOW) for column in range(WINDOW)]
    windows = [padded[:, row : row + height : STRIDE, column : column + width : STRIDE] for row, column in shifts]
    return jnp.concatenate(windows, axis=3) @ kernel


def spread_channels(x: jax.Array) -> jax.Array:
    """Rearranges depth to space, `[n, h, w, 4 c]` to `[n, 2 h, 2 w, c]`."""
    count, height, width, depth = x.shape
    squares = x.reshape(count, height, width, STRIDE, STRIDE, depth // STRIDE**2).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(count, STRIDE * height, STRIDE * width, depth // STRIDE**2)
