"""Near duplicates: items that hang together by codes a few bits apart."""

from collections.abc import Iterator

import numpy as np

from jaxhash.core.checks import check_integer
from jaxhash.index.building import build_index
from jaxhash.index.hash_index import HashIndex, sorted_arrays
from jaxhash.query.radius import radius_search

# Codes whose neighbours are looked up together: bounds the memory, however many there are.
CODES_AT_ONCE = 1024


def duplicate_groups(index: HashIndex, radius: int) -> list[np.ndarray]:
    """Groups the items of an index so that each is within a radius of another of its group.

    Two items of a group may be further apart, if others stand between them: choose a small radius, and long codes.

    Args:
        index: a `HashIndex` of b-bit codes.
        radius: the largest Hamming distance that counts, inclusive, at least 0.

    Returns:
        The ids of each group of two items or more, int32, ascending; the largest group first, those of one size by
        their first ids. Items that are near to no other are in none.

    Raises:
        ValueError: the radius is negative, or items may have several codes, which says nothing of pairs of items.
        TypeError: an argument is of the wrong kind.
        ImportError: there is no scipy.
    """
    if not isinstance(index, HashIndex):
        raise TypeError(
            f"index must be a HashIndex, got {type(index).__name__}; see jaxhash.build_index (and load_index, for what "
            "was saved in parts)"
        )
    if index.multi:
        raise ValueError("index must hold one code for each item, got one of items with several codes")
    group = _component_of_codes(index, check_integer("radius", radius, 0))
    _, offsets, ids = sorted_arrays(index)
    of_item = np.repeat(group, np.diff(offsets))
    order = np.lexsort((ids, of_item))
    starts = np.flatnonzero(np.diff(of_item[order])) + 1
    groups = [members for members in np.split(ids[order], starts) if len(members) > 1]
    return sorted(groups, key=lambda members: (-len(members), members[0]))


def _component_of_codes(index: HashIndex, radius: int) -> np.ndarray:
    """Which component of the graph of near codes each distinct code is in: int32 `[u]`.

    Edges are forgotten, but for what they join, after every few codes: there may be more of them than memory holds.
    """
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    except ModuleNotFoundError:
        raise ImportError("groups of duplicates need scipy: pip install 'jaxhash[images]'") from None
    table = sorted_arrays(index)[0]
    component = np.arange(len(table), dtype=np.int32)
    for one, other in _near_codes(table, index.num_bits, radius):
        ends = (component[one], component[other])
        graph = coo_array((np.ones(len(one), bool), ends), shape=(len(table), len(table)))
        component = connected_components(graph, directed=False)[1][component]
    return component


def _near_codes(table: np.ndarray, num_bits: int, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pairs of positions in the distinct codes uint32 `[u, w]` that are within the radius."""
    codes = build_index(table, num_bits)
    for first in range(0, len(table), CODES_AT_ONCE):
        matches = radius_search(codes, table[first : first + CODES_AT_ONCE], radius=radius)
        yield first + np.repeat(np.arange(len(matches.offsets) - 1), np.diff(matches.offsets)), matches.ids
