"""All pairs within a radius, against comparing all items."""

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import same

import jaxhash as jh
from jaxhash.query import near_codes, pairs


def by_comparing_all(codes, ids, radius):
    distances = np.bitwise_count(codes[:, None] ^ codes).sum(2, dtype=np.int32)
    left, right = np.nonzero(np.triu(distances <= radius, 1))
    first, second = np.minimum(ids[left], ids[right]), np.maximum(ids[left], ids[right])
    order = np.lexsort((second, distances[left, right], first))
    return first[order], second[order], distances[left, right][order]


def example(num_bits, n, seed=0):
    rng = np.random.default_rng((seed, num_bits, n))
    return oracle.pack(oracle.clustered(rng, n, num_bits)), rng.permutation(3 * n)[:n].astype(np.int32)


def test_four_items_by_hand():
    index = jh.build_index(jh.codes_from_integers(np.array([0, 1, 0, 255], np.uint64), 8), 8, ids=[5, 2, 9, 1])
    found = jh.neighbor_pairs(index, radius=1)
    assert isinstance(found, jh.NeighborPairs)
    assert found.first.tolist() == [2, 2, 5]
    assert found.second.tolist() == [5, 9, 9]
    assert found.distances.tolist() == [1, 1, 0]
    assert {array.dtype for array in found} == {np.dtype(np.int32)}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), st.integers(1, 80), st.integers(0, 2**32), st.integers(0, 90))
def test_any_collection_has_the_pairs_of_comparing_all(n, num_bits, seed, radius):
    codes, ids = example(num_bits, n, seed)
    found = jh.neighbor_pairs(jh.build_index(codes, num_bits, ids=ids), radius=radius)
    same(tuple(found), by_comparing_all(codes, ids, radius))


@pytest.mark.parametrize("num_bits", [12, 64, 200])
@pytest.mark.parametrize("agreeing", [0, 1, 2, 3, None])
def test_every_way_of_comparing_finds_each_pair_once(num_bits, agreeing, monkeypatch):
    codes, ids = example(num_bits, 250)
    for radius in (1, 3, 6):
        cut = near_codes.Cut((), 0) if agreeing == 0 else agreeing and near_codes._make_cut(num_bits, radius, agreeing)
        monkeypatch.setattr(near_codes, "_plan_cut", lambda *_, cut=cut: cut)
        monkeypatch.setattr(near_codes, "CODES_AT_ONCE", 100)
        monkeypatch.setattr(pairs, "PAIRS_AT_ONCE", 50)
        found = jh.neighbor_pairs(jh.build_index(codes, num_bits, ids=ids), radius=radius)
        same(tuple(found), by_comparing_all(codes, ids, radius))


def test_ids_of_31_bits_are_sorted_as_others():
    codes, ids = example(64, 300)
    large = ids + np.int32(2**31 - 1 - ids.max())
    found = jh.neighbor_pairs(jh.build_index(codes, 64, ids=large), radius=40)
    same(
        found,
        jh.neighbor_pairs(jh.build_index(codes, 64, ids=ids), radius=40)._replace(
            first=found.first, second=found.second
        ),
    )
    same(tuple(found), by_comparing_all(codes, large, 40))


@pytest.mark.parametrize("copies", [1, 4])
def test_too_many_pairs_are_an_error_before_they_take_memory(copies, monkeypatch):
    codes, _ = example(17, 300)
    index = jh.build_index(np.tile(codes, (copies, 1)), 17, ids=np.arange(copies * 300))
    count = len(jh.neighbor_pairs(index, radius=2).first)
    assert len(jh.neighbor_pairs(index, radius=2, max_pairs=count).first) == count
    with pytest.raises(ValueError, match=rf"more than max_pairs = {count - 1} pairs within radius 2, \d+ found so far"):
        jh.neighbor_pairs(index, radius=2, max_pairs=count - 1)
    with pytest.raises(TypeError, match="max_pairs must be an integer"):
        jh.neighbor_pairs(index, radius=2, max_pairs=0.5)
    same_code = jh.build_index(np.zeros((100_000, 1), np.uint32), 8)
    monkeypatch.setattr(pairs, "_expand_pairs", None)  # not reached
    with pytest.raises(ValueError, match="4999950000 found so far"):
        jh.neighbor_pairs(same_code, radius=0, max_pairs=10**9)


def test_codes_that_cluster_are_sorted_and_far_ones_are_scanned():
    rng = np.random.default_rng(0)
    index = jh.build_index(rng.integers(0, 2**32, (50_000, 2), dtype=np.uint32), 64)
    table = near_codes.sorted_arrays(index)[0]
    assert near_codes._plan_cut(index, table, 3).agreeing > 0
    assert near_codes._plan_cut(index, table, 30) is None
    few = jh.build_index(table[:500], 64)
    assert near_codes._plan_cut(few, table[:500], 3) == near_codes.Cut((), 0)
