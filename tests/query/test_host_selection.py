"""Selection on the host gives what the compiled program gives."""

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import same

import jaxhash as jh
from jaxhash.query import host_selection
from jaxhash.query.costs import costs
from jaxhash.query.nearest import _compiled_search

LEAST = host_selection.LEAST_QUERIES


def example(num_bits, n, q, seed=0):
    rng = np.random.default_rng((seed, num_bits, n))
    codes = oracle.pack(oracle.clustered(rng, n, num_bits))
    queries = oracle.pack(oracle.clustered(rng, q, num_bits))
    return codes, rng.permutation(3 * n)[:n], queries


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.sampled_from([1, 3, 17, 40, 64]), st.sampled_from([1, 3, 10, 60]), st.integers(0, 99))
def test_it_equals_the_oracle(n, num_bits, k, seed):
    codes, ids, queries = example(num_bits, n, LEAST, seed)
    index = jh.build_index(codes, num_bits, ids=ids)
    if k <= int(index.num_codes):
        found = host_selection.select_nearest(index, queries, k, 16)
        expected = oracle.nearest(codes, ids, queries, k)
        same(found, tuple(array.astype(np.int32) for array in expected))


@pytest.mark.parametrize(
    ("num_bits", "k"), [(17, 40), (64, 700), *(pytest.param(b, 40, marks=pytest.mark.slow) for b in (256, 1024))]
)
def test_large_collections_give_what_the_compiled_program_gives(num_bits, k):
    codes, ids, queries = example(num_bits, 20_000, 21)
    index = jh.build_index(codes, num_bits, ids=ids)
    assert host_selection.selects_on_host(index, len(queries), k)
    same(jh.search(index, queries, k=k, method="scan"), _compiled_search(index, queries, k=k))


def test_one_code_of_many_items_fills_all_slots():
    codes = np.repeat(np.array([[8], [9], [15]], np.uint32), [50, 1, 3], axis=0)
    distances, ids = host_selection.select_nearest(jh.build_index(codes, 32), codes[:1], 3, 1)
    assert ids.tolist() == [[0, 1, 2]]
    assert distances.tolist() == [[0, 0, 0]]


def test_where_too_many_codes_tie_the_compiled_program_answers(monkeypatch):
    codes, ids, queries = example(64, 20_000, 20)
    index = jh.build_index(codes, 64, ids=ids)
    assert not host_selection.wants_many(index, 40)
    expected = jh.search(index, queries, k=40, method="scan")
    monkeypatch.setattr(host_selection, "GROUPS_AT_ONCE", 1)
    assert host_selection.select_nearest(index, queries, 40, 32) is None
    same(jh.search(index, queries, k=40, method="scan"), expected)


def test_leading_axes_are_kept_and_few_programs_are_compiled(compilations):
    codes, ids, queries = example(64, 5000, 96)
    index = jh.build_index(codes, 64, ids=ids)
    found = jh.search(index, queries, k=40, method="scan")
    with compilations:
        cube = jh.search(index, queries.reshape(4, 24, 2), k=40, method="scan")
        for count in range(LEAST, 40):
            jh.search(index, queries[:count], k=40, method="scan")
    assert compilations.count <= 4  # 8, 16 and 32 queries in each thread
    np.testing.assert_array_equal(cube.ids, np.reshape(found.ids, (4, 24, 40)))


@pytest.mark.parametrize("counts_in_vectors", [True, False])
def test_the_kth_smallest_is_found_on_all_processors(counts_in_vectors, monkeypatch):
    monkeypatch.setattr(host_selection, "costs", lambda: costs()._replace(counts_in_vectors=counts_in_vectors))
    rows = np.array([[5, 1, 255, 3], [2, 2, 0, 9]], np.uint8)
    assert host_selection._find_kth(rows, 2).tolist() == [3, 2]
    assert host_selection._find_kth(rows, 4).dtype == np.uint8
