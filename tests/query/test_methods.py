"""All methods of search give one answer; each part of probing against its slow form."""

import itertools
import threading
from functools import partial

import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxhash as jh
from jaxhash.index.hash_index import sorted_arrays
from jaxhash.query import address_table, cost_model, lookup, matches
from jaxhash.query.address_table import Slice, addresses, build_table
from jaxhash.query.kernels import near_groups

WIDTHS = [1, 3, 6, 17, 33, 64, 65, 256, 1024]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def collection(num_bits, n=400, q=70, seed=0):
    rng = np.random.default_rng((seed, num_bits, n))
    codes = oracle.pack(oracle.clustered(rng, n, num_bits))
    queries = oracle.pack(oracle.clustered(rng, q, num_bits))
    queries[: min(5, n)] = codes[:5]
    return jh.build_index(codes, num_bits, ids=rng.permutation(3 * n)[:n]), queries


@pytest.mark.parametrize("num_bits", WIDTHS)
@pytest.mark.parametrize("n", [0, 1, 400])
def test_every_method_finds_the_same_matches(num_bits, n):
    index, queries = collection(num_bits, n)
    for radius in sorted({0, 1, 2, 3, 7, num_bits}):
        expected = jh.radius_search(index, queries, radius=radius, method="scan")
        same(jh.radius_search(index, queries, radius=radius, method="probe"), expected)
        same(jh.radius_search(index, queries, radius=radius, method="multi-index"), expected)
        same(jh.radius_search(index, queries, radius=radius), expected)
        for num_tables in {1, min(num_bits, 5), min(num_bits, 50)}:
            many = partial(jh.radius_search, method="multi-index", num_tables=num_tables)
            same(many(index, queries, radius=radius), expected)


@pytest.mark.parametrize("num_bits", WIDTHS)
def test_every_method_finds_the_same_neighbors(num_bits):
    index, queries = collection(num_bits)
    for k in (1, 20, 450):
        expected = jh.search(index, queries, k=k, method="scan")
        same(jh.search(index, queries, k=k, method="probe"), expected)
        same(jh.search(index, queries, k=k), expected)
    same(jh.search(index, queries[0], k=20, method="probe"), jh.search(index, queries[0], k=20, method="scan"))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 2**32), st.data())
def test_any_parting_into_tables_finds_everything(num_bits, n, seed, data):
    index, queries = collection(num_bits, n, q=6, seed=seed)
    radius = data.draw(st.integers(0, num_bits))
    num_tables = data.draw(st.integers(1, num_bits))
    found = jh.radius_search(index, queries, radius=radius, method="multi-index", num_tables=num_tables)
    same(found, jh.radius_search(index, queries, radius=radius, method="scan"))


@given(st.integers(1, 12), st.integers(0, 40))
def test_no_distance_escapes_all_slices(num_tables, radius):
    radii = cost_model.slice_radii(radius, num_tables)
    # What differs in more than its radius in every slice differs in more than the radius in all.
    assert sum(reach + 1 for reach in radii) == radius + 1
    assert max(radii) - min(radii) <= 1


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 10**9))
def test_slices_part_all_bits_or_stop_short_of_them(num_bits, num_tables, num_codes):
    slices = cost_model.even_slices(num_codes, num_bits, min(num_tables, num_bits))
    needed = (num_codes - 1).bit_length() + cost_model.LEAST_SPARE_BITS
    assert slices[0].first == 0
    for one, other in itertools.pairwise((*slices, Slice(num_bits, 0))):
        assert 1 <= one.size <= max(cost_model.LARGEST_TABLE, needed)
        assert one.first + one.size <= other.first


@pytest.mark.parametrize(
    ("num_codes", "num_bits", "size"), [(10**6, 20, 20), (10**6, 64, 26), (10**8, 64, 29), (10**9, 32, 32)]
)
def test_addresses_number_the_codes_with_bits_to_spare(num_codes, num_bits, size):
    assert cost_model.even_slices(num_codes, num_bits, 1) == (Slice(0, size),)


@pytest.mark.parametrize("bits", [Slice(0, 1), Slice(0, 7), Slice(5, 28), Slice(30, 4), Slice(60, 20), Slice(94, 6)])
def test_addresses_are_slices_of_the_bits(bits, rng):
    planes = rng.random((50, 100)) < 0.5
    expected = [int("".join("01"[int(bit)] for bit in row[bits.first : bits.first + bits.size]), 2) for row in planes]
    assert addresses(oracle.pack(planes), bits).tolist() == expected


@pytest.mark.parametrize("bits", [Slice(0, 3), Slice(0, 9), Slice(4, 6), Slice(10, 10)])
def test_a_table_leads_from_each_address_to_its_codes(bits, rng):
    codes = sorted_arrays(jh.build_index(oracle.pack(rng.random((300, 20)) < 0.5), 20))[0]
    table = build_table(np.array_split(codes, 3), bits)
    address = addresses(codes, bits)
    for value in range(2**bits.size):
        word, bit = divmod(value, 32)
        expected = np.flatnonzero(address == value)
        assert bool(table.bitmap[word] >> np.uint32(bit) & 1) == bool(len(expected))
        if len(expected):
            first, size = table.bucket_places(np.array([word]), np.array([bit], np.uint32))
            places = np.arange(first[0], first[0] + size[0])
            found = places if table.ranks is None else table.ranks[places]
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("size", "radius"), [(3, 1), (5, 2), (8, 0), (9, 3), (9, 9)])
def test_a_probe_hits_exactly_the_addresses_within_its_radius(size, radius, rng):
    codes = sorted_arrays(jh.build_index(oracle.pack(rng.random((2**size // 2, size)) < 0.5), size))[0]
    queries = oracle.pack(rng.random((20, size)) < 0.5)
    table = build_table([codes], Slice(0, size))
    found = address_table.probe(table, queries, radius)
    pairs = {(int(i), int(codes[place, 0])) for i, place in zip(found.query, found.first, strict=True)}
    assert len(pairs) == len(found.query)
    assert pairs == {
        (i, int(code[0]))
        for i, query in enumerate(queries)
        for code in codes
        if np.bitwise_count(code ^ query).sum() <= radius
    }


def test_probing_on_the_device_and_on_the_host_agree(rng, monkeypatch):
    index, queries = collection(18, 3000, q=100)
    table = address_table.tables_of(index, (Slice(0, 18),))[0]
    on_host = address_table.probe(table, queries[:3], 2)
    monkeypatch.setattr(address_table, "WORDS_ON_HOST", 0)
    monkeypatch.setattr(address_table, "WORDS_AT_ONCE", 200)
    for a, b in zip(on_host, address_table.probe(table, queries[:3], 2), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shared", [1.0, 0.5])
def test_skewed_buckets_stay_exact_and_small(shared, rng, monkeypatch):
    # All codes, or half of them, share their first 28 bits, and so one bucket of the first table.
    bits = rng.random((4000, 60)) < 0.5
    bits[: int(4000 * shared), :28] = True
    index, queries = jh.build_index(oracle.pack(bits), 60), oracle.pack(bits[::40])
    expected = jh.radius_search(index, queries, radius=2, method="scan")
    same(jh.radius_search(index, queries, radius=2, method="probe"), expected)
    for module in (lookup, matches):  # so that one query's bucket exceeds what is looked at together
        monkeypatch.setattr(module, "CODES_AT_ONCE", 1000)
    largest = []
    real = lookup.hits_among
    monkeypatch.setattr(lookup, "hits_among", lambda *a: largest.append(len(a[3])) or real(*a))
    same(jh.radius_search(index, queries, radius=2, method="probe"), expected)
    assert max(largest, default=0) <= 1000


@pytest.mark.parametrize("limit", [16, 48, 800])
def test_ragged_results_are_the_same_however_few_codes_are_looked_at_together(limit, monkeypatch):
    index, queries = collection(17, 3000, q=20)
    whole = jh.radius_search(index, queries, radius=4, method="scan")
    for module in (lookup, matches):
        monkeypatch.setattr(module, "CODES_AT_ONCE", limit)
    same(jh.radius_search(index, queries, radius=4, method="scan"), whole)
    same(jh.radius_search(index, queries, radius=4, method="probe"), whole)


def test_tables_are_built_once_and_leave_with_their_index():
    index, queries = collection(20)
    jh.radius_search(index, queries, radius=1, method="probe")
    plan = cost_model.plan_of(jh.describe(index).num_codes, 20, 1, num_tables=1)
    assert address_table.are_built(index, plan.slices)
    first = address_table.tables_of(index, plan.slices)[0]
    jh.radius_search(index, queries, radius=1, method="probe")
    assert address_table.tables_of(index, plan.slices)[0] is first
    before = len(address_table._built)
    del index
    assert len(address_table._built) < before


def test_auto_rents_before_it_buys():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**24, (100_000, 1), dtype=np.uint32) << np.uint32(8)
    index, queries = jh.build_index(codes, 24), codes[:64]
    plan = cost_model.plan_of(jh.describe(index).num_codes, 24, 1, num_tables=1)
    jh.radius_search(index, queries[:1], radius=1)
    assert not address_table.are_built(index, plan.slices)
    for _ in range(100):
        jh.radius_search(index, queries, radius=1)
    assert address_table.are_built(index, plan.slices)


def test_auto_scans_short_lists_and_probes_long_ones():
    short = cost_model.Sizes(1000, 1000, 64, 2048)
    long = cost_model.Sizes(10**8, 7 * 10**7, 28, 10**8)
    assert cost_model._widening_plans(short, 10, "auto")[0] == ()
    assert cost_model._radius_plan(short, 30, "auto", None)[0] is None
    assert len(cost_model._widening_plans(long, 10, "auto")[0]) >= 2
    assert cost_model._radius_plan(long, 2, "auto", None)[0].radii == (2,)
    assert len(cost_model._radius_plan(cost_model.Sizes(10**7, 10**7, 64, 2 * 10**7), 3, "auto", None)[0].slices) >= 2


@pytest.mark.parametrize("method", ["flat", "multi-index", None, 1])
def test_a_method_that_search_does_not_have_is_refused(method):
    index, queries = collection(17)
    with pytest.raises(ValueError, match="method must be one of auto, scan, probe"):
        jh.search(index, queries, k=1, method=method)


@pytest.mark.parametrize(
    ("num_tables", "error"), [(0, ValueError), (18, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_impossible_numbers_of_tables_are_refused(num_tables, error):
    index, queries = collection(17)
    with pytest.raises(error, match="num_tables"):
        jh.radius_search(index, queries, radius=1, method="multi-index", num_tables=num_tables)


def test_tables_are_only_for_multi_index():
    index, queries = collection(17)
    with pytest.raises(ValueError, match="num_tables is for the method multi-index"):
        jh.radius_search(index, queries, radius=1, num_tables=2)
    with pytest.raises(ValueError, match="method must be one of auto, scan, probe, multi-index"):
        jh.radius_search(index, queries, radius=1, method="flat")


def test_threads_that_share_an_index_all_get_the_serial_answer():
    index, queries = collection(40, 2000, q=64)
    jobs = [
        partial(jh.search, index, queries, k=5),
        partial(jh.search, index, queries, k=5, method="probe"),
        partial(jh.radius_search, index, queries, radius=3, method="multi-index"),
        partial(jh.radius_search, index, queries, radius=3),
    ]
    fresh, _ = collection(40, 2000, q=64)  # another object: its tables are not built yet
    expected = [partial(job.func, fresh, *job.args[1:], **job.keywords)() for job in jobs]
    wrong = []

    def work(number):
        for turn in range(6):
            at = (number + turn) % len(jobs)
            try:
                same(jobs[at](), expected[at])
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("num_bits", [17, 64, 256])
def test_every_kernel_lowers_for_accelerators(platform, num_bits):
    index, queries = collection(num_bits)
    masks, left = address_table.flip_masks(17, 2)
    bitmap, address = np.zeros(2**12, np.uint32), np.zeros(4, np.uint32)
    programs = [
        (partial(jh.search, k=10), (index, queries)),
        (partial(jh.radius_search_padded, radius=2, max_results=5), (index, queries)),
        (lambda codes, queries: near_groups(codes, queries, radius=np.uint32(2)), (index.codes, queries)),
        (address_table.hit_words, (bitmap, address, masks, left)),
    ]
    for function, arguments in programs:
        lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))
        assert "module" in lowered.as_text()
