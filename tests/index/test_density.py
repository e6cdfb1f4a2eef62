"""How items spread over codes: measured and expected."""

import math

import numpy as np
import oracle
import pytest

import jaxhash as jh
from jaxhash.index.address_table import Slice, get_tables
from jaxhash.index.density import ball_size
from jaxhash.query import search_several


@pytest.mark.parametrize("repeats", [1, 7])
def test_repeated_codes_have_their_repeats_as_density(repeats, rng):
    codes = np.repeat(np.unique(oracle.pack(rng.random((300, 40)) < 0.5), axis=0), repeats, axis=0)
    stats = jh.describe(jh.build_index(codes, 40))
    assert stats.num_items == len(codes)
    assert stats.min_density == stats.max_density == repeats


def test_tables_are_described_beside_the_densities(rng):
    codes = oracle.pack(rng.random((300, 40)) < 0.5)
    plain, index = jh.build_index(codes, 40), jh.build_index(codes, 40)
    tables = get_tables(index, (Slice(20, 9), Slice(0, 8)))
    kept = {"kept_bytes": sum(table.num_bytes for table in tables)}
    kept["tables"] = ((0, 8, tables[1].num_bytes), (20, 9, tables[0].num_bytes))
    assert jh.describe(plain)[6:] == ((), 0)
    assert jh.describe(index) == jh.describe(plain)._replace(**kept)


def test_describe_counts_the_bytes_that_searches_keep(rng):
    codes = oracle.pack(rng.random((300, 40)) < 0.5)
    index = jh.build_index(codes, 40)
    assert jh.describe(index).kept_bytes == 0
    (table,) = get_tables(index, (Slice(20, 9),))
    assert jh.describe(index).kept_bytes == table.num_bytes
    allowed, capacity = np.arange(300) % 2 == 0, len(index.ids)
    jh.search(index, codes[:2], k=1, method="scan", allowed=allowed)
    kept = 300 + capacity // 32 * 8 + index.capacity * 4  # the mask and a filter
    assert jh.describe(index).kept_bytes == table.num_bytes + kept
    jh.search(index, codes[:2], k=1, method="scan", allowed=~allowed)  # the last one only
    assert jh.describe(index).kept_bytes == table.num_bytes + kept
    search_several([index], codes[:2], k=1, method="scan")
    kept += index.ids.nbytes + 8 * 304  # numbers in place of ids, and words for numpy, of full groups
    assert jh.describe(index).kept_bytes == table.num_bytes + kept


@pytest.mark.parametrize(("num_items", "bits"), [(60_000, 17), (1, 1), (5_000, 14), (1_000_000, 21), (10**12, 41)])
def test_suggested_numbers_of_bits_by_hand(num_items, bits):
    assert jh.suggest_num_bits(num_items) == bits


def test_suggestions_for_impossible_numbers_are_refused():
    assert jh.suggest_num_bits(1000, items_per_code=1000.0) == 1
    for items_per_code in (0, -1.0, math.nan, math.inf, "1"):
        with pytest.raises(ValueError, match="items_per_code"):
            jh.suggest_num_bits(1000, items_per_code)
    with pytest.raises(ValueError, match="num_items"):
        jh.suggest_num_bits(0)


def test_sizes_of_balls_by_hand():
    assert [ball_size(4, radius) for radius in range(6)] == [1, 5, 11, 15, 16, 16]


def test_expected_matches_by_hand():
    assert jh.index.expected_matches(60_000, 17, radius=3) == pytest.approx(60_000 / 2**17 * (1 + 17 + 136 + 680))
    assert jh.index.expected_matches(1000, 10, radius=0) == 1000 / 1024
    for radius in (10, 11, 10**9):
        assert jh.index.expected_matches(1000, 10, radius=radius) == 1000
    assert jh.index.expected_matches(10**9, 1024, radius=512) == pytest.approx(10**9 * 0.5, rel=0.03)
