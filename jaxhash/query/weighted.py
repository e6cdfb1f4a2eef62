"""Exact nearest neighbours by weighted distance: the query says how much each of its bits counts.

Weighted distance is elsewhere called asymmetric distance (Gordo, Perronnin, Gong and Lazebnik 2014, "Asymmetric
distances for binary embeddings"). `jaxhash.codes.weights` defines it.
"""

import math
from functools import partial
from typing import Any

import jax
from jax.typing import ArrayLike

from jaxhash.codes.weights import check_weights, pack_planes
from jaxhash.core.batching import entry_point
from jaxhash.core.checks import check_integer, check_kind, check_known_codes, check_slots, is_traced
from jaxhash.index.sharding import AnyIndex
from jaxhash.query.cost_model import queries_at_once
from jaxhash.query.filters import Allowed, check_allowed
from jaxhash.query.kernels import Weights
from jaxhash.query.nearest import nearest_items, run_batches
from jaxhash.query.results import Neighbors


def weighted_search(
    index: AnyIndex, queries: ArrayLike, weights: ArrayLike, *, k: int, allowed: ArrayLike | None = None
) -> Neighbors:
    """Finds the k items of each query that are nearest by weighted distance, exactly.

    With all weights 1, it finds what `search` finds. It can be called inside `jit` and `vmap`. Bit planes that are
    zero for all queries of a call cost nothing; inside `jit`, where weights are unknown, there are always four.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes.
        queries: codes, uint32 `[..., w]`; one query `[w]` gives results `[k]`.
        weights: integers from 0 to 15, `[..., b]`: how much each bit of each query counts; or `[b]`, for all queries.
            `encode_weighted` returns codes and weights of images.
        k: how many items to find, at least 1 (static). It may exceed the number of items.
        allowed: which items may be found, bool `[m]`, as for `search`.

    Returns:
        `Neighbors(distances, ids)`, both int32 `[..., k]`, sorted by (weighted distance, code, id).

    Raises:
        ValueError: queries, weights or mask don't fit the index, or a weight or k is out of range. Inside `jit`, where
            weights can't be checked, only their four lowest bits count.
        TypeError: queries are not uint32, weights or k are not integers, or the mask is not bool.
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    codes = check_known_codes("queries", queries, index.num_bits)
    k = check_integer("k", k, 1)
    check_slots(math.prod(codes.shape[:-1]), k)
    rows, exponents = check_weights(weights, codes.shape[:-1], index.num_bits)
    allowed = check_allowed(index, allowed)
    if is_traced(index, codes, rows, allowed):
        return nearest_weighted(index, codes, rows, allowed, k=k, exponents=exponents)
    size = queries_at_once(index, k, exponents)
    return run_batches(_compiled_weighted, index, (codes, rows), size, allowed, k=k, exponents=exponents)


@partial(jax.jit, static_argnames=("k", "exponents"))
def nearest_weighted(
    index: AnyIndex, queries: Any, weights: Any, allowed: Allowed = None, *, k: int, exponents: tuple[int, ...]
) -> Neighbors:
    """Computes what `weighted_search` returns, without its checks.

    Args:
        index: a `HashIndex` or `ShardedIndex`.
        queries: uint32 `[..., w]`.
        weights: integers `[..., b]`.
        allowed: a mask by id or a filter; `None` for all items.
        k: how many items to find.
        exponents: the bit planes of the weights that are in use, ascending; all others are taken for zero.
    """
    return nearest_items(index, queries, Weights(pack_planes(weights, exponents), exponents), allowed, k=k)


_compiled_weighted = entry_point(nearest_weighted, "k", "exponents")
