"""Several indexes searched as one, against one index of everything."""

import itertools
from functools import partial

import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import same

import jaxhash as jh
from jaxhash.query import radius_search_several, search_several
from jaxhash.query.plan import LIMITS

FAR = 2**40


def code(*values):
    return np.array(values, np.uint32)[:, None] << np.uint32(24)


def test_two_indexes_by_hand():
    # Items 7 and 5 of the first, 5 and 0 of the second, which are 105 and 100: ties go by code, then by id.
    one, two = jh.build_index(code(1, 2), 8, ids=[7, 5]), jh.build_index(code(2, 1), 8, ids=[5, 0])
    found = search_several([one, two], code(0), k=5, id_offsets=[0, 100])
    assert found.ids.tolist() == [[7, 100, 5, 105, -1]]
    assert found.distances.tolist() == [[1, 1, 1, 1, jh.query.Neighbors.NO_DISTANCE]]
    assert (found.ids.dtype, found.distances.dtype) == (np.int64, np.int32)
    within = radius_search_several((one, two), code(0, 2), radius=0, id_offsets=[0, FAR])
    assert within.offsets.tolist() == [0, 0, 2]
    assert within.ids.tolist() == [5, FAR + 5]
    assert within.ids.dtype == np.int64


def parts_of(rng, n, num_bits, multi):
    """Items, in one index and in four of consecutive ids, each numbered from 0; and the offsets of these."""
    codes = oracle.pack(oracle.clustered(rng, n, num_bits))
    ids = np.sort(rng.integers(0, 3 * n, n) if multi else rng.permutation(3 * n)[:n])
    cuts = [0, *np.sort(rng.integers(0, 3 * n + 1, 3)).tolist(), 3 * n]
    parts, offsets = [], []
    for low, high in itertools.pairwise(cuts):
        inside = (ids >= low) & (ids < high)
        parts.append(jh.build_index(codes[inside], num_bits, ids=ids[inside] - low, multi=multi))
        offsets.append(low)
    queries = np.concatenate([codes[np.arange(3) % n], oracle.pack(oracle.clustered(rng, 3, num_bits))])
    return jh.build_index(codes, num_bits, ids=ids, multi=multi), parts, np.array(offsets), queries


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**32), st.sampled_from([9, 40]), st.booleans())
def test_any_cut_into_indexes_gives_the_results_of_one(n, seed, num_bits, multi):
    rng = np.random.default_rng(seed)
    whole, parts, offsets, queries = parts_of(rng, n, num_bits, multi)
    mask = rng.random(3 * n) < rng.choice([0, 0.3, 1])
    masks = np.split(mask, offsets[1:])
    for allowed, each in ((None, None), (mask, masks), (mask | (np.arange(3 * n) < offsets[1]), [None, *masks[1:]])):
        for method in ("scan", "probe"):
            found = search_several(parts, queries, k=7, method=method, allowed=each, id_offsets=offsets + FAR)
            expected = jh.search(whole, queries, k=7, allowed=allowed)
            same(found.distances, expected.distances)
            same(found.ids, np.where(expected.ids < 0, -1, expected.ids + np.int64(FAR)))
            within = radius_search_several(parts, queries, radius=3, method=method, allowed=each, id_offsets=offsets)
            same(within, jh.radius_search(whole, queries, radius=3, allowed=allowed))


def test_queries_of_any_shape_are_searched(rng):
    whole, parts, offsets, queries = parts_of(rng, 300, 20, False)
    search = partial(search_several, parts, id_offsets=offsets)
    expected = jh.search(whole, queries, k=4)
    same(search(queries, k=4), expected)
    same(search(queries[2], k=4), jax.tree.map(lambda array: array[2], expected))
    assert search(queries[:0].reshape(0, 5, 1), k=4).ids.shape == (0, 5, 4)
    few_at_a_time = LIMITS.listed // (2 * len(parts))  # results enough to search two queries at a time
    same(search(queries, k=few_at_a_time), jh.search(whole, queries, k=few_at_a_time))


def test_the_tables_of_each_index_serve_all_of_them():
    codes = np.random.default_rng(0).integers(0, 2**24, (40_000, 1), dtype=np.uint32) << np.uint32(8)
    parts = [jh.build_index(half, 24) for half in np.split(codes, 2)]
    search = partial(radius_search_several, parts, codes[:5], radius=1, id_offsets=[0, 2**31])
    found = search(method="probe")
    assert [len(jh.describe(part).tables) for part in parts] == [1, 1]
    same(found, search(method="scan"))


def test_ids_are_kept_apart():
    index, other = jh.build_index(code(1, 2), 8, ids=[3, 6]), jh.build_index(code(3), 8, ids=[5])
    empty = jh.build_index(code(), 8)
    with pytest.raises(
        ValueError, match=r"indexes\[0\] has ids from 3 to 6, indexes\[2\] from 5 to 5; give id_offsets"
    ):
        search_several([index, empty, other], code(0), k=1)
    assert search_several([index, empty, other], code(3), k=1, id_offsets=[0, 0, 2]).ids.tolist() == [[7]]
    assert search_several([empty, jh.build_index(code(3), 8, ids=[9]), index], code(3), k=1).ids.tolist() == [[9]]


def test_wrong_arguments_are_named():
    index, wide = jh.build_index(code(1), 8), jh.build_index(code(1), 9)
    two = {"id_offsets": [0, 9]}
    for search in (partial(search_several, k=1), partial(radius_search_several, radius=1)):
        for arguments, options, error, words in [
            (([], code(1)), {}, ValueError, "at least one index"),
            (([index, 5], code(1)), two, TypeError, r"indexes\[1\] must be a HashIndex"),
            (([index, wide], code(1)), two, ValueError, r"one length, got \[8, 9\] bits"),
            (([index, index], code(1)), {"id_offsets": [0]}, ValueError, r"id_offsets must have shape \(2,\)"),
            (([index, index], code(1)), {"id_offsets": [0.0, 9.0]}, TypeError, "id_offsets must be integers"),
            (([index, index], code(1)), {"id_offsets": [0, -1]}, ValueError, "id_offsets must lie between"),
            ((index, code(1)), {"id_offsets": [0]}, ValueError, "must be a list or tuple of at least one index"),
            (([index, index], code(1)), two | {"allowed": np.ones(1, bool)}, ValueError, "a list of 2 masks"),
            (([index, index], code(1)), two | {"allowed": [None, np.ones(0, bool)]}, ValueError, "holds the id 0"),
            (([index, index], code(1).astype(int)), two, TypeError, "uint32"),
        ]:
            with pytest.raises(error, match=words):
                search(*arguments, **options)
        with pytest.raises(TypeError, match="inside jit search each"):
            jax.jit(lambda queries, search=search: search([index, index], queries, **two))(code(1))
