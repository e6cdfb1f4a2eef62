"""Items per code: measured in an index, and expected for evenly distributed codes."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhash.core.checks import MAX_NUM_BITS, check_integer, check_num_bits
from jaxhash.index.address_table import AddressTable, Slice, list_tables
from jaxhash.index.hash_index import HashIndex, cache_of
from jaxhash.index.processes import gather_rows
from jaxhash.index.sharding import ShardedIndex, local_shards


class TableStats(NamedTuple):
    """An address table: the slice of bits of its addresses, and its size on the host."""

    first: int
    size: int
    num_bytes: int


class IndexStats(NamedTuple):
    """Statistics of an index: items per code, and the memory of cached data.

    The density of a code is the number of its items (the post's bucket density).
    """

    num_items: int
    num_codes: int  # distinct codes
    min_density: int
    median_density: float
    mean_density: float
    max_density: int
    tables: tuple[TableStats, ...] = ()  # address tables built so far
    kept_bytes: int = 0  # cached data of searches, including tables


def describe(index: HashIndex | ShardedIndex) -> IndexStats:
    """Counts items, distinct codes, and items for each distinct code; all zero for an empty index.

    `tables` are the address tables built so far by searches or `prepare`. `kept_bytes` is the memory of all cached
    data: these tables, the filter of the last mask, and other layouts of the arrays. So equal indexes may differ in
    these two. For a `ShardedIndex` they add up the shards of this process. All processes that hold shards must make
    this call.

    Raises:
        TypeError: `index` is neither a `HashIndex` nor a `ShardedIndex`.
    """
    stats = _describe_densities(*count_densities(index))
    parts = list(local_shards(index).values()) if isinstance(index, ShardedIndex) else [index]
    return stats._replace(tables=_describe_tables(parts), kept_bytes=_count_kept_bytes([index, *parts]))


def _count_kept_bytes(indexes: Sequence[HashIndex | ShardedIndex]) -> int:
    """Adds up the sizes of the arrays cached for indexes in this process, each once, without the indexes' own."""
    own = {id(array) for array in jax.tree.leaves(indexes)}
    kept = {id(leaf): leaf for index in indexes for leaf in _list_kept(index)}
    return sum(_count_bytes(leaf) for number, leaf in kept.items() if number not in own)


def _list_kept(index: HashIndex | ShardedIndex) -> Iterator[Any]:
    """Yields the arrays and tables cached for an index, some repeatedly."""
    cache = cache_of(index)
    words = None if cache.words is None else cache.words.groups  # `rows` are views of these
    yield from jax.tree.leaves((words, cache.tables, list(cache.device_tables.values()), cache.last_filter))
    if cache.numbered is not None:  # the same codes with other ids
        yield from jax.tree.leaves(cache.numbered)
        yield from _list_kept(cache.numbered)


def _count_bytes(value: Any) -> int:
    if isinstance(value, jax.Array):
        return sum(piece.data.nbytes for piece in value.addressable_shards)
    if isinstance(value, AddressTable):
        return value.num_bytes
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _describe_tables(indexes: Iterable[HashIndex]) -> tuple[TableStats, ...]:
    total_bytes: dict[Slice, int] = {}
    for table in itertools.chain.from_iterable(map(list_tables, indexes)):
        total_bytes[table.bits] = total_bytes.get(table.bits, 0) + table.num_bytes
    return tuple(TableStats(*bits, num_bytes) for bits, num_bytes in sorted(total_bytes.items()))


def _describe_densities(density: np.ndarray, count: np.ndarray) -> IndexStats:
    """Computes the statistics of a histogram from `count_densities`."""
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
    """Returns a histogram of densities: the distinct ones, ascending, and their numbers of codes, both int64 `[d]`."""
    if isinstance(index, ShardedIndex):
        shards = local_shards(index)
        rows = gather_rows(
            lambda: np.concatenate([_count_rows(shard) for shard in shards.values()]), index.mesh.is_multi_process
        )
    elif isinstance(index, HashIndex):
        rows = _count_rows(index)
    else:
        raise TypeError(f"index must be a HashIndex or a ShardedIndex, got {type(index).__name__}")
    density, position = np.unique(rows[:, 0], return_inverse=True)
    count = np.zeros(len(density), np.int64)
    np.add.at(count, position, rows[:, 1])
    return density.astype(np.int64), count


def _count_rows(index: HashIndex) -> np.ndarray:
    """Returns densities and their counts, int32 `[d, 2]`. Counts of shards add up, as no code is in two shards."""
    density = np.diff(np.asarray(index.offsets)[: int(index.num_codes) + 1])
    return np.stack(np.unique(density, return_counts=True), axis=1).astype(np.int32)


def suggest_num_bits(num_items: int, items_per_code: float = 0.4) -> int:
    """Returns the code length at which each of the 2^b codes has about `items_per_code` items, evenly distributed.

    The default is the density recommended by the source post, after Salakhutdinov and Hinton: 17 bits for 60,000 items.

    Raises:
        ValueError: `num_items` is below 1, or `items_per_code` is not a positive number.
        TypeError: `num_items` is not an integer.

    Example:
        >>> jh.suggest_num_bits(60_000)
        17
    """
    check_integer("num_items", num_items, 1, maximum=2**63 - 1)
    if not (isinstance(items_per_code, (int, float)) and 0 < items_per_code < math.inf):
        raise ValueError(f"items_per_code must be a positive number, got {items_per_code!r}")
    return max(1, round(math.log2(num_items / items_per_code)))


def expected_matches(num_items: int, num_bits: int, *, radius: int) -> float:
    """Returns the expected matches of a query for evenly distributed codes: `n / 2^b * sum(C(b, i), i <= r)`.

    Learned codes are denser near the queries, so searches find more. For an estimate, average the `counts` of
    `radius_search_padded` over a sample of queries.

    Raises:
        ValueError: a number is out of range.
        TypeError: a number is not an integer.
    """
    check_integer("num_items", num_items, 0, maximum=2**63 - 1)
    check_num_bits(num_bits, MAX_NUM_BITS)
    check_integer("radius", radius, 0, maximum=2**63 - 1)
    return num_items * ball_size(num_bits, radius) / 2**num_bits


def ball_size(num_bits: int, radius: int) -> int:
    """Returns the number of codes, out of 2^num_bits, within a radius of a code."""
    return sum(math.comb(num_bits, flips) for flips in range(min(radius, num_bits) + 1))
