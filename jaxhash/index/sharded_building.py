"""Sharded index construction from items distributed over processes: `build_sharded_index`.

It is a sample sort. Each process sorts its own items and sends the others an even sample of its codes. The quantiles of
all samples divide the codes into one range per process. Each item is sent to the process of its range, which sorts the
received items. Then the ranks of all codes are known, and each shard is sent to the processes that hold it.
"""

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxhash.codes.sorting import argsort_codes, find_run_starts, mark_run_starts
from jaxhash.core.checks import check_ids
from jaxhash.index.building import build_index, check_pairs
from jaxhash.index.hash_index import Sorted
from jaxhash.index.processes import exchange_rows, gather_rows
from jaxhash.index.sharding import (
    ShardedIndex,
    assemble_shards,
    check_mesh,
    cut_evenly,
    find_devices,
    own_devices,
    shard_index,
)

# Each process samples this many codes times the number of processes, so that ranges are even to one part in 64.
SAMPLES_PER_PROCESS = 64


def build_sharded_index(
    codes: ArrayLike, num_bits: int, mesh: Mesh, *, ids: ArrayLike, multi: bool = False, axis_name: str = "shards"
) -> ShardedIndex:
    """Builds a sharded index from the items of all processes; no process ever holds all items.

    Under `jax.distributed`, all processes with devices in the mesh must make this call, each with its own items,
    possibly none. Items are exchanged in blocks by JAX's collectives.

    Args:
        codes: uint32 `[n, w]`, the codes of the items of this process, as for `build_index`.
        num_bits: the number of bits of a code, `b`; the same in all processes.
        mesh: as for `shard_index`.
        ids: the ids of these items, integers in [0, 2^31), `[n]`; distinct across all processes.
        multi: whether an item may have several codes, also in different processes, as for `build_index`.
        axis_name: as for `shard_index`.

    Returns:
        A `ShardedIndex`, equal to `shard_index` of an index of the items of all processes.

    Raises:
        ValueError: as for `build_index` and `shard_index`, or `num_bits` or `multi` differs between processes.
        TypeError: as for `build_index` and `shard_index`.
        RuntimeError: another process failed; its own error says why.
    """
    check_mesh(mesh, axis_name)
    if not mesh.is_multi_process:
        return shard_index(build_index(codes, num_bits, ids=ids, multi=multi), mesh, axis_name=axis_name)
    rows = _sort_own(codes, num_bits, ids, multi)
    if not multi:
        _check_distinct(rows[:, -1], mesh)
    # Each step frees the rows of the one before. The peak is about 40 bytes per item for codes of 64 bits.
    rows = exchange_rows(_split_by_code(rows), mesh)
    rows = _sort_rows(rows)
    ends, cuts = _find_cuts(rows, mesh.shape[axis_name])
    rows = exchange_rows(_split_by_shard(rows, ends, mesh, axis_name), mesh)
    items = _group_rows(rows)
    del rows
    return _put_own(items, cuts, num_bits, mesh, axis_name, multi=multi)


def _sort_own(codes: ArrayLike, num_bits: int, ids: ArrayLike, multi: bool) -> np.ndarray:
    """Checks the pairs of this process and returns them as sorted rows; a failure in one process raises in all."""
    own: list[np.ndarray] = []

    def sort() -> np.ndarray:
        pairs = check_pairs(codes, num_bits, ids, multi)
        own.append(_sort_rows(np.concatenate([pairs.codes.view(np.int32), pairs.ids[:, None]], axis=1)))
        return np.array([[num_bits, multi]], np.int32)

    for name, values in zip(("num_bits", "multi"), gather_rows(sort, several=True).T.tolist(), strict=True):
        if len(set(values)) > 1:
            raise ValueError(f"{name} must be the same in all processes, got {values}")
    return own[0]


def _codes_of(rows: np.ndarray) -> np.ndarray:
    """Returns the codes, uint32 `[m, w]`, of rows int32 `[m, w + 1]` that hold the words of a code and an id."""
    return rows[:, :-1].view(np.uint32)


def _sort_rows(rows: np.ndarray) -> np.ndarray:
    """Sorts rows by (code, id) and drops duplicates."""
    rows = rows[argsort_codes(_codes_of(rows), rows[:, -1])]
    new = mark_run_starts(rows)
    return rows if new.all() else rows[new]


def _check_distinct(ids: np.ndarray, mesh: Mesh) -> None:
    """Raises in all processes unless ids are distinct across processes. Process p checks ids with remainder p."""
    remainder = ids % jax.process_count()
    own = exchange_rows([ids[remainder == number, None] for number in range(jax.process_count())], mesh)

    def check() -> np.ndarray:
        check_ids(own[:, 0], len(own))
        return np.zeros((0, 1), np.int32)

    gather_rows(check, several=True)


def _split_by_code(rows: np.ndarray) -> list[np.ndarray]:
    """Splits sorted rows at the boundaries of the processes' ranges."""
    count, codes = jax.process_count(), _codes_of(rows)
    total = int(gather_rows(lambda: np.array([[len(rows)]], np.int32), several=True).sum(dtype=np.int64))
    step = max(1, total // (SAMPLES_PER_PROCESS * count**2))
    sample = gather_rows(lambda: rows[step // 2 :: step, :-1], several=True).view(np.uint32)
    sample = sample[np.lexsort(sample.T[::-1])]
    quantiles = [len(sample) * number // count for number in range(1, count)]
    return np.split(rows, [_find_end(codes, sample[position]) if len(sample) else 0 for position in quantiles])


def _find_end(codes: np.ndarray, code: np.ndarray) -> int:
    """Counts the sorted codes `[m, w]` up to and including a code `[w]`."""
    first, last = 0, len(codes)
    for word, value in zip(codes.T, code, strict=True):
        part = word[first:last]
        first, last = first + int(np.searchsorted(part, value)), first + int(np.searchsorted(part, value, "right"))
    return last


def _find_cuts(rows: np.ndarray, num_shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the boundaries of the shards: in the sorted rows of this process, and by rank among all codes."""
    starts = find_run_starts(_codes_of(rows))
    counts = gather_rows(lambda: np.array([[len(starts)]], np.int32), several=True)[:, 0].astype(np.int64)
    cuts = cut_evenly(int(counts.sum()), num_shards)
    first = int(counts[: jax.process_index()].sum())
    return np.append(starts, len(rows))[np.clip(cuts - first, 0, len(starts))], cuts


def _split_by_shard(rows: np.ndarray, ends: np.ndarray, mesh: Mesh, axis_name: str) -> list[np.ndarray]:
    """Splits sorted rows, cut at the ends of the shards, by the processes that hold each shard.

    Processes have ascending ranges, so the rows that a process receives are sorted.
    """
    parts: list[list[np.ndarray]] = [[rows[:0]] for _ in range(jax.process_count())]
    for number, devices in find_devices(mesh, axis_name).items():
        for process in {device.process_index for device in devices}:
            parts[process].append(rows[ends[number] : ends[number + 1]])
    return [np.concatenate(part) for part in parts]


def _group_rows(rows: np.ndarray) -> Sorted:
    """Groups sorted rows by code."""
    starts = find_run_starts(_codes_of(rows))
    return _codes_of(rows)[starts], np.append(starts, len(rows)).astype(np.int32), rows[:, -1].copy()


def _put_own(
    items: Sorted, cuts: np.ndarray, num_bits: int, mesh: Mesh, axis_name: str, *, multi: bool
) -> ShardedIndex:
    """Puts the shards of this process on its devices, given their items in order."""
    table, offsets, ids = items
    numbers = list(own_devices(mesh, axis_name))
    ends = np.append(0, np.cumsum([cuts[number + 1] - cuts[number] for number in numbers]))
    sizes = np.diff(offsets[ends])[:, None].astype(np.int32)
    max_items = int(gather_rows(lambda: sizes, several=True).max())

    def cut_shard(number: int) -> Sorted:
        first, last = ends[numbers.index(number) :][:2]
        items = offsets[first : last + 1]
        return table[first:last], items - items[0], ids[items[0] : items[-1]]

    return assemble_shards(cut_shard, int(np.diff(cuts).max()), max_items, num_bits, mesh, axis_name, multi=multi)
