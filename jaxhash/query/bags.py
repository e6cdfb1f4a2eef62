"""Search by bags of codes, for items with many codes each, such as one per image patch.

Krizhevsky and Hinton, "Using Very Deep Autoencoders for Content-Based Image Retrieval" (ESANN 2011), find images by the
codes of their patches: each patch of the query votes for the images with a near code, nearer codes counting more.
"""

import math
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.sorting import argsort_codes, find_run_starts
from jaxhash.core.batching import put_beside
from jaxhash.core.checks import INT32_MAX, AnyArray, check_codes, check_integer, check_kind, is_jax, is_traced
from jaxhash.index.hash_index import NO_ID
from jaxhash.index.sharding import AnyIndex
from jaxhash.query.filters import check_allowed
from jaxhash.query.plan import LIMITS, Limits
from jaxhash.query.radius import radius_search
from jaxhash.query.results import RadiusMatches, ScoredNeighbors

# Scores of distinct items and their ids, ascending: int64 [m], int32 [m].
Scores = tuple[np.ndarray, np.ndarray]


def bag_search(
    index: AnyIndex, queries: AnyArray, *, radius: int, k: int, allowed: ArrayLike | None = None
) -> ScoredNeighbors[AnyArray]:
    """Finds the items that best match a bag of codes, exactly.

    The score of an item is a sum over the codes of the query: `2**(radius - distance)` for the item's nearest code, or
    0 if none is within the radius. Repeated codes of a query each count.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes, usually built with `multi=True`.
        queries: uint32 `[..., p, w]`, the p codes of each query; one query `[p, w]` gives results `[k]`.
        radius: the largest Hamming distance that counts as a match, inclusive, at least 0.
        k: how many items to find, at least 1.
        allowed: mask of the items to search, bool `[m]`, by id; m must exceed the largest id. By default all.

    Returns:
        `ScoredNeighbors(scores, ids)`, both int32 `[..., k]`, by descending score, ties by ascending id. After the
        last matching item, scores are 0 and ids -1. Numpy arrays for numpy queries, else JAX arrays.

    Raises:
        ValueError: queries or mask don't fit the index, a number is out of range, or scores could exceed int32:
            `p * 2**radius` must be below 2^31.
        TypeError: queries are not uint32, a number is not an integer, the mask is not bool, `index` is not an index, or
            an argument is traced.
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    if is_traced(index, queries, allowed):
        raise TypeError("bag_search runs on the host and can't be traced: call it outside jit")
    k = check_integer("k", k, 1)
    radius = check_integer("radius", radius, 0)
    codes = check_codes("queries", queries, index.num_bits)
    if codes.ndim < 2:
        raise ValueError(f"queries must have shape [..., p, {index.num_words}], got {codes.shape}")
    *lead, num_codes, width = codes.shape
    if radius > 30 or num_codes << radius > INT32_MAX:
        raise ValueError(
            f"p * 2**radius must be below 2^31, got p = {num_codes} and radius = {radius}: take a smaller radius"
        )
    mask = None if allowed is None else np.asarray(check_allowed(index, allowed))
    bags = codes.reshape(math.prod(lead), num_codes, width)
    results = [find_best(index, bag, radius, k, mask) for bag in bags]
    arrays = (np.array([result[field] for result in results], np.int32).reshape(*lead, k) for field in (0, 1))
    matches: ScoredNeighbors[Any] = ScoredNeighbors(*arrays)
    return put_beside(matches, queries) if is_jax(queries) else matches


def find_best(
    index: AnyIndex, bag: np.ndarray, radius: int, k: int, allowed: np.ndarray | None, limits: Limits = LIMITS
) -> Scores:
    """Returns scores and ids, int64 and int32 `[k]`, for one bag of codes uint32 `[p, w]`."""
    table = bag[argsort_codes(bag)]
    starts = find_run_starts(table)
    codes, counts = table[starts], np.diff(np.append(starts, len(table)))
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int32))]
    for start in range(0, len(codes), limits.bag_codes):  # bounds the number of matches in memory
        run = slice(start, start + limits.bag_codes)
        matches = radius_search(index, codes[run], radius=radius, allowed=allowed)
        parts.append(_score(matches, counts[run], radius, limits))
    scores, ids = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if len(parts) > 2:
        scores, ids = _add_up(ids, scores, limits)
    if len(scores) > k:
        best = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[-k])
        scores, ids = scores[best], ids[best]
    order = np.argsort(-scores, kind="stable")[:k]
    spare = (0, k - len(order))
    return np.pad(scores[order], spare), np.pad(ids[order], spare, constant_values=NO_ID)


def _score(matches: RadiusMatches, counts: np.ndarray, radius: int, limits: Limits) -> Scores:
    """Scores items by their nearest match for each code.

    The first match of a (code, item) pair is the nearest. Writing backwards into a table of pairs leaves the first one;
    sorting all matches takes ten times as long.
    """
    numbers, _ = _number_items(matches.ids, limits)
    width = 1 + int(numbers.max(initial=0))
    pair = np.repeat(np.arange(len(counts)) * width, np.diff(matches.offsets)) + numbers
    position = np.arange(len(pair), dtype=np.int32)
    first = np.empty(len(counts) * width, np.int32)
    first[pair[::-1]] = position[::-1]
    nearest = np.flatnonzero(first[pair] == position)
    points = counts[pair[nearest] // width] << (radius - matches.distances[nearest]).astype(np.int64)
    return _add_up(matches.ids[nearest], points, limits)


def _add_up(ids: np.ndarray, points: np.ndarray, limits: Limits) -> Scores:
    """Adds up points `[m]` by item."""
    numbers, distinct = _number_items(ids, limits)
    totals = np.bincount(numbers, weights=points).astype(np.int64)  # float64, exact up to 2^53
    scored = np.flatnonzero(totals)
    return totals[scored], scored.astype(np.int32) if distinct is None else distinct[scored]


def _number_items(ids: np.ndarray, limits: Limits) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers items in the order of their ids: by the ids themselves if small, else by rank among distinct ids."""
    if ids.max(initial=0) < limits.bag_ids:
        return ids, None
    distinct, numbers = np.unique(ids, return_inverse=True)
    return numbers, distinct
