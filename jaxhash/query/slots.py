"""Results in a fixed number of slots: from codes to items, and from the results of shards to those of the whole."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxhash.index.hash_index import NO_ID, HashIndex
from jaxhash.query.filters import Filter, count_before, select_entries
from jaxhash.query.kernels import NO_DISTANCE, items_of_codes
from jaxhash.query.results import Neighbors


def items_in_slots(
    index: HashIndex, allowed: Filter | None, distances: jax.Array, ranks: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """The allowed items of the codes, in `count` slots even if the index has room for fewer."""
    available = min(count, index.ids.shape[0])
    starts, ends = (index.offsets.at[rank].get(mode="promise_in_bounds") for rank in (ranks, ranks + 1))
    if allowed is not None:
        starts, ends = count_before(allowed, starts), count_before(allowed, ends)
    distances, entries = items_of_codes(distances, starts, ends, available)
    if allowed is not None:
        entries = select_entries(allowed, entries)
    ids = jnp.where(distances == NO_DISTANCE, NO_ID, index.ids.at[entries].get(mode="promise_in_bounds"))
    spare = ((0, 0), (0, count - available))
    return (
        jnp.pad(distances, spare, constant_values=NO_DISTANCE),
        jnp.pad(ids, spare, constant_values=NO_ID),
    )


def merge_nearest(found: Neighbors, k: int) -> Neighbors:
    """The k nearest of all shards from the k nearest of each, int32 `[s, ..., k]`.

    Shards hold ascending codes and `top_k` puts the lower position first among equals, so ties stay in order.
    """
    num_shards, *lead, _ = found.ids.shape
    distances, ids = (jnp.moveaxis(array, 0, -2).reshape(*lead, num_shards * k) for array in found)
    _, position = lax.top_k(-distances.astype(jnp.float32), k)
    return Neighbors(jnp.take_along_axis(distances, position, -1), jnp.take_along_axis(ids, position, -1))
