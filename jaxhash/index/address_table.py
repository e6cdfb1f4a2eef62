"""Address tables: lookup of codes by the value of a slice of their bits.

An address is the value of a slice of a code's bits. A bitmap holds one bit for each address, set if any code has it.
The rank of a set bit is the number of its bucket, the distinct codes that share the address. Codes are already sorted
by their first bits; the table of any other slice holds their ranks in the order of addresses.

A code within radius r of a query has an address within r of the query's. Each mask flips some of the upper bits of the
address; the remaining flips may be among the five lowest bits. A probe reads the bitmap word that covers the 32
addresses differing in these bits, and one AND with a pattern tests all of them.

A table of s bits takes 2^s / 4 bytes, plus 4 bytes per code if buckets hold several codes, plus 4 bytes per code if the
slice is not the first. Tables are not saved: reading a stored table and checking it against the codes takes as long as
building it in numpy.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from jaxhash.codes.bitmap import Bitmap, make_bitmap, rank
from jaxhash.codes.sorting import find_positions, mark_run_starts
from jaxhash.index.hash_index import HashIndex, cache_of, code_runs, sizes_of

Codes = TypeVar("Codes", np.ndarray, jax.Array)


class Slice(NamedTuple):
    """Consecutive bits of a code, at most 32."""

    first: int
    size: int


@dataclass(frozen=True, eq=False)
class AddressTable:
    """The buckets of one slice.

    bits: the slice.
    bitmap: `2^size` bits, set for the addresses of non-empty buckets.
    starts: int32 `[buckets + 1]`, the first position of each bucket; `None` if every bucket holds one code.
    ranks: int32 `[u]`, the rank of the code at each position; `None` if positions are ranks.
    crowding: the mean number of codes that share a code's address, relative to evenly distributed codes.
    """

    bits: Slice
    bitmap: Bitmap
    starts: np.ndarray | None
    ranks: np.ndarray | None
    crowding: float

    @property
    def num_bytes(self) -> int:
        """The size of the arrays."""
        return sum(array.nbytes for array in (*self.bitmap, self.starts, self.ranks) if array is not None)

    def find_buckets(self, addresses: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the first positions and the sizes of the non-empty buckets at addresses uint32 `[h]`.

        The sizes are `None` if every bucket holds one code.
        """
        bucket = rank(self.bitmap, addresses)
        if self.starts is None:
            return bucket, None
        first = self.starts[bucket]
        return first, self.starts[bucket + 1] - first


def extract_addresses(codes: Codes, bits: Slice) -> Codes:
    """Extracts the addresses of codes uint32 `[..., w]`, numpy or JAX arrays: uint32 `[...]`."""
    word, shift = divmod(bits.first, 32)
    spare = 32 - shift - bits.size
    if spare >= 0:
        address = codes[..., word] >> np.uint32(spare)
    else:
        address = (codes[..., word] << np.uint32(-spare)) | (codes[..., word + 1] >> np.uint32(32 + spare))
    return address & np.uint32((1 << bits.size) - 1)


def divide_radius(radius: int, num_tables: int) -> tuple[int, ...]:
    """Returns the radius for each of m tables, so that no match is lost; -1 means that a table is not probed.

    Let radius = a m + c with c < m. A code that differed from the query in more than a bits of each of the first c + 1
    slices, and in at least a bits of each other slice, would be at a distance of more than the radius.
    """
    quotient, rest = divmod(radius, num_tables)
    return tuple(quotient if i <= rest else quotient - 1 for i in range(num_tables))


@functools.cache
def make_flip_masks(size: int, radius: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """Makes the masks that flip up to `radius` of the upper bits of an address, by ascending number of flips.

    Returns:
        The masks, uint32 `[m]`, and the numbers of masks that flip at most 0, 1, ... bits, the last one m.
    """
    upper = max(0, size - 5)
    flips = range(min(radius, upper) + 1)
    masks = [sum(1 << bit for bit in bits) for count in flips for bits in itertools.combinations(range(upper), count)]
    return np.array(masks, np.uint32), tuple(itertools.accumulate(math.comb(upper, count) for count in flips))


# [6, 32]: for 0, 1, ... 5 flips and each value of the five lowest bits, the set of values within that many flips.
LOW_PATTERNS = np.array(
    [
        [sum(1 << other for other in range(32) if (value ^ other).bit_count() <= flips) for value in range(32)]
        for flips in range(6)
    ],
    np.uint32,
)


@functools.cache
def make_patterns(size: int, radius: int, low: int) -> np.ndarray:
    """Makes a pattern for each mask: the values of the five lowest bits within the remaining flips of `low`.

    Returns:
        uint32 `[m]`, for the masks of `make_flip_masks`.
    """
    _, ends = make_flip_masks(size, radius)
    left = np.repeat([min(radius - flips, 5) for flips in range(len(ends))], np.diff((0, *ends)))
    return LOW_PATTERNS[left, low]


def build_table(runs: Iterable[np.ndarray], bits: Slice) -> AddressTable:
    """Builds the table of a slice from the distinct codes in ascending order, in runs uint32 `[m, w]`."""
    addresses = (extract_addresses(codes, bits) for codes in runs)
    if bits.first == 0:
        return _build_from_sorted(addresses, bits, None)
    ordered, ranks = _sort_addresses(addresses)
    return _build_from_sorted([ordered], bits, ranks)


def _sort_addresses(runs: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sorts addresses, given in runs uint32 `[m]`, and returns them, uint32 `[u]`, with their ranks, int32 `[u]`.

    An in-place sort of uint64 with the ranks in the low halves takes a tenth of the time of a stable `argsort`.
    """
    keys = np.concatenate([np.zeros(0, np.uint32), *runs]).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(len(keys), dtype=np.uint32)
    keys.sort()
    ranks = keys.astype(np.uint32).view(np.int32)
    keys >>= np.uint64(32)
    return keys.astype(np.uint32), ranks


def _build_from_sorted(runs: Iterable[np.ndarray], bits: Slice, ranks: np.ndarray | None) -> AddressTable:
    """Builds a table from the addresses of all codes in ascending order, in runs uint32 `[m]`."""
    words = np.zeros(1 << max(0, bits.size - 5), np.uint32)
    marks, last = [np.zeros(0, bool)], np.zeros(0, np.uint32)
    for address in runs:
        marks.append(mark_run_starts(np.append(last, address))[len(last) :])
        last = address[-1:]
        _set_bits(words, address[marks[-1]])
    new = np.concatenate(marks)  # True for the first code of a bucket
    count, num_buckets = len(new), int(new.sum())
    starts = find_positions(new, count, num_buckets + 1) if num_buckets < count else None
    shared = 1.0 if starts is None else float(np.square(np.diff(starts), dtype=np.float64).sum()) / count
    return AddressTable(bits, make_bitmap(words), starts, ranks, shared / (1 + count / 2**bits.size))


def _set_bits(words: np.ndarray, addresses: np.ndarray) -> None:
    """Sets the bits of distinct addresses that are all unset: adding then equals OR and is twice as fast."""
    np.add.at(words, (addresses >> np.uint32(5)).astype(np.intp), np.uint32(1) << (addresses & np.uint32(31)))


def get_tables(index: HashIndex, slices: Sequence[Slice]) -> list[AddressTable]:
    """Returns the tables of an index for slices. Each is built once and lives as long as the index."""
    cache = cache_of(index)
    if any(bits not in cache.tables for bits in slices):
        with cache.lock:
            missing = [bits for bits in slices if bits not in cache.tables]
            # A separate pool: the caller may be a thread of `in_parallel`. Numpy sorts without the GIL.
            with ThreadPoolExecutor(2) as pool:
                built = list(pool.map(lambda bits: build_table(code_runs(index), bits), missing))
            cache.tables.update(zip(missing, built, strict=True))
            crowding = tuple((bits, table.crowding) for bits, table in cache.tables.items())
            cache.sizes = sizes_of(index)._replace(crowding=crowding)
    return [cache.tables[bits] for bits in slices]


def list_tables(index: HashIndex) -> list[AddressTable]:
    """Returns the tables built so far for an index, by slice."""
    return sorted(cache_of(index).tables.values(), key=lambda table: table.bits)
