"""A convolutional autoencoder: for images of any height, width and channels, with few weights where they are large.

Each stage of the encoder halves height and width by windows of 3x3 pixels, two pixels apart; each of the decoder makes
a square of 2x2 of every pixel (Shi and others 2016, "Real-time single image and video super-resolution using an
efficient sub-pixel convolutional neural network", arXiv:1609.05158), without windows, which would double the time of
training. Between them dense layers see the whole image.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxhash.core.checks import check_integer, check_num_bits
from jaxhash.models.autoencoder import Activation, Autoencoder, apply_layers, check_activation, make_dense_layers
from jaxhash.models.input_rule import make_untrained_rule

WINDOW = 3
# Without channels given, there are as many stages as leave at most so many pixels a side.
LAST_SIDE = 8
MOST_CHANNELS = 128


class ConvAutoencoder(Autoencoder):
    """A convolutional autoencoder with a binary code layer.

    Args:
        image_shape: `(h, w)` or `(h, w, c)`; without c, images have one channel.
        num_bits: how many bits a code has, `b`.
        channels: of each stage's output; by default 16, 32, 64, 128, 128, ... until 8x8 pixels are left or fewer.
        hidden_dims: widths of the dense layers between the last stage and the code layer.
        output_activation: as for `Autoencoder`, but for "softmax".
        rngs: random keys for the initial weights; by default `nnx.Rngs(0)`.
    """

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
        if len(image_shape) not in (2, 3):
            raise ValueError(f"image_shape must be (h, w) or (h, w, c), got {tuple(image_shape)}")
        height, width, depth = (*(check_integer("image_shape", side, 1) for side in image_shape), 1)[:3]
        self.image_shape = (height, width, depth)
        self.input_dim = math.prod(self.image_shape)
        self.num_bits = check_num_bits(num_bits)
        channels = default_channels(height, width) if channels is None else channels
        self.channels = tuple(check_integer("channels", count, 1) for count in channels)
        self.hidden_dims = tuple(check_integer("hidden_dims", width, 1) for width in hidden_dims)
        if output_activation == "softmax":
            raise ValueError("output_activation softmax is for word counts: use an Autoencoder for these")
        self.output_activation = check_activation(output_activation)
        rngs = nnx.Rngs(0) if rngs is None else rngs
        flat = math.prod(self.last_shape)
        depths, widths = (depth, *self.channels), (flat, *self.hidden_dims, self.num_bits)
        stages = list(pairwise(depths))
        windows = (make_dense_layers((WINDOW**2 * a, b), rngs)[0] for a, b in stages)
        squares = (make_dense_layers((b, 4 * a), rngs)[0] for a, b in reversed(stages))
        self.encoder = nnx.Sequential(*windows, *make_dense_layers(widths, rngs))
        self.decoder = nnx.Sequential(*make_dense_layers(widths[::-1], rngs), *squares)
        self.logit_mean = nnx.BatchStat(jnp.zeros(self.num_bits, jnp.float32))
        self.input_rule = nnx.BatchStat(jnp.asarray(make_untrained_rule(self.output_activation)))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one item, `(h, w, c)`."""
        return self.image_shape

    @property
    def layer_shapes(self) -> list[tuple[int, ...]]:
        """The shape of one item after each layer; the last is cut to the image's height and width."""
        height, width, depth = self.image_shape
        sizes = [(-(-height // 2**stage), -(-width // 2**stage)) for stage in range(len(self.channels) + 1)]
        images = [(*size, count) for size, count in zip(sizes, (depth, *self.channels), strict=True)]
        dense = [(width,) for width in (*self.hidden_dims, self.num_bits, *self.hidden_dims[::-1])]
        return [*images[1:], *dense, (math.prod(self.last_shape),), *images[-2::-1]]

    @property
    def last_shape(self) -> tuple[int, int, int]:
        """The shape of an item after the last stage, `(h, w, c)`."""
        height, width, depth = self.image_shape
        shrink = 2 ** len(self.channels)
        return -(-height // shrink), -(-width // shrink), self.channels[-1] if self.channels else depth

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an item may have this shape: `(h, w, c)`, `(h, w)` if c is 1, or flat."""
        return shape in (self.image_shape, (self.input_dim,)) or (*shape, 1) == self.image_shape

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape."""
        return {
            "image_shape": self.image_shape,
            "num_bits": self.num_bits,
            "channels": self.channels,
            "hidden_dims": self.hidden_dims,
            "output_activation": self.output_activation,
        }

    def code_logits(self, items: jax.Array) -> jax.Array:
        """Float32 items `[n, h, w, c]` to the outputs of the code layer before standardisation, `[n, b]`."""
        stages = len(self.channels)
        x = _padded_to(items, self.last_shape, 2**stages)
        for layer in self.encoder.layers[:stages]:
            x = jax.nn.relu(layer(_windows(x, 2)))
        return apply_layers(self.encoder.layers[stages:], x.reshape(len(items), -1))

    def output_logits(self, bits: jax.Array) -> jax.Array:
        """Bits as float32 `[n, b]` to the outputs before their activation, `[n, h, w, c]`."""
        dense = len(self.hidden_dims) + 1
        x = apply_layers(self.decoder.layers[:dense], bits).reshape(len(bits), *self.last_shape)
        for layer in self.decoder.layers[dense:]:
            x = _squares(layer(jax.nn.relu(x)))
        height, width, _ = self.image_shape
        return x[:, :height, :width]

    def init_output_bias(self, mean: np.ndarray) -> None:
        """Lets outputs start from the mean colour of images, float64 `[h, w, c]`, unless they have been trained."""
        super().init_output_bias(np.tile(mean.mean(axis=(0, 1)), 4) if self.channels else mean)


def default_channels(height: int, width: int) -> tuple[int, ...]:
    """16, 32, 64, ... for as many stages as halve the longer side to at most `LAST_SIDE`."""
    stages = max(1, math.ceil(math.log2(max(height, width) / LAST_SIDE)))
    return tuple(min(MOST_CHANNELS, 16 * 2**stage) for stage in range(stages))


def _padded_to(images: jax.Array, last_shape: tuple[int, int, int], shrink: int) -> jax.Array:
    """Images with rows below and columns to the right that repeat the edge, until all stages can halve them."""
    more = (last_shape[0] * shrink - images.shape[1], last_shape[1] * shrink - images.shape[2])
    return jnp.pad(images, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)), mode="edge")


def _windows(images: jax.Array, step: int) -> jax.Array:
    """The windows around every `step`-th pixel of `[n, h, w, c]`, each laid out flat: `[n, h / step, w / step, 9 c]`.

    On CPU, a matrix product of these is several times as fast as XLA's convolution and its gradients.
    """
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [(row, column) for row in range(WINDOW) for column in range(WINDOW)]
    return jnp.concatenate(
        [padded[:, row : row + height : step, column : column + width : step] for row, column in shifts], axis=3
    )


def _squares(x: jax.Array) -> jax.Array:
    """Spreads the channels of each pixel over 2x2 pixels: `[n, h, w, 4 c]` to `[n, 2 h, 2 w, c]`."""
    count, height, width, depth = x.shape
    squares = x.reshape(count, height, width, 2, 2, depth // 4).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(count, 2 * height, 2 * width, depth // 4)
