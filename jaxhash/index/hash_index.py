"""The index: sorted codes with offsets into a list of ids, and nothing else.

Equal codes are stored once: code i belongs to the items `ids[offsets[i]:offsets[i + 1]]`. All arrays are padded to a
size that depends on their length alone. Collections of about one size therefore share one compiled search, and equal
collections have equal arrays.
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

# Codes that `code_runs` yields at a time.
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
    """Binary codes in ascending order and the ids of their items; built by `build_index`, a pytree of arrays.

    codes: uint32 `[w, blocks, g, L]`, the distinct codes, word-major. Rank r is at block `r // (g * L)`, column
      `r % (g * L) // g`, row `r % g`: each column holds g consecutive codes. The padding repeats the last code (zero in
      an empty index).
    offsets: int32 `[capacity + 1]`, where the items of each code start in `ids`; `num_items` after the last code.
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
        """How many distinct codes there is room for."""
        return self.offsets.shape[0] - 1

    def __repr__(self) -> str:
        return f"HashIndex(num_items={self.num_items}, num_codes={self.num_codes}, num_bits={self.num_bits})"


class Sizes(NamedTuple):
    """What the cost of a search depends on."""

    num_items: int
    num_codes: int
    num_bits: int
    capacity: int
    on_host: bool  # whether numpy reads the arrays without a transfer
    crowding: tuple[tuple[Any, float], ...] = ()  # by slice: see `AddressTable`


@dataclass(eq=False)
class Cache:
    """What searches keep beside one index object, and free with it. Files, copies, equality and tracing ignore it.

    Each field is `None` or empty until it is first needed. The first ones depend on the codes alone.
    """

    sizes: Sizes | None = None
    words: Any = None  # all codes by rank, for numpy: see `scan.host`
    tables: dict[Any, Any] = field(default_factory=dict)  # an `AddressTable` for each `Slice`
    device_tables: dict[Any, Any] = field(default_factory=dict)  # `ProbeTables` by their slices
    spent: dict[Any, float] = field(default_factory=dict)  # by slices: see `plan.decide`
    id_span: tuple[int, int] | None = None
    last_filter: tuple[Any, Any] | None = None  # the last mask of allowed items, and what was made of it
    numbered: Any = None  # the index with positions for ids: see `positions`
    shards: dict[int, HashIndex] | None = None  # those of this process, if the index is sharded
    lock: Any = field(default_factory=threading.RLock)

    def keep(self, name: str, make: Callable[[], Value]) -> Value:
        """Returns the value of a field, which is made once."""
        value: Value | None = getattr(self, name)
        if value is None:
            with self.lock:
                value = getattr(self, name)
                if value is None:
                    value = make()
                    setattr(self, name, value)
        return value

    def with_other_ids(self) -> "Cache":
        """Returns a cache that shares what depends on the codes alone."""
        return Cache(self.sizes, self.words, self.tables, self.device_tables, self.spent, lock=self.lock)

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, ()  # a copy, in this process or another, starts with nothing


def cache_of(index: Any) -> Cache:
    """Returns the cache of a `HashIndex` or `ShardedIndex`, which is made when it is first needed."""
    fields: dict[str, Any] = vars(index)
    # setdefault is atomic, so that all threads get one object.
    cache: Cache = fields.get("_cache") or fields.setdefault("_cache", Cache())
    return cache


def sizes_of(index: HashIndex) -> Sizes:
    """Returns the sizes of an index; fetching them from the device takes longer than some searches."""

    def fetch() -> Sizes:
        num_items, num_codes = jax.device_get((index.num_items, index.num_codes))
        return Sizes(int(num_items), int(num_codes), index.num_bits, index.capacity, is_on_host(index.codes))

    cache = cache_of(index)
    return cache.sizes or cache.keep("sizes", fetch)


def replace_ids(index: HashIndex, ids: jax.Array) -> HashIndex:
    """The same codes with other ids, which share the tables and all else that is kept of the codes."""
    other = replace(index, ids=ids)
    sizes_of(index)
    vars(other)["_cache"] = cache_of(index).with_other_ids()
    return other


def check_size(num_items: int, num_bits: int) -> None:
    """Refuses a collection whose positions don't fit in int32, which JAX would wrap silently."""
    if padded_size(num_items) * num_words(num_bits) > INT32_MAX:
        raise ValueError(
            f"{num_items} codes of {num_bits} bits are more than the 2^31 words one device can address: "
            "split them over several indexes (sharding)"
        )


def index_from_sorted(
    table: np.ndarray, offsets: np.ndarray, ids: np.ndarray, num_bits: int, multi: bool = False
) -> HashIndex:
    """Lays out sorted data: distinct codes uint32 `[u, w]`, offsets int32 `[u + 1]`, ids int32 `[n]`."""
    arrays = jax.device_put(layout(table, offsets, ids, len(table), len(ids)))
    return HashIndex(**arrays, num_bits=num_bits, multi=multi)


def layout(
    table: np.ndarray, offsets: np.ndarray, ids: np.ndarray, most_codes: int, most_items: int
) -> dict[str, np.ndarray]:
    """The arrays of a `HashIndex` of sorted codes, with room for the given numbers of codes and items."""
    group, lanes = tile_shape(table.shape[1])
    capacity = padded_size(most_codes, group * lanes)
    return {
        "codes": tile_codes(table, capacity),
        "offsets": pad_array(offsets, capacity + 1, len(ids)),
        "ids": pad_array(ids, padded_size(most_items), NO_ID),
        "num_codes": np.array(len(table), np.int32),
        "num_items": np.array(len(ids), np.int32),
    }


def tile_codes(table: np.ndarray, capacity: int) -> np.ndarray:
    """Codes `[u, w]` as uint32 `[w, blocks, g, L]`, padded to a capacity by the last code, or by zero."""
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
    """The rows and lanes `(g, L)` of a tile of codes of `width` words.

    g codes share a minimum in the scan, whose loop over them is unrolled. Past 128 popcounts the compiled code becomes
    10 to 40 times slower; from 16 words on, shorter lanes are twice as fast.
    """
    group = min(16, max(1, 2 ** int(math.log2(128 / width)))) if width <= 128 else 1
    return group, 64 if width < 16 else 16


def padded_size(count: int, multiple: int = 1024) -> int:
    """Room for `count`: rounded up to three significant bits, then to a multiple, so that there are few sizes."""
    step = 1 << max(0, count.bit_length() - 3)
    rounded = -(-count // step) * step
    return max(multiple, -(-rounded // multiple) * multiple)


def pad_array(array: np.ndarray, length: int, fill: Any) -> np.ndarray:
    """A copy of an array with its first axis padded to a length."""
    padded = _empty_aligned((length, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    padded[len(array) :] = fill
    return padded


def _empty_aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """As `np.empty`, aligned so that JAX on CPU takes the array over instead of copying it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


def sorted_arrays(index: HashIndex) -> Sorted:
    """The reverse of `index_from_sorted`: distinct codes `[u, w]`, offsets `[u + 1]`, ids `[n]`, as numpy arrays."""
    num_codes, num_items = int(index.num_codes), int(index.num_items)
    table = np.asarray(index.codes).transpose(1, 3, 2, 0).reshape(-1, index.num_words)
    return table[:num_codes], np.asarray(index.offsets)[: num_codes + 1], np.asarray(index.ids)[:num_items]


def find_words(index: HashIndex, ranks: Any) -> Any:
    """Where the codes of some ranks, integers of any shape, stand in each word's plane of `codes`, laid out flat."""
    _, _, group, lanes = index.codes.shape
    column = ranks // group
    row = ranks - column * group
    return (column // lanes * (group - 1) + row) * lanes + column


def codes_of_ranks(index: HashIndex, ranks: np.ndarray) -> np.ndarray:
    """The codes of some ranks, int `[m]`: uint32 `[m, w]`."""
    return np.asarray(index.codes).reshape(index.num_words, -1)[:, find_words(index, ranks)].T


def code_runs(index: HashIndex) -> Iterator[np.ndarray]:
    """Yields the distinct codes in order, some at a time: uint32 `[m, w]`."""
    tiles, left = np.asarray(index.codes), int(index.num_codes)
    width, blocks, group, lanes = tiles.shape
    size = max(1, CODES_PER_CHUNK // (group * lanes))
    for start in range(0, blocks, size):
        codes = tiles[:, start : start + size].transpose(1, 3, 2, 0).reshape(-1, width)[:left]
        if len(codes):
            yield codes
        left -= len(codes)
