"""The dense autoencoder of the source post, with a binary code layer.

"Image search with autoencoders" (2018) stacks dense layers, 784-1000-700-300-150-75-17 and back, rounds the sigmoid
outputs of the middle layer, and trains on reconstruction. That network collapses: with Glorot initialization all its
bits became constant, and every image got the same code. Here He initialization and batch normalization of the code
logits (Ioffe and Szegedy 2015, arXiv:1502.03167) prevent this: each bit splits the images into about equal halves.
The normalization has no learned scale and shift, which could undo it.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxhash.models.encoder import Activation, DenseEncoder, Encoder, apply_layers, make_dense_layers
from jaxhash.models.image_shape import check_image_shape
from jaxhash.models.word_counts import compute_log_shares

OUTPUT_ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": jax.nn.sigmoid,
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
    "softmax": jax.nn.softmax,
}


class Autoencoder(DenseEncoder):
    """A dense autoencoder with a binary code layer.

    Args:
        input_dim: number of values of one item; 784 for images of 28x28 pixels.
        num_bits: number of bits of a code, `b`.
        hidden_dims: widths of the encoder's layers before the code layer; the decoder mirrors them.
        output_activation: a name in `OUTPUT_ACTIVATIONS`, or a function (such a model can't be saved). "sigmoid" is for
            values in [0, 1] and trains with binary cross-entropy. "softmax" is for word counts and trains with their
            cross-entropy (see `jaxhash.models.word_counts`). All others train with squared error. "linear" is for
            vectors of any mean and scale: `fit` measures both, and the model stores them.
        image_shape: `(h, w)` or `(h, w, c)` of flattened images, to augment them as images in training. Not needed for
            images `[n, h, w]` or `[n, h, w, c]`.
        rngs: random keys for the initial weights; by default `nnx.Rngs(0)`.
    """

    def __init__(
        self,
        input_dim: int,
        num_bits: int,
        hidden_dims: Sequence[int] = (1000, 700, 300, 150, 75),
        *,
        output_activation: str | Activation = "sigmoid",
        image_shape: Sequence[int] | None = None,
        rngs: nnx.Rngs | None = None,
    ):
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.output_activation = check_activation(output_activation)
        super().__init__(input_dim, num_bits, hidden_dims, rngs=rngs)
        self.decoder = nnx.Sequential(
            *make_dense_layers((self.num_bits, *self.hidden_dims[::-1], self.input_dim), rngs)
        )
        self.image_shape = None if image_shape is None else check_image_shape(image_shape)
        if self.image_shape and math.prod(self.image_shape) != self.input_dim:
            raise ValueError(f"image_shape must have input_dim={self.input_dim} values, got {image_shape}")

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments, except `rngs`."""
        return {
            "input_dim": self.input_dim,
            "num_bits": self.num_bits,
            "hidden_dims": self.hidden_dims,
            "output_activation": self.output_activation,
            "image_shape": self.image_shape,
        }

    @property
    def layers(self) -> list[Any]:
        """All layers of the encoder, then of the decoder."""
        return [*self.encoder.layers, *self.decoder.layers]

    @property
    def layer_shapes(self) -> list[tuple[int, ...]]:
        """The shape of one item after each layer."""
        return [(width,) for width in (*self.hidden_dims, self.num_bits, *self.hidden_dims[::-1], self.input_dim)]

    def output_logits(self, bits: jax.Array) -> jax.Array:
        """Decodes float32 bits `[n, b]` to outputs before the activation, `[n, input_dim]`."""
        return self.restore(apply_layers(self.decoder.layers, bits))

    def restore(self, outputs: jax.Array) -> jax.Array:
        """Inverts `standardize`."""
        if self.output_activation != "linear":
            return outputs
        return outputs * self.input_scale[...] + self.input_shift[...][None]

    @property
    def has_weights(self) -> bool:
        """Whether the model has been trained: untrained, the output bias is zero."""
        return self.is_scaled or bool(self.output_bias[...].any())

    def init_from(self, sample: np.ndarray) -> None:
        """Initializes a new model from a sample of items `[s, ...]`, of the dtype given to `fit`."""
        super().init_from(sample)
        mean = sample.mean(axis=0, dtype=np.float64)
        self.init_output_bias(mean / (255 if sample.dtype == np.uint8 else 1))

    def init_output_bias(self, mean: np.ndarray) -> None:
        """Sets the output bias so that outputs start at the items' mean, float64 `[*input_shape]`.

        From zero, the first hundreds of steps would only learn the mean. A trained bias is kept.
        """
        bias = self.output_bias
        if self.output_activation == "sigmoid":
            share = np.clip(mean, 1e-3, 1 - 1e-3)
            mean = np.log(share / (1 - share))
        elif self.output_activation == "softmax":
            mean = compute_log_shares(mean)
        elif self.output_activation != "linear" or self.is_scaled:
            return  # the mean of standardized items is zero
        if not bias[...].any():
            bias[...] = jnp.asarray(mean.reshape(-1, *bias.shape).mean(axis=0), jnp.float32)

    @property
    def output_bias(self) -> Any:
        """The bias of the last layer."""
        last: Any = self.decoder.layers[-1]
        return last.bias

    def activation(self, logits: jax.Array) -> jax.Array:
        """Applies the output activation."""
        function = self.output_activation
        return OUTPUT_ACTIVATIONS[function](logits) if isinstance(function, str) else function(logits)


def check_activation(activation: str | Activation) -> str | Activation:
    """Checks that an output activation is a function or a known name, and returns it."""
    if not callable(activation) and activation not in OUTPUT_ACTIVATIONS:
        names = ", ".join(OUTPUT_ACTIVATIONS)
        raise ValueError(f"output_activation must be a function or one of {names}, got {activation!r}")
    return activation


def check_decoder(model: Encoder) -> Autoencoder:
    """Checks that a model has a decoder, and returns it."""
    if not isinstance(model, Autoencoder):
        raise TypeError(
            f"model must be an Autoencoder, which has a decoder, got {type(model).__name__}: without one, codes can be "
            "searched but not decoded"
        )
    return model


def summary(model: Encoder) -> str:
    """Returns a printable table of a model's layers, their output shapes and parameter counts."""
    # `nnx.tabulate` requires `__call__`. Given a wrapper with one, it takes 120 columns and 57 lines for eight layers,
    # truncates their names, and omits the rounding between them.
    layers = list_layers(model)
    lines = [f"{'layer':<16}{'output shape':<20}{'parameters':>12}"]
    for name, shape, parameters in layers:
        lines.append(f"{name:<16}{'(n, ' + ', '.join(map(str, shape)) + ')':<20}{parameters:>12,}")
    lines.append(f"{'total':<36}{sum(parameters for *_, parameters in layers):>12,}")
    return "\n".join(lines)


def list_layers(model: Encoder) -> list[tuple[str, tuple[int, ...], int]]:
    """Lists name, output shape and parameter count of the input, each layer and the rounding."""
    part, rows = model.trained_part, [("input", model.input_shape, 0), *model.fixed_layers]
    num_before = len(rows) + len(part.encoder.layers)
    for number, (layer, shape) in enumerate(zip(part.layers, part.layer_shapes, strict=True), start=1):
        rows.append((f"layer {number}", shape, sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)))))
    rows.insert(num_before, ("round to bits", (model.num_bits,), 0))
    return rows
