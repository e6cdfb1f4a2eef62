"""Reranking: sorts the candidates of a search by long codes or by vectors.

Krizhevsky and Hinton, "Using Very Deep Autoencoders for Content-Based Image Retrieval" (ESANN 2011), look up 28-bit
codes in a hash table and rank the results by 256-bit codes. FAISS calls ranking by vectors refinement
(`IndexRefineFlat`): codes find candidates in a fraction of the memory and time of vectors.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxhash.codes.distances import Queries
from jaxhash.codes.weights import weigh_queries
from jaxhash.core.batching import entry_point, in_batches, map_batches
from jaxhash.core.checks import (
    INT32_MAX,
    AnyArray,
    any_known,
    check_choice,
    check_code_array,
    check_integer,
    check_slots,
    dtype_of,
    is_jax,
    is_traced,
    num_words,
)
from jaxhash.index.hash_index import NO_ID
from jaxhash.query.plan import LIMITS, max_batch_size
from jaxhash.query.results import NO_DISTANCE, Neighbors, ScoredNeighbors

METRICS = ("cosine", "inner_product", "euclidean")

# Replaces `NO_ID` while ids are sorted, so that empty slots come last.
_LAST = INT32_MAX


def rerank(
    long_codes: ArrayLike, queries: AnyArray, candidate_ids: ArrayLike, *, k: int, weights: ArrayLike | None = None
) -> Neighbors[AnyArray]:
    """Finds the k candidates of each query with the nearest long codes. Can be called inside `jit` and `vmap`.

    With all items as candidates, the result equals `search` in an index of the long codes.

    Args:
        long_codes: uint32 `[n, w]`; row i is the code of the item with id i. A JAX array is not copied.
        queries: long codes, uint32 `[..., w]`.
        candidate_ids: integers `[..., m]` below n in any order, for example the ids from `search` or
            `radius_search_padded` with short codes. Duplicates count once; -1 marks an empty slot.
        k: how many items to find, at least 1 (static).
        weights: integers from 0 to 15 for the b bits of a long code, `[..., b]`, or `[b]` for all queries, as for
            `search`. By default all are 1.

    Returns:
        `Neighbors(distances, ids)`, both int32 `[..., k]`, sorted by (distance, long code, id): numpy arrays for numpy
        queries, else JAX arrays.

    Raises:
        ValueError: the shapes don't match, an id is not a row of `long_codes`, or k or a weight is out of range.
            Inside `jit`, such ids are ignored, and only the four lowest bits of weights count.
        TypeError: codes are not uint32, or ids, k or weights are not integers.
    """
    k = check_integer("k", k, 1)
    check_code_array("long_codes", long_codes)
    shape = np.shape(long_codes)
    if len(shape) != 2:
        raise ValueError(f"long_codes must have shape [n, w], got {shape}")
    check_code_array("queries", queries, shape[1])
    lead = np.shape(queries)[:-1]
    ids = _check_candidates(candidate_ids, queries, "long_codes", shape[0])
    rows = _weigh(queries if is_jax(queries) else np.asarray(queries).astype(np.uint32, copy=False), weights)
    if is_traced(long_codes, rows.words, rows.planes, ids):
        return nearest_candidates(jnp.asarray(long_codes), rows, ids, k=k)
    size = max_batch_size(12 * (ids.shape[-1] + 1) * (shape[1] + 2))
    return in_batches(lambda batch: _compiled_rerank(long_codes, *batch, k=k), (rows, ids), size, lead, axes=len(lead))


def _weigh(codes: Any, weights: ArrayLike | None) -> Queries:
    """Joins queries uint32 `[..., w]` with checked weights of their b bits, or `None`."""
    if weights is None:
        return Queries(codes)
    num_bits, width = (np.shape(weights) or (0,))[-1], codes.shape[-1]
    if num_words(num_bits) != width:
        raise ValueError(f"weights must have shape [..., b] for codes of b bits in {width} words, got b = {num_bits}")
    return weigh_queries(codes, weights, num_bits)


def _check_candidates(candidate_ids: ArrayLike, queries: ArrayLike, table: str, num_rows: int) -> Any:
    """Returns candidate ids, int32 `[..., m]`, as JAX arrays on their device if the queries are JAX arrays.

    Untraced ids must be -1 or row numbers of the argument named `table`.
    """
    shape, dtype, lead = np.shape(candidate_ids), dtype_of(candidate_ids), np.shape(queries)[:-1]
    if shape[:-1] != lead or len(shape) != len(lead) + 1:
        raise ValueError(f"candidate_ids must have shape {[*lead, 'm']}, like the queries, got {shape}")
    if dtype.kind not in "iu":
        raise TypeError(f"candidate_ids must be integers, got dtype {dtype}")
    if is_traced(candidate_ids):
        return candidate_ids
    if any_known(_is_outside, candidate_ids, num_rows):
        ids = np.asarray(candidate_ids)
        wrong = ids[_is_outside(ids, num_rows)][0]
        raise ValueError(f"candidate_ids must be rows of {table}, below {num_rows}, or -1 for none, got {wrong}")
    stays = is_jax(candidate_ids) and is_jax(queries) and dtype == np.int32
    return candidate_ids if stays else np.asarray(candidate_ids).astype(np.int32)


def _is_outside(ids: Any, count: int) -> Any:
    """Marks ids that are neither rows below `count` nor `NO_ID`."""
    return (ids < NO_ID) | (ids >= count)


@partial(jax.jit, static_argnames="k")
def nearest_candidates(long_codes: jax.Array, queries: Queries, ids: jax.Array, *, k: int) -> Neighbors[jax.Array]:
    """Implements `rerank` without checks, by weighted distance if queries have weights. Traceable."""
    ids = jnp.pad(ids, _padding(ids, k), constant_values=NO_ID)
    valid = (ids >= 0) & (ids < len(long_codes))
    ids = jnp.where(valid, ids, NO_ID).astype(jnp.int32)
    rows = long_codes if len(long_codes) else jnp.zeros((1, long_codes.shape[1]), jnp.uint32)
    codes = rows[jnp.maximum(ids, 0)]
    distances = queries.measure(codes, lambda words: words[..., None, :], axis=-1).astype(jnp.int32)
    keys = (jnp.where(valid, distances, NO_DISTANCE), *jnp.moveaxis(codes, -1, 0), ids)
    distances, *_, ids = lax.sort(keys, num_keys=len(keys))
    # Duplicates have the same code, so they are adjacent; so are repeated `NO_ID`.
    position = jnp.arange(ids.shape[-1], dtype=jnp.float32)
    repeated = _mark_repeated(ids)
    _, slot = lax.top_k(jnp.where(repeated, -jnp.inf, -position), k)
    repeated, distances, ids = (jnp.take_along_axis(array, slot, -1) for array in (repeated, distances, ids))
    return Neighbors(jnp.where(repeated, NO_DISTANCE, distances), jnp.where(repeated, NO_ID, ids))


def _mark_repeated(ids: jax.Array) -> jax.Array:
    """Marks ids `[..., m]` that equal their predecessor: bool."""
    return jnp.concatenate([jnp.zeros_like(ids[..., :1], bool), ids[..., 1:] == ids[..., :-1]], axis=-1)


def _padding(ids: Any, k: int) -> list[tuple[int, int]]:
    """Returns the padding of ids `[..., m]` to at least k slots."""
    return [(0, 0)] * (ids.ndim - 1) + [(0, max(0, k - ids.shape[-1]))]


def rerank_vectors(
    vectors: ArrayLike, queries: AnyArray, candidate_ids: ArrayLike, *, k: int, metric: str = "cosine"
) -> ScoredNeighbors[AnyArray]:
    """Finds the k candidates of each query with the best vectors, exactly.

    Can be called inside `jit` and `vmap`. Scores are computed in float32.

    Args:
        vectors: floating `[n, d]`; row i is the vector of the item with id i. Candidates' rows of a JAX array are
            gathered on its device. Rows of a numpy array, for example memory-mapped, are gathered on the host; only
            candidates are read and transferred.
        queries: vectors, floating `[..., d]`.
        candidate_ids: integers `[..., m]` below n in any order, for example the ids from `search`. Duplicates count
            once; -1 marks an empty slot.
        k: how many items to find, at least 1 (static).
        metric: the score (static): "cosine" of the angle between vectors, 0 for a zero vector; "inner_product"; or the
            "euclidean" distance, for which smaller is better.

    Returns:
        `ScoredNeighbors(scores, ids)`, float32 and int32 `[..., k]`, the best first, ties by id: numpy arrays for numpy
        queries, else JAX arrays. A score that overflows is the largest float32; NaN ranks last.

    Raises:
        ValueError: the shapes don't match, an id is not a row of `vectors`, a query is not finite, k is out of range or
            the metric is unknown. Inside `jit`, invalid ids are ignored.
        TypeError: vectors or queries are not floating, or ids or k are not integers.
    """
    k = check_integer("k", k, 1)
    check_choice("metric", metric, METRICS)
    table: Any = vectors if is_jax(vectors) else np.asarray(vectors)
    check_vectors("vectors", table)
    rows = _check_queries(table, queries)
    lead = rows.shape[:-1]
    ids = _check_candidates(candidate_ids, rows, "vectors", len(table))
    check_slots(math.prod(lead), k)
    if is_traced(table, rows, ids):
        return nearest_by_vectors(jnp.asarray(table), rows, ids, k=k, metric=metric)
    if is_jax(table):
        compiled, size = partial(_compiled_by_vectors, table, k=k, metric=metric), LIMITS.max_queries
    else:
        compiled, size = partial(_rank_on_host, table, k=k, metric=metric), _batch_size(ids.shape[-1], k, table)
    return in_batches(lambda batch: compiled(*batch), (rows, ids), size, lead, axes=len(lead))


def check_vectors(name: str, vectors: Any) -> None:
    """Raises unless vectors are floating `[n, d]`."""
    if not jnp.issubdtype(vectors.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got dtype {vectors.dtype}")
    if vectors.ndim != 2:
        raise ValueError(f"{name} must have shape [n, d], got {vectors.shape}")


def _check_queries(vectors: Any, queries: ArrayLike) -> Any:
    """Returns checked queries `[..., d]`; JAX arrays stay on their device."""
    shape, dtype = np.shape(queries), dtype_of(queries)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"queries must be floating, got dtype {dtype}")
    if not shape or shape[-1] != vectors.shape[1]:
        raise ValueError(f"queries must have shape [..., {vectors.shape[1]}], like vectors, got {shape}")
    if any_known(_is_infinite, queries):
        raise ValueError("queries must be finite, got NaN or infinity")
    return queries if is_jax(queries) else np.asarray(queries, np.float32)


def _is_infinite(values: Any) -> Any:
    return ~(abs(values) < np.inf)  # comparisons with NaN are false


def _batch_size(num_candidates: int, k: int, vectors: Any) -> int:
    """Returns the number of queries ranked together so that candidates' rows fit the cache; a power of two."""
    row_bytes = 4 * (max(num_candidates, k) + 1) * (vectors.shape[1] + 4)
    return max_batch_size(row_bytes, LIMITS._replace(query_memory=LIMITS.row_memory))


@partial(jax.jit, static_argnames=("k", "metric"))
def nearest_by_vectors(
    vectors: jax.Array, queries: jax.Array, ids: jax.Array, *, k: int, metric: str
) -> ScoredNeighbors[jax.Array]:
    """Implements `rerank_vectors` without checks. Traceable."""
    lead = queries.shape[:-1]
    count = math.prod(lead)
    flat = (jnp.asarray(queries).reshape(count, queries.shape[-1]), jnp.asarray(ids).reshape(count, ids.shape[-1]))
    table = vectors if len(vectors) else jnp.zeros((1, vectors.shape[1]), vectors.dtype)

    def nearest(rows: tuple[jax.Array, jax.Array]) -> ScoredNeighbors[jax.Array]:
        queries, ids = rows
        ids = jnp.where((ids >= 0) & (ids < len(vectors)), ids, _LAST).astype(jnp.int32)
        ids = lax.sort(jnp.pad(ids, _padding(ids, k), constant_values=_LAST))
        return rank_rows(table[jnp.where(ids == _LAST, 0, ids)], queries, ids, k=k, metric=metric)

    ranked = map_batches(nearest, flat, _batch_size(ids.shape[-1], k, vectors))
    return ScoredNeighbors(*(array.reshape(*lead, k) for array in ranked))


def _rank_on_host(vectors: np.ndarray, queries: Any, ids: Any, *, k: int, metric: str) -> ScoredNeighbors[Any]:
    """Gathers the rows of candidates in numpy and ranks them on the device."""
    ids = np.asarray(ids)
    ids = np.sort(np.pad(np.where(ids < 0, _LAST, ids), _padding(ids, k), constant_values=_LAST))
    table = vectors if len(vectors) else np.zeros((1, vectors.shape[1]), np.float32)
    with np.errstate(over="ignore"):
        rows = table[np.where(ids == _LAST, 0, ids)].astype(np.float32, copy=False)
    return _compiled_ranking(rows, queries, ids, k=k, metric=metric)


def rank_rows(
    rows: jax.Array, queries: jax.Array, ids: jax.Array, *, k: int, metric: str
) -> ScoredNeighbors[jax.Array]:
    """Selects k of m candidates by their vectors, floating `[..., m, d]`, for queries `[..., d]`.

    The ids, int32 `[..., m]`, must ascend so that `top_k` breaks ties by id; empty slots are `_LAST`.
    """
    scores = compute_scores(rows.astype(jnp.float32), queries.astype(jnp.float32)[..., None, :], metric)
    sign = -1.0 if metric == "euclidean" else 1.0
    largest = jnp.finfo(jnp.float32).max
    quality = jnp.nan_to_num(sign * scores, nan=-largest, posinf=largest, neginf=-largest)
    quality = jnp.where(quality == 0, 0.0, quality)  # `top_k` ranks -0 below 0
    best, slot = lax.top_k(jnp.where(_mark_repeated(ids) | (ids == _LAST), -jnp.inf, quality), k)
    best_ids = jnp.take_along_axis(ids, slot, -1)
    return ScoredNeighbors(sign * best, jnp.where(best == -jnp.inf, NO_ID, best_ids))


def compute_scores(a: jax.Array, b: jax.Array, metric: str) -> jax.Array:
    """Computes the scores of pairs of vectors, float32 `[..., d]`, with broadcast leading axes.

    Products and sums instead of `einsum`: a score then depends on its row alone and has float32 precision on every
    device; gathering takes longer than either.
    """
    if metric == "euclidean":
        return jnp.sqrt(jnp.square(a - b).sum(-1))
    products = (a * b).sum(-1)
    if metric == "inner_product":
        return products
    lengths = jnp.sqrt(jnp.square(a).sum(-1)) * jnp.sqrt(jnp.square(b).sum(-1))
    return jnp.where(lengths > 0, products / jnp.where(lengths > 0, lengths, 1.0), 0.0)


_compiled_rerank = entry_point(nearest_candidates, "k")
_compiled_by_vectors = entry_point(nearest_by_vectors, "k", "metric")
_compiled_ranking = entry_point(rank_rows, "k", "metric")
