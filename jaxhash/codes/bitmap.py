"""Rank and select over bitmaps, in numpy or traced.

A bitmap is uint32 words; its bit i is bit `i % 32`, the lowest first, of word `i // 32`. A directory counts the set
bits before each word, so a rank takes two reads and one popcount.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Bitmap(NamedTuple):
    """Words and their directory.

    words: uint32 `[m]`.
    directory: int32 `[m]`, the number of set bits before each word.
    """

    words: Any
    directory: Any


def make_bitmap(words: Any) -> Bitmap:
    """Builds the directory of words, a numpy or JAX array uint32 `[m]`."""
    counts, numpy = _count_bits(words), np if isinstance(words, np.ndarray) else jnp
    directory = numpy.cumsum(counts, dtype=np.int32)
    return Bitmap(words, directory - counts)


def rank(bitmap: Bitmap, positions: Any) -> Any:
    """Counts the set bits before positions from 0 to `32 * m`, integers of any shape: int32."""
    minimum = np.minimum if isinstance(bitmap.words, np.ndarray) else jnp.minimum
    word = minimum(positions >> 5, bitmap.words.shape[0] - 1)
    return rank_in_word(bitmap, word, (positions - 32 * word).astype(np.uint32))  # 32 at the end of the bitmap


def rank_in_word(bitmap: Bitmap, word: Any, bit: Any) -> Any:
    """Counts the set bits before bit number `bit`, uint32, of word number `word`, integers of one shape: int32.

    The bit may be 32: the shift then gives 0, and the mask is all ones.
    """
    below = (np.uint32(1) << bit) - np.uint32(1)
    if isinstance(bitmap.words, np.ndarray):
        return bitmap.directory[word] + np.bitwise_count(bitmap.words[word] & below)
    words, before = (array.at[word].get(mode="promise_in_bounds") for array in bitmap)
    return before + _count_bits(words & below)


def select(bitmap: Bitmap, numbers: jax.Array) -> jax.Array:
    """Finds the positions of set bits by their numbers, int32 of any shape. Inverts `rank`; traced only."""
    word = jnp.searchsorted(bitmap.directory, numbers, side="right").astype(jnp.int32) - 1
    words = bitmap.words.at[word].get(mode="promise_in_bounds")
    left = numbers - bitmap.directory.at[word].get(mode="promise_in_bounds")
    return word * 32 + select_in_words(words, left).astype(jnp.int32)


def select_in_words(words: jax.Array, numbers: jax.Array) -> jax.Array:
    """Finds the set bit with `numbers` set bits below it in each word, by bisection: uint32; traced only."""
    bit, left = jnp.zeros_like(words), numbers.astype(jnp.uint32)
    for width in (16, 8, 4, 2, 1):
        low = lax.population_count((words >> bit) & jnp.uint32((1 << width) - 1))
        above = low <= left
        bit += jnp.where(above, jnp.uint32(width), 0)
        left -= jnp.where(above, low, 0)
    return bit


def find_set_bits(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the set bits of words uint32 `[m]`: the word, int64 `[h]`, and the bit in it, uint32 `[h]`, of each."""
    bits = np.unpackbits(words.astype("<u4", copy=False).view(np.uint8), bitorder="little")
    positions = np.flatnonzero(bits.view(bool))
    return positions >> 5, (positions & 31).astype(np.uint32)


def _count_bits(words: Any) -> Any:
    """Counts the set bits of each word: int32."""
    counts = np.bitwise_count(words) if isinstance(words, np.ndarray) else lax.population_count(words)
    return counts.astype(np.int32)
