"""Address tables, and probing them: finding codes by some of their bits instead of comparing all of them.

An address is the value of a slice of the bits. One bit for each address says whether any code has it, so that a probe
reads 32 neighbouring addresses at a time, and a popcount gives the number of the bucket. The first bits of a code make
a table for probing (codes are sorted by them already); several slices that part all bits make those of multi-index
hashing (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing").

A code within radius r of a query has an address within r of the query's. The upper bits of the address are flipped one
mask after the other; whatever flips a mask leaves over may fall on the five lowest bits, and one AND with a pattern
tests all of their 32 values at once.

A table of s bits takes 2^s / 4 bytes, and for each code 4 bytes where buckets hold several codes and 4 more where the
slice is not the first.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhash.codes.sorting import find_positions, find_run_starts, mark_run_starts
from jaxhash.core.batching import pad_rows
from jaxhash.index.hash_index import HashIndex, code_runs, memory_of


class Slice(NamedTuple):
    """Consecutive bits of a code, at most 32."""

    first: int
    size: int


@dataclass(frozen=True, eq=False)
class AddressTable:
    """The buckets of one slice. Address a is bit `a % 32`, the lowest first, of word `a // 32` of the bitmap.

    bits: the slice.
    bitmap: uint32 `[2^(size - 5)]`, which addresses are taken.
    device_bitmap: the same on the device.
    directory: int32 `[2^(size - 5)]`, the number of taken addresses before each word.
    starts: int32 `[buckets + 1]`, the first place of each bucket; `None` if every bucket holds one code.
    ranks: int32 `[u]`, the ranks of the codes by place; `None` if place is rank.
    """

    bits: Slice
    bitmap: np.ndarray
    device_bitmap: jax.Array
    directory: np.ndarray
    starts: np.ndarray | None
    ranks: np.ndarray | None

    def bucket_places(self, word: np.ndarray, bit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First place and number of codes of the taken addresses `word * 32 + bit`, int64 and int32 `[h]`."""
        below = self.bitmap[word] & ((np.uint32(1) << bit) - np.uint32(1))
        bucket = self.directory[word] + np.bitwise_count(below)
        if self.starts is None:
            return bucket, np.ones(len(bucket), np.int32)
        first = self.starts[bucket]
        return first, self.starts[bucket + 1] - first


def addresses(codes: np.ndarray, bits: Slice) -> np.ndarray:
    """The addresses of codes uint32 `[n, w]`: uint32 `[n]`."""
    word, shift = divmod(bits.first, 32)
    pair = codes[:, word].astype(np.uint64) << np.uint64(32)
    if word + 1 < codes.shape[1]:
        pair |= codes[:, word + 1]
    mask = np.uint64((1 << bits.size) - 1)
    return ((pair >> np.uint64(64 - shift - bits.size)) & mask).astype(np.uint32)


def build_table(runs: Iterable[np.ndarray], bits: Slice) -> AddressTable:
    """Builds the table of a slice of distinct codes, which come in ascending order, in runs uint32 `[m, w]`."""
    found, ranks = (addresses(codes, bits) for codes in runs), None
    if bits.first > 0:
        whole = np.concatenate([np.zeros(0, np.uint32), *found])
        order = np.argsort(whole, kind="stable")
        found, ranks = (address for address in [whole[order]]), order.astype(np.int32)
    bitmap = np.zeros(1 << max(0, bits.size - 5), np.uint32)
    fresh, last = [np.zeros(0, bool)], np.zeros(0, np.uint32)
    for address in found:
        fresh.append(mark_run_starts(np.append(last, address))[len(last) :])
        last = address[-1:]
        _enter(bitmap, address[fresh[-1]])
    new = np.concatenate(fresh)
    num_buckets = int(new.sum())
    counts = np.bitwise_count(bitmap)
    directory = np.cumsum(counts, dtype=np.int32)
    directory -= counts
    return AddressTable(
        bits=bits,
        bitmap=bitmap,
        device_bitmap=jax.device_put(bitmap),
        directory=directory,
        starts=find_positions(new, len(new), num_buckets + 1) if num_buckets < len(new) else None,
        ranks=ranks,
    )


def _enter(bitmap: np.ndarray, taken: np.ndarray) -> None:
    """Sets the bits of distinct addresses in ascending order."""
    word = taken >> np.uint32(5)
    firsts = find_run_starts(word)
    if len(firsts):
        bitmap[word[firsts]] |= np.bitwise_or.reduceat(np.uint32(1) << (taken & np.uint32(31)), firsts)


def get_tables(index: HashIndex, slices: tuple[Slice, ...]) -> list[AddressTable]:
    """The tables of an index for some slices. Missing ones are built, and remembered as long as the index lives."""
    memory = memory_of(index)
    return [memory.remember(bits, partial(_build_table_of, index, bits)) for bits in slices]


def _build_table_of(index: HashIndex, bits: Slice) -> AddressTable:
    return build_table(code_runs(index), bits)


# Up to so many words a probe is quicker in numpy than a call of a compiled program.
WORDS_ON_HOST = 2**13
WORDS_AT_ONCE = 2**22


class Buckets(NamedTuple):
    """The buckets that queries hit, in no particular order."""

    queries: np.ndarray  # int64 [h]
    firsts: np.ndarray  # int64 [h], the bucket's first position in its table
    sizes: np.ndarray  # int32 [h], the number of its codes


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
        words = _compiled_hit_words(table.device_bitmap, pad_rows(batch, size), masks, left)
        found = _buckets(table, batch, masks, np.asarray(words)[: len(batch)])
        parts.append(found._replace(queries=found.queries + start))
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
