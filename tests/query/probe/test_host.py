"""Probing on the host, against comparing all codes."""

import threading

import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import collection, same

import jaxhash as jh
from jaxhash.codes.distances import Queries
from jaxhash.index.address_table import Slice, build_table, get_tables, list_tables
from jaxhash.index.hash_index import sizes_of, sorted_arrays
from jaxhash.query.hits import Request, join_matches, matches_of_hits
from jaxhash.query.plan import LIMITS, Option, order_radius, plan_tables
from jaxhash.query.probe.host import find_buckets, probe_hits, probe_matches, probe_one, probe_widening
from jaxhash.query.radius import find_matches
from jaxhash.query.results import RadiusMatches


def option_of(*plans):
    return Option("probe", 0.0, plans)


def ragged(expected):
    """What the oracle gives for each query, as a search returns it."""
    offsets = np.cumsum([0, *(len(ids) for _, ids in expected)])
    return RadiusMatches(offsets, *(np.concatenate(arrays) for arrays in zip(*expected, strict=True)))


@pytest.fixture(scope="module")
def skewed():
    """Items, half of them in one bucket of the first table, queries, and the matches within 2 of each."""
    bits = np.random.default_rng(0).random((1000, 60)) < 0.5
    bits[:500, :28] = True
    codes = oracle.pack(bits)
    queries = codes[::50]
    return jh.build_index(codes, 60), queries, oracle.within(codes, np.arange(1000), queries, 2)


# Buckets and hits.


def test_buckets_by_hand():
    codes = np.array([0b000, 0b001, 0b010, 0b111], np.uint32)[:, None] << np.uint32(29)
    found = find_buckets(build_table([codes], Slice(0, 2)), codes[[0, 3]], 1)
    # Address 0 holds two codes, 1 and 3 one each; 0 and 1 are near the first query, 1 and 3 near the second.
    pairs = sorted(zip(*(array.tolist() for array in found), strict=True))
    assert pairs == [(0, 0, 0, 2), (0, 1, 2, 1), (1, 1, 2, 1), (1, 3, 3, 1)]
    assert found.num_codes == 5


@pytest.mark.parametrize(("size", "radius"), [(3, 1), (5, 2), (8, 0), (9, 3), (9, 9)])
def test_buckets_are_those_within_the_radius(size, radius, rng):
    codes = sorted_arrays(jh.build_index(oracle.pack(rng.random((2**size // 2, size)) < 0.5), size))[0]
    queries = oracle.pack(rng.random((20, size)) < 0.5)
    found = find_buckets(build_table([codes], Slice(0, size)), queries, radius)
    pairs = {(int(i), int(codes[rank, 0])) for i, rank in zip(found.queries, found.firsts, strict=True)}
    assert len(pairs) == len(found.queries) == found.num_codes
    assert pairs == {
        (i, int(code[0]))
        for i, query in enumerate(queries)
        for code in codes
        if np.bitwise_count(code ^ query).sum() <= radius
    }


@settings(max_examples=40)
@given(st.integers(1, 80), st.integers(0, 200), st.integers(0, 2**32), st.data())
def test_hits_are_those_of_comparing_all(num_bits, n, seed, data):
    index, queries, codes, ids = collection(num_bits, n, 6, seed)
    radius, num_tables = data.draw(st.integers(0, min(8, num_bits))), data.draw(st.integers(1, min(6, num_bits)))
    (hits,) = probe_hits(index, queries, radius, plan_tables(sizes_of(index), radius, num_tables))
    same(matches_of_hits(index, hits), ragged(oracle.within(codes, ids, queries, radius)))


@pytest.mark.parametrize("num_tables", [1, 3])
@pytest.mark.parametrize("most", [20, 600, 1500])
def test_queries_with_many_candidates_are_split(skewed, num_tables, most):
    index, queries, expected = skewed
    limits, plan = LIMITS._replace(candidates=most, candidate=0.0), plan_tables(sizes_of(index), 2, num_tables)
    parts = probe_hits(index, queries, 2, plan, limits)
    assert len(parts) > 1
    whole = join_matches([matches_of_hits(index, hits) for hits in parts])
    same(whole, ragged(expected))
    tables, start = get_tables(index, plan.slices), 0
    for hits in parts:
        rows = queries[start : start + len(hits.starts) - 1]
        found = [find_buckets(table, rows, reach) for table, reach in zip(tables, plan.radii, strict=True)]
        assert len(rows) == 1 or sum(buckets.num_codes for buckets in found) <= most
        start += len(rows)
    assert start == len(queries)


@pytest.mark.parametrize("last", ["many", "few"])
def test_probing_dearer_than_a_scan_is_not_started(skewed, last):
    index, queries, _ = skewed  # the first half has 500 candidates each
    queries = queries[::-1] if last == "many" else queries
    words = 2 * index.capacity
    limits = {"program": 0.0, "read_word": 0.0, "compare_word": 350 / words, "candidate": 1.0, "candidates": 400}
    plan = plan_tables(sizes_of(index), 2, 1)
    assert probe_hits(index, queries, 2, plan, LIMITS._replace(**limits)) is None
    assert probe_hits(index, queries, 2, plan, LIMITS._replace(**limits | {"compare_word": 600 / words})) is not None


# Searches by tables.


def test_queries_with_too_many_candidates_are_left(skewed):
    index, queries, expected = skewed
    limits, plan = LIMITS._replace(candidates=400, candidate=1e9, probes=1), plan_tables(sizes_of(index), 2, 1)
    matches, done = probe_matches(Request(index, None, limits, radius=2), Queries(queries), option_of(plan))
    same(done, np.arange(20) >= 10)  # the first half of the codes is in one bucket
    nothing = np.zeros(0, np.int32)
    same(matches, ragged([row if each else (nothing, nothing) for row, each in zip(expected, done, strict=True)]))


@pytest.mark.parametrize("method", ["probe", "multi_index"])
@pytest.mark.parametrize("others", [{"numpy": 1e15}, {"program": 1e15}])
def test_another_method_answers_what_probing_leaves(skewed, method, others):
    index, queries, expected = skewed
    limits = LIMITS._replace(candidates=400, candidate=1e9, probes=1, **others)
    same(find_matches(index, queries, 2, method=method, limits=limits), ragged(expected))
    allowed = np.arange(1000) % 100 > 0  # every other query's own code is not
    chosen = ragged([(distances[allowed[ids]], ids[allowed[ids]]) for distances, ids in expected])
    assert 0 < len(chosen.ids) < len(ragged(expected).ids)
    same(find_matches(index, queries, 2, allowed, method=method, limits=limits), chosen)


@pytest.mark.parametrize("probes", [1, 500, 2**18])
@pytest.mark.parametrize("num_tables", [1, 4])
def test_batches_of_any_size_find_the_same(probes, num_tables):
    index, queries, codes, ids = collection(40)
    plan = plan_tables(sizes_of(jh.build_index(codes, 40)), 3, num_tables)
    allowed = np.random.default_rng(0).random(1200) < 0.5
    limits = LIMITS._replace(probes=probes)
    for mask, keep in ((None, np.ones(400, bool)), (allowed, allowed[ids])):
        matches, done = probe_matches(Request(index, mask, limits, radius=3), Queries(queries), option_of(plan))
        assert done.all()
        same(matches, ragged(oracle.within(codes[keep], ids[keep], queries, 3)))
    matches, done = probe_matches(Request(index, None, limits, radius=3), Queries(queries[:0]), option_of(plan))
    assert (matches.offsets.tolist(), done.shape) == ([0], (0,))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("k", "radii"), [(1, 3), (7, 3), (7, 0), (300, 12)])
def test_widening_answers_queries_with_enough_items_near(k, radii, masked):
    index, queries, codes, ids = collection(30)
    allowed = np.random.default_rng(0).random(1200) < 0.5 if masked else None
    keep = allowed[ids] if masked else np.ones(400, bool)
    plans = [plan_tables(sizes_of(index), radius, 1) for radius in range(radii)]
    matches, done = probe_widening(Request(index, allowed, LIMITS, k=k), Queries(queries), option_of(*plans))
    within = oracle.within(codes[keep], ids[keep], queries, radii - 1)
    same(done, [len(found) >= k for _, found in within])
    same(matches, ragged([(row[:k], found[:k]) if len(found) >= k else (row[:0], found[:0]) for row, found in within]))


# One query in plain Python.


def ask_one(index, query, radius, plan, allowed=None, **changes):
    asked = Request(index, allowed, LIMITS._replace(**changes), radius=radius)
    return probe_one(asked, Queries(query[None]), option_of(plan))


def test_one_query_by_hand():
    codes = np.array([[0b1000], [0b0001], [0b0111], [0b0001], [0b0000]], np.uint32) << np.uint32(20)
    index = jh.build_index(codes, 12, ids=[7, 5, 9, 4, 8])
    found, done = ask_one(index, np.zeros(1, np.uint32), 1, plan_tables(sizes_of(index), 1, 1))
    assert done.tolist() == [True]
    assert found.offsets.tolist() == [0, 4]
    assert found.distances.tolist() == [0, 1, 1, 1]  # by distance, then by code, then by id
    assert found.ids.tolist() == [8, 4, 5, 7]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("num_bits", "num_tables"), [(12, 1), (17, 1), (40, 3), (64, 1), (64, 4), (90, 2)])
@pytest.mark.parametrize("radius", [0, 1, 3])
def test_one_query_finds_what_comparing_all_does(num_bits, num_tables, radius, masked):
    index, queries, codes, ids = collection(num_bits, q=12)
    allowed = np.random.default_rng(0).random(1200) < 0.5 if masked else None
    keep = allowed[ids] if masked else np.ones(400, bool)
    plan = plan_tables(sizes_of(index), radius, num_tables)
    expected = oracle.within(codes[keep], ids[keep], queries, radius)
    for query, row in zip(queries, expected, strict=True):
        found, done = ask_one(index, query, radius, plan, allowed, few_candidates=10**6)
        assert done.all()
        same(found, ragged([row]))


@pytest.mark.parametrize("masked", [False, True])
def test_one_query_with_many_candidates_is_left(skewed, masked):
    index, queries, expected = skewed
    plan, allowed = plan_tables(sizes_of(index), 2, 1), np.arange(1000) % 2 == 0 if masked else None
    for query, distances, ids in zip(queries, *zip(*expected, strict=True), strict=True):
        buckets = find_buckets(*get_tables(index, plan.slices), query[None], 2)
        found, done = ask_one(index, query, 2, plan, allowed, few_candidates=buckets.num_codes)
        assert done.all()
        some = allowed[ids] if masked else np.ones(len(ids), bool)
        same(found, ragged([(distances[some], ids[some])]))
        found, done = ask_one(index, query, 2, plan, allowed, few_candidates=buckets.num_codes - 1)
        assert not done.any()
        assert found.offsets.tolist() == [0, 0]


@pytest.mark.parametrize("few_candidates", [20, 10**6])
def test_a_search_for_one_query_tries_probe_one_first(skewed, few_candidates):
    index, queries, expected = skewed
    limits = LIMITS._replace(few_candidates=few_candidates)
    for number in (0, 19):  # the first has 500 candidates
        fresh = jax.tree.map(lambda array: array, index)
        options = order_radius(sizes_of(fresh), 1, 2, method="probe", limits=limits)
        assert [option.method for option in options][:2] == ["probe_one", "probe"]
        found = find_matches(fresh, queries[number : number + 1], 2, method="probe", limits=limits)
        same(found, ragged([expected[number]]))


# Many threads.


def test_threads_build_each_table_once():
    index, queries, *_ = collection(40, 2000)
    expected = jh.radius_search(collection(40, 2000).index, queries, radius=3, method="scan")
    results, start = [], threading.Barrier(8)

    def work(number):
        start.wait()
        for turn in range(3):
            method = ("probe", "multi_index")[(number + turn) % 2]
            results.append(jh.radius_search(index, queries, radius=3, method=method))
            results.append(jh.radius_search(jh.prepare(index, radius=3), queries, radius=3))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 48
    for found in results:
        same(found, expected)
    tables = list_tables(index)
    assert get_tables(index, [table.bits for table in tables]) == tables
