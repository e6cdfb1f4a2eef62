"""The k nearest items: every method against the oracle; eager, inside jit and inside vmap."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import prefer
from samples import collection, same

import jaxhash as jh
from jaxhash.codes.distances import Queries
from jaxhash.index.hash_index import sizes_of
from jaxhash.query.hits import Request
from jaxhash.query.nearest import find_nearest
from jaxhash.query.plan import LIMITS, order_nearest
from jaxhash.query.probe.host import probe_widening
from jaxhash.query.scan.host import nearest_in_groups

WIDTHS = [1, 17, 32, 33, 64, 65, 256, 512, *(pytest.param(b, marks=pytest.mark.slow) for b in (31, 63, 128, 1024))]
TRACED_WIDTHS = [17, 64, pytest.param(1024, marks=pytest.mark.slow)]  # each takes seconds to compile
# Each width and k is compiled. So most tests have 64 bits and k = 7.
SIZES = {"n": 150, "q": 9}
MORE_THAN_ALL = 155
METHODS = ["scan", "numpy", "groups", "probe"]
# Methods to try in turn, and limits by which one leaves some queries to the next, or all.
SOME_PROBED, SOME_GROUPED = {"max_probes": 1}, {"groups": 10}
TURNS = [
    (("groups", "scan"), {}),
    (("groups", "scan"), {"groups": 0}),
    (("groups", "scan"), SOME_GROUPED),
    (("groups", "numpy"), SOME_GROUPED),
    (("probe", "numpy"), {}),
    (("probe", "numpy"), SOME_PROBED),
    (("probe", "scan"), SOME_PROBED),
    (("probe", "scan"), SOME_PROBED | {"candidates": 1}),
    (("probe", "scan"), {"candidates": 1, "candidate": 1e9}),
    (("probe", "groups", "numpy"), SOME_PROBED),
    (("probe", "groups", "scan"), SOME_PROBED | SOME_GROUPED),
]


def find(index, queries, k, limits=LIMITS, method="auto"):
    return find_nearest(index, Queries(queries), k=k, method=method, limits=limits)


def order(index, queries, k, limits, method="auto"):
    """The names of the methods that a search tries in turn."""
    options = order_nearest(sizes_of(index), len(queries), k, k, method=method, limits=limits)
    return tuple(option.method for option in options)


def assert_neighbors(found, expected):
    same(tuple(found), tuple(expected))
    assert (found.distances.dtype, found.ids.dtype) == (np.int32, np.int32)


@pytest.mark.parametrize("method", METHODS)
def test_three_codes_by_hand(method):
    index = jh.build_index(jh.pack_bits([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]]), 4, ids=[10, 20, 30])
    distances, ids = find(index, jh.pack_bits([0, 0, 0, 1]), 3, prefer(method))
    assert distances.tolist() == [1, 1, 3]
    assert ids.tolist() == [10, 30, 20]  # of equal distance, the smaller code first


@pytest.mark.parametrize("num_bits", WIDTHS)
def test_search_equals_the_oracle(num_bits):
    index, queries, codes, ids = collection(num_bits, **SIZES)
    expected = oracle.nearest(codes, ids, queries, 7)
    assert_neighbors(jh.search(index, queries, k=7), expected)
    assert_neighbors(jh.search(index, queries, k=7, method="probe"), expected)
    assert_neighbors(find(index, queries, 7, prefer("scan")), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_bits", [17, 65])
def test_every_method_equals_the_oracle(method, num_bits):
    index, queries, codes, ids = collection(num_bits, **SIZES)
    for k in (1, 7):
        assert order(index, queries, k, prefer(method))[0] == method
        assert_neighbors(find(index, queries, k, prefer(method)), oracle.nearest(codes, ids, queries, k))


@pytest.mark.parametrize("num_bits", [17, 64])
@pytest.mark.parametrize(("methods", "limits"), TURNS)
def test_methods_in_turn_equal_the_oracle(methods, limits, num_bits):
    index, queries, codes, ids = collection(num_bits, 2000, 9)
    named = "probe" if methods[0] == "probe" else "auto"  # by its cost, it would come later where it finds few
    chosen = prefer(*methods, **limits)
    assert order(index, queries, 7, chosen, named) == methods
    assert_neighbors(find(index, queries, 7, chosen, named), oracle.nearest(codes, ids, queries, 7))


@pytest.mark.parametrize("num_bits", [17, 64])
def test_methods_leave_some_queries_to_the_next(num_bits):
    index, queries, *_ = collection(num_bits, 2000, 9)
    grouped = prefer("groups", **SOME_GROUPED)
    hits = [nearest_in_groups(index, query[None], 7, 1, grouped) for query in queries]
    assert 0 < hits.count(None) < 9
    for limits, possible in [(SOME_PROBED, range(1, 9)), ({"candidates": 1, "candidate": 1e9}, [0])]:
        chosen = prefer("probe", **limits)
        option = order_nearest(sizes_of(index), 9, 7, 7, method="probe", limits=chosen)[0]
        _, done = probe_widening(Request(index, None, chosen, k=7), Queries(queries), option)
        assert done.sum() in possible


@pytest.mark.parametrize("k", [1, 3, 16, 20])
def test_ties_are_ordered_by_code_then_id(k):
    index, queries, codes, ids = collection(4, 2000, 3)
    expected = oracle.nearest(codes, ids, queries, k)
    for method in METHODS:
        assert_neighbors(find(index, queries, k, prefer(method)), expected)
    for groups in (0, 2):
        assert_neighbors(find(index, queries, k, prefer("groups", groups=groups)), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [100, 150, MORE_THAN_ALL])
def test_k_beyond_codes_or_items_gives_all_there_are(method, k):
    index, queries, codes, ids = collection(9, **SIZES)  # 150 items with fewer than 100 codes
    assert int(index.num_codes) < 100
    assert_neighbors(find(index, queries, k, prefer(method)), oracle.nearest(codes, ids, queries, k))


@settings(max_examples=40)
@given(
    st.integers(0, 150),
    st.sampled_from([3, 17, 64]),
    st.sampled_from([1, 7, MORE_THAN_ALL]),
    st.sampled_from([("auto", LIMITS), ("probe", LIMITS), *(("auto", prefer(method)) for method in METHODS)]),
    st.integers(0, 2**32),
)
def test_any_collection_is_searched_exactly(n, num_bits, k, way, seed):
    index, queries, codes, ids = collection(num_bits, n, 9, seed)
    method, limits = way
    found = find(index, queries, k, limits, method)
    assert_neighbors(found, oracle.nearest(codes, ids, queries, k))


@pytest.mark.parametrize("n", [1, 16, 1024, 1025, 5000])
def test_groups_and_blocks_of_any_number_equal_the_oracle(n):
    index, queries, codes, ids = collection(20, n, 3)
    expected = oracle.nearest(codes, ids, queries, 40)
    for method in ("scan", "numpy", "groups"):
        assert_neighbors(find(index, queries, 40, prefer(method)), expected)


@pytest.mark.parametrize("num_bits", TRACED_WIDTHS)
def test_jit_and_vmap_equal_the_oracle(num_bits):
    index, queries, codes, ids = collection(num_bits, **SIZES)
    expected = oracle.nearest(codes, ids, queries, 7)
    assert_neighbors(jax.jit(partial(jh.search, k=7))(index, queries), expected)
    assert_neighbors(jax.vmap(partial(jh.search, k=7), in_axes=(None, 0))(index, queries), expected)


@pytest.mark.slow  # each operation is compiled by itself
def test_disabled_jit_changes_nothing():
    index, queries, codes, ids = collection(64, 60, 1)
    with jax.disable_jit():
        for method in METHODS:
            assert_neighbors(find(index, queries, 7, prefer(method)), oracle.nearest(codes, ids, queries, 7))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("lead", [(), (1,), (1, 2), (2, 3, 2), (0,), (2, 0, 2)])
def test_queries_keep_their_kind_and_leading_shape(method, kind, lead):
    index, queries, codes, ids = collection(64, 150, 12)
    asked = queries[: int(np.prod(lead))]
    found = find(index, kind(asked.reshape(*lead, 2)), 7, prefer(method))
    assert all(isinstance(array, jax.Array if kind is jnp.asarray else np.ndarray) for array in found)
    expected = oracle.nearest(codes, ids, asked, 7)
    assert_neighbors(found, [array.reshape(*lead, 7) for array in expected])


@pytest.mark.parametrize("lead", [(), (2, 3, 2), (2, 0, 2)])
def test_traced_queries_keep_their_leading_shape(lead):
    index, queries, codes, ids = collection(64, 150, 12)
    asked = queries[: int(np.prod(lead))]
    found = jax.jit(partial(jh.search, k=7))(index, asked.reshape(*lead, 2))
    assert_neighbors(found, [array.reshape(*lead, 7) for array in oracle.nearest(codes, ids, asked, 7)])


def test_results_of_jax_queries_are_on_their_device():
    index, queries, *_ = collection(64, **SIZES)
    asked = jnp.asarray(queries)
    for method in METHODS:
        for array in find(index, asked, 7, prefer(method)):
            assert array.devices() == asked.devices()


def test_numpy_queries_make_no_program_and_no_jax_array(compilations):
    index, queries, *_ = collection(64, **SIZES)
    with jax.transfer_guard("disallow"), compilations:
        jh.search(index, queries[0], k=7)
        before = len(jax.live_arrays())
        jh.search(index, queries[1], k=7)
        jh.search(index, queries[:5], k=7)
    assert (compilations.count, len(jax.live_arrays())) == (0, before)
    with jax.transfer_guard("disallow"), pytest.raises(jax.errors.JaxRuntimeError, match="host-to-device"):
        find(index, queries[:5], 7, prefer("scan"))


@pytest.mark.parametrize("num_bits", [20, 64])
def test_jax_queries_stay_on_their_device(num_bits, rng):
    codes = oracle.pack(rng.random((300, num_bits)) < 0.5)
    index, queries = jh.build_index(codes, num_bits), jnp.asarray(codes[:64])
    with jax.transfer_guard("disallow"):
        found = [find(index, queries, 7, prefer("scan")), jh.search(index, queries, k=7, method="scan")]
    for one in found:
        same(one, jh.search(index, codes[:64], k=7))


def test_one_shape_is_compiled_once(compilations):
    index, queries, *_ = collection(64, **SIZES)
    for _ in range(2):
        with compilations:
            find(index, queries, 7, prefer("scan"))
            find(index, jnp.asarray(queries), 7, prefer("scan"))
            find(index, queries, 7, prefer("groups"))
    assert compilations.count == 0


@pytest.mark.parametrize("method", METHODS)
def test_batches_of_any_size_agree(method):
    index, queries, *_ = collection(64, 150, 2 * LIMITS.max_queries + 37)
    expected = find(index, queries, 7, prefer("scan"))
    for size in (1, 7, 64, 300, len(queries)):
        found = find(index, queries[:size], 7, prefer(method, compared=1000, max_queries=64))
        same(found, jax.tree.map(lambda array, size=size: array[:size], expected))


def test_batches_in_a_program_and_in_two_threads_agree():
    index, queries, *_ = collection(64, 150, 2 * LIMITS.max_queries + 37)
    expected = find(index, queries, 7, prefer("scan"))
    same(jax.jit(partial(jh.search, k=7))(index, queries), expected)
    same(find(index, queries, 7, prefer("scan", two_threads=0)), expected)


def test_more_queries_than_a_sort_key_holds_are_answered():
    index = jh.build_index(jh.pack_bits([[0] * 8, [1] * 8]), 8, ids=[5, 3])
    queries = jh.pack_bits(np.repeat([[0] * 8, [1] * 8], [2**16, 2], axis=0))
    distances, ids = find(index, queries, 1, prefer("numpy"))
    assert not distances.any()
    assert np.array_equal(ids[:, 0], np.repeat([5, 3], [2**16, 2]))


def test_threads_that_search_a_fresh_index_agree():
    index, queries, codes, ids = collection(64, q=16)
    allowed = np.random.default_rng(0).random((16, 1200)) < 0.5
    ways = [prefer(method) for method in METHODS]

    def search(number):
        rows = Queries(queries[number : number + 1])
        plain = [find_nearest(index, rows, k=7, limits=limits) for limits in ways]
        return plain, find_nearest(index, rows, allowed[number], k=7, limits=ways[0])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(search, range(16)))
    for number, (plain, filtered) in enumerate(found):
        keep, query = allowed[number][ids], queries[number : number + 1]
        for one in plain:
            assert_neighbors(one, oracle.nearest(codes, ids, query, 7))
        assert_neighbors(filtered, oracle.nearest(codes[keep], ids[keep], query, 7))


@pytest.mark.parametrize("method", METHODS)
def test_a_code_of_many_items_gives_the_smallest_ids(method):
    index = jh.build_index(np.repeat(np.array([[8], [9], [15]], np.uint32), [50, 1, 3], axis=0), 32)
    assert find(index, np.uint32([[9], [8]]), 3, prefer(method)).ids.tolist() == [[50, 0, 1], [0, 1, 2]]


@pytest.mark.parametrize("method", METHODS)
def test_items_with_several_codes_are_found_for_each(method):
    index = jh.build_index(np.array([[[0], [1 << 31]], [[1 << 30], [3 << 30]]], np.uint32), 2, multi=True)
    distances, ids = find(index, np.zeros(1, np.uint32), 4, prefer(method))
    assert distances.tolist() == [0, 1, 1, 2]
    assert ids.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("num_bits", [1, pytest.param(1024, marks=pytest.mark.slow)])
def test_an_empty_index_finds_nothing(num_bits):
    queries = np.zeros((3, -(-num_bits // 32)), np.uint32)
    index = jh.build_index(queries[:0], num_bits)
    for method in METHODS:
        found = find(index, queries, 2, prefer(method))
        assert found.ids.tolist() == [[jh.query.Neighbors.NO_ID] * 2] * 3
        assert found.distances.tolist() == [[jh.query.Neighbors.NO_DISTANCE] * 2] * 3


def test_a_larger_k_only_adds_results():
    index, queries, *_ = collection(64, **SIZES)
    more, fewer = jh.search(index, queries, k=MORE_THAN_ALL), jh.search(index, queries, k=7)
    np.testing.assert_array_equal(more.ids[:, :7], fewer.ids)


def test_moving_and_flipping_bits_keeps_distances(rng):
    index, queries, codes, ids = collection(45, **SIZES)
    order, flip = rng.permutation(45), rng.random(45) < 0.5
    moved, asked = (oracle.pack(np.asarray(jh.unpack_bits(c, 45))[:, order] ^ flip) for c in (codes, queries))
    found = jh.search(jh.build_index(moved, 45, ids=ids), asked, k=7)
    np.testing.assert_array_equal(found.distances, jh.search(index, queries, k=7).distances)


def test_distances_are_those_of_faiss():
    faiss = pytest.importorskip("faiss")
    index, queries, codes, _ = collection(64, 2000, 9)
    flat = faiss.IndexBinaryFlat(64)
    packed, asked = (np.asarray(jh.codes_to_bytes(array, 64)) for array in (codes, queries))
    flat.add(packed)
    found = jh.search(index, queries, k=50)
    np.testing.assert_array_equal(found.distances, flat.search(asked, 50)[0])


def test_constants_of_a_jit_are_searched_like_its_arguments():
    index, queries, codes, ids = collection(64, 150, 12)
    expected = oracle.nearest(codes, ids, queries, 7)
    assert_neighbors(jax.jit(lambda q: jh.search(index, q, k=7))(queries), expected)
    assert_neighbors(jax.jit(lambda i: jh.search(i, queries, k=7))(index), expected)
    assert_neighbors(jax.jit(lambda: jh.search(index, queries, k=7))(), expected)
    cubes = [array.reshape(3, 4, 7) for array in expected]
    asked = jnp.asarray(queries.reshape(3, 4, 2))
    for method in METHODS:
        assert_neighbors(jax.jit(lambda method=method: find(index, asked, 7, prefer(method)))(), cubes)


@pytest.mark.parametrize("method", METHODS)
def test_queries_may_have_any_memory_layout(method):
    index, queries, codes, ids = collection(65, **SIZES)
    expected = oracle.nearest(codes, ids, queries, 7)
    for layout in (np.asfortranarray(queries), np.repeat(queries, 2, axis=1)[:, ::2]):
        assert_neighbors(find(index, layout, 7, prefer(method)), expected)
    assert_neighbors(jh.search(index, queries.astype(">u4"), k=7), expected)


def test_traced_padding_bits_never_count():
    index = jh.build_index(oracle.pack([[0] * 17]), 17)
    dirty = jnp.array([0x00000001], jnp.uint32)
    assert jax.jit(partial(jh.search, k=1))(index, dirty).distances.tolist() == [0]


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        *((k, TypeError, "k must be an integer") for k in (True, 2.5, None, "3")),
        *((k, ValueError, "k must lie between 1") for k in (0, -1, 2**40)),
    ],
)
def test_a_wrong_k_is_refused(k, error, message):
    index, queries, *_ = collection(17)
    with pytest.raises(error, match=message):
        jh.search(index, queries, k=k)


def test_results_of_more_than_2_to_31_slots_are_refused():
    endless = np.broadcast_to(np.uint32(0), (2**20, 1))
    with pytest.raises(ValueError, match="ask for fewer"):
        jh.search(collection(17).index, endless, k=2**12)


@pytest.mark.parametrize(
    ("queries", "error", "message"),
    [
        (np.zeros((2, 3), np.uint32), ValueError, "queries must have 1 words"),
        (np.uint32(0), ValueError, "got a scalar"),
        (np.zeros((2, 1), np.int32), TypeError, "dtype uint32, got int32"),
        (np.zeros((2, 17), bool), TypeError, "dtype uint32, got bool"),
        (np.full((2, 1), 1, np.uint32), ValueError, "padding bits must be zero"),
    ],
)
def test_queries_that_do_not_fit_are_refused(queries, error, message):
    for kind in (np.asarray, jnp.asarray):
        with pytest.raises(error, match=message):
            jh.search(collection(17).index, kind(queries), k=1)


def test_another_type_than_an_index_is_refused():
    with pytest.raises(TypeError, match="index must be a HashIndex"):
        jh.search(np.zeros((3, 1), np.uint32), np.zeros((1, 1), np.uint32), k=1)


@pytest.mark.parametrize("method", ["flat", "numpy", "multi_index", None, 1])
def test_a_method_that_search_does_not_have_is_refused(method):
    index, queries, *_ = collection(17)
    with pytest.raises(ValueError, match="method must be one of auto, scan, probe"):
        jh.search(index, queries, k=1, method=method)


def test_probing_with_weights_or_shards_is_refused():
    index, queries, *_ = collection(17)
    shards = jh.shard_index(index, jax.make_mesh((1,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,)))
    for call in (partial(jh.search, shards), partial(jh.search, index, weights=np.ones(17, int))):
        with pytest.raises(ValueError, match="the method probe is for a HashIndex and unweighted distances"):
            call(queries=queries, k=1, method="probe")
