"""Codes with their ids in order, sorted on the host by numpy. XLA's sort is slow on CPU."""

from typing import NamedTuple

import numpy as np

# Numbers looked at together where an array of int64 for all of them would be too large.
AT_ONCE = 2**24


class Pairs(NamedTuple):
    """Codes and the ids of the items that bear them."""

    codes: np.ndarray  # uint32 [n, w]
    ids: np.ndarray  # int32 [n]


def sort_pairs(pairs: Pairs) -> Pairs:
    """Pairs by code and then by id; what it was given is let go as soon as can be."""
    codes, ids = pairs
    del pairs
    if codes.shape[1] == 1:
        keys = codes[:, 0].astype(np.uint64)
        del codes
        return _in_order_by_key(keys, ids)
    if (ids[1:] < ids[:-1]).any():
        by_id = np.argsort(ids)
        codes, ids = codes[by_id], ids[by_id]
    order = argsort_codes(codes)
    return Pairs(codes[order], ids[order])


def _in_order_by_key(keys: np.ndarray, ids: np.ndarray) -> Pairs:
    """In codes of one word, given as uint64 `[n]`, there is room for the ids: one sort, in place, does it all."""
    keys <<= np.uint64(32)
    keys |= ids.view(np.uint32)
    keys.sort()
    halves = keys.astype("<u8", copy=False).view("<u4").reshape(-1, 2)
    return Pairs(halves[:, 1:], halves[:, 0].view(np.int32))


def drop_duplicates(pairs: Pairs) -> Pairs:
    """Pairs in order, each of them once."""
    codes, ids = pairs
    new = mark_run_starts(codes)
    new[1:] |= ids[1:] != ids[:-1]
    return Pairs(select_rows(codes, new), ids[new])


def argsort_codes(table: np.ndarray) -> np.ndarray:
    """The stable order that sorts codes, uint32 `[n, w]`: int64 `[n]`.

    Two words are sorted at a time, as one uint64. Nearly all codes differ in the first 64 bits, so that the further
    words, and at last the places, only mend the ties; `lexsort` over all words is three times slower already for two,
    and so is a first sort that is stable by itself.
    """
    keys = _sort_keys(table)
    order = np.argsort(keys[0])
    same = np.ones(max(0, len(order) - 1), bool)  # which codes agree with their predecessor in all keys so far
    for depth in range(1, len(keys) + 1):
        placed = keys[depth - 1][order]
        same &= placed[1:] == placed[:-1]
        if not same.any():
            break
        run = np.concatenate([[0], np.cumsum(~same)])
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        mended = order[tied]
        key = keys[depth][mended] if depth < len(keys) else mended
        order[tied] = mended[np.lexsort((key, run[tied]))]
    return order


def _sort_keys(table: np.ndarray) -> list[np.ndarray]:
    """Pairs of words as uint64 `[n]`, the most significant first; an odd last word stands alone."""
    keys = []
    for first in range(0, table.shape[1], 2):
        key = table[:, first].astype(np.uint64)
        if first + 1 < table.shape[1]:
            key <<= np.uint64(32)
            key |= table[:, first + 1]
        keys.append(key)
    return keys


def find_run_starts(rows: np.ndarray) -> np.ndarray:
    """Where a new value begins in sorted numbers `[n]`, or codes `[n, w]`: int64, ascending.

    `np.unique` hashes since numpy 2.3 and takes ten times as long.
    """
    return np.flatnonzero(mark_run_starts(rows))


def mark_run_starts(rows: np.ndarray) -> np.ndarray:
    """Which of sorted numbers `[n]`, or codes `[n, w]`, differ from the one before: bool `[n]`."""
    if rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    new = np.ones(len(rows), bool)
    differs = rows[1:] != rows[:-1]
    new[1:] = differs if rows.ndim == 1 else differs.any(axis=1)
    return new


def select_rows(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The rows of `[n, w]` that a mask `[n]` chooses. For more than one axis numpy would make a list of them first."""
    return rows[:, 0][chosen][:, None] if rows.shape[1] == 1 else rows[chosen]


def find_positions(chosen: np.ndarray, behind: int, length: int) -> np.ndarray:
    """Where a mask `[n]` is set: int32 `[length]`, ascending, and `behind` after the last."""
    places, filled = np.full(length, behind, np.int32), 0
    for start in range(0, len(chosen), AT_ONCE):
        found = np.flatnonzero(chosen[start : start + AT_ONCE])
        places[filled : filled + len(found)] = found + start
        filled += len(found)
    return places


def group_pairs(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorts codes with their ids: distinct codes uint32 `[u, w]`, offsets int32 `[u + 1]`, ids int32 `[n]`.

    A pair that comes twice is kept once.
    """
    codes, ids = drop_duplicates(sort_pairs(pairs))
    new = mark_run_starts(codes)
    return select_rows(codes, new), find_positions(new, len(ids), int(new.sum()) + 1), ids
