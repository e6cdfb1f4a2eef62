"""Search by weights of bits, against a slow form: eager, inside jit and inside vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import prefer
from samples import collection, same

import jaxhash as jh
from jaxhash.codes.weights import weigh_queries
from jaxhash.index.hash_index import sizes_of
from jaxhash.query.nearest import find_nearest
from jaxhash.query.plan import LIMITS, order_nearest

# Distances of one byte, the most of one byte, and of two; words in part and in full. Each takes seconds to compile.
WIDTHS = [1, 17, 33, 64, *(pytest.param(b, marks=pytest.mark.slow) for b in (32, 65, 128, 256, 1024))]
# Weights to choose from, and a number of neighbors: each pair is compiled.
LEVELS = [([0], 45), ([0, 8], 3), ([1, 2, 15], 45), ([0, 9], 3)]
METHODS = ["scan", "numpy"]
KINDS = [np.asarray, jnp.asarray]


def with_weights(num_bits, q=9):
    """A collection and weights for its queries."""
    return *collection(num_bits, 300, q), np.random.default_rng(num_bits).integers(0, 16, (q, num_bits))


def find(index, queries, weights, k, method):
    rows, limits = weigh_queries(queries, weights, index.num_bits), prefer(method)
    options = order_nearest(sizes_of(index), len(queries), k, k, num_planes=len(rows.exponents), limits=limits)
    assert options[0].method == method or k > int(index.num_codes)
    return find_nearest(index, rows, k=k, limits=limits)


def test_three_codes_by_hand():
    codes = jh.pack_bits([[0, 0, 0], [1, 0, 0], [0, 1, 1]])
    for method in METHODS:
        found = find(jh.build_index(codes, 3), codes[:1], [5, 1, 2], 3, method)
        assert found.distances.tolist() == [[0, 3, 5]]
        assert found.ids.tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("num_bits", WIDTHS)
def test_every_method_equals_the_slow_form(num_bits):
    index, queries, codes, ids, weights = with_weights(num_bits)
    for k in (20, 310) if num_bits == 33 else (20,):
        expected = oracle.nearest_weighted(codes, ids, queries, weights, k)
        for method in METHODS:
            same(tuple(find(index, queries, weights, k, method)), expected)
        same(tuple(jh.search(index, queries, k=k, weights=weights)), expected)


@pytest.mark.parametrize("num_bits", [33, pytest.param(256, marks=pytest.mark.slow)])
def test_weights_of_one_give_plain_search(num_bits):
    index, queries, *_ = collection(num_bits, 300, 9)
    for method in METHODS:
        same(find(index, queries, np.ones(num_bits, int), 20, method), jh.search(index, queries, k=20))


@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(0, 2**32), st.sampled_from(LEVELS), st.sampled_from(METHODS))
def test_any_planes_may_be_unused(n, seed, levels_and_k, method):
    levels, k = levels_and_k
    index, queries, codes, ids = collection(40, n, 5, seed)
    weights = np.random.default_rng(seed).choice(levels, (5, 40))
    found = find_nearest(index, weigh_queries(queries, weights, 40), k=k, limits=prefer(method))
    same(tuple(found), oracle.nearest_weighted(codes, ids, queries, weights, k))


def test_kept_minima_change_nothing(rng):
    codes, weights = rng.integers(0, 2**32, (9000, 2), dtype=np.uint32), rng.integers(0, 16, (256, 64))
    index, queries = jh.build_index(codes, 64), codes[:256]
    assert index.codes.size * len(queries) >= LIMITS.kept_work
    found = find(index, queries, weights, 10, "scan")
    rows = [0, 150, 255]
    expected = oracle.nearest_weighted(codes, np.arange(9000), queries[rows], weights[rows], 10)
    same((found.distances[rows], found.ids[rows]), expected)
    same(found, find(index, queries, weights, 10, "numpy"))


@pytest.mark.parametrize("num_queries", [1, 3])
def test_the_heaviest_distances_are_exact(num_queries):
    num_bits = 2**15  # the most there are
    index = jh.build_index(np.zeros((1, num_bits // 32), np.uint32), num_bits, ids=[4])
    queries = np.full((num_queries, num_bits // 32), 0xFFFFFFFF, np.uint32)
    found = find(index, queries, np.full(num_bits, 15), 1, "numpy")
    assert found.distances.tolist() == [[15 * num_bits]] * num_queries
    assert found.ids.tolist() == [[4]] * num_queries


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weights_kind", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_of_the_kind_of_the_queries(kind, weights_kind, method):
    index, queries, codes, ids, weights = with_weights(33)
    found = find(index, kind(queries), weights_kind(weights), 20, method)
    assert all(isinstance(array, jax.Array if kind is jnp.asarray else np.ndarray) for array in found)
    same(tuple(found), oracle.nearest_weighted(codes, ids, queries, weights, 20))
    assert [array.dtype for array in found] == [np.int32, np.int32]


@pytest.mark.parametrize("kind", KINDS)
def test_queries_keep_their_leading_shape(kind):
    index, queries, codes, ids, weights = with_weights(33, q=12)
    flat = oracle.nearest_weighted(codes, ids, queries, weights, 20)
    cube = jh.search(index, kind(queries.reshape(2, 6, 2)), weights=weights.reshape(2, 6, 33), k=20)
    same(tuple(cube), tuple(array.reshape(2, 6, 20) for array in flat))
    one = jh.search(index, kind(queries[0]), weights=weights[0], k=20)
    same(tuple(one), tuple(array[0] for array in flat))
    assert jh.search(index, kind(queries[:0]), weights=weights[:0], k=20).ids.shape == (0, 20)


def test_jit_and_vmap_change_nothing():
    index, queries, codes, ids, weights = with_weights(33, q=16)
    expected = oracle.nearest_weighted(codes, ids, queries, weights, 20)

    def search(index, query, weights):
        return jh.search(index, query, weights=weights, k=20)

    same(tuple(jax.jit(search)(index, queries, weights)), expected)
    same(tuple(jax.jit(lambda weights: search(index, queries, weights))(weights)), expected)
    same(tuple(jax.vmap(lambda query, weight: search(index, query, weight))(queries, weights)), expected)
    shared = oracle.nearest_weighted(codes, ids, queries, np.tile(weights[0], (16, 1)), 20)
    same(tuple(jax.vmap(lambda query: search(index, query, weights[0]))(queries)), shared)


def test_numpy_queries_make_no_program(compilations):
    index, queries, *_, weights = with_weights(33)
    with jax.transfer_guard("disallow"), compilations:
        jh.search(index, queries[0], weights=weights[0], k=3)
        jh.search(index, queries[:4], weights=[3] * 33, k=3)
    assert compilations.count == 0


def test_weights_on_a_device_stay_there():
    index, queries, *_, weights = with_weights(64, q=16)
    expected = jh.search(index, queries, weights=weights, k=20)
    asked, heavy = jnp.asarray(queries), jnp.asarray(weights.astype(np.uint8))
    find(index, asked, heavy, 20, "scan")
    with jax.transfer_guard("disallow"):
        found = find(index, asked, heavy, 20, "scan")
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
def test_weights_that_do_not_fit_are_refused(weights, error, message):
    index, queries, *_ = collection(17, 300, 9)
    with pytest.raises(error, match=message):
        jh.search(index, queries, weights=weights, k=1)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_weighted_search_lowers_without_scatter(platform):
    index, queries, *_, weights = with_weights(64)
    search = jax.jit(lambda index, queries, weights: jh.search(index, queries, weights=weights, k=10))
    text = search.trace(index, queries, weights).lower(lowering_platforms=(platform,)).as_text()
    assert "scatter" not in text
