"""Near pairs of items, groups of near duplicates, and what may go of them, against comparing all items."""

import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import collection, same

import jaxhash as jh
from jaxhash.index.hash_index import sorted_arrays
from jaxhash.query.pairs.items import find_pairs, label_codes
from jaxhash.query.plan import LIMITS

FEW_AT_A_TIME = LIMITS._replace(listed=50, run_codes=16)
RADII = [0, 1, 3, 200]


def by_comparing_all(codes, ids, radius):
    """First ids, second ids and distances of all near pairs."""
    distances = np.bitwise_count(codes[:, None] ^ codes).sum(2, dtype=np.int32)
    left, right = np.nonzero(np.triu(distances <= radius, 1))
    first, second = np.minimum(ids[left], ids[right]), np.maximum(ids[left], ids[right])
    order = np.lexsort((second, distances[left, right], first))
    return first[order], second[order], distances[left, right][order]


def index_of(*integers, bits=8, ids=None):
    return jh.build_index(jh.codes.codes_from_integers(np.array(integers, np.uint64), bits), bits, ids=ids)


def groups(index, radius):
    return [members.tolist() for members in jh.duplicate_groups(index, radius=radius)]


def test_pairs_of_four_items_by_hand():
    found = jh.neighbor_pairs(index_of(0, 1, 0, 255, ids=[5, 2, 9, 1]), radius=1)
    assert isinstance(found, jh.query.NeighborPairs)
    assert found.first.tolist() == [2, 2, 5]
    assert found.second.tolist() == [5, 9, 9]
    assert found.distances.tolist() == [1, 1, 0]
    assert {array.dtype for array in found} == {np.dtype(np.int32)}


@settings(max_examples=60)
@given(st.integers(0, 200), st.integers(1, 80), st.integers(0, 2**32), st.integers(0, 90))
def test_pairs_are_those_of_comparing_all(n, num_bits, seed, radius):
    index, _, codes, ids = collection(num_bits, n, 0, seed)
    found = jh.neighbor_pairs(index, radius=radius)
    same(tuple(found), by_comparing_all(codes, ids, radius))


@pytest.mark.parametrize("limits", [FEW_AT_A_TIME, FEW_AT_A_TIME._replace(listed=1)])
def test_pairs_listed_few_at_a_time_are_the_same(limits):
    index, _, codes, ids = collection(12, 250)
    for radius in (0, 2):
        same(tuple(find_pairs(index, radius, None, limits)), by_comparing_all(codes, ids, radius))


def test_pairs_of_ids_of_31_bits_are_sorted_as_others():
    _, _, codes, ids = collection(64, 300)
    large = ids + (2**31 - 1 - ids.max())
    found = jh.neighbor_pairs(jh.build_index(codes, 64, ids=large), radius=40)
    same(tuple(found), by_comparing_all(codes, large, 40))


@pytest.mark.parametrize("copies", [1, 4])
def test_more_pairs_than_max_pairs_are_refused(copies):
    codes = collection(17, 300).codes
    index = jh.build_index(np.tile(codes, (copies, 1)), 17)
    count = len(jh.neighbor_pairs(index, radius=2).first)
    assert len(jh.neighbor_pairs(index, radius=2, max_pairs=count).first) == count
    with pytest.raises(ValueError, match=rf"more than max_pairs = {count - 1} pairs within radius 2, \d+ found so far"):
        jh.neighbor_pairs(index, radius=2, max_pairs=count - 1)
    with pytest.raises(TypeError, match="max_pairs must be an integer"):
        jh.neighbor_pairs(index, radius=2, max_pairs=0.5)


def test_too_many_pairs_are_refused_before_they_take_memory():
    index = jh.build_index(np.zeros((20_000, 1), np.uint32), 8)
    tracemalloc.start()
    with pytest.raises(ValueError, match="199990000 found so far"):
        jh.neighbor_pairs(index, radius=0, max_pairs=10**8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 20_000  # bytes for each code


def test_groups_by_hand():
    # 0 - 1 - 3 is a chain of single bits; 240 comes twice; 15 is near to nothing
    index = index_of(0, 1, 3, 240, 240, 15, ids=[7, 2, 9, 4, 1, 0])
    assert groups(index, 0) == [[1, 4]]
    assert groups(index, 1) == [[2, 7, 9], [1, 4]]
    assert groups(index, 2) == [[0, 2, 7, 9], [1, 4]]
    assert groups(index, 4) == [[0, 1, 2, 4, 7, 9]]


def test_groups_are_sorted_by_size_then_by_id():
    assert groups(index_of(5, 5, 6, 6, 7, 7, 7), 0) == [[4, 5, 6], [0, 1], [2, 3]]


def test_far_codes_have_no_groups():
    assert groups(index_of(0, 255), 3) == []
    assert groups(index_of(), 3) == []


def components(codes, radius):
    """For each code the first one that a chain of near codes leads to."""
    near = np.bitwise_count(codes[:, None] ^ codes).sum(2) <= radius
    group = np.arange(len(codes))
    while (joined := np.where(near, group, len(codes)).min(1)).tolist() != group.tolist():
        group = joined
    return group


@pytest.mark.parametrize("bits", [12, 70])
@pytest.mark.parametrize("radius", RADII)
def test_groups_are_those_of_comparing_all(bits, radius):
    codes = collection(bits, 300).codes
    group = components(codes, radius)
    expected = [np.flatnonzero(group == first).tolist() for first in np.unique(group)]
    expected = sorted((members for members in expected if len(members) > 1), key=lambda members: -len(members))
    assert groups(jh.build_index(codes, bits), radius) == expected


@pytest.mark.parametrize("bits", [12, 70])
@pytest.mark.parametrize("radius", RADII)
def test_labels_merged_few_edges_at_a_time_are_the_same(bits, radius):
    index = jh.build_index(collection(bits, 300).codes, bits)
    table = sorted_arrays(index)[0]
    _, expected = np.unique(components(table, radius), return_inverse=True)
    _, first, found = np.unique(label_codes(index, radius, FEW_AT_A_TIME), return_index=True, return_inverse=True)
    np.testing.assert_array_equal(np.argsort(np.argsort(first))[found], expected)  # numbered by first codes


def test_deduplication_by_hand():
    # 0 - 1 - 3 is a chain of single bits, 240 comes twice, 15 is near to nothing; ids 7, 2, 9, 4, 1, 0
    index = index_of(0, 1, 3, 240, 240, 15, ids=[7, 2, 9, 4, 1, 0])
    assert [array.tolist() for array in jh.deduplicate(index, radius=0)] == [[4], [1]]
    assert [array.tolist() for array in jh.deduplicate(index, radius=1)] == [[4, 7, 9], [1, 2, 2]]
    chain = index_of(0, 1, 3)  # the middle goes, and so the end stays
    assert [array.tolist() for array in jh.deduplicate(chain, radius=1)] == [[1], [0]]
    everything = jh.deduplicate(index, radius=8)
    assert [array.tolist() for array in everything] == [[1, 2, 4, 7, 9], [0] * 5]
    assert everything.kept.dtype == everything.removed.dtype == np.int32


@pytest.mark.parametrize("bits", [12, 70])
@pytest.mark.parametrize("radius", RADII)
def test_kept_items_are_far_apart_and_near_removed_ones(bits, radius):
    index, _, codes, ids = collection(bits, 300)
    stays, expected = {}, {}
    for item in np.argsort(ids):
        near = [other for other, code in stays.items() if np.bitwise_count(code ^ codes[item]).sum() <= radius]
        if near:
            expected[int(ids[item])] = near[0]
        else:
            stays[int(ids[item])] = codes[item]
    found = jh.deduplicate(index, radius=radius)
    assert dict(zip(found.removed.tolist(), found.kept.tolist(), strict=True)) == expected
    assert found.removed.tolist() == sorted(expected)


def test_an_empty_index_has_no_duplicates():
    found = jh.deduplicate(index_of(), radius=3)
    assert len(found.removed) == len(found.kept) == 0


@pytest.mark.parametrize("search", [jh.duplicate_groups, jh.deduplicate, jh.neighbor_pairs])
def test_wrong_arguments_are_refused(search):
    with pytest.raises(ValueError, match="radius"):
        search(index_of(1, 2), radius=-1)
    with pytest.raises(TypeError, match="index must be a HashIndex"):
        search(np.zeros((2, 1), np.uint32), radius=1)
    with pytest.raises(ValueError, match="one code for each item"):
        search(jh.build_index(np.zeros((2, 1), np.uint32), 8, multi=True), radius=1)


def test_without_scipy_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxhash\[images\]'"):
        jh.duplicate_groups(index_of(1), radius=0)
