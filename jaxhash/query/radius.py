"""All items within a radius of each query: `radius_search`, and `radius_search_padded` in arrays of fixed shape."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.distances import Queries
from jaxhash.codes.sorting import number_runs
from jaxhash.core.batching import entry_point
from jaxhash.core.checks import (
    AnyArray,
    check_choice,
    check_codes,
    check_integer,
    check_kind,
    check_known_codes,
    check_radius,
    check_slots,
    is_traced,
)
from jaxhash.index.hash_index import HashIndex, sizes_of
from jaxhash.index.probe_tables import ProbeTables
from jaxhash.index.processes import gather_rows
from jaxhash.index.sharding import AnyIndex, ShardedIndex, local_shards
from jaxhash.query.filters import (
    apply_filter,
    check_allowed,
    count_items_of_codes,
    find_filter,
    gather_allowed,
    make_known_filter,
    map_allowed,
    tile_by_code,
)
from jaxhash.query.hits import Part, Request, in_chunks, join_matches, matches_of_hits, sort_matches, try_in_turn
from jaxhash.query.nearest import choose_options, scan_in_batches
from jaxhash.query.plan import LIMITS, Limits, Option, numpy_batch_size, order_radius
from jaxhash.query.probe.device import matches_on_device, probe_in_batches, probe_in_slots
from jaxhash.query.probe.host import probe_matches, probe_one
from jaxhash.query.probe.tables import check_tables
from jaxhash.query.results import NO_DISTANCE, PaddedMatches, RadiusMatches
from jaxhash.query.scan.host import hits_by_scan, hits_within
from jaxhash.query.scan.kernels import (
    Codes,
    count_items,
    find_codes,
    items_in_slots,
    map_queries,
    merge_padded,
    scan_size,
)

RADIUS_METHODS = ("auto", "scan", "probe", "multi_index")


def radius_search(
    index: AnyIndex,
    queries: ArrayLike,
    *,
    radius: int,
    allowed: ArrayLike | None = None,
    method: str = "auto",
    num_tables: int | None = None,
) -> RadiusMatches:
    """Finds all items within a radius of each query.

    The lengths of the results depend on the data, so it can't be traced; inside `jit` use `radius_search_padded`.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes.
        queries: codes, uint32 `[..., w]`, with the index's number of bits, flattened to q queries in row-major order.
        radius: the largest Hamming distance that counts as a match, inclusive, at least 0.
        allowed: mask of the items to search, bool `[m]`, by id; m must exceed the largest id. By default all.
        method: "scan" compares all codes; "probe" looks up the addresses near the query's; "multi_index" does so for
            several slices of the code; "auto" picks the lowest estimated cost. The results are the same.
        num_tables: for "multi_index", the number of slices, from 1 to b; by default the cheapest.

    Returns:
        `RadiusMatches(offsets, distances, ids)` of numpy arrays: the matches of query i are
        `offsets[i]:offsets[i + 1]`, sorted by (distance, code, id).

    Raises:
        ValueError: queries or mask don't fit the index, a number is out of range, or the method is unknown.
        TypeError: queries are not uint32, a number is not an integer, the mask is not bool, or the call is traced.

    Example:
        >>> index = jh.build_index(jh.pack_bits([[0, 0], [0, 1], [1, 1]]), num_bits=2)
        >>> jh.radius_search(index, jh.pack_bits([[0, 0], [1, 1]]), radius=1).ids
        array([0, 1, 2, 1], dtype=int32)
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    if is_traced(index.codes, index.ids, queries, allowed):
        raise TypeError("radius_search returns arrays of unknown length; inside jit use radius_search_padded")
    flat = check_codes("queries", queries, index.num_bits).reshape(-1, index.num_words)
    radius = check_radius(radius, index.num_bits)
    check_slots(len(flat), 1)
    check_choice("method", method, RADIUS_METHODS)
    if num_tables is not None:
        if method != "multi_index":
            raise ValueError(f"num_tables is for the method multi_index, got method {method!r}")
        check_integer("num_tables", num_tables, 1, index.num_bits)
    mask = None if allowed is None else np.asarray(check_allowed(index, allowed))
    find = partial(find_matches, queries=flat, radius=radius, allowed=mask, method=method, num_tables=num_tables)
    return _search_shards(index, len(flat), find) if isinstance(index, ShardedIndex) else find(index)


def find_matches(
    index: HashIndex,
    queries: np.ndarray,
    radius: int,
    allowed: np.ndarray | None = None,
    method: str = "auto",
    num_tables: int | None = None,
    limits: Limits = LIMITS,
) -> RadiusMatches:
    """Implements `radius_search` of queries uint32 `[q, w]`, after its checks."""
    sizes, count = sizes_of(index), len(queries)
    options = order_radius(sizes, count, radius, method, num_tables, limits)
    options = choose_options(index, options, limits)
    return try_in_turn(_METHODS, options, Request(index, allowed, limits, radius=radius), Queries(queries))


def _compare_in_numpy(request: Request, queries: Queries, _: Option) -> Part:
    def find(rows: Queries) -> RadiusMatches:
        return matches_of_hits(request.index, hits_within(request.index, rows, request.radius), request.allowed)

    return in_chunks(find, queries, numpy_batch_size(sizes_of(request.index), request.limits))


def _scan(request: Request, queries: Queries, _: Option) -> Part:
    small_index = None if request.allowed is None else gather_allowed(request.index, request.allowed, request.limits)
    index, allowed = (request.index, request.allowed) if small_index is None else (small_index, None)
    size = scan_size(index.codes.shape, queries, 1, limits=request.limits)

    def find(rows: Queries) -> RadiusMatches:
        parts = hits_by_scan(index, rows.words, request.radius, size, request.limits)
        return join_matches([matches_of_hits(index, hits, allowed) for hits in parts])

    return in_chunks(find, queries, size)


_METHODS = {
    "numpy": _compare_in_numpy,
    "probe_one": probe_one,
    "probe": probe_matches,
    "device": matches_on_device,
    "scan": _scan,
}


def _search_shards(
    index: ShardedIndex, num_queries: int, search_shard: Callable[[HashIndex], RadiusMatches]
) -> RadiusMatches:
    """Searches all shards at the same time and merges their matches."""
    shards = local_shards(index)

    def find_rows(number: int) -> np.ndarray:
        matches = search_shard(shards[number])
        query = number_runs(matches.offsets).astype(np.int32)
        return np.stack([query, matches.distances, np.full_like(query, number), matches.ids], axis=1)

    def own_rows() -> np.ndarray:
        with ThreadPoolExecutor(max(1, len(shards))) as pool:
            return np.concatenate([np.zeros((0, 4), np.int32), *pool.map(find_rows, shards)])

    query, distance, shard, ids = gather_rows(own_rows, index.mesh.is_multi_process).T
    # A stable sort keeps the items of a shard in order: by code, then by id.
    order = np.argsort((distance.astype(np.int64) << 16) | shard, kind="stable")
    return sort_matches(num_queries, query[order], distance[order], ids[order])


def radius_search_padded(
    index: AnyIndex,
    queries: AnyArray,
    *,
    radius: int,
    max_results: int,
    allowed: ArrayLike | None = None,
    tables: ProbeTables | None = None,
    max_candidates: int | None = None,
) -> PaddedMatches[AnyArray]:
    """Finds the items within a radius of each query, in arrays of fixed shape. Can be called inside `jit` and `vmap`.

    By default all codes are compared. With tables from `build_tables`, which a program takes as arguments like the
    index, only codes at addresses near the query's are: in 1/9 of the time for 1,000,000 codes of 28 bits, and 1/70 for
    10,000,000.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes.
        queries: codes, uint32 `[..., w]`.
        radius: the largest Hamming distance that counts as a match, inclusive, at least 0 (static).
        max_results: the number of matches to return per query, at least 1 (static).
        allowed: mask of the items to search, bool `[m]`, as for `search`.
        tables: the `ProbeTables` of this index, from `build_tables`.
        max_candidates: the number of codes to compare per query, at least 1 (static), with tables only; by default four
            times `max_results`. A code counts once for each table that leads to it.

    Returns:
        `PaddedMatches(distances, ids, counts, complete)`: the first `max_results` matches, the true number of matches,
        and whether all candidates were compared. If a count exceeds `max_results`, the last matches are missing. If
        `complete` is false, any may be missing, and the count is a lower bound; without tables it is always true. Numpy
        arrays for numpy queries, else JAX arrays.

    Raises:
        ValueError: queries, mask or tables don't fit the index, a number is out of range, or the radius needs more than
            2^16 probes of one table.
        TypeError: queries are not uint32, a number is not an integer, the mask is not bool, or tables are not
            `ProbeTables`.
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    codes = check_known_codes("queries", queries, index.num_bits)
    radius = check_radius(radius, index.num_bits)
    max_results = check_integer("max_results", max_results, 1)
    mask = check_allowed(index, allowed)
    options: dict[str, Any] = {"radius": radius, "max_results": max_results}
    if tables is not None:
        check_tables(index, tables, radius)
        candidates = 4 * max_results if max_candidates is None else max_candidates
        options["max_candidates"] = check_integer("max_candidates", candidates, 1)
    elif max_candidates is not None:
        raise ValueError("max_candidates is for tables: without them all codes are compared")
    check_slots(math.prod(codes.shape[:-1]), max(max_results, options.get("max_candidates", 1)))
    traced = is_traced(index.codes, index.ids, codes, mask, tables)
    if traced and tables is not None:
        return probe_in_slots((index, tables), Queries(codes), mask, **options)
    if traced:
        return matches_in_slots(index, Queries(codes), mask, **options)
    if tables is not None:
        mask_filter = None if mask is None else make_known_filter(index, mask)
        return probe_in_batches((index, tables), Queries(codes), mask_filter, **options)
    searched, mask_filter = apply_filter(index, mask)
    options |= {} if mask_filter is None else {"allowed": mask_filter}
    compiled = partial(_compiled_padded, **options)
    return scan_in_batches(compiled, searched, Queries(codes), max_results, LIMITS)


@partial(jax.jit, static_argnames=("radius", "max_results"))
def matches_in_slots(
    index: AnyIndex, queries: Queries, allowed: Any = None, *, radius: int, max_results: int
) -> PaddedMatches[jax.Array]:
    """Implements `radius_search_padded` without tables, for queries `[..., w]` and a mask or filter. Traceable."""
    if isinstance(index, ShardedIndex):
        find = partial(matches_in_slots, radius=radius, max_results=max_results)
        return merge_padded(map_allowed(index, find, allowed, queries), max_results)
    mask_filter = find_filter(index, allowed)
    sizes = tile_by_code(index, count_items_of_codes(index, mask_filter))

    def within(batch: Queries) -> PaddedMatches[jax.Array]:
        distances, ranks = find_codes(index, mask_filter, batch, max_results)
        distances = jnp.where(distances <= radius, distances, NO_DISTANCE)
        counts = count_items(Codes(index.codes, index.num_codes), sizes, batch, radius)
        slots = items_in_slots(index, mask_filter, distances, ranks, max_results)
        return PaddedMatches(*slots, counts, jnp.ones(counts.shape, bool))

    return map_queries(within, queries, index.num_bits, scan_size(index.codes.shape, queries, max_results))


_compiled_padded = entry_point(matches_in_slots, "radius", "max_results")
