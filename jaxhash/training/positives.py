"""Positives of items, found without labels: features that tell how similar items are, and neighbours by these.

Features are better than bare pixels. Square roots keep a few large values from dominating, and unit length removes
exposure (Perronnin, Sanchez and Mensink 2010, "Improving the Fisher kernel for large-scale image classification").
Beside an image's pixels stand histograms of its gradients by place and direction (Dalal and Triggs 2005, "Histograms of
oriented gradients for human detection"), which describe shapes. What the first principal components leave out is mostly
noise.

Neighbours are found as in the scan of an index, in blocks: the k best groups of candidates hold the k best candidates.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhash.core.batching import entry_point, in_batches

COMPONENTS = 64
# Larger images are averaged down to so many pixels a side, coloured ones to as many values in all: the basis takes time
# with the cube of their number.
SIDE = 28
CELLS = 7  # a side of the grid in which gradients are counted
ITEMS_FOR_BASIS = 2**13  # more hardly change it
ITEMS_PER_CHUNK = 512

# Neighbours are searched for among so many items, chosen at random where there are more.
CANDIDATES = 2**16
ITEMS_TO_COMPARE = 2**16  # items whose neighbours' neighbours are compared at once
# A block of candidates stays in the caches for all items; with one block of 60,000 the search takes five times as long.
BLOCK = 2048
GROUP = 16


class Positives(NamedTuple):
    """What an objective finds beside each of n items."""

    indices: np.ndarray  # int32 [n, k], the positions of items similar to each; in each step one of the k is drawn
    features: np.ndarray | jax.Array | None = None  # float32 [n, p], given to the loss with their items


class Basis(NamedTuple):
    """Principal components of features."""

    mean: jax.Array  # float32 [f]
    components: jax.Array  # float32 [f, p], orthonormal, by descending variance


class Blocks(NamedTuple):
    """Features of the items to choose neighbours from, in blocks, padded with rows farther away than any item."""

    features: jax.Array  # float32 [blocks, BLOCK, p]
    half_squares: jax.Array  # float32 [blocks, BLOCK], half the squared length


def find_similar(items: np.ndarray, k: int, seed: int) -> Positives:
    """Finds the mutual neighbours of items `[n, d]` or `[n, h, w, c]` by their features, at most k; needs no labels.

    A single item is its own positive.
    """
    features = compute_features(items, seed)
    k = min(k, len(items) - 1)
    if k == 0:
        return Positives(np.zeros((1, 1), np.int32), features)
    return Positives(keep_mutual(find_neighbors(features, k, seed)), features)


def find_directions(features: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Finds the neighbours by cosine, at most k, of features `[n, p]`: int32 `[n, k]`; a single item is its own."""
    k = min(k, len(features) - 1)
    if k == 0:
        return np.zeros((1, 1), np.int32)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return find_neighbors(features / np.maximum(lengths, 1e-6), k, seed)


def add_self(neighbors: np.ndarray) -> np.ndarray:
    """Adds each item as often as it has neighbours `[n, k]`: int32 `[n, 2 k]`."""
    own = np.broadcast_to(np.arange(len(neighbors), dtype=np.int32)[:, None], neighbors.shape)
    return np.concatenate([neighbors, own], axis=1)


def compute_features(items: np.ndarray, seed: int = 0) -> np.ndarray:
    """The principal components of the raw features of items `[n, d]` or `[n, h, w, c]`: float32 `[n, p]`.

    Where there are more than `ITEMS_FOR_BASIS` items, the seed chooses those that the components are computed from.
    """
    chosen = items[np.random.default_rng(seed).permutation(len(items))[:ITEMS_FOR_BASIS]]
    basis = compute_basis(np.asarray(in_batches(_compiled_raw_features, chosen, ITEMS_PER_CHUNK)))
    return np.asarray(in_batches(lambda batch: _compiled_project(basis, batch), items, ITEMS_PER_CHUNK))


def compute_raw_features(items: jax.Array) -> jax.Array:
    """Features by whose Euclidean distance items are compared: float32 `[n, f]` from `[n, d]` or `[n, h, w, c]`."""
    values = items.astype(jnp.float32)
    if items.ndim == 2:
        return _unit_roots(values)
    pixels = _average(values, max(1, int(SIDE / math.sqrt(items.shape[3]))))
    gradients = _compute_gradients(_average(values.mean(axis=3, keepdims=True), SIDE))
    return jnp.concatenate([_unit_roots(part.reshape(len(items), -1)) for part in (pixels, gradients)], axis=1)


def _compute_gradients(images: jax.Array) -> jax.Array:
    """Gradients of grey images `[n, h, w, 1]` by place and direction (right, left, down, up): `[n, i, j, 4]`."""
    grey = jnp.pad(images[..., 0], ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]
    down = grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
    return _average(jax.nn.relu(jnp.stack([across, -across, down, -down], axis=3)), CELLS)


def _average(images: jax.Array, side: int) -> jax.Array:
    """Averages images `[n, h, w, c]` in a grid of at most `side` by `side` nearly equal cells."""
    rows, columns = (_cell_weights(length, min(length, side)) for length in images.shape[1:3])
    return jnp.einsum("nhwc,hi,wj->nijc", images, rows, columns)


def _cell_weights(length: int, count: int) -> np.ndarray:
    """Weights that average `length` pixels in `count` cells: float32 `[length, count]`, each column's sum is 1."""
    cell = np.arange(length) * count // length
    members = (cell[:, None] == np.arange(count)).astype(np.float32)
    return members / members.sum(axis=0)


def _unit_roots(values: jax.Array) -> jax.Array:
    """The signed square roots of values `[n, f]`, brought to unit length."""
    roots = jnp.sign(values) * jnp.sqrt(jnp.abs(values))
    return roots / jnp.maximum(jnp.linalg.norm(roots, axis=1, keepdims=True), 1e-6)


def compute_basis(vectors: np.ndarray) -> Basis:
    """The directions of the greatest variance of vectors `[n, f]`, at most `COMPONENTS`."""
    mean = vectors.mean(axis=0)
    centered = vectors - mean
    _, directions = np.linalg.eigh(np.asarray(jnp.matmul(centered.T, centered)))
    return Basis(jnp.asarray(mean), jnp.asarray(directions[:, ::-1][:, :COMPONENTS]))


def _project(basis: Basis, items: jax.Array) -> jax.Array:
    return (compute_raw_features(items) - basis.mean[None]) @ basis.components


_compiled_raw_features = jax.jit(compute_raw_features)
_compiled_project = entry_point(_project)


def find_neighbors(features: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """Finds the nearest other items of each item.

    Args:
        features: float32 `[n, p]`, n > 1.
        k: the number of neighbours, less than n.
        seed: chooses the candidates where there are more than `CANDIDATES` items.

    Returns:
        int32 `[n, k]`, positions in `features`, the nearest first.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(features))[:CANDIDATES])
    candidates = _make_candidates(features[chosen])

    def find(batch: np.ndarray) -> jax.Array:
        return _compiled_find_nearest(candidates, batch, k=k + 1)

    return _leave_out_self(chosen[np.asarray(in_batches(find, features, ITEMS_PER_CHUNK))])


def _leave_out_self(found: np.ndarray) -> np.ndarray:
    """Removes i from row i of `[n, k + 1]`, or the last entry where i is not there: int32 `[n, k]`."""
    remove = found == np.arange(len(found))[:, None]
    remove[~remove.any(axis=1), -1] = True
    return found[~remove].reshape(len(found), -1).astype(np.int32)


def keep_mutual(neighbors: np.ndarray) -> np.ndarray:
    """Keeps those neighbours of each item that have the item among theirs, or all where there is none.

    Args:
        neighbors: int32 `[n, k]`, positions of items.

    Returns:
        int32 `[n, k]`: the neighbours kept, in their order, repeated until the row is full.
    """
    parts = np.array_split(np.arange(len(neighbors)), -(-len(neighbors) // ITEMS_TO_COMPARE))
    return np.concatenate([_keep_mutual_of(neighbors, rows) for rows in parts])


def _keep_mutual_of(neighbors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows `[m]` of the mutual neighbours: int32 `[m, k]`."""
    near = neighbors[rows]
    kept = np.stack([(neighbors[column] == rows[:, None]).any(axis=1) for column in near.T], axis=1)
    kept |= ~kept.any(axis=1, keepdims=True)
    kept_first = np.argsort(~kept, axis=1, kind="stable")
    turns = np.arange(near.shape[1])[None] % kept.sum(axis=1, keepdims=True)
    return np.take_along_axis(near, np.take_along_axis(kept_first, turns, axis=1), axis=1)


def _make_candidates(features: np.ndarray) -> Blocks:
    spare = -len(features) % BLOCK
    half_squares = np.pad((features**2).sum(axis=1) / 2, (0, spare), constant_values=np.finfo(np.float32).max)
    blocks = np.pad(features, ((0, spare), (0, 0))).reshape(-1, BLOCK, features.shape[1])
    return Blocks(jnp.asarray(blocks), jnp.asarray(half_squares.reshape(-1, BLOCK)))


def _find_nearest(candidates: Blocks, features: jax.Array, k: int) -> jax.Array:
    """The k candidates nearest to each of `[m, p]`: int32 `[m, k]`.

    Nearness is the product less half the squared length of the candidate, which orders as the distance does.
    """

    def best_of_groups(block: Blocks) -> jax.Array:
        nearness = features @ block.features.T - block.half_squares[None]
        return nearness.reshape(len(features), -1, GROUP).max(axis=2)

    best = jnp.moveaxis(lax.map(best_of_groups, candidates), 0, 1).reshape(len(features), -1)
    _, groups = lax.top_k(best, min(k, best.shape[1]))
    members = candidates.features.reshape(-1, GROUP, features.shape[1])[groups]
    half_squares = candidates.half_squares.reshape(-1, GROUP)[groups]
    nearness = jnp.einsum("mp,mgip->mgi", features, members) - half_squares
    _, slots = lax.top_k(nearness.reshape(len(features), -1), k)
    return jnp.take_along_axis(groups, slots // GROUP, axis=1) * GROUP + slots % GROUP


_compiled_find_nearest = entry_point(_find_nearest, "k")
