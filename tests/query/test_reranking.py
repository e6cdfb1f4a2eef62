"""Reranking by long codes, against sorting all candidates."""

from functools import partial

import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxhash as jh


def by_sorting(long_codes, query, candidates, k):
    ids = np.unique(candidates[candidates >= 0])
    distances, found = oracle.ranking(long_codes[ids], ids, query)
    spare = max(0, k - len(ids))
    return (
        [*distances[:k].tolist(), *[oracle.NO_DISTANCE] * spare],
        [*found[:k].tolist(), *[oracle.NO_ID] * spare],
    )


@settings(max_examples=60)
@given(
    # Bits, candidates and k, few values: each is compiled.
    st.sampled_from([(1, 30, 4), (33, 1, 4), (33, 30, 4), (33, 30, 35), (70, 1, 35), (70, 30, 4)]),
    st.integers(1, 40),
    st.integers(0, 2**32),
)
def test_equal_to_sorting_the_candidates(sizes, most, seed):
    num_bits, m, k = sizes
    rng = np.random.default_rng(seed)
    long_codes = oracle.pack(oracle.clustered(rng, 40, num_bits))
    queries = oracle.pack(oracle.clustered(rng, 3, num_bits))
    candidates = rng.integers(-1, most, (3, m))
    found = jh.rerank(long_codes, queries, candidates, k=k)
    for row in range(3):
        expected = by_sorting(long_codes, queries[row], candidates[row], k)
        assert (found.distances[row].tolist(), found.ids[row].tolist()) == expected


def test_all_items_as_candidates_are_a_search():
    rng = np.random.default_rng(0)
    long_codes = oracle.pack(oracle.clustered(rng, 300, 40))
    queries = long_codes[:4].reshape(2, 2, 2)
    everything = np.broadcast_to(rng.permutation(300), (2, 2, 300))
    found = jh.rerank(long_codes, queries, everything, k=25)
    expected = jh.search(jh.build_index(long_codes, 40), queries, k=25)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert isinstance(found, jh.Neighbors)
    inside = jax.jit(partial(jh.rerank, k=25))(long_codes, queries, everything)
    jax.tree.map(np.testing.assert_array_equal, inside, expected)
    mapped = jax.vmap(lambda query, ids: jh.rerank(long_codes, query, ids, k=25))(queries, everything)
    jax.tree.map(np.testing.assert_array_equal, mapped, expected)


def test_inside_jit_ids_out_of_range_are_left_out():
    long_codes = np.array([[1], [3]], np.uint32)
    found = jax.jit(partial(jh.rerank, k=3))(long_codes, np.array([1], np.uint32), np.array([5, 1, -7]))
    assert found.ids.tolist() == [1, -1, -1]
    assert found.distances.tolist() == [1, oracle.NO_DISTANCE, oracle.NO_DISTANCE]


def test_no_items_and_no_candidates():
    none = np.zeros((0, 1), np.uint32)
    assert jh.rerank(none, np.zeros((2, 1), np.uint32), np.full((2, 3), -1), k=2).ids.tolist() == [[-1, -1]] * 2
    assert jh.rerank(none, none, np.zeros((0, 4), int), k=2).ids.shape == (0, 2)


def test_a_batch_of_any_size_gives_the_same(monkeypatch):
    rng = np.random.default_rng(1)
    long_codes = oracle.pack(oracle.clustered(rng, 80, 64))
    queries, ids = long_codes[:50], rng.integers(0, 80, (50, 20))
    whole = jh.rerank(long_codes, queries, ids, k=6)
    monkeypatch.setattr("jaxhash.query.reranking.QUERY_MEMORY", 1)
    jax.tree.map(np.testing.assert_array_equal, whole, jh.rerank(long_codes, queries, ids, k=6))


GOOD = {"long_codes": np.zeros((4, 2), np.uint32), "query_long_codes": np.zeros((3, 2), np.uint32)}
WRONG = [
    ({"candidate_ids": np.array([[4]] * 3)}, ValueError, "below 4, or -1 for none, got 4"),
    ({"candidate_ids": np.array([[-2]] * 3)}, ValueError, "got -2"),
    ({"candidate_ids": np.array([[2**40]] * 3)}, ValueError, "got 1099511627776"),
    ({"candidate_ids": np.zeros((2, 1), int)}, ValueError, r"candidate_ids must have shape \[3, 'm'\]"),
    ({"candidate_ids": np.zeros((3, 1))}, TypeError, "candidate_ids must be integers"),
    ({"long_codes": np.zeros(4, np.uint32)}, ValueError, r"long_codes must have shape \[n, w\]"),
    ({"long_codes": np.zeros((4, 2), np.int32)}, TypeError, "long_codes must be packed codes"),
    ({"query_long_codes": np.zeros((3, 1), np.uint32)}, ValueError, "query_long_codes must have 2 words"),
    ({"k": 0}, ValueError, "k must"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG)
def test_wrong_input_is_refused(change, error, message):
    good = GOOD | {"candidate_ids": np.zeros((3, 1), int), "k": 1}
    with pytest.raises(error, match=message):
        jh.rerank(**(good | change))
