"""Losses of training: how well outputs match items, and how codes relate to each other and to features.

Contrast follows Oord, Li and Vinyals 2018, "Representation learning with contrastive predictive coding"
(arXiv:1807.03748).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxhash.core.batching import entry_point, in_batches
from jaxhash.models.autoencoder import Autoencoder, check_decoder
from jaxhash.models.encoder import Encoder
from jaxhash.models.encoding import compute_bits, in_full_batches
from jaxhash.models.inputs import ITEMS_PER_CHUNK, check_items, narrow_floats, to_floats
from jaxhash.models.word_counts import mean_length

# Bits that copy each other in a batch, or are dead in it, have no single best map. Signs have variance 1.
RIDGE = 0.02


def reconstruction_loss(model: Autoencoder, images: ArrayLike) -> float:
    """The mean loss over all values of all images, with the codes that `encode` gives.

    Binary cross-entropy (natural logarithm) for sigmoid outputs, squared error for others; for softmax outputs the
    cross-entropy of all words, averaged over these.

    Raises:
        ValueError: as `encode` does.
        TypeError: as `encode` does, or the model has no decoder.
    """
    check_decoder(model)
    items = narrow_floats(check_items(model, images)[0])
    losses = in_batches(lambda batch: _compiled_losses(model, narrow_floats(batch)), items, ITEMS_PER_CHUNK)
    loss = float(np.asarray(losses).mean(dtype=np.float64))
    return loss / float(mean_length(items)) if model.output_activation == "softmax" else loss


def decoder_loss(model: Encoder, bits: jax.Array, items: jax.Array) -> jax.Array:
    """The mean loss of the outputs for bits `[n, b]`, float32 `[]`; zero of a model without a decoder."""
    if not isinstance(model, Autoencoder):
        return jnp.float32(0)
    return mean_loss(model, model.output_logits(bits), items)


def mean_loss(model: Autoencoder, logits: jax.Array, items: jax.Array) -> jax.Array:
    """The mean loss over all values of all items, float32 `[]`; of documents, over all words.

    That of linear outputs is in units of the model's scale, so that it balances other losses as well for any vectors.

    Args:
        model: decides which loss (see `item_losses`).
        logits: float32 `[n, ...]`, what `model.output_logits` gives.
        items: float32 `[n, *input_shape]`.
    """
    loss = item_losses(model, logits, items).mean()
    if model.output_activation == "linear":
        return loss / model.input_scale[...] ** 2
    return loss / mean_length(items) if model.output_activation == "softmax" else loss


def item_losses(model: Autoencoder, logits: jax.Array, items: jax.Array) -> jax.Array:
    """The loss of each item: float32 `[n]`.

    Binary cross-entropy (natural logarithm) for sigmoid outputs and squared error for others, averaged over an item's
    values; for softmax outputs the cross-entropy of all words of a document.
    """
    if model.output_activation == "softmax":
        return optax.softmax_cross_entropy(logits, items)
    if model.output_activation == "sigmoid":
        losses = optax.sigmoid_binary_cross_entropy(logits, items)
    else:
        losses = optax.squared_error(model.activation(logits), items)
    return losses.reshape(len(items), -1).mean(1)


def _losses(model: Autoencoder, items: jax.Array) -> jax.Array:
    inputs = to_floats(items)
    return item_losses(model, model.output_logits(compute_bits(model, inputs).astype(jnp.float32)), inputs)


_compiled_losses = entry_point(in_full_batches(_losses))


def contrast(signs: jax.Array, temperature: float) -> jax.Array:
    """The cross-entropy of finding each item's positive in the batch, and each positive's item; in nats, float32 `[]`.

    Args:
        signs: float32 `[2 m, b]` in [-1, 1], of m items and then of their positives.
        temperature: divides the mean product of two codes' signs.
    """
    items, positives = jnp.split(signs, 2)
    similarity = items @ positives.T / (signs.shape[1] * temperature)
    right = jnp.diag(similarity)
    return (jax.nn.logsumexp(similarity, axis=0) + jax.nn.logsumexp(similarity, axis=1) - 2 * right).mean() / 2


def correlations(signs: jax.Array) -> jax.Array:
    """The correlations of the bits of `[n, b]` with each other: float32 `[b, b]`, with zeros on the diagonal.

    A bit that is the same for all items has correlation 0, not NaN as in `jnp.corrcoef`.
    """
    centered = signs - signs.mean(0, keepdims=True)
    normed = centered * jax.lax.rsqrt((centered**2).sum(0, keepdims=True) + 1e-9)
    return (normed.T @ normed) * (1 - jnp.eye(signs.shape[1], dtype=jnp.float32))


def unexplained_variance(signs: jax.Array, features: jax.Array) -> jax.Array:
    """The share of the variance of features `[n, p]` that no linear map of signs `[n, b]` explains: float32 `[]`.

    Features are first divided by the fourth root of their variance, so that the largest do not dominate. The map is the
    least-squares one of these items, but for a slight ridge. No gradient passes through it: at the optimum the share
    does not change with the map to first order.
    """
    signs = signs - signs.mean(0, keepdims=True)
    features = features - features.mean(0, keepdims=True)
    features *= ((features**2).mean(0, keepdims=True) + 1e-9) ** -0.25
    fixed = jax.lax.stop_gradient(signs)
    products = fixed.T @ fixed / len(signs) + RIDGE * jnp.eye(signs.shape[1], dtype=jnp.float32)
    best_map = invert(products) @ (fixed.T @ features / len(signs))
    return ((features - signs @ best_map) ** 2).sum() / ((features**2).sum() + 1e-9)


def invert(matrix: jax.Array) -> jax.Array:
    """Inverts a symmetric positive definite matrix `[b, b]`, in the way that suits the platform."""
    return jax.lax.platform_dependent(matrix, cpu=invert_by_newton, default=jnp.linalg.inv)


def invert_by_newton(matrix: jax.Array) -> jax.Array:
    """Inverts a symmetric positive definite matrix, nearly, by ten steps of Newton's iteration (Schulz 1933).

    On CPU, a call of LAPACK within the scan of an epoch takes as long as the rest of a step.
    """
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    inverse = identity / jnp.abs(matrix).sum(0).max()
    for _ in range(10):
        inverse = inverse @ (2 * identity - matrix @ inverse)
    return inverse
