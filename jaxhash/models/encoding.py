"""Images to codes, and codes back to images."""

from collections.abc import Iterable, Iterator
from typing import cast, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxhash.codes.bits import pack_bits
from jaxhash.core.batching import entry_point, in_batches
from jaxhash.core.checks import is_stream, is_traced
from jaxhash.models.autoencoder import Autoencoder
from jaxhash.models.inputs import ITEMS_AT_ONCE, check_items, check_model, narrow_floats, to_floats
from jaxhash.models.word_counts import scale_to_counts


@overload
def encode(model: Autoencoder, images: ArrayLike) -> jax.Array: ...  # type: ignore[overload-overlap]
@overload
def encode(model: Autoencoder, images: Iterable[ArrayLike]) -> Iterator[jax.Array]: ...
def encode(model: Autoencoder, images: ArrayLike | Iterable[ArrayLike]) -> jax.Array | Iterator[jax.Array]:
    """Computes the codes of images, or of any vectors.

    A JAX array of at most 1,024 images stays on its device, and so do its codes. An array that is mapped from a file is
    read in batches.

    Args:
        model: an autoencoder.
        images: `[..., *input_shape]`; for a dense model the last axes may be any whose product is `input_dim`, such as
            28x28 for 784. uint8 is divided by 255, float (or bool) taken as it is; both must be like what the model
            was trained on (see `jaxhash.models.input_rule`). Or an iterable of such arrays, such as a generator or a
            data loader.

    Returns:
        uint32 `[..., w]`; for an iterable, an iterator of the codes of each batch, which `build_index` takes. It draws
        a batch only when asked for its codes.

    Raises:
        ValueError: the shape does not fit; a value is NaN or infinite, or outside the model's input range, which is
            [0, 1] for sigmoid outputs (the message names the row, counted in its batch).
        TypeError: images are neither uint8, bool nor floating; or uint8 where the model was trained on other floats.
    """
    if is_stream(images):
        check_model(model)
        return (encode(model, batch) for batch in images)
    items, lead, _ = check_items(model, cast(ArrayLike, images))
    if is_traced(model, images):
        codes = encode_items(model, items)
        return codes.reshape(*lead, codes.shape[-1])
    return in_batches(lambda batch: _compiled_encode(model, narrow_floats(batch)), items, ITEMS_AT_ONCE, lead)


def reconstruct(model: Autoencoder, images: ArrayLike) -> jax.Array:
    """Encodes and decodes images: float32 of the same shape. Takes the arrays that `encode` takes, but no iterable.

    For word counts ("softmax" outputs), returns the expected counts in documents of the same lengths.
    """
    items, lead, item_shape = check_items(model, images)
    if is_traced(model, images):
        return _reconstruct(model, items, item_shape=item_shape).reshape(*lead, *item_shape)
    return in_batches(
        lambda batch: _compiled_reconstruct(model, narrow_floats(batch), item_shape=item_shape),
        items,
        ITEMS_AT_ONCE,
        lead,
    )


def encode_items(model: Autoencoder, items: jax.Array) -> jax.Array:
    """Computes the codes uint32 `[n, w]` of checked items `[n, *input_shape]`; traceable."""
    return pack_bits(compute_bits(model, to_floats(items)))


def compute_bits(model: Autoencoder, items: jax.Array) -> jax.Array:
    """Computes the bits, bool `[n, b]`, of float32 items `[n, *input_shape]`.

    Logits are compared with the mean stored in the model. Their spread does not matter: rounding the sigmoid of a
    standardised logit depends only on its sign.
    """
    return model.code_logits(items) > model.logit_mean[...][None]


def _reconstruct(model: Autoencoder, items: jax.Array, *, item_shape: tuple[int, ...]) -> jax.Array:
    inputs = to_floats(items)
    outputs = model.activation(model.output_logits(compute_bits(model, inputs).astype(jnp.float32)))
    images = scale_to_counts(outputs, inputs) if model.output_activation == "softmax" else outputs
    return images.reshape(-1, *item_shape)


_compiled_encode = entry_point(encode_items)
_compiled_reconstruct = entry_point(_reconstruct, "item_shape")
