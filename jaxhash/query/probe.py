"""Probing address tables: finding the codes near a query by some of their bits instead of comparing all of them.

A code within radius r of a query has an address within r of the query's. Each mask flips some of the upper bits of the
address. The remaining flips may fall on the five lowest bits. A probe reads one word of the table's bitmap, which
covers the 32 addresses that differ in these bits, and one AND with a pattern tests all of them.

Plain probing has one table, of the first bits. Multi-index hashing has a table for each of several slices, which divide
all bits (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing").
"""

import itertools
from functools import cache
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhash.core.batching import pad_rows
from jaxhash.index.address_table import AddressTable, extract_addresses

# Up to this many words, numpy probes sooner than a compiled program can be called.
WORDS_ON_HOST = 2**13
WORDS_AT_ONCE = 2**22


class Buckets(NamedTuple):
    """Pairs of a query and a bucket that it hits, in no particular order."""

    queries: np.ndarray  # int64 [h], the number of the query
    addresses: np.ndarray  # uint32 [h], that of the bucket
    firsts: np.ndarray  # int64 [h], the bucket's first position in its table
    sizes: np.ndarray  # int32 [h], the number of its codes


@cache
def make_flip_masks(size: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes the masks that flip up to `radius` of the upper bits of an address, in the order of their numbers of flips.

    Returns:
        The masks, uint32 `[m]`, and the flips that each leaves for the five lowest bits, int32 `[m]`.
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


def find_taken(bitmap: jax.Array, address: jax.Array, masks: jax.Array, left: jax.Array) -> jax.Array:
    """Finds the taken addresses within the radius of each query's address, as words of 32 neighbours.

    Args:
        bitmap: uint32 `[2^(size - 5)]`.
        address: uint32 `[q]`.
        masks: uint32 `[m]`, from `make_flip_masks`.
        left: int32 `[m]`, from `make_flip_masks`.

    Returns:
        uint32 `[q, m]`; bit j is for the address with the upper bits flipped by the mask and the five lowest bits j.
    """
    word = (address >> 5)[:, None] ^ masks[None]
    pattern = jnp.asarray(LOW_PATTERNS)[(address & 31).astype(jnp.int32)]
    return bitmap.at[word].get(mode="promise_in_bounds") & jnp.take(pattern, left, axis=1)


_compiled_find_taken = jax.jit(find_taken)


def _find_taken_on_host(bitmap: np.ndarray, address: np.ndarray, masks: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Does the same as `find_taken`, in numpy."""
    return bitmap[(address >> np.uint32(5))[:, None] ^ masks] & LOW_PATTERNS[address & np.uint32(31)][:, left]


def probe(table: AddressTable, queries: np.ndarray, radius: int) -> Buckets:
    """Finds the buckets whose addresses lie within `radius` of those of queries uint32 `[q, w]`."""
    masks, left = make_flip_masks(table.bits.size, radius)
    address = extract_addresses(queries, table.bits)
    if len(address) * len(masks) <= WORDS_ON_HOST:
        return _collect_buckets(table, address, masks, _find_taken_on_host(table.bitmap, address, masks, left))
    size = 1 << max(0, (WORDS_AT_ONCE // len(masks)).bit_length() - 1)
    parts = []
    for start in range(0, len(address), size):
        batch = address[start : start + size]
        words = _compiled_find_taken(table.device_bitmap, pad_rows(batch, size), masks, left)
        found = _collect_buckets(table, batch, masks, np.asarray(words)[: len(batch)])
        parts.append(found._replace(queries=found.queries + start))
    return Buckets(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _collect_buckets(table: AddressTable, address: np.ndarray, masks: np.ndarray, words: np.ndarray) -> Buckets:
    """Turns words of taken addresses, uint32 `[q, m]`, into buckets."""
    position = np.flatnonzero(words != 0)  # several times faster on bools than on numbers
    query = position // len(masks)  # numpy's divmod is several times slower than its // by one number
    mask = position - query * len(masks)
    upper = (address >> np.uint32(5))[query] ^ masks[mask]
    row, bit = _find_set_bits(words.reshape(-1)[position])
    word = upper[row]
    return Buckets(query[row], (word << np.uint32(5)) | bit, *table.find_buckets(word, bit))


def _find_set_bits(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the set bits of words uint32 `[m]`: their words, int64 `[h]`, and numbers in the word, uint32 `[h]`."""
    bits = np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little")
    found = np.flatnonzero(bits.view(bool))
    return found >> 5, (found & 31).astype(np.uint32)
