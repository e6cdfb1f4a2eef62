"""Near pairs of items, groups of near duplicates, and deduplication."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxhash.codes.sorting import cut_runs, expand_runs, find_run_starts
from jaxhash.core.checks import check_integer, check_radius
from jaxhash.index.hash_index import HashIndex, sizes_of, sorted_arrays
from jaxhash.index.positions import id_span
from jaxhash.query.pairs.near_codes import batch_pairs, find_near_codes
from jaxhash.query.plan import LIMITS, Limits
from jaxhash.query.results import NeighborPairs, Redundant

# Items, each paired with a run of items at one distance: entries of `ids` int [m], first entries of the runs int [m],
# sizes of the runs int [m], and distances int32 [m].
Runs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def neighbor_pairs(index: HashIndex, *, radius: int, max_pairs: int | None = None) -> NeighborPairs:
    """Finds all pairs of items within a radius of each other, exactly.

    Takes about 8 bytes per pair and 100 bytes per code beside the index and the result.

    Args:
        index: a `HashIndex` of b-bit codes.
        radius: the largest Hamming distance that counts, inclusive, at least 0. Items with equal codes have distance 0.
        max_pairs: the largest number of pairs to accept; by default any.

    Returns:
        `NeighborPairs(first, second, distances)` of numpy arrays int32 `[m]`, with first id < second id, sorted by
        (first, distance, second). No item is paired with itself.

    Raises:
        ValueError: a number is out of range, items have several codes (`multi`), or there are more than `max_pairs`
            pairs, which is detected before they take memory.
        TypeError: `index` is not a `HashIndex`, or a number is not an integer.

    Example:
        >>> index = jh.build_index(jh.pack_bits([[0, 0], [0, 1], [1, 1]]), num_bits=2)
        >>> jh.neighbor_pairs(index, radius=1).second
        array([1, 2], dtype=int32)
    """
    _check_one_code_each(index)
    limit = None if max_pairs is None else check_integer("max_pairs", max_pairs, 0, maximum=2**63 - 1)
    return find_pairs(index, check_radius(radius, index.num_bits), limit)


def find_pairs(index: HashIndex, radius: int, limit: int | None, limits: Limits = LIMITS) -> NeighborPairs:
    """Implements `neighbor_pairs`, after its checks."""
    parts: list[Any] = []
    count = 0
    for runs in _list_runs(index, radius, limits):
        count += int(runs[2].sum(dtype=np.int64))
        if limit is not None and count > limit:
            raise ValueError(
                f"there are more than max_pairs = {limit} pairs within radius {radius}, {count} found so far: take a "
                "smaller radius, or duplicate_groups or deduplicate, which don't list pairs of equal codes"
            )
        parts.extend(_expand_pairs(index, runs, radius, limits))
    return _sort_pairs(parts, radius, id_span(index)[1])


def duplicate_groups(index: HashIndex, *, radius: int) -> list[np.ndarray]:
    """Groups items so that each is within a radius of another item of its group.

    Items of one group may be farther apart, connected by a chain of others: choose a small radius and long codes.

    Args:
        index: a `HashIndex` of b-bit codes.
        radius: the largest Hamming distance that counts, inclusive, at least 0.

    Returns:
        The ids of each group of at least two items, int32, ascending; the largest group first, ties by first id. Items
        without a near item are in no group.

    Raises:
        ValueError: the radius is negative, or items have several codes (`multi`), for which one near code says little.
        TypeError: `index` is not a `HashIndex`, or the radius is not an integer.
        ImportError: scipy is not installed.
    """
    _check_one_code_each(index)
    labels = label_codes(index, check_radius(radius, index.num_bits))
    _, offsets, ids = sorted_arrays(index)
    labels = np.repeat(labels, np.diff(offsets))
    order = np.lexsort((ids, labels))
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    groups = [members for members in np.split(ids[order], starts) if len(members) > 1]
    return sorted(groups, key=lambda members: (-len(members), members[0]))


def deduplicate(index: HashIndex, *, radius: int) -> Redundant:
    """Deduplicates greedily: visits items by ascending id and keeps each that is farther than `radius` from all kept.

    No two kept items are within the radius of each other, and each dropped item is within the radius of the kept one
    that represents it. A chain of near items may keep more than one.

    Args:
        index: a `HashIndex` of b-bit codes.
        radius: the largest Hamming distance that counts, inclusive, at least 0.

    Returns:
        `Redundant(removed, kept)`, int32 `[m]`: the ids of all dropped items, ascending, and for each the smallest id
        of a kept item within the radius. `remove_items(index, found.removed)` removes them.

    Raises:
        ValueError: the radius is negative, or items have several codes (`multi`).
        TypeError: `index` is not a `HashIndex`, or the radius is not an integer.

    Example:
        >>> jh.deduplicate(jh.build_index(jh.pack_bits([[0, 0], [0, 1], [1, 1]]), num_bits=2), radius=1).removed
        array([1], dtype=int32)
    """
    _check_one_code_each(index)
    radius = check_radius(radius, index.num_bits)
    _, offsets, ids = sorted_arrays(index)
    # Only the first item of a code can be kept, so it suffices to choose codes in the order of their first items.
    kept = np.repeat(_choose_codes(index, ids[offsets[:-1]], radius), np.diff(offsets))
    dropped = np.flatnonzero(kept != ids)
    by_id = dropped[np.argsort(ids[dropped])]
    return Redundant(ids[by_id], kept[by_id])


def _check_one_code_each(index: HashIndex) -> None:
    """Raises unless the argument is an index of items with one code each."""
    if not isinstance(index, HashIndex):
        raise TypeError(
            f"index must be a HashIndex, got {type(index).__name__}; see jaxhash.build_index, or load_index for an "
            "index saved in parts"
        )
    if index.multi:
        raise ValueError("index must hold one code for each item, got an index with multi=True")


def _list_runs(index: HashIndex, radius: int, limits: Limits) -> Iterator[Runs]:
    """Yields all pairs of items within a radius as `Runs`."""
    offsets = sorted_arrays(index)[1].astype(np.int64)
    sizes = np.diff(offsets)
    entries = np.arange(offsets[-1])
    num_later = np.repeat(offsets[1:], sizes) - entries - 1  # items of the same code after each item
    paired = np.flatnonzero(num_later)
    yield paired, paired + 1, num_later[paired], np.zeros(len(paired), np.int32)
    for pairs in find_near_codes(index, radius, limits):
        for part in cut_runs(sizes[pairs.first] * sizes[pairs.second], limits.listed):
            first, second, distances = (array[part] for array in pairs)
            count = sizes[first]
            yield (
                expand_runs(offsets[first], count),
                np.repeat(offsets[second], count),
                np.repeat(sizes[second], count),
                np.repeat(distances, count),
            )


def _expand_pairs(index: HashIndex, runs: Runs, radius: int, limits: Limits) -> Iterator[np.ndarray | NeighborPairs]:
    """Yields the pairs of runs, packed into keys, uint64 `[m]`, if the ids fit."""
    ids = np.asarray(index.ids)
    entries, starts, sizes, distances = runs
    for part in cut_runs(sizes, limits.listed):
        left = np.repeat(ids[entries[part]], sizes[part])
        right = ids[expand_runs(starts[part], sizes[part])]
        pairs = NeighborPairs(np.minimum(left, right), np.maximum(left, right), np.repeat(distances[part], sizes[part]))
        yield _pack(pairs, radius, id_span(index)[1]) if _fits_key(radius, id_span(index)[1]) else pairs


def _fits_key(radius: int, largest: int) -> bool:
    """Returns whether two ids and a distance fit 64 bits."""
    return 2 * largest.bit_length() + radius.bit_length() <= 64


def _pack(pairs: NeighborPairs, radius: int, largest: int) -> np.ndarray:
    """Packs pairs into keys, uint64 `[m]`, that sort by (first, distance, second)."""
    id_bits = np.uint64(largest.bit_length())
    keys = pairs.first.astype(np.uint64) << np.uint64(radius.bit_length())
    keys |= pairs.distances.astype(np.uint64)
    keys <<= id_bits
    keys |= pairs.second.astype(np.uint64)
    return keys


def _sort_pairs(parts: list[Any], radius: int, largest: int) -> NeighborPairs:
    """Joins and sorts the pairs. Empties the list."""
    if not parts:
        return NeighborPairs(*(np.zeros(0, np.int32) for _ in range(3)))
    if not _fits_key(radius, largest):
        first, second, distances = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.lexsort((second, distances, first))
        return NeighborPairs(first[order], second[order], distances[order])
    keys, end = np.empty(sum(map(len, parts)), np.uint64), 0
    while parts:  # freed one by one: all keys take two thirds of the memory of the result
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


def _choose_codes(index: HashIndex, first_ids: np.ndarray, radius: int) -> np.ndarray:
    """Returns the id that represents each code, the code's own first id if kept: int32 `[u]`."""
    step = np.empty(len(first_ids), np.uint64)  # at which the greedy loop visits each code
    order = np.argsort(first_ids)
    step[order] = np.arange(len(order), dtype=np.uint64)
    edges = [np.zeros(0, np.uint64)]
    for first, second, _ in find_near_codes(index, radius):
        earlier, later = np.minimum(step[first], step[second]), np.maximum(step[first], step[second])
        edges.append(earlier << np.uint64(32) | later)
    keys = np.sort(np.concatenate(edges))
    del edges
    earlier, later = keys >> np.uint64(32), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    starts = find_run_starts(earlier)
    representative = np.arange(len(order))
    dropped = np.zeros(len(order), bool)
    ends = np.append(starts, len(keys))[1:]
    for code, start, end in zip(earlier[starts].tolist(), starts.tolist(), ends.tolist(), strict=True):
        if not dropped[code]:
            near = later[start:end]
            near = near[~dropped[near]]
            dropped[near], representative[near] = True, code
    kept_ids = np.empty(len(order), np.int32)
    kept_ids[order] = first_ids[order][representative]
    return kept_ids


def label_codes(index: HashIndex, radius: int, limits: Limits = LIMITS) -> np.ndarray:
    """Labels each distinct code with its connected component in the graph of near codes: int32 `[u]`.

    Edges are merged into the labels in batches, since all edges may not fit in memory.
    """
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    except ModuleNotFoundError:
        raise ImportError("duplicate_groups needs scipy: pip install 'jaxhash[images]'") from None
    labels = np.arange(sizes_of(index).num_codes, dtype=np.int32)
    for first, second, _ in batch_pairs(find_near_codes(index, radius, limits), max(limits.listed, len(labels))):
        edges = (labels[first], labels[second])
        graph = coo_array((np.ones(len(first), bool), edges), shape=(len(labels), len(labels)))
        labels = connected_components(graph, directed=False)[1][labels]
    return labels
