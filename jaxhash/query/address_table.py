"""Address tables, and probing them: finding codes by some of their bits instead of comparing all of them.

An address is the value of a slice of a code's bits. A bitmap holds one bit for each address, set if any code has it. A
probe reads one word, which covers 32 neighbouring addresses, and a popcount turns a set bit into the number of its
bucket. Plain probing has one table, of the first bits, by which codes are sorted already. Multi-index hashing has a
table for each of several slices, which divide all bits (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space
with multi-index hashing").

A code within radius r of a query has an address within r of the query's. Each mask flips some of the upper bits of the
address. The remaining flips may fall on the five lowest bits; one AND with a pattern tests all of their 32 values.

A table of s bits takes 2^s / 4 bytes, plus 4 bytes a code if buckets hold several codes, plus 4 bytes a code if the
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

# Up to this many words, numpy probes sooner than a compiled program can be called.
WORDS_ON_HOST = 2**13
WORDS_AT_ONCE = 2**22


class Slice(NamedTuple):
    """Consecutive bits of a code, at most 32."""

    first: int
    size: int


@dataclass(frozen=True, eq=False)
class AddressTable:
    """The buckets of one slice. Address a is bit `a % 32`, the lowest first, of word `a // 32` of the bitmap.

    bits: the slice.
    bitmap: uint32 `[2^(size - 5)]`, the taken addresses.
    device_bitmap: the same on the device.
    directory: int32 `[2^(size - 5)]`, the number of taken addresses before each word.
    starts: int32 `[buckets + 1]`, the first position of each bucket; `None` if every bucket holds one code.
    ranks: int32 `[u]`, the rank of the code at each position; `None` if positions are ranks.
    """

    bits: Slice
    bitmap: np.ndarray
    device_bitmap: jax.Array
    directory: np.ndarray
    starts: np.ndarray | None
    ranks: np.ndarray | None

    def find_buckets(self, word: np.ndarray, bit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first positions and the sizes of the buckets of taken addresses `word * 32 + bit`: int `[h]`."""
        below = self.bitmap[word] & ((np.uint32(1) << bit) - np.uint32(1))
        bucket = self.directory[word] + np.bitwise_count(below)
        if self.starts is None:
            return bucket, np.ones(len(bucket), np.int32)
        first = self.starts[bucket]
        return first, self.starts[bucket + 1] - first


def extract_addresses(codes: np.ndarray, bits: Slice) -> np.ndarray:
    """Extracts the addresses of codes uint32 `[n, w]`: uint32 `[n]`."""
    word, shift = divmod(bits.first, 32)
    pair = codes[:, word].astype(np.uint64) << np.uint64(32)
    if word + 1 < codes.shape[1]:
        pair |= codes[:, word + 1]
    mask = np.uint64((1 << bits.size) - 1)
    return ((pair >> np.uint64(64 - shift - bits.size)) & mask).astype(np.uint32)


def build_table(runs: Iterable[np.ndarray], bits: Slice) -> AddressTable:
    """Builds the table of a slice from the distinct codes in ascending order, in runs uint32 `[m, w]`."""
    addresses = (extract_addresses(codes, bits) for codes in runs)
    if bits.first == 0:
        return _build_from_sorted(addresses, bits, None)
    unsorted = np.concatenate([np.zeros(0, np.uint32), *addresses])
    ranks = np.argsort(unsorted, kind="stable")
    return _build_from_sorted([unsorted[ranks]], bits, ranks.astype(np.int32))


def _build_from_sorted(runs: Iterable[np.ndarray], bits: Slice, ranks: np.ndarray | None) -> AddressTable:
    """Builds a table from the addresses of all codes in ascending order, in runs uint32 `[m]`."""
    bitmap = np.zeros(1 << max(0, bits.size - 5), np.uint32)
    marks, last = [np.zeros(0, bool)], np.zeros(0, np.uint32)
    for address in runs:
        marks.append(mark_run_starts(np.append(last, address))[len(last) :])
        last = address[-1:]
        _set_bits(bitmap, address[marks[-1]])
    new = np.concatenate(marks)  # which codes begin a bucket
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


def _set_bits(bitmap: np.ndarray, addresses: np.ndarray) -> None:
    """Sets the bits of distinct addresses in ascending order."""
    word = addresses >> np.uint32(5)
    firsts = find_run_starts(word)
    if len(firsts):
        bitmap[word[firsts]] |= np.bitwise_or.reduceat(np.uint32(1) << (addresses & np.uint32(31)), firsts)


def get_tables(index: HashIndex, slices: tuple[Slice, ...]) -> list[AddressTable]:
    """Returns the tables of an index for some slices. They are built once and live as long as the index."""
    memory = memory_of(index)
    return [memory.remember(bits, partial(_build_table_of, index, bits)) for bits in slices]


def _build_table_of(index: HashIndex, bits: Slice) -> AddressTable:
    return build_table(code_runs(index), bits)


class Buckets(NamedTuple):
    """Pairs of a query and a bucket that it hits, in no particular order."""

    queries: np.ndarray  # int64 [h], the number of the query
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
    return Buckets(query[row], *table.find_buckets(upper[row], bit))


def _find_set_bits(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the set bits of words uint32 `[m]`: their words, int64 `[h]`, and numbers in the word, uint32 `[h]`."""
    bits = np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little")
    found = np.flatnonzero(bits.view(bool))
    return found >> 5, (found & 31).astype(np.uint32)
