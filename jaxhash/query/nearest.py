"""Exact similarity queries: what is legal, which method answers, and how many queries at a time.

Three layers: the public functions here check what they are given and cut large batches; `scan` says what is computed
for a few queries, and can be traced into any program; the loops are in `kernels`. What is driven from the host, tables
and ragged results, is in `lookup`. Results are sorted by (distance, code, id), whatever the batch, the devices or the
order of insertion.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxhash.core.batching import entry_point, in_batches, one_at_a_time
from jaxhash.core.checks import INT32_MAX, check_code_array, check_codes, check_integer, is_traced
from jaxhash.index.hash_index import HashIndex
from jaxhash.index.sharding import ShardedIndex
from jaxhash.query.cost_model import Plan, radius_plan, widening_plans
from jaxhash.query.lookup import matches_by_plan, matches_by_scan, matches_of_shards, nearest_by_widening
from jaxhash.query.matches import RadiusMatches
from jaxhash.query.scan import (
    AnyIndex,
    Neighbors,
    PaddedMatches,
    Result,
    matches_in_places,
    nearest_items,
    queries_at_once,
)

SEARCH_METHODS = ("auto", "scan", "probe")
RADIUS_METHODS = ("auto", "scan", "probe", "multi-index")

# From so much work on, two threads share it: pairs of query and code, times words and k / 8.
WORTH_TWO_THREADS = 2**30


def search(index: AnyIndex, queries: ArrayLike, *, k: int, method: str = "auto") -> Neighbors:
    """Finds the k nearest items of each query, exactly.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes.
        queries: codes, uint32 `[..., w]`; one query `[w]` gives results `[k]`.
        k: how many items to find, at least 1 (static). It may exceed the number of items.
        method: "scan" compares all codes; "probe" looks up addresses within a widening radius of the query's, until k
            items are found or a scan is quicker; "auto" takes what is estimated to be the quicker one. The results are
            the same. Inside `jit`, where the number of addresses can't depend on the data, it is always a scan; so is
            it in a `ShardedIndex`, whose devices would have to agree after each radius.

    Returns:
        `Neighbors(distances, ids)`, both int32 `[..., k]`, sorted by (distance, code, id).

    Raises:
        ValueError: queries don't fit the index, k is out of range, or there is no such method (for this index).
        TypeError: queries are not uint32, or k is not an integer.
    """
    k = check_integer("k", k, 1)
    rows = _legal_queries(index, queries, places=k)
    _legal_method(index, method, SEARCH_METHODS)
    if isinstance(index, ShardedIndex) and method == "probe":
        raise ValueError("the method probe is for a HashIndex; a ShardedIndex is scanned")
    if is_traced(index, rows):
        return nearest_items(index, rows, k=k)
    if isinstance(index, ShardedIndex):
        return _answers(_compiled_search, index, rows, queries_at_once(index, k), k=k)
    if method != "scan" and (plans := widening_plans(index, math.prod(rows.shape[:-1]), k, method)):
        return _by_widening(index, rows, k, plans)
    return _answers(_compiled_search, index, rows, queries_at_once(index, k), k=k)


def _by_widening(index: HashIndex, queries: np.ndarray, k: int, plans: Sequence[Plan]) -> Neighbors:
    """Nearest items by probing ever further; the queries that still lack items in the end are scanned."""
    flat = queries.reshape(-1, index.num_words)
    distances, ids, lacking = nearest_by_widening(index, flat, k, plans, queries_at_once(index, 1))
    if len(lacking):
        rest = _answers(_compiled_search, index, flat[lacking], queries_at_once(index, k), k=k)
        distances[lacking], ids[lacking] = rest
    lead = queries.shape[:-1]
    return Neighbors(jax.device_put(distances.reshape(*lead, k)), jax.device_put(ids.reshape(*lead, k)))


def radius_search_padded(index: AnyIndex, queries: ArrayLike, *, radius: int, max_results: int) -> PaddedMatches:
    """Finds the items within a radius of each query, in arrays of fixed shape that can be traced.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes.
        queries: codes, uint32 `[..., w]`.
        radius: the largest Hamming distance that counts as a match, inclusive, at least 0 (static).
        max_results: how many matches there is room for, at least 1 (static).

    Returns:
        `PaddedMatches(distances, ids, counts)`: the first `max_results` matches, and how many there are in truth.
        Where a count exceeds `max_results`, the matches that come last are missing.

    Raises:
        ValueError: queries don't fit the index, or a number is out of range.
        TypeError: queries are not uint32, or a number is not an integer.
    """
    radius = _legal_radius(index, radius)
    max_results = check_integer("max_results", max_results, 1)
    rows = _legal_queries(index, queries, places=max_results)
    if is_traced(index, rows):
        return matches_in_places(index, rows, radius=radius, max_results=max_results)
    size = queries_at_once(index, max_results)
    return _answers(_compiled_padded, index, rows, size, radius=radius, max_results=max_results)


def radius_search(
    index: AnyIndex, queries: ArrayLike, *, radius: int, method: str = "auto", num_tables: int | None = None
) -> RadiusMatches:
    """Finds all items within a radius of each query, however many there are.

    The lengths of the results depend on the data, so this can't be traced; inside `jit` use `radius_search_padded`.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes.
        queries: codes, uint32 `[..., w]`, taken as q queries in row-major order.
        radius: the largest Hamming distance that counts as a match, inclusive, at least 0.
        method: "scan" compares all codes; "probe" looks up the addresses near the query's; "multi-index" does so for
            several slices of the code; "auto" takes what is estimated to be the quickest. The results are the same.
        num_tables: for "multi-index", into how many slices to part the code, from 1 to b; by default what is
            estimated to be the quickest.

    Returns:
        `RadiusMatches(offsets, distances, ids)` of numpy arrays: the matches of query i are those from `offsets[i]`
        to `offsets[i + 1]`, sorted by (distance, code, id).

    Raises:
        ValueError: queries don't fit the index, a number is out of range, or there is no such method.
        TypeError: queries are not uint32, a number is not an integer, or the call is being traced.
    """
    if is_traced(index, queries):
        raise TypeError("radius_search returns arrays of unknown length; inside jit use radius_search_padded")
    radius = _legal_radius(index, radius)
    flat = np.asarray(_legal_queries(index, queries)).reshape(-1, index.num_words)
    method, num_tables = _legal_method(index, method, RADIUS_METHODS, num_tables)
    if isinstance(index, ShardedIndex):
        search_shard = partial(radius_search, queries=flat, radius=radius, method=method, num_tables=num_tables)
        return matches_of_shards(index, len(flat), search_shard)
    size = queries_at_once(index, 1)
    plan = radius_plan(index, len(flat), radius, method, num_tables)
    if plan is None:
        return matches_by_scan(index, flat, radius, size)
    return matches_by_plan(index, flat, radius, size, plan)


def _legal_method(
    index: AnyIndex, method: str, methods: tuple[str, ...], num_tables: int | None = None
) -> tuple[str, int | None]:
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}, got {method!r}")
    if num_tables is not None:
        if method != "multi-index":
            raise ValueError(f"num_tables is for the method multi-index, got method {method!r}")
        check_integer("num_tables", num_tables, 1, index.num_bits)
    return method, num_tables


def _legal_radius(index: AnyIndex, radius: int) -> int:
    """Every radius past the number of bits means the same: all items."""
    return min(check_integer("radius", radius, 0, maximum=2**63 - 1), index.num_bits)


def _legal_queries(index: AnyIndex, queries: ArrayLike, places: int = 1) -> Any:
    """Queries that fit the index; concrete ones as a numpy array, which `jit` takes up faster than a JAX array."""
    if not isinstance(index, AnyIndex):
        raise TypeError(
            f"index must be a HashIndex or a ShardedIndex, got {type(index).__name__}; see jaxhash.build_index"
        )
    if is_traced(queries):
        check_code_array("queries", queries, index.num_words)
    else:
        queries = check_codes("queries", queries, index.num_bits)
    check_places(math.prod(np.shape(queries)[:-1]), places)
    return queries


def check_places(num_queries: int, places: int) -> None:
    """Refuses a result that is too large to be addressed, before anything is allocated for it."""
    if num_queries * places > INT32_MAX:
        raise ValueError(
            f"{num_queries} queries with {places} results each exceed 2^31 places: ask for fewer, or cut the queries"
        )


def _answers(
    compiled: Callable[..., Result], index: AnyIndex, queries: np.ndarray, size: int, **options: int
) -> Result:
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


_compiled_search = entry_point(nearest_items, "k")
_compiled_padded = entry_point(matches_in_places, "radius", "max_results")
