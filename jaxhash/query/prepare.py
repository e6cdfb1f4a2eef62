"""Building the tables of an index before searches need them: `prepare`."""

from typing import TypeVar

from jaxhash.core.checks import check_integer, check_kind, check_radius, is_traced
from jaxhash.index.address_table import get_tables
from jaxhash.index.hash_index import HashIndex
from jaxhash.index.sharding import AnyIndex, ShardedIndex, local_shards
from jaxhash.query.cost_model import choose_slices

Index = TypeVar("Index", HashIndex, ShardedIndex)


def prepare(index: Index, *, radius: int | None = None, k: int | None = None) -> Index:
    """Builds the address tables that searches by a radius or for k items need now, instead of when they have paid off.

    Without it, the method "auto" scans until the time lost without tables exceeds the time it takes to build them.
    Where a scan is estimated to be quicker anyway, as for few codes, nothing is built. `describe(index).tables` are the
    tables there are, and `save_index(..., tables=True)` lets a file ask for them.

    Args:
        index: a `HashIndex`, or a `ShardedIndex`, of which each process prepares its own shards.
        radius: the radius of calls of `radius_search`.
        k: the number of items of calls of `search`. A `ShardedIndex` is scanned for them, without tables.

    Returns:
        The same index. The tables live as long as this object; copies, and what `add_items` and the like return, have
        none.

    Raises:
        ValueError: neither `radius` nor `k` is given, or one is out of range.
        TypeError: `index` is no index or is being traced, or a number is not an integer.
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
            get_tables(shard, choose_slices(shard, radius, None))
    else:
        get_tables(index, choose_slices(index, radius, k))
    return index
