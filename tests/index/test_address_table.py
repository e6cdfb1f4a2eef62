"""Address tables, against their slow form, and what is kept of them."""

import threading
import weakref

import numpy as np
import oracle
import pytest
from samples import collection

import jaxhash as jh
from jaxhash.codes.bitmap import find_set_bits
from jaxhash.index.address_table import Slice, build_table, extract_addresses, get_tables, list_tables, make_flip_masks
from jaxhash.index.hash_index import sorted_arrays


@pytest.mark.parametrize("bits", [Slice(0, 1), Slice(0, 7), Slice(5, 28), Slice(30, 4), Slice(60, 20), Slice(94, 6)])
def test_addresses_are_slices_of_the_bits(bits, rng):
    planes = rng.random((50, 100)) < 0.5
    expected = [int("".join("01"[int(bit)] for bit in row[bits.first : bits.first + bits.size]), 2) for row in planes]
    assert extract_addresses(oracle.pack(planes), bits).tolist() == expected


@pytest.mark.parametrize(("size", "radius"), [(3, 2), (5, 1), (9, 0), (9, 2), (9, 9)])
def test_flip_masks_are_all_masks_by_their_number_of_flips(size, radius):
    masks, ends = make_flip_masks(size, radius)
    upper = max(0, size - 5)  # the words that hold 32 addresses each
    assert sorted(masks.tolist()) == [mask for mask in range(2**upper) if mask.bit_count() <= radius]
    flips = [int(mask).bit_count() for mask in masks]
    assert flips == sorted(flips)
    assert list(ends) == [sum(count <= most for count in flips) for most in range(len(ends))]


@pytest.mark.parametrize("bits", [Slice(0, 3), Slice(0, 9), Slice(4, 6), Slice(10, 10)])
def test_a_table_leads_from_each_address_to_its_codes(bits, rng):
    codes = sorted_arrays(jh.build_index(oracle.pack(rng.random((300, 20)) < 0.5), 20))[0]
    table = build_table(np.array_split(codes, 3), bits)
    address = extract_addresses(codes, bits)
    word, bit = find_set_bits(table.bitmap.words)
    taken = (word * 32 + bit).astype(np.uint32)
    np.testing.assert_array_equal(taken, np.unique(address))
    first, size = table.find_buckets(taken)
    for value, begin, count in zip(taken, first, size, strict=True):
        positions = np.arange(begin, begin + count)
        found = positions if table.ranks is None else table.ranks[positions]
        np.testing.assert_array_equal(found, np.flatnonzero(address == value))


def test_buckets_of_single_codes_need_no_starts():
    codes = np.arange(0, 2**20, 7, dtype=np.uint32)[:300, None] << np.uint32(12)
    table = build_table([codes], Slice(0, 20))
    assert (table.starts, table.ranks) == (None, None)
    first, size = table.find_buckets(extract_addresses(codes, Slice(0, 20)))
    assert first.tolist() == list(range(300))
    assert size is None
    assert table.crowding == pytest.approx(1 / (1 + 300 / 2**20))


def test_a_table_of_no_codes_is_empty():
    for bits in (Slice(0, 9), Slice(4, 9)):
        table = build_table([], bits)
        assert table.bitmap.words.tolist() == [0] * 16
        assert [array.shape for array in table.find_buckets(np.zeros(0, np.uint32)) if array is not None] == [(0,)]


def test_tables_are_built_once_and_freed_with_their_index():
    index = collection(60).index
    slices = (Slice(0, 10), Slice(20, 9), Slice(40, 9))
    first = get_tables(index, slices[1:2])[0]
    both = get_tables(index, slices)
    assert both[1] is first
    assert [table.bits for table in both] == [table.bits for table in list_tables(index)] == list(slices)
    assert get_tables(index, slices) == both
    gone = weakref.ref(first)
    del first, both, index
    assert gone() is None


def test_threads_get_the_same_tables():
    index = collection(60).index
    slices, found = [Slice(start, 9) for start in range(0, 48, 8)], []
    start = threading.Barrier(6)

    def work(number):
        start.wait()
        found.append(get_tables(index, slices[number:] + slices[:number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert {id(table) for tables in found for table in tables} == {id(table) for table in list_tables(index)}


def test_num_bytes_of_a_table_are_those_of_its_arrays():
    index = collection(60).index
    whole, part = get_tables(index, (Slice(0, 10), Slice(20, 10)))
    assert whole.num_bytes == 2 * 2**10 // 8 + whole.starts.nbytes
    assert part.num_bytes == 2 * 2**10 // 8 + part.starts.nbytes + 4 * jh.describe(index).num_codes
