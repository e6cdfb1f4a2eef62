"""Nearest codes selected on the host, by numpy, from the minima of a compiled scan.

On CPU, XLA's `top_k` is a serial loop over rows that takes longer than the scan itself. Numpy's partition, comparison
and sort are vectorised, and read what the scan has written without a copy. What is selected is exact: a bound on the
distance of the k-th nearest code comes from the minima, and all codes within that bound are compared. Where many of the
codes are wanted, all are compared without one.
"""

from collections.abc import Callable

import jax
import numpy as np

from jaxhash.core.batching import entry_point, in_parallel, pad_rows, padded_length
from jaxhash.core.checks import is_on_host
from jaxhash.index.hash_index import HashIndex
from jaxhash.query.cost_model import Sizes, sizes_of
from jaxhash.query.costs import costs
from jaxhash.query.hits import Hits, sort_keys
from jaxhash.query.host_codes import count_differing, expand_items, group_words, join_words
from jaxhash.query.kernels import group_minima
from jaxhash.query.results import Neighbors

# The codes are remembered once more, in the order of their ranks, for at most this many.
MOST_CODES = 2**24

# For fewer queries, or fewer results of each, the compiled program is as quick: it is one call, and its threads do not
# wait for Python's lock.
LEAST_QUERIES, LEAST_RESULTS = 8, 32

# Groups compared at a time. Where ties make it more, the compiled program selects.
GROUPS_AT_ONCE = 2**17

# Where one in so many codes is wanted, or more, all codes are compared: their groups' minima would spare few.
MANY = 100
CODES_AT_ONCE = 2**19


def _minima(codes: jax.Array, queries: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Group minima `[blocks, q, L]` and block minima `[blocks, q]`."""
    minima = group_minima(codes, queries)
    return minima, minima.min(-1)


_compiled_minima = entry_point(_minima)


def selects_on_host(index: HashIndex, num_queries: int, k: int) -> bool:
    """Whether the nearest of so many queries are selected sooner on the host than by the compiled program."""
    if num_queries < LEAST_QUERIES or k < LEAST_RESULTS or not is_on_host(index.codes):
        return False
    return k <= sizes_of(index).num_codes <= MOST_CODES


def search_on_host(
    index: HashIndex, queries: np.ndarray, k: int, size: int, search_compiled: Callable[..., Neighbors]
) -> Neighbors:
    """Finds the k nearest items of queries uint32 `[..., w]`, at most `size` at a time in each of two threads.

    Args:
        index: a `HashIndex` on CPU with at least k codes.
        queries: uint32 `[..., w]`.
        k: how many items to find.
        size: the largest batch of the compiled scan, a power of two.
        search_compiled: the compiled search, for batches of which too many codes are equally near.
    """
    lead = queries.shape[:-1]
    flat = queries.reshape(-1, queries.shape[-1])
    if wants_many(index, k):
        size = max(1, CODES_AT_ONCE // sizes_of(index).num_codes)
    else:
        affordable = 1 << max(0, (GROUPS_AT_ONCE // (2 * k)).bit_length() - 1)
        size = min(size, affordable, max(LEAST_QUERIES, padded_length((len(flat) + 1) // 2, size)))

    def answer(start: int) -> tuple[np.ndarray, np.ndarray]:
        rows = flat[start : start + size]
        found = select_nearest(index, rows, k, size)
        if found is None:
            distances, ids = search_compiled(index, pad_rows(rows, size), k=k)
            found = np.asarray(distances)[: len(rows)], np.asarray(ids)[: len(rows)]
        return found

    parts = in_parallel(answer, range(0, len(flat), size))
    distances, ids = (np.concatenate(arrays).reshape(*lead, k) for arrays in zip(*parts, strict=True))
    return Neighbors(*jax.device_put((distances, ids)))


def select_nearest(index: HashIndex, queries: np.ndarray, k: int, size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The k nearest items of queries uint32 `[q, w]`, q at most `size`, with k at most the number of codes.

    Returns:
        Distances and ids, int32 `[q, k]`; `None` if too many codes are within the bound on the k-th distance.
    """
    sizes = sizes_of(index)
    if wants_many(index, k):
        keys = _compare_all(index, queries, k)
    else:
        padded = np.pad(queries, ((0, size - len(queries)), (0, 0)))  # so that the last batch has the others' program
        minima, block_minima = (np.asarray(array)[:, : len(queries)] for array in _compiled_minima(index.codes, padded))
        found = _find_near_groups(minima, block_minima, sizes, index.codes.shape[2], k)
        if found is None:
            return None
        keys = _compare_groups(index, queries, *found)
    starts = np.searchsorted(keys, np.arange(len(queries), dtype=np.uint64) << np.uint64(48))
    keys = keys[starts[:, None] + np.arange(k)]
    nearest = Hits(len(queries), keys)
    distances, entries = expand_items(index, sizes, nearest.distances, nearest.ranks)
    return distances, np.asarray(index.ids)[entries]


def _find_near_groups(
    minima: np.ndarray, block_minima: np.ndarray, sizes: Sizes, group_size: int, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The groups that may hold one of the k nearest codes of a query.

    k blocks, or k groups, whose minima are within a bound hold k codes within it, and so the k nearest ones.

    Returns:
        The query and the number of each group, int64 `[m]`, and the bound of each query, `[q]`.
    """
    _, num_queries, lanes = minima.shape
    num_blocks = -(-sizes.num_codes // (group_size * lanes))
    num_groups = -(-sizes.num_codes // group_size)
    if k <= num_blocks // 2:
        bound = _find_kth(block_minima[:num_blocks].T, k)
        near = np.flatnonzero(block_minima[:num_blocks] <= bound)
        if len(near) > GROUPS_AT_ONCE:
            return None
        block = near // num_queries
        query = near - block * num_queries
        near = np.flatnonzero(minima[block, query] <= bound[query][:, None])
        pair = near // lanes
        query, group = query[pair], block[pair] * lanes + (near - pair * lanes)
    else:
        rows = minima[:num_blocks].transpose(1, 0, 2).reshape(num_queries, -1)[:, :num_groups]
        bound = _find_kth(rows, min(k, num_groups))
        if k > num_groups:
            bound[:] = np.iinfo(rows.dtype).max
        near = np.flatnonzero(rows <= bound[:, None])
        query = near // num_groups
        group = near - query * num_groups
    return None if len(group) > GROUPS_AT_ONCE else (query, group, bound)


def _find_kth(rows: np.ndarray, k: int) -> np.ndarray:
    """The k-th smallest number of each row `[q, m]`: `[q]`.

    Of 8 bits numpy partitions at a tenth of the speed; of 16 bits fastest, but only by the vectors of such processors
    as count bits in vectors too, and at half the speed of 32 bits elsewhere.
    """
    dtype = np.uint16 if costs().counts_in_vectors else np.int32
    return np.partition(rows.astype(dtype), k - 1, axis=1)[:, k - 1].astype(rows.dtype)


def wants_many(index: HashIndex, k: int) -> bool:
    """Whether the k nearest are so large a part of the codes that all of these are compared."""
    return k * MANY >= sizes_of(index).num_codes


def _compare_all(index: HashIndex, queries: np.ndarray, k: int) -> np.ndarray:
    """The k nearest codes of each query and all at the distance of the last, as sorted keys."""
    num_codes = sizes_of(index).num_codes
    words = [word.reshape(-1)[None, :num_codes] for word in group_words(index)]
    distances = count_differing(words, [wanted[:, None] for wanted in join_words(queries)])
    near = np.flatnonzero(distances <= _find_kth(distances, k)[:, None])
    query = near // num_codes
    return sort_keys(query, distances.reshape(-1)[near], near - query * num_codes)


def _compare_groups(
    index: HashIndex, queries: np.ndarray, query: np.ndarray, group: np.ndarray, bound: np.ndarray
) -> np.ndarray:
    """The codes of groups that are within their query's bound, as sorted keys."""
    words, wanted = group_words(index), join_words(queries)
    distances = count_differing([word[group] for word in words], [word[query][:, None] for word in wanted])
    near = np.flatnonzero(distances <= bound[query][:, None])
    group_size = words.shape[2]
    place = near // group_size
    rank = group[place] * group_size + (near - place * group_size)
    valid = rank < sizes_of(index).num_codes
    return sort_keys(query[place[valid]], distances.reshape(-1)[near[valid]], rank[valid])
