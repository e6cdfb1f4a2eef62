"""Finding the codes that share an address near a query's, in a fixed number of slots; to be traced.

Each probe reads a word of a bitmap, in which some addresses are taken. Each taken address has a bucket of codes.
Running sums number the taken addresses of a query, and then the codes of their buckets. A binary search in the sums
tells each slot what it holds.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxhash.index.address_table import Slice, extract_addresses
from jaxhash.query.cost_model import divide_radius
from jaxhash.query.probe import LOW_PATTERNS, make_flip_masks
from jaxhash.query.probe_tables import ProbeTables, count_words


class Candidates(NamedTuple):
    """The codes in c slots for each of q queries."""

    ranks: jax.Array  # int32 [q, c]; 0 in an empty slot
    tables: jax.Array  # int32 [q, c], the number of the table that led to the code, ascending
    found: jax.Array  # bool [q, c], whether the slot holds a code
    complete: jax.Array  # bool [q], whether there was room for all codes


def find_candidates(tables: ProbeTables, queries: jax.Array, radius: int, max_candidates: int) -> Candidates:
    """Finds the codes that have an address near that of queries uint32 `[q, w]` in one of the tables."""
    words, taken, table = _look_up(tables.bitmap, tables.slices, queries, radius)
    counts = lax.population_count(taken).astype(jnp.int32)
    probe, place, found, total = _fill_slots(counts, max_candidates)
    word = jnp.take_along_axis(words, probe, axis=1)
    bit = _select_set_bit(jnp.take_along_axis(taken, probe, axis=1), place)
    below = tables.bitmap.at[word].get(mode="promise_in_bounds") & ((jnp.uint32(1) << bit) - jnp.uint32(1))
    bucket = tables.directory.at[word].get(mode="promise_in_bounds") + lax.population_count(below).astype(jnp.int32)
    bucket = jnp.where(found, bucket, 0)
    table, complete = table[probe], total <= max_candidates
    if tables.starts is None:
        return Candidates(bucket, table, found, complete)
    first = tables.starts.at[bucket].get(mode="promise_in_bounds")
    sizes = jnp.where(found, tables.starts.at[bucket + 1].get(mode="promise_in_bounds") - first, 0)
    slot, place, found, total = _fill_slots(sizes, max_candidates)
    position = jnp.where(found, jnp.take_along_axis(first, slot, axis=1) + place, 0)
    table, complete = jnp.take_along_axis(table, slot, axis=1), complete & (total <= max_candidates)
    ranks = position if tables.ranks is None else tables.ranks.at[position].get(mode="promise_in_bounds")
    return Candidates(ranks, table, found, complete)


def _look_up(
    bitmap: jax.Array, slices: tuple[Slice, ...], queries: jax.Array, radius: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Reads the words of all tables that have addresses near those of the queries.

    Returns:
        The numbers of the words in `bitmap`, int32 `[q, m]`; their addresses that are taken and near enough, uint32
        `[q, m]`; and the table of each probe, int32 `[m]`.
    """
    words, patterns, tables = [], [], []
    radii, start = divide_radius(radius, len(slices)), 0
    for number, (bits, reach, size) in enumerate(zip(slices, radii, count_words(slices), strict=True)):
        if reach >= 0:
            masks, left = make_flip_masks(bits.size, reach)
            address = extract_addresses(queries, bits)
            words.append(((address >> 5)[:, None] ^ masks[None]).astype(jnp.int32) + start)
            pattern = jnp.asarray(LOW_PATTERNS)[(address & 31).astype(jnp.int32)]
            patterns.append(jnp.take(pattern, left, axis=1))
            tables.append(jnp.full(len(masks), number, jnp.int32))
        start += size
    word = jnp.concatenate(words, axis=1)
    taken = bitmap.at[word].get(mode="promise_in_bounds") & jnp.concatenate(patterns, axis=1)
    return word, taken, jnp.concatenate(tables)


def _fill_slots(counts: jax.Array, num_slots: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Gives each of the things that are counted a slot, as far as there are any.

    Args:
        counts: int32 `[q, m]`, how many things there are in each of m groups.
        num_slots: how many slots there are for each query.

    Returns:
        For each slot its group and its place in the group, both int32 `[q, num_slots]`, and whether it holds anything,
        bool; if not, group and place are 0. And how many things there are, int32 `[q]`.
    """
    ends = jnp.cumsum(counts, axis=1, dtype=jnp.int32)
    slot = jnp.arange(num_slots, dtype=jnp.int32)
    # A thing's group is the number of groups that end at or before it.
    group = jax.vmap(lambda row: jnp.searchsorted(row, slot, side="right").astype(jnp.int32))(ends)
    found = slot[None] < ends[:, -1:]
    group = jnp.where(found, group, 0)
    place = slot[None] - jnp.take_along_axis(ends - counts, group, axis=1)
    return group, jnp.where(found, place, 0), found, ends[:, -1]


def _select_set_bit(words: jax.Array, place: jax.Array) -> jax.Array:
    """The position of the set bit of each word that has `place` set bits below it: uint32."""
    bit, place = jnp.zeros_like(words), place.astype(jnp.uint32)
    for width in (16, 8, 4, 2, 1):
        low = lax.population_count(words & jnp.uint32((1 << width) - 1))
        above = place >= low
        place -= jnp.where(above, low, 0)
        words = jnp.where(above, words >> width, words)
        bit += jnp.where(above, jnp.uint32(width), 0)
    return bit


def is_first_find(tables: ProbeTables, radius: int, differing: jax.Array, table: jax.Array) -> jax.Array:
    """Whether no earlier table than `table`, int32 `[q, c]`, led to a code as well: bool `[q, c]`.

    `differing` are the bits in which the code and the query differ, uint32 `[q, c, w]`.
    """
    earlier = jnp.zeros(table.shape, bool)
    for number, reach in enumerate(divide_radius(radius, len(tables.slices))):
        if number + 1 < len(tables.slices):
            flips = lax.population_count(extract_addresses(differing, tables.slices[number]))
            earlier |= (flips.astype(jnp.int32) <= reach) & (number < table)
    return ~earlier
