"""The choice of a method, and when tables are built."""

import itertools
import math
from typing import NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from samples import same

import jaxhash as jh
from jaxhash.codes.distances import Queries
from jaxhash.index.address_table import Slice, divide_radius, make_flip_masks
from jaxhash.index.hash_index import Sizes, sizes_of
from jaxhash.query import plan
from jaxhash.query.nearest import find_nearest
from jaxhash.query.plan import LIMITS, Limits, Option, Plan, decide, order_nearest, order_radius
from jaxhash.query.radius import find_matches

SLOW_COUNT, FAST_COUNT = Limits(), Limits(compare_word=0.02)
ANSWERS_ALL = ("scan", "numpy")


def sizes_for(num_codes, num_bits, on_host=True, **options):
    return Sizes(num_codes, num_codes, num_bits, num_codes, on_host, **options)


# Slices, radii, probes.


@given(st.integers(1, 12), st.integers(0, 40))
def test_every_match_is_within_the_radius_of_a_slice(num_tables, radius):
    radii = divide_radius(radius, num_tables)
    # What differs in more than its radius in every slice differs in more than the radius in all.
    assert sum(reach + 1 for reach in radii) == radius + 1
    assert max(radii) - min(radii) <= 1


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 10**9))
def test_slices_are_disjoint_and_bounded(num_bits, num_tables, num_codes):
    slices = plan.cut_slices(num_codes, num_bits, min(num_tables, num_bits))
    numbering = (num_codes - 1).bit_length()
    assert slices[0].first == 0
    for one, other in itertools.pairwise((*slices, Slice(num_bits, 0))):
        assert 1 <= one.size <= max(LIMITS.max_table_bits, numbering + LIMITS.min_spare_bits)
        assert one.size <= max(8, numbering + LIMITS.max_spare_bits)
        assert one.first + one.size <= other.first


@pytest.mark.parametrize(
    ("num_codes", "num_bits", "size"), [(10**6, 20, 20), (10**6, 64, 26), (10**8, 64, 29), (10**9, 32, 32)]
)
def test_addresses_number_the_codes_with_bits_to_spare(num_codes, num_bits, size):
    assert plan.cut_slices(num_codes, num_bits, 1) == (Slice(0, size),)


def test_hits_are_expected_by_hand():
    assert plan.expected_hits(32, 4, 1) == 32 * 5 / 16


@pytest.mark.parametrize(("size", "radius"), [(3, 2), (5, 1), (9, 0), (9, 2), (12, 7)])
def test_a_query_reads_a_word_for_each_mask(size, radius):
    assert plan.count_probes(size, radius) == len(make_flip_masks(size, radius)[0])


# The order of methods.


@st.composite
def orders(draw):
    """A function that orders methods, and its arguments."""
    num_bits = draw(st.sampled_from([1, 20, 64, 256]))
    num_codes = min(draw(st.sampled_from([0, 1, 1000, 10**5, 10**8])), 2**num_bits)
    sizes = sizes_for(num_codes, num_bits, draw(st.booleans()))
    count, limits = draw(st.sampled_from([0, 1, 300])), draw(st.sampled_from([SLOW_COUNT, FAST_COUNT]))
    if draw(st.booleans()):
        k, filtered = draw(st.sampled_from([1, 10, 10**4])), draw(st.booleans())
        method, planes = draw(st.sampled_from(["auto", "scan", "probe"])), draw(st.sampled_from([0, 4]))
        return order_nearest, (sizes, count, k, 3 * k, planes, filtered, method, limits)
    method = draw(st.sampled_from(["auto", "scan", "probe", "multi_index"]))
    num_tables = draw(st.sampled_from([None, 3])) if method == "multi_index" else None
    return order_radius, (sizes, count, draw(st.integers(0, 20)), method, num_tables, limits)


@settings(max_examples=300)
@given(orders())
def test_orders_are_pure_and_end_with_what_answers_all(order):
    function, arguments = order
    options = function(*arguments)
    assert options == function.__wrapped__(*arguments)  # without the cache
    assert [option.method in ANSWERS_ALL for option in options] == [False] * (len(options) - 1) + [True]
    costs = [option.cost for option in options]
    assert costs == sorted(costs)
    assert costs[0] < math.inf


@pytest.mark.parametrize("num_codes", [1, 1000, 10**7])
def test_a_method_that_is_named_comes_first(num_codes):
    sizes = sizes_for(num_codes, 64)
    for method, tables in [("probe", 1), ("multi_index", 7)]:
        (first, last) = order_radius(sizes, 9, 3, method, 7 if method == "multi_index" else None)
        assert (first.method, len(first.slices), last.slices) == ("probe", tables, ())
    assert order_nearest(sizes, 9, 1, 1, method="probe")[0].method == "probe"
    assert not any(option.slices for option in order_radius(sizes, 9, 3, "scan"))
    assert not any(option.slices for option in order_nearest(sizes, 9, 1, 1, method="scan"))


def test_a_named_method_with_too_many_probes_gives_way():
    options = order_radius(sizes_for(40_000, 64), 1, 20, "probe")
    assert [option.method in ANSWERS_ALL for option in options] == [True]


@pytest.mark.parametrize("limits", [SLOW_COUNT, FAST_COUNT])
def test_auto_scans_short_lists_and_probes_long_ones(limits):
    short, long = sizes_for(1000, 64), sizes_for(7 * 10**7, 28)
    assert not order_nearest(short, 1, 10, 10, limits=limits)[0].slices
    assert not order_radius(short, 4096, 30, limits=limits)[0].slices
    assert order_nearest(long, 1, 10, 10, limits=limits)[0].method == "probe"
    assert order_radius(long, 1, 2, limits=limits)[0].plans[0].radii == (2,)
    assert len(order_radius(sizes_for(10**7, 64), 256, 3, limits=limits)[0].slices) >= 2


@pytest.mark.parametrize(
    ("dear", "nearest", "within"),
    [
        (["numpy", "group_query", "probe_table"], "scan", "scan"),
        (["numpy", "select_query", "probe_table"], "groups", "scan"),
        (["program", "probe_table"], "numpy", "numpy"),
        (["numpy", "program"], "probe", "probe"),
    ],
)
def test_the_limits_decide_the_method(dear, nearest, within):
    sizes, limits = sizes_for(1000, 20), LIMITS._replace(**dict.fromkeys(dear, 1e15))
    assert order_nearest(sizes, 64, 1, 1, limits=limits)[0].method == nearest
    assert order_radius(sizes, 64, 1, limits=limits)[0].method == within


def test_methods_beyond_a_limit_are_no_options():
    def methods(**changes):
        limits = LIMITS._replace(probe_table=0.0, **changes)
        orders = order_nearest(sizes, 64, 1, 1, limits=limits), order_radius(sizes, 64, 1, limits=limits)
        return {option.method for options in orders for option in options}

    sizes = sizes_for(10**6, 20)
    assert "probe" in methods()
    assert "probe" not in methods(max_probes=0)
    assert methods(max_probes=0, kept_codes=10**6 - 1) == {"scan"}
    few = LIMITS._replace(numpy=1e15, select_query=1e15, probe_table=1e15, group_queries=64)
    assert order_nearest(sizes, 63, 1, 1, limits=few)[0].method != "groups"


def test_an_accelerator_probes_with_each_room_before_the_host():
    options = order_radius(sizes_for(10**7, 64, on_host=False), 9, 3, "probe")
    methods = [(option.method, option.num_slots) for option in options]
    assert methods == [*(("device", num_slots) for num_slots in LIMITS.slot_counts), ("probe", 0), ("scan", 0)]
    # Tables of more than 2^31 entries are the host's.
    options = order_radius(sizes_for(2**30, 64, on_host=False), 9, 3, "multi_index", 2)
    assert [option.method for option in options] == ["probe", "scan"]


def test_crowded_addresses_cost_more():
    even = plan.plan_tables(sizes_for(10**6, 64), 2, 1)
    slices = even.slices
    crowded = plan.plan_tables(sizes_for(10**6, 64, crowding=((slices[0], 100.0),)), 2, 1)
    hits = plan.expected_hits(10**6, slices[0].size, 2)
    assert crowded.cost - even.cost == pytest.approx(99 * (1 + hits) * LIMITS.candidate)
    sparse = plan.plan_tables(sizes_for(10**6, 64, crowding=((slices[0], 0.1),)), 2, 1)
    assert sparse == even


def test_batches_fit_their_memory():
    limits = LIMITS._replace(max_queries=64, query_memory=1000, max_hit_queries=50, compared=1000)
    sizes = [plan.max_batch_size(size, limits) for size in (1, 15, 16, 125, 126, 500, 501, 10**9)]
    assert sizes == [64, 64, 32, 8, 4, 2, 1, 1]
    sizes = [plan.numpy_batch_size(sizes_for(n, 20), limits) for n in (0, 20, 21, 500, 501, 10**6)]
    assert sizes == [50, 50, 47, 2, 1, 1]


@pytest.mark.parametrize(
    ("slices", "radii", "size"),
    [
        ([(0, 8), (8, 8)], (1, 1), 12),  # 8 words each, at most 100 together
        ([(0, 8), (8, 8)], (1, -1), 25),
        ([(0, 20)], (4,), 1),
        ([(0, 5)], (2,), 50),
    ],
)
def test_batches_of_probes_are_bounded(slices, radii, size):
    limits = LIMITS._replace(probes=100, max_hit_queries=50)
    probed = Plan(tuple(Slice(*bits) for bits in slices), radii, 0.0)
    assert plan.probe_batch_size(probed, limits) == size


# The account: the first table takes 1 a code to build, another 10.

SMALL = Limits(build=10, build_first=1, compile=600)
A, B = Slice(0, 8), Slice(8, 8)


def option(method, cost, *slices):
    return Option(method, cost, (Plan(slices, (1,) * len(slices), cost),) if slices else ())


def call(options, tables=(), spent=None, limits=SMALL):
    """The method that answers, and the account after it, for 100 codes: tables A and B together take 1100."""
    decision = decide(options, tables, {} if spent is None else spent, 100, limits)
    return decision.options[0].method, ({} if spent is None else spent) | decision.spent


def test_tables_are_built_when_scans_have_cost_their_price():
    for cost, scans in [(400.0, 2), (549.0, 2), (550.0, 1), (1099.0, 1), (1100.0, 0), (5000.0, 0)]:
        options, account, methods = (option("probe", 5.0, A, B), option("numpy", cost)), {}, []
        while methods[-1:] != ["probe"]:
            method, account = call(options, spent=account)
            methods.append(method)
        assert methods == ["numpy"] * scans + ["probe"]


def test_the_first_scan_counts_the_time_to_compile_it():
    options = option("probe", 5.0, A, B), option("scan", 400.0)
    method, account = call(options)
    assert (method, account[A, B]) == ("scan", 1000)
    assert call(options, spent=account)[0] == "probe"
    assert call(options, limits=SMALL._replace(compile=700))[0] == "probe"  # at once: together they cost as much
    # Also where numpy had answered before.
    assert call(options, spent={(A, B): 99.0})[0] == "scan"
    assert call(options, spent={(A, B): 100.0})[0] == "probe"


def test_compiling_counts_once_for_all_tables():
    first, other = ((option("probe", 5.0, A, bits), option("scan", 1.0)) for bits in (B, Slice(9, 7)))
    _, account = call(first)
    assert call(other, spent=account)[1][A, Slice(9, 7)] == 1
    # Nor for tables that are dearer than what is left of it when others were bought in place of a scan.
    cheap = option("probe", 5.0, A), option("scan", 1.0)
    method, account = call(cheap)
    assert (method, account) == ("probe", {(): 100})
    assert call(other, spent=account)[1] == {(): 600, (A, Slice(9, 7)): 501}
    # Nor where a scan was the best choice before.
    _, account = call((option("scan", 1.0),))
    assert call(other, spent=account)[1][A, Slice(9, 7)] == 1


def test_existing_tables_cost_nothing():
    options = option("probe", 5.0, A, B), option("numpy", 99.0)
    assert call(options, tables=(A, B)) == ("probe", {})
    assert call(options, tables=(B,))[0] == "numpy"
    assert call(options, tables=(B,), spent={(A, B): 1.0})[0] == "probe"  # A alone takes 100
    assert call(options, tables=(A,), spent={(A, B): 1.0})[0] == "numpy"


def test_existing_tables_answer_until_others_pay_off():
    options = option("probe", 5.0, A, B), option("probe", 50.0, A), option("numpy", 400.0)
    decision = decide(options, {A}, {}, 100, SMALL)
    assert decision.options == options[1:]
    assert decision.spent[A, B] == 50


def test_tables_of_a_named_method_are_built_at_once():
    assert call((option("probe", 0.0, A, B), option("numpy", 1.0))) == ("probe", {})


# What "auto" spends beside the best choice in hindsight.


class Kind(NamedTuple):
    """A kind of search: `size` is the radius, or k if it looks for the nearest."""

    nearest: bool
    num_queries: int
    size: int

    def order(self, sizes, limits):
        if self.nearest:
            return order_nearest(sizes, self.num_queries, self.size, self.size, limits=limits)
        return order_radius(sizes, self.num_queries, self.size, limits=limits)


def price_of(slices, num_codes, limits):
    return num_codes * sum(limits.build if bits.first else limits.build_first for bits in slices)


def cost_of(chosen, num_codes, limits):
    """What searches by these options cost, one after another, with their tables and the first scan's compilation."""
    tables = {bits for each in chosen for bits in each.slices}
    compiled = any(each.method in ("scan", "groups") for each in chosen)
    return sum(each.cost for each in chosen) + price_of(tables, num_codes, limits) + compiled * limits.compile


def choose_by_account(calls, sizes, limits):
    """The option that "auto" takes at each call."""
    tables, spent, chosen = set(), {}, []
    for kind in calls:
        decision = decide(kind.order(sizes, limits), tables, spent, sizes.num_codes, limits)
        spent |= decision.spent
        chosen.append(decision.options[0])
        tables |= set(chosen[-1].slices)
    return chosen


def cheapest_in_hindsight(calls, sizes, limits):
    """The least cost if each kind of search never used tables, or had them built at its first call."""
    kinds, choices = list(set(calls)), []
    for kind in kinds:
        options = kind.order(sizes, limits)
        without = next(each for each in options if not each.slices)
        choices.append({options[0], without})
    picks = (dict(zip(kinds, pick, strict=True)) for pick in itertools.product(*choices))
    return min(cost_of([pick[kind] for kind in calls], sizes.num_codes, limits) for pick in picks)


KINDS = st.builds(
    Kind, st.booleans(), st.sampled_from([1, 1, 4, 16, 64, 256, 4096]), st.sampled_from([1, 2, 3, 4, 6, 8, 10])
)


@settings(max_examples=200)
@given(
    st.floats(3, 8.5).map(lambda power: int(10**power)),
    st.sampled_from([16, 24, 28, 32, 48, 64, 96, 128, 256]),
    st.booleans(),
    st.lists(KINDS, min_size=1, max_size=6, unique=True),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 300)), min_size=1, max_size=12),
    st.sampled_from([SLOW_COUNT, FAST_COUNT]),
)
@example(17_981, 28, True, [Kind(False, 16, 3), Kind(False, 64, 1)], [(0, 1), (1, 1)], FAST_COUNT)
@example(265_518, 256, True, [Kind(False, 32, r) for r in (5, 6, 8, 10)], [(i, 1) for i in range(4)], FAST_COUNT)
@example(5_756_835, 64, True, [Kind(False, 32, 1), Kind(False, 64, 0)], [(0, 9), (1, 9)] * 4, FAST_COUNT)
def test_auto_spends_little_more_than_the_best_choice(num_codes, num_bits, on_host, kinds, runs, limits):
    sizes = sizes_for(min(num_codes, 2**num_bits), num_bits, on_host)
    calls = [kinds[number % len(kinds)] for number, times in runs for _ in range(times)]
    assume(any(kind.order(sizes, limits)[0].slices for kind in calls))
    spent = cost_of(choose_by_account(calls, sizes, limits), sizes.num_codes, limits)
    assert spent <= 2.5 * cheapest_in_hindsight(calls, sizes, limits)


# Searches build tables at the call that the rule says.


@pytest.fixture(scope="module")
def large():
    codes = np.random.default_rng(0).integers(0, 2**32, (100_000, 2), dtype=np.uint32)
    return jh.build_index(codes, 64), codes[:256]


def fresh(index):
    """The same index with nothing cached."""
    return jax.tree.map(lambda array: array, index)


def expected_call(options, num_codes, limits):
    """The number of the call that builds the tables, if all are of one kind."""
    ready = next(each for each in options if not each.slices)
    compiled = limits.compile if ready.method in ("scan", "groups") else 0.0
    price = price_of(options[0].slices, num_codes, limits)
    return max(1, math.ceil((price - compiled) / ready.cost)), options[0].slices


def check_calls(index, search, number, slices):
    """Searches `number` times; the last search builds tables, and all find the same."""
    expected = search(fresh(index))
    for _ in range(number - 1):
        same(search(index), expected)
        assert jh.describe(index).tables == ()
    same(search(index), expected)
    assert tuple(Slice(table.first, table.size) for table in jh.describe(index).tables) == slices


@pytest.mark.parametrize("limits", [SLOW_COUNT, FAST_COUNT])
@pytest.mark.parametrize(("num_queries", "at_most"), [(1, 100), (256, 3)])
def test_radius_searches_get_their_tables_soon(large, num_queries, at_most, limits):
    index, queries = fresh(large[0]), large[1][:num_queries]
    number, slices = expected_call(order_radius(sizes_of(index), num_queries, 2, limits=limits), 100_000, limits)
    assert number <= at_most
    check_calls(index, lambda index: find_matches(index, queries, 2, limits=limits), number, slices)


def test_searches_for_the_nearest_build_tables_when_due(large):
    codes = np.asarray(large[1][:, :1]) >> np.uint32(12) << np.uint32(12)
    index = jh.build_index(np.arange(0, 2**20, 8, dtype=np.uint32)[:, None] << np.uint32(12), 20)
    limits = SLOW_COUNT._replace(program=1e12, compile=0.0, build_first=100.0)  # numpy compares
    options = order_nearest(sizes_of(index), 8, 1, 1, limits=limits)
    number, slices = expected_call(options, 2**17, limits)
    assert (options[0].method, options[-1].method) == ("probe", "numpy")
    assert number > 2
    check_calls(index, lambda index: find_nearest(index, Queries(codes[:8]), k=1, limits=limits), number, slices)


def test_a_scan_dearer_than_the_tables_builds_them_first(large, compilations):
    index, limits = fresh(large[0]), SLOW_COUNT._replace(numpy=1e12)
    with compilations:
        find_matches(index, large[1][:2], 1, limits=limits)
    assert jh.describe(index).tables != ()
    assert compilations.count == 0


@pytest.mark.parametrize("num_queries", [1, 64])
def test_crowded_tables_are_left_again(num_queries):
    # Each byte has one of four values, so that in every slice many codes share an address.
    values = np.random.default_rng(0).choice(np.array([0, 0x0F, 0xF0, 0xFF], np.uint8), (60_000, 8))
    codes = values.view(np.uint32)
    index, queries = jh.build_index(codes, 64), codes[:num_queries]
    limits = SLOW_COUNT._replace(build=2.0, build_first=2.0, candidate=300.0)
    expected = jh.radius_search(index, queries, radius=2, method="scan")
    assert order_radius(sizes_of(index), num_queries, 2, limits=limits)[0].slices
    for _ in range(30):
        same(find_matches(index, queries, 2, limits=limits), expected)
    assert jh.describe(index).tables != ()
    assert order_radius(sizes_of(index), num_queries, 2, limits=limits)[0].method in ANSWERS_ALL
