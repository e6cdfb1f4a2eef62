"""Comparing and selecting in numpy, by hand and against the oracle."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import oracle
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from methods import prefer
from samples import collection, same

import jaxhash as jh
from jaxhash.codes.distances import Queries
from jaxhash.codes.weights import weigh_queries
from jaxhash.index.hash_index import cache_of
from jaxhash.query.nearest import find_nearest
from jaxhash.query.plan import LIMITS
from jaxhash.query.scan.host import hits_by_scan, hits_within, keep_words, nearest_hits, nearest_in_groups

THREE = jh.build_index(np.array([[0b0111], [0b1000], [0b0001], [0b0001]], np.uint32), 32, ids=[7, 5, 9, 4])
ZEROS = np.zeros((1, 1), np.uint32)


def rows(hits):
    """The rows (query, distance, rank) of hits."""
    return [*zip(hits.queries.tolist(), hits.distances.tolist(), hits.ranks.tolist(), strict=True)]


def distinct(num_bits, n, q, seed=0):
    """Distinct codes in ascending order, so that ranks are ids, queries, and the index."""
    _, queries, codes, _ = collection(num_bits, n, q, seed)
    codes = np.unique(codes, axis=0)
    return codes, queries, jh.build_index(codes, num_bits)


def expected_rows(codes, queries, k):
    """The k nearest codes of each query as such rows."""
    distances, ranks = oracle.nearest(codes, np.arange(len(codes)), queries, k)
    return [
        (row, *map(int, pair)) for row in range(len(queries)) for pair in zip(distances[row], ranks[row], strict=True)
    ]


def test_three_codes_by_hand():
    for find in (lambda k: nearest_hits(THREE, Queries(ZEROS), k), lambda k: nearest_in_groups(THREE, ZEROS, k, 1)):
        assert rows(find(2)) == [(0, 1, 0), (0, 1, 2)]  # of equal distance, the smaller code first
        assert rows(find(3)) == [(0, 1, 0), (0, 1, 2), (0, 3, 1)]


def test_codes_within_a_radius_by_hand():
    queries = np.uint32([[0], [0b0111], [0xF0000000]])
    expected = [(0, 1, 0), (0, 1, 2), (1, 0, 1), (1, 2, 0)]
    assert rows(hits_within(THREE, Queries(queries), 2)) == expected
    (hits,) = hits_by_scan(THREE, queries, 2, 4)
    assert rows(hits) == expected


def test_weights_by_hand():
    weights = np.zeros(32, np.uint8)
    weights[-4:] = 3, 1, 1, 9
    hits = nearest_hits(THREE, weigh_queries(ZEROS, weights, 32), 3)
    assert rows(hits) == [(0, 3, 2), (0, 9, 0), (0, 11, 1)]


@settings(max_examples=40)
@given(
    st.integers(1, 400), st.sampled_from([1, 3, 17, 40, 64, 90, 300]), st.sampled_from([1, 4, 60]), st.integers(0, 99)
)
def test_all_selections_equal_the_oracle(n, num_bits, k, seed):
    codes, queries, index = distinct(num_bits, n, 3, seed)
    assume(k <= len(codes))
    expected = expected_rows(codes, queries, k)
    assert rows(nearest_hits(index, Queries(queries), k)) == expected
    assert rows(nearest_in_groups(index, queries, k, 4)) == expected
    radius = expected[k // 2][1]
    near = [
        (query, int(distance), int(rank))
        for query, found in enumerate(oracle.within(codes, np.arange(len(codes)), queries, radius))
        for distance, rank in zip(*found, strict=True)
    ]
    assert rows(hits_within(index, Queries(queries), radius)) == near
    assert [row for hits in hits_by_scan(index, queries, radius, 4) for row in rows(hits)] == near


@settings(max_examples=30)
@given(st.integers(1, 400), st.sampled_from([1, 40, 90, 300]), st.sampled_from([15, 5, 8]), st.integers(0, 99))
def test_weighted_selection_equals_the_oracle(n, num_bits, largest, seed):
    codes, queries, index = distinct(num_bits, n, 2, seed)
    weights = np.random.default_rng(seed).integers(0, 16, (2, num_bits)) & largest
    k = min(4, len(codes))
    found = nearest_hits(index, weigh_queries(queries, weights, num_bits), k)
    distances, ranks = oracle.nearest_weighted(codes, np.arange(len(codes)), queries, weights, k)
    same((found.distances.reshape(2, k), found.ranks.reshape(2, k)), (distances, ranks))


@pytest.mark.parametrize("k", [1, 8, 40, 700, 4000])
@pytest.mark.parametrize("num_bits", [64, pytest.param(256, marks=pytest.mark.slow)])
def test_blocks_and_groups_bound_the_distance(num_bits, k, rng):
    """By the minima of blocks (k = 1 and 8), those of groups, and by none."""
    codes = np.unique(rng.integers(0, 2**32, (20_000, num_bits // 32), dtype=np.uint32), axis=0)
    index, queries = jh.build_index(codes, num_bits), codes[[0, 7000, 19_999]] ^ np.uint32(5)
    found = nearest_in_groups(index, queries, k, 4)
    for row, query in enumerate(queries):
        distances, ranks = oracle.ranking(codes, np.arange(len(codes)), query)
        here = found.queries == row
        same((found.distances[here], found.ranks[here]), (distances[:k], ranks[:k]))


def test_too_many_near_groups_give_none():
    index, queries, *_ = collection(64, 2000, 9)
    alone = [nearest_in_groups(index, query[None], 7, 1, LIMITS._replace(groups=10)) for query in queries]
    assert 0 < alone.count(None) < 9
    for query, hits in zip(queries, alone, strict=True):
        assert hits is None or rows(hits) == rows(nearest_hits(index, Queries(query[None]), 7))


def test_hits_of_a_scan_are_split_by_their_number():
    index, queries, *_ = collection(64, 2000, 9)
    (whole,) = hits_by_scan(index, queries, 9, 16)
    parts = hits_by_scan(index, queries, 9, 16, LIMITS._replace(candidates=1))
    assert len(parts) > 1
    assert sum(len(hits.starts) - 1 for hits in parts) == len(whole.starts) - 1 == 9
    same(np.concatenate([hits.ranks for hits in parts]), whole.ranks)
    same(np.concatenate([hits.distances for hits in parts]), whole.distances)


def test_few_programs_serve_all_numbers_of_queries(compilations):
    index, queries, *_ = collection(64, 5000, 96)
    limits = prefer("groups")
    find_nearest(index, Queries(queries), k=40, limits=limits)
    with compilations:
        for count in range(8, 40):
            find_nearest(index, Queries(queries[:count]), k=40, limits=limits)
    assert compilations.count <= 4  # 4, 8, 16 and 32 queries in each thread


@pytest.mark.parametrize(("num_bits", "count"), [(17, 1), (64, 1), (90, 2)])
def test_words_are_kept_once_for_all_threads(num_bits, count, rng):
    codes = np.unique(rng.integers(0, 2, (100, num_bits), dtype=np.uint8), axis=0)[:99]
    index = jh.build_index(jh.pack_bits(codes), num_bits)
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(keep_words, [index] * 8))
    assert all(words is cache_of(index).words for words in kept)
    rows, groups = kept[0]
    assert ([row.shape for row in rows], [group.shape for group in groups]) == ([(1, 99)] * count, [(7, 16)] * count)
    assert rows[0].dtype == (np.uint32 if num_bits == 17 else np.uint64)
    same(sum(np.bitwise_count(row[0]).astype(int) for row in rows), codes.sum(1))


def test_words_of_an_empty_index_are_none():
    rows, groups = keep_words(jh.build_index(np.zeros((0, 3), np.uint32), 90))
    assert ([row.shape for row in rows], [group.shape for group in groups]) == ([(1, 0)] * 2, [(0, 16)] * 2)
