"""Address tables as a pytree, for probing inside compiled programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxhash.core.batching import put_beside
from jaxhash.core.checks import INT32_MAX
from jaxhash.index.address_table import AddressTable, Slice, get_tables
from jaxhash.index.hash_index import HashIndex, pad_array, sizes_of
from jaxhash.index.sharding import AnyIndex, ShardedIndex, put_shards


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["bitmap", "directory", "starts", "ranks"],
    meta_fields=["slices", "num_bits", "capacity"],
)
@dataclass(frozen=True, eq=False, repr=False)
class ProbeTables:
    """The t address tables of an index, concatenated in each array; built by `build_tables`.

    Their shapes depend on the capacity of the index and on the slices alone. For a `ShardedIndex`, each array
    concatenates those of the shards.

    bitmap: uint32 `[m]`, the addresses of each table's non-empty buckets: address a is bit `a % 32` of its word
      `a // 32`.
    directory: int32 `[m]`, the number of the first bucket of each word.
    starts: int32 `[t * (capacity + 1)]`, the first position of each bucket; `None` if a bucket is a single code.
    ranks: int32 `[t * capacity]`, the rank of the code at each position; `None` if positions are ranks.
    slices: the bits that form the addresses of each table (static).
    num_bits: the number of bits of a code (static).
    capacity: the capacity of the index, or of a shard (static).
    """

    bitmap: jax.Array
    directory: jax.Array
    starts: jax.Array | None
    ranks: jax.Array | None
    slices: tuple[Slice, ...]
    num_bits: int
    capacity: int

    def __repr__(self) -> str:
        return f"ProbeTables(slices={[tuple(bits) for bits in self.slices]}, num_bits={self.num_bits})"


def tables_of_slices(index: AnyIndex, slices: tuple[Slice, ...]) -> ProbeTables:
    """Builds the tables of an index for slices; raises `ValueError` if they are too large for int32."""
    capacity = capacity_of(index)
    if len(slices) * (capacity + 1) > INT32_MAX:
        raise ValueError(f"{len(slices)} tables of {capacity} codes have more than 2^31 entries; ask for fewer")
    make = partial(_make_arrays, slices=slices)
    arrays = put_shards(index, make) if isinstance(index, ShardedIndex) else put_beside(make(index), index.codes)
    return ProbeTables(**arrays, slices=slices, num_bits=index.num_bits, capacity=capacity)


def capacity_of(index: AnyIndex) -> int:
    """Returns the capacity in distinct codes of an index, or of each of its shards."""
    if isinstance(index, ShardedIndex):
        return index.offsets.shape[0] // index.num_shards - 1
    return index.capacity


def count_words(slices: Sequence[Slice]) -> list[int]:
    """Counts the words in the bitmap of each table."""
    return [1 << max(0, bits.size - 5) for bits in slices]


def _make_arrays(index: HashIndex, slices: tuple[Slice, ...]) -> dict[str, Any]:
    """Returns the arrays of `ProbeTables` as numpy arrays."""
    tables, capacity, num_codes = get_tables(index, slices), index.capacity, sizes_of(index).num_codes
    directories = [table.bitmap.directory + i * (capacity + 1) for i, table in enumerate(tables)]
    starts, ranks = None, None
    if slices[0].size < index.num_bits:  # else each address is a whole code
        starts = [_starts_of(table, num_codes, capacity) + i * capacity for i, table in enumerate(tables)]
    if len(tables) > 1:
        ranks = [_ranks_of(table, capacity) for table in tables]
    return {
        "bitmap": np.concatenate([table.bitmap.words for table in tables]),
        "directory": np.concatenate(directories),
        "starts": None if starts is None else np.concatenate(starts),
        "ranks": None if ranks is None else np.concatenate(ranks),
    }


def _starts_of(table: AddressTable, num_codes: int, capacity: int) -> np.ndarray:
    """Returns the first position of each bucket, padded: int32 `[capacity + 1]`."""
    starts = np.arange(num_codes + 1, dtype=np.int32) if table.starts is None else table.starts
    return pad_array(starts, capacity + 1, num_codes)


def _ranks_of(table: AddressTable, capacity: int) -> np.ndarray:
    """Returns the rank of the code at each position, padded: int32 `[capacity]`."""
    if table.ranks is None:
        return np.arange(capacity, dtype=np.int32)
    return pad_array(table.ranks, capacity, 0)
