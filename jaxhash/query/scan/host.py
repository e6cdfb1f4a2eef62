"""Scans in numpy, and numpy selection from the group minima of a compiled scan.

Calling a compiled program takes as long as comparing tens of thousands of codes in numpy. And on CPU, XLA's `top_k` is
a serial loop over rows that takes longer than the scan, while numpy reads the scan's output without a copy. Selection
is exact: group minima bound the distance of the k-th nearest code, and all codes within that bound are compared.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxhash.codes.distances import Queries, count_differing, join_words, weigh_differing
from jaxhash.core.batching import entry_point, pad_rows
from jaxhash.index.hash_index import HashIndex, cache_of, code_runs, sizes_of
from jaxhash.query.hits import Hits, hits_among, sort_hits
from jaxhash.query.plan import LIMITS, Limits
from jaxhash.query.scan.kernels import Codes, group_minima, near_groups

# Codes per minimum in the bound on the distance of the k-th nearest code.
CODES_PER_GROUP = 16
MIN_BISECTED_ROW = 2**13


class KeptWords(NamedTuple):
    """All codes by rank, with two words joined to a uint64; a single word stays uint32."""

    rows: list[np.ndarray]  # [1, u] for each joined word
    groups: list[np.ndarray]  # the same with padding, [groups, g]


def keep_words(index: HashIndex) -> KeptWords:
    """Returns the codes of an index in numpy's layout, from the cache after the first call."""
    cache = cache_of(index)
    words: KeptWords = cache.words or cache.keep("words", lambda: _join_all(index))
    return words


def _join_all(index: HashIndex) -> KeptWords:
    group_size = index.codes.shape[2]
    table = np.concatenate([np.zeros((0, index.num_words), np.uint32), *code_runs(index)])
    words = join_words(np.pad(table, ((0, -len(table) % group_size), (0, 0)), mode="edge" if len(table) else "empty"))
    padded = [np.ascontiguousarray(word) for word in words]
    return KeptWords([word[None, : len(table)] for word in padded], [word.reshape(-1, group_size) for word in padded])


def nearest_hits(index: HashIndex, queries: Queries, k: int) -> Hits:
    """Finds the k nearest codes of each query; the index must have at least k codes."""
    distances = compare_all(index, queries)
    return _first(_hits_up_to(distances, _bound_kth(distances, k)), k)


def hits_within(index: HashIndex, queries: Queries, radius: int) -> Hits:
    """Finds all codes within a radius of each query."""
    distances = compare_all(index, queries)
    return _hits_up_to(distances, np.full(len(distances), radius, distances.dtype))


def compare_all(index: HashIndex, queries: Queries) -> np.ndarray:
    """Computes distances between queries and all codes by rank: unsigned `[q, u]`."""
    words, query_words = keep_words(index).rows, join_words(queries.words)[:, :, None]
    if queries.planes is None:
        return count_differing(words, query_words)
    planes = [join_words(queries.planes[:, plane])[:, :, None] for plane in range(len(queries.exponents))]
    return weigh_differing(words, query_words, planes, queries.exponents)


def _hits_up_to(distances: np.ndarray, bound: np.ndarray) -> Hits:
    """Finds the codes with distances, `[q, u]`, up to the query's bound, `[q]`.

    Bounds must have the dtype of distances: numpy would convert all distances to a wider one before comparing.
    """
    num_queries, count = distances.shape
    if num_queries == 1:
        row = distances[0]
        ranks = (row <= bound[0]).nonzero()[0]
        near_distances = row[ranks]
        order = near_distances.argsort(kind="stable")  # faster than packed hits for a few small numbers
        return Hits(np.array([0, len(ranks)]), near_distances[order], ranks[order])
    near = np.flatnonzero(distances <= bound[:, None])
    query = near // max(1, count)  # numpy's divmod is several times slower than its // by a scalar
    return sort_hits(num_queries, query, distances.reshape(-1)[near], near - query * count)


def _first(hits: Hits, k: int) -> Hits:
    """Returns the first k hits of each query; each must have at least k."""
    starts, distances, ranks = hits
    if len(starts) == 2:
        return Hits(np.array([0, k]), distances[:k], ranks[:k])
    first_k = (starts[:-1, None] + np.arange(k)).reshape(-1)
    return Hits(np.arange(0, k * len(starts), k), distances[first_k], ranks[first_k])


def _bound_kth(distances: np.ndarray, k: int) -> np.ndarray:
    """Computes a tight upper bound on the k-th smallest of each row `[q, u]`, k at most u: `[q]`.

    If the minima of k disjoint groups are within a bound, at least k codes are.
    """
    num_queries, count = distances.shape
    count //= CODES_PER_GROUP
    if count >= 4 * k:
        distances = distances[:, : count * CODES_PER_GROUP].reshape(num_queries, CODES_PER_GROUP, count).min(1)
    return _find_kth(distances, k)


def _find_kth(rows: np.ndarray, k: int) -> np.ndarray:
    """Finds the k-th smallest number of each row of unsigned integers `[q, m]`: `[q]`, of their dtype.

    Which of numpy's partitions is fast depends on the processor. A histogram is fast on all, and in long rows bisection
    is faster still.
    """
    if rows.shape[1] >= MIN_BISECTED_ROW:
        return np.array([_bisect_kth(row, k) for row in rows], rows.dtype)
    if len(rows) == 1 and rows.itemsize <= 2:
        return np.bincount(rows[0]).cumsum().searchsorted([k]).astype(rows.dtype)
    span = int(rows.max()) + 1
    if span > 4 * rows.shape[1]:
        return np.partition(rows, k - 1, axis=1)[:, k - 1]
    shifted = rows + span * np.arange(len(rows))[:, None]
    counts = np.bincount(shifted.reshape(-1), minlength=span * len(rows)).reshape(-1, span)
    return (np.cumsum(counts, axis=1) < k).sum(axis=1).astype(rows.dtype)


def _bisect_kth(row: np.ndarray, k: int) -> int:
    """Finds the k-th smallest number of `[m]`. Each step reads the row at the speed of memory."""
    low, high = 0, int(row.max())
    while low < high:
        middle = (low + high) // 2
        if np.count_nonzero(row <= middle) < k:
            low = middle + 1
        else:
            high = middle
    return low


def _minima(words: jax.Array, queries: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes group minima `[blocks, q, L]` and block minima `[blocks, q]`."""
    minima = group_minima(Codes(words, jax.numpy.int32(0)), Queries(queries))
    return minima, minima.min(-1)


_compiled_minima = entry_point(_minima)
_compiled_near = entry_point(near_groups)


def nearest_in_groups(index: HashIndex, queries: np.ndarray, k: int, size: int, limits: Limits = LIMITS) -> Hits | None:
    """Finds the k nearest codes of queries uint32 `[q, w]`, q at most `size`, by the minima of a compiled scan.

    Returns:
        The hits; `None` if too many groups are within the bounds on the k-th distance.
    """
    padded = np.pad(queries, ((0, size - len(queries)), (0, 0)))  # so that all batches share one program
    minima, block_minima = (np.asarray(array)[:, : len(queries)] for array in _compiled_minima(index.codes, padded))
    query, group, bound = _find_near_groups(minima, block_minima, sizes_of(index).num_codes, index.codes.shape[2], k)
    if len(group) > limits.groups:
        return None
    words, query_words = keep_words(index).groups, join_words(queries)
    distances = count_differing([word[group] for word in words], [word[query][:, None] for word in query_words])
    near = np.flatnonzero(distances <= bound[query][:, None])
    size = distances.shape[1]
    pair = near // size
    rank = group[pair] * size + (near - pair * size)
    valid = rank < sizes_of(index).num_codes
    hits = sort_hits(len(queries), query[pair[valid]], distances.reshape(-1)[near[valid]], rank[valid])
    return _first(hits, k)


def _find_near_groups(
    minima: np.ndarray, block_minima: np.ndarray, num_codes: int, group_size: int, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the groups that may hold one of the k nearest codes of a query.

    If the minima of k blocks, or of k groups, are within a bound, so are the k nearest codes.

    Returns:
        The query and the number of each group, int64 `[m]`, and the bound of each query, `[q]`.
    """
    _, num_queries, lanes = minima.shape
    num_blocks, num_groups = -(-num_codes // (group_size * lanes)), -(-num_codes // group_size)
    if k <= num_blocks // 2:
        bound = _find_kth(block_minima[:num_blocks].T, k)
        near = np.flatnonzero(block_minima[:num_blocks] <= bound)
        block = near // num_queries
        query = near - block * num_queries
        near = np.flatnonzero(minima[block, query] <= bound[query][:, None])
        pair = near // lanes
        group = block[pair] * lanes + (near - pair * lanes)
        real = group < num_groups  # padding repeats the last code
        return query[pair[real]], group[real], bound
    rows = minima[:num_blocks].transpose(1, 0, 2).reshape(num_queries, -1)[:, :num_groups]
    bound = _find_kth(rows, min(k, num_groups))
    if k > num_groups:
        bound = np.full(num_queries, np.iinfo(rows.dtype).max)
    near = np.flatnonzero(rows <= bound[:, None])
    query = near // num_groups
    return query, near - query * num_groups, bound


def hits_by_scan(index: HashIndex, queries: np.ndarray, radius: int, size: int, limits: Limits = LIMITS) -> list[Hits]:
    """Finds all codes within a radius of queries uint32 `[q, w]`, q at most `size`, by a compiled scan.

    The scan marks the groups with such a code; numpy compares their codes.

    Returns:
        The hits of consecutive runs of queries.
    """
    near = np.asarray(_compiled_near(index.codes, pad_rows(queries, size), radius=np.uint32(radius)))
    near = near[:, : len(queries)]
    group_size = index.codes.shape[2]
    block, query, lane = np.unravel_index(np.flatnonzero(near), near.shape)
    by_query = np.argsort(query, kind="stable")
    query, group = query[by_query], (block * near.shape[2] + lane)[by_query]
    starts = np.searchsorted(query, np.arange(len(queries) + 1))
    parts, first = [], 0
    while first < len(queries):
        limit = starts[first] + limits.candidates // group_size
        last = max(first + 1, int(np.searchsorted(starts, limit, side="right")) - 1)
        run = slice(starts[first], starts[last])
        ranks = (group[run, None] * group_size + np.arange(group_size)).reshape(-1)
        valid = ranks < sizes_of(index).num_codes
        query_of_rank = np.repeat(query[run] - first, group_size)[valid]
        parts.append(hits_among(index, queries[first:last], query_of_rank, ranks[valid], radius))
        first = last
    return parts
