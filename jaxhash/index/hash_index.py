"""The index: sorted codes with offsets into a list of ids, and nothing else.

Equal codes are stored once: code i is that of the items `ids[offsets[i]:offsets[i + 1]]`. All arrays have some spare
room, a function of their length alone, so that collections of about one size share one compiled search and equal
collections have equal arrays.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.sorting import (
    AT_ONCE,
    Pairs,
    drop_duplicates,
    find_positions,
    mark_run_starts,
    select_rows,
    sort_pairs,
)
from jaxhash.core.checks import (
    INT32_MAX,
    check_codes,
    check_ids,
    check_num_bits,
    is_stream,
    num_words,
)

NO_ID = -1


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["codes", "offsets", "ids", "num_codes", "num_items"],
    meta_fields=["num_bits", "multi"],
)
@dataclass(frozen=True, eq=False, repr=False)
class HashIndex:
    """Binary codes in ascending order and the items that bear them; made by `build_index`, a pytree of arrays.

    codes: uint32 `[w, blocks, g, L]`, the distinct codes, word-major. Rank r stands at block `r // (g * L)`, column
      `r % (g * L) // g`, row `r % g`, so that each column holds g consecutive codes. The last code fills the room
      behind it; in an empty index, zero does.
    offsets: int32 `[capacity + 1]`, where the items of each code start in `ids`; `num_items` behind the last code.
    ids: int32 `[item_capacity]`, ascending within each code; `NO_ID` behind the last item.
    num_codes: int32 `[]`, the number of distinct codes, `u`.
    num_items: int32 `[]`, the number of items, `n`; if they may have several codes, of pairs of code and id.
    num_bits: the number of bits of a code, `b` (static).
    multi: whether an id may stand under several codes (static).
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


def build_index(
    codes: ArrayLike | Iterable[ArrayLike | tuple[ArrayLike, ArrayLike]],
    num_bits: int,
    *,
    ids: ArrayLike | None = None,
    multi: bool = False,
) -> HashIndex:
    """Builds an index of packed codes.

    Args:
        codes: uint32 `[n, w]`, as `pack_bits` and `encode` give them; a numpy or JAX array. Or an iterable of batches:
            of such arrays, or of tuples of codes and their ids. It is gone through once. Building takes 17 bytes of
            memory for each item where codes have one word, and 34 where they have two, the finished index among them.
        num_bits: the number of bits of a code, `b`.
        ids: distinct integers in [0, 2^31), `[n]`, one for each code; by default 0, 1, 2, ... Batches bring their own.
        multi: lets an item have several codes, as the patches of an image have: ids may repeat, and codes `[n, p, w]`
            are the p codes of each of n items. Each code of an item counts once. Searches then find pairs of code and
            id, so that an id may come several times; `bag_search` finds items.

    Returns:
        A `HashIndex`. It depends only on the pairs of code and id, not on their order.

    Raises:
        ValueError: the codes have another shape or set padding bits; ids repeat, don't match or are out of range;
            there are more items than one device can number; or an iterable has no batches, as if it had been gone
            through before.
        TypeError: `codes` is not uint32, or `ids` are not integers.
    """
    if is_stream(codes):
        if ids is not None:
            raise ValueError("ids of codes that come in batches must come with them: give tuples of codes and ids")
        return _index_of(sort_pairs(_collected(codes, num_bits, multi)), num_bits, multi)
    return _index_of(sort_pairs(check_pairs(cast(ArrayLike, codes), num_bits, ids, multi)), num_bits, multi)


def _index_of(pairs: Pairs, num_bits: int, multi: bool) -> HashIndex:
    """The index of sorted pairs. Each array is let go as soon as can be, since all together take several times more."""
    codes, ids = drop_duplicates(pairs) if multi else pairs
    del pairs
    arrays = {"ids": _padded(ids, padded_size(len(ids)), NO_ID), "num_items": np.array(len(ids), np.int32)}
    new = mark_run_starts(codes)
    table = select_rows(codes, new)
    del codes, ids
    group, lanes = tile_shape(table.shape[1])
    num_codes, capacity = len(table), padded_size(len(table), group * lanes)
    arrays["num_codes"] = np.array(num_codes, np.int32)
    arrays["codes"] = _tiled(table, capacity // (group * lanes), lanes, group)
    del table
    arrays["offsets"] = find_positions(new, len(new), capacity + 1)
    return HashIndex(**jax.device_put(arrays), num_bits=num_bits, multi=multi)


def _collected(batches: Iterable[Any], num_bits: int, multi: bool) -> Pairs:
    """All codes of a stream and their ids."""
    check_num_bits(num_bits)
    tables, labels = [], []
    for batch in batches:
        codes, ids = batch if isinstance(batch, tuple) else (batch, None)
        tables.append(np.array(check_table(codes, num_bits, multi)))  # a copy: loaders may use their memory again
        if ids is not None:
            labels.append(check_ids(ids, len(tables[-1]), distinct=not multi).copy())
        if len(labels) not in (0, len(tables)):
            raise ValueError("either all batches must have ids or none")
    if not tables:
        raise ValueError("codes must come in at least one batch; an iterator can only be gone through once")
    if len({table.shape[1:] for table in tables}) > 1:
        raise ValueError("items must have equally many codes in all batches; give batches [m, w] and repeat ids")
    table = np.concatenate(tables)
    check_size(math.prod(table.shape[:-1]), num_bits)
    return _paired(table, check_ids(np.concatenate(labels) if labels else None, len(table), distinct=not multi))


def check_pairs(codes: ArrayLike, num_bits: int, ids: ArrayLike | None, multi: bool) -> Pairs:
    """Returns codes and their ids, once they are what an index can take."""
    table = check_table(codes, num_bits, multi)
    return _paired(table, check_ids(ids, len(table), distinct=not multi))


def _paired(table: np.ndarray, ids: np.ndarray) -> Pairs:
    """Codes `[n, w]`, or p codes of each item `[n, p, w]`, with the ids `[n]` of their items."""
    if table.ndim == 2:
        return Pairs(table, ids)
    return Pairs(table.reshape(-1, table.shape[2]), np.repeat(ids, table.shape[1]))


def check_table(codes: ArrayLike, num_bits: int, multi: bool = False) -> np.ndarray:
    """Returns codes as a native uint32 array `[n, w]`, or perhaps `[n, p, w]`, once they are what an index can take."""
    width = num_words(check_num_bits(num_bits))
    shape = np.shape(codes)
    if len(shape) != 2 and not (multi and len(shape) == 3):
        several = f" or [n, p, {width}]" if multi else ""
        raise ValueError(f"codes must have shape [n, {width}]{several}, got {shape}")
    check_size(math.prod(shape[:-1]), num_bits)
    return check_codes("codes", codes, num_bits)


def check_size(num_items: int, num_bits: int) -> None:
    """Refuses a collection whose positions don't fit in int32, which JAX would wrap without a word."""
    if padded_size(num_items) * num_words(num_bits) > INT32_MAX:
        raise ValueError(
            f"{num_items} codes of {num_bits} bits are more than the 2^31 words one device can address: "
            "split them over several indexes (sharding)"
        )


def index_from_sorted(
    table: np.ndarray, offsets: np.ndarray, ids: np.ndarray, num_bits: int, multi: bool = False
) -> HashIndex:
    """Lays out what is already sorted: distinct codes uint32 `[u, w]`, offsets int32 `[u + 1]`, ids int32 `[n]`."""
    arrays = jax.device_put(layout(table, offsets, ids, len(table), len(ids)))
    return HashIndex(**arrays, num_bits=num_bits, multi=multi)


def layout(
    table: np.ndarray, offsets: np.ndarray, ids: np.ndarray, most_codes: int, most_items: int
) -> dict[str, np.ndarray]:
    """The arrays of a `HashIndex` of sorted codes, with room for as many codes and items as given."""
    group, lanes = tile_shape(table.shape[1])
    capacity = padded_size(most_codes, group * lanes)
    return {
        "codes": _tiled(table, capacity // (group * lanes), lanes, group),
        "offsets": _padded(offsets, capacity + 1, len(ids)),
        "ids": _padded(ids, padded_size(most_items), NO_ID),
        "num_codes": np.array(len(table), np.int32),
        "num_items": np.array(len(ids), np.int32),
    }


def _tiled(table: np.ndarray, blocks: int, lanes: int, group: int) -> np.ndarray:
    """Codes `[u, w]` as uint32 `[w, blocks, g, L]`, with the last code, or zero, in the room behind it."""
    count, width = table.shape
    tiles = _empty((width, blocks, group, lanes), np.uint32)
    full, tile = count // (group * lanes), group * lanes
    in_tiles = (-1, lanes, group, width)
    tiles[:, :full] = table[: full * tile].reshape(in_tiles).transpose(3, 0, 2, 1)
    rest = _padded(table[full * tile :], (blocks - full) * tile, table[-1] if count else 0)
    tiles[:, full:] = rest.reshape(in_tiles).transpose(3, 0, 2, 1)
    return tiles


def tile_shape(width: int) -> tuple[int, int]:
    """The rows and lanes `(g, L)` of a tile of codes of `width` words.

    g is how many codes share a minimum in the scan. Its loop is unrolled, and past 128 popcounts the compiled code
    falls off a cliff; from 16 words on shorter lanes are twice as fast.
    """
    group = min(16, max(1, 2 ** int(math.log2(128 / width)))) if width <= 128 else 1
    return group, 64 if width < 16 else 16


def padded_size(count: int, multiple: int = 1024) -> int:
    """Room for `count`: rounded up to three significant bits, then to a multiple, so that there are few sizes."""
    step = 1 << max(0, count.bit_length() - 3)
    rounded = -(-count // step) * step
    return max(multiple, -(-rounded // multiple) * multiple)


def _padded(array: np.ndarray, length: int, fill: Any) -> np.ndarray:
    padded = _empty((length, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    padded[len(array) :] = fill
    return padded


def _empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """As `np.empty`, but so aligned that JAX on CPU takes the array over instead of copying it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


def sorted_arrays(index: HashIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The reverse of `index_from_sorted`: distinct codes `[u, w]`, offsets `[u + 1]`, ids `[n]`, as numpy arrays."""
    num_codes, num_items = int(index.num_codes), int(index.num_items)
    table = np.asarray(index.codes).transpose(1, 3, 2, 0).reshape(-1, index.num_words)
    return table[:num_codes], np.asarray(index.offsets)[: num_codes + 1], np.asarray(index.ids)[:num_items]


def code_runs(index: HashIndex) -> Iterator[np.ndarray]:
    """Yields the distinct codes in order, some at a time: uint32 `[m, w]`."""
    tiles, left = np.asarray(index.codes), int(index.num_codes)
    width, blocks, group, lanes = tiles.shape
    size = max(1, AT_ONCE // (group * lanes))
    for start in range(0, blocks, size):
        codes = tiles[:, start : start + size].transpose(1, 3, 2, 0).reshape(-1, width)[:left]
        if len(codes):
            yield codes
        left -= len(codes)
