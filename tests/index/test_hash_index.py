import math

import jax
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxhash as jh
from jaxhash.index.hash_index import padded_size, sorted_arrays, tile_shape


def arrays_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)


def test_small_index_by_hand():
    codes = jh.pack_bits([[1, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]])
    index = jh.build_index(codes, num_bits=3)
    table, offsets, ids = sorted_arrays(index)
    assert jh.codes_to_integers(table, 3).tolist() == [0b000, 0b001, 0b110]
    assert offsets.tolist() == [0, 1, 2, 4]
    assert ids.tolist() == [3, 1, 0, 2]
    assert jh.describe(index) == (4, 3, 1, 1.0, 4 / 3, 2)


def test_ranks_stand_where_the_docstring_says():
    codes = oracle.pack(np.random.default_rng(0).random((5000, 64)) < 0.5)
    index = jh.build_index(codes, 64)
    _, _, group, lanes = index.codes.shape
    table = sorted_arrays(index)[0]
    for rank in (0, 1, 15, 16, 1023, 1024, 4999):
        tile = group * lanes
        place = (rank // tile, rank % group, rank % tile // group)
        np.testing.assert_array_equal(index.codes[(slice(None), *place)], table[rank])


@given(st.integers(0, 200), st.sampled_from([1, 17, 33, 65, 200]), st.integers(0, 2**32))
def test_an_index_depends_only_on_its_pairs_of_code_and_id(n, num_bits, seed):
    rng = np.random.default_rng(seed)
    codes, ids = oracle.pack(oracle.clustered(rng, n, num_bits)), rng.permutation(10 * n + 1)[:n]
    order = rng.permutation(n)
    arrays_equal(jh.build_index(codes, num_bits, ids=ids), jh.build_index(codes[order], num_bits, ids=ids[order]))


@pytest.mark.parametrize("repeats", [1, 7])
def test_offsets_count_all_items(repeats, rng):
    codes = np.repeat(np.unique(oracle.pack(rng.random((300, 40)) < 0.5), axis=0), repeats, axis=0)
    stats = jh.describe(jh.build_index(codes, 40))
    assert stats.num_items == len(codes)
    assert stats.min_density == stats.max_density == repeats


def test_empty_index():
    index = jh.build_index(np.zeros((0, 2), np.uint32), 64)
    assert jh.describe(index) == (0, 0, 0, 0.0, 0.0, 0)
    assert [len(array) for array in sorted_arrays(index)] == [0, 1, 0]


def test_arrays_of_every_origin_give_the_same_index(rng, tmp_path):
    codes = oracle.pack(rng.random((100, 64)) < 0.5)
    expected = jh.build_index(codes, 64)
    mapped = np.memmap(tmp_path / "codes", np.uint32, "w+", shape=codes.shape)
    mapped[:] = codes
    foreign = [
        np.asfortranarray(codes),
        np.repeat(codes, 2, 0)[::2],
        codes[::-1].copy()[::-1],
        codes.astype(">u4"),
        jax.device_put(codes),
        mapped,
    ]
    for same in foreign:
        arrays_equal(jh.build_index(same, 64), expected)


@pytest.mark.parametrize("num_bits", [0, -8, 2**16])
def test_numbers_of_bits_out_of_range_are_refused(num_bits):
    with pytest.raises(ValueError, match="num_bits must lie between 1"):
        jh.build_index(np.zeros((3, 1), np.uint32), num_bits)


@pytest.mark.parametrize("num_bits", [3.5, "64", True, None])
def test_numbers_of_bits_of_other_types_are_refused(num_bits):
    with pytest.raises(TypeError, match="num_bits must be an integer"):
        jh.build_index(np.zeros((3, 1), np.uint32), num_bits)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, object, str, np.uint64])
def test_codes_of_other_dtypes_are_refused_without_a_cast(dtype):
    with pytest.raises(TypeError, match="codes must be packed codes of dtype uint32, got"):
        jh.build_index(np.zeros((3, 1)).astype(dtype), 17)


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (), (3, 2), (3, 0)])
def test_codes_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="codes must have"):
        jh.build_index(np.zeros(shape, np.uint32), 17)


def test_set_padding_bits_are_refused():
    codes = np.zeros((3, 1), np.uint32)
    codes[2] = 1 << (31 - 20)
    with pytest.raises(ValueError, match="padding bits must be zero"):
        jh.build_index(codes, 17)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([0, 5, 5], ValueError, "5 came more than once"),
        ([0, 1, -1], ValueError, "got -1"),
        ([0, 1, 2**31], ValueError, r"my_ids\[ids\]"),
        ([0, 1], ValueError, r"ids must have shape \(3,\)"),
        ([[0], [1], [2]], ValueError, r"ids must have shape \(3,\)"),
        ([0.0, 1.0, 2.0], TypeError, "ids must be integers"),
        ([True, False, True], TypeError, "ids must be integers"),
    ],
)
def test_wrong_ids_are_refused(ids, error, message):
    with pytest.raises(error, match=message):
        jh.build_index(np.zeros((3, 1), np.uint32), 17, ids=np.array(ids))


def test_collections_past_int32_are_refused_before_any_work():
    endless = np.broadcast_to(np.uint32(0), (2**31, 1))  # takes no memory
    with pytest.raises(ValueError, match="sharding"):
        jh.build_index(endless, 32)
    with pytest.raises(ValueError, match="sharding"):
        jh.build_index(np.broadcast_to(np.uint32(0), (2**26, 32)), 1024)


def test_sizes_are_few_and_waste_is_small():
    sizes = {padded_size(n) for n in range(1, 1_000_000, 997)}
    assert len(sizes) < 45
    for n in (1, 1023, 1024, 1025, 5000, 99_999, 10**9):
        assert n <= padded_size(n) <= max(1024, n * 5 // 4 + 1024)


def test_a_group_never_has_more_than_128_popcounts():
    for width in range(1, 129):
        group, lanes = tile_shape(width)
        assert 1 <= group * width <= 128
        assert (group * lanes) % 16 == 0


def test_an_index_is_a_pytree_with_static_bits():
    index = jh.build_index(jh.pack_bits([[1, 0], [0, 1]]), 2)
    leaves, structure = jax.tree.flatten(index)
    assert len(leaves) == 5
    arrays_equal(jax.tree.unflatten(structure, leaves), index)
    assert jax.jit(lambda index: index)(index).num_bits == 2
    assert repr(index) == "HashIndex(num_items=2, num_codes=2, num_bits=2)"


@pytest.mark.parametrize(("num_items", "bits"), [(60_000, 17), (1, 1), (5_000, 14), (1_000_000, 21), (10**12, 41)])
def test_suggested_number_of_bits(num_items, bits):
    assert jh.suggest_num_bits(num_items) == bits


def test_suggestions_need_sensible_numbers():
    assert jh.suggest_num_bits(1000, items_per_code=1000.0) == 1
    for items_per_code in (0, -1.0, math.nan, math.inf, "1"):
        with pytest.raises(ValueError, match="items_per_code"):
            jh.suggest_num_bits(1000, items_per_code)
    with pytest.raises(ValueError, match="num_items"):
        jh.suggest_num_bits(0)


def test_expected_matches_by_hand():
    assert jh.expected_matches(60_000, 17, 3) == pytest.approx(60_000 / 2**17 * (1 + 17 + 136 + 680))
    assert jh.expected_matches(1000, 10, 0) == 1000 / 1024
    for radius in (10, 11, 10**9):
        assert jh.expected_matches(1000, 10, radius) == 1000
    assert jh.expected_matches(10**9, 1024, 512) == pytest.approx(10**9 * 0.5, rel=0.03)
