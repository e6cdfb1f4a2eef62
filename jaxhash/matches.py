"""Radius results of any length, filled in on the host from what the device has marked.

The device says which groups of codes hold a match; numpy looks into those groups. On CPU this takes a fifth of the
time of filling on the device, where matches would have to be scattered or sorted over all n codes.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxhash.index import HashIndex

# Marked groups looked into at a time: bounds the memory beside the answer to about a hundred megabytes.
GROUPS_AT_ONCE = 2**18


class RadiusMatches(NamedTuple):
    """All items within a radius of each query, by (distance, code, id): query i's are `offsets[i]:offsets[i + 1]`."""

    offsets: np.ndarray  # int64 [q + 1]
    distances: np.ndarray  # int32 [m]
    ids: np.ndarray  # int32 [m]

    @classmethod
    def joined(cls, parts: list["RadiusMatches"]) -> "RadiusMatches":
        """The matches of several runs of queries, one after the other."""
        counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.offsets) for part in parts)])
        return cls(
            np.cumsum(counts),
            np.concatenate([np.zeros(0, np.int32), *(part.distances for part in parts)]),
            np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)]),
        )


def matches_in_groups(index: HashIndex, queries: np.ndarray, near: np.ndarray, radius: int) -> Iterator[RadiusMatches]:
    """Yields the matches of consecutive runs of queries.

    Args:
        index: a `HashIndex`.
        queries: uint32 `[q, w]`.
        near: bool `[blocks, q, L]`, the groups that hold a code within the radius.
        radius: the largest distance that counts as a match, inclusive.
    """
    block, query, lane = np.unravel_index(np.flatnonzero(near), near.shape)
    by_query = np.argsort(query, kind="stable")
    query, group = query[by_query], (block * near.shape[2] + lane)[by_query]
    starts = np.searchsorted(query, np.arange(len(queries) + 1))
    first = 0
    while first < len(queries):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + GROUPS_AT_ONCE, side="right")) - 1)
        run = slice(starts[first], starts[last])
        yield _matches(index, queries[first:last], query[run] - first, group[run], radius)
        first = last


def _matches(index: HashIndex, queries: np.ndarray, query: np.ndarray, group: np.ndarray, radius: int) -> RadiusMatches:
    """The matches of `queries [q, w]` in the marked pairs of query and group, both int64 `[m]`, groups ascending."""
    codes, offsets = np.asarray(index.codes), np.asarray(index.offsets)
    _, _, group_size, lanes = codes.shape
    members = codes[:, group // lanes, :, group % lanes]  # [m, w, g]
    distance = np.bitwise_count(members ^ queries[query][:, :, None]).sum(1, dtype=np.int32)
    rank = group[:, None] * group_size + np.arange(group_size)
    row, column = np.nonzero((distance <= radius) & (rank < int(index.num_codes)))
    query, rank, distance = query[row], rank[row, column], distance[row, column]

    order = np.lexsort((distance, query))  # stable, so ranks stay ascending
    query, rank, distance = query[order], rank[order], distance[order]
    sizes = offsets[rank + 1] - offsets[rank]
    ends = np.cumsum(sizes, dtype=np.int64)
    item = np.arange(ends[-1] if len(ends) else 0) + np.repeat(offsets[rank] - (ends - sizes), sizes)
    counts = np.bincount(np.repeat(query, sizes), minlength=len(queries))
    return RadiusMatches(np.append(0, np.cumsum(counts)), np.repeat(distance, sizes), np.asarray(index.ids)[item])
