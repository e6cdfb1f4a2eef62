"""Features by which items are like one another, without labels, better than by bare pixels.

Roots keep a few large values from drowning the rest, and unit length takes out exposure (Perronnin, Sanchez and Mensink
2010, "Improving the Fisher kernel for large-scale image classification"). Beside an image's pixels stand histograms of
its gradients by place and direction (Dalal and Triggs 2005, "Histograms of oriented gradients for human detection"),
which see a shape where pixels see a patch. What the first principal components leave out is mostly noise.
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
# The basis settles long before that.
ITEMS_FOR_BASIS = 2**13
ITEMS_AT_ONCE = 512


class Basis(NamedTuple):
    """Where features are seen from: `(features - mean) @ components`."""

    mean: jax.Array  # float32 [f]
    components: jax.Array  # float32 [f, p], orthonormal, the one of the greatest variance first


def feature_points(items: np.ndarray, seed: int = 0) -> np.ndarray:
    """The principal components of the features of items `[n, d]` or `[n, h, w, c]`: float32 `[n, p]`.

    Where there are more than `ITEMS_FOR_BASIS` items, the seed chooses which of them the components are those of.
    """
    few = items[np.random.default_rng(seed).permutation(len(items))[:ITEMS_FOR_BASIS]]
    basis = principal_components(np.asarray(in_batches(_compiled_features, few, ITEMS_AT_ONCE)))
    return np.asarray(in_batches(lambda batch: _compiled_points(basis, batch), items, ITEMS_AT_ONCE))


def features(items: jax.Array) -> jax.Array:
    """Features whose Euclidean distance tells how alike items are: float32 `[n, f]` from `[n, d]` or `[n, h, w, c]`."""
    values = items.astype(jnp.float32)
    if items.ndim == 2:
        return _unit_roots(values)
    pixels = _pooled(values, max(1, int(SIDE / math.sqrt(items.shape[3]))))
    gradients = _gradients(_pooled(values.mean(axis=3, keepdims=True), SIDE))
    return jnp.concatenate([_unit_roots(part.reshape(len(items), -1)) for part in (pixels, gradients)], axis=1)


def _gradients(images: jax.Array) -> jax.Array:
    """Gradients of grey images `[n, h, w, 1]` by place and direction (right, left, down, up): `[n, i, j, 4]`."""
    grey = jnp.pad(images[..., 0], ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]
    down = grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
    return _pooled(jax.nn.relu(jnp.stack([across, -across, down, -down], axis=3)), CELLS)


def _pooled(images: jax.Array, side: int) -> jax.Array:
    """Averages images `[n, h, w, c]` in a grid of at most `side` by `side` nearly equal cells."""
    rows, columns = (_cells(length, min(length, side)) for length in images.shape[1:3])
    return jnp.einsum("nhwc,hi,wj->nijc", images, rows, columns)


def _cells(length: int, count: int) -> np.ndarray:
    """Parts `length` places into `count` cells: float32 `[length, count]`, each column's sum is 1."""
    cell = np.arange(length) * count // length
    members = (cell[:, None] == np.arange(count)).astype(np.float32)
    return members / members.sum(axis=0)


def _unit_roots(values: jax.Array) -> jax.Array:
    roots = jnp.sign(values) * jnp.sqrt(jnp.abs(values))
    return roots / jnp.maximum(jnp.linalg.norm(roots, axis=1, keepdims=True), 1e-6)


def principal_components(vectors: np.ndarray) -> Basis:
    """The directions of the greatest variance of vectors `[n, f]`, at most `COMPONENTS`."""
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    _, directions = np.linalg.eigh(np.asarray(jnp.matmul(centred.T, centred)))
    return Basis(jnp.asarray(mean), jnp.asarray(directions[:, ::-1][:, :COMPONENTS]))


def _points(basis: Basis, items: jax.Array) -> jax.Array:
    return (features(items) - basis.mean[None]) @ basis.components


_compiled_features = jax.jit(features)
_compiled_points = entry_point(_points)


# Neighbours are looked for among so many items, chosen at random where there are more.
CANDIDATES = 2**16
ITEMS_AT_ONCE = 512
ITEMS_TO_COMPARE = 2**16  # whose neighbours' neighbours are looked through at once
# A block of candidates stays in the caches for all items; with one block of 60,000 the search takes five times as long.
BLOCK = 2048
GROUP = 16


class Candidates(NamedTuple):
    """Points to choose neighbours from, in blocks, padded by points at infinity."""

    points: jax.Array  # float32 [blocks, BLOCK, p]
    half_squares: jax.Array  # float32 [blocks, BLOCK], half the squared length


def nearest_neighbors(points: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """The points nearest to each point, itself left out.

    Args:
        points: float32 `[n, p]`, n > 1.
        k: how many neighbours, less than n.
        seed: chooses the candidates where there are more than `CANDIDATES` points.

    Returns:
        int32 `[n, k]`, positions in `points`, the nearest first.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(points))[:CANDIDATES])
    candidates = _candidates(points[chosen])

    def nearest(batch: np.ndarray) -> jax.Array:
        return _compiled_nearest(candidates, batch, k=k + 1)

    return _without_self(chosen[np.asarray(in_batches(nearest, points, ITEMS_AT_ONCE))])


def _without_self(found: np.ndarray) -> np.ndarray:
    """Takes row i's item i, or its last where i is not there, from items `[n, k + 1]`: int32 `[n, k]`."""
    leave = found == np.arange(len(found))[:, None]
    leave[~leave.any(axis=1), -1] = True
    return found[~leave].reshape(len(found), -1).astype(np.int32)


def mutual_neighbors(neighbors: np.ndarray) -> np.ndarray:
    """Of each item's neighbours those that have the item among theirs; all, where there is none.

    Args:
        neighbors: int32 `[n, k]`, positions of items.

    Returns:
        int32 `[n, k]`: the neighbours kept, in their order, and over again until the row is full.
    """
    parts = np.array_split(np.arange(len(neighbors)), -(-len(neighbors) // ITEMS_TO_COMPARE))
    return np.concatenate([_mutual(neighbors, rows) for rows in parts])


def _mutual(neighbors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows `[m]` of the mutual neighbours: int32 `[m, k]`."""
    near = neighbors[rows]
    kept = np.stack([(neighbors[column] == rows[:, None]).any(axis=1) for column in near.T], axis=1)
    kept |= ~kept.any(axis=1, keepdims=True)
    kept_first = np.argsort(~kept, axis=1, kind="stable")
    turns = np.arange(near.shape[1])[None] % kept.sum(axis=1, keepdims=True)
    return np.take_along_axis(near, np.take_along_axis(kept_first, turns, axis=1), axis=1)


def _candidates(points: np.ndarray) -> Candidates:
    spare = -len(points) % BLOCK
    half_squares = np.pad((points**2).sum(axis=1) / 2, (0, spare), constant_values=np.inf)
    blocks = np.pad(points, ((0, spare), (0, 0))).reshape(-1, BLOCK, points.shape[1])
    return Candidates(jnp.asarray(blocks), jnp.asarray(half_squares.reshape(-1, BLOCK)))


def _nearest(candidates: Candidates, points: jax.Array, k: int) -> jax.Array:
    """The k candidates nearest to points `[m, p]`: int32 `[m, k]`.

    As in the scan of an index: the k best groups hold the k best candidates, and only these are looked at again.
    """

    def best_of_groups(block: Candidates) -> jax.Array:
        nearness = points @ block.points.T - block.half_squares[None]
        return nearness.reshape(len(points), -1, GROUP).max(axis=2)

    best = jnp.moveaxis(lax.map(best_of_groups, candidates), 0, 1).reshape(len(points), -1)
    _, groups = lax.top_k(best, min(k, best.shape[1]))
    members = candidates.points.reshape(-1, GROUP, points.shape[1])[groups]
    half_squares = candidates.half_squares.reshape(-1, GROUP)[groups]
    nearness = jnp.einsum("mp,mgip->mgi", points, members) - half_squares
    _, places = lax.top_k(nearness.reshape(len(points), -1), k)
    return jnp.take_along_axis(groups, places // GROUP, axis=1) * GROUP + places % GROUP


_compiled_nearest = entry_point(_nearest, "k")
