"""Reranking by vectors, against scoring and sorting all candidates in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import same

import jaxhash as jh
from jaxhash.query import vector_reranking
from jaxhash.query.vector_reranking import METRICS

BEST_FIRST = {"cosine": -1, "inner_product": -1, "euclidean": 1}


def slow_scores(vectors, query, metric):
    a, b = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "euclidean":
        return np.sqrt(((a - b) ** 2).sum(-1))
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b) if metric == "cosine" else np.ones(len(a))
    return np.where(lengths > 0, (a @ b) / np.where(lengths > 0, lengths, 1), 0)


def slow(vectors, queries, candidates, k, metric):
    scores = np.full((len(queries), k), BEST_FIRST[metric] * np.inf)
    found = np.full((len(queries), k), -1)
    for row, query in enumerate(queries):
        ids = np.unique(candidates[row][candidates[row] >= 0])
        by_id = slow_scores(vectors[ids], query, metric)
        order = np.lexsort((ids, BEST_FIRST[metric] * by_id))[:k]
        scores[row, : len(order)], found[row, : len(order)] = by_id[order], ids[order]
    return scores, found


def example(n=60, q=5, m=30, d=6, seed=0):
    """Small integers, so that float32 is exact and there are many ties."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-1, 2, (n, d)).astype(np.float32)
    return vectors, rng.integers(-1, 2, (q, d)).astype(np.float32), rng.integers(-1, n, (q, m))


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["inner_product", "euclidean"]),
    st.sampled_from([(1, 3, 4), (40, 30, 4), (40, 30, 35), (40, 3, 35)]),  # few values: each is compiled
    st.integers(0, 2**32),
)
def test_equal_to_sorting_the_candidates_ties_included(metric, sizes, seed):
    n, m, k = sizes
    vectors, queries, candidates = example(n, 3, m, seed=seed)
    scores, ids = slow(vectors, queries, candidates, k, metric)
    for table in (vectors, jnp.asarray(vectors)):
        found = jh.rerank_vectors(table, queries, candidates, k=k, metric=metric)
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_array_equal(found.scores, scores.astype(np.float32))


@pytest.mark.parametrize(
    ("metric", "dtype"),
    [
        *(("cosine", dtype) for dtype in (np.float16, jnp.bfloat16, np.float32, np.float64)),
        ("inner_product", np.float16),
        ("euclidean", jnp.bfloat16),
    ],
)
def test_vectors_of_any_float_are_scored_in_single_precision(metric, dtype):
    rng = np.random.default_rng(1)
    vectors, queries = (rng.normal(size=shape).astype(dtype) for shape in ((200, 48), (5, 48)))
    candidates = np.stack([rng.permutation(200)[:90] for _ in range(5)])
    scores, ids = slow(vectors, queries, candidates, 9, metric)
    on_device = jax.device_put(vectors), jax.device_put(queries)
    for table, rows in ((vectors, queries), on_device):
        found = jh.rerank_vectors(table, rows, candidates, k=9, metric=metric)
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_allclose(found.scores, scores, rtol=2e-5, atol=2e-6)
        assert found.scores.dtype == jnp.float32
        assert isinstance(found, jh.ScoredNeighbors)


def test_three_vectors_by_hand():
    vectors = np.array([[3, 4], [0, 2], [0, 0]], np.float32)
    query, everything = np.array([0, 1], np.float32), [2, 1, 0, 1, -1]
    expected = {
        "cosine": ([1, 0.8, 0, -np.inf], [1, 0, 2, -1]),
        "inner_product": ([4, 2, 0, -np.inf], [0, 1, 2, -1]),
        "euclidean": ([1, 1, np.sqrt(18), np.inf], [1, 2, 0, -1]),
    }
    for metric, (scores, ids) in expected.items():
        found = jh.rerank_vectors(vectors, query, everything, k=4, metric=metric)
        np.testing.assert_allclose(found.scores, scores, rtol=1e-6)
        assert found.ids.tolist() == ids


@pytest.mark.parametrize("metric", METRICS)
def test_under_jit_and_vmap_and_in_any_batch_it_gives_the_same(metric, monkeypatch):
    vectors, queries, candidates = example(q=6)
    rerank = partial(jh.rerank_vectors, k=5, metric=metric)
    found = rerank(vectors, queries, candidates)
    cube = rerank(vectors, queries.reshape(2, 3, 6), candidates.reshape(2, 3, 30))
    same(cube, jax.tree.map(lambda array: np.reshape(array, (2, 3, 5)), found))
    same(jax.jit(rerank)(vectors, queries, candidates), found)
    same(jax.vmap(partial(rerank, vectors))(queries, candidates), found)
    monkeypatch.setattr(vector_reranking, "ROW_MEMORY", 1)
    same(rerank(vectors, queries, candidates), found)
    same(jax.jit(lambda queries: rerank(vectors, queries, candidates))(queries), found)


def test_only_the_candidates_of_mapped_vectors_are_read(tmp_path):
    vectors, queries, candidates = example()
    # 8 GiB, nearly all of it a hole in the file: to read it, or to send it to a device, would take very long.
    mapped = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.float16, (700_000_000, 6))
    mapped[-60:] = vectors
    found = jh.rerank_vectors(mapped, queries, np.where(candidates < 0, -1, candidates + len(mapped) - 60), k=5)
    expected = jh.rerank_vectors(vectors, queries, candidates, k=5)
    same(found, expected._replace(ids=np.where(expected.ids < 0, -1, expected.ids + len(mapped) - 60)))


def test_a_nan_ranks_last_and_overflow_is_the_largest_number():
    huge = np.finfo(np.float32).max
    vectors = np.array([[np.nan, 1], [huge, huge], [1, 1], [-huge, -huge]], np.float32)
    found = jh.rerank_vectors(vectors, np.ones(2, np.float32), [0, 1, 2, 3, -1], k=5, metric="inner_product")
    np.testing.assert_array_equal(found.scores, np.array([huge, 2, -huge, -huge, -np.inf], np.float32))
    assert found.ids.tolist() == [1, 2, 0, 3, -1]


def test_inside_jit_ids_of_no_row_are_left_out():
    vectors = np.eye(2, dtype=np.float32)
    found = jax.jit(partial(jh.rerank_vectors, k=3))(vectors, vectors[0], np.array([5, 1, -7]))
    assert found.ids.tolist() == [1, -1, -1]


def test_no_items_and_no_candidates():
    none, query = np.zeros((0, 3), np.float32), np.zeros((2, 3), np.float32)
    for table in (none, jnp.asarray(none)):
        assert jh.rerank_vectors(table, query, np.full((2, 4), -1), k=2).ids.tolist() == [[-1, -1]] * 2
        assert jh.rerank_vectors(table, query, np.zeros((2, 0), int), k=2).ids.tolist() == [[-1, -1]] * 2
        assert jh.rerank_vectors(table, query[:0], np.zeros((0, 4), int), k=2).ids.shape == (0, 2)


def test_arrays_on_a_device_stay_there():
    arrays = example(q=8)
    expected = jh.rerank_vectors(*arrays, k=3)
    on_device = tuple(jnp.asarray(array.astype(np.int32) if array.dtype.kind == "i" else array) for array in arrays)
    jh.rerank_vectors(*on_device, k=3)
    with jax.transfer_guard("disallow"):
        found = jh.rerank_vectors(*on_device, k=3)
    same(found, expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"vectors": np.zeros((4, 2), int)}, TypeError, "vectors must be floating, got dtype int64"),
        ({"vectors": np.zeros(4, np.float32)}, ValueError, r"vectors must have shape \[n, d\], got \(4,\)"),
        ({"query_vectors": np.zeros((3, 2), int)}, TypeError, "query_vectors must be floating"),
        ({"query_vectors": np.zeros((3, 1), np.float32)}, ValueError, r"shape \[..., 2\], as vectors have"),
        ({"query_vectors": np.full((3, 2), np.nan)}, ValueError, "query_vectors must be finite"),
        ({"candidate_ids": [[4]] * 3}, ValueError, "rows of vectors, below 4, or -1 for none, got 4"),
        ({"candidate_ids": [[0]] * 2}, ValueError, r"candidate_ids must have shape \[3, 'm'\]"),
        ({"candidate_ids": np.zeros((3, 1))}, TypeError, "candidate_ids must be integers"),
        ({"k": 0}, ValueError, "k must"),
        ({"metric": "manhattan"}, ValueError, "metric must be one of cosine, inner_product, euclidean"),
    ],
)
def test_wrong_input_is_refused(change, error, message):
    good = {"vectors": np.zeros((4, 2), np.float32), "query_vectors": np.zeros((3, 2), np.float32)}
    with pytest.raises(error, match=message):
        jh.rerank_vectors(**(good | {"candidate_ids": np.zeros((3, 1), int), "k": 1} | change))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_it_lowers_for_accelerators(platform):
    rerank = jax.jit(partial(jh.rerank_vectors, k=10))
    assert "module" in rerank.trace(*example()).lower(lowering_platforms=(platform,)).as_text()
