"""Filtered search: converts `allowed`, a mask over ids, to a mask over codes.

A code is excluded if none of its items is allowed. Scans give excluded codes an infinite distance, so one program
serves every mask. Allowed items are numbered in code order by their rank in a bitmap with one bit per entry of `ids`;
a running sum over n entries takes as long as a scan in XLA.

If few items are allowed, only their codes are gathered and compared.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxhash.codes.bitmap import Bitmap, make_bitmap, rank
from jaxhash.codes.sorting import find_run_starts
from jaxhash.core.batching import entry_point, one_at_a_time, put_beside
from jaxhash.core.checks import dtype_of, is_on_host, is_traced
from jaxhash.index.hash_index import HashIndex, cache_of, codes_of_ranks, layout, sizes_of
from jaxhash.index.positions import id_span
from jaxhash.index.sharding import AnyIndex, ShardedIndex, map_sharded, map_shards
from jaxhash.query.plan import LIMITS, Limits


class Filter(NamedTuple):
    """The allowed entries of `ids` and the codes without any; built by `make_filter`.

    entries: one bit per entry, set if it is allowed.
    excluded: uint32 `[blocks, g, L]`, tiled like the codes: all ones for a code without allowed entries, else 0. A scan
      applies it by OR; bools cost twice as much.
    """

    entries: Bitmap
    excluded: jax.Array


def check_allowed(index: AnyIndex, allowed: ArrayLike | None) -> Any:
    """Returns a checked mask by id, bool `[m]`, or `None`. For an untraced index, m must exceed the largest id."""
    if allowed is None:
        return None
    dtype, shape = dtype_of(allowed), np.shape(allowed)
    if dtype != np.bool_:
        raise TypeError(f"allowed must be a mask of dtype bool, one entry for each id, got dtype {dtype}")
    if len(shape) != 1:
        raise ValueError(f"allowed must have shape [m], one entry for each id, got {shape}")
    if not is_traced(index):
        largest = id_span(index)[1]
        if largest >= shape[0]:
            raise ValueError(f"allowed has {shape[0]} entries, but the index holds the id {largest}")
    return allowed if isinstance(allowed, jax.Array) else np.asarray(allowed)


def count_unfiltered(k: int, allowed: Any) -> int:
    """Returns the number of unfiltered neighbors expected to contain k allowed ones."""
    return k * int(allowed.size) // max(1, int(np.count_nonzero(np.asarray(allowed))))


def apply_filter(index: AnyIndex, allowed: Any, limits: Limits = LIMITS) -> tuple[AnyIndex, Filter | None]:
    """Converts an untraced mask to the form that scans fastest: an index and a filter over it.

    A mask of few items gives an index of these items, without a filter. Its arrays have a fixed size, so one program
    serves every such mask. The result for the last mask is cached: computing it takes longer than one query.
    """
    if allowed is None:
        return index, None
    cache = cache_of(index)
    on_host, last = is_on_host(allowed), cache.last_filter
    if last is not None and (last[0] is allowed or (on_host and np.array_equal(last[0], allowed))):
        converted = last[1]
    else:
        mask = np.array(allowed) if on_host else allowed  # a copy: callers may change theirs
        small_index = gather_allowed(index, mask, limits) if on_host and isinstance(index, HashIndex) else None
        converted = small_index or make_known_filter(index, mask)
        cache.last_filter = mask, converted
    return (converted, None) if isinstance(converted, HashIndex) else (index, converted)


def make_known_filter(index: AnyIndex, mask: Any) -> Filter:
    """Builds the filter of an untraced mask; for shards, each array concatenates those of all shards."""
    result: Filter
    if isinstance(index, ShardedIndex):
        result = one_at_a_time(lambda mask: jax.block_until_ready(_compiled_shard_filters(index, mask)), [mask])[0]
    else:
        sizes = sizes_of(index)
        result = _compiled_filter(index, mask, one_item_each=sizes.num_codes == sizes.num_items)
    return result


def gather_allowed(index: HashIndex, allowed: np.ndarray, limits: Limits = LIMITS) -> HashIndex | None:
    """Returns an index of the allowed items alone, or `None` if they are too many for that to be faster."""
    sizes = sizes_of(index)
    capacity = sizes.num_items // limits.gathered_ratio
    if sizes.num_items < limits.min_gathered_items or not sizes.on_host or np.count_nonzero(allowed) > capacity:
        return None
    ids = np.asarray(index.ids)[: sizes.num_items]
    entries = np.flatnonzero(np.take(allowed, ids))  # twice as fast as indexing
    if len(entries) > capacity:  # items may have several codes
        return None
    ends = np.asarray(index.offsets)[1 : sizes.num_codes + 1]
    ranks = entries if sizes.num_codes == sizes.num_items else np.searchsorted(ends, entries, side="right")
    starts = find_run_starts(ranks)
    offsets = np.append(starts, len(entries)).astype(np.int32)  # also in JAX's 64-bit mode
    items = codes_of_ranks(index, ranks[starts]), offsets, ids[entries]
    arrays = put_beside(layout(*items, capacity, capacity), index.codes)
    return HashIndex(**arrays, num_bits=index.num_bits, multi=index.multi)


def map_allowed(
    index: ShardedIndex, function: Callable[..., Any], allowed: Any, *rows: Any, beside: tuple[Any, ...] = ()
) -> Any:
    """Maps `function(shard, *beside, *rows, allowed)` over shards; each gets the whole mask or its part of a filter."""
    if not isinstance(allowed, Filter):
        return map_shards(index, function, *rows, allowed, beside=beside)

    def search_shard(shard: HashIndex, own: Filter, *others: Any) -> Any:
        return function(shard, *others, own)

    return map_shards(index, search_shard, *rows, beside=(allowed, *beside))


def find_filter(index: HashIndex, allowed: Any) -> Filter | None:
    """Returns the filter of a mask by id; filters and `None` pass through. Traceable."""
    return allowed if allowed is None or isinstance(allowed, Filter) else make_filter(index, allowed)


def make_filter(index: HashIndex, allowed: jax.Array, *, one_item_each: bool | None = None) -> Filter:
    """Builds the filter of a mask by id, bool `[m]`; ids past its end are excluded. Traceable.

    `one_item_each` (static) states whether each code has one item, if known, which saves a branch at run time.
    """
    last = allowed.shape[0] - 1
    if last < 0:
        by_entry = jnp.zeros(index.ids.shape, bool)
    else:
        by_entry = jnp.asarray(allowed).at[jnp.clip(index.ids, 0, last)].get(mode="promise_in_bounds")
        by_entry &= (index.ids >= 0) & (index.ids <= last)
    bits = by_entry.reshape(-1, 32).astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[None]
    entries = make_bitmap(bits.sum(1, dtype=jnp.uint32))
    return Filter(entries, _find_excluded(index, entries, one_item_each))


_compiled_filter = entry_point(make_filter, "one_item_each")
_compiled_shard_filters = entry_point(partial(map_sharded, make_filter))


def _find_excluded(index: HashIndex, entries: Bitmap, one_item_each: bool | None) -> jax.Array:
    """Marks the codes without allowed entries, as in `Filter.excluded`."""
    _, blocks, group_size, lanes = index.codes.shape

    def by_bits(entries: Bitmap) -> jax.Array:
        """Avoids a gather: the rank of a code equals the entry of its one item."""
        shifts = jnp.arange(0, 32, group_size, dtype=jnp.uint32)
        groups = ((entries.words[:, None] >> shifts[None]) & jnp.uint32((1 << group_size) - 1)).reshape(-1)
        groups = groups[: blocks * lanes]
        groups = jnp.pad(groups, (0, blocks * lanes - len(groups))).reshape(blocks, 1, lanes)
        bits = groups >> jnp.arange(group_size, dtype=jnp.uint32)[None, :, None]
        return (bits & jnp.uint32(1)) - jnp.uint32(1)

    def by_counts(entries: Bitmap) -> jax.Array:
        starts = rank(entries, index.offsets)
        excluded = tile_by_code(index, starts[1:] == starts[:-1])
        return jnp.where(excluded, jnp.uint32(0xFFFFFFFF), jnp.uint32(0))

    if one_item_each is None:
        return lax.cond(index.num_codes == index.num_items, by_bits, by_counts, entries)
    return by_bits(entries) if one_item_each else by_counts(entries)


def count_items_of_codes(index: HashIndex, allowed: Filter | None) -> jax.Array:
    """Counts the allowed items of each code: int32 `[capacity]`."""
    return jnp.diff(index.offsets if allowed is None else rank(allowed.entries, index.offsets))


def tile_by_code(index: HashIndex, values: jax.Array) -> jax.Array:
    """Tiles one value per code, `[capacity]`, like the codes: `[blocks, g, L]`."""
    _, blocks, group_size, lanes = index.codes.shape
    return values.reshape(blocks, lanes, group_size).transpose(0, 2, 1)
