"""Probing in a fixed number of slots, against comparing all codes: in programs, with masks, and on accelerators."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from samples import collection, identical, same

import jaxhash as jh
from jaxhash.codes.distances import Queries
from jaxhash.index.address_table import get_tables
from jaxhash.index.hash_index import cache_of, sizes_of
from jaxhash.query.hits import Request
from jaxhash.query.plan import LIMITS, Option, order_radius, plan_tables
from jaxhash.query.probe.device import matches_on_device, sort_codes
from jaxhash.query.probe.host import find_buckets
from jaxhash.query.radius import find_matches

ROOM = {"radius": 3, "max_candidates": 48, "max_results": 20}
FULL_ROOM = ROOM | {"max_candidates": 800}  # for each code in both tables
MESH = jax.make_mesh((1,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
MASKS = np.random.default_rng(0).random((3, 1200)) < np.array([[0.5], [0.03], [0.0]])


def scan(index, queries, allowed=None, radius=3, max_results=20):
    """The same without tables."""
    return jh.radius_search_padded(index, queries, radius=radius, max_results=max_results, allowed=allowed)


def skewed(num_bits, seed):
    """An index in which many items share one code or few addresses, and queries near all of it."""
    rng = np.random.default_rng((num_bits, seed))
    centers = rng.random((3, num_bits)) < 0.5
    bits = centers[rng.choice(3, 300, p=[0.6, 0.39, 0.01])]
    bits ^= (rng.random(bits.shape) < 2 / num_bits) & (rng.random((300, 1)) < rng.random())
    bits[:60] = rng.random((60, num_bits)) < 0.5
    queries = np.concatenate([bits[rng.integers(0, 300, 20)], rng.random((12, num_bits)) < 0.5])
    queries ^= rng.random(queries.shape) < 1 / num_bits
    codes = oracle.pack(bits)
    ids = rng.permutation(900)[:300]
    return jh.build_index(codes, num_bits, ids=ids), codes, ids, oracle.pack(queries)


def check(found, codes, ids, queries, room):
    """Compares with all matches where the search is complete; elsewhere, what is given must be true."""
    expected = oracle.within(codes, ids, queries, room["radius"])
    for row, (distances, matches) in enumerate(expected):
        count = min(len(matches), room["max_results"])
        if found.complete[row]:
            assert found.counts[row] == len(matches)
            assert found.ids[row, :count].tolist() == matches[:count].tolist()
            assert found.distances[row, :count].tolist() == distances[:count].tolist()
        else:
            assert found.counts[row] <= len(matches)
            count = min(int(found.counts[row]), room["max_results"])
            pairs = list(zip(found.distances[row, :count].tolist(), found.ids[row, :count].tolist(), strict=True))
            assert set(pairs) <= set(zip(distances.tolist(), matches.tolist(), strict=True))
            assert len(set(pairs)) == len(pairs)
        assert (found.ids[row, count:] == found.NO_ID).all()
        assert (found.distances[row, count:] == found.NO_DISTANCE).all()


def test_matches_by_hand():
    codes = jh.pack_bits([[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    index = jh.build_index(codes[[0, 0, 1, 2, 3]], 4, ids=[8, 5, 7, 2, 4])
    tables = jh.build_tables(index, radius=1, num_tables=1)
    search = partial(jh.radius_search_padded, index, codes[[0, 3]], radius=1, max_results=3, tables=tables)
    none, far = jh.query.PaddedMatches.NO_ID, jh.query.PaddedMatches.NO_DISTANCE
    found = search()
    assert found.ids.tolist() == [[5, 8, 7], [4, 2, none]]
    assert found.distances.tolist() == [[0, 0, 1], [0, 1, far]]
    assert (found.counts.tolist(), found.complete.tolist()) == ([3, 2], [True, True])
    found = search(allowed=np.isin(np.arange(9), [7, 8, 2]))
    assert (found.ids.tolist(), found.counts.tolist()) == ([[8, 7, none], [2, none, none]], [2, 1])
    found = search(max_candidates=1)  # each query has two codes near
    assert (found.counts.tolist(), found.complete.tolist()) == ([2, 1], [False, False])


@pytest.mark.parametrize(("num_bits", "num_tables"), [(8, 1), (40, 1), (40, 5), (70, 3)])
def test_complete_results_are_those_of_comparing_all(num_bits, num_tables):
    outcomes = []
    for seed in range(4):
        index, codes, ids, queries = skewed(num_bits, seed)
        tables = jh.build_tables(index, radius=3, num_tables=num_tables)
        found = jh.radius_search_padded(index, queries, tables=tables, **ROOM)
        check(found, codes, ids, queries, ROOM)
        outcomes += found.complete.tolist()
    assert {True, False} == set(outcomes)  # one batch holds rows of both kinds


def test_masked_items_count_as_candidates():
    allowed = MASKS[0, :900]
    for seed in range(4):
        index, codes, ids, queries = skewed(40, seed)
        search = partial(jh.radius_search_padded, index, queries, **ROOM)
        tables = jh.build_tables(index, radius=3, num_tables=5)
        found = search(tables=tables, allowed=allowed)
        check(found, codes[allowed[ids]], ids[allowed[ids]], queries, ROOM)
        same(found.complete, search(tables=tables).complete)


def test_one_slot_less_than_codes_is_incomplete():
    index, codes, ids, queries = skewed(20, 0)
    tables = jh.build_tables(index, radius=20, num_tables=1)
    num_codes = jh.describe(index).num_codes
    for max_candidates in (num_codes, num_codes - 1):
        room = {"radius": 20, "max_candidates": max_candidates, "max_results": 300}
        found = jh.radius_search_padded(index, queries[:3], tables=tables, **room)
        assert (found.complete == (max_candidates == num_codes)).all()
        check(found, codes, ids, queries[:3], room)


def test_room_is_four_times_the_results_by_default():
    index, _, _, queries = skewed(40, 0)
    tables = jh.build_tables(index, radius=3, num_tables=1)
    found = jh.radius_search_padded(index, queries, radius=3, max_results=16, tables=tables)
    room = {"radius": 3, "max_results": 16, "max_candidates": 64}
    identical(found, jh.radius_search_padded(index, queries, tables=tables, **room))
    assert not found.complete.all()


@pytest.mark.parametrize("n", [0, 1])
def test_the_smallest_indexes_are_probed(n):
    index, queries, *_ = collection(40, n)
    identical(
        jh.radius_search_padded(index, queries, tables=jh.build_tables(index, radius=3), **ROOM), scan(index, queries)
    )


def test_the_tables_of_one_radius_serve_others():
    index, queries, codes, ids = collection(64)
    tables = jh.build_tables(index, radius=3)
    for radius in (0, 4):
        room = {"radius": radius, "max_candidates": 400, "max_results": 20}
        found = jh.radius_search_padded(index, queries, tables=tables, **room)
        assert found.complete.all()
        check(found, codes, ids, queries, room)


@pytest.fixture(scope="module")
def probed():
    """An index, its tables, queries, and a search by them with room for all candidates."""
    index, queries, *_ = collection(40, q=6)
    return index, jh.build_tables(index, radius=3, num_tables=2), queries


def probe(index, tables, queries, allowed=None):
    return jh.radius_search_padded(index, queries, tables=tables, allowed=allowed, **FULL_ROOM)


@pytest.mark.parametrize("allowed", [None, *MASKS], ids=["all", "half", "few", "none"])
def test_tables_and_masks_find_what_a_scan_finds(probed, allowed):
    index, tables, queries = probed
    expected = scan(index, queries, allowed)
    assert expected.complete.all()
    identical(probe(index, tables, queries, allowed), expected)


@pytest.mark.parametrize("masked", [False, True])
def test_jit_and_vmap_find_the_same(probed, masked):
    index, tables, queries = probed
    allowed = MASKS[0] if masked else None
    expected = probe(index, tables, queries, allowed)
    assert expected.counts.any()
    same(jax.jit(probe)(index, tables, queries, allowed), expected)
    same(jax.vmap(probe, (None, None, 0, None))(index, tables, jnp.asarray(queries), allowed), expected)


def test_masks_can_be_mapped(probed):
    index, tables, queries = probed
    found = jax.vmap(lambda allowed: probe(index, tables, queries, allowed))(MASKS)
    for row, allowed in enumerate(MASKS):
        same(jax.tree.map(lambda array, row=row: array[row], found), scan(index, queries, allowed))


def test_queries_keep_their_kind_and_leading_shape(probed):
    index, tables, queries = probed
    expected = probe(index, tables, queries)
    assert all(isinstance(array, np.ndarray) for array in expected)
    identical(probe(index, tables, queries[2]), jax.tree.map(lambda array: array[2], expected))
    reshaped = jax.tree.map(lambda array: array.reshape(3, 2, *array.shape[1:]), expected)
    identical(probe(index, tables, queries.reshape(3, 2, 2)), reshaped)
    identical(probe(index, tables, queries[:0]), jax.tree.map(lambda array: array[:0], expected))
    found = probe(index, tables, jnp.asarray(queries))
    assert all(isinstance(array, jax.Array) for array in found)
    same(found, expected)


def test_jax_queries_stay_on_their_device(probed):
    index, tables, queries = probed
    asked, allowed = jnp.tile(queries, (4, 1))[:16], jnp.asarray(MASKS[0])  # a power of two
    with jax.transfer_guard("disallow"):
        found = probe(index, tables, asked, allowed)
    same(jax.tree.map(lambda array: array[:6], found), probe(index, tables, queries, MASKS[0]))


def test_batches_of_any_size_find_the_same():
    index, queries, *_ = collection(40, q=264)
    tables = jh.build_tables(index, radius=3, num_tables=2)
    search = partial(jh.radius_search_padded, index, tables=tables, **ROOM)
    found = search(queries)
    same(jax.jit(search)(queries), found)
    same(jax.tree.map(lambda array: array[256:], found), search(queries[256:]))


def test_one_program_serves_all_masks(probed, compilations):
    index, tables, queries = probed
    probe(index, tables, queries, MASKS[0])
    with compilations:
        for allowed in (*MASKS, ~MASKS[0]):
            probe(index, tables, queries, allowed)
    assert compilations.count == 0


def test_a_shard_is_probed_as_the_whole(probed):
    index, _, queries = probed
    sharded = jh.shard_index(index, MESH)
    tables = jh.build_tables(sharded, radius=3, num_tables=2)
    same(probe(sharded, tables, queries, MASKS[0]), scan(index, queries, MASKS[0]))


def test_padding_bits_of_a_traced_query_do_not_count(probed):
    index, tables, queries = probed
    found = jax.jit(probe)(index, tables, queries | np.array([0, 0xFFFFFF], np.uint32))
    same(found, probe(index, tables, queries))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_programs_neither_scatter_nor_sort_all_codes(platform):
    index, queries, *_ = collection(64, 5000)
    tables = jh.build_tables(index, radius=3)
    program = jax.jit(partial(jh.radius_search_padded, **ROOM))
    text = program.trace(index, queries, tables=tables).lower(lowering_platforms=(platform,)).as_text()
    assert "scatter" not in text
    sorts = [line for line in text.splitlines() if "stablehlo.sort" in line]
    assert len(sorts) == 1
    assert f"tensor<{len(queries)}x{ROOM['max_candidates']}x" in text


def test_one_key_sorts_as_two_do(rng):
    distances = rng.integers(0, 4, (5, 90), dtype=np.int32)
    distances[distances == 3] = jh.query.PaddedMatches.NO_DISTANCE
    ranks = np.stack([rng.permutation(1000)[:90] for _ in range(5)]).astype(np.int32)
    together = sort_codes(distances, ranks, 2, 1000)
    apart = sort_codes(distances, ranks, 2, 2**31 - 1)
    same(together[0], apart[0])
    found = np.asarray(apart[0]) <= 2
    same(np.asarray(together[1])[found], np.asarray(apart[1])[found])
    for row in range(5):
        pairs = sorted(zip(distances[row].tolist(), ranks[row].tolist(), strict=True))
        assert np.asarray(apart[1])[row].tolist() == [rank for _, rank in pairs]


def test_wrong_arguments_are_named(probed):
    index, tables, queries = probed
    for options, error, words in [
        ({"tables": MASKS}, TypeError, "tables must be"),
        ({"tables": tables, "queries": queries[:, :1]}, ValueError, "2 words"),
        ({"tables": tables, "max_candidates": 0}, ValueError, "max_candidates"),
        ({"tables": tables, "max_candidates": 2.0}, TypeError, "max_candidates"),
        ({"tables": tables, "max_candidates": 2**30}, ValueError, "exceed 2"),
        ({"tables": tables, "allowed": MASKS[0, :9]}, ValueError, "allowed has 9 entries"),
        ({"max_candidates": 7}, ValueError, "max_candidates is for tables"),
    ]:
        with pytest.raises(error, match=words):
            jh.radius_search_padded(index, **{"queries": queries, "radius": 3, "max_results": 20} | options)


# Radius searches on the device that holds the index. Its sizes say that it is on an accelerator.


def on_accelerator(num_bits, n=400):
    index, queries, *_ = collection(num_bits, n)
    cache_of(index).sizes = sizes_of(index)._replace(on_host=False)
    return index, queries


@pytest.mark.parametrize("num_tables", [1, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_queries_with_room_are_done_on_the_device(num_tables, masked):
    index, queries = on_accelerator(40)
    plan, allowed = plan_tables(sizes_of(index), 4, num_tables), MASKS[0] if masked else None
    everything = jh.radius_search(index, queries, radius=4, method="scan")
    expected = jh.radius_search(index, queries, radius=4, method="scan", allowed=allowed)
    candidates = np.zeros(len(queries))
    for table, reach in zip(get_tables(index, plan.slices), plan.radii, strict=True):
        buckets = find_buckets(table, queries, reach)
        candidates += np.bincount(buckets.queries, buckets.sizes, minlength=len(queries))
    matches, done = matches_on_device(
        Request(index, allowed, LIMITS, radius=4), Queries(queries), Option("device", 0.0, (plan,), 24)
    )
    same(done, (candidates <= 24) & (np.diff(everything.offsets) <= 24))
    assert done.any()
    assert not done.all()
    rows = np.repeat(done, np.diff(expected.offsets))
    same(np.diff(matches.offsets), np.where(done, np.diff(expected.offsets), 0))
    same((matches.distances, matches.ids), (expected.distances[rows], expected.ids[rows]))
    assert list(cache_of(index).device_tables) == [plan.slices]


@pytest.mark.parametrize(("method", "num_bits"), [("auto", 41), ("multi_index", 42)])  # to be compiled apart
def test_queries_without_room_are_left_to_the_host(method, num_bits, compilations):
    index, queries = on_accelerator(num_bits)
    limits = LIMITS._replace(slot_counts=(8, 32), program=1e15)
    options = order_radius(sizes_of(index), len(queries), 4, method=method, limits=limits)
    names = [(option.method, option.num_slots) for option in options]
    assert names[:3] == [("device", 8), ("device", 32), ("probe", 0)]
    expected = jh.radius_search(collection(num_bits).index, queries, radius=4)
    counts = np.diff(expected.offsets)
    assert (counts <= 8).any()
    assert (counts > 32).any()  # left to the host
    find = partial(find_matches, index, radius=4, method=method, limits=limits)
    with compilations:
        same(find(queries), expected)
    assert compilations.count == 2  # one program for each room, and no scan
    allowed = MASKS[0]
    chosen = jh.radius_search(collection(num_bits).index, queries, radius=4, allowed=allowed)
    same(find(queries, allowed=allowed), chosen)
    assert find(queries[:0]).offsets.tolist() == [0]


def test_items_of_one_code_are_all_found_on_the_device():
    index = jh.build_index(np.zeros((50, 1), np.uint32), 20, ids=np.arange(50)[::-1])
    cache_of(index).sizes = sizes_of(index)._replace(on_host=False)
    for slot_counts in ((64,), (4,)):
        limits = LIMITS._replace(slot_counts=slot_counts)
        found = find_matches(index, np.zeros((1, 1), np.uint32), 1, method="probe", limits=limits)
        assert found.ids.tolist() == [*range(50)]
