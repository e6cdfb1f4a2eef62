"""What a scan finds, for any queries and any kind of index; everything here can be traced into any program.

An index on one device is searched by the loops in `kernels`. One in shards is searched on each device as if its shard
were all, and the answers are merged.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhash.core.checks import padding_mask
from jaxhash.index.hash_index import NO_ID, HashIndex
from jaxhash.index.sharding import ShardedIndex, map_shards
from jaxhash.query.kernels import NO_DISTANCE, count_items, items_of_codes, minima_once, nearest_codes

AnyIndex = HashIndex | ShardedIndex
Result = TypeVar("Result", bound=tuple[Any, ...])

# What a batch of queries may take beside the index and the answer. Larger batches gain nothing on CPU.
QUERY_MEMORY = 2**26
MAX_QUERIES_AT_ONCE = 256


class _Neighbors(NamedTuple):
    distances: jax.Array  # int32 [..., k]; NO_DISTANCE where there are fewer than k items
    ids: jax.Array  # int32 [..., k]; NO_ID there


class Neighbors(_Neighbors):
    """The k nearest items of each query, by (distance, code, id): `distances` and `ids`, both int32 `[..., k]`.

    Where there are fewer than k items, the places behind them hold `NO_DISTANCE` and `NO_ID`.
    """

    __slots__ = ()
    NO_DISTANCE: ClassVar[int] = NO_DISTANCE
    NO_ID: ClassVar[int] = NO_ID


class _PaddedMatches(NamedTuple):
    distances: jax.Array  # int32 [..., max_results]; NO_DISTANCE behind the last match
    ids: jax.Array  # int32 [..., max_results]; NO_ID there
    counts: jax.Array  # int32 [...]; how many items match, also when they don't fit


class PaddedMatches(_PaddedMatches):
    """The items within a radius of each query, by (distance, code, id), in a fixed number of places.

    `distances` and `ids` are int32 `[..., max_results]`, with `NO_DISTANCE` and `NO_ID` behind the last match;
    `counts`, int32 `[...]`, says how many items match in truth, also when they don't all fit.
    """

    __slots__ = ()
    NO_DISTANCE: ClassVar[int] = NO_DISTANCE
    NO_ID: ClassVar[int] = NO_ID


# Compiled even where no `jit` is around it: `vmap` alone would send a program to all devices for every operation.
@partial(jax.jit, static_argnames="k")
def nearest_items(index: AnyIndex, queries: Any, *, k: int) -> Neighbors:
    """What `search` computes, without its checks. Queries are uint32 `[..., w]`."""
    if isinstance(index, ShardedIndex):
        return _first_of_shards(map_shards(index, partial(nearest_items, k=k), queries), k)

    def nearest(batch: jax.Array) -> Neighbors:
        return Neighbors(*_items(index, *_nearest_codes(index, batch, k), k))

    return _in_turn(nearest, index, queries, queries_at_once(index, k))


@partial(jax.jit, static_argnames=("radius", "max_results"))
def matches_in_places(index: AnyIndex, queries: Any, *, radius: int, max_results: int) -> PaddedMatches:
    """What `radius_search_padded` computes, without its checks. Queries are uint32 `[..., w]`."""
    if isinstance(index, ShardedIndex):
        answer = partial(matches_in_places, radius=radius, max_results=max_results)
        found = map_shards(index, answer, queries)
        first = _first_of_shards(Neighbors(found.distances, found.ids), max_results)
        return PaddedMatches(*first, found.counts.sum(0, dtype=jnp.int32))

    def within(batch: jax.Array) -> PaddedMatches:
        distances, ranks = _nearest_codes(index, batch, max_results)
        distances = jnp.where(distances <= radius, distances, NO_DISTANCE)
        counts = count_items(index.codes, index.offsets, batch, radius)
        return PaddedMatches(*_items(index, distances, ranks, max_results), counts)

    return _in_turn(within, index, queries, queries_at_once(index, max_results))


def _first_of_shards(found: Neighbors, k: int) -> Neighbors:
    """The k nearest of all shards from the k nearest of each, int32 `[s, ..., k]`.

    Shards hold ascending codes and `top_k` puts the lower position first among equals, so ties stay in order.
    """
    num_shards, *lead, _ = found.ids.shape
    distances, ids = (jnp.moveaxis(array, 0, -2).reshape(*lead, num_shards * k) for array in found)
    _, place = lax.top_k(-distances.astype(jnp.float32), k)
    return Neighbors(jnp.take_along_axis(distances, place, -1), jnp.take_along_axis(ids, place, -1))


def _in_turn(function: Callable[..., Result], index: HashIndex, queries: Any, size: int) -> Result:
    """Applies `function(queries [q, w])` to queries `[..., w]` `size` at a time."""
    *lead, width = queries.shape
    flat = _cleared(jnp.asarray(queries).reshape(-1, width), index.num_bits)
    if len(flat) <= size:
        result = function(flat)
    else:
        count = -(-len(flat) // size)
        batches = jnp.pad(flat, ((0, count * size - len(flat)), (0, 0))).reshape(count, size, width)
        result = jax.tree.map(
            lambda array: array.reshape(count * size, *array.shape[2:])[: len(flat)],
            lax.map(function, batches),
        )
    return jax.tree.map(lambda array: array.reshape(*lead, *array.shape[1:]), result)


def _cleared(queries: jax.Array, num_bits: int) -> jax.Array:
    """Sets padding bits to zero; they must never count, and a traced query could not be refused."""
    mask = np.full((1, queries.shape[1]), 0xFFFFFFFF, np.uint32)
    mask[0, -1] ^= padding_mask(num_bits)
    return queries & mask


def _nearest_codes(index: HashIndex, queries: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Distances and ranks of the nearest codes, int32 `[q, at most k]`."""
    minima = minima_once(index.codes, index.num_codes, queries)
    return nearest_codes(index.codes, index.num_codes, queries, minima, min(k, index.capacity))


def _items(index: HashIndex, distances: jax.Array, ranks: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The items of the codes, in `count` places even if the index has no room for so many."""
    available = min(count, index.ids.shape[0])
    distances, ids = items_of_codes(index.offsets, index.ids, distances, ranks, available)
    spare = ((0, 0), (0, count - available))
    return (
        jnp.pad(distances, spare, constant_values=NO_DISTANCE),
        jnp.pad(ids, spare, constant_values=NO_ID),
    )


def queries_at_once(index: AnyIndex, k: int) -> int:
    """How many queries to answer together so that memory stays bounded, whatever n and k are; a power of two."""
    width, blocks, group_size, lanes = index.codes.shape
    gathered = 0
    if isinstance(index, ShardedIndex):
        blocks //= index.num_shards
        gathered = 16 * k * index.num_shards
    minima = blocks * lanes * (1 if width < 8 else 2)
    chosen = 8 * min(k, blocks) * lanes + 4 * min(k, blocks * lanes) * group_size * (width + 3)
    affordable = max(1, QUERY_MEMORY // (minima + chosen + gathered))
    return min(MAX_QUERIES_AT_ONCE, 1 << (affordable.bit_length() - 1))
