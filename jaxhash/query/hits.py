"""Finding all codes within a radius of queries, by a scan or by address tables, and the items of these codes.

The number of hits depends on the data, so they are put together on the host: on the device, filling would scatter or
sort over all n codes for each query.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from jaxhash.codes.sorting import find_run_starts
from jaxhash.core.batching import entry_point, pad_rows
from jaxhash.index.address_table import AddressTable, extract_addresses, get_tables
from jaxhash.index.hash_index import HashIndex, find_words
from jaxhash.query.cost_model import Plan, queries_at_once, scan_cost, sizes_of
from jaxhash.query.costs import costs
from jaxhash.query.kernels import near_groups
from jaxhash.query.probe import Buckets, probe
from jaxhash.query.results import RadiusMatches

# Candidates compared at a time: bounds the memory beside the answer to about a hundred megabytes.
CANDIDATES_AT_ONCE = 2**21

# Queries probed at a time: fewer than 2^16, and few enough for their buckets to stay in the caches.
PROBED_AT_ONCE = 2**12


class Hits(NamedTuple):
    """The codes within a radius of each of q queries, by (query, distance, code)."""

    num_queries: int
    keys: np.ndarray  # uint64 [h]: the query in 16 bits, the distance in 17, the rank of the code in 31

    @property
    def queries(self) -> np.ndarray:
        """The number of the query, int64 `[h]`."""
        return (self.keys >> np.uint64(48)).astype(np.int64)

    @property
    def distances(self) -> np.ndarray:
        """The distance, int32 `[h]`."""
        return (self.keys >> np.uint64(31)).astype(np.int32) & np.int32(2**17 - 1)

    @property
    def ranks(self) -> np.ndarray:
        """The rank of the code, int32 `[h]`."""
        return (self.keys & np.uint64(2**31 - 1)).astype(np.int32)


def find_hits(index: HashIndex, queries: np.ndarray, radius: int, plan: Plan | None) -> Iterator[Hits]:
    """Yields the hits of consecutive runs of queries uint32 `[q, w]`: by the tables of a plan, or by a scan."""
    if plan is None:
        size = queries_at_once(index, 1)
        for start in range(0, len(queries), size):
            yield from _scan(index, queries[start : start + size], radius, size)
        return
    tables = tables_of_plan(index, plan)
    for start in range(0, len(queries), PROBED_AT_ONCE):
        yield from _probe(index, queries[start : start + PROBED_AT_ONCE], radius, tables)


def tables_of_plan(index: HashIndex, plan: Plan) -> list[tuple[AddressTable, int]]:
    """The tables that a plan probes, each with its radius; they are built if they are missing."""
    return [pair for pair in zip(get_tables(index, plan.slices), plan.radii, strict=True) if pair[1] >= 0]


def _scan(index: HashIndex, queries: np.ndarray, radius: int, size: int) -> Iterator[Hits]:
    near = np.asarray(_compiled_near(index.codes, pad_rows(queries, size), radius=np.uint32(radius)))
    return hits_in_groups(index, queries, near[:, : len(queries)], radius)


_compiled_near = entry_point(near_groups)


def hits_in_groups(index: HashIndex, queries: np.ndarray, near: np.ndarray, radius: int) -> Iterator[Hits]:
    """Yields the hits of consecutive runs of queries among the groups that the scan has marked.

    Args:
        index: a `HashIndex`.
        queries: uint32 `[q, w]`.
        near: bool `[blocks, q, L]`, the groups that hold a code within the radius.
        radius: the largest distance that counts as a match, inclusive.
    """
    group_size = index.codes.shape[2]
    block, query, lane = np.unravel_index(np.flatnonzero(near), near.shape)
    by_query = np.argsort(query, kind="stable")
    query, group = query[by_query], (block * near.shape[2] + lane)[by_query]
    starts = np.searchsorted(query, np.arange(len(queries) + 1))
    limit = CANDIDATES_AT_ONCE // group_size
    first = 0
    while first < len(queries):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + limit, side="right")) - 1)
        run = slice(starts[first], starts[last])
        ranks = (group[run, None] * group_size + np.arange(group_size)).reshape(-1)
        valid = ranks < int(index.num_codes)
        yield hits_among(
            index, queries[first:last], np.repeat(query[run] - first, group_size)[valid], ranks[valid], radius
        )
        first = last


def _probe(
    index: HashIndex, queries: np.ndarray, radius: int, tables: list[tuple[AddressTable, int]]
) -> Iterator[Hits]:
    """Yields the hits by tables, each with the radius to probe it with.

    The sizes of the buckets are known before any code is compared. Where comparing would cost more than a scan, such as
    when most codes share a bucket, the queries are scanned; where it would take much memory, they are split.
    """
    found = [(table, probe(table, queries, reach)) for table, reach in tables]
    counts = [int(buckets.sizes.sum(dtype=np.int64)) for _, buckets in found]
    total = sum(counts)
    if total > CANDIDATES_AT_ONCE:
        if total * costs().candidate > len(queries) * scan_cost(sizes_of(index), found=0):
            yield from find_hits(index, queries, radius, None)
            return
        if len(queries) > 1:
            for half in np.array_split(queries, 2):
                yield from _probe(index, half, radius, tables)
            return
    if tables[0][0].bits.size == index.num_bits:
        yield _hits_in_buckets(queries, *found[0])
        return
    query, rank = [], []
    for (table, buckets), count in zip(found, counts, strict=True):
        if count == len(buckets.sizes):  # one code in each bucket
            place = buckets.firsts
            query.append(buckets.queries)
        else:
            place = expand_runs(buckets.firsts, buckets.sizes)
            query.append(np.repeat(buckets.queries, buckets.sizes))
        rank.append(place if table.ranks is None else table.ranks[place])
    yield hits_among(index, queries, np.concatenate(query), np.concatenate(rank), radius)


def _hits_in_buckets(queries: np.ndarray, table: AddressTable, buckets: Buckets) -> Hits:
    """The hits by a table of all bits: a bucket is a code, its address tells the distance, and all are within it."""
    differing = buckets.addresses ^ extract_addresses(queries, table.bits)[buckets.queries]
    return Hits(len(queries), sort_keys(buckets.queries, np.bitwise_count(differing), buckets.firsts))


def hits_among(index: HashIndex, queries: np.ndarray, query: np.ndarray, rank: np.ndarray, radius: int) -> Hits:
    """The hits among candidates.

    Args:
        index: a `HashIndex`.
        queries: uint32 `[q, w]`, q below 2^16.
        query: int `[m]`, the query of each candidate.
        rank: int `[m]`, the rank of its code; a pair may come more than once.
        radius: the largest distance that counts as a match, inclusive.
    """
    distance = _distances(index, queries, query, rank)
    near = np.flatnonzero(distance <= radius)
    keys = sort_keys(query[near], distance[near], rank[near])
    return Hits(len(queries), keys[find_run_starts(keys)])


def sort_keys(query: np.ndarray, distance: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Sorted keys, as `Hits` has them: uint64 `[m]`, of queries, distances and ranks `[m]`."""
    keys = query.astype(np.uint64) << np.uint64(48)
    keys |= distance.astype(np.uint64) << np.uint64(31)
    keys |= rank.astype(np.uint64)
    keys.sort()
    return keys


def _distances(index: HashIndex, queries: np.ndarray, query: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Distances between pairs of query and code, `[m]`."""
    codes, place = np.asarray(index.codes), find_words(index, rank)
    total = np.zeros(len(rank), np.uint16)
    for word in range(len(codes)):
        total += np.bitwise_count(codes[word].reshape(-1)[place] ^ queries[:, word][query])
    return total


def matches_of_hits(index: HashIndex, parts: Iterable[Hits], allowed: np.ndarray | None = None) -> RadiusMatches:
    """The items of all codes that were hit, for consecutive runs of queries; of a mask by id, those that it allows."""
    matches = [_items_of_hits(index, hits) for hits in parts]
    return join_matches(matches if allowed is None else [_select_allowed(part, allowed) for part in matches])


def _select_allowed(matches: RadiusMatches, allowed: np.ndarray) -> RadiusMatches:
    keep = allowed[matches.ids]
    before = np.append(0, np.cumsum(keep))
    return RadiusMatches(before[matches.offsets], matches.distances[keep], matches.ids[keep])


def _items_of_hits(index: HashIndex, hits: Hits) -> RadiusMatches:
    rank = hits.ranks
    offsets = np.asarray(index.offsets)
    first = offsets[rank]
    sizes = offsets[1:][rank] - first
    ends = np.zeros(len(rank) + 1, np.int64)
    np.cumsum(sizes, out=ends[1:])
    starts = np.searchsorted(hits.keys, np.arange(hits.num_queries + 1, dtype=np.uint64) << np.uint64(48))
    place = first if ends[-1] == len(rank) else expand_runs(first, sizes)

    # A query's matches at one distance are adjacent: repeating long runs is far faster than repeating single codes.
    runs = find_run_starts(hits.keys >> np.uint64(31))
    distance = Hits(hits.num_queries, hits.keys[runs]).distances
    distances = np.repeat(distance, np.diff(ends[np.append(runs, len(rank))]))
    return RadiusMatches(ends[starts], distances, np.asarray(index.ids)[place])


def join_matches(parts: list[RadiusMatches]) -> RadiusMatches:
    """Joins the matches of consecutive runs of queries."""
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.offsets) for part in parts)])
    return RadiusMatches(
        np.cumsum(counts),
        np.concatenate([np.zeros(0, np.int32), *(part.distances for part in parts)]),
        np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)]),
    )


def expand_runs(firsts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Joins the runs `first, first + 1, ...` of the given sizes, each at least 1: int32.

    One running sum of steps: repeating the firsts and counting inside each run takes several times as long.
    """
    if not len(firsts):
        return np.zeros(0, np.int32)
    ends = np.cumsum(sizes, dtype=np.int64)
    steps = np.ones(ends[-1], np.int32)
    steps[0] = firsts[0]
    steps[ends[:-1]] = firsts[1:] - (firsts[:-1] + sizes[:-1] - 1)
    return np.cumsum(steps, dtype=np.int32)
