"""Address tables, against their slow form, and what is remembered of them."""

import weakref

import numpy as np
import oracle
import pytest
from samples import collection

import jaxhash as jh
from jaxhash.index.address_table import Slice, build_table, extract_addresses, get_tables, list_tables
from jaxhash.index.hash_index import sorted_arrays


@pytest.mark.parametrize("bits", [Slice(0, 1), Slice(0, 7), Slice(5, 28), Slice(30, 4), Slice(60, 20), Slice(94, 6)])
def test_addresses_are_slices_of_the_bits(bits, rng):
    planes = rng.random((50, 100)) < 0.5
    expected = [int("".join("01"[int(bit)] for bit in row[bits.first : bits.first + bits.size]), 2) for row in planes]
    assert extract_addresses(oracle.pack(planes), bits).tolist() == expected


@pytest.mark.parametrize("bits", [Slice(0, 3), Slice(0, 9), Slice(4, 6), Slice(10, 10)])
def test_a_table_leads_from_each_address_to_its_codes(bits, rng):
    codes = sorted_arrays(jh.build_index(oracle.pack(rng.random((300, 20)) < 0.5), 20))[0]
    table = build_table(np.array_split(codes, 3), bits)
    address = extract_addresses(codes, bits)
    for value in range(2**bits.size):
        word, bit = divmod(value, 32)
        expected = np.flatnonzero(address == value)
        assert bool(table.bitmap[word] >> np.uint32(bit) & 1) == bool(len(expected))
        if len(expected):
            first, size = table.find_buckets(np.array([word]), np.array([bit], np.uint32))
            positions = np.arange(first[0], first[0] + size[0])
            found = positions if table.ranks is None else table.ranks[positions]
            np.testing.assert_array_equal(found, expected)


def test_tables_are_built_once_and_freed_with_their_index():
    index, _ = collection(60)
    slices = (Slice(0, 10), Slice(20, 9), Slice(40, 9))
    first = get_tables(index, slices[1:2])[0]
    both = get_tables(index, slices)
    assert both[1] is first
    assert [table.bits for table in both] == [table.bits for table in list_tables(index)] == list(slices)
    assert get_tables(index, slices) == both
    gone = weakref.ref(first)
    del first, both, index
    assert gone() is None


def test_a_table_weighs_what_its_arrays_take():
    index, _ = collection(60)
    whole, part = get_tables(index, (Slice(0, 10), Slice(20, 10)))
    assert whole.num_bytes == 2 * 2**10 // 8 + whole.starts.nbytes
    assert part.num_bytes == 2 * 2**10 // 8 + part.starts.nbytes + 4 * jh.describe(index).num_codes
