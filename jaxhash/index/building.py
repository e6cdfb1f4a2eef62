"""Index construction from an array of codes or a stream of batches."""

import math
from collections.abc import Iterable
from typing import Any, cast

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.sorting import Pairs, drop_duplicates, find_positions, mark_run_starts, select_rows, sort_pairs
from jaxhash.core.checks import check_codes, check_ids, check_num_bits, is_stream, num_words
from jaxhash.index.hash_index import NO_ID, HashIndex, check_size, pad_array, padded_size, tile_codes, tile_shape


def build_index(
    codes: ArrayLike | Iterable[ArrayLike | tuple[ArrayLike, ArrayLike]],
    num_bits: int,
    *,
    ids: ArrayLike | None = None,
    multi: bool = False,
) -> HashIndex:
    """Builds an index of packed codes.

    Args:
        codes: uint32 `[n, w]`, numpy or JAX, as returned by `pack_bits` and `encode`. Or an iterable of batches, each
            such an array or a tuple (codes, ids), iterated once. Building takes 17 bytes of memory per item for codes
            of one word and 34 for two, including the result.
        num_bits: the number of bits of a code, `b`.
        ids: distinct integers in [0, 2^31), `[n]`, one for each code; by default 0, 1, 2, ... Not with batches, which
            hold their own.
        multi: whether an item may have several codes, such as one per image patch: ids may repeat, and codes
            `[n, p, w]` are the p codes of each of n items. Duplicate codes of an item count once. Searches then find
            pairs of code and id, so an id may occur several times in a result; `bag_search` finds items.

    Returns:
        A `HashIndex`. It depends only on the pairs of code and id, not on their order.

    Raises:
        ValueError: the codes have another shape or set padding bits; ids repeat, don't match or are out of range;
            there are more items than one device can address; or an iterable is empty, for example exhausted.
        TypeError: `codes` is not uint32, or `ids` are not integers.

    Example:
        >>> codes = jh.pack_bits([[0, 0], [0, 1], [0, 1]])
        >>> jh.build_index(codes, num_bits=2, ids=[7, 8, 9])
        HashIndex(num_items=3, num_codes=2, num_bits=2)
    """
    if is_stream(codes):
        if ids is not None:
            raise ValueError("ids must be None for batches of codes: give tuples (codes, ids) as batches")
        return _build_from(sort_pairs(_collect(codes, num_bits, multi)), num_bits, multi)
    return _build_from(sort_pairs(check_pairs(cast(ArrayLike, codes), num_bits, ids, multi)), num_bits, multi)


def _build_from(pairs: Pairs, num_bits: int, multi: bool) -> HashIndex:
    """Builds the index of sorted pairs. Frees arrays early: together they are several times the result."""
    codes, ids = drop_duplicates(pairs) if multi else pairs
    del pairs
    arrays = {"ids": pad_array(ids, padded_size(len(ids)), NO_ID), "num_items": np.array(len(ids), np.int32)}
    starts = mark_run_starts(codes)
    table = select_rows(codes, starts)
    del codes, ids
    num_codes, capacity = len(table), padded_size(len(table), math.prod(tile_shape(table.shape[1])))
    arrays["num_codes"] = np.array(num_codes, np.int32)
    arrays["codes"] = tile_codes(table, capacity)
    del table
    arrays["offsets"] = find_positions(starts, len(starts), capacity + 1)
    return HashIndex(**jax.device_put(arrays), num_bits=num_bits, multi=multi)


def _collect(batches: Iterable[Any], num_bits: int, multi: bool) -> Pairs:
    """Joins the codes and ids of all batches."""
    check_num_bits(num_bits)
    tables, labels = [], []
    for batch in batches:
        codes, ids = batch if isinstance(batch, tuple) else (batch, None)
        tables.append(np.array(check_table(codes, num_bits, multi)))  # a copy: loaders may reuse their buffers
        if ids is not None:
            labels.append(check_ids(ids, len(tables[-1]), distinct=not multi).copy())
        if len(labels) not in (0, len(tables)):
            raise ValueError("either all batches must have ids or none")
    if not tables:
        raise ValueError("codes must have at least one batch, got none; an iterator can be iterated only once")
    if len({table.shape[1:] for table in tables}) > 1:
        raise ValueError("items must have equally many codes in all batches; give batches [m, w] and repeat ids")
    table = np.concatenate(tables)
    check_size(math.prod(table.shape[:-1]), num_bits)
    return _pair(table, check_ids(np.concatenate(labels) if labels else None, len(table), distinct=not multi))


def check_pairs(codes: ArrayLike, num_bits: int, ids: ArrayLike | None, multi: bool) -> Pairs:
    """Returns checked codes with their ids."""
    table = check_table(codes, num_bits, multi)
    return _pair(table, check_ids(ids, len(table), distinct=not multi))


def _pair(table: np.ndarray, ids: np.ndarray) -> Pairs:
    """Pairs codes `[n, w]`, or the p codes of each item `[n, p, w]`, with the ids `[n]` of their items."""
    if table.ndim == 2:
        return Pairs(table, ids)
    return Pairs(table.reshape(-1, table.shape[2]), np.repeat(ids, table.shape[1]))


def check_table(codes: ArrayLike, num_bits: int, multi: bool = False) -> np.ndarray:
    """Returns checked codes as a native uint32 array `[n, w]`, or with `multi` `[n, p, w]`."""
    width = num_words(check_num_bits(num_bits))
    shape = np.shape(codes)
    if len(shape) != 2 and not (multi and len(shape) == 3):
        several = f" or [n, p, {width}]" if multi else ""
        raise ValueError(f"codes must have shape [n, {width}]{several}, got {shape}")
    check_size(math.prod(shape[:-1]), num_bits)
    return check_codes("codes", codes, num_bits)
