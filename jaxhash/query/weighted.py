"""Exact nearest neighbours by weighted distance: the query says how much each of its bits counts.

The weighted distance of two codes is the sum of the query's weights of the bits in which they differ. It is elsewhere
called asymmetric distance (Gordo, Perronnin, Gong and Lazebnik 2014, "Asymmetric distances for binary embeddings").
XOR and popcount compute it from bit planes of the weights: the sum over planes p of `2^p popcount((q ^ c) & plane_p)`.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.bits import pack_bits
from jaxhash.core.batching import entry_point
from jaxhash.core.checks import (
    check_integer,
    check_kind,
    check_known_codes,
    check_slots,
    dtype_of,
    is_on_host,
    is_traced,
)
from jaxhash.index.sharding import AnyIndex
from jaxhash.query.cost_model import queries_at_once
from jaxhash.query.kernels import Weights
from jaxhash.query.nearest import nearest_items, run_batches
from jaxhash.query.results import Neighbors

MAX_WEIGHT = 15
ALL_PLANES = (0, 1, 2, 3)


def weighted_search(index: AnyIndex, queries: ArrayLike, weights: ArrayLike, *, k: int) -> Neighbors:
    """Finds the k items of each query that are nearest by weighted distance, exactly.

    With all weights 1, it finds what `search` finds. It can be called inside `jit` and `vmap`. Bit planes that are
    zero for all queries of a call cost nothing; inside `jit`, where weights are unknown, there are always four.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes.
        queries: codes, uint32 `[..., w]`; one query `[w]` gives results `[k]`.
        weights: integers from 0 to 15, `[..., b]`: how much each bit of each query counts; or `[b]`, for all queries.
            `encode_weighted` returns codes and weights of images.
        k: how many items to find, at least 1 (static). It may exceed the number of items.

    Returns:
        `Neighbors(distances, ids)`, both int32 `[..., k]`, sorted by (weighted distance, code, id).

    Raises:
        ValueError: queries or weights don't fit the index, or a weight or k is out of range. Inside `jit`, where
            weights can't be checked, only their four lowest bits count.
        TypeError: queries are not uint32, or weights or k are not integers.
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    codes = check_known_codes("queries", queries, index.num_bits)
    k = check_integer("k", k, 1)
    check_slots(math.prod(codes.shape[:-1]), k)
    rows, exponents = check_weights(weights, codes.shape[:-1], index.num_bits)
    if is_traced(index, codes, rows):
        return nearest_weighted(index, codes, rows, k=k, exponents=exponents)
    size = queries_at_once(index, k, exponents)
    return run_batches(_compiled_weighted, index, (codes, rows), size, k=k, exponents=exponents)


def check_weights(weights: ArrayLike, lead: tuple[int, ...], num_bits: int) -> tuple[Any, tuple[int, ...]]:
    """Returns weights `[*lead, b]` and which of their bit planes are in use.

    As far as they are known, they must lie between 0 and `MAX_WEIGHT`; of traced ones all planes are in use.
    """
    dtype, shape = dtype_of(weights), np.shape(weights)
    if dtype.kind not in "iu":
        raise TypeError(f"weights must be integers from 0 to {MAX_WEIGHT}, got dtype {dtype}")
    if shape not in ((num_bits,), (*lead, num_bits)):
        raise ValueError(f"weights must have shape {(num_bits,)} or {(*lead, num_bits)}, got {shape}")
    if is_traced(weights):
        return jnp.broadcast_to(weights, (*lead, num_bits)), ALL_PLANES
    # A bit that is set in any weight is set in the OR of all; that of a negative number is negative.
    union = int(np.bitwise_or.reduce(weights, axis=None) if is_on_host(weights) else jax.device_get(_union(weights)))
    if not 0 <= union <= MAX_WEIGHT:
        array = np.asarray(weights)
        wrong = array[(array < 0) | (array > MAX_WEIGHT)][0]
        raise ValueError(f"weights must lie between 0 and {MAX_WEIGHT}, got {wrong}")
    exponents = tuple(power for power in ALL_PLANES if union >> power & 1) or ALL_PLANES[:1]
    if isinstance(weights, jax.Array):
        return jnp.broadcast_to(weights, (*lead, num_bits)), exponents
    return np.broadcast_to(np.asarray(weights).astype(np.uint8), (*lead, num_bits)), exponents


@jax.jit
def _union(weights: jax.Array) -> jax.Array:
    return jnp.bitwise_or.reduce(weights, axis=None)


@partial(jax.jit, static_argnames=("k", "exponents"))
def nearest_weighted(index: AnyIndex, queries: Any, weights: Any, *, k: int, exponents: tuple[int, ...]) -> Neighbors:
    """Computes what `weighted_search` returns, without its checks.

    Args:
        index: a `HashIndex` or `ShardedIndex`.
        queries: uint32 `[..., w]`.
        weights: integers `[..., b]`.
        k: how many items to find.
        exponents: the bit planes of the weights that are in use, ascending; all others are taken for zero.
    """
    whole = jnp.asarray(weights).astype(jnp.uint32)
    planes = jnp.stack([(whole >> jnp.uint32(power)) & jnp.uint32(1) for power in exponents], axis=-2)
    return nearest_items(index, queries, Weights(pack_bits(planes != 0), exponents), k=k)


_compiled_weighted = entry_point(nearest_weighted, "k", "exponents")
