"""The calls of a model: images to codes, and codes back to images."""

from collections.abc import Iterable, Iterator
from typing import cast, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.bits import pack_bits
from jaxhash.core.batching import entry_point, in_batches
from jaxhash.core.checks import is_stream, is_traced
from jaxhash.models.autoencoder import Autoencoder
from jaxhash.models.inputs import ITEMS_AT_ONCE, _checked_rows, _narrowed, check_items, check_model, to_floats
from jaxhash.models.word_counts import scale_to_counts


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


def compute_bits(model: Autoencoder, items: jax.Array) -> jax.Array:
    """The bits of float32 items `[n, *input_shape]`: bool `[n, b]`.

    Standardised by the mean stored with the model. The spread does not matter: rounding the sigmoid of a standardised
    logit asks only for its sign.
    """
    return model.code_logits(items) > model.logit_mean[...][None]
