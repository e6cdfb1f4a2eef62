"""Sorting of codes and ids in numpy, since XLA's sort is slow on CPU."""

import itertools
from typing import NamedTuple

import numpy as np

# Entries of a mask searched at a time: an int64 position for every entry would take too much memory.
ENTRIES_PER_CHUNK = 2**24


class Pairs(NamedTuple):
    """Codes, each with the id of its item."""

    codes: np.ndarray  # uint32 [n, w]
    ids: np.ndarray  # int32 [n]


def sort_pairs(pairs: Pairs) -> Pairs:
    """Sorts pairs by (code, id)."""
    codes, ids = pairs
    del pairs  # freed early: together the arrays are several times the result
    if codes.shape[1] == 1:
        keys = codes[:, 0].astype(np.uint64)
        del codes
        return _sort_keys_with_ids(keys, ids)
    order = argsort_codes(codes, ids)
    return Pairs(codes[order], ids[order])


def _sort_keys_with_ids(keys: np.ndarray, ids: np.ndarray) -> Pairs:
    """Sorts pairs with codes of one word, given as uint64 `[n]`, in place with the ids in the low halves."""
    keys <<= np.uint64(32)
    keys |= ids.view(np.uint32)
    keys.sort()
    halves = keys.astype("<u8", copy=False).view("<u4").reshape(-1, 2)
    return Pairs(halves[:, 1:], halves[:, 0].view(np.int32))


def drop_duplicates(pairs: Pairs) -> Pairs:
    """Drops duplicates from sorted pairs."""
    codes, ids = pairs
    new = mark_run_starts(codes)
    new[1:] |= ids[1:] != ids[:-1]
    return Pairs(select_rows(codes, new), ids[new])


def argsort_codes(table: np.ndarray, ids: np.ndarray | None = None) -> np.ndarray:
    """Returns the order that sorts codes, uint32 `[n, w]`, with ties by id or else by position: int64 `[n]`.

    Sorts by two words at a time, joined to one uint64. Most codes differ in the first 64 bits; later words, and finally
    ids or positions, only break ties. `lexsort` over all words is three times slower even for two words, and so is a
    stable first sort.
    """
    keys = _join_words(table)
    order = np.argsort(keys[0])
    same = np.ones(max(0, len(order) - 1), bool)  # whether a code equals its predecessor in all keys so far
    for depth in range(1, len(keys) + 1):
        ordered = keys[depth - 1][order]
        same &= ordered[1:] == ordered[:-1]
        if not same.any():
            break
        del ordered
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        run = np.cumsum(~np.append(False, same)[tied])
        unordered = order[tied]
        key = keys[depth][unordered] if depth < len(keys) else unordered if ids is None else ids[unordered]
        order[tied] = unordered[np.lexsort((key, run))]
    return order


def _join_words(table: np.ndarray) -> list[np.ndarray]:
    """Joins pairs of words to uint64 keys `[n]`, the most significant first; an odd last word is its own key."""
    keys = []
    for first in range(0, table.shape[1], 2):
        key = table[:, first].astype(np.uint64)
        if first + 1 < table.shape[1]:
            key <<= np.uint64(32)
            key |= table[:, first + 1]
        keys.append(key)
    return keys


def find_run_starts(rows: np.ndarray) -> np.ndarray:
    """Returns the positions of the first of equal values in sorted numbers `[n]` or codes `[n, w]`: int64.

    `np.unique` takes ten times as long: since numpy 2.3 it hashes.
    """
    return np.flatnonzero(mark_run_starts(rows))


def mark_run_starts(rows: np.ndarray) -> np.ndarray:
    """Marks values that differ from their predecessor in sorted numbers `[n]` or codes `[n, w]`: bool `[n]`."""
    if rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    new = np.ones(len(rows), bool)
    differs = rows[1:] != rows[:-1]
    new[1:] = differs if rows.ndim == 1 else differs.any(axis=1)
    return new


def select_rows(rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Selects rows of `[n, w]` by a mask `[n]`."""
    # With two axes, numpy first lists the positions; with one it does not.
    return rows[:, 0][mask][:, None] if rows.shape[1] == 1 else rows[mask]


def find_positions(mask: np.ndarray, fill: int, length: int) -> np.ndarray:
    """Returns the positions of the set entries of a mask `[n]`: int32 `[length]`, ascending, padded with `fill`."""
    positions, count = np.full(length, fill, np.int32), 0
    for start in range(0, len(mask), ENTRIES_PER_CHUNK):
        in_chunk = np.flatnonzero(mask[start : start + ENTRIES_PER_CHUNK])
        positions[count : count + len(in_chunk)] = in_chunk + start
        count += len(in_chunk)
    return positions


def group_pairs(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups pairs by code: distinct codes uint32 `[u, w]`, offsets int32 `[u + 1]`, ids int32 `[n]`, all sorted.

    Drops duplicate pairs.
    """
    codes, ids = drop_duplicates(sort_pairs(pairs))
    new = mark_run_starts(codes)
    return select_rows(codes, new), find_positions(new, len(ids), int(new.sum()) + 1), ids


def expand_runs(firsts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Concatenates the runs `first, first + 1, ...` of the given sizes, for numbers below 2^31: int32."""
    before = sizes.cumsum(dtype=np.int64) - sizes
    # 32 bits throughout take half the time of 64. Wraparound cancels in the sum.
    runs: np.ndarray = (firsts - before).astype(np.int32).repeat(sizes)
    runs += np.arange(len(runs), dtype=np.int32)
    return runs


def number_runs(offsets: np.ndarray) -> np.ndarray:
    """Returns the number of the run of each entry, int64 `[n]`, for runs bounded by offsets `[m + 1]`."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def cut_runs(sizes: np.ndarray, limit: int) -> list[slice]:
    """Cuts sizes `[m]` into chunks with sums of about `limit`; a single larger size forms its own chunk."""
    ends = np.cumsum(sizes, dtype=np.int64)
    marks = np.arange(limit, ends[-1] if len(ends) else 0, limit)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(ends, marks) + 1, [len(ends)]]))
    return [slice(begin, end) for begin, end in itertools.pairwise(cuts.tolist())]
