"""Results of searches: named tuples of arrays.

They hold numpy arrays for numpy queries, else JAX arrays; ragged results always hold numpy arrays.
"""

from typing import ClassVar, Generic, NamedTuple

import numpy as np

from jaxhash.core.checks import INT32_MAX, AnyArray
from jaxhash.index.hash_index import NO_ID

NO_DISTANCE = INT32_MAX


class _Neighbors(NamedTuple, Generic[AnyArray]):
    distances: AnyArray  # int32 [..., k]; NO_DISTANCE where there are fewer than k items
    ids: AnyArray  # int32 [..., k]; NO_ID there


class Neighbors(_Neighbors[AnyArray]):
    """The k nearest items of each query, by (distance, code, id): `distances` and `ids`, both int32 `[..., k]`.

    If there are fewer than k items, the remaining slots hold `NO_DISTANCE` and `NO_ID`.
    """

    __slots__ = ()
    NO_DISTANCE: ClassVar[int] = NO_DISTANCE
    NO_ID: ClassVar[int] = NO_ID


class _ScoredNeighbors(NamedTuple, Generic[AnyArray]):
    scores: AnyArray  # float32 or int32 [..., k]; the worst score where fewer than k items are found
    ids: AnyArray  # int32 [..., k]; NO_ID there


class ScoredNeighbors(_ScoredNeighbors[AnyArray]):
    """The k items of each query with the best scores, best first, both `[..., k]`.

    `ids` are int32. `scores` are float32 from `rerank_vectors`, int32 from `bag_search`. If fewer than k items are
    found, the remaining slots hold `NO_ID` and the worst score: -inf, inf for distances, 0 from `bag_search`.
    """

    __slots__ = ()
    NO_ID: ClassVar[int] = NO_ID


class _PaddedMatches(NamedTuple, Generic[AnyArray]):
    distances: AnyArray  # int32 [..., max_results]; NO_DISTANCE after the last match
    ids: AnyArray  # int32 [..., max_results]; NO_ID there
    counts: AnyArray  # int32 [...]; all matches, also those without a slot
    complete: AnyArray  # bool [...]; whether all candidates were compared


class PaddedMatches(_PaddedMatches[AnyArray]):
    """The items within a radius of each query, by (distance, code, id), in a fixed number of slots.

    `distances` and `ids` are int32 `[..., max_results]`, with `NO_DISTANCE` and `NO_ID` after the last match;
    `counts`, int32 `[...]`, is the true number of matches, which may exceed the slots. Where `complete`, bool `[...]`,
    is false (with tables only), any matches may be missing, and `counts` is a lower bound.
    """

    __slots__ = ()
    NO_DISTANCE: ClassVar[int] = NO_DISTANCE
    NO_ID: ClassVar[int] = NO_ID


class RadiusMatches(NamedTuple):
    """All items within a radius of each query, by (distance, code, id): query i's are `offsets[i]:offsets[i + 1]`."""

    offsets: np.ndarray  # int64 [q + 1]
    distances: np.ndarray  # int32 [m]
    ids: np.ndarray  # int32 [m]


class NeighborPairs(NamedTuple):
    """Pairs of items within a radius, each once, by (first, distance, second)."""

    first: np.ndarray  # int32 [m], the smaller id
    second: np.ndarray  # int32 [m], the larger id
    distances: np.ndarray  # int32 [m]


class Redundant(NamedTuple):
    """Dropped items and, for each, the kept item that represents it."""

    removed: np.ndarray  # int32 [m], the ids of the dropped items, ascending
    kept: np.ndarray  # int32 [m], the id of the kept item for each
