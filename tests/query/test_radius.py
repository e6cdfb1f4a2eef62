"""All methods of search give one answer."""

import threading
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import collection, same

import jaxhash as jh

WIDTHS = [1, 6, 17, 33, 64, 256, 1024, *(pytest.param(b, marks=pytest.mark.slow) for b in (3, 65))]


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


@pytest.mark.parametrize("num_bits", [1, 17, 64, 256])
def test_every_method_finds_the_same_neighbors(num_bits):
    index, queries = collection(num_bits)
    for k in (1, 20, 450) if num_bits in (17, 64) else (20,):  # each width and k is compiled
        expected = jh.search(index, queries, k=k, method="scan")
        same(jh.search(index, queries, k=k, method="probe"), expected)
        same(jh.search(index, queries, k=k), expected)
    same(jh.search(index, queries[0], k=20, method="probe"), jh.search(index, queries[0], k=20, method="scan"))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 2**32), st.data())
def test_any_number_of_tables_finds_every_match(num_bits, n, seed, data):
    index, queries = collection(num_bits, n, q=6, seed=seed)
    radius = data.draw(st.integers(0, num_bits))
    num_tables = data.draw(st.integers(1, num_bits))
    found = jh.radius_search(index, queries, radius=radius, method="multi-index", num_tables=num_tables)
    same(found, jh.radius_search(index, queries, radius=radius, method="scan"))


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


def test_threads_that_share_an_index_get_the_results_of_one():
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
