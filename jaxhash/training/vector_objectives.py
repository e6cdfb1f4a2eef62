"""Objectives for vectors that are already good features: `KeepNeighbors` and `GroupByKind`.

Both train the similarities of codes to agree with the distances of vectors, over a batch of items and their positives.
`KeepNeighbors` preserves distances as exactly as bits can. `GroupByKind` pulls near vectors together and ignores their
order.

Training starts in closed form (`jaxhash.training.closed_form`).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxhash.core.checks import check_integer
from jaxhash.models.code_layer import CodeLayer, round_logits
from jaxhash.models.encoder import Encoder
from jaxhash.models.inputs import to_floats
from jaxhash.training.closed_form import start_from_itq
from jaxhash.training.losses import correlations, decoder_loss
from jaxhash.training.objectives import Batch, Objective
from jaxhash.training.positives import Positives, compute_basis, find_neighbors

ITEMS_FOR_BASIS = 2**14


class _VectorObjective(Objective):
    """Shared parts of both objectives: checks of settings, initial weights and positives."""

    bandwidth: float
    num_neighbors: int

    def __post_init__(self) -> None:
        check_integer("num_neighbors", self.num_neighbors, 1)
        _check_positive("bandwidth", self.bandwidth)

    def init_weights(self, model: Encoder, items: np.ndarray, seed: int) -> None:
        """Initializes a model without hidden layers by ITQ."""
        start_from_itq(model, items, seed)

    def find_positives(self, items: np.ndarray, seed: int) -> Positives | None:
        """Finds each item's nearest neighbors."""
        return find_nearest_vectors(items, self.num_neighbors, seed)


@dataclass(frozen=True)
class KeepNeighbors(_VectorObjective):
    """Trains codes that preserve the nearest neighbors of vectors by Euclidean distance.

    The loss correlates the similarities of codes with the distances of vectors over the batch, for each item, with
    larger weights for nearer ones. Half of it uses Hamming distance, half the weighted distance. Vectors of unit length
    have the same neighbors by cosine.

    Attributes:
        bandwidth: of the softmax over squared distances that weights the items, in units of their mean.
        num_neighbors: number of nearest training items to draw a positive from.
        decorrelation: weight of the mean squared off-diagonal bit correlation.

    On held-out sentence embeddings, 64 bits kept .26 of the 10 nearest by Hamming distance and .37 by weighted
    distance; the closed-form start kept .23 and .34. On features of CIFAR-10, 32 bits kept .15 and .23, the start .14
    and .20.

    Settings were chosen on held-out features of CIFAR-10 and sentence embeddings.
    """

    bandwidth: float = 0.06
    num_neighbors: int = 50
    decorrelation: float = 8.0

    def __call__(self, model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer) -> tuple[jax.Array, jax.Array]:
        """Computes the loss of a batch with positives, float32 `[]`, and the bits of its items, float32 `[m, b]`."""
        views, logits, signs = _encode_views(model, batch, key, layer)
        distances = compare(views)
        weights = jax.nn.softmax(_leave_out_self(-distances / self.bandwidth), axis=1)
        loss = self.decorrelation * (correlations(signs) ** 2).mean()
        plain, weighted = signs @ signs.T, logits @ signs.T
        loss += (disagreement(plain, distances, weights) + disagreement(weighted, distances, weights)) / 2
        return loss + _decoder_loss(model, batch, signs), round_logits(logits[: len(batch.items)])


@dataclass(frozen=True)
class GroupByKind(_VectorObjective):
    """Trains codes that pull near vectors together, so that items of a kind get similar codes.

    The loss is, for each item, the cross-entropy between a sharp softmax over the distances of vectors and a flat one
    over the similarities of codes, within the batch. Near vectors come to share bits and propagate them to their
    neighbors, so the order of an item's neighbors is lost; to preserve it, use `KeepNeighbors`.

    A hidden layer helps, although only models without one start in closed form: with `hidden_dims=(512,)`, the mean
    average precision of the first 1,000 on held-out features of CIFAR-10, 32 bits, was .487, not .469 (one seed).

    Attributes:
        bandwidth: of the softmax over squared distances, in units of their mean.
        temperature: of the softmax over codes; divides the mean product of two codes' signs.
        num_neighbors: number of nearest training items to draw a positive from.
        decorrelation: weight of the mean squared off-diagonal bit correlation.

    Settings were chosen on held-out features of CIFAR-10.
    """

    bandwidth: float = 0.03
    temperature: float = 0.4
    num_neighbors: int = 50
    decorrelation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive("temperature", self.temperature)

    def __call__(self, model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer) -> tuple[jax.Array, jax.Array]:
        """Computes the loss of a batch with positives, float32 `[]`, and the bits of its items, float32 `[m, b]`."""
        views, logits, signs = _encode_views(model, batch, key, layer)
        target = jax.nn.softmax(_leave_out_self(-compare(views) / self.bandwidth), axis=1)
        similarity = _leave_out_self(signs @ signs.T / (signs.shape[1] * self.temperature))
        loss = -(target * jax.nn.log_softmax(similarity, axis=1)).sum(1).mean()
        loss += self.decorrelation * (correlations(signs) ** 2).mean()
        return loss + _decoder_loss(model, batch, signs), round_logits(logits[: len(batch.items)])


def find_nearest_vectors(items: np.ndarray, k: int, seed: int) -> Positives:
    """Finds the k nearest other vectors of each by principal components; a single item is its own.

    Raises:
        ValueError: items are images.
    """
    if items.ndim != 2:
        raise ValueError(f'this objective is for vectors [n, d], got items of shape {items.shape[1:]}: try "retrieve"')
    if len(items) == 1:
        return Positives(np.zeros((1, 1), np.int32))
    positions = np.random.default_rng(seed).permutation(len(items))[:ITEMS_FOR_BASIS]
    mean, components = compute_basis(items[positions].astype(np.float32))
    features = (items.astype(np.float32, copy=False) - np.asarray(mean)) @ np.asarray(components)
    return Positives(find_neighbors(features, min(k, len(items) - 1), seed))


def compare(views: jax.Array) -> jax.Array:
    """Computes the squared distances of all pairs of `[m, d]`, divided by their mean: float32 `[m, m]`."""
    centered = views - views.mean(0, keepdims=True)  # avoids cancellation between large products
    squares = (centered**2).sum(1)
    distances = jax.nn.relu(squares[:, None] + squares[None] - 2 * centered @ centered.T)
    return distances / jnp.maximum(distances.mean(), 1e-30)


def disagreement(similarities: jax.Array, distances: jax.Array, weights: jax.Array) -> jax.Array:
    """Computes 1 + the mean over rows of the weighted correlation of similarities and distances, all `[m, m]`."""
    s = similarities - (weights * similarities).sum(1, keepdims=True)
    d = distances - (weights * distances).sum(1, keepdims=True)
    products, squares = (weights * s * d).sum(1), (weights * s**2).sum(1) * (weights * d**2).sum(1)
    return 1 + (products * jax.lax.rsqrt(squares + 1e-12)).mean()


def _encode_views(
    model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns items and their positives `[2 m, d]`, their normalized logits `[2 m, b]`, and the signs of these."""
    views = to_floats(jnp.concatenate([batch.items, jnp.asarray(batch.positives)]))
    logits = layer.normalize(model.code_logits(views))
    return views, logits, 2 * layer.binarize(logits, key) - 1


def _decoder_loss(model: Encoder, batch: Batch, signs: jax.Array) -> jax.Array:
    """Computes the loss of the outputs, which trains only the decoder."""
    bits = jax.lax.stop_gradient(signs[: len(batch.items)] + 1) / 2
    return decoder_loss(model, bits, to_floats(batch.items))


def _leave_out_self(scores: jax.Array) -> jax.Array:
    """Replaces the diagonal of scores `[m, m]` by -1e9, which a softmax ignores."""
    return jnp.where(jnp.eye(len(scores), dtype=bool), -1e9, scores)


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value!r}")
