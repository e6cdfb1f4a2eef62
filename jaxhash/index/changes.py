"""Changing a collection: new indexes from old ones, by merging what is sorted already.

An index never changes. These functions return another one, equal array for array to one built from all the items at
once, and leave the old one as it was, whatever happens: who is searching it meanwhile notices nothing.
"""

import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.sorting import group_pairs
from jaxhash.core.checks import INT32_MAX
from jaxhash.index.building import check_pairs, check_table
from jaxhash.index.hash_index import HashIndex, check_size, index_from_sorted, sorted_arrays

# Distinct codes uint32 [u, w] in ascending order, offsets int32 [u + 1] and ids int32 [n].
Sorted = tuple[np.ndarray, np.ndarray, np.ndarray]


def add_items(index: HashIndex, codes: ArrayLike, *, ids: ArrayLike | None = None) -> HashIndex:
    """Returns an index of the items of `index` and some more.

    Args:
        index: a `HashIndex` of b-bit codes.
        codes: uint32 `[m, w]`, as for `build_index`.
        ids: distinct integers in [0, 2^31) that are not in the index, `[m]`, one for each code; by default they go on
            after the largest id in the index (from 0 if it is empty), so that additions number items as one build
            would. The number of a removed item is given again if it was the largest. Where items may have several
            codes, ids may repeat or be in the index, and get more codes.

    Returns:
        A `HashIndex`; `index` itself if there is nothing to add.

    Raises:
        ValueError: what `build_index` refuses; or an id is in the index already.
        TypeError: `index` is no `HashIndex`, `codes` is not uint32, or `ids` are not integers.
    """
    old = _contents("index", index)
    codes = check_table(codes, index.num_bits, index.multi)
    if ids is None:
        ids = _following(old[2], len(codes))
    pairs = check_pairs(codes, index.num_bits, ids, index.multi)
    check_size(len(old[2]) + len(pairs.ids), index.num_bits)
    if not index.multi:
        _check_apart(old[2], pairs.ids, "ids must be new, but {} is in the index already")
    if not len(pairs.ids):
        return index
    return _joined(old, group_pairs(pairs), index)


def remove_items(index: HashIndex, ids: ArrayLike, *, missing: str = "raise") -> HashIndex:
    """Returns an index of the items of `index` but for some.

    Args:
        index: a `HashIndex`.
        ids: integers `[m]`, the ids of the items to leave out. They are taken as a set: an id that comes twice is
            removed once.
        missing: what to do about an id that is not in the index; "raise" an error, or "ignore" it.

    Returns:
        A `HashIndex`; `index` itself if there is nothing to remove.

    Raises:
        KeyError: an id is not in the index.
        ValueError: `ids` has another shape, or there is no such `missing`.
        TypeError: `index` is no `HashIndex`, or `ids` are not integers.
    """
    table, offsets, old = _contents("index", index)
    if missing not in ("raise", "ignore"):
        raise ValueError(f"missing must be raise or ignore, got {missing!r}")
    wanted = _check_wanted(ids)
    removed = np.isin(old, wanted)
    if missing == "raise":
        unknown = wanted[~np.isin(wanted, old[removed])]
        if unknown.size:
            raise KeyError(f"id {unknown[0]} is not in the index; missing='ignore' passes over such ids")
    if not removed.any():
        return index
    return index_from_sorted(*_kept((table, offsets, old), ~removed), index.num_bits, index.multi)


def merge_indexes(a: HashIndex, b: HashIndex) -> HashIndex:
    """Returns an index of the items of two indexes; the order of the two does not matter.

    Raises:
        ValueError: the two differ in their number of bits or in whether items may have several codes, share an id
            though they may not, or are too large together.
        TypeError: one of them is no `HashIndex`.
    """
    parts = sorted((_contents("a", a), _contents("b", b)), key=lambda part: len(part[0]))
    if a.num_bits != b.num_bits:
        raise ValueError(f"a and b must have codes of the same length, got {a.num_bits} and {b.num_bits} bits")
    if a.multi != b.multi:
        raise ValueError("a and b must both be indexes of items with several codes, or neither")
    small, large = parts
    check_size(len(small[2]) + len(large[2]), a.num_bits)
    if not a.multi:
        _check_apart(large[2], small[2], "a and b must have no id in common, but both have {}")
    return _joined(large, small, a)


def _joined(large: Sorted, small: Sorted, like: HashIndex) -> HashIndex:
    """An index of two collections. If items may have several codes, both may hold the same pair: it is left out."""
    if like.multi:
        small = _without(small, large)
    return index_from_sorted(*_merged(large, small), like.num_bits, like.multi)


def _contents(name: str, index: HashIndex) -> Sorted:
    if not isinstance(index, HashIndex):
        raise TypeError(
            f"{name} must be a HashIndex, got {type(index).__name__}; see jaxhash.build_index (and shard_index, to "
            "shard the whole index again once it has changed)"
        )
    return sorted_arrays(index)


def _following(ids: np.ndarray, count: int) -> np.ndarray:
    """The `count` numbers after the largest of `ids`, int32."""
    first = int(ids.max(initial=-1)) + 1
    if first + count - 1 > INT32_MAX:
        raise ValueError(f"{count} ids after the largest in the index, {first - 1}, would pass {INT32_MAX}: give ids")
    return np.arange(first, first + count, dtype=np.int64).astype(np.int32)


def _check_wanted(ids: ArrayLike) -> np.ndarray:
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"ids must have shape [m], got {array.shape}")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"ids must be integers, got dtype {array.dtype}")
    return array


def _check_apart(old: np.ndarray, new: np.ndarray, message: str) -> None:
    """Raises with the smallest id that is in both, if there is one."""
    common = old[np.isin(old, new)]
    if common.size:
        raise ValueError(message.format(common.min()))


def _without(new: Sorted, old: Sorted) -> Sorted:
    """What of a sorted collection another one does not hold."""
    table, offsets, ids = new
    before, known = _places(old[0], table)
    sizes = np.diff(offsets)
    pairs = _keys(np.repeat(np.where(known, before, len(old[0])), sizes), ids)
    return _kept(new, ~np.isin(pairs, _keys(np.repeat(np.arange(len(old[0])), np.diff(old[1])), old[2])))


def _kept(items: Sorted, keep: np.ndarray) -> Sorted:
    """A sorted collection without some of its items, and without the codes that have none left; bool `[n]`."""
    table, offsets, ids = items
    ends = np.append(0, np.cumsum(keep, dtype=np.int32))[offsets]
    left = ends[1:] > ends[:-1]
    return table[left], np.append(0, ends[1:][left]).astype(np.int32), ids[keep]


def _merged(old: Sorted, new: Sorted) -> Sorted:
    """Merges two sorted collections that share no pair; quicker the smaller `new` is."""
    table, offsets, ids = old
    more, more_offsets, more_ids = new
    before, known = _places(table, more)
    # Where items go: those of a new code between the codes around it, those of a known one among its items, by id.
    rank = np.repeat(np.arange(len(table)), np.diff(offsets))
    sizes = np.diff(more_offsets)
    item_place = np.searchsorted(_keys(2 * rank + 1, ids), _keys(np.repeat(2 * before + known, sizes), more_ids))
    # Codes that are known already add to the sizes of theirs; np.add.at is not needed, as `more` has no code twice.
    counts = np.diff(offsets)
    counts[before[known]] += sizes[known]
    counts = np.insert(counts, before[~known], sizes[~known])
    return (
        np.insert(table, before[~known], more[~known], axis=0),
        np.append(0, np.cumsum(counts)).astype(np.int32),
        np.insert(ids, item_place, more_ids),
    )


def _places(table: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many codes of `table` come before each of `wanted`, int64 `[m]`, and whether the next is equal, bool."""
    ordered, sought = _as_strings(table), _as_strings(wanted)
    before = np.searchsorted(ordered, sought)
    known = np.zeros(len(sought), bool)
    inside = before < len(ordered)
    known[inside] = ordered[before[inside]] == sought[inside]
    return before, known


def _as_strings(table: np.ndarray) -> np.ndarray:
    """Codes uint32 `[n, w]` as byte strings `[n]`, which numpy compares as the codes, whatever their length."""
    return table.astype(">u4", order="C").view(f"S{4 * table.shape[1]}")[:, 0]


def _keys(place: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return (place.astype(np.uint64) << np.uint64(32)) | ids.astype(np.uint64)
