"""Single queries answered by numpy get what the compiled program finds."""

from functools import partial

import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import same

import jaxhash as jh
from jaxhash.codes.weights import ALL_PLANES, pack_planes
from jaxhash.query import cost_model, eager
from jaxhash.query.costs import costs
from jaxhash.query.few_queries import search_few
from jaxhash.query.kernels import Weights


def test_nearest_by_hand():
    codes = np.array([[0b1000], [0b0001], [0b0111], [0b0001]], np.uint32)
    distances, ids = search_few(jh.build_index(codes, 32, ids=[7, 5, 9, 4]), np.zeros(1, np.uint32), 3)
    assert distances.tolist() == [1, 1, 1]  # by code, then by id
    assert ids.tolist() == [4, 5, 7]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.sampled_from([1, 17, 64, 90, 300]), st.sampled_from([1, 4, 60]), st.integers(0, 99))
def test_it_equals_the_oracle_also_by_weights(n, num_bits, k, seed):
    rng = np.random.default_rng((seed, num_bits, n))
    codes, queries = (oracle.pack(oracle.clustered(rng, count, num_bits)) for count in (n, 2))
    ids = rng.permutation(3 * n)[:n]
    index = jh.build_index(codes, num_bits, ids=ids)
    k = min(k, int(index.num_codes))
    expected = oracle.nearest(codes, ids, queries, k)
    same(search_few(index, queries, k), jh.Neighbors(*(array.astype(np.int32) for array in expected)))
    for exponents, largest in ((ALL_PLANES, 15), ((0, 2), 5)):
        weights = rng.integers(0, 16, (2, num_bits)) & largest
        planes = Weights(pack_planes(weights, exponents), exponents)
        expected = oracle.nearest_weighted(codes, ids, queries, weights, k)
        same(tuple(search_few(index, queries, k, planes)), expected)


@pytest.mark.parametrize("lead", [(), (1,), (1, 2)])
def test_leading_axes_are_kept(lead):
    index = jh.build_index(np.arange(50, dtype=np.uint32)[:, None], 32)
    queries = np.full((*lead, 1), 3, np.uint32)
    found = search_few(index, queries, 4)
    assert found.ids.shape == (*lead, 4)
    assert all(isinstance(array, jax.Array) and array.dtype == np.int32 for array in found)
    same(found, jh.search(index, queries, k=4, method="scan"))


def test_numpy_answers_where_it_is_quicker_and_nothing_is_barred(monkeypatch):
    index, query = jh.build_index(np.arange(500, dtype=np.uint32)[:, None], 32), np.uint32([9])
    expected = jh.search(index, query, k=5, method="scan")
    cheap = costs()._replace(host_query=0, host_word=0)
    monkeypatch.setattr(cost_model, "costs", lambda: cheap)
    cost_model._nearest_options.cache_clear()
    answered = []
    monkeypatch.setattr(eager, "search_few", lambda *arguments: answered.append(1) or search_few(*arguments))
    same(jh.search(index, query, k=5), expected)
    assert answered
    same(jh.search(index, query, k=5, allowed=np.ones(500, bool)), expected)
    same(jh.search(index, query, k=600, method="auto"), jh.search(index, query, k=600, method="scan"))
    assert len(answered) == 1
    cost_model._nearest_options.cache_clear()


def test_while_one_thread_computes_in_numpy_others_scan(monkeypatch):
    index, query = jh.build_index(np.arange(500, dtype=np.uint32)[:, None], 32), np.uint32([9])
    monkeypatch.setattr(eager, "search_few", lambda *_: "numpy")
    search = partial(eager._search_on_host, index, query, k=5, scan=lambda _: "scan")
    assert search() == "numpy"
    with eager._host:
        assert search() == "scan"
    assert search() == "numpy"
