"""Near duplicates: groups of items connected by codes a few bits apart."""

from collections.abc import Iterator

import numpy as np

from jaxhash.core.checks import check_integer
from jaxhash.index.building import build_index
from jaxhash.index.hash_index import HashIndex, sorted_arrays
from jaxhash.query.radius import radius_search

# Codes whose neighbours are searched at a time: bounds the memory.
CODES_AT_ONCE = 1024


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
    if not isinstance(index, HashIndex):
        raise TypeError(
            f"index must be a HashIndex, got {type(index).__name__}; see jaxhash.build_index (and load_index, for what "
            "was saved in parts)"
        )
    if index.multi:
        raise ValueError("index must hold one code for each item, got one of items with several codes")
    labels = _label_codes(index, check_integer("radius", radius, 0))
    _, offsets, ids = sorted_arrays(index)
    labels = np.repeat(labels, np.diff(offsets))
    order = np.lexsort((ids, labels))
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    groups = [members for members in np.split(ids[order], starts) if len(members) > 1]
    return sorted(groups, key=lambda members: (-len(members), members[0]))


def _label_codes(index: HashIndex, radius: int) -> np.ndarray:
    """Labels each distinct code with its component of the graph of near codes: int32 `[u]`.

    Edges are merged into the labels a few codes at a time, since all edges may not fit in memory.
    """
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    except ModuleNotFoundError:
        raise ImportError("groups of duplicates need scipy: pip install 'jaxhash[images]'") from None
    table = sorted_arrays(index)[0]
    labels = np.arange(len(table), dtype=np.int32)
    for first, second in _find_near_codes(table, index.num_bits, radius):
        edges = (labels[first], labels[second])
        graph = coo_array((np.ones(len(first), bool), edges), shape=(len(table), len(table)))
        labels = connected_components(graph, directed=False)[1][labels]
    return labels


def _find_near_codes(table: np.ndarray, num_bits: int, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pairs of ranks of distinct codes uint32 `[u, w]` that are within the radius."""
    codes = build_index(table, num_bits)
    for start in range(0, len(table), CODES_AT_ONCE):
        matches = radius_search(codes, table[start : start + CODES_AT_ONCE], radius=radius)
        yield start + np.repeat(np.arange(len(matches.offsets) - 1), np.diff(matches.offsets)), matches.ids
