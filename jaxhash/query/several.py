"""Several indexes searched as if they were one, so that there may be more than 2^31 items.

Results are sorted by (distance, code, id), so merging needs the codes of what was found. Each index is searched with
the entries of `ids` in place of the ids: entry e leads to its code by the offsets, and to `ids[e]`. Whatever else is
known of the index, such as its address tables, is used as if it were searched alone.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxhash.core.checks import check_codes, check_integer, check_kind, is_traced
from jaxhash.index.sharding import AnyIndex
from jaxhash.query.entries import find_id_span, look_up, mask_entries, number_entries
from jaxhash.query.results import Neighbors, RadiusMatches

AnySequence = list[Any] | tuple[AnyIndex, ...]

# Results put in order at a time.
RESULTS_AT_ONCE = 2**22


class _Part(NamedTuple):
    """One of the indexes."""

    whole: AnyIndex  # as it was given
    numbered: AnyIndex  # with the entries of `ids` for ids
    allowed: Any  # by entry
    offset: int


class _Found(NamedTuple):
    """Items that were found, in any order."""

    queries: np.ndarray  # int64 [m]
    distances: np.ndarray  # int32 [m]
    codes: np.ndarray  # uint32 [m, w]
    ids: np.ndarray  # int64 [m]


def refuse_offsets(id_offsets: Any) -> None:
    """Raises if offsets are given for one index."""
    if id_offsets is not None:
        raise ValueError("id_offsets are for a list or tuple of several indexes, got a single index")


def search_several(
    indexes: AnySequence, queries: ArrayLike, k: int, allowed: Any, id_offsets: Any, find: Callable[..., Neighbors]
) -> Neighbors:
    """Implements `search` for several indexes, of which `find` searches one."""
    k = check_integer("k", k, 1)
    codes, parts = _check_arguments(indexes, queries, allowed, id_offsets)
    flat = codes.reshape(-1, codes.shape[-1])
    distances = np.full((len(flat), k), Neighbors.NO_DISTANCE, np.int32)
    ids = np.full((len(flat), k), Neighbors.NO_ID, np.int64)
    size = max(1, RESULTS_AT_ONCE // (k * len(parts)))
    for start in range(0, len(flat), size):
        run = slice(start, start + size)
        found = [find(part.numbered, flat[run], k=k, allowed=part.allowed) for part in parts]
        merged = _merge([_from_slots(part, one) for part, one in zip(parts, found, strict=True)])
        place = np.arange(len(merged.queries)) - np.searchsorted(merged.queries, merged.queries)
        first = place < k
        slots = merged.queries[first], place[first]
        distances[run][slots], ids[run][slots] = merged.distances[first], merged.ids[first]
    shape = (*codes.shape[:-1], k)
    return Neighbors(distances.reshape(shape), ids.reshape(shape))  # type: ignore[arg-type]  # int64 is not for JAX


def radius_search_several(
    indexes: AnySequence, queries: ArrayLike, allowed: Any, id_offsets: Any, find: Callable[..., RadiusMatches]
) -> RadiusMatches:
    """Implements `radius_search` for several indexes, of which `find` searches one."""
    codes, parts = _check_arguments(indexes, queries, allowed, id_offsets)
    found = [find(part.numbered, codes, allowed=part.allowed) for part in parts]
    merged = _merge([_from_matches(part, one) for part, one in zip(parts, found, strict=True)])
    return RadiusMatches(np.sum([one.offsets for one in found], axis=0), merged.distances, merged.ids)


def _check_arguments(
    indexes: AnySequence, queries: ArrayLike, allowed: Any, id_offsets: Any
) -> tuple[np.ndarray, list[_Part]]:
    """Checks what all searches of several indexes have in common."""
    if is_traced(indexes, queries, allowed):
        raise TypeError("several indexes are searched from the host; inside jit search each of them")
    if not indexes:
        raise ValueError("index must be at least one index, got an empty sequence")
    for number, index in enumerate(indexes):
        check_kind(f"index[{number}]", index, AnyIndex, "jaxhash.build_index")
    if len({index.num_bits for index in indexes}) > 1:
        raise ValueError(f"all indexes must have codes of one length, got {[index.num_bits for index in indexes]} bits")
    codes = check_codes("queries", queries, indexes[0].num_bits)
    masks = [None] * len(indexes) if allowed is None else allowed
    if not isinstance(masks, (list, tuple)) or len(masks) != len(indexes):
        raise ValueError(f"allowed must be a list of {len(indexes)} masks or None, one for each index")
    offsets = _check_offsets(indexes, id_offsets)
    by_entry = [mask_entries(index, mask) for index, mask in zip(indexes, masks, strict=True)]
    rows = zip(indexes, map(number_entries, indexes), by_entry, offsets, strict=True)
    return codes, [_Part(*row) for row in rows]


def _check_offsets(indexes: AnySequence, id_offsets: Any) -> list[int]:
    """Returns the offsets; raises unless they keep the ids of all indexes apart."""
    offsets = np.zeros(len(indexes), np.int64) if id_offsets is None else np.asarray(id_offsets)
    if offsets.dtype.kind not in "iu":
        raise TypeError(f"id_offsets must be integers, got dtype {offsets.dtype}")
    if offsets.shape != (len(indexes),):
        raise ValueError(f"id_offsets must have shape ({len(indexes)},), one for each index, got {offsets.shape}")
    if offsets.min() < 0 or offsets.max() > 2**62:
        raise ValueError(f"id_offsets must lie between 0 and 2^62, got {offsets.tolist()}")
    numbers: list[int] = offsets.tolist()
    spans = [find_id_span(index) for index in indexes]
    used = sorted(
        (low + offset, high + offset, number)
        for number, ((low, high), offset) in enumerate(zip(spans, numbers, strict=True))
        if high >= 0
    )
    for (low, high, one), (start, end, other) in pairwise(used):
        if start <= high:
            raise ValueError(
                f"ids of different indexes must not overlap: index[{one}] has ids from {low} to {high}, index[{other}] "
                f"from {start} to {end}; give id_offsets that keep them apart"
            )
    return numbers


def _from_slots(part: _Part, found: Neighbors) -> _Found:
    distances, entries = map(np.asarray, found)
    query, slot = np.nonzero(entries != Neighbors.NO_ID)
    return _Found(query, distances[query, slot], *_identify(part, entries[query, slot]))


def _from_matches(part: _Part, found: RadiusMatches) -> _Found:
    query = np.repeat(np.arange(len(found.offsets) - 1), np.diff(found.offsets))
    return _Found(query, found.distances, *_identify(part, found.ids))


def _identify(part: _Part, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes and the offset ids of some entries."""
    codes, ids = look_up(part.whole, entries)
    return codes, ids.astype(np.int64) + part.offset


def _merge(parts: list[_Found]) -> _Found:
    """Joins what was found in all indexes, by (query, distance, code, id)."""
    joined = _Found(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    order = np.lexsort((joined.ids, *joined.codes.T[::-1], joined.distances, joined.queries))
    return _Found(*(array[order] for array in joined))
