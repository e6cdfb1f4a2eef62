"""Searches by bags of codes, against a dictionary of sets."""

from collections import defaultdict

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import collection, same

import jaxhash as jh
from jaxhash.query.bags import find_best
from jaxhash.query.plan import LIMITS


def by_sets(codes, ids, bag, radius, k):
    """Scores and ids of the best items, from a dictionary of the sets of their codes."""
    codes_of = defaultdict(set)
    for code, item in zip(codes, ids, strict=True):
        codes_of[int(item)].add(tuple(code.tolist()))
    scores = {
        item: sum(max((2 ** (radius - d) for d in distances(code, own) if d <= radius), default=0) for code in bag)
        for item, own in codes_of.items()
    }
    best = sorted((-score, item) for item, score in scores.items() if score > 0)[:k]
    best += [(0, -1)] * (k - len(best))
    return [-score for score, _ in best], [item for _, item in best]


def distances(code, others):
    return [sum((int(a) ^ b).bit_count() for a, b in zip(code, other, strict=True)) for other in others]


def test_scores_by_hand():
    index = jh.build_index(np.array([[0b0000], [0b1111], [0b0001]], np.uint32) << 28, 4, ids=[7, 7, 3], multi=True)
    query = np.array([[0b0000], [0b0001], [0b0001]], np.uint32) << 28
    # Item 7: 4 for the same code, 2 and 2 for its neighbors. Item 3: 2, and twice 4.
    scores, ids = jh.bag_search(index, query, radius=2, k=3)
    assert scores.tolist() == [10, 8, 0]
    assert ids.tolist() == [3, 7, -1]


@settings(max_examples=50)
@given(
    st.sampled_from([1, 5, 28, 40, 70]),
    st.integers(0, 40),
    st.integers(0, 6),
    st.integers(0, 12),
    st.sampled_from([1, 3, 50]),
    st.integers(0, 2**32),
)
def test_scores_equal_those_from_a_dictionary_of_sets(num_bits, n, p, radius, k, seed):
    _, queries, codes, _ = collection(num_bits, n, 2 * p, seed)
    bags = queries.reshape(2, p, -(-num_bits // 32))
    ids = np.random.default_rng(seed).choice(np.array([0, 1, 5, 1000, 2**31 - 1]), n)
    index = jh.build_index(codes, num_bits, ids=ids, multi=True)
    scores, found = jh.bag_search(index, bags, radius=radius, k=k)
    for row in range(2):
        expected = by_sets(codes, ids, bags[row], radius, k)
        assert (scores[row].tolist(), found[row].tolist()) == expected


def many_items(n=900, p=36):
    """An index of items with 15 codes each, their codes and ids, and one bag of codes, some of them twice."""
    _, bag, codes, _ = collection(20, n, p)
    ids = np.random.default_rng(0).permutation(np.repeat(np.arange(n // 15) * 1000, 15))
    return jh.build_index(codes, 20, ids=ids, multi=True), codes, ids, np.concatenate([bag, bag[: p // 3]])


@pytest.mark.parametrize("bag_codes", [1, 5, 256])
@pytest.mark.parametrize("bag_ids", [0, 20_000, 2**18])  # all, some or no ids are renumbered
def test_chunks_and_renumbered_items_score_the_same(bag_codes, bag_ids):
    index, codes, ids, bag = many_items()
    limits = LIMITS._replace(bag_codes=bag_codes, bag_ids=bag_ids)
    scores, found = find_best(index, bag, 6, 20, None, limits)
    assert (scores.tolist(), found.tolist()) == by_sets(codes, ids, bag, 6, 20)
    assert scores[-1] > 0


def test_allowed_items_score_as_if_alone():
    index, codes, ids, bag = many_items()
    allowed = np.arange(ids.max() + 1) % 7 != 0
    own = allowed[ids]
    for limits in (LIMITS, LIMITS._replace(bag_codes=5, bag_ids=0)):
        found = [array.tolist() for array in find_best(index, bag, 6, 20, allowed, limits)]
        assert found == list(by_sets(codes[own], ids[own], bag, 6, 20))
    scores, found = jh.bag_search(index, bag, radius=6, k=20, allowed=np.zeros_like(allowed))
    assert (scores.tolist(), found.tolist()) == ([0] * 20, [-1] * 20)


def test_shards_score_as_the_whole():
    index, _, ids, bag = many_items()
    mesh = jax.make_mesh((1,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded, allowed = jh.shard_index(index, mesh), np.arange(ids.max() + 1) % 7 != 0
    for mask in (None, allowed):
        expected = jh.bag_search(index, bag, radius=6, k=20, allowed=mask)
        same(jh.bag_search(sharded, bag, radius=6, k=20, allowed=mask), expected)


def test_queries_keep_their_leading_shape():
    index, _, codes, _ = collection(17, 50)
    query = codes[:12].reshape(2, 3, 2, 1)
    scores, ids = jh.bag_search(index, query, radius=2, k=5)
    assert scores.shape == ids.shape == (2, 3, 5)
    assert scores.dtype == ids.dtype == np.int32
    one = jh.bag_search(index, query[1, 2], radius=2, k=5)
    assert np.array_equal(one.scores, scores[1, 2])
    assert np.array_equal(one.ids, ids[1, 2])
    assert (scores[..., 0] >= 4).all()
    assert jh.bag_search(index, query[:0], radius=2, k=5).ids.shape == (0, 3, 5)


def test_scores_of_a_large_radius_do_not_overflow():
    index = jh.build_index(np.zeros((1, 1), np.uint32), 8)
    scores, _ = jh.bag_search(index, np.zeros((3, 1), np.uint32), radius=20, k=1)
    assert scores.tolist() == [3 * 2**20]


WRONG = [
    ({"queries": np.zeros(1, np.uint32)}, ValueError, r"queries must have shape \[\.\.\., p, 1\]"),
    ({"queries": np.zeros((2, 2), np.uint32)}, ValueError, "queries must have 1 words"),
    ({"queries": np.zeros((2, 1), np.int64)}, TypeError, "uint32"),
    ({"radius": -1}, ValueError, "radius"),
    ({"radius": 31}, ValueError, "smaller radius"),
    ({"radius": 30}, ValueError, "smaller radius"),
    ({"radius": 1.0}, TypeError, "radius"),
    ({"k": 0}, ValueError, "k must"),
    ({"index": "index"}, TypeError, "index must be a HashIndex"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG)
def test_wrong_input_is_refused(change, error, message):
    index = jh.build_index(np.zeros((3, 1), np.uint32), 8)
    good = {"index": index, "queries": np.zeros((2, 1), np.uint32), "radius": 1, "k": 1}
    with pytest.raises(error, match=message):
        jh.bag_search(**(good | change))


def test_a_traced_bag_is_refused():
    index = jh.build_index(np.zeros((3, 1), np.uint32), 8)
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(lambda bag: jh.bag_search(index, bag, radius=1, k=1))(np.zeros((2, 1), np.uint32))


def test_constant_codes_are_searched_inside_jit():
    index = jh.build_index(np.zeros((3, 1), np.uint32), 8)
    bag = np.zeros((2, 1), np.uint32)
    found = jax.jit(lambda: jh.bag_search(index, bag, radius=1, k=2))()
    assert found.scores.tolist() == [4, 4]
    assert found.ids.tolist() == [0, 1]
