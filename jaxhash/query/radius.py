"""All items within a radius, however many there are: `radius_search`."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from jaxhash.core.batching import in_parallel
from jaxhash.core.checks import (
    check_choice,
    check_codes,
    check_integer,
    check_kind,
    check_radius,
    check_slots,
    is_traced,
)
from jaxhash.index.hash_index import HashIndex
from jaxhash.index.processes import gather_rows
from jaxhash.index.sharding import AnyIndex, ShardedIndex, local_shards
from jaxhash.query.cost_model import Plan, plan_radius, queries_at_once
from jaxhash.query.device_radius import probe_on_device, probes_on_device
from jaxhash.query.filters import check_allowed, index_of_few
from jaxhash.query.hits import find_hits, join_matches, matches_of_hits, tables_of_plan
from jaxhash.query.one_query import match_one
from jaxhash.query.results import RadiusMatches
from jaxhash.query.several import AnySequence, radius_search_several, refuse_offsets
from jaxhash.query.timings import timed

RADIUS_METHODS = ("auto", "scan", "probe", "multi-index")


def radius_search(
    index: AnyIndex | AnySequence,
    queries: ArrayLike,
    *,
    radius: int,
    method: str = "auto",
    num_tables: int | None = None,
    allowed: Any = None,
    id_offsets: ArrayLike | None = None,
) -> RadiusMatches:
    """Finds all items within a radius of each query, however many there are.

    The lengths of the results depend on the data, so this can't be traced; inside `jit` use `radius_search_padded`.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes; or a list or tuple of several, searched as one.
        queries: codes, uint32 `[..., w]`, taken as q queries in row-major order.
        radius: the largest Hamming distance that counts as a match, inclusive, at least 0.
        method: "scan" compares all codes; "probe" looks up the addresses near the query's; "multi-index" does so for
            several slices of the code; "auto" takes what is estimated to be quickest. The results are the same.
        num_tables: for "multi-index", the number of slices, from 1 to b; by default what is estimated to be quickest.
        allowed: which items may be found, bool `[m]`: `allowed[id]`, with m above the largest id; by default all.
        id_offsets: what is added to the ids of each of several indexes; this and their masks are as for `search`.

    Returns:
        `RadiusMatches(offsets, distances, ids)` of numpy arrays: the matches of query i are those from `offsets[i]`
        to `offsets[i + 1]`, sorted by (distance, code, id). Of several indexes, ids are int64.

    Raises:
        ValueError: queries or mask don't fit the index, a number is out of range, or there is no such method.
        TypeError: queries are not uint32, a number is not an integer, the mask is not bool, or the call is being
            traced.
    """
    if is_traced(index, queries, allowed):
        raise TypeError("radius_search returns arrays of unknown length; inside jit use radius_search_padded")
    if isinstance(index, (list, tuple)):
        find = partial(radius_search, radius=radius, method=method, num_tables=num_tables)
        return radius_search_several(index, queries, allowed, id_offsets, find)
    refuse_offsets(id_offsets)
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    flat = check_codes("queries", queries, index.num_bits).reshape(-1, index.num_words)
    radius = check_radius(radius, index.num_bits)
    check_slots(len(flat), 1)
    check_choice("method", method, RADIUS_METHODS)
    if num_tables is not None:
        if method != "multi-index":
            raise ValueError(f"num_tables is for the method multi-index, got method {method!r}")
        check_integer("num_tables", num_tables, 1, index.num_bits)
    mask = None if allowed is None else np.asarray(check_allowed(index, allowed))
    if isinstance(index, ShardedIndex):
        search_shard = partial(
            radius_search, queries=flat, radius=radius, method=method, num_tables=num_tables, allowed=mask
        )
        return _search_shards(index, len(flat), search_shard)
    plan = plan_radius(index, len(flat), radius, method, num_tables)
    with timed(index, (("radius", radius), plan or "scan"), len(flat)):
        if plan is None:
            return _scan(index, flat, radius, mask)
        return _probe(index, flat, radius, plan, mask)


def _probe(index: HashIndex, queries: np.ndarray, radius: int, plan: Plan, allowed: np.ndarray | None) -> RadiusMatches:
    """All matches of queries uint32 `[q, w]` by the tables of a plan."""
    if probes_on_device(index, plan):
        return probe_on_device(index, queries, radius, plan, allowed)
    found = None
    if len(queries) == 1 and allowed is None:
        found = match_one(index, queries[0], radius, tables_of_plan(index, plan))
    return found or matches_of_hits(index, find_hits(index, queries, radius, plan), allowed)


def _scan(index: HashIndex, queries: np.ndarray, radius: int, allowed: np.ndarray | None) -> RadiusMatches:
    """All matches of queries uint32 `[q, w]` by scans in two threads."""
    few = None if allowed is None else index_of_few(index, allowed)
    if few is not None:
        index, allowed = few, None
    size = queries_at_once(index, 1)

    def scan(start: int) -> RadiusMatches:
        return matches_of_hits(index, find_hits(index, queries[start : start + size], radius, None), allowed)

    return join_matches(in_parallel(scan, range(0, len(queries), size)))


def _search_shards(
    index: ShardedIndex, num_queries: int, search_shard: Callable[[HashIndex], RadiusMatches]
) -> RadiusMatches:
    """All matches in an index from those in each of its shards, which are searched at the same time."""
    shards = local_shards(index)

    def find_rows(number: int) -> np.ndarray:
        matches = search_shard(shards[number])
        query = np.repeat(np.arange(num_queries, dtype=np.int32), np.diff(matches.offsets))
        return np.stack([query, matches.distances, np.full_like(query, number), matches.ids], axis=1)

    def own_rows() -> np.ndarray:
        with ThreadPoolExecutor(max(1, len(shards))) as pool:
            return np.concatenate([np.zeros((0, 4), np.int32), *pool.map(find_rows, shards)])

    query, distance, shard, ids = gather_rows(own_rows, index.mesh.is_multi_process).T
    key = (query.astype(np.int64) << 32) | (distance.astype(np.int64) << 16) | shard
    # Stable, so that the items of a shard keep their order: by code, then by id.
    order = np.argsort(key, kind="stable")
    offsets = np.append(0, np.cumsum(np.bincount(query, minlength=num_queries)))
    return RadiusMatches(offsets, distance[order], ids[order])
