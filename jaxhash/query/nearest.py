"""The first items by (distance, code, id), in a fixed number of slots: `search` and `radius_search_padded`.

The public functions check and batch. `nearest_items` and `matches_in_slots` say what is computed, can be traced into
any program, and rest on the loops in `kernels`. An index in shards is searched on each device as if its shard were all,
and the results are merged. Results do not depend on the batch, the devices or the order of insertion.
"""

import math
from collections.abc import Callable
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
from jaxhash.index.hash_index import HashIndex
from jaxhash.index.sharding import AnyIndex, ShardedIndex
from jaxhash.query.cost_model import queries_at_once
from jaxhash.query.eager import search_by
from jaxhash.query.filters import (
    Allowed,
    Filter,
    apply_filter,
    check_allowed,
    count_items_of_codes,
    find_filter,
    map_allowed,
)
from jaxhash.query.host_selection import search_on_host, selects_on_host
from jaxhash.query.kernels import NO_DISTANCE, Weights, count_items, minima_once, nearest_codes
from jaxhash.query.results import Neighbors, PaddedMatches
from jaxhash.query.several import AnySequence, refuse_offsets, search_several
from jaxhash.query.slots import items_in_slots, merge_nearest

Result = TypeVar("Result", bound=tuple[Any, ...])

SEARCH_METHODS = ("auto", "scan", "probe")

# From this much work on, two threads share it: pairs of query and code, times words and k / 8.
WORTH_TWO_THREADS = 2**30


def search(
    index: AnyIndex | AnySequence,
    queries: ArrayLike,
    *,
    k: int,
    method: str = "auto",
    allowed: Any = None,
    id_offsets: ArrayLike | None = None,
) -> Neighbors:
    """Finds the k nearest items of each query, exactly.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes; or a list or tuple of several, which are searched as one.
            These can't be traced.
        queries: codes, uint32 `[..., w]`; one query `[w]` gives results `[k]`.
        k: how many items to find, at least 1 (static). It may exceed the number of items.
        method: "scan" compares all codes; "probe" looks up addresses within a growing radius of the query's, until k
            items are found or a scan is quicker; "auto" takes what is estimated to be quicker. The results are the
            same. Inside `jit`, where the number of addresses can't depend on the data, and in a `ShardedIndex`, whose
            devices would have to agree after each radius, it is always a scan.
        allowed: which items may be found, bool `[m]`: `allowed[id]`, with m above the largest id; by default all. It
            may be traced, and one compiled program serves all masks of one length. What is made of a mask is
            remembered until the next one comes. Inside `jit`, ids past the end of the mask are not allowed. For several
            indexes, a sequence of a mask or `None` for each.
        id_offsets: for several indexes, int64 `[m]`: what is added to the ids of each, by default 0. The ranges of
            their ids must not overlap then. Offsets of `i * 2**31` always keep them apart.

    Returns:
        `Neighbors(distances, ids)`, both int32 `[..., k]`, sorted by (distance, code, id). Of several indexes, numpy
        arrays, whose ids are int64; however items are divided among the indexes, the results are the same.

    Raises:
        ValueError: queries or mask don't fit the index, k is out of range, or there is no such method (for this index).
        TypeError: queries are not uint32, k is not an integer, or the mask is not bool.
    """
    if isinstance(index, (list, tuple)):
        return search_several(index, queries, k, allowed, id_offsets, partial(search, method=method))
    refuse_offsets(id_offsets)
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    codes = check_known_codes("queries", queries, index.num_bits)
    k = check_integer("k", k, 1)
    check_slots(math.prod(codes.shape[:-1]), k)
    check_choice("method", method, SEARCH_METHODS)
    if isinstance(index, ShardedIndex) and method == "probe":
        raise ValueError("the method probe is for a HashIndex; a ShardedIndex is scanned")
    if allowed is not None:
        allowed = check_allowed(index, allowed)
    if is_traced(index, codes, allowed):
        return nearest_items(index, codes, allowed=allowed, k=k)
    scan = partial(_scan, index, k, allowed)
    if method == "scan" or isinstance(index, ShardedIndex):
        return scan(codes)
    return search_by(index, codes, k, method, allowed, scan)


def _scan(index: AnyIndex, k: int, allowed: Any, queries: Any) -> Neighbors:
    """Finds the k nearest items of queries uint32 `[..., w]` by comparing all codes."""
    size = queries_at_once(index, k)
    if allowed is None and isinstance(index, HashIndex) and selects_on_host(index, math.prod(queries.shape[:-1]), k):
        return search_on_host(index, np.asarray(queries), k, size, _compiled_search)
    return run_batches(_compiled_search, index, (queries,), size, allowed, k=k)


def radius_search_padded(
    index: AnyIndex, queries: ArrayLike, *, radius: int, max_results: int, allowed: ArrayLike | None = None
) -> PaddedMatches:
    """Finds the items within a radius of each query, in arrays of fixed shape that can be traced.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes.
        queries: codes, uint32 `[..., w]`.
        radius: the largest Hamming distance that counts as a match, inclusive, at least 0 (static).
        max_results: how many matches there is room for, at least 1 (static).
        allowed: which items may be found, bool `[m]`, as for `search`.

    Returns:
        `PaddedMatches(distances, ids, counts)`: the first `max_results` matches, and the true number of matches. Where
        a count exceeds `max_results`, the last matches are missing.

    Raises:
        ValueError: queries or mask don't fit the index, or a number is out of range.
        TypeError: queries are not uint32, a number is not an integer, or the mask is not bool.
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    codes = check_known_codes("queries", queries, index.num_bits)
    radius = check_radius(radius, index.num_bits)
    max_results = check_integer("max_results", max_results, 1)
    check_slots(math.prod(codes.shape[:-1]), max_results)
    allowed = check_allowed(index, allowed)
    if is_traced(index, codes, allowed):
        return matches_in_slots(index, codes, allowed, radius=radius, max_results=max_results)
    size = queries_at_once(index, max_results)
    return run_batches(_compiled_padded, index, (codes,), size, allowed, radius=radius, max_results=max_results)


def run_batches(
    compiled: Callable[..., Result],
    index: AnyIndex,
    rows: tuple[Any, ...],
    size: int,
    allowed: Any = None,
    **options: Any,
) -> Result:
    """Runs a compiled search over rows: queries `[..., w]` and perhaps others `[..., m]`, at most `size` at a time.

    Of a mask by id, `allowed`, a filter is made once for all batches.
    """
    if allowed is not None:
        index, allowed = apply_filter(index, allowed)
        options |= {} if allowed is None else {"allowed": allowed}
    lead = rows[0].shape[:-1]
    if not lead and isinstance(index, HashIndex):
        return compiled(index, *rows, **options)
    count = math.prod(lead)

    def run(batch: tuple[Any, ...]) -> Result:
        return compiled(index, *batch, **options)

    flat = tuple(row.reshape(count, row.shape[-1]) for row in rows)
    if isinstance(index, ShardedIndex):
        return in_batches(run, flat, size, lead, one_at_a_time)
    if count * index.capacity * (index.num_words + options.get("k", 0) // 8) >= WORTH_TWO_THREADS:
        size = min(size, 1 << ((count + 1) // 2 - 1).bit_length())
    if len(lead) == 1 and count <= size and count.bit_count() == 1:
        return run(rows)
    return in_batches(run, flat, size, lead)


# Compiled even without a `jit` around it: `vmap` alone would dispatch every operation by itself.
@partial(jax.jit, static_argnames="k")
def nearest_items(
    index: AnyIndex, queries: Any, weights: Weights | None = None, allowed: Allowed = None, *, k: int
) -> Neighbors:
    """Computes what `search` and `weighted_search` return, without their checks. Queries are uint32 `[..., w]`."""
    if isinstance(index, ShardedIndex):
        return merge_nearest(map_allowed(index, partial(nearest_items, k=k), allowed, queries, weights), k)
    chosen = None if allowed is None else find_filter(index, allowed)

    def nearest(batch: tuple[jax.Array, Weights | None]) -> Neighbors:
        return Neighbors(*items_in_slots(index, chosen, *_nearest_codes(index, chosen, *batch, k), k))

    exponents = (0,) if weights is None else weights.exponents
    return map_batches(nearest, index, (queries, weights), queries_at_once(index, k, exponents))


@partial(jax.jit, static_argnames=("radius", "max_results"))
def matches_in_slots(
    index: AnyIndex, queries: Any, allowed: Allowed = None, *, radius: int, max_results: int
) -> PaddedMatches:
    """Computes what `radius_search_padded` returns, without its checks. Queries are uint32 `[..., w]`."""
    if isinstance(index, ShardedIndex):
        find = partial(matches_in_slots, radius=radius, max_results=max_results)
        found = map_allowed(index, find, allowed, queries)
        first = merge_nearest(Neighbors(found.distances, found.ids), max_results)
        return PaddedMatches(*first, found.counts.sum(0, dtype=jnp.int32))
    chosen = find_filter(index, allowed)
    sizes = count_items_of_codes(index, chosen)

    def within(batch: tuple[jax.Array, None]) -> PaddedMatches:
        distances, ranks = _nearest_codes(index, chosen, *batch, max_results)
        distances = jnp.where(distances <= radius, distances, NO_DISTANCE)
        counts = count_items(index.codes, sizes, batch[0], radius)
        return PaddedMatches(*items_in_slots(index, chosen, distances, ranks, max_results), counts)

    return map_batches(within, index, (queries, None), queries_at_once(index, max_results))


def map_batches(
    function: Callable[..., Result], index: HashIndex, rows: tuple[Any, Weights | None], size: int
) -> Result:
    """Applies a function to queries `[..., w]` and their weights, if they have any, `size` queries at a time."""
    queries, weights = rows
    lead = queries.shape[:-1]
    flat = jax.tree.map(lambda array: jnp.asarray(array).reshape(-1, *array.shape[len(lead) :]), (queries, weights))
    flat = (_clear_padding(flat[0], index.num_bits), flat[1])
    num_queries = len(flat[0])
    if num_queries <= size:
        result = function(flat)
    else:
        count = -(-num_queries // size)

        def split(array: jax.Array) -> jax.Array:
            spare = [(0, count * size - num_queries)] + [(0, 0)] * (array.ndim - 1)
            return jnp.pad(array, spare).reshape(count, size, *array.shape[1:])

        result = jax.tree.map(
            lambda array: array.reshape(count * size, *array.shape[2:])[:num_queries],
            lax.map(function, jax.tree.map(split, flat)),
        )
    return jax.tree.map(lambda array: array.reshape(*lead, *array.shape[1:]), result)


def _clear_padding(queries: jax.Array, num_bits: int) -> jax.Array:
    """Sets padding bits to zero: they must never count, and of a traced query they can't be checked."""
    mask = np.full((1, queries.shape[1]), 0xFFFFFFFF, np.uint32)
    mask[0, -1] ^= padding_mask(num_bits)
    return queries & mask


def _nearest_codes(
    index: HashIndex, allowed: Filter | None, queries: jax.Array, weights: Weights | None, k: int
) -> tuple[jax.Array, jax.Array]:
    """Distances and ranks of the nearest codes that have allowed items, int32 `[q, at most k]`."""
    barred = None if allowed is None else allowed.barred
    minima = minima_once(index.codes, index.num_codes, queries, weights, barred)
    return nearest_codes(index.codes, index.num_codes, queries, minima, min(k, index.capacity), weights, barred)


_compiled_search = entry_point(nearest_items, "k")
_compiled_padded = entry_point(matches_in_slots, "radius", "max_results")
