"""Probing in a fixed number of slots, as one compiled program: `probe_padded`.

The work depends on the number of probes and of slots for candidates, not on the number of codes.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxhash.core.batching import entry_point, in_batches, in_parallel, one_at_a_time
from jaxhash.core.checks import check_integer, check_kind, check_known_codes, check_radius, check_slots, is_traced
from jaxhash.index.address_table import Slice
from jaxhash.index.hash_index import HashIndex, find_words
from jaxhash.index.sharding import AnyIndex, ShardedIndex, map_shards
from jaxhash.query.candidates import find_candidates, is_first_find
from jaxhash.query.cost_model import MAX_QUERIES_AT_ONCE, MOST_PROBES, QUERY_MEMORY, count_probes, divide_radius
from jaxhash.query.kernels import NO_DISTANCE
from jaxhash.query.nearest import map_batches
from jaxhash.query.probe_tables import ProbeTables, capacity_of, count_words
from jaxhash.query.results import Neighbors, ProbedMatches
from jaxhash.query.slots import items_in_slots, merge_nearest


def probe_padded(
    index: AnyIndex, tables: ProbeTables, queries: ArrayLike, *, radius: int, max_candidates: int, max_results: int
) -> ProbedMatches:
    """Finds the items within a radius of each query by probing tables, in arrays of fixed shape that can be traced.

    As `radius_search_padded`, but only codes that share an address near the query's are compared, at most
    `max_candidates` for each query. It can be called inside `jit` and `vmap`, with the index and the tables as
    arguments.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes.
        tables: what `build_tables` made for this index.
        queries: codes, uint32 `[..., w]`.
        radius: the largest Hamming distance that counts as a match, inclusive, at least 0 (static).
        max_candidates: how many codes there is room for, at least 1 (static). With several tables, a code counts once
            for each table that leads to it.
        max_results: how many matches there is room for, at least 1 (static).

    Returns:
        `ProbedMatches(distances, ids, counts, complete)`. Where `complete`, they are what `radius_search_padded`
        returns. Elsewhere some candidates were not compared: all matches that are given are true, but nearer ones may
        be missing, and the count is a lower bound.

    Raises:
        ValueError: queries or tables don't fit the index, a number is out of range, or the radius takes more than 2^16
            probes of one of these tables.
        TypeError: queries are not uint32, `tables` are no `ProbeTables`, or a number is not an integer.
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    check_kind("tables", tables, ProbeTables, "jaxhash.build_tables")
    codes = check_known_codes("queries", queries, index.num_bits)
    radius = check_radius(radius, index.num_bits)
    max_candidates = check_integer("max_candidates", max_candidates, 1)
    max_results = check_integer("max_results", max_results, 1)
    check_slots(math.prod(codes.shape[:-1]), max(max_results, max_candidates))
    _check_tables(index, tables, radius)
    options = {"radius": radius, "max_candidates": max_candidates, "max_results": max_results}
    if is_traced(index, tables, codes):
        return probe_in_slots((index, tables), codes, **options)
    lead = codes.shape[:-1]
    return in_batches(
        lambda batch: _compiled_probe((index, tables), batch, **options),
        codes.reshape(math.prod(lead), codes.shape[-1]),
        _queries_at_once(tables.slices, radius, max_candidates),
        lead,
        one_at_a_time if isinstance(index, ShardedIndex) else in_parallel,
    )


def _check_tables(index: AnyIndex, tables: ProbeTables, radius: int) -> None:
    """Raises unless tables have the shapes of those of this index, and can be probed with this radius."""
    num_shards = index.num_shards if isinstance(index, ShardedIndex) else 1
    expected = (index.num_bits, capacity_of(index), num_shards * sum(count_words(tables.slices)))
    if (tables.num_bits, tables.capacity, *tables.bitmap.shape) != expected:
        raise ValueError(
            f"tables of {tables.num_bits}-bit codes with room for {tables.capacity} in each shard are not those of "
            "this index; see jaxhash.build_tables"
        )
    for bits, reach in zip(tables.slices, divide_radius(radius, len(tables.slices)), strict=True):
        if count_probes(bits.size, reach) > MOST_PROBES:
            raise ValueError(f"radius {radius} takes more than {MOST_PROBES} probes of these tables: build others")


def _queries_at_once(slices: tuple[Slice, ...], radius: int, max_candidates: int) -> int:
    """The number of queries to probe together, a power of two, so that memory is bounded."""
    radii = divide_radius(radius, len(slices))
    probes = sum(count_probes(bits.size, reach) for bits, reach in zip(slices, radii, strict=True) if reach >= 0)
    affordable = max(1, QUERY_MEMORY // (16 * probes + 64 * max_candidates))
    return min(MAX_QUERIES_AT_ONCE, 1 << (affordable.bit_length() - 1))


@partial(jax.jit, static_argnames=("radius", "max_candidates", "max_results"))
def probe_in_slots(
    searched: tuple[AnyIndex, ProbeTables], queries: Any, *, radius: int, max_candidates: int, max_results: int
) -> ProbedMatches:
    """Computes what `probe_padded` returns, without its checks. Queries are uint32 `[..., w]`."""
    index, tables = searched
    options = {"radius": radius, "max_candidates": max_candidates, "max_results": max_results}
    if isinstance(index, ShardedIndex):

        def probe_shard(shard: HashIndex, part: ProbeTables, queries: Any) -> ProbedMatches:
            found = probe_in_slots((shard, part), queries, **options)
            return found._replace(complete=found.complete.astype(jnp.int32))

        found = map_shards(index, probe_shard, queries, beside=(tables,))
        first = merge_nearest(Neighbors(found.distances, found.ids), max_results)
        return ProbedMatches(*first, found.counts.sum(0, dtype=jnp.int32), (found.complete != 0).all(0))

    def probe_batch(batch: tuple[jax.Array, None]) -> ProbedMatches:
        return _probe_batch(index, tables, batch[0], **options)

    size = _queries_at_once(tables.slices, radius, max_candidates)
    return map_batches(probe_batch, index, (queries, None), size)


_compiled_probe = entry_point(probe_in_slots, "radius", "max_candidates", "max_results")


def _probe_batch(
    index: HashIndex, tables: ProbeTables, queries: jax.Array, *, radius: int, max_candidates: int, max_results: int
) -> ProbedMatches:
    """The first matches of queries uint32 `[q, w]`."""
    candidates = find_candidates(tables, queries, radius, max_candidates)
    ranks = candidates.ranks
    differing = _gather_codes(index, ranks) ^ queries[:, None]
    distances = lax.population_count(differing).sum(-1, dtype=jnp.uint32).astype(jnp.int32)
    near = candidates.found & (distances <= radius) & is_first_find(tables, radius, differing, candidates.tables)
    sizes = index.offsets.at[ranks + 1].get(mode="promise_in_bounds")
    sizes -= index.offsets.at[ranks].get(mode="promise_in_bounds")
    counts = jnp.where(near, sizes, 0).sum(1, dtype=jnp.int32)
    distances, ranks = sort_matches(jnp.where(near, distances, NO_DISTANCE), ranks, radius, index.capacity)
    count = min(max_candidates, max_results)  # each code has an item
    slots = items_in_slots(index, None, distances[:, :count], ranks[:, :count], max_results)
    return ProbedMatches(*slots, counts, candidates.complete)


def sort_matches(distances: jax.Array, ranks: jax.Array, radius: int, capacity: int) -> tuple[jax.Array, jax.Array]:
    """Sorts codes by (distance, rank), those of `NO_DISTANCE` last: int32 `[q, c]` both.

    Joined in one uint32 where they fit, which they do up to radius 30 and 100 million codes: XLA sorts one key on CPU
    in a twentieth of the time of two.
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


def _gather_codes(index: HashIndex, ranks: jax.Array) -> jax.Array:
    """The codes of some ranks, int32 `[q, c]`: uint32 `[q, c, w]`."""
    place, plane = find_words(index, ranks), index.capacity
    flat = index.codes.reshape(-1)
    words = [flat.at[place + word * plane].get(mode="promise_in_bounds") for word in range(index.num_words)]
    return jnp.stack(words, axis=-1)
