"""The dense autoencoder of the source post, with a binary code layer.

"Image search with autoencoders" (2018) stacks dense layers, 784-1000-700-300-150-75-17 and back, rounds the sigmoid
outputs of the middle one, and trains on reconstruction. That network collapses: with Glorot initialisation all its bits
became constant, and every image got the same code. Here He initialisation and batch normalisation of the code logits
(Ioffe and Szegedy 2015, arXiv:1502.03167) prevent this, so that each bit splits the images into about equal halves. The
learned scale and shift are left out, since they could undo it.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxhash.core.checks import check_integer, check_num_bits
from jaxhash.models.image_shape import check_image_shape
from jaxhash.models.initial_weights import he_normal, zeros
from jaxhash.models.input_rule import make_untrained_rule
from jaxhash.models.word_counts import compute_log_shares, normalize_lengths

Activation = Callable[[jax.Array], jax.Array]

OUTPUT_ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": jax.nn.sigmoid,
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
    "softmax": jax.nn.softmax,
}

ITEMS_IN_BLOCK = 2**12


class Autoencoder(nnx.Module):
    """A dense autoencoder with a binary code layer.

    Args:
        input_dim: the number of values of one item; 784 for images of 28x28 pixels.
        num_bits: the number of bits of a code, `b`.
        hidden_dims: widths of the encoder's layers before the code layer; the decoder mirrors them.
        output_activation: a name in `OUTPUT_ACTIVATIONS`, or a function (such a model can't be saved). "sigmoid" is for
            values in [0, 1] and trains by binary cross-entropy. "softmax" is for word counts and trains by their
            cross-entropy (see `jaxhash.models.word_counts`). All others train by squared error. "linear" is for
            vectors of any mean and scale: `fit` measures both, and the model holds them.
        image_shape: `(h, w)` or `(h, w, c)` of images that come laid flat: training warps them as images. Those that
            come as `[n, h, w]` or `[n, h, w, c]` need none.
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
        self.input_dim = check_integer("input_dim", input_dim, 1)
        self.num_bits = check_num_bits(num_bits)
        self.hidden_dims = tuple(check_integer("hidden_dims", width, 1) for width in hidden_dims)
        self.output_activation = check_activation(output_activation)
        self.image_shape: Any = None if image_shape is None else check_image_shape(image_shape)
        if self.image_shape and math.prod(self.image_shape) != self.input_dim:
            raise ValueError(f"image_shape must hold input_dim={self.input_dim} values, got {image_shape}")
        rngs = nnx.Rngs(0) if rngs is None else rngs
        widths = (self.input_dim, *self.hidden_dims, self.num_bits)
        self.encoder = nnx.Sequential(*make_dense_layers(widths, rngs))
        self.decoder = nnx.Sequential(*make_dense_layers(widths[::-1], rngs))
        self._init_statistics()

    def _init_statistics(self) -> None:
        """Sets what training measures."""
        self.logit_mean = nnx.BatchStat(jnp.zeros(self.num_bits, jnp.float32))
        self._init_input_statistics()

    def _init_input_statistics(self) -> None:
        self.input_rule = nnx.BatchStat(jnp.asarray(make_untrained_rule(self.output_activation)))
        self.input_shift = nnx.BatchStat(jnp.zeros(self.input_shape, jnp.float32))
        self.input_scale = nnx.BatchStat(jnp.ones((), jnp.float32))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one item."""
        return (self.input_dim,)

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Returns whether an item may have this shape."""
        return math.prod(shape) == self.input_dim

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make such a model."""
        return {
            "input_dim": self.input_dim,
            "num_bits": self.num_bits,
            "hidden_dims": self.hidden_dims,
            "output_activation": self.output_activation,
            "image_shape": self.image_shape,
        }

    @property
    def layer_shapes(self) -> list[tuple[int, ...]]:
        """The shape of one item after each layer."""
        return [(width,) for width in (*self.hidden_dims, self.num_bits, *self.hidden_dims[::-1], self.input_dim)]

    @property
    def fixed_layers(self) -> list[tuple[str, tuple[int, ...], int]]:
        """Name, shape of one output and number of values of each layer that is not trained."""
        return []

    @property
    def has_decoder(self) -> bool:
        """Whether the model makes items of codes."""
        return bool(self.decoder.layers)

    def code_logits(self, items: jax.Array) -> jax.Array:
        """Computes the code layer's outputs before normalisation, `[n, b]`, of float32 items `[n, input_dim]`."""
        inputs = normalize_lengths(items) if self.output_activation == "softmax" else self.standardize(items)
        return apply_layers(self.encoder.layers, inputs)

    def scale_logits(self, factors: np.ndarray) -> None:
        """Multiplies each code logit and its threshold by a positive factor, float32 `[b]`: bits stay as they are.

        Powers of two are exact.
        """
        last: Any = self.encoder.layers[-1]
        last.kernel = nnx.Param(last.kernel[...] * factors[None])
        last.bias = nnx.Param(last.bias[...] * factors)
        self.logit_mean = nnx.BatchStat(self.logit_mean[...] * factors)

    def output_logits(self, bits: jax.Array) -> jax.Array:
        """Computes the outputs before their activation, `[n, input_dim]`, of bits as float32 `[n, b]`."""
        return self.restore(apply_layers(self.decoder.layers, bits))

    def standardize(self, items: jax.Array) -> jax.Array:
        """Subtracts the shift from items and divides by the scale, if outputs are linear."""
        if self.output_activation != "linear":
            return items
        return (items - self.input_shift[...][None]) / self.input_scale[...]

    def restore(self, outputs: jax.Array) -> jax.Array:
        """Reverses `standardize`."""
        if self.output_activation != "linear":
            return outputs
        return outputs * self.input_scale[...] + self.input_shift[...][None]

    @property
    def is_scaled(self) -> bool:
        """Whether the model holds a shift or scale of its items."""
        return bool(self.input_shift[...].any()) or float(self.input_scale[...]) != 1

    @property
    def has_weights(self) -> bool:
        """Whether the model has been trained or pre-trained: its output bias, which starts at zero, tells."""
        return self.is_scaled or bool(self.output_bias[...].any())

    def init_scaling(self, sample: np.ndarray) -> None:
        """Sets shift and scale to the mean of float items `[s, *input_shape]` and to one deviation of all values.

        One deviation for all keeps the proportions of distances. A trained model keeps its shift and scale. Bytes and
        outputs that are not linear need none.
        """
        if self.output_activation != "linear" or sample.dtype in (np.uint8, np.bool_) or self.has_weights:
            return
        shift = sample.mean(axis=0, dtype=np.float64)
        # In blocks: the differences of all items would take twice the memory of the items.
        blocks = np.array_split(sample, -(-len(sample) // ITEMS_IN_BLOCK))
        variance = sum(float(np.square(block - shift).sum()) for block in blocks) / sample.size
        self.input_shift[...] = jnp.asarray(shift, jnp.float32)
        self.input_scale[...] = jnp.asarray(math.sqrt(variance) or 1.0, jnp.float32)

    def init_output_bias(self, mean: np.ndarray) -> None:
        """Sets the output bias so that outputs start at the items' mean, float64 `[*input_shape]`.

        From zero, the first hundreds of training steps would go into learning the mean. A trained bias is kept.
        """
        bias = self.output_bias
        if self.output_activation == "sigmoid":
            share = np.clip(mean, 1e-3, 1 - 1e-3)
            mean = np.log(share / (1 - share))
        elif self.output_activation == "softmax":
            mean = compute_log_shares(mean)
        elif self.output_activation != "linear" or self.is_scaled:
            return  # the mean of standardised items is zero
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
    """Returns an output activation, or raises `ValueError` unless it is a function or a known name."""
    if not callable(activation) and activation not in OUTPUT_ACTIVATIONS:
        names = ", ".join(OUTPUT_ACTIVATIONS)
        raise ValueError(f"output_activation must be a function or one of {names}, got {activation!r}")
    return activation


def make_dense_layers(widths: Sequence[int], rngs: nnx.Rngs) -> list[nnx.Linear]:
    """Makes dense layers from each width to the next."""
    return [nnx.Linear(a, b, kernel_init=he_normal, bias_init=zeros, rngs=rngs) for a, b in pairwise(widths)]


def apply_layers(layers: Sequence[Any], x: jax.Array) -> jax.Array:
    """Applies layers, with rectifiers between them."""
    *hidden, last = layers
    for layer in hidden:
        x = jax.nn.relu(layer(x))
    return last(x)


def summary(model: Autoencoder) -> str:
    """Returns a table of the layers of a model, their output shapes and numbers of parameters, to be printed."""
    # `nnx.tabulate` cannot follow a model without `__call__`. Given a wrapper with one, it needs 120 columns and 57
    # lines for eight layers, cuts their names off, and knows nothing of the rounding between them.
    layers = list_layers(model)
    lines = [f"{'layer':<16}{'output shape':<20}{'parameters':>12}"]
    for name, shape, parameters in layers:
        lines.append(f"{name:<16}{'(n, ' + ', '.join(map(str, shape)) + ')':<20}{parameters:>12,}")
    lines.append(f"{'total':<36}{sum(parameters for *_, parameters in layers):>12,}")
    return "\n".join(lines)


def list_layers(model: Autoencoder) -> list[tuple[str, tuple[int, ...], int]]:
    """Lists name, shape of one output and number of parameters of the input, the layers and the rounding."""
    layers = [*model.encoder.layers, *model.decoder.layers]
    rows = [("input", model.input_shape, 0), *model.fixed_layers]
    for number, (layer, shape) in enumerate(zip(layers, model.layer_shapes, strict=True), start=1):
        rows.append((f"layer {number}", shape, sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)))))
    rows.insert(len(rows) - len(model.decoder.layers), ("round to bits", (model.num_bits,), 0))
    return rows
