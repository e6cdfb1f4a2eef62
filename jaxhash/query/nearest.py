"""The k nearest items of each query: `search`.

`search` checks its arguments. Under tracing it calls `nearest_items`. Otherwise `find_nearest` tries methods in the
order of `plan`, each on the queries left by the previous ones; the last one answers all.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.distances import Queries
from jaxhash.codes.weights import weigh_queries
from jaxhash.core.batching import entry_point, in_batches, in_parallel, one_at_a_time, padded_length, put_beside
from jaxhash.core.checks import (
    AnyArray,
    check_choice,
    check_integer,
    check_kind,
    check_known_codes,
    check_slots,
    is_jax,
    is_traced,
)
from jaxhash.index.hash_index import HashIndex, cache_of, sizes_of
from jaxhash.index.sharding import AnyIndex, ShardedIndex
from jaxhash.query.filters import apply_filter, check_allowed, count_unfiltered, find_filter, map_allowed
from jaxhash.query.hits import Part, Request, in_chunks, matches_of_hits, try_in_turn
from jaxhash.query.plan import COMPILED_SCANS, LIMITS, Limits, Option, decide, numpy_batch_size, order_nearest
from jaxhash.query.probe.host import probe_widening
from jaxhash.query.results import Neighbors, RadiusMatches
from jaxhash.query.scan.host import nearest_hits, nearest_in_groups
from jaxhash.query.scan.kernels import find_codes, items_in_slots, map_queries, merge_nearest, scan_size

SEARCH_METHODS = ("auto", "scan", "probe")


def search(
    index: AnyIndex,
    queries: AnyArray,
    *,
    k: int,
    weights: ArrayLike | None = None,
    allowed: ArrayLike | None = None,
    method: str = "auto",
) -> Neighbors[AnyArray]:
    """Finds the k nearest items of each query, exactly. Can be called inside `jit` and `vmap`.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes.
        queries: codes of b bits (only w is checked), uint32 `[..., w]`; one query `[w]` gives results `[k]`.
        k: how many items to find, at least 1 (static). It may exceed the number of items.
        weights: integers from 0 to 15, `[..., b]`, or `[b]` for all queries, such as those of `encode_weighted`; by
            default all 1. The distance is the sum of the weights of the differing bits, also known as asymmetric
            distance (Gordo, Perronnin, Gong and Lazebnik 2014, "Asymmetric distances for binary embeddings"). Bit
            planes that are zero for all queries cost nothing; inside `jit` there are always four.
        allowed: mask of the items to search, bool `[m]`, by id; m must exceed the largest id. By default all. It may be
            traced, and one compiled program serves all masks of one length. The filter built from the last mask is
            cached. Inside `jit`, ids past the end of the mask are excluded.
        method: "scan" compares all codes; "probe" looks up addresses within a growing radius of the query's until k
            items are found or a scan is faster; "auto" picks the lowest estimated cost. The results are the same.
            Inside `jit`, with weights, and for a `ShardedIndex`, every method scans.

    Returns:
        `Neighbors(distances, ids)`, both int32 `[..., k]`, sorted by (distance, code, id): numpy arrays for numpy
        queries, else JAX arrays.

    Raises:
        ValueError: queries, weights or mask don't fit the index, k or a weight is out of range, or the method is
            unknown or does not apply. Inside `jit`, only the four lowest bits of weights count.
        TypeError: queries are not uint32, weights or k are not integers, or the mask is not bool.

    Example:
        >>> index = jh.build_index(jh.pack_bits([[0, 0], [0, 1], [1, 1]]), num_bits=2)
        >>> jh.search(index, jh.pack_bits([1, 1]), k=2)
        Neighbors(distances=array([0, 1], dtype=int32), ids=array([2, 1], dtype=int32))
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    codes = check_known_codes("queries", queries, index.num_bits)
    k = check_integer("k", k, 1)
    check_slots(math.prod(codes.shape[:-1]), k)
    check_choice("method", method, SEARCH_METHODS)
    if method == "probe" and (isinstance(index, ShardedIndex) or weights is not None):
        raise ValueError("the method probe is for a HashIndex and unweighted distances: use scan or auto")
    rows = Queries(codes) if weights is None else weigh_queries(codes, weights, index.num_bits)
    mask = None if allowed is None else check_allowed(index, allowed)
    if is_traced(index.codes, index.ids, rows.words, rows.planes, mask):
        return nearest_items(index, rows, mask, k=k)
    return find_nearest(index, rows, mask, k=k, method=method)


def find_nearest(
    index: AnyIndex, queries: Queries, allowed: Any = None, *, k: int, method: str = "auto", limits: Limits = LIMITS
) -> Neighbors[Any]:
    """Implements `search` for untraced arrays, after its checks."""
    if isinstance(index, ShardedIndex):
        return _scan(index, queries, allowed, k, limits)
    lead, num_planes = queries.words.shape[:-1], 0 if queries.planes is None else len(queries.exponents)
    count, filtered = math.prod(lead), allowed is not None
    unfiltered_k = count_unfiltered(k, allowed) if filtered else k
    options = order_nearest(sizes_of(index), count, k, unfiltered_k, num_planes, filtered, method, limits)
    options = choose_options(index, options, limits)
    if options[0].method == "scan":
        return _scan(index, queries, allowed, k, limits)
    request = Request(index, None if allowed is None else np.asarray(allowed), limits, k=k)
    rows = queries.map(lambda array: np.asarray(array).reshape(count, *array.shape[len(lead) :]))
    _, distances, ids = try_in_turn(_METHODS, options, request, rows)
    found = Neighbors(distances.reshape(*lead, k), ids.reshape(*lead, k))
    return put_beside(found, queries.words) if is_jax(queries.words) else found


def choose_options(index: HashIndex, options: tuple[Option, ...], limits: Limits = LIMITS) -> tuple[Option, ...]:
    """Returns the options to try, without tables until these pay off, and records the cost (`plan.decide`)."""
    cache = cache_of(index)
    if options[0].method not in COMPILED_SCANS and all(bits in cache.tables for bits in options[0].slices):
        return options
    decision = decide(options, cache.tables, cache.spent, sizes_of(index).num_codes, limits)
    cache.spent.update(decision.spent)
    return decision.options


# Methods: each done query has k matches, with any `NO_ID` last.


def _compare_in_numpy(request: Request, queries: Queries, _: Option) -> Part:
    def find(rows: Queries) -> RadiusMatches:
        return matches_of_hits(request.index, nearest_hits(request.index, rows, request.k), first=request.k)

    return in_chunks(find, queries, numpy_batch_size(sizes_of(request.index), request.limits))


def _select_in_groups(request: Request, queries: Queries, _: Option) -> Part:
    """Selects by group minima; leaves batches with too many ties to the next method."""
    index, k, limits, count = request.index, request.k, request.limits, len(queries.words)
    max_size = 1 << max(0, (limits.groups // (2 * k)).bit_length() - 1)
    size = min(scan_size(index.codes.shape, queries, k, limits=limits), max_size)
    size = padded_length((count + 1) // 2, size)  # for two threads

    def find(rows: Queries) -> RadiusMatches | None:
        hits = nearest_in_groups(index, rows.words, k, size, limits)
        return None if hits is None else matches_of_hits(index, hits, first=k)

    return in_chunks(find, queries, size)


def _scan_rest(request: Request, queries: Queries, _: Option) -> Part:
    distances, ids = _scan(request.index, queries, request.allowed, request.k, request.limits)
    offsets = np.arange(0, ids.size + 1, request.k)
    return RadiusMatches(offsets, distances.reshape(-1), ids.reshape(-1)), np.ones(len(ids), bool)


_METHODS = {"numpy": _compare_in_numpy, "groups": _select_in_groups, "probe": probe_widening, "scan": _scan_rest}


def _scan(index: AnyIndex, queries: Queries, allowed: Any, k: int, limits: Limits) -> Neighbors[Any]:
    """Finds the k nearest items of queries `[..., w]` by a compiled scan; JAX arrays stay on their device."""
    options: dict[str, Any] = {"k": k}
    if allowed is not None:
        searched, options["allowed"] = apply_filter(index, allowed, limits)
        if searched is not index:  # the allowed items alone
            return find_nearest(searched, queries, k=k, method="scan", limits=limits)
    return scan_in_batches(partial(_compiled_search, **options), index, queries, k, limits)


def scan_in_batches(compiled: Callable[..., Any], index: AnyIndex, queries: Queries, k: int, limits: Limits) -> Any:
    """Applies a compiled scan, `compiled(index, queries)`, to queries `[..., w]` in batches."""
    lead = queries.words.shape[:-1]
    num_shards = index.num_shards if isinstance(index, ShardedIndex) else 0
    size = scan_size(index.codes.shape, queries, k, num_shards, limits)
    mapped = one_at_a_time
    if isinstance(index, HashIndex):
        mapped, count = in_parallel, math.prod(lead)
        if count * index.capacity * (index.num_words + k // 8) >= limits.two_threads:
            size = padded_length((count + 1) // 2, size)
    return in_batches(lambda batch: compiled(index, batch), queries, size, lead, mapped, axes=len(lead))


# Jitted here, since `vmap` outside `jit` would dispatch every operation separately.
@partial(jax.jit, static_argnames="k")
def nearest_items(index: AnyIndex, queries: Queries, allowed: Any = None, *, k: int) -> Neighbors[jax.Array]:
    """Implements `search` without checks. Queries are `[..., w]`; `allowed` is a mask or a filter. Traceable."""
    if isinstance(index, ShardedIndex):
        return merge_nearest(map_allowed(index, partial(nearest_items, k=k), allowed, queries), k)
    mask_filter = find_filter(index, allowed)

    def nearest(batch: Queries) -> Neighbors[jax.Array]:
        return Neighbors(*items_in_slots(index, mask_filter, *find_codes(index, mask_filter, batch, k), k))

    return map_queries(nearest, queries, index.num_bits, scan_size(index.codes.shape, queries, k))


_compiled_search = entry_point(nearest_items, "k")
