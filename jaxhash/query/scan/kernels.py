"""Traceable kernels: XOR, popcount, and exact selection over the tiled codes of an index.

The scan compares a query with every code, but keeps only the smallest distance of each group of g codes. The first k
groups by (minimum, position) hold the first k codes by (distance, rank): any code outside them is beaten by k codes,
one in each group. So only k * g codes are compared a second time.

The code looks odd where compilers need it. Minima are unrolled over slices, because XLA turns a reduction over an axis
into a loop that is 2 to 30 times slower. They are stored as uint8, since writing them is most of the memory traffic.
Ranking uses float32, in which distances are exact, because `top_k` on integers is 100 times slower on CPU.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhash.codes.bitmap import rank, select
from jaxhash.codes.distances import Queries
from jaxhash.core.batching import map_batches
from jaxhash.core.checks import padding_mask
from jaxhash.index.hash_index import NO_ID, HashIndex
from jaxhash.query.filters import Filter
from jaxhash.query.plan import LIMITS, Limits, max_batch_size
from jaxhash.query.results import NO_DISTANCE, Neighbors, PaddedMatches

Result = TypeVar("Result")


def scan_size(
    codes_shape: tuple[int, ...], queries: Queries, k: int, num_shards: int = 0, limits: Limits = LIMITS
) -> int:
    """Returns the number of queries scanned together so that memory is bounded for any n and k; a power of two.

    `codes_shape` is the shape of `HashIndex.codes`, for `num_shards` shards together.
    """
    width, blocks, group_size, lanes = codes_shape
    blocks //= max(1, num_shards)
    minima = blocks * lanes * jnp.dtype(minima_dtype(queries.largest_distance())).itemsize
    selected = 8 * min(k, blocks) * lanes + 4 * min(k, blocks * lanes) * group_size * (width + 3)
    return max_batch_size(minima + selected + 16 * k * num_shards, limits)


def map_queries(function: Callable[[Queries], Result], queries: Queries, num_bits: int, size: int) -> Result:
    """Applies a traced function of queries `[q, w]` to queries `[..., w]`, at most `size` at a time.

    Padding bits are zeroed, since they can't be checked in traced queries and must not count.
    """
    lead, width = queries.words.shape[:-1], queries.words.shape[-1]
    mask = np.full((1, width), 0xFFFFFFFF, np.uint32)
    mask[0, -1] ^= padding_mask(num_bits)
    flat = queries.map(lambda array: jnp.asarray(array).reshape(-1, *array.shape[len(lead) :]))
    rows = map_batches(function, replace(flat, words=flat.words & mask), size)
    result: Result = jax.tree.map(lambda array: array.reshape(*lead, *array.shape[1:]), rows)
    return result


class Codes(NamedTuple):
    """The codes of a scan.

    words: uint32 `[w, blocks, g, L]`, in ascending order, as in `HashIndex`.
    num_codes: int32 `[]`; later codes are padding.
    excluded: uint32 `[blocks, g, L]`, all ones for excluded codes, else 0; or `None`.
    """

    words: jax.Array
    num_codes: jax.Array
    excluded: jax.Array | None = None


def find_codes(index: HashIndex, allowed: Filter | None, queries: Queries, k: int) -> tuple[jax.Array, jax.Array]:
    """Finds the nearest codes with allowed items: distances and ranks, int32 `[q, at most k]`."""
    codes = Codes(index.codes, index.num_codes, None if allowed is None else allowed.excluded)
    return nearest_codes(codes, queries, minima_once(codes, queries), min(k, index.capacity))


def minima_dtype(largest: int) -> Any:
    """Returns the narrowest dtype that holds distances up to `largest`."""
    return jnp.uint8 if largest < 2**8 else jnp.uint16 if largest < 2**16 else jnp.uint32


def group_minima(codes: Codes, queries: Queries) -> jax.Array:
    """Computes the smallest distance between each query, uint32 `[q, w]`, and each group of codes.

    Returns:
        `[blocks, q, L]` of `minima_dtype`, blocks outermost so that a block of codes stays in the cache for all
        queries. If all codes of a group are excluded, it is the dtype's maximum, which no distance reaches.
    """
    dtype = minima_dtype(queries.largest_distance())

    def distance(row: int) -> jax.Array:
        distances = _row_distance(codes, queries, row)
        return distances if codes.excluded is None else distances | codes.excluded[:, None, row]

    minima = distance(0)
    for row in range(1, codes.words.shape[2]):
        minima = jnp.minimum(minima, distance(row))
    return (minima & jnp.uint32(jnp.iinfo(dtype).max)).astype(dtype)


def minima_once(codes: Codes, queries: Queries) -> jax.Array:
    """Computes `group_minima` once, even if several operations read them.

    XLA would fuse them into each reader, at up to fifteen times the work, and drops `optimization_barrier` before
    fusing. It can't fuse through a run-time branch, although this one always goes the same way. For little work a
    branch costs more than it saves, and for long codes (512 bits and more) recomputing is faster.
    """
    if len(queries.words) * codes.words.size < LIMITS.kept_work or codes.words.shape[0] >= 16:
        return group_minima(codes, queries)
    result = jax.eval_shape(group_minima, codes, queries)
    nothing = partial(jnp.zeros, result.shape, result.dtype)
    return lax.cond(codes.num_codes >= 0, group_minima, lambda *_: nothing(), codes, queries)


def _row_distance(codes: Codes, queries: Queries, row: int) -> jax.Array:
    """Computes distances between each query and the codes in one row of every tile: uint32 `[blocks, q, L]`."""
    words = [codes.words[word, :, None, row] for word in range(len(codes.words))]
    return queries.measure_words(words, lambda number: number[None, :, None])


def near_groups(words: jax.Array, queries: jax.Array, *, radius: jax.Array) -> jax.Array:
    """Marks the groups of codes, uint32 `[w, blocks, g, L]`, with a code within `radius` (uint32 `[]`) of each query.

    Returns:
        bool `[blocks, q, L]`.
    """
    minima = group_minima(Codes(words, jnp.int32(0)), Queries(queries))
    return minima <= radius.astype(minima.dtype)


def nearest_codes(codes: Codes, queries: Queries, minima: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Selects the first k codes by (distance, rank) for each query `[q, w]`, given its group minima.

    Returns:
        Distances, int32 `[q, k]`, `NO_DISTANCE` in empty slots, and ranks, int32 `[q, k]`.
    """
    group_size, lanes = codes.words.shape[2:]
    group = _nearest_groups(codes, minima, k)
    distances = _group_distances(codes.words, group, queries)
    ranks = _list_children(group, group_size)
    excluded = ranks >= codes.num_codes
    if codes.excluded is not None:
        members = codes.excluded.transpose(0, 2, 1).at[group // lanes, group % lanes].get(mode="promise_in_bounds")
        excluded |= members.reshape(ranks.shape) != 0
    nearest, position = lax.top_k(-_mask_padding(excluded, distances), k)
    found = jnp.isfinite(nearest)
    return (
        jnp.where(found, jnp.where(found, -nearest, 0).astype(jnp.int32), NO_DISTANCE),
        jnp.take_along_axis(ranks, position, axis=1),
    )


def _nearest_groups(codes: Codes, minima: jax.Array, k: int) -> jax.Array:
    """Selects the first groups by (minimum, position): their positions, ascending, int32 `[q, at most k]`."""
    _, blocks, group_size, lanes = codes.words.shape
    num_queries = minima.shape[1]
    if blocks * lanes <= LIMITS.unblocked_groups:
        block = lax.broadcasted_iota(jnp.int32, (num_queries, blocks), 1)
        block_minima = minima.transpose(1, 0, 2).reshape(num_queries, blocks * lanes)
    else:
        starts = lax.broadcasted_iota(jnp.int32, (1, blocks), 1) * (group_size * lanes)
        block = _select_first(_mask_padding(starts >= codes.num_codes, _lane_minima(minima).T), min(k, blocks))
        row = lax.broadcasted_iota(jnp.int32, block.shape, 0)
        block_minima = minima.at[block, row].get(mode="promise_in_bounds").reshape(num_queries, block.shape[1] * lanes)
    # Positions ascend, and `top_k` puts the lower position first among equals, which keeps ties in order.
    group = _list_children(block, lanes)
    position = _select_first(_mask_padding(group * group_size >= codes.num_codes, block_minima), min(k, group.shape[1]))
    return jnp.take_along_axis(group, position, axis=1)


def _lane_minima(minima: jax.Array) -> jax.Array:
    """Computes the minimum over the last axis, by halving where that is faster.

    XLA reduces bytes at full speed, but wider numbers three times slower than halving. The exception are long codes,
    with few lanes in a tile: there XLA fuses the reduction with the minima.
    """
    if minima.dtype == jnp.uint8 or minima.shape[-1] <= 16:
        return minima.min(-1)
    while minima.shape[-1] > 1:
        half = minima.shape[-1] // 2
        minima = jnp.minimum(minima[..., :half], minima[..., half:])
    return minima[..., 0]


def _mask_padding(padding: jax.Array, distances: jax.Array) -> jax.Array:
    """Converts distances to float32, infinite for padding and excluded codes."""
    return jnp.where(padding, jnp.inf, distances.astype(jnp.float32))


def _select_first(values: jax.Array, count: int) -> jax.Array:
    """Selects the `count` smallest values of each row, ties by position: their positions, ascending, int32."""
    return lax.sort(lax.top_k(-values, count)[1], dimension=1)


def _list_children(parents: jax.Array, size: int) -> jax.Array:
    """Lists the children `size * i, ..., size * i + size - 1` of each parent i in `[q, m]`: `[q, m * size]`."""
    child = lax.broadcasted_iota(jnp.int32, (*parents.shape, size), 2)
    return (parents[..., None] * size + child).reshape(len(parents), parents.shape[1] * size)


def _group_distances(words: jax.Array, group: jax.Array, queries: Queries) -> jax.Array:
    """Computes distances to all codes of groups `[q, m]`: uint32 `[q, m * g]`."""
    lanes = words.shape[3]
    by_group = words.transpose(1, 3, 0, 2)  # a view: XLA folds it into the gather
    members = by_group.at[group // lanes, group % lanes].get(mode="promise_in_bounds")  # [q, m, w, g]
    distances = queries.measure(members, lambda words: words[:, None, :, None], axis=2)
    return distances.reshape(len(group), group.shape[1] * words.shape[2])


def count_items(codes: Codes, sizes: jax.Array, queries: Queries, radius: int) -> jax.Array:
    """Counts the items within `radius`, inclusive, of each query: int32 `[q]`.

    `sizes`, int32 `[blocks, g, L]`, is the number of items of each code; padding codes have none.
    """
    _, blocks, group_size, lanes = codes.words.shape
    total = jnp.zeros((blocks, len(queries.words), lanes), jnp.int32)
    for row in range(group_size):
        near = _row_distance(codes, queries, row) <= jnp.uint32(radius)
        total += jnp.where(near, sizes[:, None, row], 0)
    return total.sum((0, 2), dtype=jnp.int32)


def items_in_slots(
    index: HashIndex, allowed: Filter | None, distances: jax.Array, ranks: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """Lists the first `count` allowed items of codes, given by distances and ranks, int32 `[q, c]`, in their order.

    Returns:
        Distances and ids, int32 `[q, count]`; `NO_DISTANCE` and `NO_ID` after the last item. `count` may exceed the
        capacity of the index.
    """
    available = min(count, index.ids.shape[0])
    starts, ends = (index.offsets.at[position].get(mode="promise_in_bounds") for position in (ranks, ranks + 1))
    if allowed is not None:
        starts, ends = rank(allowed.entries, starts), rank(allowed.entries, ends)
    distances, entries = _items_of_codes(distances, starts, ends, available)
    if allowed is not None:
        entries = select(allowed.entries, entries)
    ids = jnp.where(distances == NO_DISTANCE, NO_ID, index.ids.at[entries].get(mode="promise_in_bounds"))
    spare = ((0, 0), (0, count - available))
    return (
        jnp.pad(distances, spare, constant_values=NO_DISTANCE),
        jnp.pad(ids, spare, constant_values=NO_ID),
    )


def _items_of_codes(
    distances: jax.Array, starts: jax.Array, ends: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """Lists the first `count` items of codes for each query, in their order.

    A code is given by its distance (`NO_DISTANCE` for none) and the start and end of its items, int32 `[q, c]`.

    Returns:
        Distances and numbers of the items, int32 `[q, count]`; `NO_DISTANCE` and 0 after the last item.
    """
    sizes = jnp.where(distances == NO_DISTANCE, 0, ends - starts)
    ends = jnp.cumsum(sizes, axis=1, dtype=jnp.int32)
    slot = jnp.arange(count, dtype=jnp.int32)
    # The code of a slot is the number of codes with items that end at or before it.
    # "compare_all" is a single vectorized loop, but grows with the square of the count.
    method = "compare_all" if count <= 128 else "scan"
    code = jax.vmap(lambda row: jnp.searchsorted(row, slot, side="right", method=method).astype(jnp.int32))(ends)
    found = slot[None] < ends[:, -1:]
    code = jnp.where(found, code, 0)
    item = jnp.take_along_axis(starts - ends + sizes, code, axis=1) + slot[None]
    return (
        jnp.where(found, jnp.take_along_axis(distances, code, axis=1), NO_DISTANCE),
        jnp.where(found, item, 0),
    )


def merge_padded(found: PaddedMatches[jax.Array], max_results: int) -> PaddedMatches[jax.Array]:
    """Merges the first matches of each shard, int32 `[s, ..., max_results]`."""
    first = merge_nearest(Neighbors(found.distances, found.ids), max_results)
    return PaddedMatches(*first, found.counts.sum(0, dtype=jnp.int32), found.complete.all(0))


def merge_nearest(found: Neighbors[jax.Array], k: int) -> Neighbors[jax.Array]:
    """Merges the k nearest items of each shard, int32 `[s, ..., k]`.

    Shards hold ascending codes and `top_k` puts the lower position first among equals, so ties stay in order.
    """
    num_shards, *lead, _ = found.ids.shape
    distances, ids = (jnp.moveaxis(array, 0, -2).reshape(*lead, num_shards * k) for array in found)
    _, position = lax.top_k(-distances.astype(jnp.float32), k)
    return Neighbors(jnp.take_along_axis(distances, position, -1), jnp.take_along_axis(ids, position, -1))
