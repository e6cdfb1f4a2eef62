"""The dense autoencoder of the source post, with a layer of bits in its middle.

"Image search with autoencoders" (2018) stacks dense layers, 784-1000-700-300-150-75-17 and back, rounds the sigmoid
outputs of the middle one, and trains on reconstruction. As it stands, that network collapses: with Glorot
initialisation all its bits died and every image got one code. Two things keep the bits alive here: He initialisation,
and code logits standardised over the batch (Ioffe and Szegedy 2015, arXiv:1502.03167, without the learned scale and
shift, which could undo it), so that each bit parts the images in about equal halves.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, cast, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from jaxhash.codes.bits import pack_bits
from jaxhash.core.batching import entry_point, in_batches
from jaxhash.core.checks import check_integer, check_num_bits, dtype_of, is_stream, is_traced
from jaxhash.models.inputs import check_values, make_untrained_rule
from jaxhash.models.word_counts import compute_log_shares, normalize_lengths, scale_to_counts

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

# Items that pass through the network at a time when the caller is Python.
ITEMS_AT_ONCE = 1024


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


def compute_bits(model: Autoencoder, items: jax.Array) -> jax.Array:
    """The bits of float32 items `[n, *input_shape]`: bool `[n, b]`.

    Standardised by the mean stored with the model. The spread does not matter: rounding the sigmoid of a standardised
    logit asks only for its sign.
    """
    return model.code_logits(items) > model.logit_mean[...][None]


def to_floats(items: jax.Array) -> jax.Array:
    """Items as the network sees them, float32: bytes are divided by 255, other numbers stay as they are."""
    return items.astype(jnp.float32) / 255.0 if items.dtype == jnp.uint8 else items.astype(jnp.float32)


@overload
def encode(model: Autoencoder, images: ArrayLike) -> jax.Array: ...  # type: ignore[overload-overlap]
@overload
def encode(model: Autoencoder, images: Iterable[ArrayLike]) -> Iterator[jax.Array]: ...
def encode(model: Autoencoder, images: ArrayLike | Iterable[ArrayLike]) -> jax.Array | Iterator[jax.Array]:
    """Computes the codes of images, or of any vectors.

    Args:
        model: an autoencoder.
        images: `[..., *input_shape]`; for a dense model the last axes may be any whose product is `input_dim`, such as
            28x28 for 784. uint8 is divided by 255, float (or bool) taken as it is; both must be like what the model
            was trained on (see `jaxhash.input_rule`). An array that is mapped from a file is never copied whole. Or an
            iterable of such arrays: a generator, or a data loader.

    Returns:
        uint32 `[..., w]`; of an iterable, an iterator of the codes of each batch, which `build_index` takes. It takes
        a batch only when asked for its codes.

    Raises:
        ValueError: the shape does not fit; a value is NaN or infinite, or lies outside what the model takes, which is
            [0, 1] for sigmoid outputs (the message names the row, counted in its batch).
        TypeError: images are neither uint8, bool nor floating; or uint8 where the model was trained on other floats.
    """
    if is_stream(images):
        check_model(model)
        return (encode(model, batch) for batch in images)
    items, lead, _ = _checked_rows(model, cast(ArrayLike, images))
    if is_traced(model, images):
        codes = encode_items(model, items)
        return codes.reshape(*lead, codes.shape[-1])
    return in_batches(lambda batch: _compiled_encode(model, _narrowed(batch)), items, ITEMS_AT_ONCE, lead)


def reconstruct(model: Autoencoder, images: ArrayLike) -> jax.Array:
    """Encodes and decodes images: float32 of the same shape; takes the arrays that `encode` takes, but no iterable.

    Of word counts, for "softmax" outputs, it gives the counts to be expected in documents of the same lengths.
    """
    items, lead, item_shape = check_items(model, images)
    if is_traced(model, images):
        return _reconstruct(model, items).reshape(*lead, *item_shape)
    outputs = in_batches(lambda batch: _compiled_reconstruct(model, batch), items, ITEMS_AT_ONCE)
    return jax.device_put(np.asarray(outputs).reshape(*lead, *item_shape))


def encode_items(model: Autoencoder, items: jax.Array) -> jax.Array:
    """What `encode` computes for items `[n, *input_shape]`, without its checks; for tracing."""
    return pack_bits(compute_bits(model, to_floats(items)))


def _reconstruct(model: Autoencoder, items: jax.Array) -> jax.Array:
    inputs = to_floats(items)
    outputs = model.activation(model.output_logits(compute_bits(model, inputs).astype(jnp.float32)))
    return scale_to_counts(outputs, inputs) if model.output_activation == "softmax" else outputs


_compiled_encode = entry_point(encode_items)
_compiled_reconstruct = entry_point(_reconstruct)


def check_items(
    model: Autoencoder, images: ArrayLike, *, new_kind: bool = False
) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """Checks images and lays them out one item a row; `new_kind` leaves out what the model was trained on.

    Returns:
        Items `[n, *input_shape]`, numpy if their values are known; the leading axes of `images`; and the shape of one
        item there.
    """
    items, lead, item_shape = _checked_rows(model, images, new_kind)
    return items if is_traced(images) else _narrowed(items), lead, item_shape


def _checked_rows(
    model: Autoencoder, images: ArrayLike, new_kind: bool = False
) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """What `check_items` gives, but for numbers of other widths, which stay as they are."""
    check_model(model)
    if hasattr(images, "toarray"):
        raise TypeError(
            f"images must be a dense array, got {type(images).__name__}: use .toarray(), some rows at a time"
        )
    dtype = dtype_of(images)
    if dtype != np.uint8 and dtype != np.bool_ and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"images must be uint8 (0 to 255), bool or floating, got dtype {dtype}")
    lead, item_shape = _split_shape(np.shape(images), model)
    shape = (math.prod(lead), *model.input_shape)
    stored = model.input_rule[...]
    rule = make_untrained_rule(model.output_activation) if new_kind or is_traced(stored) else np.asarray(stored)
    if dtype == np.uint8 and model.output_activation == "softmax":
        raise TypeError("counts must be floating, got dtype uint8, which is divided by 255")
    if dtype == np.uint8 and not rule[2]:
        raise TypeError("images must be floating, scaled as those this model was trained on, got dtype uint8")
    if is_traced(images):
        return jnp.asarray(images).reshape(shape), lead, item_shape
    items = np.asarray(images).reshape(shape)
    if dtype != np.uint8 and dtype != np.bool_:
        # Some at a time: a check of all would take up a quarter of the room of the items, which may fill the disk.
        for start in range(0, len(items), ITEMS_AT_ONCE):
            check_values(rule, _narrowed(items[start : start + ITEMS_AT_ONCE]), start)
    return items, lead, item_shape


def check_model(model: Autoencoder) -> None:
    """Raises unless this is an autoencoder."""
    if not isinstance(model, Autoencoder):
        raise TypeError(f"model must be an Autoencoder, got {type(model).__name__}")


def _narrowed(items: np.ndarray) -> np.ndarray:
    """Floating numbers as float32; what overflows becomes infinite, and is refused as that."""
    if items.dtype == np.uint8 or items.dtype == np.bool_:
        return items
    with np.errstate(over="ignore"):
        return items.astype(np.float32, copy=False)


def _split_shape(shape: tuple[int, ...], model: Autoencoder) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Parts `[..., *item]` where the last axes first make up one item."""
    for axis in range(len(shape) - 1, -1, -1):
        if model.takes(shape[axis:]):
            return shape[:axis], shape[axis:]
    wanted = ", ".join(map(str, model.input_shape))
    raise ValueError(f"images must have shape [..., {wanted}] (or last axes of that product), got {shape}")


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
