"""Nearest neighbours by probing within radius 0, 1, 2, ... until enough items are found."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxhash.index.hash_index import NO_ID, HashIndex
from jaxhash.query.cost_model import Plan
from jaxhash.query.hits import find_hits, matches_of_hits
from jaxhash.query.kernels import NO_DISTANCE


def probe_widening(
    index: HashIndex, queries: np.ndarray, k: int, plans: Sequence[Plan], allowed: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k nearest items of queries uint32 `[q, w]`, as far as they lie within the radii that there are plans for.

    Args:
        index: a `HashIndex`.
        queries: uint32 `[q, w]`.
        k: how many items to find.
        plans: those of radius 0, 1, 2, ...
        allowed: which items may be found, bool `[m]`, or `None`.

    Returns:
        Distances and ids, int32 `[q, k]`; and the queries that had fewer than k matches in the last radius, int64
        `[u]`, whose rows hold nothing.
    """
    distances = np.full((len(queries), k), NO_DISTANCE, np.int32)
    ids = np.full((len(queries), k), NO_ID, np.int32)
    unfinished = np.arange(len(queries))
    mask = None if allowed is None else np.asarray(allowed)
    for radius, plan in enumerate(plans):
        if not len(unfinished):
            break
        found = matches_of_hits(index, find_hits(index, queries[unfinished], radius, plan), mask)
        enough = np.diff(found.offsets) >= k
        positions = found.offsets[:-1][enough][:, None] + np.arange(k)
        distances[unfinished[enough]], ids[unfinished[enough]] = found.distances[positions], found.ids[positions]
        unfinished = unfinished[~enough]
    return distances, ids, unfinished
