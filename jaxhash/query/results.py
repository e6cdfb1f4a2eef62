"""What searches return: named tuples of arrays, sorted by (distance, code, id)."""

from typing import ClassVar, NamedTuple

import jax
import numpy as np

from jaxhash.index.hash_index import NO_ID
from jaxhash.query.kernels import NO_DISTANCE


class _Neighbors(NamedTuple):
    distances: jax.Array  # int32 [..., k]; NO_DISTANCE where there are fewer than k items
    ids: jax.Array  # int32 [..., k]; NO_ID there


class Neighbors(_Neighbors):
    """The k nearest items of each query, by (distance, code, id): `distances` and `ids`, both int32 `[..., k]`.

    Where there are fewer than k items, the slots after them hold `NO_DISTANCE` and `NO_ID`.
    """

    __slots__ = ()
    NO_DISTANCE: ClassVar[int] = NO_DISTANCE
    NO_ID: ClassVar[int] = NO_ID


class _ScoredNeighbors(NamedTuple):
    scores: jax.Array  # float32 [..., k]; the worst possible where there are fewer than k items
    ids: jax.Array  # int32 [..., k]; NO_ID there


class ScoredNeighbors(_ScoredNeighbors):
    """The k nearest items of each query by their vectors, the best first: float32 and int32 `[..., k]`.

    Where there are fewer than k items, the slots after them hold `NO_ID` and the score -inf, or inf for distances.
    """

    __slots__ = ()
    NO_ID: ClassVar[int] = NO_ID


class _PaddedMatches(NamedTuple):
    distances: jax.Array  # int32 [..., max_results]; NO_DISTANCE after the last match
    ids: jax.Array  # int32 [..., max_results]; NO_ID there
    counts: jax.Array  # int32 [...]; how many items match, also when they don't fit


class PaddedMatches(_PaddedMatches):
    """The items within a radius of each query, by (distance, code, id), in a fixed number of slots.

    `distances` and `ids` are int32 `[..., max_results]`, with `NO_DISTANCE` and `NO_ID` after the last match;
    `counts`, int32 `[...]`, is the true number of matches, also when they don't all fit.
    """

    __slots__ = ()
    NO_DISTANCE: ClassVar[int] = NO_DISTANCE
    NO_ID: ClassVar[int] = NO_ID


class _ProbedMatches(NamedTuple):
    distances: jax.Array  # int32 [..., max_results]; NO_DISTANCE after the last match
    ids: jax.Array  # int32 [..., max_results]; NO_ID there
    counts: jax.Array  # int32 [...]; how many items match, also when they don't fit
    complete: jax.Array  # bool [...]; whether all candidates were compared


class ProbedMatches(_ProbedMatches):
    """The items within a radius of each query, as `PaddedMatches`, if there was room to compare all candidates.

    Where `complete`, bool `[...]`, is false, matches may be missing anywhere, and `counts` is a lower bound.
    """

    __slots__ = ()
    NO_DISTANCE: ClassVar[int] = NO_DISTANCE
    NO_ID: ClassVar[int] = NO_ID


class RadiusMatches(NamedTuple):
    """All items within a radius of each query, by (distance, code, id): query i's are `offsets[i]:offsets[i + 1]`."""

    offsets: np.ndarray  # int64 [q + 1]
    distances: np.ndarray  # int32 [m]
    ids: np.ndarray  # int32 [m]
