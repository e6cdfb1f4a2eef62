"""Search in several indexes as if they were one, for more than 2^31 items.

Results are sorted by (distance, code, id), so merging needs the codes of the results. Each index is searched with
positions in `ids` instead of ids; a position gives both the id and, by the offsets, the code. Cached data of an index,
such as address tables, serve as usual.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.sorting import number_runs
from jaxhash.core.checks import check_codes, check_integer, check_kind, is_traced
from jaxhash.index.positions import id_span, look_up, mask_positions, number_positions
from jaxhash.index.sharding import AnyIndex
from jaxhash.query.filters import check_allowed
from jaxhash.query.nearest import search
from jaxhash.query.plan import LIMITS
from jaxhash.query.radius import radius_search
from jaxhash.query.results import Neighbors, RadiusMatches


class _Part(NamedTuple):
    """One of the indexes."""

    whole: AnyIndex  # as given
    numbered: AnyIndex  # with positions as ids
    allowed: np.ndarray | None  # by position
    offset: int


class _Found(NamedTuple):
    """Results with codes, in any order."""

    queries: np.ndarray  # int64 [m]
    distances: np.ndarray  # int32 [m]
    codes: np.ndarray  # uint32 [m, w]
    ids: np.ndarray  # int64 [m]


def search_several(
    indexes: Sequence[AnyIndex],
    queries: ArrayLike,
    *,
    k: int,
    allowed: Sequence[ArrayLike | None] | None = None,
    method: str = "auto",
    id_offsets: ArrayLike | None = None,
) -> Neighbors[np.ndarray]:
    """Finds the k nearest items of each query in several indexes together.

    The results do not depend on how the items are divided among the indexes.

    Args:
        indexes: `HashIndex`es or `ShardedIndex`es of b-bit codes. They can't be traced.
        queries: codes, uint32 `[..., w]`.
        k: how many items to find, at least 1.
        allowed: mask of the items to search, or `None` for all, for each index; by default all.
        method: as for `search`.
        id_offsets: int64 `[m]`, added to the ids of each index, by default 0. The resulting ranges of ids must not
            overlap; offsets of `i * 2**31` always keep them apart.

    Returns:
        `Neighbors(distances, ids)`, int32 and int64 `[..., k]` in numpy, sorted by (distance, code, id).

    Raises:
        ValueError: indexes differ in their number of bits or overlap in ids, or as for `search`.
        TypeError: as for `search`, or an argument is traced.
    """
    k = check_integer("k", k, 1)
    codes, parts = _check_arguments(indexes, queries, allowed, id_offsets)
    flat = codes.reshape(-1, codes.shape[-1])
    distances = np.full((len(flat), k), Neighbors.NO_DISTANCE, np.int32)
    ids = np.full((len(flat), k), Neighbors.NO_ID, np.int64)
    size = max(1, LIMITS.listed // (k * len(parts)))
    for start in range(0, len(flat), size):
        run = slice(start, start + size)
        results = [search(part.numbered, flat[run], k=k, allowed=part.allowed, method=method) for part in parts]
        merged = _merge([_from_slots(part, result) for part, result in zip(parts, results, strict=True)])
        slot = np.arange(len(merged.queries)) - np.searchsorted(merged.queries, merged.queries)
        first = slot < k
        slots = merged.queries[first], slot[first]
        distances[run][slots], ids[run][slots] = merged.distances[first], merged.ids[first]
    shape = (*codes.shape[:-1], k)
    return Neighbors(distances.reshape(shape), ids.reshape(shape))


def radius_search_several(
    indexes: Sequence[AnyIndex],
    queries: ArrayLike,
    *,
    radius: int,
    allowed: Sequence[ArrayLike | None] | None = None,
    method: str = "auto",
    num_tables: int | None = None,
    id_offsets: ArrayLike | None = None,
) -> RadiusMatches:
    """Finds all items within a radius of each query in several indexes together.

    Arguments are as for `radius_search`, and `indexes`, `allowed` and `id_offsets` as for `search_several`.

    Returns:
        `RadiusMatches(offsets, distances, ids)`, with int64 ids.
    """
    codes, parts = _check_arguments(indexes, queries, allowed, id_offsets)
    options: dict[str, Any] = {"radius": radius, "method": method, "num_tables": num_tables}
    results = [radius_search(part.numbered, codes, allowed=part.allowed, **options) for part in parts]
    merged = _merge([_from_matches(part, result) for part, result in zip(parts, results, strict=True)])
    return RadiusMatches(np.sum([result.offsets for result in results], axis=0), merged.distances, merged.ids)


def _check_arguments(
    indexes: Sequence[AnyIndex], queries: ArrayLike, allowed: Any, id_offsets: Any
) -> tuple[np.ndarray, list[_Part]]:
    """Checks the arguments that both searches have in common."""
    if is_traced(indexes, queries, allowed):
        raise TypeError("several indexes are searched on the host; inside jit search each index")
    if not isinstance(indexes, (list, tuple)) or not indexes:
        raise ValueError("indexes must be a list or tuple of at least one index")
    for number, index in enumerate(indexes):
        check_kind(f"indexes[{number}]", index, AnyIndex, "jaxhash.build_index")
    if len({index.num_bits for index in indexes}) > 1:
        raise ValueError(f"indexes must have codes of one length, got {[index.num_bits for index in indexes]} bits")
    codes = check_codes("queries", queries, indexes[0].num_bits)
    masks = [None] * len(indexes) if allowed is None else allowed
    if not isinstance(masks, (list, tuple)) or len(masks) != len(indexes):
        raise ValueError(f"allowed must be a list of {len(indexes)} masks or None, one for each index")
    offsets = _check_offsets(indexes, id_offsets)
    checked = [check_allowed(index, mask) for index, mask in zip(indexes, masks, strict=True)]
    by_position = [
        None if mask is None else mask_positions(index, np.asarray(mask))
        for index, mask in zip(indexes, checked, strict=True)
    ]
    rows = zip(indexes, map(number_positions, indexes), by_position, offsets, strict=True)
    return codes, [_Part(*row) for row in rows]


def _check_offsets(indexes: Sequence[AnyIndex], id_offsets: Any) -> list[int]:
    """Returns the offsets; raises if ids of different indexes overlap."""
    offsets = np.zeros(len(indexes), np.int64) if id_offsets is None else np.asarray(id_offsets)
    if offsets.dtype.kind not in "iu":
        raise TypeError(f"id_offsets must be integers, got dtype {offsets.dtype}")
    if offsets.shape != (len(indexes),):
        raise ValueError(f"id_offsets must have shape ({len(indexes)},), one for each index, got {offsets.shape}")
    if offsets.min() < 0 or offsets.max() > 2**62:
        raise ValueError(f"id_offsets must lie between 0 and 2^62, got {offsets.tolist()}")
    numbers: list[int] = offsets.tolist()
    spans = map(id_span, indexes)
    used = sorted(
        (low + offset, high + offset, number)
        for number, ((low, high), offset) in enumerate(zip(spans, numbers, strict=True))
        if high >= 0
    )
    for (low, high, one), (start, end, other) in pairwise(used):
        if start <= high:
            raise ValueError(
                f"indexes must not overlap in ids: indexes[{one}] has ids from {low} to {high}, "
                f"indexes[{other}] from {start} to {end}; give id_offsets that keep them apart"
            )
    return numbers


def _from_slots(part: _Part, found: Neighbors[np.ndarray]) -> _Found:
    distances, positions = map(np.asarray, found)
    query, slot = np.nonzero(positions != Neighbors.NO_ID)
    return _Found(query, distances[query, slot], *_identify(part, positions[query, slot]))


def _from_matches(part: _Part, found: RadiusMatches) -> _Found:
    return _Found(number_runs(found.offsets), found.distances, *_identify(part, found.ids))


def _identify(part: _Part, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the codes and the offset ids at positions."""
    codes, ids = look_up(part.whole, positions)
    return codes, ids.astype(np.int64) + part.offset


def _merge(parts: list[_Found]) -> _Found:
    """Merges the results of all indexes, by (query, distance, code, id)."""
    joined = _Found(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    order = np.lexsort((joined.ids, *joined.codes.T[::-1], joined.distances, joined.queries))
    return _Found(*(array[order] for array in joined))
