"""Hits: the codes that a search on the host has found, the items of these codes, and the loop over methods.

How many there are depends on the data, so numpy puts them together. On the device, filling would scatter or sort over
all n codes for each query.
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

# A packed hit: the query in 13 bits, the distance in 20 (of up to 2^15 bits that weigh up to 15), the rank in 31.
QUERY_SHIFT, DISTANCE_SHIFT = np.uint64(51), np.uint64(31)
DISTANCE_MASK, RANK_MASK = np.int32(2**20 - 1), np.uint64(2**31 - 1)


class Hits(NamedTuple):
    """The codes that each of q queries has found, by (distance, rank): query i's are `starts[i]:starts[i + 1]`."""

    starts: np.ndarray  # int64 [q + 1]
    distances: np.ndarray  # int32 [h], or a narrower dtype
    ranks: np.ndarray  # int32 or int64 [h]

    @property
    def queries(self) -> np.ndarray:
        """The number of the query of each hit, int64 `[h]`."""
        return number_runs(self.starts)


def sort_hits(
    num_queries: int, query: np.ndarray, distance: np.ndarray, rank: np.ndarray, *, unique: bool = True
) -> Hits:
    """Sorts hits, given as queries (below 2^13), distances and ranks `[m]`; repeated ones are dropped, if there may be.

    One sort of packed hits takes a fraction of the time of a stable sort of three arrays.
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
    """The hits within a radius among candidates: pairs of a query, of uint32 `[q, w]` with q below 2^13, and a rank.

    They are int `[m]`; a pair may come more than once.
    """
    place = find_words(index, rank)
    distance = np.zeros(len(rank), np.uint16)
    for word, codes in enumerate(np.asarray(index.codes).reshape(index.num_words, -1)):
        distance += np.bitwise_count(codes[place] ^ queries[:, word][query])
    near = np.flatnonzero(distance <= radius)
    return sort_hits(len(queries), query[near], distance[near], rank[near], unique=False)


def matches_of_hits(
    index: HashIndex, hits: Hits, allowed: np.ndarray | None = None, first: int | None = None
) -> RadiusMatches:
    """Lists the items of the codes that were found; of a mask by id, bool `[m]`, those that it allows.

    Without a mask, and if each query has hits, it may be only the `first` items of each.
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
    """How many of the items of each code are among the first k of its query: `[h]`."""
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
    """Puts rows, int `[m]`, that are in order for each query into the order of the queries."""
    order = np.argsort(query, kind="stable")
    offsets = np.append(0, np.cumsum(np.bincount(query, minlength=num_queries)))
    return RadiusMatches(offsets, distances[order], ids[order])


@dataclass
class Asked:
    """What methods are asked for, beside the queries."""

    index: HashIndex
    allowed: np.ndarray | None  # bool [m], by id
    limits: Limits
    k: int = 0
    radius: int = 0


# The matches of queries, none for those that are not done, and which are done, bool [q].
Part = tuple[RadiusMatches, np.ndarray]
Method = Callable[[Asked, Queries, Option], Part]


def try_in_turn(
    methods: Mapping[str, Method], options: Sequence[Option], asked: Asked, queries: Queries
) -> RadiusMatches:
    """Lets each method answer the queries `[q, w]` that those before it left; the last one answers all."""
    matches, done = methods[options[0].method](asked, queries, options[0])
    for option in options[1:]:
        left = np.flatnonzero(~done)
        if not len(left):
            break
        more, done[left] = methods[option.method](asked, queries.map(operator.itemgetter(left)), option)
        query = np.concatenate([number_runs(matches.offsets), left[number_runs(more.offsets)]])
        found = (np.concatenate(pair) for pair in zip(matches[1:], more[1:], strict=True))
        matches = sort_matches(len(done), query, *found)
    return matches


def in_chunks(find: Callable[[Queries], RadiusMatches | None], queries: Queries, size: int) -> Part:
    """Answers queries `[q, w]`, at most `size` at a time, in two threads; `find` returns `None` for those it leaves."""
    count = len(queries.words)
    if count <= size:
        return mark_done(find(queries), count)
    chunks = [queries.map(operator.itemgetter(slice(start, start + size))) for start in range(0, count, size)]
    found = zip(in_parallel(find, chunks), chunks, strict=True)
    parts, done = zip(*(mark_done(matches, len(chunk.words)) for matches, chunk in found), strict=True)
    return join_matches(parts), np.concatenate(done)


def mark_done(matches: RadiusMatches | None, count: int) -> Part:
    """The matches of queries that are done; or, without any, of so many that are not."""
    if matches is not None:
        return matches, np.ones(count, bool)
    nothing = np.zeros(0, np.int32)
    return RadiusMatches(np.zeros(count + 1, np.int64), nothing, nothing), np.zeros(count, bool)
