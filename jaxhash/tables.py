"""Address tables: where the codes stand that share some of their bits.

An address is the value of a slice of the bits. One bit for each address says whether any code has it, so that a probe
reads 32 neighbouring addresses at a time, and a popcount gives the number of the bucket. The first bits of a code make
a table for probing (codes are sorted by them already); several slices that part all bits make those of multi-index
hashing (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing").

A table of s bits takes 2^s / 4 bytes, and for each code 4 bytes where buckets hold several codes and 4 more where the
slice is not the first. Tables are built when a search first needs them and live as long as their index; they are no
part of it, so neither files nor equality know of them.
"""

import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from jaxhash.index import HashIndex, code_runs
from jaxhash.sorting import new_runs, places_of, run_starts


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
        fresh.append(new_runs(np.append(last, address))[len(last) :])
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
        starts=places_of(new, len(new), num_buckets + 1) if num_buckets < len(new) else None,
        ranks=ranks,
    )


def _enter(bitmap: np.ndarray, taken: np.ndarray) -> None:
    """Sets the bits of distinct addresses in ascending order."""
    word = taken >> np.uint32(5)
    firsts = run_starts(word)
    if len(firsts):
        bitmap[word[firsts]] |= np.bitwise_or.reduceat(np.uint32(1) << (taken & np.uint32(31)), firsts)


_lock = threading.Lock()
_built: "weakref.WeakKeyDictionary[HashIndex, dict[Slice, AddressTable]]" = weakref.WeakKeyDictionary()


def tables_of(index: HashIndex, slices: tuple[Slice, ...]) -> list[AddressTable]:
    """The tables of an index for some slices; what is not there yet is built."""
    with _lock:
        tables = _built.setdefault(index, {})
        missing = [bits for bits in slices if bits not in tables]
        if missing:
            tables.update((bits, build_table(code_runs(index), bits)) for bits in missing)
        return [tables[bits] for bits in slices]


def are_built(index: HashIndex, slices: tuple[Slice, ...]) -> bool:
    """Whether the tables for these slices are there already."""
    with _lock:
        return all(bits in _built.get(index, {}) for bits in slices)
