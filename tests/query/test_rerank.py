"""Reranking by long codes and by vectors, against sorting all candidates."""

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
from jaxhash.query.rerank import METRICS

BEST_FIRST = {"cosine": -1, "inner_product": -1, "euclidean": 1}


def by_sorting(long_codes, queries, candidates, k):
    """Distances and ids `[q, k]`."""
    rows = [np.unique(ids[ids >= 0]) for ids in candidates]
    found = [oracle.nearest(long_codes[ids], ids, [query], k) for ids, query in zip(rows, queries, strict=True)]
    return tuple(np.concatenate(arrays) for arrays in zip(*found, strict=True))


def some_codes(num_bits, n, q, m, seed=0, most=None):
    """Long codes, queries, and candidates that come more than once or not at all."""
    rng = np.random.default_rng(seed)
    long_codes, queries = (oracle.pack(oracle.clustered(rng, count, num_bits)) for count in (n, q))
    return long_codes, queries, rng.integers(-1, most or n, (q, m))


def test_three_codes_by_hand():
    long_codes = np.array([[0, 1], [0, 7], [1, 1], [0, 2]], np.uint32)
    # Items 0, 3 and 1 are 0, 2 and 2 bits away, and of the last two item 3 has the smaller code.
    found = jh.rerank(long_codes, np.array([0, 1], np.uint32), [1, 3, 1, -1, 0], k=4)
    assert found.distances.tolist() == [0, 2, 2, jh.query.Neighbors.NO_DISTANCE]
    assert found.ids.tolist() == [0, 3, 1, jh.query.Neighbors.NO_ID]


@settings(max_examples=60)
@given(
    # Bits, candidates and k, few values: each is compiled.
    st.sampled_from([(1, 30, 4), (33, 1, 4), (33, 30, 4), (33, 30, 35), (70, 1, 35), (70, 30, 4)]),
    st.integers(1, 40),
    st.integers(0, 2**32),
)
def test_reranking_equals_sorting_the_candidates(sizes, most, seed):
    num_bits, m, k = sizes
    arrays = some_codes(num_bits, 40, 3, m, seed, most)
    same(tuple(jh.rerank(*arrays, k=k)), by_sorting(*arrays, k))


def test_all_items_as_candidates_are_a_search():
    rng = np.random.default_rng(0)
    long_codes = oracle.pack(oracle.clustered(rng, 300, 40))
    queries = long_codes[:4].reshape(2, 2, 2)
    everything = np.broadcast_to(rng.permutation(300), (2, 2, 300))
    found = jh.rerank(long_codes, queries, everything, k=25)
    same(found, jh.search(jh.build_index(long_codes, 40), queries, k=25))
    same(jax.jit(partial(jh.rerank, k=25))(long_codes, queries, everything), found)
    same(jax.vmap(lambda query, ids: jh.rerank(long_codes, query, ids, k=25))(queries, everything), found)


@pytest.mark.parametrize("shape", [(9, 33), (33,)])
def test_weights_rank_as_in_the_slow_form(shape):
    rng = np.random.default_rng(0)
    long_codes, queries = (oracle.pack(oracle.clustered(rng, count, 33)) for count in (60, 9))
    weights = rng.integers(0, 16, shape)
    expected = oracle.nearest_weighted(long_codes, np.arange(60), queries, np.broadcast_to(weights, (9, 33)), 7)
    everything = np.broadcast_to(rng.permutation(60).astype(np.int32), (9, 60))
    found = jh.rerank(long_codes, queries, everything, k=7, weights=weights)
    assert isinstance(found.ids, np.ndarray)
    same(tuple(found), expected)
    arrays = tuple(map(jnp.asarray, (long_codes, queries, everything)))
    of_jax = jh.rerank(*arrays, k=7, weights=weights)
    assert isinstance(of_jax.ids, jax.Array)
    same(of_jax, found)
    same(jax.jit(lambda w: jh.rerank(long_codes, queries, everything, k=7, weights=w))(weights), found)
    same(jax.jit(lambda q: jh.rerank(long_codes, q, everything, k=7, weights=weights))(queries), found)
    same(jh.rerank(long_codes, queries, everything, k=7, weights=np.ones(33, int)), jh.rerank(*arrays, k=7))


@pytest.mark.parametrize(("q", "m"), [(300, 20), (9, 150_000)])
def test_queries_that_take_several_batches_give_the_same(q, m):
    long_codes, queries, ids = some_codes(64, 80, q, m)
    found = jh.rerank(long_codes, queries, ids, k=6)
    for row in (0, q // 2, q - 1):
        expected = by_sorting(long_codes, queries[row, None], ids[row, None], 6)
        same((found.distances[row, None], found.ids[row, None]), expected)
    same(jh.rerank(*map(jnp.asarray, (long_codes, queries, ids.astype(np.int32))), k=6), found)


@pytest.mark.parametrize("rerank", [jh.rerank, jh.rerank_vectors])
def test_inside_jit_ids_of_no_row_are_left_out(rerank):
    rows = np.array([[1], [3]]).astype(np.uint32 if rerank is jh.rerank else np.float32)
    found = jax.jit(partial(rerank, k=3))(rows, rows[0], np.array([5, 1, -7]))
    assert found.ids.tolist() == [1, -1, -1]
    assert found[0][1:].tolist() == [oracle.NO_DISTANCE if rerank is jh.rerank else -np.inf] * 2


@pytest.mark.parametrize("rerank", [jh.rerank, jh.rerank_vectors])
@pytest.mark.parametrize("put", [np.asarray, jnp.asarray])
def test_without_items_or_candidates_nothing_is_found(rerank, put):
    dtype = np.uint32 if rerank is jh.rerank else np.float32
    none, queries = put(np.zeros((0, 3), dtype)), np.zeros((2, 3), dtype)
    assert rerank(none, queries, np.full((2, 4), -1), k=2).ids.tolist() == [[-1, -1]] * 2
    assert rerank(none, queries, np.zeros((2, 0), int), k=2).ids.tolist() == [[-1, -1]] * 2
    assert rerank(none, queries[:0], np.zeros((0, 4), int), k=2).ids.shape == (0, 2)


WRONG = [
    ({"candidate_ids": np.array([[4]] * 3)}, ValueError, "below 4, or -1 for none, got 4"),
    ({"candidate_ids": np.array([[-2]] * 3)}, ValueError, "got -2"),
    ({"candidate_ids": np.array([[2**40]] * 3)}, ValueError, "got 1099511627776"),
    ({"candidate_ids": jnp.array([[4]] * 3)}, ValueError, "below 4, or -1 for none, got 4"),
    ({"candidate_ids": np.zeros((2, 1), int)}, ValueError, r"candidate_ids must have shape \[3, 'm'\]"),
    ({"candidate_ids": np.zeros((3, 1))}, TypeError, "candidate_ids must be integers"),
    ({"k": 0}, ValueError, "k must"),
]
WRONG_CODES = [
    ({"long_codes": np.zeros(4, np.uint32)}, ValueError, r"long_codes must have shape \[n, w\]"),
    ({"long_codes": np.zeros((4, 2), np.int32)}, TypeError, "long_codes must be packed codes"),
    ({"queries": np.zeros((3, 1), np.uint32)}, ValueError, "queries must have 2 words"),
    ({"queries": np.zeros((3, 2), np.int32)}, TypeError, "queries must be packed codes"),
    ({"weights": np.full(64, 16)}, ValueError, "weights must lie between 0 and 15, got 16"),
    ({"weights": np.zeros(32, int)}, ValueError, "codes of b bits in 2 words, got b = 32"),
    ({"weights": np.zeros((2, 64), int)}, ValueError, r"weights must have shape \(64,\) or \(3, 64\)"),
    ({"weights": np.zeros(64)}, TypeError, "weights must be integers"),
]
WRONG_VECTORS = [
    ({"vectors": np.zeros((4, 2), int)}, TypeError, "vectors must be floating, got dtype int64"),
    ({"vectors": np.zeros(4, np.float32)}, ValueError, r"vectors must have shape \[n, d\], got \(4,\)"),
    ({"queries": np.zeros((3, 2), int)}, TypeError, "queries must be floating"),
    ({"queries": np.zeros((3, 1), np.float32)}, ValueError, r"shape \[..., 2\], like vectors"),
    ({"queries": np.full((3, 2), np.nan)}, ValueError, "queries must be finite"),
    ({"queries": jnp.full((3, 2), jnp.inf)}, ValueError, "queries must be finite"),
    ({"metric": "manhattan"}, ValueError, "metric must be one of cosine, inner_product, euclidean"),
]


@pytest.mark.parametrize(
    ("rerank", "change", "error", "message"),
    [(jh.rerank, *row) for row in WRONG + WRONG_CODES] + [(jh.rerank_vectors, *row) for row in WRONG + WRONG_VECTORS],
)
def test_wrong_input_is_refused(rerank, change, error, message):
    name, dtype = ("long_codes", np.uint32) if rerank is jh.rerank else ("vectors", np.float32)
    good = {name: np.zeros((4, 2), dtype), "queries": np.zeros((3, 2), dtype)}
    with pytest.raises(error, match=message):
        rerank(**(good | {"candidate_ids": np.zeros((3, 1), int), "k": 1} | change))


# By vectors.


def slow_scores(vectors, query, metric):
    """Scores in float64."""
    a, b = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "euclidean":
        return np.sqrt(((a - b) ** 2).sum(-1))
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b) if metric == "cosine" else np.ones(len(a))
    return np.where(lengths > 0, (a @ b) / np.where(lengths > 0, lengths, 1), 0)


def by_sorting_scores(vectors, queries, candidates, k, metric):
    """Scores and ids `[q, k]`."""
    scores = np.full((len(queries), k), BEST_FIRST[metric] * np.inf)
    found = np.full((len(queries), k), -1)
    for row, query in enumerate(queries):
        ids = np.unique(candidates[row][candidates[row] >= 0])
        by_id = slow_scores(vectors[ids], query, metric)
        order = np.lexsort((ids, BEST_FIRST[metric] * by_id))[:k]
        scores[row, : len(order)], found[row, : len(order)] = by_id[order], ids[order]
    return scores, found


def some_vectors(n=60, q=5, m=30, d=6, seed=0):
    """Small integers, so that float32 is exact and there are many ties."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-1, 2, (n, d)).astype(np.float32)
    return vectors, rng.integers(-1, 2, (q, d)).astype(np.float32), rng.integers(-1, n, (q, m))


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


@settings(max_examples=30)
@given(
    st.sampled_from(["inner_product", "euclidean"]),
    st.sampled_from([(1, 3, 4), (40, 30, 4), (40, 30, 35), (40, 3, 35)]),  # few values: each is compiled
    st.integers(0, 2**32),
)
def test_vectors_rank_as_sorted_scores_ties_included(metric, sizes, seed):
    n, m, k = sizes
    vectors, queries, candidates = some_vectors(n, 3, m, seed=seed)
    scores, ids = by_sorting_scores(vectors, queries, candidates, k, metric)
    for table in (vectors, jnp.asarray(vectors)):
        found = jh.rerank_vectors(table, queries, candidates, k=k, metric=metric)
        same(tuple(found), (scores.astype(np.float32), ids))


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
    scores, ids = by_sorting_scores(vectors, queries, candidates, 9, metric)
    for table, rows in ((vectors, queries), jax.device_put((vectors, queries))):
        found = jh.rerank_vectors(table, rows, candidates, k=9, metric=metric)
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_allclose(found.scores, scores, rtol=2e-5, atol=2e-6)
        assert found.scores.dtype == np.float32


@pytest.mark.parametrize("metric", METRICS)
def test_vectors_rank_the_same_under_jit_and_vmap(metric):
    vectors, queries, candidates = some_vectors(q=6)
    rerank = partial(jh.rerank_vectors, k=5, metric=metric)
    found = rerank(vectors, queries, candidates)
    cube = rerank(vectors, queries.reshape(2, 3, 6), candidates.reshape(2, 3, 30))
    same(cube, jax.tree.map(lambda array: array.reshape(2, 3, 5), found))
    same(jax.jit(rerank)(vectors, queries, candidates), found)
    same(jax.vmap(partial(rerank, vectors))(queries, candidates), found)


def test_vectors_that_take_several_batches_rank_the_same():
    vectors, queries, candidates = some_vectors(n=500, q=20, m=2000, d=60)  # 8 queries at a time
    rerank = partial(jh.rerank_vectors, k=5, metric="inner_product")
    found = rerank(vectors, queries, candidates)
    scores, ids = by_sorting_scores(vectors, queries, candidates, 5, "inner_product")
    same(tuple(found), (scores.astype(np.float32), ids))
    same(rerank(jnp.asarray(vectors), queries, candidates), found)
    same(jax.jit(lambda queries: rerank(vectors, queries, candidates))(queries), found)


def test_only_the_candidates_of_mapped_vectors_are_read(tmp_path):
    vectors, queries, candidates = some_vectors()
    # 8 GiB, nearly all of it a hole in the file: to read it, or to send it to a device, would take very long.
    mapped = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.float16, (700_000_000, 6))
    mapped[-60:] = vectors
    found = jh.rerank_vectors(mapped, queries, np.where(candidates < 0, -1, candidates + len(mapped) - 60), k=5)
    expected = jh.rerank_vectors(vectors, queries, candidates, k=5)
    same(found, expected._replace(ids=np.where(expected.ids < 0, -1, expected.ids + len(mapped) - 60)))


def test_nan_ranks_last_and_overflow_is_the_largest_number():
    huge = np.finfo(np.float32).max
    vectors = np.array([[np.nan, 1], [huge, huge], [1, 1], [-huge, -huge]], np.float32)
    found = jh.rerank_vectors(vectors, np.ones(2, np.float32), [0, 1, 2, 3, -1], k=5, metric="inner_product")
    np.testing.assert_array_equal(found.scores, np.array([huge, 2, -huge, -huge, -np.inf], np.float32))
    assert found.ids.tolist() == [1, 2, 0, 3, -1]


@pytest.mark.parametrize("rerank", [jh.rerank, jh.rerank_vectors])
def test_rows_on_a_device_stay_there(rerank):
    rows, queries, ids = some_codes(64, 80, 8, 20) if rerank is jh.rerank else some_vectors(q=8)
    expected = rerank(rows, queries, ids, k=3)
    on_device = jax.device_put((rows, queries, ids.astype(np.int32)))
    rerank(*on_device, k=3)
    with jax.transfer_guard("disallow"):
        found = rerank(*on_device, k=3)
    same(found, expected)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize(
    ("rerank", "arrays"), [(jh.rerank, some_codes(70, 60, 5, 30)), (jh.rerank_vectors, some_vectors())]
)
def test_programs_for_accelerators_have_no_scatter(platform, rerank, arrays):
    program = jax.jit(partial(rerank, k=10)).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
    assert "gather" in program
    assert "scatter" not in program
