"""Positions in the ids of an index, whole or sharded: lookup of codes and ids by position, and the range of ids."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhash.core.batching import entry_point, one_at_a_time
from jaxhash.core.checks import INT32_MAX
from jaxhash.index.hash_index import NO_ID, HashIndex, cache_of, codes_of_ranks, replace_ids
from jaxhash.index.processes import gather_rows
from jaxhash.index.sharding import AnyIndex, ShardedIndex, local_shards, map_sharded, map_shards


def number_positions(index: AnyIndex) -> AnyIndex:
    """Returns the index with positions as ids, numbered consecutively across shards. Cached."""

    def number() -> AnyIndex:
        positions = _compiled_number(index)
        if isinstance(index, HashIndex):
            return replace_ids(index, positions)
        numbered = replace(index, ids=positions)
        shards = {i: replace_ids(local_shards(index)[i], shard.ids) for i, shard in local_shards(numbered).items()}
        local_shards(numbered).update(shards)  # these share the tables of the original shards
        return numbered

    numbered: AnyIndex = cache_of(index).keep("numbered", number)
    return numbered


def _number(index: AnyIndex) -> jax.Array:
    if isinstance(index, ShardedIndex):
        return map_sharded(lambda shard: _count_on(shard.ids, lax.axis_index(index.axis_name)), index)
    return _count_on(index.ids, jnp.int32(0))


def _count_on(ids: jax.Array, shard: jax.Array) -> jax.Array:
    """Numbers the positions of a shard, continuing after the shards before it."""
    size = ids.shape[0]
    return jnp.where(ids == NO_ID, NO_ID, jnp.arange(size, dtype=jnp.int32) + shard.astype(jnp.int32) * size)


_compiled_number = entry_point(_number)


def mask_positions(index: AnyIndex, mask: np.ndarray) -> np.ndarray:
    """Converts a mask by id, bool `[m]` with m above the largest id, to a mask by position."""
    padded = np.append(mask, False)
    if isinstance(index, HashIndex):
        return np.take(padded, np.asarray(index.ids), mode="wrap")  # `NO_ID` (-1) wraps to the appended False
    by_position: np.ndarray = one_at_a_time(lambda mask: np.asarray(_compiled_mask(index, mask)), [padded])[0]
    return by_position


def _mask_shards(index: ShardedIndex, mask: jax.Array) -> jax.Array:
    def take(shard: HashIndex, mask: jax.Array) -> jax.Array:
        return mask.at[shard.ids].get(mode="promise_in_bounds")  # `NO_ID` (-1) takes the last entry

    return map_shards(index, take, mask).reshape(-1)


_compiled_mask = entry_point(_mask_shards)


def look_up(index: AnyIndex, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns codes uint32 `[m, w]` and ids int32 `[m]` at positions int `[m]`.

    All processes that hold shards must make this call with the same positions.
    """
    if isinstance(index, HashIndex):
        rank = np.searchsorted(np.asarray(index.offsets)[: int(index.num_codes) + 1], positions, side="right") - 1
        return codes_of_ranks(index, rank), np.asarray(index.ids)[positions]
    size = index.ids.shape[0] // index.num_shards

    def own_rows() -> np.ndarray:
        rows = [np.zeros((0, index.num_words + 2), np.int32)]
        for number, shard in local_shards(index).items():
            rows_here = np.flatnonzero(positions // size == number)
            codes, ids = look_up(shard, positions[rows_here] - number * size)
            rows.append(np.column_stack([rows_here.astype(np.int32), codes.view(np.int32), ids]))
        return np.concatenate(rows)

    rows = gather_rows(own_rows, index.mesh.is_multi_process)
    rows = rows[np.argsort(rows[:, 0])]
    return np.ascontiguousarray(rows[:, 1:-1]).view(np.uint32), rows[:, -1]


def id_span(index: AnyIndex) -> tuple[int, int]:
    """Returns the smallest and the largest id; the largest is -1 for an empty index.

    The result is cached: computing it can take as long as a search.
    """

    def find() -> tuple[int, int]:
        if isinstance(index, HashIndex):
            ids = np.asarray(index.ids)[: int(index.num_items)]
            return int(ids.min(initial=INT32_MAX)), int(ids.max(initial=-1))
        # Computed on the devices, since a process may hold only some shards.
        low, high = one_at_a_time(lambda ids: jax.device_get(_compiled_span(ids)), [index.ids])[0]
        return int(low), int(high)

    return cache_of(index).keep("id_span", find)


def _span(ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.where(ids == NO_ID, INT32_MAX, ids).min(), ids.max()


_compiled_span = entry_point(_span)
