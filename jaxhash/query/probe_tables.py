"""Address tables as a pytree, for probing inside compiled programs: `build_tables`."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxhash.core.checks import INT32_MAX, check_integer, check_kind, check_radius, is_traced
from jaxhash.index.address_table import AddressTable, Slice, get_tables
from jaxhash.index.hash_index import HashIndex, pad_array
from jaxhash.index.sharding import AnyIndex, ShardedIndex, put_shards
from jaxhash.query.cost_model import Plan, plan_multi_index, plan_tables, sizes_of


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["bitmap", "directory", "starts", "ranks"],
    meta_fields=["slices", "num_bits", "capacity"],
)
@dataclass(frozen=True, eq=False, repr=False)
class ProbeTables:
    """The t address tables of an index, one after another in each array; made by `build_tables`.

    Their shapes depend on the capacity of the index and on the slices alone. For a `ShardedIndex`, each array
    concatenates those of the shards.

    bitmap: uint32 `[m]`, the taken addresses of each table: address a is bit `a % 32` of its word `a // 32`.
    directory: int32 `[m]`, the number of the first bucket of each word.
    starts: int32 `[t * (capacity + 1)]`, the first position of each bucket; `None` if a bucket is a single code.
    ranks: int32 `[t * capacity]`, the rank of the code at each position; `None` if positions are ranks.
    slices: the bits that the addresses of each table are made of (static).
    num_bits: the number of bits of a code (static).
    capacity: that of the index, or of a shard (static).
    """

    bitmap: jax.Array
    directory: jax.Array
    starts: jax.Array | None
    ranks: jax.Array | None
    slices: tuple[Slice, ...]
    num_bits: int
    capacity: int

    def __repr__(self) -> str:
        return f"ProbeTables(slices={[tuple(bits) for bits in self.slices]}, num_bits={self.num_bits})"


def build_tables(index: AnyIndex, *, radius: int, num_tables: int | None = None) -> ProbeTables:
    """Builds the address tables of an index as a pytree, with which `probe_padded` probes inside compiled programs.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes. All processes that hold shards must make this call.
        radius: the radius for which the number of tables and their sizes are chosen. The tables serve other radii too,
            but cost more.
        num_tables: how many tables to build, from 1 to b; by default what is estimated to be quickest.

    Returns:
        `ProbeTables`, which belong to this index: another one, also one with more items, needs tables of its own.

    Raises:
        ValueError: a number is out of range, no table is small enough for the radius, or all tables together have more
            than 2^31 entries on one device.
        TypeError: `index` is no index or is being traced, or a number is not an integer.
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    if is_traced(index):
        raise TypeError("build_tables sorts on the host; call it outside jit and pass the tables in")
    radius = check_radius(radius, index.num_bits)
    if num_tables is not None:
        check_integer("num_tables", num_tables, 1, index.num_bits)
    capacity = capacity_of(index)
    num_codes = capacity if isinstance(index, ShardedIndex) else sizes_of(index).num_codes
    plan = _choose_plan(num_codes, index.num_bits, radius, num_tables)
    if plan.cost == math.inf:
        raise ValueError(f"a radius of {radius} takes too many probes of {len(plan.slices)} tables; scan instead")
    if len(plan.slices) * (capacity + 1) > INT32_MAX:
        raise ValueError(f"{len(plan.slices)} tables of {capacity} codes have more than 2^31 entries; ask for fewer")
    make = partial(_make_arrays, slices=plan.slices, num_bits=index.num_bits)
    arrays = put_shards(index, make) if isinstance(index, ShardedIndex) else jax.device_put(make(index))
    return ProbeTables(**arrays, slices=plan.slices, num_bits=index.num_bits, capacity=capacity)


def capacity_of(index: AnyIndex) -> int:
    """How many distinct codes there is room for in an index, or in each of its shards."""
    if isinstance(index, ShardedIndex):
        return index.offsets.shape[0] // index.num_shards - 1
    return index.capacity


def count_words(slices: tuple[Slice, ...]) -> list[int]:
    """The number of words of the bitmap of each table."""
    return [1 << max(0, bits.size - 5) for bits in slices]


def _choose_plan(num_codes: int, num_bits: int, radius: int, num_tables: int | None) -> Plan:
    """The plan with so many tables, or the cheapest."""
    if num_tables is not None:
        return plan_tables(num_codes, num_bits, radius, num_tables)
    one = plan_tables(num_codes, num_bits, radius, 1)
    return min(one, plan_multi_index(num_codes, num_bits, radius), key=lambda plan: plan.cost)


def _make_arrays(index: HashIndex, slices: tuple[Slice, ...], num_bits: int) -> dict[str, Any]:
    """The arrays of `ProbeTables`, as numpy arrays."""
    tables, capacity = get_tables(index, slices), index.capacity
    arrays: dict[str, Any] = {
        "bitmap": np.concatenate([table.bitmap for table in tables]),
        "directory": np.concatenate([table.directory + i * (capacity + 1) for i, table in enumerate(tables)]),
        "starts": None,
        "ranks": None,
    }
    if len(tables) > 1:
        arrays["ranks"] = np.concatenate([_ranks_of(table, capacity) for table in tables])
    if slices[0].size < num_bits:  # else each address is a whole code
        num_codes = int(index.num_codes)
        starts = [_starts_of(table, num_codes, capacity) + i * capacity for i, table in enumerate(tables)]
        arrays["starts"] = np.concatenate(starts)
    return arrays


def _starts_of(table: AddressTable, num_codes: int, capacity: int) -> np.ndarray:
    """The first position of each bucket, padded: int32 `[capacity + 1]`."""
    starts = np.arange(num_codes + 1, dtype=np.int32) if table.starts is None else table.starts
    return pad_array(starts, capacity + 1, num_codes)


def _ranks_of(table: AddressTable, capacity: int) -> np.ndarray:
    """The rank of the code at each position, padded: int32 `[capacity]`."""
    if table.ranks is None:
        return np.arange(capacity, dtype=np.int32)
    return pad_array(table.ranks, capacity, 0)
