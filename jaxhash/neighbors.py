"""Which training items are alike, found without labels: exact nearest neighbours by features, and the mutual ones.

Of two items the one may be among the other's nearest and not the other way round: one that lies apart has neighbours
which have nearer ones of their own. On MNIST 3.7 % of ten neighbours have another label, and 1.6 % of the mutual ones.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhash.dispatch import entry_point, in_batches

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
