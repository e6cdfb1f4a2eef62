"""Address tables: finding codes by the value of some of their bits.

An address is the value of a slice of a code's bits. A bitmap holds one bit for each address, set if any code has it. A
popcount turns a set bit into the number of its bucket, the distinct codes that share the address. Codes are sorted by
their first bits already; the table of any other slice holds their ranks in the order of addresses.

A table of s bits takes 2^s / 4 bytes, plus 4 bytes a code if buckets hold several codes, plus 4 bytes a code if the
slice is not the first.

Tables are built from the codes alone and are never written to files: numpy sorts so quickly that reading a stored table
and checking it against the codes takes as long as building it.
"""

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from jaxhash.codes.sorting import find_positions, mark_run_starts
from jaxhash.index.hash_index import HashIndex, code_runs, memory_of

Codes = TypeVar("Codes", np.ndarray, jax.Array)

# The bits of an address beyond those that would number the codes, at most.
SPARE_BITS = 6


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

    @property
    def num_bytes(self) -> int:
        """The memory that the arrays take on the host."""
        return sum(
            array.nbytes for array in (self.bitmap, self.directory, self.starts, self.ranks) if array is not None
        )

    def find_buckets(self, word: np.ndarray, bit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first positions and the sizes of the buckets of taken addresses `word * 32 + bit`: int `[h]`."""
        below = self.bitmap[word] & ((np.uint32(1) << bit) - np.uint32(1))
        bucket = self.directory[word] + np.bitwise_count(below)
        if self.starts is None:
            return bucket, np.ones(len(bucket), np.int32)
        first = self.starts[bucket]
        return first, self.starts[bucket + 1] - first


def longest_address(num_codes: int) -> int:
    """The most bits that a table's addresses have: more would hardly make buckets smaller.

    It bounds a bitmap and its directory to 16 to 32 bytes a code.
    """
    return max(8, math.ceil(math.log2(max(2, num_codes))) + SPARE_BITS)


def extract_addresses(codes: Codes, bits: Slice) -> Codes:
    """Extracts the addresses of codes uint32 `[..., w]`, numpy or JAX arrays: uint32 `[...]`."""
    word, shift = divmod(bits.first, 32)
    spare = 32 - shift - bits.size
    if spare >= 0:
        address = codes[..., word] >> np.uint32(spare)
    else:
        address = (codes[..., word] << np.uint32(-spare)) | (codes[..., word + 1] >> np.uint32(32 + spare))
    return address & np.uint32((1 << bits.size) - 1)


def build_table(runs: Iterable[np.ndarray], bits: Slice) -> AddressTable:
    """Builds the table of a slice from the distinct codes in ascending order, in runs uint32 `[m, w]`."""
    addresses = (extract_addresses(codes, bits) for codes in runs)
    if bits.first == 0:
        return _build_from_sorted(addresses, bits, None)
    ordered, ranks = _sort_addresses(addresses)
    return _build_from_sorted([ordered], bits, ranks)


def _sort_addresses(runs: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sorts addresses, in runs uint32 `[m]`: all of them, uint32 `[u]`, and the rank of each, int32 `[u]`.

    One sort of uint64 in place, with the ranks in the low halves, takes a tenth of the time of a stable `argsort`.
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
    """Sets the bits of distinct addresses, none of which is set: adding is then as good as OR, and twice as fast."""
    np.add.at(bitmap, (addresses >> np.uint32(5)).astype(np.intp), np.uint32(1) << (addresses & np.uint32(31)))


def get_tables(index: HashIndex, slices: tuple[Slice, ...]) -> list[AddressTable]:
    """Returns the tables of an index for some slices. They are built once and live as long as the index."""

    def build(missing: list[Slice]) -> list[AddressTable]:
        # Threads of its own: the caller may be one of those of `in_parallel`. Numpy sorts without the GIL.
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda bits: build_table(code_runs(index), bits), missing))

    return memory_of(index).remember_all(slices, build)


def list_tables(index: HashIndex) -> list[AddressTable]:
    """Returns the tables that have been built for an index, by slice."""
    return sorted(memory_of(index).values_of(AddressTable), key=lambda table: table.bits)
