import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxhash as jh

WIDTHS = [1, 8, 17, 31, 32, 33, 63, 64, 65, 256, 1025]
in_both_kinds = pytest.mark.parametrize("to_kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])


def random_bits(num_bits, n=5):
    return np.random.default_rng(num_bits).random((n, num_bits)) < 0.5


def test_bit_zero_is_the_most_significant_bit_of_word_zero():
    bits = np.zeros(33, bool)
    bits[[0, 31, 32]] = True
    assert jh.pack_bits(bits).tolist() == [0x80000001, 0x80000000]


def test_a_golden_code_packs_and_unpacks():
    assert jh.pack_bits([1, 0, 1, 1]).tolist() == [0xB0000000]
    assert jh.unpack_bits(np.array([0xB0000000], np.uint32), 4).tolist() == [True, False, True, True]


@in_both_kinds
@pytest.mark.parametrize("num_bits", WIDTHS)
def test_unpacking_undoes_packing(num_bits, to_kind):
    bits = random_bits(num_bits)
    codes = jh.pack_bits(to_kind(bits))
    assert codes.dtype == jnp.uint32
    np.testing.assert_array_equal(codes, oracle.pack(bits))
    np.testing.assert_array_equal(jh.unpack_bits(codes, num_bits), bits)


@given(st.integers(1, 1100))
def test_codes_of_any_length_come_back_as_bits_and_as_bytes(num_bits):
    bits = random_bits(num_bits)
    codes, packed = oracle.pack(bits), np.packbits(bits, axis=-1)
    np.testing.assert_array_equal(jh.pack_bits(bits), codes)
    np.testing.assert_array_equal(jh.unpack_bits(codes, num_bits), bits)
    np.testing.assert_array_equal(jh.codes_from_bytes(packed, num_bits), codes)
    np.testing.assert_array_equal(jh.codes_to_bytes(codes, num_bits), packed)


@in_both_kinds
@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float16, np.float64, jnp.bfloat16])
def test_bits_may_be_numbers_of_any_kind(dtype, to_kind):
    bits = random_bits(40)
    np.testing.assert_array_equal(jh.pack_bits(to_kind(bits.astype(dtype))), jh.pack_bits(bits))


@in_both_kinds
@pytest.mark.parametrize("wrong", [2, -1, 0.5, np.nan])
def test_bits_that_are_neither_0_nor_1_are_refused(wrong, to_kind):
    with pytest.raises(ValueError, match=f"bits: values must be 0/1, got {wrong}"):
        jh.pack_bits(to_kind(np.array([[0, 1, wrong]])))


@pytest.mark.parametrize(
    ("bits", "error"), [("01", TypeError), (np.array(1), ValueError), (np.zeros((3, 0)), ValueError)]
)
def test_bits_of_other_types_and_shapes_are_refused(bits, error):
    with pytest.raises(error, match="bits"):
        jh.pack_bits(bits)


def test_distance_by_hand():
    a = np.array([[0b1100 << 28], [0]], np.uint32)
    b = np.array([[0b1010 << 28], [0xFFFFFFFF]], np.uint32)
    distances = jh.hamming_distance(a, b)
    assert distances.dtype == jnp.int32
    assert distances.tolist() == [2, 32]


def test_distance_of_1024_bits_does_not_wrap():
    zeros, ones = np.zeros(32, np.uint32), np.full(32, 0xFFFFFFFF, np.uint32)
    assert int(jh.hamming_distance(zeros, ones)) == 1024


@in_both_kinds
@pytest.mark.parametrize("num_bits", WIDTHS)
def test_distance_is_a_metric_and_counts_flips(num_bits, to_kind):
    rng = np.random.default_rng(num_bits)
    bits = rng.random((3, 20, num_bits)) < 0.5
    a, b, c = (to_kind(oracle.pack(part)) for part in bits)
    ab, bc, ac = jh.hamming_distance(a, b), jh.hamming_distance(b, c), jh.hamming_distance(a, c)
    assert not np.asarray(jh.hamming_distance(a, a)).any()
    np.testing.assert_array_equal(ab, jh.hamming_distance(b, a))
    assert (np.asarray(ac) <= np.asarray(ab) + np.asarray(bc)).all()
    flips = rng.integers(0, num_bits + 1)
    mask = np.isin(np.arange(num_bits), rng.permutation(num_bits)[:flips])
    flipped = to_kind(oracle.pack(bits[0] ^ mask))
    assert (np.asarray(jh.hamming_distance(a, flipped)) == flips).all()


def test_distance_broadcasts_and_traces():
    a, b = oracle.pack(random_bits(64, n=6)).reshape(2, 3, 1, 2), oracle.pack(random_bits(64, n=4))
    expected = np.bitwise_count(a ^ b).sum(-1)
    for found in (jh.hamming_distance(a, b), jax.jit(jh.hamming_distance)(a, b)):
        np.testing.assert_array_equal(found, expected)


def test_distance_of_codes_of_different_width_is_refused():
    with pytest.raises(ValueError, match="b must have 2 words"):
        jh.hamming_distance(np.zeros((3, 2), np.uint32), np.zeros((3, 1), np.uint32))
    with pytest.raises(ValueError, match="broadcast"):
        jh.hamming_distance(np.zeros((3, 2), np.uint32), np.zeros((4, 2), np.uint32))


def test_codes_in_other_memory_layouts_are_the_same_codes():
    codes = oracle.pack(random_bits(96, n=8))
    for same in (np.asfortranarray(codes), codes[::-1][::-1], codes.astype(">u4"), np.repeat(codes, 2, 0)[::2]):
        np.testing.assert_array_equal(jh.unpack_bits(same, 96), jh.unpack_bits(codes, 96))
        assert not np.asarray(jh.hamming_distance(same, codes)).any()


@in_both_kinds
@pytest.mark.parametrize("num_bits", WIDTHS)
def test_bytes_are_those_of_numpy_packbits(num_bits, to_kind):
    bits = random_bits(num_bits)
    packed = np.packbits(bits, axis=-1)
    codes = jh.codes_from_bytes(to_kind(packed), num_bits)
    np.testing.assert_array_equal(codes, oracle.pack(bits))
    back = jh.codes_to_bytes(codes, num_bits)
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, packed)


@in_both_kinds
def test_signed_bytes_are_refused_with_the_cure(to_kind):
    bits = random_bits(24)
    signed = to_kind((np.packbits(bits, axis=-1) - 128).astype(np.int8))  # as of sentence-transformers
    with pytest.raises(TypeError, match=r"uint8, got int8; .*give x\.view\(np\.uint8\) \^ 0x80"):
        jh.codes_from_bytes(signed, 24)
    np.testing.assert_array_equal(jh.codes_from_bytes(signed.view(np.uint8) ^ 0x80, 24), oracle.pack(bits))


def test_wrong_bytes_are_refused():
    with pytest.raises(TypeError, match=r"packed must have dtype uint8, got uint32$"):
        jh.codes_from_bytes(np.zeros((2, 3), np.uint32), 24)
    with pytest.raises(ValueError, match="packed must have 3 bytes"):
        jh.codes_from_bytes(np.zeros((2, 2), np.uint8), 17)
    with pytest.raises(ValueError, match="padding bits must be zero"):
        jh.codes_from_bytes(np.array([0, 0, 0b01000000], np.uint8), 17)


def test_integers_by_hand():
    codes = jh.pack_bits([[1, 0, 1], [0, 1, 1]])
    integers = jh.codes.codes_to_integers(codes, 3)
    assert integers.dtype == np.uint64
    assert integers.tolist() == [5, 3]
    assert jh.codes.codes_to_integers(jh.pack_bits(np.ones(64)), 64) == 2**64 - 1


@pytest.mark.parametrize("num_bits", range(1, 65))
def test_integers_keep_the_order_of_codes_and_come_back(num_bits):
    codes = oracle.pack(random_bits(num_bits, n=50))
    integers = jh.codes.codes_to_integers(codes, num_bits)
    by_code = np.lexsort(codes.T[::-1])
    assert (np.diff(integers[by_code].astype(object)) >= 0).all()
    np.testing.assert_array_equal(jh.codes.codes_from_integers(integers, num_bits), codes)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8))
def test_any_64_bit_integer_survives(integers):
    values = np.array(integers, np.uint64)
    np.testing.assert_array_equal(jh.codes.codes_to_integers(jh.codes.codes_from_integers(values, 64), 64), values)


def test_int64_ids_past_32_bits_are_not_truncated():
    values = np.array([2**40, 2**33 + 1], np.int64)
    np.testing.assert_array_equal(jh.codes.codes_to_integers(jh.codes.codes_from_integers(values, 41), 41), values)


@pytest.mark.parametrize(
    ("integers", "num_bits", "error"),
    [
        ([8], 3, ValueError),
        ([-1], 3, ValueError),
        ([1.0], 3, TypeError),
        ([1], 65, ValueError),
        ([2**64], 64, TypeError),
    ],
)
def test_integers_that_do_not_fit_are_refused(integers, num_bits, error):
    with pytest.raises(error):
        jh.codes.codes_from_integers(integers, num_bits)


@pytest.mark.parametrize("num_bits", [0, -8])
def test_a_number_of_bits_below_one_is_refused(num_bits):
    with pytest.raises(ValueError, match="num_bits must lie between 1"):
        jh.unpack_bits(np.zeros((1, 1), np.uint32), num_bits)


@pytest.mark.parametrize("num_bits", [3.5, "64", True, None])
def test_a_number_of_bits_that_is_no_integer_is_refused(num_bits):
    with pytest.raises(TypeError, match="num_bits must be an integer"):
        jh.unpack_bits(np.zeros((1, 1), np.uint32), num_bits)


@pytest.mark.parametrize("convert", [jh.unpack_bits, jh.codes_to_bytes, jh.codes.codes_to_integers])
def test_codes_with_set_padding_bits_are_refused(convert):
    codes = np.array([[0], [1 << (31 - 20)]], np.uint32)
    with pytest.raises(ValueError, match=r"padding bits must be zero, but the code at \(1,\) has bits past 17"):
        convert(codes, 17)


def test_no_codes_unpack_to_no_bits():
    nothing = np.zeros((0, 2), np.uint32)
    assert jh.unpack_bits(nothing, 40).shape == (0, 40)
    assert jh.codes_to_bytes(nothing, 40).shape == (0, 5)


@pytest.mark.parametrize("num_bits", [1, 32, 70])
def test_first_bits_are_those_of_the_bits(num_bits):
    bits = random_bits(num_bits)
    codes, counts = oracle.pack(bits), range(1, num_bits + 1)
    expected = [oracle.pack(bits[:, :count]) for count in counts]
    found = jax.jit(lambda codes: [jh.codes.first_bits(codes, num_bits=count) for count in counts])(codes)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    for count in {1, (num_bits + 1) // 2, num_bits}:
        np.testing.assert_array_equal(jh.codes.first_bits(codes, count), expected[count - 1])


def test_more_bits_than_there_are_words_are_refused():
    with pytest.raises(ValueError, match="at most 64 for these codes, got 65"):
        jh.codes.first_bits(np.zeros((2, 2), np.uint32), 65)
    with pytest.raises(TypeError, match="uint32"):
        jh.codes.first_bits(np.zeros((2, 2), np.int32), 5)


BYTES = np.zeros((2, 2), np.uint8)


@pytest.mark.parametrize("use", ["build", "search", "distance"])
@pytest.mark.parametrize(
    ("codes", "cure"),
    [
        (BYTES, r"jaxhash\.codes_from_bytes"),
        (BYTES.view(np.int8), r"x\.view\(np\.uint8\) \^ 0x80"),
        (BYTES.astype(np.uint64), r"codes_from_integers"),
        (BYTES.astype(float), r"jaxhash\.pack_bits"),
    ],
    ids=["uint8", "int8", "uint64", "float"],
)
def test_other_forms_of_codes_are_refused_with_the_remedy(use, codes, cure):
    call = {
        "build": lambda: jh.build_index(codes, 64),
        "search": lambda: jh.search(jh.build_index(np.zeros((2, 2), np.uint32), 64), codes, k=1),
        "distance": lambda: jh.hamming_distance(codes, codes),
    }[use]
    with pytest.raises(TypeError, match=cure):
        call()


def test_integers_of_more_than_64_bits_are_to_be_given_as_bytes():
    for convert in (jh.codes.codes_from_integers, jh.codes.codes_to_integers):
        with pytest.raises(ValueError, match=r"codes_from_bytes.* x\.to_bytes\(16, \"big\"\)"):
            convert(np.zeros((1, 4), np.uint32), 128)
    (code,) = jh.codes_from_bytes(np.frombuffer((1 << 100).to_bytes(16, "big"), np.uint8)[None], 128)
    assert code.tolist() == [1 << 4, 0, 0, 0]
