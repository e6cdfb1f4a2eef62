"""The choice of a method: slices, radii, and when tables pay."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxhash as jh
from jaxhash.index import address_table
from jaxhash.index.address_table import Slice, longest_address
from jaxhash.query import cost_model, radius, timings
from jaxhash.query import costs as costs_module
from jaxhash.query.costs import costs, read_description


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


def cheapest(sizes, radius):
    return min(cost_model._radius_options(sizes, radius, "auto", None), key=lambda option: option.query)


def test_auto_scans_short_lists_and_probes_long_ones():
    short = cost_model.Sizes(1000, 1000, 64, 2048)
    long = cost_model.Sizes(10**8, 7 * 10**7, 28, 10**8)
    assert [option.method for option in cost_model._nearest_options(short, 1, 10, False)] == ["scan"]
    assert cheapest(short, 30).method == "scan"
    assert len(cost_model._nearest_options(long, 1, 10, False)[1].method) >= 2
    assert cheapest(long, 2).method.radii == (2,)
    assert len(cheapest(cost_model.Sizes(10**7, 10**7, 64, 2 * 10**7), 3).slices) >= 2


CORRECT = timings.Timings.correct  # before the fixture for all tests replaces it


@pytest.fixture
def clock(monkeypatch):
    """Lets a test say how long each block takes that is timed."""
    now = [0]

    def take(nanoseconds):
        now[0] += nanoseconds

    monkeypatch.setattr(timings, "clock", lambda: now[0])
    monkeypatch.setattr(timings.Timings, "correct", CORRECT)
    return take


def random_index(n=2000, num_bits=64):
    words = np.random.default_rng(0).integers(0, 2**32, (n, num_bits // 32), dtype=np.uint32)
    return jh.build_index(words, num_bits)


ONE = cost_model.plan_tables(2000, 64, 1, 1)
SCAN = cost_model.Option("scan", (), 100.0, 10.0)
PROBE = cost_model.Option(ONE, ONE.slices, 50.0, 10.0)


def test_the_option_with_the_lowest_guess_is_chosen_if_its_tables_are_there():
    index = random_index()
    assert cost_model.choose(index, "it", (SCAN, PROBE), 1) is SCAN
    address_table.get_tables(index, ONE.slices)
    assert cost_model.choose(index, "it", (SCAN, PROBE), 1) is PROBE


def test_tables_are_built_once_searches_would_have_paid_for_them():
    index = random_index()
    calls = 0
    while cost_model.choose(index, "it", (SCAN, PROBE), 1) is SCAN:
        calls += 1
    assert (calls + 1) * 50 > costs().build_sorted * 2000 >= calls * 50


def test_real_times_correct_the_guesses(clock):
    index = random_index()
    address_table.get_tables(index, ONE.slices)
    for _ in range(3):  # the first call counts nothing, and one time alone changes nothing
        assert cost_model.choose(index, "it", (SCAN, PROBE), 4) is PROBE
        with timings.timed(index, ("it", ONE), 4):
            clock(500)
    assert cost_model.choose(index, "it", (SCAN, PROBE), 4) is SCAN
    assert cost_model.choose(index, "other", (SCAN, PROBE), 4) is PROBE
    assert cost_model.choose(index, "it", (SCAN, PROBE), 400) is PROBE  # of about so many queries nothing is known
    assert cost_model.choose(random_index(), "it", (SCAN, PROBE), 4) is SCAN  # for want of tables


def test_slow_scans_soon_pay_for_tables(clock):
    index, price = random_index(), costs().build_sorted * 2000
    for _ in range(4):
        assert cost_model.choose(index, "it", (SCAN, PROBE), 1) is SCAN
        with timings.timed(index, ("it", "scan"), 1):
            clock(0.9 * price)
    assert cost_model.choose(index, "it", (SCAN, PROBE), 1) is PROBE


def test_an_outlier_changes_nothing_and_a_lasting_change_does(clock):
    index = random_index()
    figures = timings.timings_of(index)
    for nanoseconds in (900, 10, 10, 10, 900):
        figures.add("scan", 1, nanoseconds)
    assert figures.correct("scan", 1, 77.0) == 10
    figures.add("scan", 1, 900)
    assert figures.correct("scan", 1, 77.0) == 900


def test_a_search_that_fails_is_not_timed(clock):
    index = random_index()
    for _ in range(5):
        with pytest.raises(ValueError), timings.timed(index, "scan", 1):  # noqa: PT011, PT012
            clock(10)
            raise ValueError
    assert timings.timings_of(index).correct("scan", 1, 77.0) == 77


def test_a_radius_search_that_scans_slowly_turns_to_tables(clock, monkeypatch):
    index, scan = random_index(), radius._scan
    monkeypatch.setattr(radius, "_scan", lambda *arguments: clock(10**9) or scan(*arguments))
    queries = np.asarray(jh.pack_bits(np.zeros((1, 64))))
    for _ in range(5):
        jh.radius_search(index, queries, radius=1)
    assert jh.describe(index).tables


def test_what_one_plan_would_have_saved_does_not_pay_for_the_tables_of_another():
    index = random_index()
    one, other = (cost_model.plan_multi_index(2000, 64, 3, num_tables).slices for num_tables in (2, 4))
    price = (costs().build_sorted + costs().build) * 2000  # of the two tables of one
    assert not cost_model._worth_its_tables(index, other, 0.9 * price)
    assert not cost_model._worth_its_tables(index, one, 0.6 * price)
    assert cost_model._worth_its_tables(index, one, 0.6 * price)


def test_tables_that_are_there_already_are_not_paid_for_again():
    index = random_index()
    slices = cost_model.plan_multi_index(2000, 64, 3, 4).slices
    address_table.get_tables(index, slices[1:])
    assert cost_model._worth_its_tables(index, slices, 1.1 * costs().build_sorted * 2000)


def test_a_processor_is_described_by_name_and_kind():
    text = "processor\t: 0\nmodel name\t: One\nflags\t\t: fpu avx512_vpopcntdq\n\nprocessor\t: 1\nmodel name\t: Two\n"
    assert read_description(text) == ("One", True)
    assert read_description(text.replace(" avx512_vpopcntdq", "")) == ("One", False)
    assert read_description("processor\t: 0\n") is None


def test_an_unknown_machine_takes_the_costs_of_one_of_its_kind(monkeypatch):
    for described in itertools.product(("new", *costs_module.MACHINES), (False, True)):
        monkeypatch.setattr(costs_module, "describe_processor", lambda described=described: described)
        costs.cache_clear()
        assert costs().counts_in_vectors == described[1]
    costs.cache_clear()
