"""Exact similarity queries: checks, batching of queries, and the types of results.

Three layers: the public functions check what they are given and cut large batches; `nearest_items` and
`_padded_matches` say what is computed for a few queries, and can be traced into any program; the loops are in
`kernels`. What is driven from the host, tables and ragged results, is in `lookup`. Results are sorted by
(distance, code, id), whatever the batch, the device or the order of insertion.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxhash.checks import INT32_MAX, check_code_array, check_codes, check_integer, is_traced, padding_mask
from jaxhash.dispatch import entry_point, in_batches
from jaxhash.index import NO_ID, HashIndex
from jaxhash.kernels import NO_DISTANCE, count_items, items_of_codes, minima_once, nearest_codes
from jaxhash.lookup import matches_by_plan, matches_by_scan, nearest_by_widening
from jaxhash.matches import RadiusMatches
from jaxhash.planning import Plan, radius_plan, widening_plans

SEARCH_METHODS = ("auto", "scan", "probe")
RADIUS_METHODS = ("auto", "scan", "probe", "multi-index")

# What a batch of queries may take beside the index and the answer. Larger batches gain nothing on CPU.
QUERY_MEMORY = 2**26
MAX_QUERIES_AT_ONCE = 256
# From so much work on, two threads share it: pairs of query and code, times words and k / 8.
WORTH_TWO_THREADS = 2**30


Result = TypeVar("Result", bound=tuple[Any, ...])


class _Neighbors(NamedTuple):
    distances: jax.Array  # int32 [..., k]; NO_DISTANCE where there are fewer than k items
    ids: jax.Array  # int32 [..., k]; NO_ID there


class Neighbors(_Neighbors):
    """The k nearest items of each query, by (distance, code, id): `distances` and `ids`, both int32 `[..., k]`.

    Where there are fewer than k items, the places behind them hold `NO_DISTANCE` and `NO_ID`.
    """

    __slots__ = ()
    NO_DISTANCE: ClassVar[int] = NO_DISTANCE
    NO_ID: ClassVar[int] = NO_ID


class _PaddedMatches(NamedTuple):
    distances: jax.Array  # int32 [..., max_results]; NO_DISTANCE behind the last match
    ids: jax.Array  # int32 [..., max_results]; NO_ID there
    counts: jax.Array  # int32 [...]; how many items match, also when they don't fit


class PaddedMatches(_PaddedMatches):
    """The items within a radius of each query, by (distance, code, id), in a fixed number of places.

    `distances` and `ids` are int32 `[..., max_results]`, with `NO_DISTANCE` and `NO_ID` behind the last match;
    `counts`, int32 `[...]`, says how many items match in truth, also when they don't all fit.
    """

    __slots__ = ()
    NO_DISTANCE: ClassVar[int] = NO_DISTANCE
    NO_ID: ClassVar[int] = NO_ID


def search(index: HashIndex, queries: ArrayLike, *, k: int, method: str = "auto") -> Neighbors:
    """Finds the k nearest items of each query, exactly.

    Args:
        index: a `HashIndex` of b-bit codes.
        queries: codes, uint32 `[..., w]`; one query `[w]` gives results `[k]`.
        k: how many items to find, at least 1 (static). It may exceed the number of items.
        method: "scan" compares all codes; "probe" looks up addresses within a widening radius of the query's, until k
            items are found or a scan is quicker; "auto" takes what is estimated to be the quicker one. The results are
            the same. Inside `jit`, where the number of addresses can't depend on the data, it is always a scan.

    Returns:
        `Neighbors(distances, ids)`, both int32 `[..., k]`, sorted by (distance, code, id).

    Raises:
        ValueError: queries don't fit the index, k is out of range, or there is no such method.
        TypeError: queries are not uint32, or k is not an integer.
    """
    k = check_integer("k", k, 1)
    rows = _legal_queries(index, queries, places=k)
    _legal_method(index, method, SEARCH_METHODS)
    if is_traced(index, rows):
        return nearest_items(index, rows, k=k)
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


def radius_search_padded(index: HashIndex, queries: ArrayLike, *, radius: int, max_results: int) -> PaddedMatches:
    """Finds the items within a radius of each query, in arrays of fixed shape that can be traced.

    Args:
        index: a `HashIndex` of b-bit codes.
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
        return _padded_matches(index, rows, radius=radius, max_results=max_results)
    size = queries_at_once(index, max_results)
    return _answers(_compiled_padded, index, rows, size, radius=radius, max_results=max_results)


def radius_search(
    index: HashIndex, queries: ArrayLike, *, radius: int, method: str = "auto", num_tables: int | None = None
) -> RadiusMatches:
    """Finds all items within a radius of each query, however many there are.

    The lengths of the results depend on the data, so this can't be traced; inside `jit` use `radius_search_padded`.

    Args:
        index: a `HashIndex` of b-bit codes.
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
    size = queries_at_once(index, 1)
    plan = radius_plan(index, len(flat), radius, method, num_tables)
    if plan is None:
        return matches_by_scan(index, flat, radius, size)
    return matches_by_plan(index, flat, radius, size, plan)


def _legal_method(
    index: HashIndex, method: str, methods: tuple[str, ...], num_tables: int | None = None
) -> tuple[str, int | None]:
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}, got {method!r}")
    if num_tables is not None:
        if method != "multi-index":
            raise ValueError(f"num_tables is for the method multi-index, got method {method!r}")
        check_integer("num_tables", num_tables, 1, index.num_bits)
    return method, num_tables


def _legal_radius(index: HashIndex, radius: int) -> int:
    """Every radius past the number of bits means the same: all items."""
    return min(check_integer("radius", radius, 0, maximum=2**63 - 1), index.num_bits)


def _legal_queries(index: HashIndex, queries: ArrayLike, places: int = 1) -> Any:
    """Queries that fit the index; concrete ones as a numpy array, which `jit` takes up faster than a JAX array."""
    if not isinstance(index, HashIndex):
        raise TypeError(f"index must be a HashIndex, got {type(index).__name__}; see jaxhash.build_index")
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


def queries_at_once(index: HashIndex, k: int) -> int:
    """How many queries to answer together so that memory stays bounded, whatever n and k are; a power of two."""
    width, blocks, group_size, lanes = index.codes.shape
    minima = blocks * lanes * (1 if width < 8 else 2)
    chosen = 8 * min(k, blocks) * lanes + 4 * min(k, blocks * lanes) * group_size * (width + 3)
    affordable = max(1, QUERY_MEMORY // (minima + chosen))
    return min(MAX_QUERIES_AT_ONCE, 1 << (affordable.bit_length() - 1))


def _answers(
    compiled: Callable[..., Result], index: HashIndex, queries: np.ndarray, size: int, **options: int
) -> Result:
    """Runs a compiled search over queries `[..., w]`, at most `size` at a time."""
    lead, count = queries.shape[:-1], math.prod(queries.shape[:-1])
    if count * index.capacity * (index.num_words + options.get("k", 0) // 8) >= WORTH_TWO_THREADS:
        size = min(size, 1 << ((count + 1) // 2 - 1).bit_length())
    if not lead or (len(lead) == 1 and count <= size and count.bit_count() == 1):
        return compiled(index, queries, **options)
    rows = queries.reshape(count, index.num_words)
    return in_batches(lambda batch: compiled(index, batch, **options), rows, size, lead)


def _traceable(function: Callable[..., Result], index: HashIndex, queries: Any, size: int) -> Result:
    """Applies `function(queries [q, w])` to queries `[..., w]` inside a trace, `size` at a time."""
    *lead, width = queries.shape
    flat = _cleared(jnp.asarray(queries).reshape(-1, width), index.num_bits)
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


def _cleared(queries: jax.Array, num_bits: int) -> jax.Array:
    """Sets padding bits to zero; they must never count, and a traced query could not be refused."""
    mask = np.full((1, queries.shape[1]), 0xFFFFFFFF, np.uint32)
    mask[0, -1] ^= padding_mask(num_bits)
    return queries & mask


def nearest_items(index: HashIndex, queries: Any, *, k: int) -> Neighbors:
    """What `search` computes, without its checks; for tracing. Queries are uint32 `[..., w]`."""

    def nearest(batch: jax.Array) -> Neighbors:
        return Neighbors(*_items(index, *_nearest_codes(index, batch, k), k))

    return _traceable(nearest, index, queries, queries_at_once(index, k))


def _nearest_codes(index: HashIndex, queries: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Distances and ranks of the nearest codes, int32 `[q, at most k]`."""
    minima = minima_once(index.codes, index.num_codes, queries)
    return nearest_codes(index.codes, index.num_codes, queries, minima, min(k, index.capacity))


def _padded_matches(index: HashIndex, queries: Any, *, radius: int, max_results: int) -> PaddedMatches:
    def within(batch: jax.Array) -> PaddedMatches:
        distances, ranks = _nearest_codes(index, batch, max_results)
        distances = jnp.where(distances <= radius, distances, NO_DISTANCE)
        counts = count_items(index.codes, index.offsets, batch, radius)
        return PaddedMatches(*_items(index, distances, ranks, max_results), counts)

    return _traceable(within, index, queries, queries_at_once(index, max_results))


def _items(index: HashIndex, distances: jax.Array, ranks: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The items of the codes, in `count` places even if the index has no room for so many."""
    available = min(count, index.ids.shape[0])
    distances, ids = items_of_codes(index.offsets, index.ids, distances, ranks, available)
    spare = ((0, 0), (0, count - available))
    return (
        jnp.pad(distances, spare, constant_values=NO_DISTANCE),
        jnp.pad(ids, spare, constant_values=NO_ID),
    )


_compiled_search = entry_point(nearest_items, "k")
_compiled_padded = entry_point(_padded_matches, "radius", "max_results")
