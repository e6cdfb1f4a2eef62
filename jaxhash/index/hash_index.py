"""The index: sorted codes with offsets into a list of ids.

Equal codes are stored once: code i belongs to the items `ids[offsets[i]:offsets[i + 1]]`. The padded size of an array
depends on its length alone. So collections of similar size share one compiled search, and equal collections have equal
arrays.
"""

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from jaxhash.core.checks import INT32_MAX, is_on_host, num_words

NO_ID = -1

# Codes in an array from `code_runs`.
CODES_PER_CHUNK = 2**24

# Distinct codes uint32 [u, w] in ascending order, their offsets int32 [u + 1] and ids int32 [n].
Sorted = tuple[np.ndarray, np.ndarray, np.ndarray]
Value = TypeVar("Value")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["codes", "offsets", "ids", "num_codes", "num_items"],
    meta_fields=["num_bits", "multi"],
)
@dataclass(frozen=True, eq=False, repr=False)
class HashIndex:
    """A pytree of binary codes in ascending order and the ids of their items; built by `build_index`.

    codes: uint32 `[w, blocks, g, L]`, the distinct codes, word-major. Rank r is at block `r // (g * L)`, column
      `r % (g * L) // g`, row `r % g`: each column holds g consecutive codes. The padding repeats the last code (zero in
      an empty index).
    offsets: int32 `[capacity + 1]`, the start of each code's items in `ids`; `num_items` after the last code.
    ids: int32 `[item_capacity]`, ascending within each code; `NO_ID` after the last item.
    num_codes: int32 `[]`, the number of distinct codes, `u`.
    num_items: int32 `[]`, the number of items, `n`; with `multi`, the number of pairs of code and id.
    num_bits: the number of bits of a code, `b` (static).
    multi: whether an id may belong to several codes (static).
    """

    codes: jax.Array  # uint32 [w, blocks, g, L]
    offsets: jax.Array  # int32 [capacity + 1]
    ids: jax.Array  # int32 [item_capacity]
    num_codes: jax.Array  # int32 []
    num_items: jax.Array  # int32 []
    num_bits: int
    multi: bool = False

    @property
    def num_words(self) -> int:
        """The number of 32-bit words of a code, `w`."""
        return self.codes.shape[0]

    @property
    def capacity(self) -> int:
        """The number of distinct codes that fit the arrays."""
        return self.offsets.shape[0] - 1

    def __repr__(self) -> str:
        return f"HashIndex(num_items={self.num_items}, num_codes={self.num_codes}, num_bits={self.num_bits})"


class Sizes(NamedTuple):
    """The properties of an index that determine the cost of a search."""

    num_items: int
    num_codes: int
    num_bits: int
    capacity: int
    on_host: bool  # whether numpy reads the arrays without a transfer
    crowding: tuple[tuple[Any, float], ...] = ()  # by slice: see `AddressTable`


@dataclass(eq=False)
class Cache:
    """Cached data of one index object, freed with it. Files, copies, equality and tracing ignore it.

    Each field is `None` or empty until first needed. The fields up to `spent` depend on the codes alone.
    """

    sizes: Sizes | None = None
    words: Any = None  # all codes by rank, for numpy: see `scan.host`
    tables: dict[Any, Any] = field(default_factory=dict)  # an `AddressTable` for each `Slice`
    device_tables: dict[Any, Any] = field(default_factory=dict)  # `ProbeTables` by their slices
    spent: dict[Any, float] = field(default_factory=dict)  # by slices: see `plan.decide`
    id_span: tuple[int, int] | None = None
    last_filter: tuple[Any, Any] | None = None  # the last mask, and the filter or small index built from it
    numbered: Any = None  # the index with positions as ids: see `positions`
    shards: dict[int, HashIndex] | None = None  # the shards of this process, if the index is sharded
    lock: Any = field(default_factory=threading.RLock)

    def keep(self, name: str, make: Callable[[], Value]) -> Value:
        """Returns the value of a field, computed once."""
        value: Value | None = getattr(self, name)
        if value is None:
            with self.lock:
                value = getattr(self, name)
                if value is None:
                    value = make()
                    setattr(self, name, value)
        return value

    def with_other_ids(self) -> "Cache":
        """Returns a cache that shares the fields that depend on the codes alone."""
        return Cache(self.sizes, self.words, self.tables, self.device_tables, self.spent, lock=self.lock)

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, ()  # copies and pickles start empty


def cache_of(index: Any) -> Cache:
    """Returns the cache of a `HashIndex` or `ShardedIndex`, created on the first call."""
    fields: dict[str, Any] = vars(index)
    # setdefault is atomic, so all threads get one object.
    cache: Cache = fields.get("_cache") or fields.setdefault("_cache", Cache())
    return cache


def sizes_of(index: HashIndex) -> Sizes:
    """Returns the sizes of an index, cached since fetching them from the device takes longer than some searches."""

    def fetch() -> Sizes:
        num_items, num_codes = jax.device_get((index.num_items, index.num_codes))
        return Sizes(int(num_items), int(num_codes), index.num_bits, index.capacity, is_on_host(index.codes))

    cache = cache_of(index)
    return cache.sizes or cache.keep("sizes", fetch)


def replace_ids(index: HashIndex, ids: jax.Array) -> HashIndex:
    """Returns an index of the same codes with other ids. The two share tables and other cached data of the codes."""
    other = replace(index, ids=ids)
    sizes_of(index)
    vars(other)["_cache"] = cache_of(index).with_other_ids()
    return other


def check_size(num_items: int, num_bits: int) -> None:
    """Raises if positions in the arrays exceed int32, which JAX would wrap silently."""
    if padded_size(num_items) * num_words(num_bits) > INT32_MAX:
        raise ValueError(
            f"{num_items} codes of {num_bits} bits are more than the 2^31 words one device can address: "
            "split them over several indexes (sharding)"
        )


def index_from_sorted(
    table: np.ndarray, offsets: np.ndarray, ids: np.ndarray, num_bits: int, multi: bool = False
) -> HashIndex:
    """Builds an index from sorted arrays: distinct codes uint32 `[u, w]`, offsets int32 `[u + 1]`, ids int32 `[n]`."""
    arrays = jax.device_put(layout(table, offsets, ids, len(table), len(ids)))
    return HashIndex(**arrays, num_bits=num_bits, multi=multi)


def layout(
    table: np.ndarray, offsets: np.ndarray, ids: np.ndarray, max_codes: int, max_items: int
) -> dict[str, np.ndarray]:
    """Returns the arrays of a `HashIndex` from sorted arrays, padded for the given numbers of codes and items."""
    group, lanes = tile_shape(table.shape[1])
    capacity = padded_size(max_codes, group * lanes)
    return {
        "codes": tile_codes(table, capacity),
        "offsets": pad_array(offsets, capacity + 1, len(ids)),
        "ids": pad_array(ids, padded_size(max_items), NO_ID),
        "num_codes": np.array(len(table), np.int32),
        "num_items": np.array(len(ids), np.int32),
    }


def tile_codes(table: np.ndarray, capacity: int) -> np.ndarray:
    """Tiles codes `[u, w]` as uint32 `[w, blocks, g, L]`, padded to a capacity with the last code, or with zeros."""
    count, width = table.shape
    group, lanes = tile_shape(width)
    tile = group * lanes
    blocks, full = capacity // tile, count // tile
    tiles = _empty_aligned((width, blocks, group, lanes), np.uint32)
    in_tiles = (-1, lanes, group, width)
    tiles[:, :full] = table[: full * tile].reshape(in_tiles).transpose(3, 0, 2, 1)
    rest = pad_array(table[full * tile :], (blocks - full) * tile, table[-1] if count else 0)
    tiles[:, full:] = rest.reshape(in_tiles).transpose(3, 0, 2, 1)
    return tiles


def tile_shape(width: int) -> tuple[int, int]:
    """Returns the rows and lanes `(g, L)` of a tile of codes of `width` words.

    The scan computes one minimum for each g codes in an unrolled loop. Past 128 popcounts the compiled code becomes 10
    to 40 times slower; from 16 words on, fewer lanes are twice as fast.
    """
    group = min(16, max(1, 2 ** int(math.log2(128 / width)))) if width <= 128 else 1
    return group, 64 if width < 16 else 16


def padded_size(count: int, multiple: int = 1024) -> int:
    """Rounds `count` up to three significant bits, then to a multiple, so that few sizes occur."""
    step = 1 << max(0, count.bit_length() - 3)
    rounded = -(-count // step) * step
    return max(multiple, -(-rounded // multiple) * multiple)


def pad_array(array: np.ndarray, length: int, fill: Any) -> np.ndarray:
    """Returns a copy of an array with its first axis padded to a length."""
    padded = _empty_aligned((length, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    padded[len(array) :] = fill
    return padded


def _empty_aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Works like `np.empty`, but with an alignment that lets JAX on CPU use the array without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(size + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + size].view(dtype).reshape(shape)


def sorted_arrays(index: HashIndex) -> Sorted:
    """Inverts `index_from_sorted`: returns distinct codes `[u, w]`, offsets `[u + 1]`, ids `[n]`, as numpy arrays."""
    num_codes, num_items = int(index.num_codes), int(index.num_items)
    table = np.asarray(index.codes).transpose(1, 3, 2, 0).reshape(-1, index.num_words)
    return table[:num_codes], np.asarray(index.offsets)[: num_codes + 1], np.asarray(index.ids)[:num_items]


def find_words(index: HashIndex, ranks: Any) -> Any:
    """Returns the positions of codes in each flattened word plane of `codes`, given ranks of any shape."""
    _, _, group, lanes = index.codes.shape
    column = ranks // group
    row = ranks - column * group
    return (column // lanes * (group - 1) + row) * lanes + column


def codes_of_ranks(index: HashIndex, ranks: np.ndarray) -> np.ndarray:
    """Returns the codes of ranks, int `[m]`: uint32 `[m, w]`."""
    return np.asarray(index.codes).reshape(index.num_words, -1)[:, find_words(index, ranks)].T


def code_runs(index: HashIndex) -> Iterator[np.ndarray]:
    """Yields the distinct codes in order, in chunks uint32 `[m, w]`."""
    tiles, left = np.asarray(index.codes), int(index.num_codes)
    width, blocks, group, lanes = tiles.shape
    size = max(1, CODES_PER_CHUNK // (group * lanes))
    for start in range(0, blocks, size):
        codes = tiles[:, start : start + size].transpose(1, 3, 2, 0).reshape(-1, width)[:left]
        if len(codes):
            yield codes
        left -= len(codes)
