"""The first items by (distance, code, id), in a fixed number of slots: `search` and `radius_search_padded`.

The public functions check and batch. `nearest_items` and `matches_in_slots` say what is computed, can be traced into
any program, and rest on the loops in `kernels`. An index in shards is searched on each device as if its shard were all,
and the results are merged. Results do not depend on the batch, the devices or the order of insertion.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxhash.core.batching import entry_point, in_batches, one_at_a_time
from jaxhash.core.checks import (
    check_choice,
    check_integer,
    check_kind,
    check_known_codes,
    check_radius,
    check_slots,
    is_traced,
    padding_mask,
)
from jaxhash.index.hash_index import NO_ID, HashIndex
from jaxhash.index.sharding import AnyIndex, ShardedIndex, map_shards
from jaxhash.query.cost_model import Plan, plan_widening, queries_at_once
from jaxhash.query.hits import find_hits, matches_of_hits
from jaxhash.query.kernels import NO_DISTANCE, count_items, items_of_codes, minima_once, nearest_codes
from jaxhash.query.results import Neighbors, PaddedMatches

Result = TypeVar("Result", bound=tuple[Any, ...])

SEARCH_METHODS = ("auto", "scan", "probe")

# From this much work on, two threads share it: pairs of query and code, times words and k / 8.
WORTH_TWO_THREADS = 2**30


def search(index: AnyIndex, queries: ArrayLike, *, k: int, method: str = "auto") -> Neighbors:
    """Finds the k nearest items of each query, exactly.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes.
        queries: codes, uint32 `[..., w]`; one query `[w]` gives results `[k]`.
        k: how many items to find, at least 1 (static). It may exceed the number of items.
        method: "scan" compares all codes; "probe" looks up addresses within a growing radius of the query's, until k
            items are found or a scan is quicker; "auto" takes what is estimated to be quicker. The results are the
            same. Inside `jit`, where the number of addresses can't depend on the data, and in a `ShardedIndex`, whose
            devices would have to agree after each radius, it is always a scan.

    Returns:
        `Neighbors(distances, ids)`, both int32 `[..., k]`, sorted by (distance, code, id).

    Raises:
        ValueError: queries don't fit the index, k is out of range, or there is no such method (for this index).
        TypeError: queries are not uint32, or k is not an integer.
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    codes = check_known_codes("queries", queries, index.num_bits)
    k = check_integer("k", k, 1)
    check_slots(math.prod(codes.shape[:-1]), k)
    check_choice("method", method, SEARCH_METHODS)
    if isinstance(index, ShardedIndex) and method == "probe":
        raise ValueError("the method probe is for a HashIndex; a ShardedIndex is scanned")
    if is_traced(index, codes):
        return nearest_items(index, codes, k=k)
    if method != "scan" and isinstance(index, HashIndex):
        plans = plan_widening(index, math.prod(codes.shape[:-1]), k, method)
        if plans:
            return _search_by_widening(index, np.asarray(codes), k, plans)
    return _run(_compiled_search, index, codes, queries_at_once(index, k), k=k)


def radius_search_padded(index: AnyIndex, queries: ArrayLike, *, radius: int, max_results: int) -> PaddedMatches:
    """Finds the items within a radius of each query, in arrays of fixed shape that can be traced.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes.
        queries: codes, uint32 `[..., w]`.
        radius: the largest Hamming distance that counts as a match, inclusive, at least 0 (static).
        max_results: how many matches there is room for, at least 1 (static).

    Returns:
        `PaddedMatches(distances, ids, counts)`: the first `max_results` matches, and the true number of matches. Where
        a count exceeds `max_results`, the last matches are missing.

    Raises:
        ValueError: queries don't fit the index, or a number is out of range.
        TypeError: queries are not uint32, or a number is not an integer.
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    codes = check_known_codes("queries", queries, index.num_bits)
    radius = check_radius(radius, index.num_bits)
    max_results = check_integer("max_results", max_results, 1)
    check_slots(math.prod(codes.shape[:-1]), max_results)
    if is_traced(index, codes):
        return matches_in_slots(index, codes, radius=radius, max_results=max_results)
    size = queries_at_once(index, max_results)
    return _run(_compiled_padded, index, codes, size, radius=radius, max_results=max_results)


def _run(compiled: Callable[..., Result], index: AnyIndex, queries: Any, size: int, **options: int) -> Result:
    """Runs a compiled search over queries `[..., w]`, at most `size` at a time."""
    lead, count = queries.shape[:-1], math.prod(queries.shape[:-1])
    rows = queries.reshape(count, index.num_words)
    if isinstance(index, ShardedIndex):
        return in_batches(lambda batch: compiled(index, batch, **options), rows, size, lead, one_at_a_time)
    if count * index.capacity * (index.num_words + options.get("k", 0) // 8) >= WORTH_TWO_THREADS:
        size = min(size, 1 << ((count + 1) // 2 - 1).bit_length())
    if not lead or (len(lead) == 1 and count <= size and count.bit_count() == 1):
        return compiled(index, queries, **options)
    return in_batches(lambda batch: compiled(index, batch, **options), rows, size, lead)


def _search_by_widening(index: HashIndex, queries: np.ndarray, k: int, plans: Sequence[Plan]) -> Neighbors:
    """Finds the k nearest items by radius 0, 1, 2, ...; queries that have fewer in the end are scanned."""
    flat, lead = queries.reshape(-1, index.num_words), queries.shape[:-1]
    distances = np.full((len(flat), k), NO_DISTANCE, np.int32)
    ids = np.full((len(flat), k), NO_ID, np.int32)
    unfinished = np.arange(len(flat))
    for radius, plan in enumerate(plans):
        if not len(unfinished):
            break
        found = matches_of_hits(index, find_hits(index, flat[unfinished], radius, plan))
        enough = np.diff(found.offsets) >= k
        positions = found.offsets[:-1][enough][:, None] + np.arange(k)
        distances[unfinished[enough]], ids[unfinished[enough]] = found.distances[positions], found.ids[positions]
        unfinished = unfinished[~enough]
    if len(unfinished):
        rest = _run(_compiled_search, index, flat[unfinished], queries_at_once(index, k), k=k)
        distances[unfinished], ids[unfinished] = rest
    return Neighbors(jax.device_put(distances.reshape(*lead, k)), jax.device_put(ids.reshape(*lead, k)))


# Compiled even without a `jit` around it: `vmap` alone would dispatch every operation by itself.
@partial(jax.jit, static_argnames="k")
def nearest_items(index: AnyIndex, queries: Any, *, k: int) -> Neighbors:
    """Computes what `search` returns, without its checks. Queries are uint32 `[..., w]`."""
    if isinstance(index, ShardedIndex):
        return _merge_nearest(map_shards(index, partial(nearest_items, k=k), queries), k)

    def nearest(batch: jax.Array) -> Neighbors:
        return Neighbors(*_items(index, *_nearest_codes(index, batch, k), k))

    return _map_batches(nearest, index, queries, queries_at_once(index, k))


@partial(jax.jit, static_argnames=("radius", "max_results"))
def matches_in_slots(index: AnyIndex, queries: Any, *, radius: int, max_results: int) -> PaddedMatches:
    """Computes what `radius_search_padded` returns, without its checks. Queries are uint32 `[..., w]`."""
    if isinstance(index, ShardedIndex):
        found = map_shards(index, partial(matches_in_slots, radius=radius, max_results=max_results), queries)
        first = _merge_nearest(Neighbors(found.distances, found.ids), max_results)
        return PaddedMatches(*first, found.counts.sum(0, dtype=jnp.int32))

    def within(batch: jax.Array) -> PaddedMatches:
        distances, ranks = _nearest_codes(index, batch, max_results)
        distances = jnp.where(distances <= radius, distances, NO_DISTANCE)
        counts = count_items(index.codes, index.offsets, batch, radius)
        return PaddedMatches(*_items(index, distances, ranks, max_results), counts)

    return _map_batches(within, index, queries, queries_at_once(index, max_results))


def _merge_nearest(found: Neighbors, k: int) -> Neighbors:
    """The k nearest of all shards from the k nearest of each, int32 `[s, ..., k]`.

    Shards hold ascending codes and `top_k` puts the lower position first among equals, so ties stay in order.
    """
    num_shards, *lead, _ = found.ids.shape
    distances, ids = (jnp.moveaxis(array, 0, -2).reshape(*lead, num_shards * k) for array in found)
    _, position = lax.top_k(-distances.astype(jnp.float32), k)
    return Neighbors(jnp.take_along_axis(distances, position, -1), jnp.take_along_axis(ids, position, -1))


def _map_batches(function: Callable[..., Result], index: HashIndex, queries: Any, size: int) -> Result:
    """Applies `function(queries [q, w])` to queries `[..., w]`, `size` at a time."""
    *lead, width = queries.shape
    flat = _clear_padding(jnp.asarray(queries).reshape(-1, width), index.num_bits)
    if len(flat) <= size:
        result = function(flat)
    else:
        count = -(-len(flat) // size)
        batches = jnp.pad(flat, ((0, count * size - len(flat)), (0, 0))).reshape(count, size, width)
        result = jax.tree.map(
            lambda array: array.reshape(count * size, *array.shape[2:])[: len(flat)],
            lax.map(function, batches),
        )
    return jax.tree.map(lambda array: array.reshape(*lead, *array.shape[1:]), result)


def _clear_padding(queries: jax.Array, num_bits: int) -> jax.Array:
    """Sets padding bits to zero: they must never count, and of a traced query they can't be checked."""
    mask = np.full((1, queries.shape[1]), 0xFFFFFFFF, np.uint32)
    mask[0, -1] ^= padding_mask(num_bits)
    return queries & mask


def _nearest_codes(index: HashIndex, queries: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Distances and ranks of the nearest codes, int32 `[q, at most k]`."""
    minima = minima_once(index.codes, index.num_codes, queries)
    return nearest_codes(index.codes, index.num_codes, queries, minima, min(k, index.capacity))


def _items(index: HashIndex, distances: jax.Array, ranks: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The items of the codes, in `count` slots even if the index has room for fewer."""
    available = min(count, index.ids.shape[0])
    distances, ids = items_of_codes(index.offsets, index.ids, distances, ranks, available)
    spare = ((0, 0), (0, count - available))
    return (
        jnp.pad(distances, spare, constant_values=NO_DISTANCE),
        jnp.pad(ids, spare, constant_values=NO_ID),
    )


_compiled_search = entry_point(nearest_items, "k")
_compiled_padded = entry_point(matches_in_slots, "radius", "max_results")
