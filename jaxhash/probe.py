"""Probing: looking up the addresses a few flipped bits away, 32 at a time.

A code within radius r of a query has an address within r of the query's. The upper bits of the address are flipped one
mask after the other; whatever flips a mask leaves over may fall on the five lowest bits, and one AND with a pattern
tests all of their 32 values at once.
"""

import itertools
from functools import cache
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhash.dispatch import padded_rows
from jaxhash.tables import AddressTable, addresses

# Up to so many words a probe is quicker in numpy than a call of a compiled program.
WORDS_ON_HOST = 2**13
WORDS_AT_ONCE = 2**22


class Buckets(NamedTuple):
    """The buckets that queries hit, in no particular order."""

    query: np.ndarray  # int64 [h]
    first: np.ndarray  # int64 [h], the bucket's first place in its table
    size: np.ndarray  # int32 [h], the number of its codes


def num_probes(size: int, radius: int) -> int:
    """How many words of a bitmap of 2^size addresses are read for one query."""
    upper = max(0, size - 5)
    return sum(comb(upper, flips) for flips in range(min(radius, upper) + 1))


@cache
def flip_masks(size: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks that flip up to `radius` of the upper bits of an address, and how many flips each leaves over.

    Returns:
        uint32 `[m]` and int32 `[m]`, by the number of flips.
    """
    upper = max(0, size - 5)
    flips = range(min(radius, upper) + 1)
    masks = [sum(1 << bit for bit in bits) for count in flips for bits in itertools.combinations(range(upper), count)]
    left = np.repeat([min(radius - count, 5) for count in flips], [comb(upper, count) for count in flips])
    return np.array(masks, np.uint32), left.astype(np.int32)


# [32, 6]: for each value of the five lowest bits, the values within 0, 1, ... 5 flips of it.
LOW_PATTERNS = np.array(
    [
        [sum(1 << other for other in range(32) if (value ^ other).bit_count() <= flips) for flips in range(6)]
        for value in range(32)
    ],
    np.uint32,
)


def hit_words(bitmap: jax.Array, address: jax.Array, masks: jax.Array, left: jax.Array) -> jax.Array:
    """The taken addresses within reach, as words of 32 neighbours.

    Args:
        bitmap: uint32 `[2^(size - 5)]`.
        address: uint32 `[q]`.
        masks: uint32 `[m]`.
        left: int32 `[m]`.

    Returns:
        uint32 `[q, m]`; bit j stands for the address with the flipped upper bits and the five lowest bits j.
    """
    word = (address >> 5)[:, None] ^ masks[None]
    pattern = jnp.asarray(LOW_PATTERNS)[(address & 31).astype(jnp.int32)]
    return bitmap.at[word].get(mode="promise_in_bounds") & jnp.take(pattern, left, axis=1)


_compiled_hit_words = jax.jit(hit_words)


def _host_hit_words(bitmap: np.ndarray, address: np.ndarray, masks: np.ndarray, left: np.ndarray) -> np.ndarray:
    """`hit_words` in numpy: for a few words, calling a compiled program costs more than the work."""
    return bitmap[(address >> np.uint32(5))[:, None] ^ masks] & LOW_PATTERNS[address & np.uint32(31)][:, left]


def probe(table: AddressTable, queries: np.ndarray, radius: int) -> Buckets:
    """The buckets whose addresses lie within `radius` of those of queries uint32 `[q, w]`."""
    masks, left = flip_masks(table.bits.size, radius)
    address = addresses(queries, table.bits)
    if len(address) * len(masks) <= WORDS_ON_HOST:
        return _buckets(table, address, masks, _host_hit_words(table.bitmap, address, masks, left))
    size = 1 << max(0, (WORDS_AT_ONCE // len(masks)).bit_length() - 1)
    parts = []
    for start in range(0, len(address), size):
        batch = address[start : start + size]
        words = _compiled_hit_words(table.device_bitmap, padded_rows(batch, size), masks, left)
        found = _buckets(table, batch, masks, np.asarray(words)[: len(batch)])
        parts.append(found._replace(query=found.query + start))
    return Buckets(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _buckets(table: AddressTable, address: np.ndarray, masks: np.ndarray, words: np.ndarray) -> Buckets:
    """Turns words of hits, uint32 `[q, m]`, into buckets."""
    place = np.flatnonzero(words != 0)  # of bools it is several times faster than of numbers
    query = place // len(masks)  # numpy's divmod is several times slower than its // by one number
    mask = place - query * len(masks)
    upper = (address >> np.uint32(5))[query] ^ masks[mask]
    bits = np.unpackbits(words.reshape(-1)[place].astype("<u4").view(np.uint8), bitorder="little")
    taken = np.flatnonzero(bits.view(bool))
    row, bit = taken >> 5, (taken & 31).astype(np.uint32)
    return Buckets(query[row], *table.bucket_places(upper[row], bit))
