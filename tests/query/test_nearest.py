"""Exact search, against the oracle: eager, inside jit and inside vmap."""

import dataclasses
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
from jaxhash.query import kernels, nearest
from jaxhash.query.cost_model import MAX_QUERIES_AT_ONCE

WIDTHS = [1, 17, 32, 33, 64, 65, 256, 1024, *(pytest.param(b, marks=pytest.mark.slow) for b in (31, 63, 128))]
TRACED_WIDTHS = [17, 64, pytest.param(1024, marks=pytest.mark.slow)]  # each takes seconds to compile
# Each width and k is compiled. So most tests have 64 bits and k = 7.
MORE_THAN_ALL = 155


def example(num_bits, n=150, q=9, seed=0):
    """Clustered codes with copies, shuffled ids, and queries of which some are stored codes."""
    rng = np.random.default_rng((seed, num_bits, n))
    codes = oracle.pack(oracle.clustered(rng, n, num_bits))
    ids = rng.permutation(2 * n + 1)[:n].astype(np.int32)
    queries = oracle.pack(oracle.clustered(rng, q, num_bits))
    queries[: min(2, n)] = codes[:2]
    return codes, ids, queries


def assert_neighbors(found, expected):
    np.testing.assert_array_equal(found.distances, expected[0])
    np.testing.assert_array_equal(found.ids, expected[1])


def assert_matches(found, expected):
    assert found.offsets[0] == 0
    assert len(found.ids) == len(found.distances) == found.offsets[-1]
    for row, (distances, ids) in enumerate(expected):
        run = slice(found.offsets[row], found.offsets[row + 1])
        np.testing.assert_array_equal(found.distances[run], distances)
        np.testing.assert_array_equal(found.ids[run], ids)


def assert_padded(found, expected, max_results):
    for row, (distances, ids) in enumerate(expected):
        assert found.counts[row] == len(ids)
        count = min(len(ids), max_results)
        np.testing.assert_array_equal(found.distances[row, :count], distances[:count])
        np.testing.assert_array_equal(found.ids[row, :count], ids[:count])
        assert (np.asarray(found.distances[row, count:]) == found.NO_DISTANCE).all()
        assert (np.asarray(found.ids[row, count:]) == found.NO_ID).all()


def test_three_codes_by_hand():
    index = jh.build_index(jh.pack_bits([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]]), 4, ids=[10, 20, 30])
    query = jh.pack_bits([0, 0, 0, 1])
    distances, ids = jh.search(index, query, k=3)
    assert distances.tolist() == [1, 1, 3]
    assert ids.tolist() == [10, 30, 20]  # of equal distance, the smaller code first
    assert jh.radius_search(index, query, radius=1).ids.tolist() == [10, 30]
    padded = jh.radius_search_padded(index, query, radius=1, max_results=1)
    assert (padded.ids.tolist(), int(padded.counts)) == ([10], 2)


@pytest.mark.parametrize("num_bits", WIDTHS)
def test_search_equals_the_oracle(num_bits):
    codes, ids, queries = example(num_bits)
    index = jh.build_index(codes, num_bits, ids=ids)
    for k in (7, MORE_THAN_ALL) if num_bits in (17, 64, 1024) else (7,):
        assert_neighbors(jh.search(index, queries, k=k), oracle.nearest(codes, ids, queries, k))


@pytest.mark.parametrize("num_bits", TRACED_WIDTHS)
def test_search_inside_jit_and_vmap_and_of_one_query_equals_the_oracle(num_bits):
    codes, ids, queries = example(num_bits)
    index, k = jh.build_index(codes, num_bits, ids=ids), 7
    expected = oracle.nearest(codes, ids, queries, k)
    assert_neighbors(jax.jit(partial(jh.search, k=k))(index, queries), expected)
    assert_neighbors(jax.vmap(partial(jh.search, k=k), in_axes=(None, 0))(index, queries), expected)
    assert_neighbors(jh.search(index, queries[0], k=k), (expected[0][0], expected[1][0]))


@pytest.mark.parametrize("num_bits", WIDTHS)
def test_radius_search_equals_the_oracle(num_bits):
    codes, ids, queries = example(num_bits)
    index = jh.build_index(codes, num_bits, ids=ids)
    for radius in sorted({0, 1, 3, num_bits // 2, num_bits - 1, num_bits}):
        expected = oracle.within(codes, ids, queries, radius)
        assert_matches(jh.radius_search(index, queries, radius=radius), expected)


@pytest.mark.parametrize("num_bits", TRACED_WIDTHS)
def test_padded_radius_search_equals_the_oracle_also_inside_jit_and_vmap(num_bits):
    codes, ids, queries = example(num_bits)
    index = jh.build_index(codes, num_bits, ids=ids)
    expected = oracle.within(codes, ids, queries, 3)
    padded = partial(jh.radius_search_padded, radius=3, max_results=4)
    assert_padded(padded(index, queries), expected, 4)
    assert_padded(jax.jit(padded)(index, queries), expected, 4)
    assert_padded(jax.vmap(padded, in_axes=(None, 0))(index, queries), expected, 4)


@settings(max_examples=60)
@given(st.integers(0, 150), st.sampled_from([3, 17, 64]), st.integers(0, 2**32), st.data())
def test_any_collection_is_searched_exactly(n, num_bits, seed, data):
    codes, ids, queries = example(num_bits, n, seed=seed)
    index = jh.build_index(codes, num_bits, ids=ids)
    k = data.draw(st.sampled_from([1, 7, MORE_THAN_ALL]))
    assert_neighbors(jh.search(index, queries, k=k), oracle.nearest(codes, ids, queries, k))
    radius = data.draw(st.integers(0, num_bits))
    assert_matches(jh.radius_search(index, queries, radius=radius), oracle.within(codes, ids, queries, radius))


@pytest.mark.parametrize("n", [1, 16, 1024, 1025, 5000])
def test_search_across_groups_and_blocks_equals_the_oracle(n):
    codes, ids, queries = example(20, n, q=3)
    index = jh.build_index(codes, 20, ids=ids)
    assert_neighbors(jh.search(index, queries, k=40), oracle.nearest(codes, ids, queries, 40))
    assert_matches(jh.radius_search(index, queries, radius=5), oracle.within(codes, ids, queries, 5))
    padded = jh.radius_search_padded(index, queries, radius=5, max_results=30)
    assert_padded(padded, oracle.within(codes, ids, queries, 5), 30)


def test_ties_are_ordered_by_code_then_id():
    codes, ids, queries = example(4, 5000, q=3)
    index = jh.build_index(codes, 4, ids=ids)
    expected = oracle.nearest(codes, ids, queries, 20)
    for _ in range(10):
        assert_neighbors(jh.search(index, queries, k=20), expected)


def test_identical_codes_give_all_their_items():
    codes = np.full((10_000, 1), 0xABCD0000, np.uint32)
    index = jh.build_index(codes, 17)
    assert jh.radius_search(index, codes[0], radius=0).ids.tolist() == list(range(10_000))
    assert jh.search(index, codes[:1], k=5).ids.tolist() == [[0, 1, 2, 3, 4]]
    assert int(jh.radius_search_padded(index, codes[0], radius=0, max_results=3).counts) == 10_000


@pytest.mark.parametrize("num_bits", [1, pytest.param(1024, marks=pytest.mark.slow)])
def test_an_empty_index_finds_nothing(num_bits):
    index = jh.build_index(np.zeros((0, -(-num_bits // 32)), np.uint32), num_bits)
    queries = np.zeros((3, -(-num_bits // 32)), np.uint32)
    found = jh.search(index, queries, k=2)
    assert (np.asarray(found.ids) == jh.Neighbors.NO_ID).all()
    assert (np.asarray(found.distances) == jh.Neighbors.NO_DISTANCE).all()
    assert jh.radius_search(index, queries, radius=num_bits).offsets.tolist() == [0, 0, 0, 0]
    assert jh.radius_search_padded(index, queries, radius=num_bits, max_results=2).counts.tolist() == [0, 0, 0]


def test_no_queries_give_empty_results():
    codes, ids, _ = example(64)
    index, none = jh.build_index(codes, 64, ids=ids), np.zeros((0, 2), np.uint32)
    assert jh.search(index, none, k=7).ids.shape == (0, 7)
    assert jh.search(index, none.reshape(2, 0, 2), k=7).ids.shape == (2, 0, 7)
    assert jh.radius_search(index, none, radius=3).offsets.tolist() == [0]
    assert jh.radius_search_padded(index, none, radius=3, max_results=5).counts.shape == (0,)
    assert jax.jit(partial(jh.search, k=4))(index, none).ids.shape == (0, 4)


def test_queries_keep_their_leading_shape():
    codes, ids, queries = example(64, q=12)
    index = jh.build_index(codes, 64, ids=ids)
    flat, cube = jh.search(index, queries, k=7), jh.search(index, queries.reshape(2, 3, 2, 2), k=7)
    assert cube.ids.shape == (2, 3, 2, 7)
    np.testing.assert_array_equal(cube.ids.reshape(12, 7), flat.ids)
    traced = jax.jit(partial(jh.search, k=7))(index, queries.reshape(2, 3, 2, 2))
    np.testing.assert_array_equal(traced.ids, cube.ids)
    assert jh.search(index, queries[0], k=7).ids.shape == (7,)
    ragged = jh.radius_search(index, queries.reshape(2, 3, 2, 2), radius=9)
    np.testing.assert_array_equal(ragged.ids, jh.radius_search(index, queries, radius=9).ids)


def test_batches_of_any_size_agree():
    codes, ids, queries = example(64, q=2 * MAX_QUERIES_AT_ONCE + 37)
    index = jh.build_index(codes, 64, ids=ids)
    whole = jh.search(index, queries, k=7)
    ragged = jh.radius_search(index, queries, radius=6)
    for size in (1, 7, 64, 300):
        part = jh.search(index, queries[:size], k=7)
        assert_neighbors(part, (whole.distances[:size], whole.ids[:size]))
        few = jh.radius_search(index, queries[:size], radius=6)
        np.testing.assert_array_equal(few.ids, ragged.ids[: ragged.offsets[size]])
    traced = jax.jit(partial(jh.search, k=7))(index, queries)
    assert_neighbors(traced, whole)


def test_empty_full_and_overflowing_rows_do_not_see_each_other():
    codes = np.repeat(oracle.pack([[0] * 20, [1] * 20]), [6, 2], axis=0)
    index = jh.build_index(codes, 20)
    queries = oracle.pack([[0] * 20, [1] * 20, [0, 1] * 10])
    found = jh.radius_search_padded(index, queries, radius=1, max_results=4)
    assert found.counts.tolist() == [6, 2, 0]
    assert found.ids.tolist() == [[0, 1, 2, 3], [6, 7, -1, -1], [-1, -1, -1, -1]]


def test_a_larger_radius_and_a_larger_k_only_add_results():
    codes, ids, queries = example(64)
    index = jh.build_index(codes, 64, ids=ids)
    wide, narrow = jh.radius_search(index, queries, radius=9), jh.radius_search(index, queries, radius=4)
    for row in range(len(queries)):
        few = narrow.ids[narrow.offsets[row] : narrow.offsets[row + 1]]
        np.testing.assert_array_equal(wide.ids[wide.offsets[row] :][: len(few)], few)
    more, fewer = jh.search(index, queries, k=MORE_THAN_ALL), jh.search(index, queries, k=7)
    np.testing.assert_array_equal(more.ids[:, :7], fewer.ids)


def test_flipping_one_bit_column_everywhere_changes_nothing_but_ties():
    codes, ids, queries = example(64)
    bits, query_bits = (np.asarray(jh.unpack_bits(c, 64)) for c in (codes, queries))
    flip = np.arange(64) == 11
    plain = jh.search(jh.build_index(codes, 64, ids=ids), queries, k=7)
    flipped = jh.search(jh.build_index(oracle.pack(bits ^ flip), 64, ids=ids), oracle.pack(query_bits ^ flip), k=7)
    np.testing.assert_array_equal(plain.distances, flipped.distances)


def test_permuting_the_bit_columns_everywhere_changes_nothing_but_the_order_of_ties():
    codes, ids, queries = example(45)
    order = np.random.default_rng(0).permutation(45)
    moved = [oracle.pack(np.asarray(jh.unpack_bits(array, 45))[:, order]) for array in (codes, queries)]
    plain = jh.radius_search(jh.build_index(codes, 45, ids=ids), queries, radius=9)
    permuted = jh.radius_search(jh.build_index(moved[0], 45, ids=ids), moved[1], radius=9)
    np.testing.assert_array_equal(plain.offsets, permuted.offsets)
    np.testing.assert_array_equal(plain.distances, permuted.distances)
    for start, end in zip(plain.offsets[:-1], plain.offsets[1:], strict=True):
        pairs = [set(zip(found.distances[start:end], found.ids[start:end], strict=True)) for found in (plain, permuted)]
        assert pairs[0] == pairs[1]


def test_distances_and_ids_are_those_of_faiss():
    faiss = pytest.importorskip("faiss")
    codes, _, queries = example(64, n=2000)
    index, flat = jh.build_index(codes, 64), faiss.IndexBinaryFlat(64)
    packed, asked = (np.asarray(jh.codes_to_bytes(array, 64)) for array in (codes, queries))
    flat.add(packed)
    np.testing.assert_array_equal(jh.search(index, queries, k=50).distances, flat.search(asked, 50)[0])
    limits, distances, ids = flat.range_search(asked, 10)  # its radius is exclusive
    ours = jh.radius_search(index, queries, radius=9)
    np.testing.assert_array_equal(ours.offsets, limits.astype(np.int64))
    for start, end in zip(ours.offsets[:-1], ours.offsets[1:], strict=True):
        mine = set(zip(ours.distances[start:end].tolist(), ours.ids[start:end].tolist(), strict=True))
        assert mine == set(zip(distances[start:end].astype(int).tolist(), ids[start:end].tolist(), strict=True))


def test_items_with_several_codes_are_found_once_for_each_code():
    index = jh.build_index(np.array([[[0], [1 << 31]], [[1 << 30], [3 << 30]]], np.uint32), 2, multi=True)
    distances, ids = jh.search(index, np.zeros(1, np.uint32), k=4)
    assert distances.tolist() == [0, 1, 1, 2]
    assert ids.tolist() == [0, 1, 0, 1]


def test_no_id_comes_twice():
    codes, ids, queries = example(8, 3000)
    found = np.asarray(jh.search(jh.build_index(codes, 8, ids=ids), queries, k=500).ids)
    assert all(len(np.unique(row)) == 500 for row in found)


def test_every_radius_past_the_number_of_bits_means_all():
    codes, ids, queries = example(17)
    index = jh.build_index(codes, 17, ids=ids)
    everything = jh.radius_search(index, queries, radius=17)
    assert everything.offsets[-1] == len(codes) * len(queries)
    for radius in (18, 10**9, 2**62):
        jax.tree.map(np.testing.assert_array_equal, jh.radius_search(index, queries, radius=radius), everything)


@pytest.mark.slow  # each operation is compiled by itself
def test_disabling_jit_changes_nothing():
    codes, ids, queries = example(64, 60)
    index = jh.build_index(codes, 64, ids=ids)
    expected = jh.search(index, queries[:1], k=7)
    with jax.disable_jit():
        assert_neighbors(jh.search(index, queries[:1], k=7), expected)


def test_index_and_queries_may_be_arguments_or_constants_of_a_jit():
    codes, ids, queries = example(64)
    index = jh.build_index(codes, 64, ids=ids)
    expected = jh.search(index, queries, k=7)
    assert_neighbors(jax.jit(lambda q: jh.search(index, q, k=7))(queries), expected)
    assert_neighbors(jax.jit(lambda i: jh.search(i, queries, k=7))(index), expected)
    assert_neighbors(jax.jit(lambda: jh.search(index, queries, k=7))(), expected)


def test_traced_padding_bits_never_count():
    index = jh.build_index(oracle.pack([[0] * 17]), 17)
    dirty = jnp.array([0x00000001], jnp.uint32)
    assert jax.jit(partial(jh.search, k=1))(index, dirty).distances.tolist() == [0]


@pytest.mark.parametrize("k", [True, 2.5, None, "3"])
def test_k_of_another_type_is_refused(k):
    with pytest.raises(TypeError, match="k must be an integer"):
        jh.search(jh.build_index(np.zeros((3, 1), np.uint32), 17), np.zeros((1, 1), np.uint32), k=k)


@pytest.mark.parametrize("k", [0, -1, 2**40])
def test_k_out_of_range_is_refused_before_anything_is_allocated(k):
    with pytest.raises(ValueError, match="k must lie between 1"):
        jh.search(jh.build_index(np.zeros((3, 1), np.uint32), 17), np.zeros((1, 1), np.uint32), k=k)


def test_results_of_more_than_2_to_31_slots_are_refused():
    index = jh.build_index(np.zeros((3, 1), np.uint32), 17)
    endless = np.broadcast_to(np.uint32(0), (2**20, 1))
    with pytest.raises(ValueError, match="ask for fewer"):
        jh.search(index, endless, k=2**12)


@pytest.mark.parametrize(
    ("radius", "error"), [(-1, ValueError), (2.7, TypeError), (float("nan"), TypeError), (True, TypeError)]
)
def test_a_wrong_radius_is_refused(radius, error):
    index, query = jh.build_index(np.zeros((3, 1), np.uint32), 17), np.zeros((1, 1), np.uint32)
    with pytest.raises(error, match="radius must"):
        jh.radius_search(index, query, radius=radius)
    with pytest.raises(error, match="radius must"):
        jh.radius_search_padded(index, query, radius=radius, max_results=3)


@pytest.mark.parametrize(
    ("queries", "error", "message"),
    [
        (np.zeros((2, 3), np.uint32), ValueError, "queries must have 1 words"),
        (np.uint32(0), ValueError, "got a scalar"),
        (np.zeros((2, 1), np.int32), TypeError, "dtype uint32, got int32"),
        (np.zeros((2, 17), bool), TypeError, "dtype uint32, got bool"),
        (np.full((2, 1), 1, np.uint32), ValueError, "padding bits must be zero"),
    ],
)
def test_queries_that_do_not_fit_are_refused(queries, error, message):
    index = jh.build_index(np.zeros((3, 1), np.uint32), 17)
    for call in (partial(jh.search, k=1), partial(jh.radius_search, radius=1)):
        with pytest.raises(error, match=message):
            call(index, queries)


def test_another_type_than_an_index_is_refused():
    with pytest.raises(TypeError, match="index must be a HashIndex"):
        jh.search(np.zeros((3, 1), np.uint32), np.zeros((1, 1), np.uint32), k=1)


def test_the_error_for_radius_search_inside_jit_names_the_padded_one():
    index = jh.build_index(np.zeros((3, 1), np.uint32), 17)
    with pytest.raises(TypeError, match="radius_search_padded"):
        jax.jit(partial(jh.radius_search, radius=1))(index, np.zeros((1, 1), np.uint32))


def test_one_shape_is_compiled_once(compilations):
    codes, ids, queries = example(64)
    index = jh.build_index(codes, 64, ids=ids)
    for _ in range(2):
        with compilations:
            jh.search(index, queries, k=7)
            jh.radius_search(index, queries, radius=3)
            jh.radius_search_padded(index, queries, radius=3, max_results=4)
    assert compilations.count == 0


@pytest.mark.parametrize("num_bits", [64, pytest.param(256, marks=pytest.mark.slow)])
def test_minima_kept_in_memory_change_nothing(num_bits, monkeypatch):
    codes, ids, queries = example(num_bits, 2500, q=20)
    index = jh.build_index(codes, num_bits, ids=ids)
    expected = oracle.nearest(codes, ids, queries, 7)
    monkeypatch.setattr(kernels, "WORTH_A_BRANCH", 0)
    monkeypatch.setattr(kernels, "FEW_GROUPS", 0)
    assert_neighbors(jax.jit(lambda q: jh.search(index, q, k=7))(queries), expected)
    assert_neighbors(jax.jit(jax.vmap(lambda q: jh.search(index, q, k=7)))(queries), expected)


def test_minima_are_computed_once_for_a_batch():
    index, queries = jh.build_index(np.zeros((0, 8), np.uint32), 256), np.zeros((256, 8), np.uint32)
    big = jax.ShapeDtypeStruct((8, 64, 16, 64), jnp.uint32)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), index)
    program = jax.jit(partial(jh.search, k=10)).lower(dataclasses.replace(shapes, codes=big), queries).compile()
    pairs, words = 256 * 64 * 16 * 64, 8
    # XOR, popcount and sum or minimum for each word; fused into two readers they would be six.
    assert program.cost_analysis()["flops"] < 4.5 * pairs * words


def test_two_threads_give_what_one_gives(monkeypatch):
    codes, ids, queries = example(64, q=100)
    index = jh.build_index(codes, 64, ids=ids)
    expected = jh.search(index, queries, k=7)
    monkeypatch.setattr(nearest, "WORTH_TWO_THREADS", 0)
    jax.tree.map(np.testing.assert_array_equal, jh.search(index, queries, k=7), expected)


@pytest.mark.parametrize("k", [10, 1000])
def test_memory_is_bounded_for_ten_thousand_queries_on_a_million_codes(k):
    index = jh.build_index(np.zeros((0, 2), np.uint32), 64)
    blocks = 1024
    large = dataclasses.replace(
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), index),
        codes=jax.ShapeDtypeStruct((2, blocks, 16, 64), jnp.uint32),
        offsets=jax.ShapeDtypeStruct((blocks * 1024 + 1,), jnp.int32),
        ids=jax.ShapeDtypeStruct((blocks * 1024,), jnp.int32),
    )
    queries = jax.ShapeDtypeStruct((10_000, 2), jnp.uint32)
    program = jax.jit(partial(jh.search, k=k)).lower(large, queries).compile()
    assert program.memory_analysis().temp_size_in_bytes < 256 * 2**20


@pytest.mark.parametrize("num_bits", [20, 64])
def test_queries_on_a_device_stay_there(num_bits, rng):
    codes = oracle.pack(rng.random((300, num_bits)) < 0.5)
    index, queries = jh.build_index(codes, num_bits), jnp.asarray(codes[:64])
    searches = [
        partial(jh.search, k=7),
        partial(jh.radius_search_padded, radius=1, max_results=40),
        partial(jh.search, k=7, method="scan"),
    ]
    expected = [search(index, codes[:64]) for search in searches]
    with jax.transfer_guard("disallow"):
        found = [search(index, queries) for search in searches]
    same(found, expected)
