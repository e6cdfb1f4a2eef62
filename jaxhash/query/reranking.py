"""Reranking: a shortlist found by short codes, sorted by long ones.

Krizhevsky and Hinton, "Using Very Deep Autoencoders for Content-Based Image Retrieval" (ESANN 2011), look up 28-bit
codes in a hash table and rank what they find by 256-bit codes.
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
from jaxhash.core.checks import check_code_array, check_integer, dtype_of, is_on_host, is_traced
from jaxhash.index.hash_index import NO_ID
from jaxhash.query.cost_model import MAX_QUERIES_AT_ONCE, QUERY_MEMORY
from jaxhash.query.kernels import NO_DISTANCE, Weights
from jaxhash.query.results import Neighbors


def rerank(long_codes: ArrayLike, query_long_codes: ArrayLike, candidate_ids: ArrayLike, *, k: int) -> Neighbors:
    """Finds the k candidates of each query whose long codes are nearest.

    With all items as candidates, the result is that of `search` in an index of the long codes. Can be called inside
    `jit` and `vmap`.

    Args:
        long_codes: uint32 `[n, w]`; row i is the code of the item with id i. From a JAX array nothing is copied.
        query_long_codes: uint32 `[..., w]`.
        candidate_ids: integers `[..., m]` below n, for example the ids of `search` or `radius_search_padded` with short
            codes, in any order; an id that comes twice counts once, and -1 stands for none.
        k: how many items to find, at least 1 (static).

    Returns:
        `Neighbors(distances, ids)`, both int32 `[..., k]`, sorted by (distance, long code, id).

    Raises:
        ValueError: the shapes don't go together, an id is no row of `long_codes`, or k is out of range. Inside `jit`,
            such ids are left out.
        TypeError: codes are not uint32, or ids or k are not integers.
    """
    k = check_integer("k", k, 1)
    queries, ids = _check_queries(long_codes, query_long_codes, candidate_ids)
    lead = queries.shape[:-1]
    if is_traced(long_codes, queries, ids):
        found = nearest_candidates(jnp.asarray(long_codes), queries, ids, k=k)
        return Neighbors(*(array.reshape(*lead, k) for array in found))
    count = math.prod(lead)
    rows = tuple(array.reshape(count, array.shape[-1]) for array in (queries, ids))
    affordable = QUERY_MEMORY // (12 * (ids.shape[-1] + 1) * (queries.shape[-1] + 2))
    size = min(MAX_QUERIES_AT_ONCE, 1 << (max(1, affordable).bit_length() - 1))
    return in_batches(lambda batch: _compiled_rerank(long_codes, *batch, k=k), rows, size, lead)


def _check_queries(long_codes: ArrayLike, query_long_codes: ArrayLike, candidate_ids: ArrayLike) -> tuple[Any, Any]:
    """Returns queries uint32 `[..., w]` and ids int32 `[..., m]` that fit the codes, JAX arrays on their device."""
    check_code_array("long_codes", long_codes)
    shape = np.shape(long_codes)
    if len(shape) != 2:
        raise ValueError(f"long_codes must have shape [n, w], got {shape}")
    check_code_array("query_long_codes", query_long_codes, shape[1])
    ids = check_candidates(candidate_ids, np.shape(query_long_codes)[:-1], "long_codes", shape[0])
    return jnp.asarray(query_long_codes) if is_traced(query_long_codes) else _native(query_long_codes, np.uint32), ids


def check_candidates(candidate_ids: ArrayLike, lead: tuple[int, ...], table: str, num_rows: int) -> Any:
    """Returns the ids of candidates, int32 `[*lead, m]`, a JAX array on its device.

    As far as they are known, they must be -1 or numbers of rows of the table of that name.
    """
    shape, dtype = np.shape(candidate_ids), dtype_of(candidate_ids)
    if shape[:-1] != lead or len(shape) != len(lead) + 1:
        raise ValueError(f"candidate_ids must have shape {[*lead, 'm']}, as there are queries, got {shape}")
    if dtype.kind not in "iu":
        raise TypeError(f"candidate_ids must be integers, got dtype {dtype}")
    if is_traced(candidate_ids):
        return candidate_ids
    if is_on_host(candidate_ids) or jax.device_get(_any_outside(candidate_ids, num_rows)):
        ids = np.asarray(candidate_ids)
        wrong = ids[(ids < NO_ID) | (ids >= num_rows)]
        if wrong.size:
            raise ValueError(f"candidate_ids must be rows of {table}, below {num_rows}, or -1 for none, got {wrong[0]}")
    return _native(candidate_ids, np.int32)


@partial(jax.jit, static_argnums=1)
def _any_outside(ids: jax.Array, count: int) -> jax.Array:
    """Whether any id is neither a row below `count` nor `NO_ID`: bool `[]`."""
    return ((ids < NO_ID) | (ids >= count)).any()


def _native(array: ArrayLike, dtype: type) -> Any:
    """An array of a dtype: JAX arrays that have it stay on their device."""
    return array if isinstance(array, jax.Array) and array.dtype == dtype else np.asarray(array).astype(dtype)


@partial(jax.jit, static_argnames="k")
def nearest_candidates(
    long_codes: jax.Array, queries: jax.Array, ids: jax.Array, weights: Weights | None = None, *, k: int
) -> Neighbors:
    """Computes what `rerank` returns, without its checks; by weighted distance, if queries have weights `[..., w]`."""
    ids = jnp.pad(ids, [(0, 0)] * (ids.ndim - 1) + [(0, max(0, k - ids.shape[-1]))], constant_values=NO_ID)
    known = (ids >= 0) & (ids < len(long_codes))
    ids = jnp.where(known, ids, NO_ID).astype(jnp.int32)
    rows = long_codes if len(long_codes) else jnp.zeros((1, queries.shape[-1]), jnp.uint32)
    codes = rows[jnp.maximum(ids, 0)]
    distances = _compute_distances(codes ^ queries[..., None, :], weights)
    keys = (jnp.where(known, distances, NO_DISTANCE), *jnp.moveaxis(codes, -1, 0), ids)
    distances, *_, ids = lax.sort(keys, num_keys=len(keys))
    # A repeated candidate has the same code and so follows the first; so does a repeated `NO_ID`.
    again = jnp.concatenate([jnp.zeros_like(ids[..., :1], bool), ids[..., 1:] == ids[..., :-1]], axis=-1)
    position = jnp.arange(ids.shape[-1], dtype=jnp.float32)
    _, slot = lax.top_k(jnp.where(again, -jnp.inf, -position), k)
    again, distances, ids = (jnp.take_along_axis(array, slot, -1) for array in (again, distances, ids))
    return Neighbors(jnp.where(again, NO_DISTANCE, distances), jnp.where(again, NO_ID, ids))


def _compute_distances(differing: jax.Array, weights: Weights | None) -> jax.Array:
    """Sums up the bits that are set in words `[..., m, w]`, or their weights: int32 `[..., m]`."""
    if weights is None:
        return lax.population_count(differing).sum(-1, dtype=jnp.int32)
    planes = jnp.moveaxis(weights.planes[..., None, :], -3, 0)  # [p, ..., 1, w]
    counts = (lax.population_count(differing & plane).sum(-1, dtype=jnp.int32) for plane in planes)
    return sum((count << power for count, power in zip(counts, weights.exponents, strict=True)), jnp.int32(0))


_compiled_rerank = entry_point(nearest_candidates, "k")
