"""Near duplicates: groups of items connected by codes a few bits apart, and what may go of them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxhash.codes.sorting import find_run_starts
from jaxhash.core.checks import check_radius
from jaxhash.index.hash_index import HashIndex, sorted_arrays
from jaxhash.query.near_codes import NearCodes, find_near_codes
from jaxhash.query.pairs import check_one_code_each

# Edges that are merged into the labels at a time, or as many as there are codes.
EDGES_AT_ONCE = 2**21


class Redundant(NamedTuple):
    """Items that others stand for: `kept[i]` stays in place of `removed[i]`."""

    removed: np.ndarray  # int32 [m], the ids of the items that may go, ascending
    kept: np.ndarray  # int32 [m], for each the id of an item that stays


def duplicate_groups(index: HashIndex, radius: int) -> list[np.ndarray]:
    """Groups items so that each is within a radius of another item of its group.

    Items of one group can be further apart, connected by a chain of others: choose a small radius and long codes.

    Args:
        index: a `HashIndex` of b-bit codes.
        radius: the largest Hamming distance that counts, inclusive, at least 0.

    Returns:
        The ids of each group of at least two items, int32, ascending; the largest group first, groups of one size by
        their first ids. Items that are near to no other are in no group.

    Raises:
        ValueError: the radius is negative, or items have several codes (`multi`), so that one near code says little.
        TypeError: `index` is no `HashIndex`, or the radius is not an integer.
        ImportError: scipy is not installed.
    """
    check_one_code_each(index)
    labels = _label_codes(index, check_radius(radius, index.num_bits))
    _, offsets, ids = sorted_arrays(index)
    labels = np.repeat(labels, np.diff(offsets))
    order = np.lexsort((ids, labels))
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    groups = [members for members in np.split(ids[order], starts) if len(members) > 1]
    return sorted(groups, key=lambda members: (-len(members), members[0]))


def deduplicate(index: HashIndex, *, radius: int) -> Redundant:
    """Chooses the items that stay if near duplicates go: in the order of ids, each that is near to none that stays.

    No two items that stay are within the radius of each other, and each that goes is within the radius of the one
    that stays in its place. Groups that hang together by a chain keep several items.

    Args:
        index: a `HashIndex` of b-bit codes.
        radius: the largest Hamming distance that counts, inclusive, at least 0.

    Returns:
        `Redundant(removed, kept)`, int32 `[m]`: the ids of all items that go, ascending, and for each the smallest id
        of an item that stays within the radius. `remove_items(index, found.removed)` removes them.

    Raises:
        ValueError: the radius is negative, or items have several codes (`multi`).
        TypeError: `index` is no `HashIndex`, or the radius is not an integer.
    """
    check_one_code_each(index)
    radius = check_radius(radius, index.num_bits)
    _, offsets, ids = sorted_arrays(index)
    # Of equal codes only the first item can stay; so it suffices to choose codes, in the order of their first items.
    kept = np.repeat(_choose_codes(index, ids[offsets[:-1]], radius), np.diff(offsets))
    goes = np.flatnonzero(kept != ids)
    by_id = goes[np.argsort(ids[goes])]
    return Redundant(ids[by_id], kept[by_id])


def _choose_codes(index: HashIndex, first_ids: np.ndarray, radius: int) -> np.ndarray:
    """For each code, the id that stands for it: that of its own first item if this stays, int32 `[u]`."""
    turn = np.empty(len(first_ids), np.uint64)  # when each code is considered
    order = np.argsort(first_ids)
    turn[order] = np.arange(len(order), dtype=np.uint64)
    edges = [np.zeros(0, np.uint64)]
    for first, second, _ in find_near_codes(index, radius):
        earlier, later = np.minimum(turn[first], turn[second]), np.maximum(turn[first], turn[second])
        edges.append(earlier << np.uint64(32) | later)
    keys = np.sort(np.concatenate(edges))
    del edges
    earlier, later = keys >> np.uint64(32), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    starts = find_run_starts(earlier)
    chosen = np.arange(len(order))
    decided = np.zeros(len(order), bool)  # whether an earlier code stands for this one
    ends = np.append(starts, len(keys))[1:]
    for code, start, end in zip(earlier[starts].tolist(), starts.tolist(), ends.tolist(), strict=True):
        if not decided[code]:
            near = later[start:end]
            near = near[~decided[near]]
            decided[near], chosen[near] = True, code
    found = np.empty(len(order), np.int32)
    found[order] = first_ids[order][chosen]
    return found


def _label_codes(index: HashIndex, radius: int) -> np.ndarray:
    """Labels each distinct code with its component of the graph of near codes: int32 `[u]`.

    Edges are merged into the labels a few at a time, since all edges may not fit in memory.
    """
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    except ModuleNotFoundError:
        raise ImportError("groups of duplicates need scipy: pip install 'jaxhash[images]'") from None
    labels = np.arange(int(index.num_codes), dtype=np.int32)
    for first, second in _join_edges(find_near_codes(index, radius), max(EDGES_AT_ONCE, len(labels))):
        edges = (labels[first], labels[second])
        graph = coo_array((np.ones(len(first), bool), edges), shape=(len(labels), len(labels)))
        labels = connected_components(graph, directed=False)[1][labels]
    return labels


def _join_edges(parts: Iterator[NearCodes], size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Joins parts until they hold `size` pairs."""
    held: list[NearCodes] = []
    for part in parts:
        held.append(part)
        if sum(len(pairs.first) for pairs in held) >= size:
            yield np.concatenate([pairs.first for pairs in held]), np.concatenate([pairs.second for pairs in held])
            held = []
    if held:
        yield np.concatenate([pairs.first for pairs in held]), np.concatenate([pairs.second for pairs in held])
