"""The nearest of a few queries, found on the host by numpy.

A compiled program takes as long to call, and to wake its threads, as numpy takes to compare tens of thousands of codes.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxhash.core.batching import entry_point
from jaxhash.index.hash_index import HashIndex
from jaxhash.query.cost_model import sizes_of
from jaxhash.query.host_codes import count_differing, expand_items, group_words, join_words, weigh_differing
from jaxhash.query.kernels import Weights
from jaxhash.query.results import Neighbors

# Codes that share a minimum, by which the distance of the k-th nearest code is bounded.
SHARE = 16


def search_few(index: HashIndex, queries: Any, k: int, weights: Weights | None = None) -> Neighbors:
    """Finds the k nearest items of queries uint32 `[..., w]`, at least one, one query after the other.

    Args:
        index: a `HashIndex` on CPU with at least k codes.
        queries: uint32 `[..., w]`, a numpy or JAX array.
        k: how many items to find.
        weights: of the queries' bits, planes in numpy, for the nearest by weighted distance.
    """
    queries = np.asarray(queries)
    sizes, words = sizes_of(index), group_words(index)
    table = words.reshape(len(words), -1)[:, : sizes.num_codes]
    lead = queries.shape[:-1]
    found = [_nearest(distances, k) for distances in _compare(table, queries.reshape(-1, index.num_words), weights)]
    distances, ranks = (rows[0][None] if len(rows) == 1 else np.stack(rows) for rows in zip(*found, strict=True))
    distances, entries = expand_items(index, sizes, distances, ranks)
    distances, entries = distances.reshape(*lead, k), entries.reshape(*lead, k)
    if len(found) == 1:  # in a tenth of the time of `device_put`, but compiled for each shape
        return _compiled_results(index.ids, distances, entries)
    return Neighbors(*jax.device_put((distances, np.asarray(index.ids)[entries])))


def _compare(table: np.ndarray, queries: np.ndarray, weights: Weights | None) -> Iterator[np.ndarray]:
    """Yields the distances of each query, uint32 `[q, w]`, to all codes, in words `[p, u]` of 32 or 64 bits: `[u]`."""
    for row, query in enumerate(join_words(queries).T):
        if weights is None:
            yield count_differing(table, query)
        else:
            planes = np.asarray(weights.planes).reshape(len(queries), -1, queries.shape[1])[row]
            yield weigh_differing(table, query, join_words(planes).T, weights.exponents)


def _nearest(distances: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k first of codes by (distance, rank): distances and ranks, int32 `[k]`.

    Args:
        distances: of all codes by rank, `[u]`.
        k: at most u.
    """
    rank = _find_candidates(distances, k)
    keys = (distances[rank].astype(np.int64) << 32) | rank
    keys.sort()
    keys = keys[:k]
    return (keys >> 32).astype(np.int32), keys.astype(np.int32)


def _find_candidates(distances: np.ndarray, k: int) -> np.ndarray:
    """Positions that hold the k smallest distances, and few others.

    Of k disjoint groups whose minima are within a bound, each has a code within it. So no code of the other groups is
    among the k first, unless it belongs to the few that are in no group.
    """
    count = len(distances) // SHARE
    if count < 4 * k:
        return np.flatnonzero(distances <= _find_kth(distances, k))
    minima = distances[: count * SHARE].reshape(SHARE, count).min(0)
    group = np.flatnonzero(minima <= _find_kth(minima, k))
    members = group + np.arange(0, count * SHARE, count)[:, None]
    return np.append(members, np.arange(count * SHARE, len(distances)))


def _find_kth(values: np.ndarray, k: int) -> np.generic:
    """The k-th smallest. Of 32 bits, numpy partitions twice as fast as of 8 or 16."""
    return np.partition(values.astype(np.int32), k - 1)[k - 1].astype(values.dtype)


def _results(ids: jax.Array, distances: jax.Array, entries: jax.Array) -> Neighbors:
    return Neighbors(distances, ids.at[entries].get(mode="promise_in_bounds"))


_compiled_results = entry_point(_results)
