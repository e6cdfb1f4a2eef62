"""Weighted search against a slow form, by hand, and under jit and vmap."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import same

import jaxhash as jh
from jaxhash.query import weighted

# Distances of one byte, the most of one byte, and of two; words in part and in full. Each takes seconds to compile.
WIDTHS = [1, 17, 33, 64, *(pytest.param(b, marks=pytest.mark.slow) for b in (32, 65, 128, 256, 1024))]
# Weights to choose from, and a number of neighbours: each pair is compiled.
LEVELS = [([0], 45), ([0, 8], 3), ([1, 2, 15], 45), ([0, 9], 3)]


def example(num_bits, n=300, q=9, seed=0):
    rng = np.random.default_rng((seed, num_bits, n))
    codes = oracle.pack(oracle.clustered(rng, n, num_bits))
    queries = oracle.pack(oracle.clustered(rng, q, num_bits))
    return codes, rng.permutation(3 * n)[:n], queries, rng.integers(0, 16, (q, num_bits))


def test_three_codes_by_hand():
    codes = jh.pack_bits([[0, 0, 0], [1, 0, 0], [0, 1, 1]])
    index = jh.build_index(codes, 3)
    found = jh.weighted_search(index, codes[0], [5, 1, 2], k=3)
    assert found.distances.tolist() == [0, 3, 5]
    assert found.ids.tolist() == [0, 2, 1]


@pytest.mark.parametrize("num_bits", WIDTHS)
def test_weighted_search_equals_the_slow_form(num_bits):
    codes, ids, queries, weights = example(num_bits)
    index = jh.build_index(codes, num_bits, ids=ids)
    for k in (1, 20, 310) if num_bits == 33 else (20,):
        found = jh.weighted_search(index, queries, weights, k=k)
        same(tuple(found), oracle.nearest_weighted(codes, ids, queries, weights, k))
        assert isinstance(found, jh.Neighbors)


@pytest.mark.parametrize("num_bits", [33, pytest.param(256, marks=pytest.mark.slow)])
def test_with_all_weights_one_it_is_search(num_bits):
    codes, ids, queries, _ = example(num_bits)
    index = jh.build_index(codes, num_bits, ids=ids)
    same(jh.weighted_search(index, queries, np.ones(num_bits, int), k=20), jh.search(index, queries, k=20))


@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(0, 2**32), st.sampled_from(LEVELS))
def test_any_planes_may_be_unused(n, seed, levels_and_k):
    levels, k = levels_and_k
    codes, ids, queries, _ = example(40, n, 5, seed)
    weights = np.random.default_rng(seed).choice(levels, (5, 40))
    found = jh.weighted_search(jh.build_index(codes, 40, ids=ids), queries, weights, k=k)
    same(tuple(found), oracle.nearest_weighted(codes, ids, queries, weights, k))


def test_large_collections_and_batches_equal_the_slow_form():
    codes, ids, queries, weights = example(64, 30_000, 300)  # enough for minima to be kept in memory
    found = jh.weighted_search(jh.build_index(codes, 64, ids=ids), queries, weights, k=10)
    rows = [0, 150, 299]
    same(
        (np.asarray(found.distances)[rows], np.asarray(found.ids)[rows]),
        oracle.nearest_weighted(codes, ids, queries[rows], weights[rows], 10),
    )


def test_queries_keep_their_leading_shape():
    codes, ids, queries, weights = example(33, q=12)
    index = jh.build_index(codes, 33, ids=ids)
    flat = jh.weighted_search(index, queries, weights, k=20)
    cube = jh.weighted_search(index, queries.reshape(2, 6, 2), weights.reshape(2, 6, 33), k=20)
    np.testing.assert_array_equal(cube.ids, np.reshape(flat.ids, (2, 6, 20)))
    same(jh.weighted_search(index, queries[0], weights[0], k=20), jax.tree.map(lambda array: array[0], flat))
    assert jh.weighted_search(index, queries[:0], weights[:0], k=20).ids.shape == (0, 20)


def test_under_jit_and_vmap_it_gives_the_same():
    codes, ids, queries, weights = example(33, q=16)
    index = jh.build_index(codes, 33, ids=ids)
    found = jh.weighted_search(index, queries, weights, k=20)
    search = partial(jh.weighted_search, k=20)
    same(jax.jit(search)(index, queries, weights), found)
    same(jax.jit(lambda weights: search(index, queries, weights))(weights), found)
    same(jax.vmap(lambda query, weight: search(index, query, weight))(queries, weights), found)
    shared = jh.weighted_search(index, queries, weights[0], k=20)
    same(jax.vmap(lambda query: search(index, query, weights[0]))(queries), shared)


def test_planes_that_are_zero_everywhere_are_left_out(monkeypatch):
    codes, ids, queries, _ = example(33)
    seen = []
    real = weighted._compiled_weighted
    monkeypatch.setattr(
        weighted, "_compiled_weighted", lambda *a, **options: seen.append(options["exponents"]) or real(*a, **options)
    )
    index = jh.build_index(codes, 33, ids=ids)
    for weight in (np.ones(33, int), np.full(33, 8), np.full(33, 9), np.zeros(33, int)):
        jh.weighted_search(index, queries, weight, k=20)
    assert seen == [(0,), (3,), (0, 3), (0,)]


def test_weights_on_a_device_stay_there():
    codes, ids, queries, weights = example(64, q=16)
    index = jh.build_index(codes, 64, ids=ids)
    expected = jh.weighted_search(index, queries, weights, k=20)
    on_device = jnp.asarray(queries), jnp.asarray(weights.astype(np.uint8))
    jh.weighted_search(index, *on_device, k=20)
    with jax.transfer_guard("disallow"):
        found = jh.weighted_search(index, *on_device, k=20)
    same(found, expected)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.full(17, 16), ValueError, "between 0 and 15, got 16"),
        (np.full(17, -1), ValueError, "between 0 and 15, got -1"),
        (np.ones(17), TypeError, "integers from 0 to 15, got dtype float64"),
        (np.ones(17, bool), TypeError, "got dtype bool"),
        (np.ones(16, int), ValueError, r"shape \(17,\) or \(9, 17\), got \(16,\)"),
        (np.ones((8, 17), int), ValueError, r"got \(8, 17\)"),
        (np.array(1), ValueError, r"got \(\)"),
    ],
)
def test_weights_that_are_none_are_refused(weights, error, message):
    codes, ids, queries, _ = example(17)
    with pytest.raises(error, match=message):
        jh.weighted_search(jh.build_index(codes, 17, ids=ids), queries, weights, k=1)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_it_lowers_for_accelerators(platform):
    codes, ids, queries, weights = example(64)
    search = jax.jit(partial(jh.weighted_search, k=10))
    lowered = search.trace(jh.build_index(codes, 64, ids=ids), queries, weights).lower(lowering_platforms=(platform,))
    assert "module" in lowered.as_text()
