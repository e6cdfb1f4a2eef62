"""Building an index from codes and ids."""

import jax
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import collection, identical

import jaxhash as jh
from jaxhash.index.hash_index import sorted_arrays


def test_four_items_by_hand():
    codes = jh.pack_bits([[1, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]])
    index = jh.build_index(codes, num_bits=3)
    table, offsets, ids = sorted_arrays(index)
    assert jh.codes.codes_to_integers(table, 3).tolist() == [0b000, 0b001, 0b110]
    assert offsets.tolist() == [0, 1, 2, 4]
    assert ids.tolist() == [3, 1, 0, 2]
    assert jh.describe(index) == (4, 3, 1, 1.0, 4 / 3, 2, (), 0)


@given(st.integers(0, 200), st.sampled_from([1, 17, 33, 65, 200]), st.integers(0, 2**32))
def test_an_index_depends_only_on_its_pairs_of_code_and_id(n, num_bits, seed):
    index, _, codes, ids = collection(num_bits, n, 0, seed)
    order = np.random.default_rng(seed).permutation(n)
    identical(index, jh.build_index(codes[order], num_bits, ids=ids[order]))


def test_no_codes_give_an_empty_index():
    index = jh.build_index(np.zeros((0, 2), np.uint32), 64)
    assert jh.describe(index) == (0, 0, 0, 0.0, 0.0, 0, (), 0)
    assert [len(array) for array in sorted_arrays(index)] == [0, 1, 0]


def test_arrays_of_any_layout_give_the_same_index(rng, tmp_path):
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
    for array in foreign:
        identical(jh.build_index(array, 64), expected)


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
        ([0, 5, 5], ValueError, "5 occurs more than once"),
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


def test_a_multi_index_depends_only_on_its_pairs():
    rng = np.random.default_rng(3)
    codes, ids = collection(9, 200).codes, rng.integers(0, 20, 200)
    index = jh.build_index(codes, 9, ids=ids, multi=True)
    order = rng.permutation(np.r_[np.arange(200), np.arange(50)])
    identical(index, jh.build_index(codes[order], 9, ids=ids[order], multi=True))
    pairs = {(int(code), int(item)) for code, item in zip(codes[:, 0], ids, strict=True)}
    assert int(index.num_items) == len(pairs)
    identical(index, jh.build_index(((codes[i::3], ids[i::3]) for i in range(3)), 9, multi=True))


def test_rows_of_codes_and_repeated_ids_give_the_same_index():
    codes = collection(33, 24).codes.reshape(6, 4, 2)
    index = jh.build_index(codes, 33, multi=True)
    identical(index, jh.build_index(codes.reshape(24, 2), 33, ids=np.repeat(np.arange(6), 4), multi=True))
    identical(index, jh.build_index(iter([codes[:2], codes[2:]]), 33, multi=True))
    named = jh.build_index(codes, 33, ids=[9, 8, 7, 3, 2, 1], multi=True)
    assert set(np.asarray(named.ids)[: int(named.num_items)].tolist()) == {9, 8, 7, 3, 2, 1}


def test_batches_of_other_numbers_of_codes_are_refused():
    codes = np.zeros((2, 3, 1), np.uint32)
    with pytest.raises(ValueError, match="equally many codes in all batches"):
        jh.build_index(iter([codes, codes[:, :2]]), 8, multi=True)


def test_several_codes_an_item_without_multi_are_refused():
    codes = np.zeros((2, 1), np.uint32)
    with pytest.raises(ValueError, match=r"ids must be distinct, but 5 occurs more than once \(multi=True"):
        jh.build_index(codes, 8, ids=[5, 5])
    with pytest.raises(ValueError, match=r"codes must have shape \[n, 1\], got \(1, 2, 1\)"):
        jh.build_index(codes[None], 8)
