"""Radius results of any length, put together on the host from candidates that the device or a table has marked.

Filling on the device would scatter or sort over all n codes for each query.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxhash.codes.sorting import find_run_starts
from jaxhash.index.hash_index import HashIndex

# Codes looked at together: bounds the memory beside the answer to about a hundred megabytes.
CODES_AT_ONCE = 2**21


class RadiusMatches(NamedTuple):
    """All items within a radius of each query, by (distance, code, id): query i's are `offsets[i]:offsets[i + 1]`."""

    offsets: np.ndarray  # int64 [q + 1]
    distances: np.ndarray  # int32 [m]
    ids: np.ndarray  # int32 [m]

    @classmethod
    def joined(cls, parts: list["RadiusMatches"]) -> "RadiusMatches":
        """The matches of several runs of queries, one after the other."""
        if len(parts) == 1:
            return parts[0]
        counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.offsets) for part in parts)])
        return cls(
            np.cumsum(counts),
            np.concatenate([np.zeros(0, np.int32), *(part.distances for part in parts)]),
            np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)]),
        )


class Hits(NamedTuple):
    """The codes within a radius of each of q queries, by (query, distance, code)."""

    num_queries: int
    keys: np.ndarray  # uint64 [h], of 16 bits the query, of 17 the distance, of 31 the rank of the code

    @property
    def queries(self) -> np.ndarray:
        """Which query each is for: int64 `[h]`."""
        return (self.keys >> np.uint64(48)).astype(np.int64)

    @property
    def distances(self) -> np.ndarray:
        """Int32 `[h]`."""
        return (self.keys >> np.uint64(31)).astype(np.int32) & np.int32(2**17 - 1)

    @property
    def ranks(self) -> np.ndarray:
        """Int32 `[h]`."""
        return (self.keys & np.uint64(2**31 - 1)).astype(np.int32)


def hits_in_groups(index: HashIndex, queries: np.ndarray, near: np.ndarray, radius: int) -> Iterator[Hits]:
    """Yields the hits of consecutive runs of queries from the groups that the scan has marked.

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
    limit = CODES_AT_ONCE // group_size
    first = 0
    while first < len(queries):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + limit, side="right")) - 1)
        run = slice(starts[first], starts[last])
        ranks = (group[run, None] * group_size + np.arange(group_size)).reshape(-1)
        known = ranks < int(index.num_codes)
        yield hits_among(
            index, queries[first:last], np.repeat(query[run] - first, group_size)[known], ranks[known], radius
        )
        first = last


def hits_among(index: HashIndex, queries: np.ndarray, query: np.ndarray, rank: np.ndarray, radius: int) -> Hits:
    """The hits among candidates.

    Args:
        index: a `HashIndex`.
        queries: uint32 `[q, w]`, q below 2^16.
        query: int `[m]`, which query a candidate is for.
        rank: int `[m]`, which code it is; a pair may come more than once.
        radius: the largest distance that counts as a match, inclusive.
    """
    distance = _distances(index, queries, query, rank)
    near = np.flatnonzero(distance <= radius)
    keys = query[near].astype(np.uint64) << np.uint64(48)
    keys |= distance[near].astype(np.uint64) << np.uint64(31)
    keys |= rank[near].astype(np.uint64)
    keys.sort()
    return Hits(len(queries), keys[find_run_starts(keys)])


def matches_of_hits(index: HashIndex, hits: Hits) -> RadiusMatches:
    """The items of the codes that were hit."""
    rank = hits.ranks
    first = np.asarray(index.offsets)[rank]
    sizes = np.asarray(index.offsets)[1:][rank] - first
    ends = np.append(0, np.cumsum(sizes, dtype=np.int64))
    starts = np.searchsorted(hits.keys, np.arange(hits.num_queries + 1, dtype=np.uint64) << np.uint64(48))
    place = first if ends[-1] == len(rank) else consecutive(first, sizes)

    # A query's matches of one distance stand together: long runs repeat far faster than single codes.
    runs = find_run_starts(hits.keys >> np.uint64(31))
    distance = Hits(hits.num_queries, hits.keys[runs]).distances
    distances = np.repeat(distance, np.diff(ends[np.append(runs, len(rank))]))
    return RadiusMatches(ends[starts], distances, np.asarray(index.ids)[place])


def _distances(index: HashIndex, queries: np.ndarray, query: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Distances between pairs of query and code, `[m]`."""
    codes = np.asarray(index.codes)
    width, _, group_size, lanes = codes.shape
    column = rank // group_size
    row = rank - column * group_size
    block = column // lanes
    flat = (block * (group_size - 1) + row) * lanes + column
    total = np.zeros(len(rank), np.uint16)
    for word in range(width):
        total += np.bitwise_count(codes[word].reshape(-1)[flat] ^ queries[:, word][query])
    return total


def consecutive(first: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Runs of numbers, each `first, first + 1, ...` and of its size, at least 1, one after the other: int32.

    One running sum of steps; repeating the firsts and counting inside each run takes several times as long.
    """
    if not len(first):
        return np.zeros(0, np.int32)
    ends = np.cumsum(sizes, dtype=np.int64)
    steps = np.ones(ends[-1], np.int32)
    steps[0] = first[0]
    steps[ends[:-1]] = first[1:] - (first[:-1] + sizes[:-1] - 1)
    return np.cumsum(steps, dtype=np.int32)
