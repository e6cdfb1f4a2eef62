"""Reranking by vectors: a shortlist found by codes, sorted by the float vectors that the codes were made of.

Codes shortlist candidates at a small part of the memory and time that vectors take; vectors then put these few in their
exact order. FAISS calls this refinement (`IndexRefineFlat`).
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxhash.core.batching import entry_point, in_batches
from jaxhash.core.checks import INT32_MAX, check_choice, check_integer, check_slots, dtype_of, is_on_host, is_traced
from jaxhash.index.hash_index import NO_ID
from jaxhash.query.cost_model import MAX_QUERIES_AT_ONCE
from jaxhash.query.reranking import check_candidates
from jaxhash.query.results import ScoredNeighbors

METRICS = ("cosine", "inner_product", "euclidean")

# Bytes of candidates' rows at a time, so that they stay in the cache. For 256 queries with 100 candidates of 384 values
# it took 12 ms with 2.4 MiB at a time, and 48 ms with 38 MiB.
ROW_MEMORY = 2**22

# In place of `NO_ID` while ids are sorted, so that empty slots come last.
_LAST = INT32_MAX


def rerank_vectors(
    vectors: ArrayLike, query_vectors: ArrayLike, candidate_ids: ArrayLike, *, k: int, metric: str = "cosine"
) -> ScoredNeighbors:
    """Finds the k candidates of each query whose vectors are nearest, exactly.

    Can be called inside `jit` and `vmap`. Scores are computed in float32.

    Args:
        vectors: floating `[n, d]`; row i is the vector of the item with id i. Candidates' rows of a JAX array are
            gathered on its device. Those of a numpy array, perhaps mapped from a file, are gathered on the host; only
            they are read and sent.
        query_vectors: floating `[..., d]`.
        candidate_ids: integers `[..., m]` below n, for example the ids of `search`, in any order; an id that comes
            twice counts once, and -1 stands for none.
        k: how many items to find, at least 1 (static).
        metric: what a score is (static): "cosine" of the angle between vectors, 0 for a vector of zeros;
            "inner_product"; or the "euclidean" distance, of which the smallest is best.

    Returns:
        `ScoredNeighbors(scores, ids)`, float32 and int32 `[..., k]`, the best first, ties by id. A score that overflows
        is the largest float32; one that is NaN ranks last.

    Raises:
        ValueError: the shapes don't go together, an id is no row of `vectors`, a query is not finite, k is out of range
            or there is no such metric. Inside `jit`, ids of no row are left out.
        TypeError: vectors or queries are not floating, or ids or k are not integers.
    """
    k = check_integer("k", k, 1)
    check_choice("metric", metric, METRICS)
    table = vectors if isinstance(vectors, jax.Array) else np.asarray(vectors)
    check_vectors("vectors", table)
    queries, ids = _check_queries(table, query_vectors, candidate_ids)
    lead = queries.shape[:-1]
    check_slots(math.prod(lead), k)
    if is_traced(table, queries, ids):
        return nearest_by_vectors(jnp.asarray(table), queries, ids, k=k, metric=metric)
    flat = tuple(array.reshape(math.prod(lead), array.shape[-1]) for array in (queries, ids))
    if isinstance(table, jax.Array):
        return in_batches(
            lambda batch: _compiled_rerank(table, *batch, k=k, metric=metric), flat, MAX_QUERIES_AT_ONCE, lead
        )
    size = _queries_at_once(ids.shape[-1], k, table)
    return in_batches(lambda batch: _rerank_on_host(table, *batch, k=k, metric=metric), flat, size, lead)


def check_vectors(name: str, vectors: Any) -> None:
    """Raises unless vectors are floating `[n, d]`."""
    if not jnp.issubdtype(vectors.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got dtype {vectors.dtype}")
    if vectors.ndim != 2:
        raise ValueError(f"{name} must have shape [n, d], got {vectors.shape}")


def _check_queries(vectors: Any, query_vectors: ArrayLike, candidate_ids: ArrayLike) -> tuple[Any, Any]:
    """Returns queries `[..., d]` and ids int32 `[..., m]` that fit the vectors, JAX arrays on their device."""
    shape, dtype = np.shape(query_vectors), dtype_of(query_vectors)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"query_vectors must be floating, got dtype {dtype}")
    if not shape or shape[-1] != vectors.shape[1]:
        raise ValueError(f"query_vectors must have shape [..., {vectors.shape[1]}], as vectors have, got {shape}")
    ids = check_candidates(candidate_ids, shape[:-1], "vectors", len(vectors))
    if is_traced(query_vectors):
        return query_vectors, ids
    finite = np.isfinite(query_vectors).all() if is_on_host(query_vectors) else jax.device_get(_finite(query_vectors))
    if not finite:
        raise ValueError("query_vectors must be finite, got NaN or infinity")
    return query_vectors if isinstance(query_vectors, jax.Array) else np.asarray(query_vectors, np.float32), ids


@jax.jit
def _finite(array: jax.Array) -> jax.Array:
    return jnp.isfinite(array).all()


def _queries_at_once(num_candidates: int, k: int, vectors: Any) -> int:
    """How many queries to rank together; a power of two."""
    affordable = max(1, ROW_MEMORY // (4 * (max(num_candidates, k) + 1) * (vectors.shape[1] + 4)))
    return min(MAX_QUERIES_AT_ONCE, 1 << (affordable.bit_length() - 1))


@partial(jax.jit, static_argnames=("k", "metric"))
def nearest_by_vectors(vectors: jax.Array, queries: Any, ids: Any, *, k: int, metric: str) -> ScoredNeighbors:
    """Computes what `rerank_vectors` returns, without its checks."""
    lead = queries.shape[:-1]
    count = math.prod(lead)
    flat = (jnp.asarray(queries).reshape(count, queries.shape[-1]), jnp.asarray(ids).reshape(count, ids.shape[-1]))

    def nearest(rows: tuple[jax.Array, jax.Array]) -> ScoredNeighbors:
        return _gather_and_rank(vectors, *rows, k=k, metric=metric)

    size = _queries_at_once(ids.shape[-1], k, vectors)
    found = nearest(flat) if count <= size else lax.map(nearest, flat, batch_size=size)
    return ScoredNeighbors(*(array.reshape(*lead, k) for array in found))


def _gather_and_rank(vectors: jax.Array, queries: jax.Array, ids: jax.Array, *, k: int, metric: str) -> ScoredNeighbors:
    known = (ids >= 0) & (ids < len(vectors))
    ids = jnp.where(known, ids, _LAST).astype(jnp.int32)
    ids = lax.sort(jnp.pad(ids, _padding(ids, k), constant_values=_LAST))
    table = vectors if len(vectors) else jnp.zeros((1, vectors.shape[1]), vectors.dtype)
    return rank_rows(table[jnp.where(ids == _LAST, 0, ids)], queries, ids, k=k, metric=metric)


def _rerank_on_host(vectors: np.ndarray, queries: Any, ids: Any, *, k: int, metric: str) -> ScoredNeighbors:
    """Gathers the rows of candidates by numpy, and ranks them on the device."""
    ids = np.asarray(ids)
    ids = np.sort(np.pad(np.where(ids < 0, _LAST, ids), _padding(ids, k), constant_values=_LAST))
    table = vectors if len(vectors) else np.zeros((1, vectors.shape[1]), np.float32)
    with np.errstate(over="ignore"):
        rows = table[np.where(ids == _LAST, 0, ids)].astype(np.float32, copy=False)
    found: ScoredNeighbors = _compiled_ranking(rows, queries, ids, k=k, metric=metric)
    return found


def _padding(ids: Any, k: int) -> list[tuple[int, int]]:
    """The padding of ids `[..., m]` to at least k slots."""
    return [(0, 0)] * (ids.ndim - 1) + [(0, max(0, k - ids.shape[-1]))]


def rank_rows(rows: jax.Array, queries: jax.Array, ids: jax.Array, *, k: int, metric: str) -> ScoredNeighbors:
    """Ranks candidates by their vectors.

    Args:
        rows: floating `[..., m, d]`, the vectors of the candidates.
        queries: floating `[..., d]`.
        ids: int32 `[..., m]`, ascending, so that `top_k` breaks ties by id; `_LAST` where there is none.
        k: at most m.
        metric: a name in `METRICS`.
    """
    scores = compute_scores(rows.astype(jnp.float32), queries.astype(jnp.float32)[..., None, :], metric)
    sign = -1.0 if metric == "euclidean" else 1.0
    largest = jnp.finfo(jnp.float32).max
    quality = jnp.nan_to_num(sign * scores, nan=-largest, posinf=largest, neginf=-largest)
    quality = jnp.where(quality == 0, 0.0, quality)  # `top_k` would put -0 after 0
    again = jnp.concatenate([jnp.zeros_like(ids[..., :1], bool), ids[..., 1:] == ids[..., :-1]], axis=-1)
    best, slot = lax.top_k(jnp.where(again | (ids == _LAST), -jnp.inf, quality), k)
    found = jnp.take_along_axis(ids, slot, -1)
    return ScoredNeighbors(sign * best, jnp.where(best == -jnp.inf, NO_ID, found))


def compute_scores(a: jax.Array, b: jax.Array, metric: str) -> jax.Array:
    """Computes the scores of pairs of vectors, float32 `[..., d]`, whose leading axes broadcast.

    Products and sums rather than `einsum`: a row's score then depends on nothing but the row, the precision is that of
    float32 on every device, and gathering takes longer than either.
    """
    if metric == "euclidean":
        return jnp.sqrt(jnp.square(a - b).sum(-1))
    products = (a * b).sum(-1)
    if metric == "inner_product":
        return products
    lengths = jnp.sqrt(jnp.square(a).sum(-1)) * jnp.sqrt(jnp.square(b).sum(-1))
    return jnp.where(lengths > 0, products / jnp.where(lengths > 0, lengths, 1.0), 0.0)


_compiled_rerank = entry_point(nearest_by_vectors, "k", "metric")
_compiled_ranking = entry_point(rank_rows, "k", "metric")
