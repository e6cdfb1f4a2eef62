"""Hits: the codes found by a search on the host, their items, and the loop over methods.

Their number depends on the data, so numpy assembles them. On the device, filling slots would scatter or sort over all n
codes for each query.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxhash.codes.distances import Queries
from jaxhash.codes.sorting import expand_runs, mark_run_starts, number_runs
from jaxhash.core.batching import in_parallel
from jaxhash.index.hash_index import HashIndex, find_words, sizes_of
from jaxhash.query.plan import Limits, Option
from jaxhash.query.results import RadiusMatches

# A packed hit: the query in 13 bits, the distance in 20 (up to 2^15 bits with weights up to 15), the rank in 31.
QUERY_SHIFT, DISTANCE_SHIFT = np.uint64(51), np.uint64(31)
DISTANCE_MASK, RANK_MASK = np.int32(2**20 - 1), np.uint64(2**31 - 1)


class Hits(NamedTuple):
    """The codes found for each of q queries, by (distance, rank): query i's are `starts[i]:starts[i + 1]`."""

    starts: np.ndarray  # int64 [q + 1]
    distances: np.ndarray  # int32 [h], or a narrower dtype
    ranks: np.ndarray  # int32 or int64 [h]

    @property
    def queries(self) -> np.ndarray:
        """The query of each hit, int64 `[h]`."""
        return number_runs(self.starts)


def sort_hits(
    num_queries: int, query: np.ndarray, distance: np.ndarray, rank: np.ndarray, *, unique: bool = True
) -> Hits:
    """Sorts hits, given as queries (below 2^13), distances and ranks `[m]`; drops duplicates unless `unique`.

    Sorting packed hits takes a fraction of the time of a stable sort by three keys.
    """
    packed = distance.astype(np.uint64) << DISTANCE_SHIFT
    packed |= rank.astype(np.uint64)
    if num_queries > 1:
        packed |= query.astype(np.uint64) << QUERY_SHIFT
    packed.sort()
    if not unique:
        packed = packed[mark_run_starts(packed)]
    starts = np.array([0, len(packed)])
    if num_queries != 1:
        starts = np.searchsorted(packed, np.arange(num_queries + 1, dtype=np.uint64) << QUERY_SHIFT)
    distances = (packed >> DISTANCE_SHIFT).astype(np.int32) & DISTANCE_MASK
    return Hits(starts, distances, (packed & RANK_MASK).astype(np.int32))


def hits_among(index: HashIndex, queries: np.ndarray, query: np.ndarray, rank: np.ndarray, radius: int) -> Hits:
    """Finds the hits within a radius among candidate pairs (query, rank), int `[m]`, which may repeat.

    `queries` are uint32 `[q, w]`, with q below 2^13.
    """
    position = find_words(index, rank)
    distance = np.zeros(len(rank), np.uint16)
    for word, codes in enumerate(np.asarray(index.codes).reshape(index.num_words, -1)):
        distance += np.bitwise_count(codes[position] ^ queries[:, word][query])
    near = np.flatnonzero(distance <= radius)
    return sort_hits(len(queries), query[near], distance[near], rank[near], unique=False)


def matches_of_hits(
    index: HashIndex, hits: Hits, allowed: np.ndarray | None = None, first: int | None = None
) -> RadiusMatches:
    """Lists the items of hits, filtered by a mask by id, bool `[m]`.

    `first` keeps the first items of each query only; every query must then have hits, and there can be no mask.
    """
    sizes, ids = sizes_of(index), np.asarray(index.ids)
    starts, distances, ranks = hits
    if sizes.num_items == sizes.num_codes:
        matches = RadiusMatches(starts, distances.astype(np.int32, copy=False), ids[ranks])
    else:
        offsets = np.asarray(index.offsets)
        begin = offsets[ranks]
        counts = offsets[1:][ranks] - begin
        if first is not None:
            counts = _limit_counts(starts, counts, first)
        ends = np.zeros(len(counts) + 1, np.int64)
        counts.cumsum(out=ends[1:])
        items = ids[expand_runs(begin, counts)]
        matches = RadiusMatches(ends[starts], distances.astype(np.int32).repeat(counts), items)
    return matches if allowed is None else _select_allowed(matches, allowed)


def _limit_counts(starts: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """Counts the items of each code that are among the first k of its query: `[h]`."""
    before = np.cumsum(counts, dtype=np.int64) - counts
    before -= np.repeat(before[starts[:-1]], np.diff(starts))
    return np.clip(k - before, 0, counts)


def _select_allowed(matches: RadiusMatches, allowed: np.ndarray) -> RadiusMatches:
    keep = allowed[matches.ids]
    before = np.append(0, np.cumsum(keep))
    return RadiusMatches(before[matches.offsets], matches.distances[keep], matches.ids[keep])


def join_matches(parts: Sequence[RadiusMatches]) -> RadiusMatches:
    """Joins the matches of consecutive runs of queries."""
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.offsets) for part in parts)])
    return RadiusMatches(
        np.cumsum(counts),
        np.concatenate([np.zeros(0, np.int32), *(part.distances for part in parts)]),
        np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)]),
    )


def sort_matches(num_queries: int, query: np.ndarray, distances: np.ndarray, ids: np.ndarray) -> RadiusMatches:
    """Sorts rows, int `[m]`, by query; rows of one query keep their order."""
    order = np.argsort(query, kind="stable")
    offsets = np.append(0, np.cumsum(np.bincount(query, minlength=num_queries)))
    return RadiusMatches(offsets, distances[order], ids[order])


@dataclass
class Request:
    """The arguments of a search, without the queries."""

    index: HashIndex
    allowed: np.ndarray | None  # bool [m], by id
    limits: Limits
    k: int = 0
    radius: int = 0


# The matches of queries, and which queries are done, bool [q]; the others have no matches.
Part = tuple[RadiusMatches, np.ndarray]
Method = Callable[[Request, Queries, Option], Part]


def try_in_turn(
    methods: Mapping[str, Method], options: Sequence[Option], request: Request, queries: Queries
) -> RadiusMatches:
    """Passes the queries `[q, w]` that one method leaves unanswered to the next; the last one answers all."""
    matches, done = methods[options[0].method](request, queries, options[0])
    for option in options[1:]:
        left = np.flatnonzero(~done)
        if not len(left):
            break
        more, done[left] = methods[option.method](request, queries.map(operator.itemgetter(left)), option)
        query = np.concatenate([number_runs(matches.offsets), left[number_runs(more.offsets)]])
        distances, ids = (np.concatenate(pair) for pair in zip(matches[1:], more[1:], strict=True))
        matches = sort_matches(len(done), query, distances, ids)
    return matches


def in_chunks(find: Callable[[Queries], RadiusMatches | None], queries: Queries, size: int) -> Part:
    """Answers queries `[q, w]` in chunks of `size`, in two threads; `find` returns `None` to leave a chunk."""
    count = len(queries.words)
    if count <= size:
        return mark_done(find(queries), count)
    chunks = [queries.map(operator.itemgetter(slice(start, start + size))) for start in range(0, count, size)]
    results = zip(in_parallel(find, chunks), chunks, strict=True)
    parts, done = zip(*(mark_done(matches, len(chunk.words)) for matches, chunk in results), strict=True)
    return join_matches(parts), np.concatenate(done)


def mark_done(matches: RadiusMatches | None, count: int) -> Part:
    """Returns the matches of `count` done queries, or empty matches of `count` queries left for the next method."""
    if matches is not None:
        return matches, np.ones(count, bool)
    nothing = np.zeros(0, np.int32)
    return RadiusMatches(np.zeros(count + 1, np.int64), nothing, nothing), np.zeros(count, bool)
