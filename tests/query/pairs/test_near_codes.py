"""All pairs of codes within a radius, by every way of finding them, against comparing all codes."""

import math
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import collection

import jaxhash as jh
from jaxhash.index.hash_index import sorted_arrays
from jaxhash.query.pairs.near_codes import Cut, find_near_codes, plan_cut
from jaxhash.query.plan import LIMITS, Limits

WAYS = (0, 1, 2, 3, "scan")


def limits_for(way, radius):
    """Limits for a way: "scan", 0 to compare all codes, or the number of slices in which compared codes agree."""
    small = LIMITS._replace(listed=50, run_codes=100, max_queries=64, candidates=2**12)
    if way == "scan":
        return small._replace(compile=0, program=0, read_word=0, compare_word=0)
    if way == 0:
        return small._replace(compile=math.inf, min_sampled_cost=math.inf)
    # Of the ways with few enough sorts, the one with the most: each of them pays.
    return small._replace(
        compile=math.inf, min_sampled_cost=0, sort_code=-1e12, max_sorts=math.comb(radius + way, way), sample=100
    )


def by_comparing_all(index, radius):
    """Ranks and distances of all near pairs, by (first, second)."""
    table = sorted_arrays(index)[0]
    distances = np.bitwise_count(table[:, None] ^ table).sum(2, dtype=np.int32)
    first, second = np.nonzero(np.triu(distances <= radius, 1))
    return list(zip(first.tolist(), second.tolist(), distances[first, second].tolist(), strict=True))


def found_by(parts):
    """The same of what was found."""
    rows = chain.from_iterable(zip(*(array.tolist() for array in pairs), strict=True) for pairs in parts)
    return sorted((min(first, second), max(first, second), distance) for first, second, distance in rows)


def test_three_codes_by_hand():
    index = jh.build_index(jh.codes.codes_from_integers([0, 1, 3], 8), 8)
    assert found_by(find_near_codes(index, 1)) == [(0, 1, 1), (1, 2, 1)]
    assert found_by(find_near_codes(index, 2)) == [(0, 1, 1), (0, 2, 2), (1, 2, 1)]


@pytest.mark.parametrize("num_bits", [12, 64, 200])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_finds_each_pair_once(num_bits, way):
    index = collection(num_bits, 250).index
    for radius in (1, 3, 6):
        limits = limits_for(way, radius)
        cut = plan_cut(index, sorted_arrays(index)[0], radius, limits)
        assert (cut.agreeing if cut else "scan") == way
        parts = list(find_near_codes(index, radius, limits))
        assert found_by(parts) == by_comparing_all(index, radius)
        assert len(parts) > 1
        for part in parts:
            assert {array.dtype for array in part} == {np.dtype(np.int32)}


@settings(max_examples=40)
@given(st.integers(0, 80), st.integers(1, 80), st.integers(0, 2**32), st.integers(0, 12), st.sampled_from(WAYS[:-1]))
def test_any_codes_have_the_pairs_of_comparing_all(n, num_bits, seed, radius, way):
    index = collection(num_bits, n, 5, seed).index
    assert found_by(find_near_codes(index, min(radius, num_bits), limits_for(way, radius))) == by_comparing_all(
        index, radius
    )


def test_one_code_and_none_have_no_pairs():
    for count in (0, 1, 5):
        assert list(find_near_codes(jh.build_index(np.zeros((count, 1), np.uint32), 8), 3)) == []


def test_near_codes_are_sorted_and_far_ones_scanned():
    codes = np.random.default_rng(0).integers(0, 2**32, (50_000, 2), dtype=np.uint32)
    index, few = jh.build_index(codes, 64), jh.build_index(codes[:500], 64)
    table = sorted_arrays(index)[0]
    assert plan_cut(index, table, 3, Limits()).agreeing > 0
    assert plan_cut(index, table, 30, Limits()) is None
    assert plan_cut(few, sorted_arrays(few)[0], 3, Limits()) == Cut((), 0)
