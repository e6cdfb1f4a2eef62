"""Training losses: reconstruction, contrast between codes, bit correlation and explained feature variance.

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

# Keeps the best map unique if bits of a batch are constant or duplicates. Signs have variance 1.
RIDGE = 0.02


def reconstruction_loss(model: Autoencoder, images: ArrayLike) -> float:
    """Computes the mean loss over all values of all images, decoded from their codes.

    Binary cross-entropy (natural logarithm) for sigmoid outputs, squared error for others; for softmax outputs the
    mean cross-entropy per word.

    Raises:
        ValueError: as `encode`.
        TypeError: as `encode`, or the model has no decoder.
    """
    check_decoder(model)
    items = narrow_floats(check_items(model, images)[0])
    losses = in_batches(lambda batch: _compiled_losses(model, narrow_floats(batch)), items, ITEMS_PER_CHUNK)
    loss = float(np.asarray(losses).mean(dtype=np.float64))
    return loss / float(mean_length(items)) if model.output_activation == "softmax" else loss


def decoder_loss(model: Encoder, bits: jax.Array, items: jax.Array) -> jax.Array:
    """Computes the mean loss of outputs for bits `[n, b]`, float32 `[]`; zero without a decoder."""
    if not isinstance(model, Autoencoder):
        return jnp.float32(0)
    return mean_loss(model, model.output_logits(bits), items)


def mean_loss(model: Autoencoder, logits: jax.Array, items: jax.Array) -> jax.Array:
    """Computes the mean loss over all values of all items, or over all words of documents: float32 `[]`.

    For linear outputs it is in units of the model's scale, which keeps its balance with other losses for all vectors.

    Args:
        model: selects the loss (see `item_losses`).
        logits: float32 `[n, ...]`, from `model.output_logits`.
        items: float32 `[n, *input_shape]`.
    """
    loss = item_losses(model, logits, items).mean()
    if model.output_activation == "linear":
        return loss / model.input_scale[...] ** 2
    return loss / mean_length(items) if model.output_activation == "softmax" else loss


def item_losses(model: Autoencoder, logits: jax.Array, items: jax.Array) -> jax.Array:
    """Computes the loss of each item: float32 `[n]`.

    Binary cross-entropy (natural logarithm) for sigmoid outputs and squared error for others, averaged over an item's
    values; for softmax outputs the cross-entropy summed over the words of a document.
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
    """Computes the symmetric InfoNCE loss of items and their positives, in nats: float32 `[]`.

    Args:
        signs: float32 `[2 m, b]` in [-1, 1]: m items, then their positives.
        temperature: divides the mean product of two codes' signs.
    """
    items, positives = jnp.split(signs, 2)
    similarity = items @ positives.T / (signs.shape[1] * temperature)
    matching = jnp.diag(similarity)
    return (jax.nn.logsumexp(similarity, axis=0) + jax.nn.logsumexp(similarity, axis=1) - 2 * matching).mean() / 2


def correlations(signs: jax.Array) -> jax.Array:
    """Computes the correlations between the bits of `[n, b]`: float32 `[b, b]`, with zeros on the diagonal.

    Constant bits have correlation 0, not NaN as in `jnp.corrcoef`.
    """
    centered = signs - signs.mean(0, keepdims=True)
    normed = centered * jax.lax.rsqrt((centered**2).sum(0, keepdims=True) + 1e-9)
    return (normed.T @ normed) * (1 - jnp.eye(signs.shape[1], dtype=jnp.float32))


def unexplained_variance(signs: jax.Array, features: jax.Array) -> jax.Array:
    """Computes the share of variance of features `[n, p]` unexplained by a linear map of signs `[n, b]`: float32 `[]`.

    Features are first divided by the fourth root of their variance, so that the largest do not dominate. The map is
    fitted to these items by ridge regression. No gradient passes through it: at the optimum the share does not change
    with the map to first order.
    """
    signs = signs - signs.mean(0, keepdims=True)
    features = features - features.mean(0, keepdims=True)
    features *= ((features**2).mean(0, keepdims=True) + 1e-9) ** -0.25
    fixed = jax.lax.stop_gradient(signs)
    products = fixed.T @ fixed / len(signs) + RIDGE * jnp.eye(signs.shape[1], dtype=jnp.float32)
    best_map = invert(products) @ (fixed.T @ features / len(signs))
    return ((features - signs @ best_map) ** 2).sum() / ((features**2).sum() + 1e-9)


def invert(matrix: jax.Array) -> jax.Array:
    """Inverts a symmetric positive definite matrix `[b, b]` by the faster method of the platform."""
    return jax.lax.platform_dependent(matrix, cpu=invert_by_newton, default=jnp.linalg.inv)


def invert_by_newton(matrix: jax.Array) -> jax.Array:
    """Approximately inverts a symmetric positive definite matrix by ten Newton iterations (Schulz 1933).

    On CPU, a LAPACK call within the scan of an epoch takes as long as the rest of the step.
    """
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    inverse = identity / jnp.abs(matrix).sum(0).max()
    for _ in range(10):
        inverse = inverse @ (2 * identity - matrix @ inverse)
    return inverse
