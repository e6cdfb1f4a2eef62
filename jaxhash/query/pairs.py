"""All pairs of items within a radius: `neighbor_pairs`."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxhash.core.checks import check_integer, check_radius
from jaxhash.index.hash_index import HashIndex, largest_id, sorted_arrays
from jaxhash.query.hits import expand_runs
from jaxhash.query.near_codes import find_near_codes

# Pairs of items listed at a time, unless two codes alone have more.
PAIRS_AT_ONCE = 2**21

# Items, each with a run of items that it is paired with, all at one distance: entries of `ids` int [m], first entries
# of the runs int [m], their sizes int [m], and distances int32 [m].
Runs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class NeighborPairs(NamedTuple):
    """Pairs of items within a radius, each once, by (first, distance, second)."""

    first: np.ndarray  # int32 [m], the smaller id
    second: np.ndarray  # int32 [m], the larger id
    distances: np.ndarray  # int32 [m]


def neighbor_pairs(index: HashIndex, *, radius: int, max_pairs: int | None = None) -> NeighborPairs:
    """Finds all pairs of items within a radius of each other, exactly.

    Beside the index and the answer it takes about 8 bytes for each pair and 100 bytes for each code.

    Args:
        index: a `HashIndex` of b-bit codes.
        radius: the largest Hamming distance that counts, inclusive, at least 0. Items of equal codes are 0 apart.
        max_pairs: the largest number of pairs to accept; by default any.

    Returns:
        `NeighborPairs(first, second, distances)` of numpy arrays int32 `[m]`, with first id < second id, sorted by
        (first, distance, second). No item is paired with itself.

    Raises:
        ValueError: a number is out of range, or items have several codes (`multi`); or there are more than `max_pairs`
            pairs, which is noticed before they take memory.
        TypeError: `index` is no `HashIndex`, or a number is not an integer.
    """
    check_one_code_each(index)
    radius = check_radius(radius, index.num_bits)
    limit = None if max_pairs is None else check_integer("max_pairs", max_pairs, 0, maximum=2**63 - 1)
    parts: list[Any] = []
    count = 0
    for runs in _list_runs(index, radius):
        count += int(runs[2].sum(dtype=np.int64))
        if limit is not None and count > limit:
            raise ValueError(
                f"there are more than max_pairs = {limit} pairs within radius {radius}, {count} found so far: take a "
                "smaller radius, or duplicate_groups or deduplicate, which don't list pairs of equal codes"
            )
        parts.extend(_expand_pairs(index, runs, radius))
    return _sort_pairs(parts, radius, largest_id(index))


def check_one_code_each(index: HashIndex) -> None:
    """Raises unless the argument is an index of items with one code each."""
    if not isinstance(index, HashIndex):
        raise TypeError(
            f"index must be a HashIndex, got {type(index).__name__}; see jaxhash.build_index (and load_index, for what "
            "was saved in parts)"
        )
    if index.multi:
        raise ValueError("index must hold one code for each item, got one of items with several codes")


def _list_runs(index: HashIndex, radius: int) -> Iterator[Runs]:
    """Yields all pairs of items within a radius, as items with runs of others."""
    offsets = sorted_arrays(index)[1].astype(np.int64)
    sizes = np.diff(offsets)
    entries = np.arange(offsets[-1])
    later = np.repeat(offsets[1:], sizes) - entries - 1  # the items of the same code after each item
    some = np.flatnonzero(later)
    yield some, some + 1, later[some], np.zeros(len(some), np.int32)
    for pairs in find_near_codes(index, radius):
        for part in _cut(sizes[pairs.first] * sizes[pairs.second]):
            first, second, distances = (array[part] for array in pairs)
            count = sizes[first]
            yield (
                expand_runs(offsets[first], count),
                np.repeat(offsets[second], count),
                np.repeat(sizes[second], count),
                np.repeat(distances, count),
            )


def _cut(counts: np.ndarray) -> list[slice]:
    """Cuts counts `[m]` into parts that each add up to about `PAIRS_AT_ONCE`."""
    ends = np.cumsum(counts, dtype=np.int64)
    marks = np.arange(PAIRS_AT_ONCE, ends[-1] if len(ends) else 0, PAIRS_AT_ONCE)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(ends, marks) + 1, [len(ends)]]))
    return [slice(begin, end) for begin, end in itertools.pairwise(cuts.tolist())]


def _expand_pairs(index: HashIndex, runs: Runs, radius: int) -> Iterator[np.ndarray | NeighborPairs]:
    """Yields the pairs of some runs; as keys, uint64 `[m]`, if these suffice for the ids of the index."""
    ids = np.asarray(index.ids)
    entries, starts, sizes, distances = runs
    for part in _cut(sizes):
        left = np.repeat(ids[entries[part]], sizes[part])
        right = ids[expand_runs(starts[part], sizes[part])]
        pairs = NeighborPairs(np.minimum(left, right), np.maximum(left, right), np.repeat(distances[part], sizes[part]))
        yield _pack(pairs, radius, largest_id(index)) if _fits_key(radius, largest_id(index)) else pairs


def _fits_key(radius: int, largest: int) -> bool:
    """Whether two ids and a distance fit 64 bits."""
    return 2 * largest.bit_length() + radius.bit_length() <= 64


def _pack(pairs: NeighborPairs, radius: int, largest: int) -> np.ndarray:
    """Packs pairs into keys, uint64 `[m]`, in whose order they are to come."""
    id_bits = np.uint64(largest.bit_length())
    keys = pairs.first.astype(np.uint64) << np.uint64(radius.bit_length())
    keys |= pairs.distances.astype(np.uint64)
    keys <<= id_bits
    keys |= pairs.second.astype(np.uint64)
    return keys


def _sort_pairs(parts: list[Any], radius: int, largest: int) -> NeighborPairs:
    """Joins and sorts the pairs, and empties the list."""
    if not parts:
        return NeighborPairs(*(np.zeros(0, np.int32) for _ in range(3)))
    if not _fits_key(radius, largest):
        first, second, distances = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.lexsort((second, distances, first))
        return NeighborPairs(first[order], second[order], distances[order])
    keys, end = np.empty(sum(map(len, parts)), np.uint64), 0
    while parts:  # freed one by one: all keys are two thirds of the answer
        part = parts.pop()
        keys[end : end + len(part)] = part
        end += len(part)
    keys.sort()
    id_bits, distance_bits = largest.bit_length(), radius.bit_length()
    second = (keys & np.uint64((1 << id_bits) - 1)).astype(np.int32)
    keys >>= np.uint64(id_bits)
    distances = (keys & np.uint64((1 << distance_bits) - 1)).astype(np.int32)
    keys >>= np.uint64(distance_bits)
    return NeighborPairs(keys.astype(np.int32), second, distances)
