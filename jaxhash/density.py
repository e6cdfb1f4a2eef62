"""How items spread over codes."""

from typing import NamedTuple

import numpy as np

from jaxhash.index import HashIndex
from jaxhash.processes import rows_of_all
from jaxhash.sharding import ShardedIndex, local_shards


class IndexStats(NamedTuple):
    """How items spread over codes. A density is a number of items that share one code (the post's bucket density)."""

    num_items: int
    num_codes: int
    min_density: int
    median_density: float
    mean_density: float
    max_density: int


def describe(index: HashIndex | ShardedIndex) -> IndexStats:
    """Counts items and distinct codes, and the items per distinct code; all zero for an empty index.

    All processes that hold shards of a `ShardedIndex` have to make this call.

    Raises:
        TypeError: it is no index.
    """
    density, count = density_counts(index)
    if not len(density):
        return IndexStats(0, 0, 0, 0.0, 0.0, 0)
    num_codes, num_items = int(count.sum()), int(density @ count)
    middle = np.searchsorted(np.cumsum(count), [(num_codes - 1) // 2, num_codes // 2], side="right")
    return IndexStats(
        num_items,
        num_codes,
        int(density[0]),
        float(density[middle].mean()),
        num_items / num_codes,
        int(density[-1]),
    )


def density_counts(index: HashIndex | ShardedIndex) -> tuple[np.ndarray, np.ndarray]:
    """The densities that codes have, ascending, and how many codes have each: int64 `[d]` twice."""
    if isinstance(index, ShardedIndex):
        shards = local_shards(index)
        rows = rows_of_all(
            lambda: np.concatenate([_rows(shard) for shard in shards.values()]), index.mesh.is_multi_process
        )
    elif isinstance(index, HashIndex):
        rows = _rows(index)
    else:
        raise TypeError(f"index must be a HashIndex or a ShardedIndex, got {type(index).__name__}")
    density, place = np.unique(rows[:, 0], return_inverse=True)
    count = np.zeros(len(density), np.int64)
    np.add.at(count, place, rows[:, 1])
    return density.astype(np.int64), count


def _rows(index: HashIndex) -> np.ndarray:
    """Densities and their counts, int32 `[d, 2]`; no code is in two shards."""
    density = np.diff(np.asarray(index.offsets)[: int(index.num_codes) + 1])
    return np.stack(np.unique(density, return_counts=True), axis=1).astype(np.int32)
