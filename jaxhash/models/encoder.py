"""`Encoder`, the base class of all models, and `DenseEncoder`."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxhash.core.checks import check_integer, check_num_bits
from jaxhash.models.image_shape import ImageShape
from jaxhash.models.initial_weights import he_normal, zeros
from jaxhash.models.input_rule import make_untrained_rule
from jaxhash.models.word_counts import normalize_lengths

Activation = Callable[[jax.Array], jax.Array]

ITEMS_PER_CHUNK = 2**12


class Encoder(nnx.Module):
    """Base class of all models: maps items to b code logits, and these to bits.

    A bit is 1 if its logit exceeds its threshold, the logit's mean in training. An `Autoencoder` is an encoder with
    a decoder; `PatchEncoder` has none.

    Attributes:
        num_bits: number of bits of a code, `b`.
        output_activation: activation of the decoder's outputs. It also defines the valid items: values in [0, 1] for
            "sigmoid", word counts for "softmax", any finite values for others.
        image_shape: `(h, w, c)` if items are images or are augmented as images in training; else `None`.
        makes_views: whether training uses features of several views of each image, computed once, instead of the
            images. The bits of features are all of one kind, so their logits are not scaled after training.
        input_rule: float32 `[3]`, the range of an item's values (see `jaxhash.models.input_rule`).
        input_shift: float32 `[*input_shape]`, subtracted from items.
        input_scale: float32 `[]`, the divisor of shifted items.
    """

    num_bits: int
    output_activation: str | Activation = "linear"
    image_shape: ImageShape | None = None
    makes_views: ClassVar[bool] = False
    input_rule: nnx.Variable[Any]
    input_shift: nnx.Variable[Any]
    input_scale: nnx.Variable[Any]

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one item."""

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The constructor arguments, except `rngs`."""

    @property
    @abstractmethod
    def trained_part(self) -> "DenseEncoder":
        """The part of the model that gradient steps update."""

    @abstractmethod
    def replace_trained_part(self, part: Any) -> Any:
        """Returns a copy of the model with another trained part."""

    @abstractmethod
    def code_logits(self, items: jax.Array) -> jax.Array:
        """Computes the code layer's outputs before normalization, `[n, b]`, of float32 items `[n, *input_shape]`."""

    @property
    def thresholds(self) -> jax.Array:
        """Thresholds of the bits: means of the code logits in training, float32 `[b]`."""
        return self.trained_part.logit_mean[...]

    @property
    def fixed_layers(self) -> list[tuple[str, tuple[int, ...], int]]:
        """Name, output shape and number of values of each layer before the trained part."""
        return []

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Returns whether a shape fits: also `(h, w)` or flat for an image, any shape of d values for a vector."""
        expected = self.input_shape
        if len(expected) == 1:
            return math.prod(shape) == expected[0]
        return shape in (expected, (math.prod(expected),)) or (*shape, 1) == expected

    def learn_features(self, items: np.ndarray, seed: int) -> None:
        """Learns the layers before the trained part from items `[n, *input_shape]`, unless already learned."""

    def compute_features(self, items: jax.Array) -> jax.Array:
        """Computes the inputs of the trained part from float32 items `[n, *input_shape]`."""
        return items

    def _init_input_statistics(self) -> None:
        self.input_rule = nnx.BatchStat(jnp.asarray(make_untrained_rule(self.output_activation)))
        self.input_shift = nnx.BatchStat(jnp.zeros(self.input_shape, jnp.float32))
        self.input_scale = nnx.BatchStat(jnp.ones((), jnp.float32))


class DenseEncoder(Encoder):
    """Dense layers up to the code layer: the trained part of a `PatchEncoder`, the encoder of an `Autoencoder`.

    Args:
        input_dim: number of values of one item.
        num_bits: number of bits of a code, `b`.
        hidden_dims: widths of the layers before the code layer.
        rngs: random keys for the initial weights.
    """

    def __init__(self, input_dim: int, num_bits: int, hidden_dims: Sequence[int], *, rngs: nnx.Rngs):
        self.input_dim = check_integer("input_dim", input_dim, 1)
        self.num_bits = check_num_bits(num_bits)
        self.hidden_dims = check_widths(hidden_dims)
        self.encoder = nnx.Sequential(*make_dense_layers((self.input_dim, *self.hidden_dims, self.num_bits), rngs))
        self._init_statistics()

    def _init_statistics(self) -> None:
        """Initializes the statistics that training measures."""
        self.logit_mean = nnx.BatchStat(jnp.zeros(self.num_bits, jnp.float32))
        self._init_input_statistics()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one item."""
        return (self.input_dim,)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments, except `rngs`."""
        return {"input_dim": self.input_dim, "num_bits": self.num_bits, "hidden_dims": self.hidden_dims}

    @property
    def trained_part(self) -> "DenseEncoder":
        """The whole model."""
        return self

    def replace_trained_part(self, part: Any) -> Any:
        """Returns `part`, which is the whole model."""
        return part

    @property
    def layers(self) -> list[Any]:
        """All trained layers."""
        return list(self.encoder.layers)

    @property
    def layer_shapes(self) -> list[tuple[int, ...]]:
        """The shape of one item after each layer."""
        return [(width,) for width in (*self.hidden_dims, self.num_bits)]

    def code_logits(self, items: jax.Array) -> jax.Array:
        """Computes the code layer's outputs before normalization, `[n, b]`, of float32 items `[n, input_dim]`."""
        inputs = normalize_lengths(items) if self.output_activation == "softmax" else self.standardize(items)
        return apply_layers(self.encoder.layers, inputs)

    def scale_logits(self, factors: np.ndarray) -> None:
        """Multiplies code logits and thresholds by positive factors, float32 `[b]`, which leaves bits unchanged.

        Powers of two are exact.
        """
        last: Any = self.encoder.layers[-1]
        last.kernel = nnx.Param(last.kernel[...] * factors[None])
        last.bias = nnx.Param(last.bias[...] * factors)
        self.logit_mean = nnx.BatchStat(self.logit_mean[...] * factors)

    def standardize(self, items: jax.Array) -> jax.Array:
        """Shifts and scales items if outputs are linear."""
        if self.output_activation != "linear":
            return items
        return (items - self.input_shift[...][None]) / self.input_scale[...]

    @property
    def is_scaled(self) -> bool:
        """Whether the model has a shift or scale of its items."""
        return bool(self.input_shift[...].any()) or float(self.input_scale[...]) != 1

    @property
    def has_weights(self) -> bool:
        """Whether the model has been trained: training starts by measuring the scale."""
        return self.is_scaled

    def init_from(self, sample: np.ndarray) -> None:
        """Initializes a new model from a sample of items `[s, ...]`, of the dtype given to `fit`."""
        self.init_scaling(sample.reshape(len(sample), *self.input_shape))

    def init_scaling(self, sample: np.ndarray) -> None:
        """Sets the shift to the mean of float items `[s, *input_shape]`, the scale to one deviation of all values.

        A common scale preserves the ratios of distances. A trained model keeps its shift and scale. Bytes and nonlinear
        outputs need none.
        """
        if self.output_activation != "linear" or sample.dtype in (np.uint8, np.bool_) or self.has_weights:
            return
        shift = sample.mean(axis=0, dtype=np.float64)
        # In chunks: the differences of all items would take twice their memory.
        chunks = np.array_split(sample, -(-len(sample) // ITEMS_PER_CHUNK))
        variance = sum(float(np.square(chunk - shift).sum()) for chunk in chunks) / sample.size
        self.input_shift[...] = jnp.asarray(shift, jnp.float32)
        self.input_scale[...] = jnp.asarray(math.sqrt(variance) or 1.0, jnp.float32)


def check_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """Checks the widths of hidden layers, integers of at least 1, and returns them."""
    return tuple(check_integer("hidden_dims", width, 1) for width in widths)


def make_dense_layers(widths: Sequence[int], rngs: nnx.Rngs) -> list[nnx.Linear]:
    """Makes dense layers from each width to the next."""
    return [nnx.Linear(a, b, kernel_init=he_normal, bias_init=zeros, rngs=rngs) for a, b in pairwise(widths)]


def apply_layers(layers: Sequence[Any], x: jax.Array) -> jax.Array:
    """Applies layers with ReLU between them."""
    *hidden, last = layers
    for layer in hidden:
        x = jax.nn.relu(layer(x))
    return last(x)
