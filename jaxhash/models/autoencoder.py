"""The dense autoencoder of the source post, with a layer of bits in its middle.

"Image search with autoencoders" (2018) stacks dense layers, 784-1000-700-300-150-75-17 and back, rounds the sigmoid
outputs of the middle one, and trains on reconstruction. As it stands, that network collapses: with Glorot
initialisation all its bits died and every image got one code. Two things keep the bits alive here: He initialisation,
and code logits standardised over the batch (Ioffe and Szegedy 2015, arXiv:1502.03167, without the learned scale and
shift, which could undo it), so that each bit parts the images in about equal halves.
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

# One object for all models: it is part of what compiled programs are looked up by.
HE_NORMAL = nnx.initializers.he_normal()


class Autoencoder(nnx.Module):
    """A dense autoencoder with a binary code layer.

    Args:
        input_dim: how many values one item has; 784 for images of 28x28 pixels.
        num_bits: how many bits a code has, `b`.
        hidden_dims: widths of the encoder's layers up to but not including the code layer; the decoder mirrors them.
        output_activation: a name in `OUTPUT_ACTIVATIONS`, or a function (such a model can't be saved). "sigmoid" is for
            values in [0, 1] and learns by binary cross-entropy; "softmax" is for word counts (see `jaxhash.documents`)
            and learns by theirs; all others learn by squared error.
        rngs: random keys for the initial weights; by default `nnx.Rngs(0)`.
    """

    def __init__(
        self,
        input_dim: int,
        num_bits: int,
        hidden_dims: Sequence[int] = (1000, 700, 300, 150, 75),
        *,
        output_activation: str | Activation = "sigmoid",
        rngs: nnx.Rngs | None = None,
    ):
        self.input_dim = check_integer("input_dim", input_dim, 1)
        self.num_bits = check_num_bits(num_bits)
        self.hidden_dims = tuple(check_integer("hidden_dims", width, 1) for width in hidden_dims)
        self.output_activation = check_activation(output_activation)
        rngs = nnx.Rngs(0) if rngs is None else rngs
        widths = (self.input_dim, *self.hidden_dims, self.num_bits)
        self.encoder = nnx.Sequential(*make_dense_layers(widths, rngs))
        self.decoder = nnx.Sequential(*make_dense_layers(widths[::-1], rngs))
        self.logit_mean = nnx.BatchStat(jnp.zeros(self.num_bits, jnp.float32))
        self.input_rule = nnx.BatchStat(jnp.asarray(make_untrained_rule(self.output_activation)))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one item."""
        return (self.input_dim,)

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an item may have this shape."""
        return math.prod(shape) == self.input_dim

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape."""
        return {
            "input_dim": self.input_dim,
            "num_bits": self.num_bits,
            "hidden_dims": self.hidden_dims,
            "output_activation": self.output_activation,
        }

    @property
    def layer_shapes(self) -> list[tuple[int, ...]]:
        """The shape of one item after each layer."""
        return [(width,) for width in (*self.hidden_dims, self.num_bits, *self.hidden_dims[::-1], self.input_dim)]

    def code_logits(self, items: jax.Array) -> jax.Array:
        """Float32 items `[n, input_dim]` to the outputs of the code layer before standardisation, `[n, b]`."""
        inputs = normalize_lengths(items) if self.output_activation == "softmax" else items
        return apply_layers(self.encoder.layers, inputs)

    def output_logits(self, bits: jax.Array) -> jax.Array:
        """Bits as float32 `[n, b]` to the outputs before their activation, `[n, input_dim]`."""
        return apply_layers(self.decoder.layers, bits)

    def init_output_bias(self, mean: np.ndarray) -> None:
        """Lets outputs start from the items' mean, float64 `[*input_shape]`, unless they have been trained.

        From zero, the first hundreds of steps would go into learning it, through bits that are not needed for it.
        """
        bias = self.output_bias
        if self.output_activation == "sigmoid":
            share = np.clip(mean, 1e-3, 1 - 1e-3)
            mean = np.log(share / (1 - share))
        elif self.output_activation == "softmax":
            mean = compute_log_shares(mean)
        elif self.output_activation != "linear":
            return
        if not bias[...].any():
            bias[...] = jnp.asarray(mean.reshape(-1, *bias.shape).mean(axis=0), jnp.float32)

    @property
    def output_bias(self) -> Any:
        """The bias of the last layer."""
        last: Any = self.decoder.layers[-1]
        return last.bias

    def activation(self, logits: jax.Array) -> jax.Array:
        """The output activation as a function."""
        function = self.output_activation
        return OUTPUT_ACTIVATIONS[function](logits) if isinstance(function, str) else function(logits)


def check_activation(activation: str | Activation) -> str | Activation:
    """Raises unless this is a function or the name of one."""
    if not callable(activation) and activation not in OUTPUT_ACTIVATIONS:
        names = ", ".join(OUTPUT_ACTIVATIONS)
        raise ValueError(f"output_activation must be a function or one of {names}, got {activation!r}")
    return activation


def make_dense_layers(widths: Sequence[int], rngs: nnx.Rngs) -> list[nnx.Linear]:
    """Layers between these widths."""
    return [nnx.Linear(a, b, kernel_init=HE_NORMAL, rngs=rngs) for a, b in pairwise(widths)]


def apply_layers(layers: Sequence[Any], x: jax.Array) -> jax.Array:
    """Passes x through layers with rectifiers between them."""
    *hidden, last = layers
    for layer in hidden:
        x = jax.nn.relu(layer(x))
    return last(x)


def summary(model: Autoencoder) -> None:
    """Prints the layers of a model, their output shapes and numbers of parameters."""
    layers = [*model.encoder.layers, *model.decoder.layers]
    rows = [("input", model.input_shape, 0)]
    for number, (layer, shape) in enumerate(zip(layers, model.layer_shapes, strict=True), start=1):
        parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)))
        rows.append((f"layer {number}", shape, parameters))
        if number == len(model.encoder.layers):
            rows.append(("round to bits", shape, 0))
    print(f"{'layer':<16}{'output shape':<20}{'parameters':>12}")
    for name, shape, parameters in rows:
        print(f"{name:<16}{'(n, ' + ', '.join(map(str, shape)) + ')':<20}{parameters:>12,}")
    print(f"{'total':<36}{sum(row[2] for row in rows):>12,}")
