"""Searching among allowed items, against the oracle over these items alone."""

from functools import partial

import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import same

import jaxhash as jh
from jaxhash.query import filters

SHARES = (0.5, 0.0, 1.0, 0.02)


def example(num_bits, n=300, seed=0):
    """Clustered codes with copies, ids with gaps, queries, and masks that allow some, none, all and few."""
    rng = np.random.default_rng((seed, num_bits, n))
    codes = oracle.pack(oracle.clustered(rng, n, num_bits))
    ids = rng.permutation(1000)[:n].astype(np.int32)
    queries = oracle.pack(oracle.clustered(rng, 6, num_bits))
    queries[: min(2, n)] = codes[:2]
    return codes, ids, queries, np.stack([rng.random(1000) < share for share in SHARES])


def nearest(codes, ids, queries, allowed, k):
    keep = allowed[ids]
    return oracle.nearest(codes[keep], ids[keep], queries, k)


def only(codes, ids, num_bits, allowed, **options):
    """The index of the allowed items alone."""
    return jh.build_index(codes[allowed[ids]], num_bits, ids=ids[allowed[ids]], **options)


def test_items_of_one_code_by_hand():
    index = jh.build_index(np.zeros((5, 1), np.uint32), 8, ids=[9, 2, 4, 7, 0])
    allowed = np.isin(np.arange(10), [2, 7, 9])
    query = np.zeros(1, np.uint32)
    assert jh.search(index, query, k=4, allowed=allowed).ids.tolist() == [2, 7, 9, -1]
    assert jh.radius_search(index, query, radius=0, allowed=allowed).ids.tolist() == [2, 7, 9]
    padded = jh.radius_search_padded(index, query, radius=0, max_results=2, allowed=allowed)
    assert (padded.ids.tolist(), int(padded.counts)) == ([2, 7], 3)
    nothing = jh.search(index, query, k=2, allowed=np.zeros(10, bool))
    assert nothing.ids.tolist() == [jh.Neighbors.NO_ID] * 2
    assert nothing.distances.tolist() == [jh.Neighbors.NO_DISTANCE] * 2


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 300), st.integers(0, 2**32), st.sampled_from([9, 64]))
def test_any_collection_is_searched_among_allowed_items(n, seed, num_bits):
    codes, ids, queries, masks = example(num_bits, n, seed)
    index = jh.build_index(codes, num_bits, ids=ids)
    for allowed in masks:
        expected = nearest(codes, ids, queries, allowed, 7)
        for method in ("scan", "probe", "auto"):
            same(tuple(jh.search(index, queries, k=7, method=method, allowed=allowed)), expected)
        within = oracle.within(codes[allowed[ids]], ids[allowed[ids]], queries, 3)
        for method in ("scan", "probe", "multi-index", "auto"):
            found = jh.radius_search(index, queries, radius=3, method=method, allowed=allowed)
            assert np.diff(found.offsets).tolist() == [len(row) for _, row in within]
            same((found.distances, found.ids), tuple(np.concatenate(parts) for parts in zip(*within, strict=True)))


@pytest.mark.parametrize("copies", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_inside_jit_and_vmap_masks_may_be_traced(copies):
    codes, ids, queries, masks = example(33)
    if not copies:
        first = np.unique(codes, axis=0, return_index=True)[1]
        codes, ids = codes[first], ids[first]
    index = jh.build_index(codes, 33, ids=ids)
    assert (int(index.num_codes) < len(ids)) == copies

    @jax.jit
    def search(index, queries, masks):
        def both(allowed):
            padded = jh.radius_search_padded(index, queries, radius=4, max_results=5, allowed=allowed)
            return jh.search(index, queries, k=7, allowed=allowed), padded

        return jax.vmap(both)(masks)

    found, padded = search(index, queries, masks)
    for row, allowed in enumerate(masks):
        same((found.distances[row], found.ids[row]), nearest(codes, ids, queries, allowed, 7))
        expected = jh.radius_search_padded(only(codes, ids, 33, allowed), queries, radius=4, max_results=5)
        same(jax.tree.map(lambda array, row=row: array[row], padded), expected)
        same(jh.radius_search_padded(index, queries, radius=4, max_results=5, allowed=allowed), expected)
    same(jax.vmap(lambda query: jh.search(index, query, k=7, allowed=masks[0]).ids)(queries), found.ids[0])


def test_weighted_search_among_allowed_items():
    codes, ids, queries, masks = example(33)
    index = jh.build_index(codes, 33, ids=ids)
    weights = np.random.default_rng(0).integers(0, 16, (len(queries), 33))
    traced = jax.jit(partial(jh.weighted_search, k=9))
    for allowed in masks:
        expected = jh.weighted_search(only(codes, ids, 33, allowed), queries, weights, k=9)
        same(jh.weighted_search(index, queries, weights, k=9, allowed=allowed), expected)
        same(traced(index, queries, weights, allowed=allowed), expected)


def test_items_with_several_codes_are_found_by_all_of_them_or_none():
    codes, _, queries, _ = example(17)
    ids = np.repeat(np.arange(60), 5)
    index = jh.build_index(codes, 17, ids=ids, multi=True)
    for share in SHARES:
        allowed = np.random.default_rng(0).random(60) < share
        alone = only(codes, ids, 17, allowed, multi=True)
        same(jh.search(index, queries, k=9, allowed=allowed), jh.search(alone, queries, k=9))
        found = jh.radius_search(index, queries, radius=3, allowed=allowed)
        same(found, jh.radius_search(alone, queries, radius=3))
        bags = jh.bag_search(index, queries, radius=3, k=9, allowed=allowed)
        same(bags, jh.bag_search(alone, queries, radius=3, k=9))


@pytest.mark.parametrize("multi", [False, True])
def test_few_allowed_items_are_searched_alone(multi, monkeypatch):
    monkeypatch.setattr(filters, "WORTH_GATHERING", 1)
    rng = np.random.default_rng(0)
    codes = oracle.pack(oracle.clustered(rng, 5000, 20))
    ids = rng.integers(0, 4000, 5000) if multi else rng.permutation(9000)[:5000]
    index = jh.build_index(codes, 20, ids=ids, multi=multi)
    for share in (0, 0.001, 0.005, 0.5):
        allowed = rng.random(9000) < share
        assert (filters.index_of_few(index, allowed) is not None) == (share < 0.5)
        alone = only(codes, ids, 20, allowed, multi=multi)
        same(jh.search(index, codes[:5], k=9, allowed=allowed), jh.search(alone, codes[:5], k=9))
        found = jh.radius_search(index, codes[:5], radius=2, method="scan", allowed=allowed)
        same(found, jh.radius_search(alone, codes[:5], radius=2))


def test_one_program_serves_all_masks(compilations, monkeypatch):
    monkeypatch.setattr(filters, "WORTH_GATHERING", 1)
    codes, ids, queries, masks = example(64)
    index = jh.build_index(codes, 64, ids=ids)
    for allowed in masks:  # some and few: two programs
        jh.search(index, queries, k=3, allowed=allowed)
    with compilations:
        for allowed in (*masks, ~masks[0], ~masks[3]):
            jh.search(index, queries, k=3, allowed=allowed)
    assert compilations.count == 0


def test_a_mask_that_was_changed_in_place_is_seen():
    codes, ids, queries, masks = example(17)
    index, allowed = jh.build_index(codes, 17, ids=ids), masks[0].copy()
    jh.search(index, queries, k=5, allowed=allowed)
    allowed[ids] = ~allowed[ids]
    same(tuple(jh.search(index, queries, k=5, allowed=allowed)), nearest(codes, ids, queries, allowed, 5))


def test_masks_that_are_none_are_refused():
    codes, ids, queries, masks = example(17)
    index = jh.build_index(codes, 17, ids=ids)
    searches = [
        partial(jh.search, k=1),
        partial(jh.radius_search, radius=1),
        partial(jh.radius_search_padded, radius=1, max_results=1),
        partial(jh.weighted_search, weights=np.ones(17, int), k=1),
        partial(jh.bag_search, radius=1, k=1),
    ]
    for search in searches:
        with pytest.raises(
            ValueError, match=rf"allowed has {ids.max()} entries, but the index holds the id {ids.max()}"
        ):
            search(index, queries, allowed=masks[0][: ids.max()])
        with pytest.raises(ValueError, match=r"allowed must have shape \[m\], one entry for each id, got \(4, 1000\)"):
            search(index, queries, allowed=masks)
        with pytest.raises(
            TypeError, match="allowed must be a mask of dtype bool, one entry for each id, got dtype int"
        ):
            search(index, queries, allowed=ids)
    with pytest.raises(TypeError, match="inside jit use radius_search_padded"):
        jax.jit(lambda allowed: jh.radius_search(index, queries, radius=1, allowed=allowed))(masks[0])


def test_inside_jit_ids_past_the_mask_are_not_allowed():
    codes, ids, queries, masks = example(17)
    index, short = jh.build_index(codes, 17, ids=ids), masks[0][:500]
    found = jax.jit(partial(jh.search, k=5))(index, queries, allowed=short)
    same(tuple(found), nearest(codes, ids, queries, np.append(short, np.zeros(500, bool)), 5))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_it_lowers_for_accelerators(platform):
    codes, ids, queries, masks = example(64)
    search = jax.jit(partial(jh.search, k=10))
    traced = search.trace(jh.build_index(codes, 64, ids=ids), queries, allowed=masks[0])
    assert "module" in traced.lower(lowering_platforms=(platform,)).as_text()
