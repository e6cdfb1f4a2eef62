"""Probing, against its slow form."""

import numpy as np
import oracle
import pytest
from samples import collection

import jaxhash as jh
from jaxhash.index.address_table import Slice, build_table, get_tables
from jaxhash.index.hash_index import sorted_arrays
from jaxhash.query import probe


@pytest.mark.parametrize(("size", "radius"), [(3, 1), (5, 2), (8, 0), (9, 3), (9, 9)])
def test_a_probe_hits_exactly_the_addresses_within_its_radius(size, radius, rng):
    codes = sorted_arrays(jh.build_index(oracle.pack(rng.random((2**size // 2, size)) < 0.5), size))[0]
    queries = oracle.pack(rng.random((20, size)) < 0.5)
    table = build_table([codes], Slice(0, size))
    found = probe.probe(table, queries, radius)
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
    table = get_tables(index, (Slice(0, 18),))[0]
    on_host = probe.probe(table, queries[:3], 2)
    monkeypatch.setattr(probe, "WORDS_ON_HOST", 0)
    monkeypatch.setattr(probe, "WORDS_AT_ONCE", 200)
    for a, b in zip(on_host, probe.probe(table, queries[:3], 2), strict=True):
        np.testing.assert_array_equal(a, b)
