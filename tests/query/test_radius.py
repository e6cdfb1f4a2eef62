"""All items within a radius: every method against the oracle, and a fixed number of slots in programs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import collection, identical, same

import jaxhash as jh
from jaxhash.index.hash_index import sizes_of
from jaxhash.query.filters import gather_allowed
from jaxhash.query.plan import LIMITS, order_radius
from jaxhash.query.radius import find_matches
from jaxhash.query.results import RadiusMatches

WIDTHS = [1, 17, 33, 64, 256, *(pytest.param(b, marks=pytest.mark.slow) for b in (3, 32, 65, 1024))]
MESH = jax.make_mesh((1,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
# Limits by which all other methods are dear. A scan so dear builds tables at once.
WAYS = {
    "numpy": {"program": 1e15, "probe_table": 1e15, "few_candidates": 0},
    "scan": {"numpy": 1e15, "probe_table": 1e15, "few_candidates": 0},
    "probe": {"numpy": 1e15, "program": 1e15, "few_candidates": 0},
    "probe_one": {"numpy": 1e15, "program": 1e15, "few_candidates": 10**6, "candidate_one": 0},
}
METHODS = ["auto", "scan", "probe", "multi_index"]
SHARES = {"all": None, "half": 0.5, "few": 0.02, "none": 0.0}


def find(index, queries, radius, way="numpy", allowed=None, **changes):
    """What a method finds that all others are too dear for."""
    limits = LIMITS._replace(**WAYS[way] | changes)
    options = order_radius(sizes_of(index), len(queries), radius, limits=limits)
    assert options[0].method == way
    return find_matches(index, queries, radius, allowed, limits=limits)


def ragged(expected):
    """What the oracle gives for each query, as a search returns it."""
    offsets = np.cumsum([0, *(len(ids) for _, ids in expected)])
    none = [(np.zeros(0, np.int32), np.zeros(0, np.int32))]
    return RadiusMatches(offsets, *map(np.concatenate, zip(*none, *expected, strict=True)))


def padded(expected, max_results):
    """The same in slots."""
    shape = len(expected), max_results
    distances, ids = np.full(shape, oracle.NO_DISTANCE, np.int32), np.full(shape, oracle.NO_ID, np.int32)
    for row, (near, found) in enumerate(expected):
        count = min(max_results, len(found))
        distances[row, :count], ids[row, :count] = near[:count], found[:count]
    counts = np.array([len(found) for _, found in expected], np.int32)
    return jh.query.PaddedMatches(distances, ids, counts, np.ones(len(expected), bool))


def assert_matches(found, expected):
    same(found, expected)
    assert [type(array) for array in found] == [np.ndarray] * 3
    assert [array.dtype for array in found] == [np.int64, np.int32, np.int32]


def test_three_codes_by_hand():
    index = jh.build_index(jh.pack_bits([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]]), 4, ids=[10, 20, 30])
    query = jh.pack_bits([0, 0, 0, 1])
    for way in WAYS:
        found = find(index, query[None], 1, way)
        assert (found.offsets.tolist(), found.distances.tolist()) == ([0, 2], [1, 1])
        assert found.ids.tolist() == [10, 30]  # of equal distance, the smaller code first
    slots = jh.radius_search_padded(index, query, radius=1, max_results=1)
    assert (slots.ids.tolist(), int(slots.counts), bool(slots.complete)) == ([10], 2, True)


@pytest.fixture(scope="module")
def many():
    """An index, 300 queries, and masks with the matches within 4 among what each allows."""
    index, queries, codes, ids = collection(40, 300, 300)
    everything, masks = oracle.within(codes, ids, queries, 4), {}
    for name, share in SHARES.items():
        allowed = np.ones(900, bool) if share is None else np.random.default_rng(0).random(900) < share
        masks[name] = None if share is None else allowed, [(d[allowed[i]], i[allowed[i]]) for d, i in everything]
    return index, queries, masks


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("way", WAYS)
def test_every_method_equals_the_oracle(many, way, share):
    index, queries, masks = many
    allowed, expected = masks[share]
    for row in (0, 299):
        assert_matches(find(index, queries[row : row + 1], 4, way, allowed), ragged(expected[row : row + 1]))
    if way != "probe_one":
        assert_matches(find(index, queries, 4, way, allowed), ragged(expected))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("method", METHODS)
def test_results_are_of_numpy_for_all_queries(many, method, share):
    index, queries, masks = many
    allowed, expected = masks[share]
    for kind in (np.asarray, jnp.asarray):
        mask = None if allowed is None else kind(allowed)
        search = partial(jh.radius_search, index, radius=4, method=method, allowed=mask)
        assert_matches(search(kind(queries)), ragged(expected))
        assert_matches(search(kind(queries[0])), ragged(expected[:1]))


@pytest.mark.parametrize("num_bits", WIDTHS)
@pytest.mark.parametrize("n", [0, 1, 150])
def test_codes_of_any_width_are_found(num_bits, n):
    index, queries, codes, ids = collection(num_bits, n, 9)
    for radius in sorted({0, 1, 3, num_bits - 1, num_bits}):
        expected = ragged(oracle.within(codes, ids, queries, radius))
        for method in METHODS:
            assert_matches(jh.radius_search(index, queries, radius=radius, method=method), expected)
        assert_matches(find(index, queries, radius, "scan"), expected)
        for num_tables in {1, min(num_bits, 5), min(num_bits, 50)}:
            options = {"method": "multi_index", "num_tables": num_tables}
            assert_matches(jh.radius_search(index, queries, radius=radius, **options), expected)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 2**32), st.data())
def test_any_number_of_tables_finds_every_match(num_bits, n, seed, data):
    index, queries, codes, ids = collection(num_bits, n, 6, seed)
    radius, num_tables = data.draw(st.integers(0, num_bits)), data.draw(st.integers(1, num_bits))
    found = jh.radius_search(index, queries, radius=radius, method="multi_index", num_tables=num_tables)
    same(found, ragged(oracle.within(codes, ids, queries, radius)))


@settings(max_examples=40)
@given(st.integers(0, 150), st.sampled_from([3, 17, 64]), st.sampled_from(["numpy", "scan"]), st.data())
def test_any_collection_is_searched_exactly(n, num_bits, way, data):
    index, queries, codes, ids = collection(num_bits, n, 6, data.draw(st.integers(0, 2**32)))
    radius = data.draw(st.integers(0, num_bits))
    same(find(index, queries, radius, way), ragged(oracle.within(codes, ids, queries, radius)))


@pytest.mark.parametrize("n", [1, 16, 1024, 1025, 5000])
def test_groups_and_blocks_of_any_number_are_found(n):
    index, queries, codes, ids = collection(20, n, 3)
    expected = oracle.within(codes, ids, queries, 5)
    for way in ("numpy", "scan", "probe"):
        same(find(index, queries, 5, way), ragged(expected))
    identical(jh.radius_search_padded(index, queries, radius=5, max_results=30), padded(expected, 30))


@pytest.mark.parametrize("way", ["numpy", "scan", "probe"])
def test_batches_of_any_size_agree(many, way):
    index, queries, masks = many
    small = {"max_queries": 64, "compared": 3000, "candidates": 500, "probes": 300}
    for count in (1, 7, 64, 300):
        same(find(index, queries[:count], 4, way, **small), ragged(masks["all"][1][:count]))


@pytest.mark.parametrize("way", WAYS)
def test_items_of_one_code_are_all_found(way):
    codes = np.full((10_000, 1), 0xABCD0000, np.uint32)
    index = jh.build_index(codes, 17, ids=np.arange(10_000)[::-1])
    found = find(index, codes[:1], 0, way)
    assert found.ids.tolist() == list(range(10_000))
    allowed = np.arange(10_000) % 1000 == 0
    assert find(index, codes[:1], 0, way, allowed).ids.tolist() == list(range(0, 10_000, 1000))


def test_items_with_several_codes_are_found_for_each():
    index = jh.build_index(np.array([[[0], [1 << 31]], [[1 << 30], [3 << 30]]], np.uint32), 2, multi=True)
    for way in WAYS:
        found = find(index, np.zeros((1, 1), np.uint32), 1, way)
        assert (found.distances.tolist(), found.ids.tolist()) == ([0, 1, 1], [0, 1, 0])


@pytest.mark.parametrize("method", METHODS)
def test_queries_are_taken_in_row_major_order(many, method):
    index, queries, masks = many
    search = partial(jh.radius_search, index, radius=4, method=method)
    same(search(queries[:12].reshape(2, 3, 2, 2)), ragged(masks["all"][1][:12]))
    same(search(queries[3]), ragged(masks["all"][1][3:4]))
    for none in (queries[:0], queries[:0].reshape(2, 0, 2)):
        assert_matches(search(none), ragged([]))


def test_a_shard_is_searched_as_the_whole(many):
    index, queries, masks = many
    sharded = jh.shard_index(index, MESH)
    for method in METHODS:
        for allowed, expected in (masks["all"], masks["half"]):
            found = jh.radius_search(sharded, queries, radius=4, method=method, allowed=allowed)
            assert_matches(found, ragged(expected))


# Few allowed items.


@pytest.mark.parametrize(("num_bits", "multi"), [(70, False), (100, True)])  # widths that no other test compiles
def test_codes_of_few_allowed_items_are_gathered(num_bits, multi, compilations):
    _, queries, codes, ids = collection(num_bits, 5000, 6)
    ids = ids // 4 if multi else ids
    index = jh.build_index(codes, num_bits, ids=ids, multi=multi)
    limits = {"min_gathered_items": 1, "gathered_ratio": 10}
    pairs = np.unique(np.column_stack([codes, ids]), axis=0)  # an item has a code once
    codes, ids = pairs[:, :-1].astype(np.uint32), pairs[:, -1]

    def check(share):
        allowed = np.random.default_rng(0).random(15_000) < share
        assert (gather_allowed(index, allowed, LIMITS._replace(**limits)) is not None) == (share < 0.3)
        expected = oracle.within(codes[allowed[ids]], ids[allowed[ids]], queries, 3)
        assert_matches(find(index, queries, 3, "scan", allowed, **limits), ragged(expected))

    check(0.3)
    with compilations:
        check(0.01)
    assert compilations.count == 1
    with compilations:
        check(0.0)
        check(0.02)
    assert compilations.count == 0  # one program serves all masks of few items


# What is compiled, and where arrays are.


def test_numpy_compiles_nothing_and_makes_no_jax_array(compilations):
    index, queries, *_ = collection(64, 150)
    allowed = np.arange(450) % 2 == 0
    jh.radius_search(index, queries[0], radius=2, allowed=allowed)
    before = len(jax.live_arrays())
    with jax.transfer_guard("disallow"), compilations:
        for asked in (queries[1], queries[:5]):
            for mask in (None, allowed):
                find(index, np.atleast_2d(asked), 2, "numpy", mask)
                jh.radius_search(index, asked, radius=2, allowed=mask)
    assert (compilations.count, len(jax.live_arrays())) == (0, before)


def test_probing_compiles_nothing(compilations):
    index, queries, *_ = collection(64, 150)
    with jax.transfer_guard("disallow"), compilations:
        for method in ("probe", "multi_index"):
            jh.radius_search(index, queries, radius=2, method=method)
            jh.radius_search(index, queries[0], radius=2, method=method)
    assert compilations.count == 0


def test_one_program_scans_for_all_radii(compilations):
    index, queries, *_ = collection(64, 150, 9)
    find(index, queries, 1, "scan")
    with compilations:
        for radius in (0, 2, 64):
            find(index, queries, radius, "scan")
    assert compilations.count == 0


@pytest.mark.slow  # each operation is compiled by itself
def test_disabled_jit_changes_nothing():
    index, queries, codes, ids = collection(64, 60, 2)
    expected = oracle.within(codes, ids, queries, 3)
    with jax.disable_jit():
        for way in ("numpy", "scan", "probe"):
            same(find(index, queries, 3, way), ragged(expected))
        same(jh.radius_search_padded(index, queries, radius=3, max_results=4), padded(expected, 4))


# Properties.


def test_a_larger_radius_only_adds_results(many):
    index, queries, masks = many
    narrow, wide = masks["all"][1], find(index, queries, 9, "scan")
    for row, (_, few) in enumerate(narrow):
        same(wide.ids[wide.offsets[row] : wide.offsets[row + 1]][: len(few)], few)


def test_every_radius_past_the_bits_means_all():
    index, queries, *_ = collection(17, 150, 9)
    everything = jh.radius_search(index, queries, radius=17)
    assert everything.offsets[-1] == 150 * 9
    for radius in (18, 10**9, 2**62):
        same(jh.radius_search(index, queries, radius=radius), everything)


def test_moving_and_flipping_bits_reorders_only_ties(rng):
    index, queries, codes, ids = collection(45, 150, 9)
    order, flip = rng.permutation(45), rng.random(45) < 0.5
    moved, asked = (oracle.pack(np.asarray(jh.unpack_bits(c, 45))[:, order] ^ flip) for c in (codes, queries))
    plain = jh.radius_search(index, queries, radius=9)
    other = jh.radius_search(jh.build_index(moved, 45, ids=ids), asked, radius=9)
    same((plain.offsets, plain.distances), (other.offsets, other.distances))
    for start, end in zip(plain.offsets[:-1], plain.offsets[1:], strict=True):
        pairs = [set(zip(found.distances[start:end], found.ids[start:end], strict=True)) for found in (plain, other)]
        assert pairs[0] == pairs[1]


def test_matches_are_those_of_faiss():
    faiss = pytest.importorskip("faiss")
    _, queries, codes, _ = collection(64, 2000, 9)
    index, flat = jh.build_index(codes, 64), faiss.IndexBinaryFlat(64)
    packed, asked = (np.asarray(jh.codes_to_bytes(array, 64)) for array in (codes, queries))
    flat.add(packed)
    limits, distances, ids = flat.range_search(asked, 10)  # its radius is exclusive
    ours = jh.radius_search(index, queries, radius=9)
    same(ours.offsets, limits.astype(np.int64))
    for start, end in zip(ours.offsets[:-1], ours.offsets[1:], strict=True):
        mine = set(zip(ours.distances[start:end].tolist(), ours.ids[start:end].tolist(), strict=True))
        assert mine == set(zip(distances[start:end].astype(int).tolist(), ids[start:end].tolist(), strict=True))


# A fixed number of slots.


def test_empty_full_and_overflowing_rows_do_not_see_each_other():
    codes = np.repeat(oracle.pack([[0] * 20, [1] * 20]), [6, 2], axis=0)
    index, queries = jh.build_index(codes, 20), oracle.pack([[0] * 20, [1] * 20, [0, 1] * 10])
    found = jh.radius_search_padded(index, queries, radius=1, max_results=4)
    assert found.counts.tolist() == [6, 2, 0]
    assert found.ids.tolist() == [[0, 1, 2, 3], [6, 7, -1, -1], [-1, -1, -1, -1]]
    assert found.complete.tolist() == [True, True, True]


@pytest.mark.parametrize("num_bits", [17, 64, pytest.param(1024, marks=pytest.mark.slow)])
def test_slots_hold_the_first_matches(num_bits):
    index, queries, codes, ids = collection(num_bits, 150, 9)
    expected = padded(oracle.within(codes, ids, queries, 3), 4)
    search = partial(jh.radius_search_padded, radius=3, max_results=4)
    identical(search(index, queries), expected)
    same(jax.jit(search)(index, queries), expected)
    same(jax.vmap(search, in_axes=(None, 0))(index, queries), expected)


@pytest.mark.parametrize("share", SHARES)
def test_slots_hold_the_first_allowed_matches(many, share):
    index, queries, masks = many
    allowed, expected = masks[share]
    search = partial(jh.radius_search_padded, index, radius=4, max_results=7)
    identical(search(queries, allowed=allowed), padded(expected, 7))
    same(jax.jit(search)(queries[:40], allowed=allowed), padded(expected[:40], 7))


@pytest.mark.parametrize("n", [0, 1])
def test_slots_of_the_smallest_indexes_equal_the_oracle(n):
    index, queries, codes, ids = collection(17, n, 9)
    found = jh.radius_search_padded(index, queries, radius=17, max_results=4)
    identical(found, padded(oracle.within(codes, ids, queries, 17), 4))


def test_slots_keep_the_kind_and_leading_shape_of_queries(many):
    index, queries, masks = many
    search, expected = partial(jh.radius_search_padded, index, radius=4, max_results=7), masks["all"][1]
    for kind in (np.ndarray, jax.Array):
        asked = queries[:16] if kind is np.ndarray else jnp.asarray(queries[:16])
        found = search(asked.reshape(2, 2, 4, 2))
        assert all(isinstance(array, kind) for array in found)
        same(found, jax.tree.map(lambda array: array.reshape(2, 2, 4, *array.shape[1:]), padded(expected[:16], 7)))
        same(search(asked[3]), jax.tree.map(lambda array: array[3], padded(expected[:16], 7)))
        assert search(asked[:0]).counts.shape == (0,)
    with jax.transfer_guard("disallow"):
        found = search(asked)
    same(found, padded(expected[:16], 7))


def test_slots_of_a_shard_are_those_of_the_whole(many):
    index, queries, masks = many
    allowed, expected = masks["half"]
    sharded = jh.shard_index(index, MESH)
    found = jh.radius_search_padded(sharded, queries, radius=4, max_results=7, allowed=allowed)
    same(found, padded(expected, 7))


# Wrong arguments.


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        *(({"method": method}, ValueError, "auto, scan, probe, multi_index") for method in ("flat", "multi-index", 1)),
        ({"num_tables": 2}, ValueError, "num_tables is for the method multi_index, got method 'auto'"),
        *(({"method": "multi_index", "num_tables": m}, ValueError, "num_tables must") for m in (0, 18)),
        *(({"method": "multi_index", "num_tables": m}, TypeError, "num_tables must") for m in (2.0, True)),
    ],
)
def test_a_wrong_method_or_number_of_tables_is_named(options, error, message):
    index, queries, *_ = collection(17)
    with pytest.raises(error, match=message):
        jh.radius_search(index, queries, radius=1, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        *(({"radius": radius}, ValueError, "radius must") for radius in (-1, -(2**40))),
        *(({"radius": radius}, TypeError, "radius must") for radius in (2.7, float("nan"), True, None)),
        ({"index": np.zeros((3, 1), np.uint32)}, TypeError, "index must be a HashIndex"),
        ({"queries": np.zeros((2, 3), np.uint32)}, ValueError, "queries must have 1 words"),
        ({"queries": np.uint32(0)}, ValueError, "got a scalar"),
        ({"queries": np.zeros((2, 1), np.int32)}, TypeError, "dtype uint32, got int32"),
        ({"queries": np.full((2, 1), 1, np.uint32)}, ValueError, "padding bits must be zero"),
        ({"allowed": np.ones(3, bool)}, ValueError, "allowed has 3 entries"),
        ({"allowed": np.ones(1200, int)}, TypeError, "mask of dtype bool"),
    ],
)
def test_a_wrong_argument_is_named(options, error, message):
    index, queries, *_ = collection(17)
    arguments = {"index": index, "queries": queries, "radius": 1} | options
    for search in (jh.radius_search, partial(jh.radius_search_padded, max_results=3)):
        with pytest.raises(error, match=message):
            search(**arguments)


def test_wrong_numbers_of_slots_are_refused():
    index, queries, *_ = collection(17)
    for count, error in [(0, ValueError), (2.0, TypeError), (True, TypeError), (2**31, ValueError)]:
        with pytest.raises(error, match="max_results must"):
            jh.radius_search_padded(index, queries, radius=1, max_results=count)
    with pytest.raises(ValueError, match="ask for fewer"):
        jh.radius_search_padded(index, queries, radius=1, max_results=2**30)


def test_the_error_inside_jit_names_the_padded_search():
    index, queries, *_ = collection(17)
    with pytest.raises(TypeError, match="inside jit use radius_search_padded"):
        jax.jit(partial(jh.radius_search, radius=1))(index, queries)
    with pytest.raises(TypeError, match="inside jit use radius_search_padded"):
        jax.jit(lambda mask: jh.radius_search(index, queries, radius=1, allowed=mask))(np.ones(1200, bool))
