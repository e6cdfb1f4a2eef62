"""Building an index in shards from items that are spread over processes: `build_sharded_index`.

Sample sort: each process sorts its own items and shows the others an even sample of its codes. The quantiles of all
samples part the codes into one range for each process, all items are sent to the process of their range, and each
process sorts what it got. Then the ranks of all codes are known, and each shard is sent to the processes that hold it.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxhash.codes.sorting import Pairs, group_pairs, sort_pairs
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

# Codes in the sample for each process, times the number of processes: then ranges are even to one part in 64.
SAMPLE = 64


def build_sharded_index(
    codes: ArrayLike, num_bits: int, mesh: Mesh, *, ids: ArrayLike, multi: bool = False, axis_name: str = "shards"
) -> ShardedIndex:
    """Builds an index in shards from the items of all processes, none of which ever holds all of them.

    Under `jax.distributed`, all processes with devices in the mesh must make this call, each with items of its own; it
    may have none. Items are exchanged in blocks by JAX's collectives.

    Args:
        codes: uint32 `[n, w]`, the codes of the items of this process, as for `build_index`.
        num_bits: the number of bits of a code, `b`; the same in all processes.
        mesh: as for `shard_index`.
        ids: the ids of these items, integers in [0, 2^31), `[n]`; distinct in all processes together.
        multi: lets an item have several codes, as for `build_index`; also codes that several processes hold.
        axis_name: as for `shard_index`.

    Returns:
        The `ShardedIndex` that `shard_index` makes of an index of the items of all processes.

    Raises:
        ValueError: as for `build_index` and `shard_index`, or `num_bits` or `multi` is not the same in all
            processes.
        TypeError: as for `build_index` and `shard_index`.
        RuntimeError: another process failed; its own error says why.
    """
    check_mesh(mesh, axis_name)
    if not mesh.is_multi_process:
        return shard_index(build_index(codes, num_bits, ids=ids, multi=multi), mesh, axis_name)
    pairs = _sort_own(codes, num_bits, ids, multi)
    if not multi:
        _check_distinct(pairs.ids, mesh)
    items = _exchange_by_code(pairs, mesh)
    del pairs
    num_codes = gather_rows(lambda: np.array([[len(items[0])]], np.int32), several=True).sum(dtype=np.int64)
    cuts = cut_evenly(int(num_codes), mesh.shape[axis_name])
    items = _exchange_by_shard(items, cuts, mesh, axis_name)
    return _put_own(items, cuts, num_bits, mesh, axis_name, multi=multi)


def _sort_own(codes: ArrayLike, num_bits: int, ids: ArrayLike, multi: bool) -> Pairs:
    """Checks and sorts the pairs of this process; fails in all processes if it does in one."""
    own: list[Pairs] = []

    def sort() -> np.ndarray:
        own.append(sort_pairs(check_pairs(codes, num_bits, ids, multi)))
        return np.array([[num_bits, multi]], np.int32)

    for name, values in zip(("num_bits", "multi"), gather_rows(sort, several=True).T.tolist(), strict=True):
        if len(set(values)) > 1:
            raise ValueError(f"{name} must be the same in all processes, got {values}")
    return own[0]


def _check_distinct(ids: np.ndarray, mesh: Mesh) -> None:
    """Raises in all processes unless ids are distinct in all together. Process p checks those with remainder p."""
    remainder = ids % jax.process_count()
    own = exchange_rows([ids[remainder == number, None] for number in range(jax.process_count())], mesh)

    def check() -> np.ndarray:
        check_ids(own[:, 0], len(own))
        return np.zeros((0, 1), np.int32)

    gather_rows(check, several=True)


def _exchange_by_code(pairs: Pairs, mesh: Mesh) -> Sorted:
    """Sends sorted pairs to the processes of their ranges, and sorts what this process gets."""
    count = jax.process_count()
    total = int(gather_rows(lambda: np.array([[len(pairs.ids)]], np.int32), several=True).sum(dtype=np.int64))
    step = max(1, total // (SAMPLE * count**2))
    sample = gather_rows(lambda: pairs.codes[step // 2 :: step].view(np.int32), several=True).view(np.uint32)
    sample = sample[np.lexsort(sample.T[::-1])]
    quantiles = [len(sample) * number // count for number in range(1, count)]
    ends = [_find_end(pairs.codes, sample[place]) if len(sample) else 0 for place in quantiles]
    return _exchange(pairs.codes, pairs.ids, lambda rows: np.split(rows, ends), mesh)


def _find_end(codes: np.ndarray, code: np.ndarray) -> int:
    """The number of sorted codes `[m, w]` that are not after a code `[w]`."""
    first, last = 0, len(codes)
    for word, value in zip(codes.T, code, strict=True):
        part = word[first:last]
        first, last = first + int(np.searchsorted(part, value)), first + int(np.searchsorted(part, value, "right"))
    return last


def _exchange(
    codes: np.ndarray, ids: np.ndarray, split: Callable[[np.ndarray], list[np.ndarray]], mesh: Mesh
) -> Sorted:
    """Sends pairs to processes, as `split` divides the rows of the words of a code and an id; sorts what comes."""
    rows = np.concatenate([codes.view(np.int32), ids[:, None]], axis=1)
    received = exchange_rows(split(rows), mesh)
    del rows
    return group_pairs(Pairs(np.ascontiguousarray(received[:, :-1]).view(np.uint32), received[:, -1].copy()))


def _exchange_by_shard(items: Sorted, cuts: np.ndarray, mesh: Mesh, axis_name: str) -> Sorted:
    """Sends items to the processes whose devices hold their shards, given the ranks at which the codes are cut."""
    table, offsets, ids = items
    counts = gather_rows(lambda: np.array([[len(table)]], np.int32), several=True)[:, 0].astype(np.int64)
    ends = offsets[np.clip(cuts - counts[: jax.process_index()].sum(), 0, len(table))]

    def split(rows: np.ndarray) -> list[np.ndarray]:
        parts: list[list[np.ndarray]] = [[rows[:0]] for _ in counts]
        for number, devices in find_devices(mesh, axis_name).items():
            for process in {device.process_index for device in devices}:
                parts[process].append(rows[ends[number] : ends[number + 1]])
        return [np.concatenate(part) for part in parts]

    return _exchange(np.repeat(table, np.diff(offsets), axis=0), ids, split, mesh)


def _put_own(
    items: Sorted, cuts: np.ndarray, num_bits: int, mesh: Mesh, axis_name: str, *, multi: bool
) -> ShardedIndex:
    """Puts the shards of this process, of which these are the items in order, on its devices."""
    table, offsets, ids = items
    numbers = list(own_devices(mesh, axis_name))
    ends = np.append(0, np.cumsum([cuts[number + 1] - cuts[number] for number in numbers]))
    sizes = np.diff(offsets[ends])[:, None].astype(np.int32)
    most_items = int(gather_rows(lambda: sizes, several=True).max())

    def cut_shard(number: int) -> Sorted:
        first, last = ends[numbers.index(number) :][:2]
        places = offsets[first : last + 1]
        return table[first:last], places - places[0], ids[places[0] : places[-1]]

    return assemble_shards(cut_shard, int(np.diff(cuts).max()), most_items, num_bits, mesh, axis_name, multi=multi)
