"""Positives without labels: features of items, and their nearest neighbors.

Features work better than raw pixels. Square roots keep a few large values from dominating, and unit length removes
exposure (Perronnin, Sanchez and Mensink 2010, "Improving the Fisher kernel for large-scale image classification").
Histograms of oriented gradients describe shapes (Dalal and Triggs 2005, "Histograms of oriented gradients for human
detection"). Only the first principal components are kept; the rest is mostly noise.

Neighbors are found in blocks, as in the scan of an index: the k best groups contain the k best candidates.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhash.core.batching import entry_point, in_batches

COMPONENTS = 64
# Larger images are averaged down to this side, color images to as many values in total: the time for the basis grows
# with the cube of their number.
MAX_SIDE = 28
CELLS_PER_SIDE = 7  # of the grid of gradient histograms
ITEMS_FOR_BASIS = 2**13  # more hardly change it
ITEMS_PER_CHUNK = 512

# Neighbors are searched among a random sample of at most this size.
MAX_CANDIDATES = 2**16
ITEMS_TO_COMPARE = 2**16  # chunk of items in the mutual test
# A block of candidates stays in cache for all items; with one block of 60,000 the search takes five times as long.
BLOCK_SIZE = 2048
GROUP_SIZE = 16


class Positives(NamedTuple):
    """Positives and features of n items."""

    indices: np.ndarray  # int32 [n, k], positions of similar items; each step draws one
    features: np.ndarray | jax.Array | None = None  # float32 [n, p], passed to the loss


class Basis(NamedTuple):
    """Principal components of features."""

    mean: jax.Array  # float32 [f]
    components: jax.Array  # float32 [f, p], orthonormal, by descending variance


class Blocks(NamedTuple):
    """Features of neighbor candidates, in blocks, padded with rows farther away than any item."""

    features: jax.Array  # float32 [blocks, BLOCK_SIZE, p]
    half_squares: jax.Array  # float32 [blocks, BLOCK_SIZE], half the squared norm


def find_similar(items: np.ndarray, k: int, seed: int) -> Positives:
    """Finds at most k mutual neighbors of each item `[n, d]` or `[n, h, w, c]` by their features.

    A single item is its own positive.
    """
    features = compute_features(items, seed)
    k = min(k, len(items) - 1)
    if k == 0:
        return Positives(np.zeros((1, 1), np.int32), features)
    return Positives(keep_mutual(find_neighbors(features, k, seed)), features)


def find_directions(features: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Finds at most k neighbors by cosine of features `[n, p]`: int32 `[n, k]`; a single item is its own."""
    k = min(k, len(features) - 1)
    if k == 0:
        return np.zeros((1, 1), np.int32)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return find_neighbors(features / np.maximum(lengths, 1e-6), k, seed)


def add_self(neighbors: np.ndarray) -> np.ndarray:
    """Appends each item to its neighbors `[n, k]`, k times: int32 `[n, 2 k]`."""
    own = np.broadcast_to(np.arange(len(neighbors), dtype=np.int32)[:, None], neighbors.shape)
    return np.concatenate([neighbors, own], axis=1)


def compute_features(items: np.ndarray, seed: int = 0) -> np.ndarray:
    """Computes principal components of the raw features of items `[n, d]` or `[n, h, w, c]`: float32 `[n, p]`.

    The basis is computed from at most `ITEMS_FOR_BASIS` items, selected by the seed.
    """
    sample = items[np.random.default_rng(seed).permutation(len(items))[:ITEMS_FOR_BASIS]]
    basis = compute_basis(np.asarray(in_batches(_compiled_raw_features, sample, ITEMS_PER_CHUNK)))
    return np.asarray(in_batches(lambda batch: _compiled_project(basis, batch), items, ITEMS_PER_CHUNK))


def compute_raw_features(items: jax.Array) -> jax.Array:
    """Computes features for Euclidean comparison of items `[n, d]` or `[n, h, w, c]`: float32 `[n, f]`."""
    values = items.astype(jnp.float32)
    if items.ndim == 2:
        return _unit_roots(values)
    pixels = _average(values, max(1, int(MAX_SIDE / math.sqrt(items.shape[3]))))
    gradients = _compute_gradients(_average(values.mean(axis=3, keepdims=True), MAX_SIDE))
    return jnp.concatenate([_unit_roots(part.reshape(len(items), -1)) for part in (pixels, gradients)], axis=1)


def _compute_gradients(images: jax.Array) -> jax.Array:
    """Computes gradient histograms of gray images `[n, h, w, 1]` (right, left, down, up): `[n, i, j, 4]`."""
    gray = jnp.pad(images[..., 0], ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = gray[:, 1:-1, 2:] - gray[:, 1:-1, :-2]
    down = gray[:, 2:, 1:-1] - gray[:, :-2, 1:-1]
    return _average(jax.nn.relu(jnp.stack([across, -across, down, -down], axis=3)), CELLS_PER_SIDE)


def _average(images: jax.Array, side: int) -> jax.Array:
    """Averages images `[n, h, w, c]` over a grid of at most `side` by `side` nearly equal cells."""
    rows, columns = (_cell_weights(length, min(length, side)) for length in images.shape[1:3])
    return jnp.einsum("nhwc,hi,wj->nijc", images, rows, columns)


def _cell_weights(length: int, count: int) -> np.ndarray:
    """Computes weights that average `length` pixels in `count` cells: float32 `[length, count]`; columns sum to 1."""
    cell = np.arange(length) * count // length
    members = (cell[:, None] == np.arange(count)).astype(np.float32)
    return members / members.sum(axis=0)


def _unit_roots(values: jax.Array) -> jax.Array:
    """Normalizes the signed square roots of values `[n, f]` to unit length."""
    roots = jnp.sign(values) * jnp.sqrt(jnp.abs(values))
    return roots / jnp.maximum(jnp.linalg.norm(roots, axis=1, keepdims=True), 1e-6)


def compute_basis(vectors: np.ndarray) -> Basis:
    """Computes at most `COMPONENTS` principal components of vectors `[n, f]`."""
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
        k: number of neighbors, less than n.
        seed: selects the candidates if there are more than `MAX_CANDIDATES` items.

    Returns:
        int32 `[n, k]`, positions in `features`, nearest first.
    """
    positions = np.sort(np.random.default_rng(seed).permutation(len(features))[:MAX_CANDIDATES])
    candidates = _make_candidates(features[positions])

    def find(batch: np.ndarray) -> jax.Array:
        return _compiled_find_nearest(candidates, batch, k=k + 1)

    return _leave_out_self(positions[np.asarray(in_batches(find, features, ITEMS_PER_CHUNK))])


def _leave_out_self(nearest: np.ndarray) -> np.ndarray:
    """Removes i from row i of `[n, k + 1]`, or the last entry if i is absent: int32 `[n, k]`."""
    remove = nearest == np.arange(len(nearest))[:, None]
    remove[~remove.any(axis=1), -1] = True
    return nearest[~remove].reshape(len(nearest), -1).astype(np.int32)


def keep_mutual(neighbors: np.ndarray) -> np.ndarray:
    """Keeps mutual neighbors: j of item i if i is also a neighbor of j. Keeps all if none is mutual.

    Args:
        neighbors: int32 `[n, k]`, positions of items.

    Returns:
        int32 `[n, k]`: the remaining neighbors in order, repeated to fill the row.
    """
    parts = np.array_split(np.arange(len(neighbors)), -(-len(neighbors) // ITEMS_TO_COMPARE))
    return np.concatenate([_keep_mutual_of(neighbors, rows) for rows in parts])


def _keep_mutual_of(neighbors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Computes rows `[m]` of the mutual neighbors: int32 `[m, k]`."""
    near = neighbors[rows]
    kept = np.stack([(neighbors[column] == rows[:, None]).any(axis=1) for column in near.T], axis=1)
    kept |= ~kept.any(axis=1, keepdims=True)
    kept_first = np.argsort(~kept, axis=1, kind="stable")
    turns = np.arange(near.shape[1])[None] % kept.sum(axis=1, keepdims=True)
    return np.take_along_axis(near, np.take_along_axis(kept_first, turns, axis=1), axis=1)


def _make_candidates(features: np.ndarray) -> Blocks:
    padding = -len(features) % BLOCK_SIZE
    half_squares = np.pad((features**2).sum(axis=1) / 2, (0, padding), constant_values=np.finfo(np.float32).max)
    blocks = np.pad(features, ((0, padding), (0, 0))).reshape(-1, BLOCK_SIZE, features.shape[1])
    return Blocks(jnp.asarray(blocks), jnp.asarray(half_squares.reshape(-1, BLOCK_SIZE)))


def _find_nearest(candidates: Blocks, features: jax.Array, k: int) -> jax.Array:
    """Finds the k candidates nearest to each of `[m, p]`: int32 `[m, k]`.

    Nearness is the inner product minus half the candidate's squared norm, which orders like the distance.
    """

    def best_of_groups(block: Blocks) -> jax.Array:
        nearness = features @ block.features.T - block.half_squares[None]
        return nearness.reshape(len(features), -1, GROUP_SIZE).max(axis=2)

    best = jnp.moveaxis(lax.map(best_of_groups, candidates), 0, 1).reshape(len(features), -1)
    _, groups = lax.top_k(best, min(k, best.shape[1]))
    members = candidates.features.reshape(-1, GROUP_SIZE, features.shape[1])[groups]
    half_squares = candidates.half_squares.reshape(-1, GROUP_SIZE)[groups]
    nearness = jnp.einsum("mp,mgip->mgi", features, members) - half_squares
    _, slots = lax.top_k(nearness.reshape(len(features), -1), k)
    return jnp.take_along_axis(groups, slots // GROUP_SIZE, axis=1) * GROUP_SIZE + slots % GROUP_SIZE


_compiled_find_nearest = entry_point(_find_nearest, "k")
