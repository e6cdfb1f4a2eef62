"""Traceable probing with a fixed number of slots.

Each probe reads a bitmap word; its set bits are the addresses of non-empty buckets. Running sums number these buckets
for each query, and then the codes in them. A binary search in the sums finds the content of each slot. The work depends
on the number of probes and slots, not on the number of codes.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhash.codes.bitmap import Bitmap, rank, rank_in_word, select_in_words
from jaxhash.codes.distances import Queries
from jaxhash.core.batching import entry_point, in_batches, in_parallel, one_at_a_time
from jaxhash.index.address_table import LOW_PATTERNS, Slice, divide_radius, extract_addresses, make_flip_masks
from jaxhash.index.hash_index import NO_ID, HashIndex, cache_of, find_words
from jaxhash.index.probe_tables import ProbeTables, count_words, tables_of_slices
from jaxhash.index.sharding import AnyIndex, ShardedIndex
from jaxhash.query.filters import Filter, find_filter, map_allowed
from jaxhash.query.hits import Part, Request, sort_matches
from jaxhash.query.plan import Option, count_probes, max_batch_size
from jaxhash.query.results import NO_DISTANCE, PaddedMatches
from jaxhash.query.scan.kernels import items_in_slots, map_queries, merge_padded


def matches_on_device(request: Request, queries: Queries, option: Option) -> Part:
    """Probes on the device of queries `[q, w]` and transfers only the allowed items within the radius.

    Leaves queries with more candidates or matches than slots to the next method.
    """
    kept, slices, num_slots = cache_of(request.index).device_tables, option.slices, option.num_slots
    if slices not in kept:
        kept[slices] = tables_of_slices(request.index, slices)
    options = {"radius": request.radius, "max_candidates": num_slots, "max_results": num_slots}
    padded = probe_in_batches((request.index, kept[slices]), queries, **options)
    done = padded.complete & (padded.counts <= num_slots)
    row, slot = np.nonzero((padded.ids != NO_ID) & done[:, None])
    distances, ids = padded.distances[row, slot], padded.ids[row, slot]
    keep = np.ones(len(ids), bool) if request.allowed is None else request.allowed[ids]
    return sort_matches(len(done), row[keep], distances[keep], ids[keep]), done


def probe_in_batches(
    searched: tuple[AnyIndex, ProbeTables], queries: Queries, allowed: Any = None, **options: int
) -> PaddedMatches[Any]:
    """Runs `probe_in_slots` as a compiled program on untraced queries `[..., w]` in batches."""
    index, tables = searched
    lead = queries.words.shape[:-1]
    return in_batches(
        lambda batch: _compiled_probe(searched, batch, allowed, **options),
        queries,
        _batch_size(tables.slices, options["radius"], options["max_candidates"]),
        lead,
        one_at_a_time if isinstance(index, ShardedIndex) else in_parallel,
        axes=len(lead),
    )


def _batch_size(slices: tuple[Slice, ...], radius: int, max_candidates: int) -> int:
    """Returns the number of queries probed together so that memory is bounded; a power of two."""
    radii = divide_radius(radius, len(slices))
    probes = sum(count_probes(bits.size, table_radius) for bits, table_radius in zip(slices, radii, strict=True))
    return max_batch_size(16 * probes + 64 * max_candidates)


@partial(jax.jit, static_argnames=("radius", "max_candidates", "max_results"))
def probe_in_slots(
    searched: tuple[AnyIndex, ProbeTables],
    queries: Queries,
    allowed: Any = None,
    *,
    radius: int,
    max_candidates: int,
    max_results: int,
) -> PaddedMatches[jax.Array]:
    """Implements `radius_search_padded` with tables, for queries `[..., w]` and a mask or filter. Traceable."""
    index, tables = searched
    options = {"radius": radius, "max_candidates": max_candidates, "max_results": max_results}
    if isinstance(index, ShardedIndex):

        def probe_shard(shard: HashIndex, part: ProbeTables, queries: Queries, allowed: Any) -> Any:
            return probe_in_slots((shard, part), queries, allowed, **options)

        return merge_padded(map_allowed(index, probe_shard, allowed, queries, beside=(tables,)), max_results)
    mask_filter = find_filter(index, allowed)

    def probe_batch(batch: Queries) -> PaddedMatches[jax.Array]:
        return _probe_batch(index, tables, mask_filter, batch, **options)

    return map_queries(probe_batch, queries, index.num_bits, _batch_size(tables.slices, radius, max_candidates))


_compiled_probe = entry_point(probe_in_slots, "radius", "max_candidates", "max_results")


def _probe_batch(
    index: HashIndex,
    tables: ProbeTables,
    allowed: Filter | None,
    queries: Queries,
    *,
    radius: int,
    max_candidates: int,
    max_results: int,
) -> PaddedMatches[jax.Array]:
    """Finds the first matches of queries `[q, w]`."""
    candidates = find_candidates(tables, queries.words, radius, max_candidates)
    differing = [word ^ queries.words[:, i, None] for i, word in enumerate(_gather_codes(index, candidates.ranks))]
    distances = sum(lax.population_count(word).astype(jnp.int32) for word in differing)
    near = candidates.found & (distances <= radius)
    near &= is_first_occurrence(tables, radius, jnp.stack(differing, axis=-1), candidates.tables)
    sizes = _count_items(index, allowed, candidates.ranks)
    near &= sizes > 0
    counts = jnp.where(near, sizes, 0).sum(1, dtype=jnp.int32)
    distances, ranks = sort_codes(jnp.where(near, distances, NO_DISTANCE), candidates.ranks, radius, index.capacity)
    count = min(max_candidates, max_results)  # each code has an item
    slots = items_in_slots(index, allowed, distances[:, :count], ranks[:, :count], max_results)
    return PaddedMatches(*slots, counts, candidates.complete)


def _count_items(index: HashIndex, allowed: Filter | None, ranks: jax.Array) -> jax.Array:
    """Counts the allowed items of codes: int32 `[q, c]`."""
    ends, starts = (index.offsets.at[position].get(mode="promise_in_bounds") for position in (ranks + 1, ranks))
    return ends - starts if allowed is None else rank(allowed.entries, ends) - rank(allowed.entries, starts)


def sort_codes(distances: jax.Array, ranks: jax.Array, radius: int, capacity: int) -> tuple[jax.Array, jax.Array]:
    """Sorts codes by (distance, rank), both int32 `[q, c]`, with `NO_DISTANCE` last.

    Distance and rank are packed into one uint32 if they fit, as up to radius 30 and 100 million codes: on CPU, XLA
    sorts one key in a twentieth of the time of two.
    """
    width = (capacity - 1).bit_length()
    if (radius + 2) << width > 2**32:
        distances, ranks = lax.sort((distances, ranks), dimension=1, num_keys=2)
        return distances, ranks
    none = jnp.uint32(2**32 - 1)
    keys = (distances.astype(jnp.uint32) << width) | ranks.astype(jnp.uint32)
    keys = lax.sort(jnp.where(distances == NO_DISTANCE, none, keys), dimension=1, is_stable=False)
    ranks = (keys & jnp.uint32((1 << width) - 1)).astype(jnp.int32)
    distances = jnp.where(keys == none, NO_DISTANCE, (keys >> width).astype(jnp.int32))
    return distances, jnp.where(keys == none, 0, ranks)


def _gather_codes(index: HashIndex, ranks: jax.Array) -> list[jax.Array]:
    """Gathers codes by rank, int32 `[q, c]`: one uint32 `[q, c]` per word."""
    position, plane = find_words(index, ranks), index.capacity
    flat = index.codes.reshape(-1)
    return [flat.at[position + word * plane].get(mode="promise_in_bounds") for word in range(index.num_words)]


class Candidates(NamedTuple):
    """The codes in c slots for each of q queries."""

    ranks: jax.Array  # int32 [q, c]; 0 in an empty slot
    tables: jax.Array  # int32 [q, c], the number of the table that led to the code, ascending
    found: jax.Array  # bool [q, c], whether the slot holds a code
    complete: jax.Array  # bool [q], whether the slots hold all codes


def find_candidates(tables: ProbeTables, queries: jax.Array, radius: int, max_candidates: int) -> Candidates:
    """Finds the codes with an address near the query's, uint32 `[q, w]`, in at least one table."""
    words, near_bits, table = _look_up(tables.bitmap, tables.slices, queries, radius)
    counts = lax.population_count(near_bits).astype(jnp.int32)
    probe, member, found, total = _fill_slots(counts, max_candidates)
    bit = select_in_words(jnp.take_along_axis(near_bits, probe, axis=1), member)
    word = jnp.take_along_axis(words, probe, axis=1)
    bucket = jnp.where(found, rank_in_word(Bitmap(tables.bitmap, tables.directory), word, bit), 0)
    table, complete = table[probe], total <= max_candidates
    if tables.starts is None:
        return Candidates(bucket, table, found, complete)
    first = tables.starts.at[bucket].get(mode="promise_in_bounds")
    sizes = jnp.where(found, tables.starts.at[bucket + 1].get(mode="promise_in_bounds") - first, 0)
    slot, member, found, total = _fill_slots(sizes, max_candidates)
    position = jnp.where(found, jnp.take_along_axis(first, slot, axis=1) + member, 0)
    table, complete = jnp.take_along_axis(table, slot, axis=1), complete & (total <= max_candidates)
    ranks = position if tables.ranks is None else tables.ranks.at[position].get(mode="promise_in_bounds")
    return Candidates(ranks, table, found, complete)


def _look_up(
    bitmap: jax.Array, slices: tuple[Slice, ...], queries: jax.Array, radius: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Reads the words of all tables with addresses near the queries'.

    Returns:
        The positions of the words in `bitmap`, int32 `[q, m]`; the words without addresses beyond the radius, uint32
        `[q, m]`; and the table of each probe, int32 `[m]`.
    """
    words, patterns, tables = [], [], []
    radii, start = divide_radius(radius, len(slices)), 0
    for number, (bits, table_radius, size) in enumerate(zip(slices, radii, count_words(slices), strict=True)):
        if table_radius >= 0:
            masks, ends = make_flip_masks(bits.size, table_radius)
            address = extract_addresses(queries, bits)
            words.append(((address >> 5)[:, None] ^ masks[None]).astype(jnp.int32) + start)
            left = [min(table_radius - flips, 5) for flips in range(len(ends))]  # for the five lowest bits
            by_flips = jnp.asarray(LOW_PATTERNS[left].T)[(address & 31).astype(jnp.int32)]
            flips = np.repeat(np.arange(len(ends)), np.diff((0, *ends)))  # per mask; `jnp.repeat` would scatter
            patterns.append(by_flips.at[:, flips].get(mode="promise_in_bounds"))
            tables.append(jnp.full(len(masks), number, jnp.int32))
        start += size
    word = jnp.concatenate(words, axis=1)
    near_bits = bitmap.at[word].get(mode="promise_in_bounds") & jnp.concatenate(patterns, axis=1)
    return word, near_bits, jnp.concatenate(tables)


def _fill_slots(counts: jax.Array, num_slots: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Assigns consecutive slots to the elements of groups with `counts` elements, int32 `[q, m]`.

    Returns:
        The group of each slot and the element of the group, int32 `[q, num_slots]`, 0 for empty slots; whether the slot
        holds an element, bool `[q, num_slots]`; and the number of elements, int32 `[q]`.
    """
    ends = jnp.cumsum(counts, axis=1, dtype=jnp.int32)
    slot = jnp.arange(num_slots, dtype=jnp.int32)
    # A slot's group is the number of groups that end at or before it.
    group = jax.vmap(lambda row: jnp.searchsorted(row, slot, side="right").astype(jnp.int32))(ends)
    found = slot[None] < ends[:, -1:]
    group = jnp.where(found, group, 0)
    element = slot[None] - jnp.take_along_axis(ends - counts, group, axis=1)
    return group, jnp.where(found, element, 0), found, ends[:, -1]


def is_first_occurrence(tables: ProbeTables, radius: int, differing: jax.Array, table: jax.Array) -> jax.Array:
    """Marks the codes that no table before `table`, int32 `[q, c]`, leads to: bool `[q, c]`.

    `differing` are the bits that differ between code and query, uint32 `[q, c, w]`.
    """
    earlier = jnp.zeros(table.shape, bool)
    for number, table_radius in enumerate(divide_radius(radius, len(tables.slices))):
        if number + 1 < len(tables.slices):
            flips = lax.population_count(extract_addresses(differing, tables.slices[number]))
            earlier |= (flips.astype(jnp.int32) <= table_radius) & (number < table)
    return ~earlier
