"""Address tables as a pytree."""

import dataclasses

import jax
import numpy as np
import pytest
from samples import collection, same

import jaxhash as jh
from jaxhash.codes.bitmap import find_set_bits
from jaxhash.index.address_table import Slice, extract_addresses
from jaxhash.index.hash_index import sorted_arrays
from jaxhash.index.probe_tables import capacity_of, tables_of_slices

MESH = jax.make_mesh((1,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))


def code(*values, bits):
    return np.array(values, np.uint32)[:, None] << np.uint32(32 - bits)


def test_a_table_of_whole_codes_by_hand():
    index = jh.build_index(code(3, 40, 200, bits=8), 8)
    tables = jh.build_tables(index, radius=1, num_tables=1)
    assert tables.slices == (Slice(0, 8),)
    assert tables.bitmap.tolist() == [1 << 3, 1 << 8, 0, 0, 0, 0, 1 << 8, 0]
    assert tables.directory.tolist() == [0, 1, 2, 2, 2, 2, 2, 3]
    assert (tables.starts, tables.ranks) == (None, None)
    assert repr(tables) == "ProbeTables(slices=[(0, 8)], num_bits=8)"


def test_two_tables_by_hand():
    index = jh.build_index(code(0x0102, 0x0202, 0x0201, bits=16), 16)
    tables, capacity = jh.build_tables(index, radius=1, num_tables=2), index.capacity
    assert tables.slices == (Slice(0, 8), Slice(8, 8))
    assert tables.bitmap.tolist() == [0b110, *[0] * 7] * 2
    # Each table's buckets are numbered after the room for all of those before it, and so are its positions.
    assert tables.directory.tolist() == [0, *[2] * 7, capacity + 1, *[capacity + 3] * 7]
    starts, ranks = tables.starts.reshape(2, -1), tables.ranks.reshape(2, -1)
    assert starts[:, :4].tolist() == [[0, 1, 3, 3], [capacity + start for start in (0, 1, 3, 3)]]
    assert ranks[:, :3].tolist() == [[0, 1, 2], [1, 0, 2]]  # of the codes 0x0102, 0x0201, 0x0202


@pytest.mark.parametrize(("num_bits", "num_tables"), [(17, 1), (40, 1), (40, 5), (70, 3)])
@pytest.mark.parametrize("n", [0, 1, 400])
def test_each_address_leads_to_its_codes(num_bits, num_tables, n):
    index = collection(num_bits, n).index
    tables, codes = jh.build_tables(index, radius=3, num_tables=num_tables), sorted_arrays(index)[0]
    sizes = [max(1, 2**bits.size // 32) for bits in tables.slices]
    bitmaps = np.split(np.asarray(tables.bitmap), np.cumsum(sizes)[:-1])
    directories = np.split(np.asarray(tables.directory), np.cumsum(sizes)[:-1])
    for bits, bitmap, directory in zip(tables.slices, bitmaps, directories, strict=True):
        word, bit = find_set_bits(bitmap)
        addresses = extract_addresses(codes, bits)
        np.testing.assert_array_equal(32 * word + bit, np.unique(addresses))
        bucket = directory[word] + np.bitwise_count(bitmap[word] & ((np.uint32(1) << bit) - np.uint32(1)))
        first, end = np.asarray(tables.starts)[bucket], np.asarray(tables.starts)[bucket + 1]
        for address, begin, stop in zip(32 * word + bit, first, end, strict=True):
            ranks = np.arange(begin, stop) if tables.ranks is None else np.asarray(tables.ranks)[begin:stop]
            np.testing.assert_array_equal(ranks, np.flatnonzero(addresses == address))


def test_indexes_of_one_capacity_have_tables_of_one_shape():
    one, other = (jh.build_tables(collection(40, n).index, radius=3, num_tables=3) for n in (300, 310))
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tables)] for tables in (one, other)]
    assert shapes[0] == shapes[1]
    assert jax.tree.structure(one) == jax.tree.structure(other)


def test_a_shard_has_the_tables_of_its_codes():
    index = collection(40).index
    sharded = jh.shard_index(index, MESH)
    tables = jh.build_tables(index, radius=3, num_tables=3)
    assert capacity_of(sharded) == capacity_of(index) == index.capacity
    same(jax.tree.leaves(jh.build_tables(sharded, radius=3, num_tables=3)), jax.tree.leaves(tables))


def test_tables_past_2_to_31_entries_are_refused():
    index = collection(40).index
    endless = dataclasses.replace(index, offsets=np.broadcast_to(np.int32(0), (2**30 + 1,)))
    with pytest.raises(ValueError, match="2 tables of 1073741824 codes have more than 2\\^31 entries; ask for fewer"):
        tables_of_slices(endless, (Slice(0, 8), Slice(8, 8)))
