"""Groups of near duplicates, and what may go of them."""

import sys

import numpy as np
import oracle
import pytest

import jaxhash as jh
from jaxhash.query import duplicates, near_codes


def index_of(*integers, bits=8, ids=None):
    return jh.build_index(jh.codes_from_integers(np.array(integers, np.uint64), bits), bits, ids=ids)


def groups(index, radius):
    return [members.tolist() for members in jh.duplicate_groups(index, radius)]


def test_groups_by_hand():
    # 0 - 1 - 3 is a chain of single bits; 240 comes twice; 15 is near to nothing
    index = index_of(0, 1, 3, 240, 240, 15, ids=[7, 2, 9, 4, 1, 0])
    assert groups(index, 0) == [[1, 4]]
    assert groups(index, 1) == [[2, 7, 9], [1, 4]]
    assert groups(index, 2) == [[0, 2, 7, 9], [1, 4]]
    assert groups(index, 4) == [[0, 1, 2, 4, 7, 9]]


def test_the_largest_group_comes_first_and_then_the_one_of_the_smallest_id():
    assert groups(index_of(5, 5, 6, 6, 7, 7, 7), 0) == [[4, 5, 6], [0, 1], [2, 3]]


def test_far_codes_and_an_empty_index_have_no_groups():
    assert groups(index_of(0, 255), 3) == []
    assert groups(jh.build_index(np.zeros((0, 1), np.uint32), 8), 3) == []


@pytest.mark.parametrize("bits", [12, 70])
@pytest.mark.parametrize("radius", [0, 1, 3, 200])
def test_groups_are_those_of_comparing_all_pairs(rng, monkeypatch, bits, radius):
    monkeypatch.setattr(duplicates, "EDGES_AT_ONCE", 64)  # several parts, merged
    monkeypatch.setattr(near_codes, "PAIRS_AT_ONCE", 64)
    monkeypatch.setattr(near_codes, "CODES_AT_ONCE", 16)
    codes = oracle.pack(oracle.clustered(rng, 300, bits))
    near = np.bitwise_count(codes[:, None] ^ codes).sum(2) <= radius
    group = np.arange(len(codes))
    while (joined := np.where(near, group, len(codes)).min(1)).tolist() != group.tolist():
        group = joined
    expected = [np.flatnonzero(group == first).tolist() for first in np.unique(group)]
    expected = sorted((members for members in expected if len(members) > 1), key=lambda members: -len(members))
    assert groups(jh.build_index(codes, bits), radius) == expected


def test_what_may_go_by_hand():
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
@pytest.mark.parametrize("radius", [0, 1, 3, 200])
def test_items_that_stay_are_far_apart_and_each_stands_for_what_is_near(rng, bits, radius):
    codes, ids = oracle.pack(oracle.clustered(rng, 300, bits)), rng.permutation(900)[:300].astype(np.int32)
    stays = {}
    expected = {}
    for item in np.argsort(ids):
        near = [other for other, code in stays.items() if np.bitwise_count(code ^ codes[item]).sum() <= radius]
        if near:
            expected[int(ids[item])] = near[0]
        else:
            stays[int(ids[item])] = codes[item]
    found = jh.deduplicate(jh.build_index(codes, bits, ids=ids), radius=radius)
    assert dict(zip(found.removed.tolist(), found.kept.tolist(), strict=True)) == expected
    assert found.removed.tolist() == sorted(expected)


def test_an_empty_index_has_no_duplicates():
    found = jh.deduplicate(jh.build_index(np.zeros((0, 1), np.uint32), 8), radius=3)
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
        jh.duplicate_groups(index_of(1), 0)
