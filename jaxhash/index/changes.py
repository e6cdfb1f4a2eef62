"""Adding, removing and merging items of sorted arrays.

An index is immutable. Each function returns a new one with the same arrays as an index built from all its items at
once. Searches of the old index are unaffected, even if the change fails.
"""

import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.sorting import group_pairs, number_runs
from jaxhash.core.checks import INT32_MAX
from jaxhash.index.building import check_pairs, check_table
from jaxhash.index.hash_index import HashIndex, Sorted, check_size, index_from_sorted, sorted_arrays


def add_items(index: HashIndex, codes: ArrayLike, *, ids: ArrayLike | None = None) -> HashIndex:
    """Returns an index with more items.

    Args:
        index: a `HashIndex` of b-bit codes.
        codes: uint32 `[m, w]`, as for `build_index`.
        ids: distinct integers in [0, 2^31) that are not in the index, `[m]`, one for each code. By default they
            continue after the largest id in the index, or from 0 if it is empty. So the id of a removed item is reused
            if it was the largest. With `multi`, ids may repeat and may be in the index, which adds codes to items.

    Returns:
        A `HashIndex`; `index` itself if there is nothing to add.

    Raises:
        ValueError: as for `build_index`, or an id is already in the index.
        TypeError: `index` is not a `HashIndex`, `codes` is not uint32, or `ids` are not integers.

    Example:
        >>> codes = jh.pack_bits([[0, 0], [0, 1]])
        >>> index = jh.add_items(jh.build_index(codes, num_bits=2), codes)  # with the ids 2 and 3
        >>> jh.search(index, codes[0], k=2).ids
        array([0, 2], dtype=int32)
    """
    old = _check_index("index", index)
    codes = check_table(codes, index.num_bits, index.multi)
    if ids is None:
        ids = _continue_ids(old[2], len(codes))
    pairs = check_pairs(codes, index.num_bits, ids, index.multi)
    check_size(len(old[2]) + len(pairs.ids), index.num_bits)
    if not index.multi:
        _check_disjoint(old[2], pairs.ids, "ids must be new, but {} is in the index already")
    if not len(pairs.ids):
        return index
    return _merge(old, group_pairs(pairs), index)


def remove_items(index: HashIndex, ids: ArrayLike, *, missing: str = "raise") -> HashIndex:
    """Returns an index without some items.

    Args:
        index: a `HashIndex`.
        ids: integers `[m]`, the ids of the items to remove; duplicates count once.
        missing: "raise" an error for an id that is not in the index, or "ignore" it.

    Returns:
        A `HashIndex`; `index` itself if there is nothing to remove.

    Raises:
        KeyError: an id is not in the index.
        ValueError: `ids` has another shape, or `missing` is unknown.
        TypeError: `index` is not a `HashIndex`, or `ids` are not integers.

    Example:
        >>> index = jh.build_index(jh.pack_bits([[0, 0], [0, 1], [1, 1]]), num_bits=2)
        >>> jh.remove_items(index, [0, 2])
        HashIndex(num_items=1, num_codes=1, num_bits=2)
    """
    items = _check_index("index", index)
    if missing not in ("raise", "ignore"):
        raise ValueError(f"missing must be raise or ignore, got {missing!r}")
    wanted = _check_wanted(ids)
    removed = np.isin(items[2], wanted)
    if missing == "raise":
        unknown = wanted[~np.isin(wanted, items[2][removed])]
        if unknown.size:
            raise KeyError(f"id {unknown[0]} is not in the index; missing='ignore' skips such ids")
    if not removed.any():
        return index
    return index_from_sorted(*_select_items(items, ~removed), index.num_bits, index.multi)


def merge_indexes(a: HashIndex, b: HashIndex) -> HashIndex:
    """Returns an index of the items of two indexes, in either order.

    Raises:
        ValueError: the two differ in `num_bits` or `multi`, are too large together, or share an id without `multi`.
        TypeError: one of them is not a `HashIndex`.
    """
    small, large = sorted((_check_index("a", a), _check_index("b", b)), key=lambda items: len(items[0]))
    if a.num_bits != b.num_bits:
        raise ValueError(f"a and b must have codes of the same length, got {a.num_bits} and {b.num_bits} bits")
    if a.multi != b.multi:
        raise ValueError(f"a and b must have the same multi, got {a.multi} and {b.multi}")
    check_size(len(small[2]) + len(large[2]), a.num_bits)
    if not a.multi:
        _check_disjoint(large[2], small[2], "a and b must have no id in common, but both have {}")
    return _merge(large, small, a)


def _check_index(name: str, index: HashIndex) -> Sorted:
    """Returns the sorted arrays of an argument that must be a `HashIndex`."""
    if not isinstance(index, HashIndex):
        raise TypeError(
            f"{name} must be a HashIndex, got {type(index).__name__}; see jaxhash.build_index; for a ShardedIndex, "
            "change and shard the whole index again"
        )
    return sorted_arrays(index)


def _continue_ids(ids: np.ndarray, count: int) -> np.ndarray:
    """Returns the `count` numbers after the largest of `ids`, int32."""
    first = int(ids.max(initial=-1)) + 1
    if first + count - 1 > INT32_MAX:
        raise ValueError(f"{count} ids after the largest in the index, {first - 1}, would exceed {INT32_MAX}: give ids")
    return np.arange(first, first + count, dtype=np.int64).astype(np.int32)


def _check_wanted(ids: ArrayLike) -> np.ndarray:
    """Returns checked ids to remove: integers `[m]` of any dtype and range, since unknown ids raise `KeyError`."""
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"ids must have shape [m], got {array.shape}")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"ids must be integers, got dtype {array.dtype}")
    return array


def _check_disjoint(old: np.ndarray, new: np.ndarray, message: str) -> None:
    """Raises if two arrays share ids; the message names the smallest."""
    common = old[np.isin(old, new)]
    if common.size:
        raise ValueError(message.format(common.min()))


def _merge(large: Sorted, small: Sorted, like: HashIndex) -> HashIndex:
    """Builds the index of two collections. With `multi`, pairs of code and id in both count once."""
    if like.multi:
        small = _drop_known_pairs(small, large)
    return index_from_sorted(*_merge_sorted(large, small), like.num_bits, like.multi)


def _drop_known_pairs(new: Sorted, old: Sorted) -> Sorted:
    """Drops the pairs of code and id that are in `old`."""
    table, offsets, ids = new
    before, known = _find_codes(old[0], table)
    sizes = np.diff(offsets)
    pairs = _join_keys(np.repeat(np.where(known, before, len(old[0])), sizes), ids)
    old_pairs = _join_keys(number_runs(old[1]), old[2])
    return _select_items(new, ~np.isin(pairs, old_pairs))


def _select_items(items: Sorted, keep: np.ndarray) -> Sorted:
    """Selects items by a mask, bool `[n]`, and drops codes without items."""
    table, offsets, ids = items
    ends = np.append(0, np.cumsum(keep, dtype=np.int32))[offsets]
    left = ends[1:] > ends[:-1]
    return table[left], np.append(0, ends[1:][left]).astype(np.int32), ids[keep]


def _merge_sorted(old: Sorted, new: Sorted) -> Sorted:
    """Merges two sorted collections that share no pair; faster for a smaller `new`."""
    table, offsets, ids = old
    new_table, new_offsets, new_ids = new
    before, known = _find_codes(table, new_table)
    # Items of a new code go between the neighboring codes, items of a known code among its items, by id.
    ranks = number_runs(offsets)
    new_sizes = np.diff(new_offsets)
    old_keys, new_keys = _join_keys(2 * ranks + 1, ids), _join_keys(np.repeat(2 * before + known, new_sizes), new_ids)
    # Codes in `new` are distinct, so np.add.at is not needed.
    sizes = np.diff(offsets)
    sizes[before[known]] += new_sizes[known]
    sizes = np.insert(sizes, before[~known], new_sizes[~known])
    return (
        np.insert(table, before[~known], new_table[~known], axis=0),
        np.append(0, np.cumsum(sizes)).astype(np.int32),
        np.insert(ids, np.searchsorted(old_keys, new_keys), new_ids),
    )


def _find_codes(table: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts the codes of the sorted `table` before each of `codes`, int64 `[m]`, and marks codes in it, bool `[m]`."""
    table_keys, keys = _view_as_strings(table), _view_as_strings(codes)
    before = np.searchsorted(table_keys, keys)
    known = np.zeros(len(keys), bool)
    inside = before < len(table_keys)
    known[inside] = table_keys[before[inside]] == keys[inside]
    return before, known


def _view_as_strings(table: np.ndarray) -> np.ndarray:
    """Converts codes uint32 `[n, w]` to byte strings `[n]`, which numpy sorts like the codes for any w."""
    return table.astype(">u4", order="C").view(f"S{4 * table.shape[1]}")[:, 0]


def _join_keys(positions: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Joins positions and ids to uint64 keys that sort by (position, id)."""
    return (positions.astype(np.uint64) << np.uint64(32)) | ids.astype(np.uint64)
