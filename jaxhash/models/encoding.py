"""Encoding of images to codes, and decoding of codes to images."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxhash.codes.bits import pack_bits
from jaxhash.codes.weights import MAX_WEIGHT
from jaxhash.core.batching import entry_point, in_batches
from jaxhash.core.checks import is_stream, is_traced
from jaxhash.models.autoencoder import Autoencoder, check_decoder
from jaxhash.models.embedded import Embedded, embed_images
from jaxhash.models.encoder import Encoder
from jaxhash.models.inputs import ITEMS_PER_CHUNK, check_items, check_model, narrow_floats, to_floats
from jaxhash.models.word_counts import scale_to_counts

AnyModel = Encoder | Embedded
# XLA on CPU computes the same values for a row in all batches of at least this many rows. Measured for AVX-512, AVX2
# and SSE4.2, with one thread and two. Padding a single image costs .5 ms (dense layers) to 5 ms (convolutions), and
# 20 ms with a `PatchEncoder`.
MIN_ROWS = 64
# uint32 [..., w] and uint8 [..., b]
CodesAndWeights = tuple[jax.Array, jax.Array]


@overload
def encode(model: AnyModel, images: ArrayLike) -> jax.Array: ...  # type: ignore[overload-overlap]
@overload
def encode(model: AnyModel, images: Iterable[ArrayLike]) -> Iterator[jax.Array]: ...
def encode(model: AnyModel, images: ArrayLike | Iterable[ArrayLike]) -> jax.Array | Iterator[jax.Array]:
    """Computes the codes of images or other items.

    A JAX array of at most 1,024 images stays on its device, and so do its codes. A memory-mapped array is read in
    batches.

    The code of an item depends only on the item and the model, not on its batch. Inside your own `jit` or `vmap`, a
    batch of fewer than 64 rows may change bits whose logits lie within rounding of the threshold, about 1e-5 of a
    deviation.

    Args:
        model: any model, or an `Embedded` for images that a custom network embeds.
        images: `[..., *input_shape]`; for a dense model, any trailing axes with product `input_dim`, such as 28x28 for
            784. uint8 is divided by 255, float or bool is used unchanged; values must be in the range of the training
            items (see `jaxhash.models.input_rule`). Or an iterable of such arrays, such as a generator or data loader.

    Returns:
        uint32 `[..., w]`; for an iterable, a lazy iterator of the codes of each batch, which `build_index` accepts.

    Raises:
        ValueError: the shape does not fit, or a value is not finite or outside the model's input range, [0, 1] for
            sigmoid outputs (the message gives the row within its batch).
        TypeError: images are neither uint8, bool nor floating, or uint8 for a model of other floats.

    Example:
        >>> model = jh.Autoencoder(input_dim=4, num_bits=8, hidden_dims=())
        >>> jh.encode(model, np.zeros((3, 2, 2), np.uint8)).shape
        (3, 1)
    """
    if is_stream(images):
        check_model(model.model if isinstance(model, Embedded) else model)
        return (encode(model, batch) for batch in images)
    return cast(jax.Array, _map_items(encode_items, _compiled_encode, model, cast(ArrayLike, images)))


@overload
def encode_weighted(model: AnyModel, images: ArrayLike) -> CodesAndWeights: ...  # type: ignore[overload-overlap]
@overload
def encode_weighted(model: AnyModel, images: Iterable[ArrayLike]) -> Iterator[CodesAndWeights]: ...
def encode_weighted(
    model: AnyModel, images: ArrayLike | Iterable[ArrayLike]
) -> CodesAndWeights | Iterator[CodesAndWeights]:
    """Computes the codes of images and the confidence of each bit, as codes and weights for `search`.

    The weight of a bit is the distance of its logit from the threshold, scaled so that the most confident bit of an
    image has weight 15. On held-out training images, 32 bits by "retrieve", means of two seeds, these weights raise
    mean average precision from .919 to .946 (MNIST) and from .612 to .638 (Fashion-MNIST), and on features of CIFAR-10,
    one seed, from .286 to .300. Real-valued weights gain no more.

    Args:
        model: as for `encode`.
        images: as for `encode`.

    Returns:
        Codes as from `encode`, uint32 `[..., w]`, and weights, uint8 `[..., b]` from 0 to 15; for an iterable, an
        iterator of such pairs.

    Raises:
        ValueError: as `encode`.
        TypeError: as `encode`.
    """
    if is_stream(images):
        check_model(model.model if isinstance(model, Embedded) else model)
        return (encode_weighted(model, batch) for batch in images)
    return cast(CodesAndWeights, _map_items(encode_items_weighted, _compiled_weighted, model, cast(ArrayLike, images)))


def _map_items(function: Callable[..., Any], compiled: Callable[..., Any], model: AnyModel, images: ArrayLike) -> Any:
    """Applies a function of a model and items to images, and keeps their leading shape."""
    network, images = embed_images(model, images)
    items, lead, _ = check_items(network, images)
    if is_traced(network, images):
        return jax.tree.map(lambda array: array.reshape(*lead, array.shape[-1]), function(network, items))
    found = in_batches(lambda batch: compiled(network, narrow_floats(batch)), items, ITEMS_PER_CHUNK, lead)
    return jax.device_put(found)  # models return JAX arrays for any input


def reconstruct(model: Autoencoder, images: ArrayLike) -> jax.Array:
    """Encodes and decodes images: float32 of the same shape. Takes arrays as `encode`, but no iterables.

    For word counts ("softmax" outputs), returns the expected counts in documents of the same lengths.

    Raises:
        ValueError: as `encode`.
        TypeError: as `encode`, or the model has no decoder.
    """
    check_decoder(model)
    items, lead, item_shape = check_items(model, images)
    if is_traced(model, images):
        return _reconstruct(model, items, item_shape=item_shape).reshape(*lead, *item_shape)
    found = in_batches(
        lambda batch: _compiled_reconstruct(model, narrow_floats(batch), item_shape=item_shape),
        items,
        ITEMS_PER_CHUNK,
        lead,
    )
    return jax.device_put(found)


def in_full_batches(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pads small batches of `function(model, items)` with zeros, so that a row's result does not depend on the batch.

    For programs called from Python. In a caller's `jit` or `vmap`, padding would be paid for every item.
    """

    def call(model: Encoder, items: jax.Array, **options: Any) -> Any:
        missing = max(0, MIN_ROWS - len(items))
        padded = jnp.pad(items, [(0, missing)] + [(0, 0)] * (items.ndim - 1))
        return jax.tree.map(lambda array: array[: len(items)], function(model, padded, **options))

    return call


def encode_items(model: Encoder, items: jax.Array) -> jax.Array:
    """Computes the codes uint32 `[n, w]` of checked items `[n, *input_shape]`; traceable."""
    return pack_bits(compute_bits(model, to_floats(items)))


def encode_items_weighted(model: Encoder, items: jax.Array) -> CodesAndWeights:
    """Computes codes and weights of checked items `[n, *input_shape]`; traceable."""
    logits, thresholds = model.code_logits(to_floats(items)), model.thresholds[None]
    return pack_bits(logits > thresholds), weigh_logits(logits - thresholds)


def weigh_logits(logits: jax.Array) -> jax.Array:
    """Computes the weights of bits, uint8 `[n, b]`, from code logits minus thresholds, `[n, b]`."""
    # Logits may overflow; and XLA may multiply by the reciprocal of the largest, which must not underflow.
    sizes = jnp.minimum(jnp.nan_to_num(jnp.abs(logits)), 2.0**100)
    largest = sizes.max(1, keepdims=True)
    shares = sizes / jnp.where(largest > 0, largest, 1)
    return jnp.minimum(jnp.ceil(MAX_WEIGHT * shares), MAX_WEIGHT).astype(jnp.uint8)


def compute_bits(model: Encoder, items: jax.Array) -> jax.Array:
    """Computes the bits, bool `[n, b]`, of float32 items `[n, *input_shape]`.

    Logits are compared with the mean stored in the model. Their spread does not matter: rounding the sigmoid of a
    standardized logit depends only on its sign.
    """
    return model.code_logits(items) > model.thresholds[None]


def _reconstruct(model: Autoencoder, items: jax.Array, *, item_shape: tuple[int, ...]) -> jax.Array:
    inputs = to_floats(items)
    outputs = model.activation(model.output_logits(compute_bits(model, inputs).astype(jnp.float32)))
    images = scale_to_counts(outputs, inputs) if model.output_activation == "softmax" else outputs
    return images.reshape(-1, *item_shape)


_compiled_encode = entry_point(in_full_batches(encode_items))
_compiled_weighted = entry_point(in_full_batches(encode_items_weighted))
_compiled_reconstruct = entry_point(in_full_batches(_reconstruct), "item_shape")
