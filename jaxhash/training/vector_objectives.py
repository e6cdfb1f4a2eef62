"""Objectives for vectors that are good features already: `KeepNeighbors` and `GroupByKind`.

Both compare all items of a batch, and a positive of each, by the distances of the vectors themselves, and train codes
to agree. They differ in what agreement is. To keep the neighbours of a vector, the similarities of codes must follow
the distances as exactly as bits can. To group vectors by kind, near ones are drawn together, whatever their order.

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
    """What the objectives share: settings to check, where training starts, and which items are positives."""

    bandwidth: float
    num_neighbors: int

    def __post_init__(self) -> None:
        check_integer("num_neighbors", self.num_neighbors, 1)
        _check_positive("bandwidth", self.bandwidth)

    def init_weights(self, model: Encoder, items: np.ndarray, seed: int) -> None:
        """Sets the weights of a model without hidden layers by ITQ."""
        start_from_itq(model, items, seed)

    def find_positives(self, items: np.ndarray, seed: int) -> Positives | None:
        """Finds each item's nearest neighbours."""
        return find_nearest_vectors(items, self.num_neighbors, seed)


@dataclass(frozen=True)
class KeepNeighbors(_VectorObjective):
    """Trains codes of vectors whose nearest neighbours are those of the vectors, by Euclidean distance.

    For each item the similarities of codes are to correlate with the distances of vectors, over the items of the batch,
    near ones weighing most. Half of the loss is for Hamming distance, half for the weighted one. Vectors of unit
    length have the same neighbours by cosine.

    Attributes:
        bandwidth: of the softmax of squared distances that weighs the items, in units of their mean.
        num_neighbors: a positive is drawn among so many nearest training items.
        decorrelation: the weight of the mean squared off-diagonal correlation of bits.

    Of held-out sentence embeddings, 64 bits kept .26 of the 10 nearest by Hamming distance and .37 by weights; the
    start in closed form kept .23 and .34. Of features of CIFAR-10, 32 bits kept .15 and .23 in place of .14 and .20.

    Settings were chosen on features of CIFAR-10 and embeddings of sentences, by rows held out of the database.
    """

    bandwidth: float = 0.06
    num_neighbors: int = 50
    decorrelation: float = 8.0

    def __call__(self, model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer) -> tuple[jax.Array, jax.Array]:
        """The loss of a batch with positives, float32 `[]`, and its items' bits, float32 `[m, b]`."""
        views, logits, signs = _encode_views(model, batch, key, layer)
        distances = compare(views)
        weights = jax.nn.softmax(_leave_out_self(-distances / self.bandwidth), axis=1)
        loss = self.decorrelation * (correlations(signs) ** 2).mean()
        plain, weighted = signs @ signs.T, logits @ signs.T
        loss += (disagreement(plain, distances, weights) + disagreement(weighted, distances, weights)) / 2
        return loss + _decoder_loss(model, batch, signs), round_logits(logits[: len(batch.items)])


@dataclass(frozen=True)
class GroupByKind(_VectorObjective):
    """Trains codes of vectors that draw near vectors together, so that items of a kind get similar codes.

    The loss is the cross-entropy of two softmaxes over the batch, for each item: of the distances of vectors, a sharp
    one, and of the similarities of codes, a flat one. Near vectors come to share bits, which their neighbours pass on;
    the order of an item's own neighbours is lost. For that use `KeepNeighbors`.

    A hidden layer helps: with `hidden_dims=(512,)`, held-out features of CIFAR-10 had a mean average precision of the
    first 1,000 by 32 bits of .487 in place of .469 (one seed), although only models without one start in closed form.

    Attributes:
        bandwidth: of the softmax of squared distances, in units of their mean.
        temperature: the temperature of the softmax of codes, of the mean product of two codes' signs.
        num_neighbors: a positive is drawn among so many nearest training items.
        decorrelation: the weight of the mean squared off-diagonal correlation of bits.

    Settings were chosen on features of CIFAR-10, by rows held out of the database.
    """

    bandwidth: float = 0.03
    temperature: float = 0.4
    num_neighbors: int = 50
    decorrelation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive("temperature", self.temperature)

    def __call__(self, model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer) -> tuple[jax.Array, jax.Array]:
        """The loss of a batch with positives, float32 `[]`, and its items' bits, float32 `[m, b]`."""
        views, logits, signs = _encode_views(model, batch, key, layer)
        target = jax.nn.softmax(_leave_out_self(-compare(views) / self.bandwidth), axis=1)
        similarity = _leave_out_self(signs @ signs.T / (signs.shape[1] * self.temperature))
        loss = -(target * jax.nn.log_softmax(similarity, axis=1)).sum(1).mean()
        loss += self.decorrelation * (correlations(signs) ** 2).mean()
        return loss + _decoder_loss(model, batch, signs), round_logits(logits[: len(batch.items)])


def find_nearest_vectors(items: np.ndarray, k: int, seed: int) -> Positives:
    """Finds the k nearest other vectors of each, by their first principal components; a single item is its own.

    Raises:
        ValueError: items are images.
    """
    if items.ndim != 2:
        raise ValueError(f'this objective is for vectors [n, d], got items of shape {items.shape[1:]}: try "retrieve"')
    if len(items) == 1:
        return Positives(np.zeros((1, 1), np.int32))
    chosen = np.random.default_rng(seed).permutation(len(items))[:ITEMS_FOR_BASIS]
    mean, components = compute_basis(items[chosen].astype(np.float32))
    features = (items.astype(np.float32, copy=False) - np.asarray(mean)) @ np.asarray(components)
    return Positives(find_neighbors(features, min(k, len(items) - 1), seed))


def compare(views: jax.Array) -> jax.Array:
    """The squared distances of all pairs of `[m, d]`, over their mean: float32 `[m, m]`."""
    centered = views - views.mean(0, keepdims=True)  # products of large numbers would cancel
    squares = (centered**2).sum(1)
    distances = jax.nn.relu(squares[:, None] + squares[None] - 2 * centered @ centered.T)
    return distances / jnp.maximum(distances.mean(), 1e-30)


def disagreement(similarities: jax.Array, distances: jax.Array, weights: jax.Array) -> jax.Array:
    """One plus the mean over rows of the weighted correlation of similarities and distances, all `[m, m]`."""
    s = similarities - (weights * similarities).sum(1, keepdims=True)
    d = distances - (weights * distances).sum(1, keepdims=True)
    products, squares = (weights * s * d).sum(1), (weights * s**2).sum(1) * (weights * d**2).sum(1)
    return 1 + (products * jax.lax.rsqrt(squares + 1e-12)).mean()


def _encode_views(
    model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Items and then their positives `[2 m, d]`, their normalised logits `[2 m, b]`, and the signs of these."""
    views = to_floats(jnp.concatenate([batch.items, jnp.asarray(batch.positives)]))
    logits = layer.normalize(model.code_logits(views))
    return views, logits, 2 * layer.binarize(logits, key) - 1


def _decoder_loss(model: Encoder, batch: Batch, signs: jax.Array) -> jax.Array:
    """The loss of the outputs, which trains the decoder alone."""
    bits = jax.lax.stop_gradient(signs[: len(batch.items)] + 1) / 2
    return decoder_loss(model, bits, to_floats(batch.items))


def _leave_out_self(scores: jax.Array) -> jax.Array:
    """Scores `[m, m]` with minus infinity, nearly, on the diagonal."""
    return jnp.where(jnp.eye(len(scores), dtype=bool), -1e9, scores)


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value!r}")
