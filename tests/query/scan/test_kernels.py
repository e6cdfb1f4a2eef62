"""The kernels of the scan, by hand and against slow forms, and the programs that they make."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from methods import prefer
from samples import collection, same

import jaxhash as jh
from jaxhash.codes.distances import Queries
from jaxhash.query.filters import make_filter, tile_by_code
from jaxhash.query.nearest import find_nearest
from jaxhash.query.plan import LIMITS
from jaxhash.query.results import NO_DISTANCE, Neighbors, PaddedMatches
from jaxhash.query.scan.kernels import (
    Codes,
    count_items,
    group_minima,
    items_in_slots,
    map_queries,
    merge_nearest,
    merge_padded,
    minima_dtype,
    near_groups,
    nearest_codes,
    scan_size,
)

# Codes 0, 1, 7 and 15 in two columns of two, and a query that is 2, 1, 1 and 2 bits from them.
WORDS = jnp.array([[[[0b0000, 0b0111], [0b0001, 0b1111]]]], jnp.uint32)
QUERY = Queries(jnp.array([[0b0011]], jnp.uint32))
ALL = 0xFFFFFFFF


@jax.jit
def minima_and_nearest(codes, queries):
    minima = group_minima(codes, queries)
    return minima, *nearest_codes(codes, queries, minima, 4)


@pytest.mark.parametrize(
    ("num_codes", "excluded", "minima", "distances", "ranks"),
    [
        (4, None, [1, 1], [1, 1, 2, 2], [1, 2, 0, 3]),
        (3, None, [1, 1], [1, 1, 2], [1, 2, 0]),
        (4, [[0, ALL], [ALL, ALL]], [2, 255], [2], [0]),
    ],
)
def test_four_codes_by_hand(num_codes, excluded, minima, distances, ranks):
    codes = Codes(WORDS, jnp.int32(num_codes), None if excluded is None else jnp.array([excluded], jnp.uint32))
    smallest, found, order = minima_and_nearest(codes, QUERY)
    assert (smallest.tolist(), smallest.dtype) == ([[minima]], np.uint8)
    assert found.tolist() == [distances + [NO_DISTANCE] * (4 - len(distances))]
    assert order[0, : len(ranks)].tolist() == ranks


def test_groups_and_items_within_a_radius_by_hand():
    sizes = jnp.array([[[5, 1], [2, 0]]], jnp.int32)
    for radius, near, count in [(0, [False, False], 0), (1, [True, True], 3), (2, [True, True], 8)]:
        assert near_groups(WORDS, QUERY.words, radius=jnp.uint32(radius)).tolist() == [[near]]
        assert count_items(Codes(WORDS, jnp.int32(4)), sizes, QUERY, radius).tolist() == [count]


@pytest.mark.parametrize(("num_bits", "k"), [(17, 7), (64, 60), (256, 7), pytest.param(512, 7, marks=pytest.mark.slow)])
def test_nearest_codes_without_excluded_ones_equal_the_oracle(num_bits, k, rng):
    _, queries, codes, _ = collection(num_bits, 2000, 5)
    codes = np.unique(codes, axis=0)
    index, excluded = jh.build_index(codes, num_bits), rng.random(len(codes)) < 0.5
    by_code = np.pad(np.where(excluded, np.uint32(ALL), np.uint32(0)), (0, index.capacity - len(codes)))
    tiled = Codes(index.codes, index.num_codes, tile_by_code(index, by_code))
    search = jax.jit(lambda codes, rows: nearest_codes(codes, rows, group_minima(codes, rows), k))
    expected = oracle.nearest(codes[~excluded], np.flatnonzero(~excluded), queries, k)
    same(search(tiled, Queries(queries)), expected)


def test_items_of_codes_fill_slots_by_hand():
    index = jh.build_index(np.uint32([[0], [0], [1], [2], [2], [2]]), 32, ids=[9, 5, 2, 8, 1, 3])
    chosen = make_filter(index, jnp.isin(jnp.arange(10), jnp.array([3, 5, 2])))
    distances, ranks = jnp.array([[0, 1, 4], [2, 3, NO_DISTANCE]]), jnp.array([[2, 0, 1], [1, 0, 0]])
    none = NO_DISTANCE
    fill = jax.jit(partial(items_in_slots, count=5))
    same(
        fill(index, None, distances, ranks),
        ([[0, 0, 0, 1, 1], [2, 3, 3, none, none]], [[1, 3, 8, 5, 9], [2, 5, 9, -1, -1]]),
    )
    same(
        fill(index, chosen, distances, ranks),
        ([[0, 1, 4, none, none], [2, 3, none, none, none]], [[3, 5, 2, -1, -1], [2, 5, -1, -1, -1]]),
    )


def test_more_slots_than_an_index_has_room_for_stay_empty():
    index = jh.build_index(np.uint32([[4]]), 32, ids=[6])
    distances, ids = jax.jit(partial(items_in_slots, count=2000))(index, None, jnp.array([[3]]), jnp.array([[0]]))
    assert (distances[0, :2].tolist(), ids[0, :2].tolist()) == ([3, NO_DISTANCE], [6, -1])
    assert distances.shape == ids.shape == (1, 2000)


def test_shards_merge_in_order_by_hand():
    found = Neighbors(jnp.array([[1, 3], [1, 2], [NO_DISTANCE] * 2]), jnp.array([[10, 11], [20, 21], [-1, -1]]))
    same(merge_nearest(found, 2), Neighbors([1, 1], [10, 20]))
    padded = PaddedMatches(*found, jnp.array([2, 5, 0]), jnp.array([True, False, True]))
    same(merge_padded(padded, 2), PaddedMatches([1, 1], [10, 20], 7, False))


@pytest.mark.parametrize(("largest", "dtype"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (2**16, np.uint32)])
def test_minima_have_the_narrowest_dtype(largest, dtype):
    assert minima_dtype(largest) == dtype


def test_padding_bits_of_queries_are_cleared():
    queries = Queries(np.full((3, 2, 2), ALL, np.uint32))
    seen = map_queries(lambda batch: batch.words, queries, 33, 4)
    assert seen.shape == (3, 2, 2)
    assert seen[0, 0].tolist() == [ALL, 1 << 31]


def test_batches_shrink_as_k_and_codes_grow():
    queries, shape = Queries(np.zeros((1, 2), np.uint32)), (2, 1024, 16, 64)  # a million codes of 64 bits
    sizes = [scan_size(shape, queries, k) for k in (1, 100, 1000, 100_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == LIMITS.max_queries
    assert all(size & (size - 1) == 0 for size in sizes)
    assert scan_size(shape, queries, 1000, limits=LIMITS._replace(query_memory=1)) == 1
    assert scan_size((2, 2**14, 16, 64), queries, 1) < scan_size((2, 2**14, 16, 64), queries, 1, num_shards=16)


def test_kept_minima_and_selected_blocks_change_nothing(rng):
    codes = rng.integers(0, 2**32, (33_000, 2), dtype=np.uint32)
    index = jh.build_index(codes, 64)
    assert index.codes.size * 64 >= LIMITS.kept_work  # by 64 queries
    assert index.capacity // 16 > LIMITS.unblocked_groups
    found = jax.jit(partial(jh.search, k=7))(index, codes[:64])
    for row in (0, 63):
        expected = oracle.nearest(codes, np.arange(33_000), codes[row : row + 1], 7)
        same((found.distances[row], found.ids[row]), (expected[0][0], expected[1][0]))
    same(found, find_nearest(index, Queries(codes[:64]), k=7, limits=prefer("numpy")))


def test_minima_are_computed_once_for_a_batch():
    index, queries = jh.build_index(np.zeros((0, 8), np.uint32), 256), np.zeros((256, 8), np.uint32)
    big = jax.ShapeDtypeStruct((8, 64, 16, 64), jnp.uint32)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), index)
    program = jax.jit(partial(jh.search, k=10)).lower(dataclasses.replace(shapes, codes=big), queries).compile()
    pairs, words = 256 * 64 * 16 * 64, 8
    # XOR, popcount and sum or minimum for each word; fused into two readers they would be six.
    assert program.cost_analysis()["flops"] < 4.5 * pairs * words


@pytest.mark.parametrize("k", [10, 1000])
def test_memory_is_bounded_for_ten_thousand_queries(k):
    blocks = 1024  # a million codes
    index = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), collection(64).index)
    large = dataclasses.replace(
        index,
        codes=jax.ShapeDtypeStruct((2, blocks, 16, 64), jnp.uint32),
        offsets=jax.ShapeDtypeStruct((blocks * 1024 + 1,), jnp.int32),
        ids=jax.ShapeDtypeStruct((blocks * 1024,), jnp.int32),
    )
    queries = jax.ShapeDtypeStruct((10_000, 2), jnp.uint32)
    program = jax.jit(partial(jh.search, k=k)).lower(large, queries).compile()
    assert program.memory_analysis().temp_size_in_bytes < 256 * 2**20


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("num_bits", [17, 64, pytest.param(256, marks=pytest.mark.slow)])
def test_accelerators_neither_scatter_nor_sort_all_codes(platform, num_bits):
    index, queries, *_ = collection(num_bits)
    programs = [
        (partial(jh.search, k=10), (index, queries)),
        (partial(jh.radius_search_padded, radius=2, max_results=5), (index, queries)),
        (lambda codes, queries: near_groups(codes, queries, radius=np.uint32(2)), (index.codes, queries)),
    ]
    for function, arguments in programs:
        text = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
        assert "scatter" not in text
        widths = re.findall(r"stablehlo\.sort.*?\}\) : \(tensor<\d+x(\d+)x", text, re.DOTALL)
        assert len(widths) == text.count("stablehlo.sort")
        assert all(int(width) <= 10 for width in widths)
