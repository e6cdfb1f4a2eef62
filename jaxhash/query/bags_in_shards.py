"""The best items for a bag of codes in an index in shards, where the codes of one item may be in different shards."""

import numpy as np

from jaxhash.codes.sorting import find_run_starts
from jaxhash.index.hash_index import NO_ID
from jaxhash.index.sharding import ShardedIndex
from jaxhash.query.radius import radius_search
from jaxhash.query.results import RadiusMatches

# Codes of a bag searched at a time: bounds the number of matches in memory.
CODES_AT_ONCE = 16

# Items, distinct and ascending, and their scores: int32 [m], int64 [m].
Scores = tuple[np.ndarray, np.ndarray]


def find_best_in_shards(
    index: ShardedIndex, codes: np.ndarray, counts: np.ndarray, radius: int, k: int, allowed: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores and ids, int32 `[k]`, for distinct codes uint32 `[p, w]` that a bag has so many times each."""
    parts = [(np.zeros(0, np.int32), np.zeros(0, np.int64))]
    for start in range(0, len(codes), CODES_AT_ONCE):
        run = slice(start, start + CODES_AT_ONCE)
        matches = radius_search(index, codes[run], radius=radius, allowed=allowed)
        parts.append(_score_matches(matches, counts[run], radius))
    ids, scores = _add_scores(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    best = np.argsort(-scores, kind="stable")[:k]
    spare = k - len(best)
    return (
        np.append(scores[best].astype(np.int32), np.zeros(spare, np.int32)),
        np.append(ids[best], np.full(spare, NO_ID, np.int32)),
    )


def _score_matches(matches: RadiusMatches, counts: np.ndarray, radius: int) -> Scores:
    """Scores items by the matches of some codes: an item gets the points of its nearest match for each code."""
    code = np.repeat(np.arange(len(counts)), np.diff(matches.offsets))
    # Matches come by distance and the sort is stable, so that the first of each code and item is the nearest.
    pairs = (code << 32) | matches.ids
    order = np.argsort(pairs, kind="stable")
    nearest = order[find_run_starts(pairs[order])]
    points = counts[code[nearest]].astype(np.int64) << (radius - matches.distances[nearest]).astype(np.int64)
    return _add_scores(matches.ids[nearest], points)


def _add_scores(ids: np.ndarray, scores: np.ndarray) -> Scores:
    """Adds up scores `[m]` by item."""
    order = np.argsort(ids, kind="stable")
    starts = find_run_starts(ids[order])
    return ids[order][starts], np.add.reduceat(scores[order], starts) if len(starts) else scores
