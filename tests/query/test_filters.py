"""Searching among allowed items, against the oracle over these items alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import prefer
from samples import collection, identical, same

import jaxhash as jh
from jaxhash.codes.distances import Queries
from jaxhash.index.hash_index import HashIndex, cache_of
from jaxhash.query.filters import Filter, apply_filter, count_unfiltered, gather_allowed, make_filter
from jaxhash.query.nearest import find_nearest
from jaxhash.query.plan import LIMITS
from jaxhash.query.radius import find_matches

SHARES = (0.5, 0.0, 1.0, 0.02)
FEW = LIMITS._replace(min_gathered_items=1)


def with_masks(num_bits, n=300, seed=0):
    """A collection and masks that allow some of its items, none, all and few."""
    rng = np.random.default_rng(seed)
    return *collection(num_bits, n, 6, seed), np.stack([rng.random(3 * n + 1) < share for share in SHARES])


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
    assert nothing.ids.tolist() == [jh.query.Neighbors.NO_ID] * 2
    assert nothing.distances.tolist() == [jh.query.Neighbors.NO_DISTANCE] * 2


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 300), st.integers(0, 2**32), st.sampled_from([9, 64]), st.sampled_from([LIMITS, FEW]))
def test_any_collection_is_searched_among_allowed_items(n, seed, num_bits, limits):
    index, queries, codes, ids, masks = with_masks(num_bits, n, seed)
    for allowed in masks:
        expected = nearest(codes, ids, queries, allowed, 7)
        for method in ("scan", "probe", "auto"):
            found = find_nearest(index, Queries(queries), allowed, k=7, method=method, limits=limits)
            same(tuple(found), expected)
        within = oracle.within(codes[allowed[ids]], ids[allowed[ids]], queries, 3)
        for method in ("scan", "probe", "multi_index", "auto"):
            found = find_matches(index, queries, 3, allowed, method, limits=limits)
            assert np.diff(found.offsets).tolist() == [len(row) for _, row in within]
            same((found.distances, found.ids), tuple(np.concatenate(parts) for parts in zip(*within, strict=True)))


def test_what_probing_leaves_is_scanned_among_allowed_items():
    index, queries, codes, ids, masks = with_masks(64)
    limits = prefer("probe", "scan", max_probes=9)
    for allowed in masks:
        found = find_nearest(index, Queries(queries), allowed, k=7, method="probe", limits=limits)
        same(tuple(found), nearest(codes, ids, queries, allowed, 7))


@pytest.mark.parametrize("copies", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_masks_may_be_traced(copies):
    _, queries, codes, ids, masks = with_masks(33)
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


@pytest.mark.slow  # each operation is compiled by itself
def test_disabled_jit_changes_nothing():
    index, queries, codes, ids, masks = with_masks(33)
    with jax.disable_jit():
        found = jh.search(index, queries, k=7, allowed=masks[0])
    same(tuple(found), nearest(codes, ids, queries, masks[0], 7))


def test_weighted_search_among_allowed_items_equals_the_oracle():
    index, queries, codes, ids, masks = with_masks(33)
    weights = np.random.default_rng(0).integers(0, 16, (len(queries), 33))
    traced = jax.jit(partial(jh.search, k=9))
    for allowed in masks:
        keep = allowed[ids]
        expected = oracle.nearest_weighted(codes[keep], ids[keep], queries, weights, 9)
        same(tuple(jh.search(index, queries, weights=weights, k=9, allowed=allowed)), expected)
        same(tuple(traced(index, queries, weights=weights, allowed=allowed)), expected)


@pytest.mark.parametrize("limits", [LIMITS, FEW])
@pytest.mark.parametrize("mask_kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_results_are_of_the_kind_of_the_queries(kind, mask_kind, limits):
    index, queries, codes, ids, masks = with_masks(64)
    for allowed in (masks[0], masks[3]):
        for method in ("scan", "probe"):
            rows = Queries(kind(queries))
            found = find_nearest(index, rows, mask_kind(allowed), k=7, method=method, limits=limits)
            assert all(isinstance(array, jax.Array if kind is jnp.asarray else np.ndarray) for array in found)
            same(tuple(found), nearest(codes, ids, queries, allowed, 7))


def test_items_with_several_codes_are_found_by_all_or_none():
    _, queries, codes, _ = collection(17, 300, 6)
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
def test_few_allowed_items_are_searched_alone(multi, rng):
    codes = oracle.pack(oracle.clustered(rng, 5000, 20))
    ids = rng.integers(0, 4000, 5000) if multi else rng.permutation(9000)[:5000]
    index = jh.build_index(codes, 20, ids=ids, multi=multi)
    for share in (0, 0.001, 0.005, 0.5):
        allowed = rng.random(9000) < share
        searched, chosen = apply_filter(index, allowed, FEW)
        assert (searched is not index, chosen is None) == (share < 0.5, share < 0.5)
        alone = only(codes, ids, 20, allowed, multi=multi)
        found = find_nearest(index, Queries(codes[:5]), allowed, k=9, limits=FEW)
        same(found, jh.search(alone, codes[:5], k=9))
        matches = find_matches(index, codes[:5], 2, allowed, "scan", limits=prefer("scan", min_gathered_items=1))
        same(matches, jh.radius_search(alone, codes[:5], radius=2))


def test_items_are_gathered_where_few_enough_are_allowed():
    index, _, codes, ids = collection(64, 300)
    allowed = np.zeros(901, bool)
    allowed[ids[:4]] = True  # of 300, one in 64 or fewer
    assert gather_allowed(index, allowed) is None  # the index is small
    few = gather_allowed(index, allowed, FEW)
    assert isinstance(few, HashIndex)
    assert sorted(np.asarray(few.ids)[: few.num_items].tolist()) == sorted(ids[:4].tolist())
    allowed[ids[4]] = True
    assert gather_allowed(index, allowed, FEW) is None
    of_one = jh.build_index(codes, 64, ids=np.zeros(300, int), multi=True)  # one item, with all the codes
    assert gather_allowed(of_one, np.ones(1, bool), FEW) is None


def test_one_program_serves_all_masks(compilations):
    index, queries, *_, masks = with_masks(64)
    limits = prefer("scan", min_gathered_items=1)
    search = partial(find_nearest, index, Queries(queries), k=3, limits=limits)
    for allowed in masks:  # some and few: two programs
        search(allowed)
    with compilations:
        for allowed in (*masks, ~masks[0], ~masks[3]):
            search(allowed)
    assert compilations.count == 0


def test_the_filter_of_the_last_mask_is_kept():
    index, *_, masks = with_masks(17)
    filters = [apply_filter(index, mask)[1] for mask in (masks[0], masks[0].copy(), masks[2], masks[0])]
    assert isinstance(filters[0], Filter)
    assert filters[1] is filters[0]
    assert filters[3] is not filters[0]
    assert cache_of(index).last_filter[1] is filters[3]


def test_a_mask_that_was_changed_in_place_is_seen():
    index, queries, codes, ids, masks = with_masks(17)
    allowed = masks[0].copy()
    jh.search(index, queries, k=5, allowed=allowed, method="scan")
    allowed[ids] = ~allowed[ids]
    found = jh.search(index, queries, k=5, allowed=allowed, method="scan")
    same(tuple(found), nearest(codes, ids, queries, allowed, 5))


@pytest.mark.parametrize("num_bits", [17, 512, 2048])
def test_codes_of_one_item_are_excluded_by_their_bits(num_bits, rng):
    """In groups of 16, of 8 and of 2 codes."""
    codes = np.unique(rng.integers(0, 2, (1100, num_bits), dtype=np.uint8), axis=0)
    index, allowed = jh.build_index(jh.pack_bits(codes), num_bits), rng.random(len(codes)) < 0.5
    make = jax.jit(make_filter, static_argnames="one_item_each")
    filters = [make(index, allowed, one_item_each=known) for known in (True, False, None)]
    identical(filters[0], filters[1])
    identical(filters[0], filters[2])
    excluded = np.asarray(filters[0].excluded).transpose(0, 2, 1).reshape(-1)
    np.testing.assert_array_equal(excluded[: len(codes)], np.where(allowed, 0, 2**32 - 1))


@pytest.mark.parametrize(("allowed", "among"), [([True] * 4, 6), ([True, False], 12), ([False] * 3, 18)])
def test_neighbors_to_search_grow_as_fewer_are_allowed(allowed, among):
    assert count_unfiltered(6, np.array(allowed)) == among


def test_masks_of_another_kind_are_refused():
    index, queries, _, ids, masks = with_masks(17)
    largest = ids.max()
    searches = [
        partial(jh.search, k=1),
        partial(jh.search, weights=np.ones(17, int), k=1),
        partial(jh.radius_search, radius=1),
        partial(jh.radius_search_padded, radius=1, max_results=1),
        partial(jh.bag_search, radius=1, k=1),
    ]
    for search in searches:
        with pytest.raises(ValueError, match=rf"allowed has {largest} entries, but the index holds the id {largest}"):
            search(index, queries, allowed=masks[0][:largest])
        with pytest.raises(ValueError, match=r"allowed must have shape \[m\], one entry for each id, got \(4, 901\)"):
            search(index, queries, allowed=masks)
        with pytest.raises(TypeError, match="allowed must be a mask of dtype bool, one entry for each id, got dtype"):
            search(index, queries, allowed=ids)
    with pytest.raises(TypeError, match="inside jit use radius_search_padded"):
        jax.jit(lambda allowed: jh.radius_search(index, queries, radius=1, allowed=allowed))(masks[0])


@pytest.mark.parametrize("length", [0, 500])
def test_traced_ids_past_the_mask_are_not_allowed(length):
    index, queries, codes, ids, masks = with_masks(17)
    short = masks[0][:length]
    found = jax.jit(partial(jh.search, k=5))(index, queries, allowed=short)
    same(tuple(found), nearest(codes, ids, queries, np.append(short, np.zeros(901 - length, bool)), 5))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_filtered_search_lowers_without_scatter(platform):
    index, queries, *_, masks = with_masks(64)
    traced = jax.jit(partial(jh.search, k=10)).trace(index, queries, allowed=masks[0])
    assert "scatter" not in traced.lower(lowering_platforms=(platform,)).as_text()
