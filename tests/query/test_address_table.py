"""Address tables and probing, each part against its slow form."""

import weakref

import numpy as np
import oracle
import pytest
from samples import collection

import jaxhash as jh
from jaxhash.index.hash_index import sorted_arrays
from jaxhash.query import address_table, cost_model
from jaxhash.query.address_table import Slice, build_table, extract_addresses


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


@pytest.mark.parametrize(("size", "radius"), [(3, 1), (5, 2), (8, 0), (9, 3), (9, 9)])
def test_a_probe_hits_exactly_the_addresses_within_its_radius(size, radius, rng):
    codes = sorted_arrays(jh.build_index(oracle.pack(rng.random((2**size // 2, size)) < 0.5), size))[0]
    queries = oracle.pack(rng.random((20, size)) < 0.5)
    table = build_table([codes], Slice(0, size))
    found = address_table.probe(table, queries, radius)
    pairs = {(int(i), int(codes[rank, 0])) for i, rank in zip(found.queries, found.firsts, strict=True)}
    assert len(pairs) == len(found.queries)
    assert pairs == {
        (i, int(code[0]))
        for i, query in enumerate(queries)
        for code in codes
        if np.bitwise_count(code ^ query).sum() <= radius
    }


def test_probing_on_the_device_and_on_the_host_agree(rng, monkeypatch):
    index, queries = collection(18, 3000, q=100)
    table = address_table.get_tables(index, (Slice(0, 18),))[0]
    on_host = address_table.probe(table, queries[:3], 2)
    monkeypatch.setattr(address_table, "WORDS_ON_HOST", 0)
    monkeypatch.setattr(address_table, "WORDS_AT_ONCE", 200)
    for a, b in zip(on_host, address_table.probe(table, queries[:3], 2), strict=True):
        np.testing.assert_array_equal(a, b)


def test_tables_are_built_once_and_freed_with_their_index():
    index, queries = collection(20)
    jh.radius_search(index, queries, radius=1, method="probe")
    plan = cost_model.plan_tables(jh.describe(index).num_codes, 20, 1, num_tables=1)
    first = address_table.get_tables(index, plan.slices)[0]
    jh.radius_search(index, queries, radius=1, method="probe")
    assert address_table.get_tables(index, plan.slices)[0] is first
    gone = weakref.ref(first)
    del first, index
    assert gone() is None
