"""Which items may be found: `allowed`, a boolean for each id, brought into the order of the codes.

A code is barred if none of its items is allowed. Scans give barred codes an infinite distance, so that one program
serves every mask. Allowed items are numbered in the order of the codes. The number of an item comes from a popcount
directory over bits, one for each entry of `ids`, since a running sum over n entries takes as long as a scan in XLA.

If few items are allowed, their codes are gathered and only these are compared.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxhash.codes.sorting import find_run_starts
from jaxhash.core.batching import entry_point, one_at_a_time
from jaxhash.core.checks import dtype_of, is_on_host, is_traced
from jaxhash.index.hash_index import HashIndex, codes_of_ranks, largest_id, layout, memory_of
from jaxhash.index.sharding import AnyIndex, ShardedIndex, keep_shards, map_shards
from jaxhash.query.cost_model import sizes_of

# Where at most one in this many items is allowed, their codes are gathered.
FEW = 64

# From this many items on, gathering few codes is quicker than comparing all.
WORTH_GATHERING = 2**16


class Filter(NamedTuple):
    """Which entries of `ids` are allowed, and which codes have none; made by `make_filter`.

    words: uint32 `[item_capacity / 32]`, a bit for each entry, the lowest first; set if it is allowed.
    directory: int32 `[item_capacity / 32]`, the number of allowed entries before each word.
    barred: uint32 `[blocks, g, L]`, tiled as the codes: all ones for a code that has no allowed entry, else 0. A scan
      takes them in by OR; bools cost a scan twice as much.
    """

    words: jax.Array
    directory: jax.Array
    barred: jax.Array


# A mask by id, bool [m]; or what was made of it; or None, if all items are allowed.
Allowed = Any


def check_allowed(index: AnyIndex, allowed: ArrayLike | None) -> Any:
    """Returns a mask by id, bool `[m]`, or `None`. Where the index is known, m must be above its largest id."""
    if allowed is None:
        return None
    dtype, shape = dtype_of(allowed), np.shape(allowed)
    if dtype != np.bool_:
        raise TypeError(f"allowed must be a mask of dtype bool, one entry for each id, got dtype {dtype}")
    if len(shape) != 1:
        raise ValueError(f"allowed must have shape [m], one entry for each id, got {shape}")
    if not is_traced(index):
        largest = _largest_in_shards(index) if isinstance(index, ShardedIndex) else largest_id(index)
        if largest >= shape[0]:
            raise ValueError(f"allowed has {shape[0]} entries, but the index holds the id {largest}")
    return allowed if isinstance(allowed, jax.Array) else np.asarray(allowed)


def _largest_in_shards(index: ShardedIndex) -> int:
    """The largest id in all shards; found on their devices, since a process may hold only some."""

    def find() -> int:
        return int(one_at_a_time(_compiled_max, [index.ids])[0])

    return memory_of(index, ids=True).remember("largest id", find)


_compiled_max = entry_point(jnp.max)


def apply_filter(index: AnyIndex, allowed: Any) -> tuple[AnyIndex, Allowed]:
    """Brings a known mask into the form that searches are quickest with: an index, and what of it is allowed.

    A mask of few items gives an index of these. Its arrays have one size, so that one program serves every such mask.
    What was made of the last mask is remembered, since making it takes longer than a single query.
    """
    if allowed is None:
        return index, None
    made = _make_once(index, allowed)
    return (made, None) if isinstance(made, HashIndex) else (index, made)


def _make_once(index: AnyIndex, allowed: Any) -> HashIndex | Filter:
    """Returns an index of few items, or else a filter; what was made last if the mask is equal."""
    last: dict[str, tuple[Any, HashIndex | Filter]] = memory_of(index, ids=True).remember("last filter", dict)
    on_host = is_on_host(allowed)
    if "last" in last:
        mask, made = last["last"]
        if mask is allowed or (on_host and np.array_equal(mask, allowed)):
            return made
    mask = np.array(allowed) if on_host else allowed  # a copy: callers may change theirs
    made = _make_shard_filters(index, mask) if isinstance(index, ShardedIndex) else _make_for_all(index, mask, on_host)
    last["last"] = mask, made
    return made


def _make_for_all(index: HashIndex, mask: Any, on_host: bool) -> HashIndex | Filter:
    few = index_of_few(index, mask) if on_host else None
    sizes = sizes_of(index)
    return few or _compiled_filter(index, mask, one_item_each=sizes.num_codes == sizes.num_items)


def _make_shard_filters(index: ShardedIndex, mask: Any) -> Filter:
    """The filters of all shards, each array concatenated along its first axis."""
    made: Filter = one_at_a_time(lambda mask: jax.block_until_ready(_compiled_shard_filters(index, mask)), [mask])[0]
    return made


def index_of_few(index: HashIndex, allowed: np.ndarray) -> HashIndex | None:
    """An index of the allowed items alone if they are few and searching these is quicker, else `None`."""
    num_codes, num_items = int(index.num_codes), int(index.num_items)
    room = num_items // FEW
    if num_items < WORTH_GATHERING or not is_on_host(index.ids) or np.count_nonzero(allowed) > room:
        return None
    ids = np.asarray(index.ids)[:num_items]
    entries = np.flatnonzero(np.take(allowed, ids))  # twice as fast as indexing
    if len(entries) > room:  # of items with several codes
        return None
    ends = np.asarray(index.offsets)[1 : num_codes + 1]
    rank = entries if num_codes == num_items else np.searchsorted(ends, entries, side="right")
    starts = find_run_starts(rank)
    offsets = np.append(starts, len(entries)).astype(np.int32)  # not int64, in JAX's 64-bit mode
    items = codes_of_ranks(index, rank[starts]), offsets, ids[entries]
    return HashIndex(**jax.device_put(layout(*items, room, room)), num_bits=index.num_bits, multi=index.multi)


def map_allowed(index: ShardedIndex, function: Callable[..., Any], allowed: Allowed, *rows: Any) -> Any:
    """`map_shards` of `function(shard, *rows, allowed)`: shards get all of a mask by id, of a filter their own part."""
    if not isinstance(allowed, Filter):
        return map_shards(index, function, *rows, allowed)

    def search_shard(shard: HashIndex, own: Filter, *rows: Any) -> Any:
        return function(shard, *rows, own)

    return map_shards(index, search_shard, *rows, beside=(allowed,))


def find_filter(index: HashIndex, allowed: Allowed) -> Filter | None:
    """The filter of a mask by id; a filter and `None` are returned as they are. It can be traced."""
    return allowed if allowed is None or isinstance(allowed, Filter) else make_filter(index, allowed)


def make_filter(index: HashIndex, allowed: jax.Array, *, one_item_each: bool | None = None) -> Filter:
    """Makes the filter of a mask by id, bool `[m]`; ids past its end are not allowed. It can be traced.

    `one_item_each` says whether each code has one item, if this is known (static): a branch takes time.
    """
    last = allowed.shape[0] - 1
    if last < 0:
        chosen = jnp.zeros(index.ids.shape, bool)
    else:
        chosen = allowed.at[jnp.clip(index.ids, 0, last)].get(mode="promise_in_bounds")
        chosen &= (index.ids >= 0) & (index.ids <= last)
    bits = chosen.reshape(-1, 32).astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[None]
    words = bits.sum(1, dtype=jnp.uint32)
    counts = lax.population_count(words).astype(jnp.int32)
    directory = jnp.cumsum(counts, dtype=jnp.int32) - counts
    return Filter(words, directory, _find_barred(index, words, directory, one_item_each))


_compiled_filter = entry_point(make_filter, "one_item_each")
_compiled_shard_filters = entry_point(partial(keep_shards, make_filter))


def _find_barred(index: HashIndex, words: jax.Array, directory: jax.Array, one_item_each: bool | None) -> jax.Array:
    """Which codes have no allowed entry, as in `Filter`."""
    _, blocks, group_size, lanes = index.codes.shape

    def by_bits(words: jax.Array, directory: jax.Array) -> jax.Array:
        """The rank of a code is the entry of its one item, and nothing is gathered."""
        groups = _split_words(words, group_size)[: blocks * lanes]
        groups = jnp.pad(groups, (0, blocks * lanes - len(groups))).reshape(blocks, 1, lanes)
        bits = groups >> jnp.arange(group_size, dtype=jnp.uint32)[None, :, None]
        return (bits & jnp.uint32(1)) - jnp.uint32(1)

    def by_counts(words: jax.Array, directory: jax.Array) -> jax.Array:
        starts = _count_before(words, directory, index.offsets)
        barred = tile_by_code(index, starts[1:] == starts[:-1])
        return jnp.where(barred, jnp.uint32(0xFFFFFFFF), jnp.uint32(0))

    if one_item_each is None:
        return lax.cond(index.num_codes == index.num_items, by_bits, by_counts, words, directory)
    return by_bits(words, directory) if one_item_each else by_counts(words, directory)


def count_items_of_codes(index: HashIndex, allowed: Filter | None) -> jax.Array:
    """The number of allowed items of each code: int32 `[blocks, g, L]`."""
    return tile_by_code(index, jnp.diff(index.offsets if allowed is None else count_before(allowed, index.offsets)))


def tile_by_code(index: HashIndex, values: jax.Array) -> jax.Array:
    """Tiles values `[capacity]`, one for each code, as the codes: `[blocks, g, L]`."""
    _, blocks, group_size, lanes = index.codes.shape
    return values.reshape(blocks, lanes, group_size).transpose(0, 2, 1)


def _split_words(words: jax.Array, size: int) -> jax.Array:
    """Splits words into parts of `size` bits, the lowest first; `size` divides 32."""
    shifts = jnp.arange(0, 32, size, dtype=jnp.uint32)
    return ((words[:, None] >> shifts[None]) & jnp.uint32((1 << size) - 1)).reshape(-1)


def count_before(allowed: Filter, entries: jax.Array) -> jax.Array:
    """The number of allowed entries before each of some entries, int32 of any shape."""
    return _count_before(allowed.words, allowed.directory, entries)


def _count_before(words: jax.Array, directory: jax.Array, entries: jax.Array) -> jax.Array:
    word = jnp.minimum(entries >> 5, words.shape[0] - 1)
    # After the last entry, all of the last word is before.
    below = jnp.where(
        entries >> 5 == word,
        (jnp.uint32(1) << (entries & 31).astype(jnp.uint32)) - jnp.uint32(1),
        jnp.uint32(0xFFFFFFFF),
    )
    inside = lax.population_count(words.at[word].get(mode="promise_in_bounds") & below)
    return directory.at[word].get(mode="promise_in_bounds") + inside.astype(jnp.int32)


def select_entries(allowed: Filter, numbers: jax.Array) -> jax.Array:
    """The entries of `ids` of allowed items by their numbers, int32 of any shape: the reverse of counting."""
    word = jnp.searchsorted(allowed.directory, numbers, side="right").astype(jnp.int32) - 1
    bits = allowed.words.at[word].get(mode="promise_in_bounds")
    left = numbers - allowed.directory.at[word].get(mode="promise_in_bounds")
    place = jnp.zeros_like(numbers)
    for size in (16, 8, 4, 2, 1):  # the set bit number `left`, by bisection
        low = lax.population_count((bits >> place.astype(jnp.uint32)) & jnp.uint32((1 << size) - 1)).astype(jnp.int32)
        above = low <= left
        place += jnp.where(above, size, 0)
        left -= jnp.where(above, low, 0)
    return word * 32 + place
