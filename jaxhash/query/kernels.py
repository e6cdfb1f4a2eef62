"""The traceable kernels: XOR, popcount, and exact selection over the tiled codes of an index.

The scan compares a query with every code, but keeps only the smallest distance of each group of g codes. The k groups
that come first by (minimum, position) hold the k codes that come first by (distance, rank): any code outside them is
beaten by k codes, one in each of them. So only k * g codes are compared a second time.

The code looks odd where compilers need it. Minima are unrolled over slices, because XLA turns a reduction over an axis
into a loop that is 2 to 30 times slower. They are stored as uint8, since writing them is most of the memory traffic.
Ranking is by float32, in which distances are exact, because `top_k` on integers is 100 times slower on CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxhash.core.checks import INT32_MAX

NO_DISTANCE = INT32_MAX

# Up to this many groups, selecting among all of them is quicker than selecting blocks first.
FEW_GROUPS = 2048

# From this many compared words on, minima are kept in memory.
WORTH_A_BRANCH = 2**22


@partial(jax.tree_util.register_dataclass, data_fields=["planes"], meta_fields=["exponents"])
@dataclass(frozen=True, eq=False)
class Weights:
    """How much each bit of each query counts, as bit planes: the bits of plane p weigh `2**exponents[p]` each.

    planes: uint32 `[..., p, w]`, packed as codes.
    exponents: ascending (static).
    """

    planes: Any
    exponents: tuple[int, ...]


def minima_dtype(width: int, exponents: tuple[int, ...] = (0,)) -> Any:
    """The narrowest dtype that holds all distances of codes of `width` words, weighted by planes of these exponents."""
    greatest = 32 * width * sum(1 << power for power in exponents)
    return jnp.uint8 if greatest < 2**8 else jnp.uint16 if greatest < 2**16 else jnp.uint32


def group_minima(
    codes: jax.Array, queries: jax.Array, weights: Weights | None = None, barred: jax.Array | None = None
) -> jax.Array:
    """The smallest distance between each query and each group of codes.

    Args:
        codes: uint32 `[w, blocks, g, L]`.
        queries: uint32 `[q, w]`.
        weights: of the queries' bits, `[q, ...]`; `None` for Hamming distances.
        barred: uint32 `[blocks, g, L]`, all ones for codes that don't count and 0 for others. A group of such codes
            alone gets the largest value of the dtype, which no distance reaches.

    Returns:
        `[blocks, q, L]` of `minima_dtype`, blocks outermost so that a block of codes stays in the cache for all
        queries.
    """
    width, _, group_size, _ = codes.shape
    dtype = minima_dtype(width, (0,) if weights is None else weights.exponents)

    def distance(row: int) -> jax.Array:
        found = _row_distance(codes, queries, weights, row)
        return found if barred is None else found | barred[:, None, row]

    minima = distance(0)
    for row in range(1, group_size):
        minima = jnp.minimum(minima, distance(row))
    return (minima & jnp.uint32(jnp.iinfo(dtype).max)).astype(dtype)


def minima_once(
    codes: jax.Array,
    num_codes: jax.Array,
    queries: jax.Array,
    weights: Weights | None = None,
    barred: jax.Array | None = None,
) -> jax.Array:
    """Computes `group_minima` once, even if several operations read them.

    XLA would fuse them into each reader, at up to fifteen times the work, and drops `optimization_barrier` before it
    does. It can't fuse through a branch that is decided at run time, although this one always goes one way. For little
    work a branch costs more than it saves, and for long codes (512 bits and more) computing again is quicker.
    """
    if len(queries) * codes.size < WORTH_A_BRANCH or codes.shape[0] >= 16:
        return group_minima(codes, queries, weights, barred)
    result = jax.eval_shape(group_minima, codes, queries, weights, barred)
    nothing = partial(jnp.zeros, result.shape, result.dtype)
    return lax.cond(num_codes >= 0, group_minima, lambda *_: nothing(), codes, queries, weights, barred)


def _row_distance(codes: jax.Array, queries: jax.Array, weights: Weights | None, row: int) -> jax.Array:
    """Distances between each query and the codes in one row of every tile: uint32 `[blocks, q, L]`."""
    words = range(codes.shape[0])
    differing = [codes[word, :, None, row] ^ queries[None, :, word, None] for word in words]
    if weights is None:
        return _count_bits(differing)
    planes = [[weights.planes[None, :, plane, word, None] for word in words] for plane in range(len(weights.exponents))]
    return _weigh_bits(differing, planes, weights.exponents)


def _count_bits(words: Sequence[jax.Array]) -> jax.Array:
    """How many bits are set in some words, which are given one by one: uint32."""
    total = lax.population_count(words[0])
    for word in words[1:]:
        total += lax.population_count(word)
    return total


def _weigh_bits(
    words: Sequence[jax.Array], planes: Sequence[Sequence[jax.Array]], exponents: tuple[int, ...]
) -> jax.Array:
    """The sum of the weights of the bits that are set, by Horner's rule over the planes: uint32."""
    total = _count_bits([word & mask for word, mask in zip(words, planes[-1], strict=True)])
    for plane in range(len(planes) - 2, -1, -1):
        total <<= jnp.uint32(exponents[plane + 1] - exponents[plane])
        total += _count_bits([word & mask for word, mask in zip(words, planes[plane], strict=True)])
    return total << jnp.uint32(exponents[0])


def near_groups(codes: jax.Array, queries: jax.Array, *, radius: jax.Array) -> jax.Array:
    """Which groups hold a code within `radius` (uint32 `[]`) of each query: bool `[blocks, q, L]`."""
    minima = group_minima(codes, queries)
    return minima <= radius.astype(minima.dtype)


def nearest_codes(
    codes: jax.Array,
    num_codes: jax.Array,
    queries: jax.Array,
    minima: jax.Array,
    k: int,
    weights: Weights | None = None,
    barred: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The k codes that come first by (distance, rank), for each query.

    Args:
        codes: uint32 `[w, blocks, g, L]`, in ascending order.
        num_codes: int32 `[]`; later codes are padding.
        queries: uint32 `[q, w]`.
        minima: `group_minima(codes, queries, weights, barred)`.
        k: at most `blocks * g * L`.
        weights: of the queries' bits, `[q, ...]`; `None` for Hamming distances.
        barred: uint32 `[blocks, g, L]`, all ones for codes that don't count and 0 for others.

    Returns:
        Distances, int32 `[q, k]`, `NO_DISTANCE` where there are fewer than k codes, and ranks, int32 `[q, k]`.
    """
    group_size, lanes = codes.shape[2:]
    group = _nearest_groups(codes, num_codes, minima, k)
    distances = _group_distances(codes, group, queries, weights)
    ranks = _list_children(group, group_size)
    excluded = ranks >= num_codes
    if barred is not None:
        members = barred.transpose(0, 2, 1).at[group // lanes, group % lanes].get(mode="promise_in_bounds")
        excluded |= members.reshape(ranks.shape) != 0
    distances = _mask_padding(excluded, distances)
    nearest, position = lax.top_k(-distances, k)
    found = jnp.isfinite(nearest)
    return (
        jnp.where(found, jnp.where(found, -nearest, 0).astype(jnp.int32), NO_DISTANCE),
        jnp.take_along_axis(ranks, position, axis=1),
    )


def _nearest_groups(codes: jax.Array, num_codes: jax.Array, minima: jax.Array, k: int) -> jax.Array:
    """The numbers of the groups that come first by (minimum, position), ascending: int32 `[q, at most k]`."""
    _, blocks, group_size, lanes = codes.shape
    num_queries = minima.shape[1]
    if blocks * lanes <= FEW_GROUPS:
        block = lax.broadcasted_iota(jnp.int32, (num_queries, blocks), 1)
        chosen_minima = minima.transpose(1, 0, 2).reshape(num_queries, blocks * lanes)
    else:
        starts = lax.broadcasted_iota(jnp.int32, (1, blocks), 1) * (group_size * lanes)
        block = _select_first(_mask_padding(starts >= num_codes, _lane_minima(minima).T), min(k, blocks))
        row = lax.broadcasted_iota(jnp.int32, block.shape, 0)
        chosen_minima = minima.at[block, row].get(mode="promise_in_bounds").reshape(num_queries, block.shape[1] * lanes)
    # Always in ascending position: `top_k` puts the lower position first among equals, which keeps ties in order.
    group = _list_children(block, lanes)
    position = _select_first(_mask_padding(group * group_size >= num_codes, chosen_minima), min(k, group.shape[1]))
    return jnp.take_along_axis(group, position, axis=1)


def _lane_minima(minima: jax.Array) -> jax.Array:
    """The minimum over the last axis, by halving where that is quicker.

    XLA reduces bytes at full speed, but wider numbers three times slower than halving does. Not if it fuses the
    reduction with the minima, as for long codes, whose tiles have few lanes.
    """
    if minima.dtype == jnp.uint8 or minima.shape[-1] <= 16:
        return minima.min(-1)
    while minima.shape[-1] > 1:
        half = minima.shape[-1] // 2
        minima = jnp.minimum(minima[..., :half], minima[..., half:])
    return minima[..., 0]


def _mask_padding(padding: jax.Array, distances: jax.Array) -> jax.Array:
    """Converts distances to float32, infinite for padding and all else that is excluded."""
    return jnp.where(padding, jnp.inf, distances.astype(jnp.float32))


def _select_first(values: jax.Array, count: int) -> jax.Array:
    """Selects the `count` smallest of each row, ties by position: their positions in ascending order, int32."""
    return lax.sort(lax.top_k(-values, count)[1], dimension=1)


def _list_children(parents: jax.Array, size: int) -> jax.Array:
    """Lists the children `size * i, ..., size * i + size - 1` of each parent i in `[q, m]`: `[q, m * size]`."""
    child = lax.broadcasted_iota(jnp.int32, (*parents.shape, size), 2)
    return (parents[..., None] * size + child).reshape(len(parents), parents.shape[1] * size)


def _group_distances(codes: jax.Array, group: jax.Array, queries: jax.Array, weights: Weights | None) -> jax.Array:
    """Distances to all codes of the given groups, `[q, m]`: uint32 `[q, m * g]`."""
    lanes = codes.shape[3]
    words = codes.transpose(1, 3, 0, 2)  # a view: XLA folds it into the gather
    members = words.at[group // lanes, group % lanes].get(mode="promise_in_bounds")  # [q, m, w, g]
    differing = members ^ queries[:, None, :, None]
    if weights is None:
        distances = lax.population_count(differing).sum(2, dtype=jnp.uint32)
    else:
        distances = sum(
            lax.population_count(differing & weights.planes[:, None, plane, :, None]).sum(2, dtype=jnp.uint32)
            << jnp.uint32(power)
            for plane, power in enumerate(weights.exponents)
        )
    return distances.reshape(len(queries), group.shape[1] * codes.shape[2])


def count_items(codes: jax.Array, sizes: jax.Array, queries: jax.Array, radius: int) -> jax.Array:
    """How many items lie within `radius` of each query: int32 `[q]`.

    Args:
        codes: uint32 `[w, blocks, g, L]`.
        sizes: int32 `[blocks, g, L]`, the number of items of each code; padding codes have none.
        queries: uint32 `[q, w]`.
        radius: largest distance that counts, inclusive.
    """
    _, blocks, group_size, lanes = codes.shape
    total = jnp.zeros((blocks, len(queries), lanes), jnp.int32)
    for row in range(group_size):
        near = _row_distance(codes, queries, None, row) <= jnp.uint32(radius)
        total += jnp.where(near, sizes[:, None, row], 0)
    return total.sum((0, 2), dtype=jnp.int32)


def items_of_codes(distances: jax.Array, starts: jax.Array, ends: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The first `count` items of the given codes, for each query, in the order of the codes.

    Args:
        distances: int32 `[q, c]`; `NO_DISTANCE` where there is no code.
        starts: int32 `[q, c]`, the number of the first item of each code.
        ends: int32 `[q, c]`, the number after that of the last.
        count: how many items to return.

    Returns:
        Distances and numbers of the items, int32 `[q, count]`; `NO_DISTANCE` and 0 after the last item.
    """
    sizes = jnp.where(distances == NO_DISTANCE, 0, ends - starts)
    ends = jnp.cumsum(sizes, axis=1, dtype=jnp.int32)
    slot = jnp.arange(count, dtype=jnp.int32)
    # The code of the item in a slot is the number of codes whose items end at or before it.
    # Comparing all is a single vectorised loop, but grows with the square of the count.
    method = "compare_all" if count <= 128 else "scan"
    code = jax.vmap(lambda row: jnp.searchsorted(row, slot, side="right", method=method).astype(jnp.int32))(ends)
    found = slot[None] < ends[:, -1:]
    code = jnp.where(found, code, 0)
    item = jnp.take_along_axis(starts - ends + sizes, code, axis=1) + slot[None]
    return (
        jnp.where(found, jnp.take_along_axis(distances, code, axis=1), NO_DISTANCE),
        jnp.where(found, item, 0),
    )
