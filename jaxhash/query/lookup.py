"""Answers that are driven from the host: all matches within a radius by any method, and k-NN by widening a radius."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxhash.core.batching import entry_point, in_parallel, pad_rows
from jaxhash.core.checks import INT32_MAX
from jaxhash.index.hash_index import NO_ID, HashIndex
from jaxhash.index.processes import gather_rows
from jaxhash.index.sharding import ShardedIndex, local_shards
from jaxhash.query.address_table import AddressTable, probe, tables_of
from jaxhash.query.cost_model import CANDIDATE, Plan, scan_cost, sizes_of
from jaxhash.query.kernels import near_groups
from jaxhash.query.matches import (
    CODES_AT_ONCE,
    Hits,
    RadiusMatches,
    consecutive,
    hits_among,
    hits_in_groups,
    matches_of_hits,
)

# Queries looked up together: fewer than 2^16, and few enough for their buckets to stay in the caches.
LOOKED_UP_AT_ONCE = 2**12


def matches_by_scan(index: HashIndex, queries: np.ndarray, radius: int, size: int) -> RadiusMatches:
    """All matches of queries uint32 `[q, w]`, at most `size` queries at a time."""

    def scan(batch: np.ndarray) -> RadiusMatches:
        return RadiusMatches.joined([matches_of_hits(index, hits) for hits in _scan_part(index, batch, radius, size)])

    return RadiusMatches.joined(in_parallel(scan, [queries[i : i + size] for i in range(0, len(queries), size)]))


def matches_by_plan(index: HashIndex, queries: np.ndarray, radius: int, size: int, plan: Plan) -> RadiusMatches:
    """All matches of queries uint32 `[q, w]` by the tables of a plan; `size` is for parts that are better scanned."""
    return RadiusMatches.joined(
        [matches_of_hits(index, hits) for hits in hits_in_parts(index, queries, radius, size, plan)]
    )


def hits_in_parts(index: HashIndex, queries: np.ndarray, radius: int, size: int, plan: Plan | None) -> Iterator[Hits]:
    """Yields the hits of queries uint32 `[q, w]`, of some consecutive ones at a time: by a plan, or by a scan."""
    if plan is None:
        for start in range(0, len(queries), size):
            yield from _scan_part(index, queries[start : start + size], radius, size)
        return
    tables = [pair for pair in zip(tables_of(index, plan.slices), plan.radii, strict=True) if pair[1] >= 0]
    for start in range(0, len(queries), LOOKED_UP_AT_ONCE):
        yield from _plan_part(index, queries[start : start + LOOKED_UP_AT_ONCE], radius, size, tables)


def _scan_part(index: HashIndex, queries: np.ndarray, radius: int, size: int) -> Iterator[Hits]:
    near = np.asarray(_compiled_near(index.codes, pad_rows(queries, size), radius=np.uint32(radius)))
    return hits_in_groups(index, queries, near[:, : len(queries)], radius)


_compiled_near = entry_point(near_groups)


def _plan_part(
    index: HashIndex, queries: np.ndarray, radius: int, size: int, tables: list[tuple[AddressTable, int]]
) -> Iterator[Hits]:
    """Buckets tell how many codes they hold before any is looked at.

    Where looking would cost more than a scan, as when most codes share a bucket, it is a scan; where it would take much
    memory, the queries are split.
    """
    found = [(table, probe(table, queries, reach)) for table, reach in tables]
    total = sum(int(buckets.size.sum(dtype=np.int64)) for _, buckets in found)
    if total > CODES_AT_ONCE:
        if total * CANDIDATE > len(queries) * scan_cost(sizes_of(index), found=0):
            yield from hits_in_parts(index, queries, radius, size, None)
            return
        if len(queries) > 1:
            for half in np.array_split(queries, 2):
                yield from _plan_part(index, half, radius, size, tables)
            return
    query, rank = [], []
    for table, buckets in found:
        if table.starts is None:  # one code in each bucket
            place = buckets.first
            query.append(buckets.query)
        else:
            place = consecutive(buckets.first, buckets.size)
            query.append(np.repeat(buckets.query, buckets.size))
        rank.append(place if table.ranks is None else table.ranks[place])
    yield hits_among(index, queries, np.concatenate(query), np.concatenate(rank), radius)


def nearest_by_widening(
    index: HashIndex, queries: np.ndarray, k: int, plans: Sequence[Plan], size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k nearest items of queries uint32 `[q, w]`, by radius 0, 1, 2, ... as far as there are plans.

    Returns:
        Distances and ids, int32 `[q, k]`, right but for the queries that had fewer than k matches even in the last
        radius; and the numbers of these queries, int64.
    """
    distances = np.full((len(queries), k), INT32_MAX, np.int32)
    ids = np.full((len(queries), k), NO_ID, np.int32)
    lacking = np.arange(len(queries))
    for radius, plan in enumerate(plans):
        if not len(lacking):
            break
        found = matches_by_plan(index, queries[lacking], radius, size, plan)
        enough = np.diff(found.offsets) >= k
        places = found.offsets[:-1][enough][:, None] + np.arange(k)
        distances[lacking[enough]], ids[lacking[enough]] = found.distances[places], found.ids[places]
        lacking = lacking[~enough]
    return distances, ids, lacking


def matches_of_shards(
    index: ShardedIndex, num_queries: int, search_shard: Callable[[HashIndex], RadiusMatches]
) -> RadiusMatches:
    """All matches in an index from those in each of its shards, which are searched at the same time."""
    shards = local_shards(index)

    def found(number: int) -> np.ndarray:
        matches = search_shard(shards[number])
        query = np.repeat(np.arange(num_queries, dtype=np.int32), np.diff(matches.offsets))
        return np.stack([query, matches.distances, np.full_like(query, number), matches.ids], axis=1)

    def own_rows() -> np.ndarray:
        with ThreadPoolExecutor(max(1, len(shards))) as pool:
            return np.concatenate([np.zeros((0, 4), np.int32), *pool.map(found, shards)])

    query, distance, shard, ids = gather_rows(own_rows, index.mesh.is_multi_process).T
    key = (query.astype(np.int64) << 32) | (distance.astype(np.int64) << 16) | shard
    # Stable, so that the items of a shard stay as they are: by code, then by id.
    order = np.argsort(key, kind="stable")
    offsets = np.append(0, np.cumsum(np.bincount(query, minlength=num_queries)))
    return RadiusMatches(offsets, distance[order], ids[order])
