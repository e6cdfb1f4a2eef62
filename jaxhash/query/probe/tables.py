"""Explicit construction of address tables: `prepare` for later searches, `build_tables` for compiled programs."""

import math
from typing import TypeVar

from jaxhash.core.checks import check_integer, check_kind, check_radius, is_traced
from jaxhash.index.address_table import divide_radius, get_tables
from jaxhash.index.hash_index import HashIndex, Sizes, sizes_of
from jaxhash.index.probe_tables import ProbeTables, capacity_of, count_words, tables_of_slices
from jaxhash.index.sharding import AnyIndex, ShardedIndex, local_shards
from jaxhash.query.plan import (
    LIMITS,
    Limits,
    Plan,
    count_probes,
    order_nearest,
    order_radius,
    plan_multi_index,
    plan_tables,
)

Index = TypeVar("Index", HashIndex, ShardedIndex)


def prepare(index: Index, *, radius: int | None = None, k: int | None = None) -> Index:
    """Builds the address tables for `radius` or `k` ahead of the first search.

    Without it, the method "auto" scans until its scans have cost as much as building the tables. If a scan is estimated
    to be faster, as for few codes, nothing is built. `describe(index).tables` lists the existing tables.

    Args:
        index: a `HashIndex` or `ShardedIndex`; each process prepares its own shards.
        radius: the radius of later calls of `radius_search`.
        k: the k of later calls of `search`. These scan a `ShardedIndex` without tables.

    Returns:
        The same index. The tables live as long as this object; copies and the results of `add_items` and similar
        functions have none.

    Raises:
        ValueError: neither `radius` nor `k` is given, or one is out of range.
        TypeError: `index` is not an index or is traced, or a number is not an integer.
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    if is_traced(index):
        raise TypeError("prepare builds tables on the host; call it outside jit")
    if radius is None and k is None:
        raise ValueError("prepare needs a radius, k, or both")
    radius = None if radius is None else check_radius(radius, index.num_bits)
    k = None if k is None else check_integer("k", k, 1)
    if isinstance(index, ShardedIndex):
        for shard in local_shards(index).values():
            _build_wanted(shard, radius, None)
    else:
        _build_wanted(index, radius, k)
    return index


def _build_wanted(index: HashIndex, radius: int | None, k: int | None, limits: Limits = LIMITS) -> None:
    """Builds the tables of the fastest method for large batches."""
    sizes, count = sizes_of(index), limits.max_queries
    orders = [] if radius is None else [order_radius(sizes, count, radius, limits=limits)]
    orders += [] if k is None else [order_nearest(sizes, count, k, k, limits=limits)]
    for options in orders:
        get_tables(index, options[0].slices)


def build_tables(index: AnyIndex, *, radius: int, num_tables: int | None = None) -> ProbeTables:
    """Builds the address tables of an index as a pytree, for `radius_search_padded` inside compiled programs.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes. All processes that hold shards must make this call.
        radius: the radius that determines the number of tables and their sizes. Other radii work too, but cost more.
        num_tables: how many tables to build, from 1 to b; by default the cheapest number.

    Returns:
        `ProbeTables` for this index only; an index with added items needs new tables.

    Raises:
        ValueError: a number is out of range, the radius needs too many probes, or all tables together have more than
            2^31 entries on one device.
        TypeError: `index` is not an index or is traced, or a number is not an integer.
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    if is_traced(index):
        raise TypeError("build_tables sorts on the host; call it outside jit and pass the tables in")
    radius = check_radius(radius, index.num_bits)
    if num_tables is not None:
        check_integer("num_tables", num_tables, 1, index.num_bits)
    plan = _choose_plan(index, radius, num_tables)
    if plan.cost == math.inf:
        raise ValueError(f"a radius of {radius} takes too many probes of {len(plan.slices)} tables; scan instead")
    return tables_of_slices(index, plan.slices)


def _choose_plan(index: AnyIndex, radius: int, num_tables: int | None) -> Plan:
    """Plans `num_tables` tables, by default the cheapest number. All shards get tables of equal shapes."""
    if isinstance(index, ShardedIndex):
        capacity = capacity_of(index)
        sizes = Sizes(capacity, capacity, index.num_bits, capacity, on_host=False)
    else:
        sizes = sizes_of(index)
    if num_tables is not None:
        return plan_tables(sizes, radius, num_tables)
    return min(plan_tables(sizes, radius, 1), plan_multi_index(sizes, radius), key=lambda plan: plan.cost)


def check_tables(index: AnyIndex, tables: ProbeTables, radius: int) -> None:
    """Raises unless tables have the shapes for the index, and the radius needs at most `max_probes`."""
    check_kind("tables", tables, ProbeTables, "jaxhash.build_tables")
    num_shards = index.num_shards if isinstance(index, ShardedIndex) else 1
    expected = (index.num_bits, capacity_of(index), num_shards * sum(count_words(tables.slices)))
    if (tables.num_bits, tables.capacity, *tables.bitmap.shape) != expected:
        raise ValueError(
            f"tables must be built from this index, got tables of {tables.num_bits}-bit codes with a capacity of "
            f"{tables.capacity} per shard; see jaxhash.build_tables"
        )
    for bits, table_radius in zip(tables.slices, divide_radius(radius, len(tables.slices)), strict=True):
        if count_probes(bits.size, table_radius) > LIMITS.max_probes:
            raise ValueError(
                f"radius {radius} takes more than {LIMITS.max_probes} probes of these tables: build tables for it"
            )
