"""How items spread over codes: as measured in an index, and as expected of evenly spread codes."""

import math
from typing import NamedTuple

import numpy as np

from jaxhash.core.checks import MAX_NUM_BITS, check_integer, check_num_bits
from jaxhash.index.hash_index import HashIndex
from jaxhash.index.processes import gather_rows
from jaxhash.index.sharding import ShardedIndex, local_shards


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
    density, count = count_densities(index)
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


def count_densities(index: HashIndex | ShardedIndex) -> tuple[np.ndarray, np.ndarray]:
    """The densities that codes have, ascending, and how many codes have each: int64 `[d]` twice."""
    if isinstance(index, ShardedIndex):
        shards = local_shards(index)
        rows = gather_rows(
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


def suggest_num_bits(num_items: int, items_per_code: float = 0.4) -> int:
    """The code length at which evenly spread items would fall about `items_per_code` on each possible code.

    The default is the density at which the source post, after Salakhutdinov and Hinton, found hash lookup to work:
    60,000 items give 17 bits.
    """
    check_integer("num_items", num_items, 1, maximum=2**63 - 1)
    if not (isinstance(items_per_code, (int, float)) and 0 < items_per_code < math.inf):
        raise ValueError(f"items_per_code must be a positive number, got {items_per_code!r}")
    return max(1, round(math.log2(num_items / items_per_code)))


def expected_matches(num_items: int, num_bits: int, radius: int) -> float:
    """How many of `num_items` lie within `radius` of a query if codes spread evenly: `n / 2^b * sum C(b, i)`.

    Learned codes don't spread evenly; they are denser where the queries are, so more matches are found.
    """
    check_integer("num_items", num_items, 0, maximum=2**63 - 1)
    check_num_bits(num_bits, MAX_NUM_BITS)
    check_integer("radius", radius, 0, maximum=2**63 - 1)
    ball = sum(math.comb(num_bits, i) for i in range(min(radius, num_bits) + 1))
    return num_items * ball / 2**num_bits
