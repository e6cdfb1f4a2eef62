"""Rank and select, against counting bit by bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxhash.codes.bitmap import Bitmap, find_set_bits, make_bitmap, rank, rank_in_word, select, select_in_words

FULL, HIGH = 2**32 - 1, 2**31
# One length, so that each function is compiled once. Words that are empty, full, or set at an end alone come often.
WORDS = st.lists(st.sampled_from([0, 1, HIGH, FULL]) | st.integers(0, FULL), min_size=6, max_size=6).map(
    lambda words: np.array(words, np.uint32)
)


def bits_of(words):
    return [int(word) >> bit & 1 for word in words for bit in range(32)]


TRACED_MAKE, TRACED_SELECT = jax.jit(make_bitmap), jax.jit(select_in_words)
TRACED = {function: jax.jit(function) for function in (rank, rank_in_word, select)}


def traced(function, words, *arguments):
    """What a function of a bitmap gives inside `jit`."""
    return np.asarray(TRACED[function](make_bitmap(words), *arguments))


def test_ranks_and_positions_by_hand():
    words = np.array([0b1010, 0, HIGH | 1], np.uint32)
    positions = np.array([0, 1, 2, 3, 4, 31, 32, 64, 65, 95, 96])
    expected = [0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4]
    assert rank(make_bitmap(words), positions).tolist() == expected
    assert traced(rank, words, positions.astype(np.int32)).tolist() == expected
    assert traced(select, words, np.arange(4, dtype=np.int32)).tolist() == [1, 3, 64, 95]
    word, bit = find_set_bits(words)
    assert (word.tolist(), bit.tolist()) == ([0, 0, 2, 2], [1, 3, 0, 31])


@given(WORDS)
def test_the_directory_counts_the_bits_before_each_word(words):
    before = np.cumsum([0, *(int(word).bit_count() for word in words)])[:-1]
    for made in (make_bitmap(words), TRACED_MAKE(words)):
        np.testing.assert_array_equal(made.words, words)
        np.testing.assert_array_equal(made.directory, before)
        assert made.directory.dtype == np.int32
    assert isinstance(make_bitmap(words).directory, np.ndarray)


@given(WORDS)
def test_rank_counts_the_bits_before_any_position(words):
    expected = np.cumsum([0, *bits_of(words)])
    positions = np.arange(32 * len(words) + 1, dtype=np.int32)
    np.testing.assert_array_equal(rank(make_bitmap(words), positions), expected)
    np.testing.assert_array_equal(rank(make_bitmap(words), positions.astype(np.uint32)), expected)
    np.testing.assert_array_equal(traced(rank, words, positions), expected)


@given(WORDS)
def test_rank_in_a_word_counts_the_bits_below_any_bit(words):
    expected = np.cumsum([0, *bits_of(words)])
    word, bit = np.divmod(np.arange(33 * len(words)), 33)
    bit = bit.astype(np.uint32)  # 32 is past the end of the word
    counts = expected[32 * word + bit]
    np.testing.assert_array_equal(rank_in_word(make_bitmap(words), word, bit), counts)
    np.testing.assert_array_equal(traced(rank_in_word, words, word.astype(np.int32), bit), counts)


@given(WORDS)
def test_select_finds_each_set_bit(words):
    places = np.flatnonzero(bits_of(words))
    numbers = np.arange(32 * len(words), dtype=np.int32)  # some are past the last bit
    np.testing.assert_array_equal(traced(select, words, numbers)[: len(places)], places)


@given(WORDS)
def test_select_in_words_finds_the_bit_of_each_number(words):
    rows = np.array(bits_of(words)).reshape(-1, 32)
    word, bit = np.nonzero(rows)
    number = (np.cumsum(rows, axis=1) - rows)[word, bit]
    slots = np.zeros((2, 32 * len(words)), np.int32)
    slots[:, : len(word)] = word, number
    found = TRACED_SELECT(words[slots[0]], slots[1])
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found[: len(word)], bit)


@settings(max_examples=30)
@given(st.lists(st.sampled_from([0, 1, HIGH, FULL]) | st.integers(0, FULL), max_size=9))
def test_set_bits_are_found_in_order(words):
    word, bit = find_set_bits(np.array(words, np.uint32))
    places = np.flatnonzero(bits_of(words))
    np.testing.assert_array_equal(32 * word + bit, places)
    assert (word.dtype, bit.dtype) == (np.int64, np.uint32)


def test_set_bits_of_big_endian_words_are_the_same():
    words = np.array([5, HIGH], np.uint32)
    for found, expected in zip(find_set_bits(words.astype(">u4")), find_set_bits(words), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_positions_have_any_shape(shape):
    words, positions = np.array([FULL, 0], np.uint32), np.full(shape, 31, np.int32)
    assert rank(make_bitmap(words), positions).shape == shape
    assert traced(rank, words, positions).shape == shape
    assert traced(select, words, positions).shape == shape


def test_a_bitmap_is_a_pytree():
    bitmap = make_bitmap(np.array([3, 1], np.uint32))
    assert isinstance(jax.tree.map(jnp.asarray, bitmap), Bitmap)
    assert jax.jit(rank)(bitmap, np.int32(33)).tolist() == 3
