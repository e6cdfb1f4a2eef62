"""The choice of a method: slices, radii, and when tables pay."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxhash as jh
from jaxhash.index import address_table
from jaxhash.index.address_table import Slice, longest_address
from jaxhash.index.hash_index import memory_of
from jaxhash.query import cost_model


@given(st.integers(1, 12), st.integers(0, 40))
def test_every_match_is_within_the_radius_of_a_slice(num_tables, radius):
    radii = cost_model.divide_radius(radius, num_tables)
    # What differs in more than its radius in every slice differs in more than the radius in all.
    assert sum(reach + 1 for reach in radii) == radius + 1
    assert max(radii) - min(radii) <= 1


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 10**9))
def test_slices_are_disjoint_and_no_longer_than_the_largest_table(num_bits, num_tables, num_codes):
    slices = cost_model.cut_slices(num_codes, num_bits, min(num_tables, num_bits))
    needed = (num_codes - 1).bit_length() + cost_model.LEAST_SPARE_BITS
    assert slices[0].first == 0
    for one, other in itertools.pairwise((*slices, Slice(num_bits, 0))):
        assert 1 <= one.size <= max(cost_model.LARGEST_TABLE, needed)
        assert one.size <= longest_address(num_codes)
        assert one.first + one.size <= other.first


@pytest.mark.parametrize(
    ("num_codes", "num_bits", "size"), [(10**6, 20, 20), (10**6, 64, 26), (10**8, 64, 29), (10**9, 32, 32)]
)
def test_addresses_number_the_codes_with_bits_to_spare(num_codes, num_bits, size):
    assert cost_model.cut_slices(num_codes, num_bits, 1) == (Slice(0, size),)


def test_auto_scans_short_lists_and_probes_long_ones():
    short = cost_model.Sizes(1000, 1000, 64, 2048)
    long = cost_model.Sizes(10**8, 7 * 10**7, 28, 10**8)
    assert cost_model._plan_widening(short, 10, "auto")[0] == ()
    assert cost_model._plan_radius(short, 30, "auto", None)[0] is None
    assert len(cost_model._plan_widening(long, 10, "auto")[0]) >= 2
    assert cost_model._plan_radius(long, 2, "auto", None)[0].radii == (2,)
    assert len(cost_model._plan_radius(cost_model.Sizes(10**7, 10**7, 64, 2 * 10**7), 3, "auto", None)[0].slices) >= 2


def test_auto_builds_tables_once_searches_would_have_paid_for_them():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**24, (100_000, 1), dtype=np.uint32) << np.uint32(8)
    index, queries = jh.build_index(codes, 24), codes[:64]
    plan = cost_model.plan_tables(jh.describe(index).num_codes, 24, 1, num_tables=1)
    jh.radius_search(index, queries[:1], radius=1)
    assert memory_of(index).missing(plan.slices)
    for _ in range(100):
        jh.radius_search(index, queries, radius=1)
    assert not memory_of(index).missing(plan.slices)


def test_what_one_plan_would_have_saved_does_not_pay_for_the_tables_of_another():
    rng = np.random.default_rng(0)
    index = jh.build_index(rng.integers(0, 2**32, (2000, 2), dtype=np.uint32), 64)
    one, other = (cost_model.plan_multi_index(2000, 64, 3, num_tables) for num_tables in (2, 4))
    price = (cost_model.BUILD_SORTED + cost_model.BUILD) * 2000  # of the two tables of one
    assert not cost_model._worth_its_tables(index, other, 0.9 * price)
    assert not cost_model._worth_its_tables(index, one, 0.6 * price)
    assert cost_model._worth_its_tables(index, one, 0.6 * price)


def test_tables_that_are_there_already_are_not_paid_for_again():
    rng = np.random.default_rng(0)
    index = jh.build_index(rng.integers(0, 2**32, (2000, 2), dtype=np.uint32), 64)
    plan = cost_model.plan_multi_index(2000, 64, 3, 4)
    address_table.get_tables(index, plan.slices[1:])
    assert cost_model._worth_its_tables(index, plan, 1.1 * cost_model.BUILD_SORTED * 2000)
    assert not cost_model._worth_its_tables(index, plan, 0.0)
