"""How codes use their bits, judged without labels."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.bits import unpack_bits
from jaxhash.codes.sorting import argsort_codes, find_run_starts
from jaxhash.core.batching import pad_rows
from jaxhash.core.checks import check_codes, check_num_bits

# Two bits more alike than this, or more opposite, count as one bit duplicated.
DUPLICATED = 0.95

# Codes unpacked at a time. Ones are counted in float32, which is exact up to 2^24.
CODES_AT_ONCE = 2**16


class BitStatistics(NamedTuple):
    """What `bit_statistics` finds. A density is a number of items that share one code, as in `IndexStats`."""

    ones: np.ndarray  # float64 [b], the share of codes in which a bit is 1
    entropy: np.ndarray  # float64 [b], in bits: 1 where halves are even, 0 where a bit never changes
    correlation: np.ndarray  # float64 [b, b], Pearson's, from -1 to 1; 0 in rows and columns of dead bits
    dead_bits: np.ndarray  # int64 [d], those that never change
    duplicated_bits: np.ndarray  # int64 [c, 2], pairs (the lower first) that are nearly equal or nearly opposite
    num_codes: int  # distinct ones
    code_entropy: float  # in bits, of which code an item has; at most b and log2 n
    min_density: int
    median_density: float
    mean_density: float
    max_density: int

    @property
    def max_correlation(self) -> float:
        """The largest correlation of two different bits, regardless of sign."""
        return float(np.abs(np.triu(self.correlation, 1)).max())


def bit_statistics(codes: ArrayLike, num_bits: int, threshold: float = DUPLICATED) -> BitStatistics:
    """Measures how codes use their bits.

    Args:
        codes: uint32 `[n, w]`, at least one.
        num_bits: the number of bits of a code, `b`.
        threshold: the correlation, regardless of sign, above which two bits count as duplicated.

    Raises:
        ValueError: there are no codes, or they have another shape or bits past `num_bits`.
        TypeError: codes are not uint32.
    """
    check_num_bits(num_bits)
    table = check_codes("codes", codes, num_bits)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"codes must have shape [n, {table.shape[-1]}] with at least one code, got {table.shape}")
    both = _ones_together(table, num_bits)
    ones = both.diagonal() / len(table)
    correlation = _correlation(both, len(table))
    density = _densities(table)
    return BitStatistics(
        ones,
        _entropy_terms(ones) + _entropy_terms(1 - ones),
        correlation,
        np.flatnonzero((ones == 0) | (ones == 1)),
        np.argwhere(np.triu(np.abs(correlation), 1) > threshold),
        len(density),
        float(_entropy_terms(density / len(table)).sum()),
        int(density.min()),
        float(np.median(density)),
        len(table) / len(density),
        int(density.max()),
    )


def _densities(table: np.ndarray) -> np.ndarray:
    """The number of items that share each distinct code, in ascending order of the codes: int64 `[u]`."""
    starts = find_run_starts(table[argsort_codes(table)])
    return np.diff(np.append(starts, len(table)))


def _ones_together(table: np.ndarray, num_bits: int) -> np.ndarray:
    """In how many codes each two bits are both 1: int64 `[b, b]`."""
    total = np.zeros((num_bits, num_bits), np.int64)
    for first in range(0, len(table), CODES_AT_ONCE):
        part = pad_rows(table[first : first + CODES_AT_ONCE], CODES_AT_ONCE)  # with zeros, which add nothing
        total += np.asarray(_ones_in_part(part, num_bits)).astype(np.int64)
    return total


@partial(jax.jit, static_argnums=1)
def _ones_in_part(codes: jax.Array, num_bits: int) -> jax.Array:
    bits = unpack_bits(codes, num_bits).astype(jnp.float32)
    return bits.T @ bits  # exact at any precision of the factors, as they are 0 and 1


def _correlation(both: np.ndarray, count: int) -> np.ndarray:
    """Pearson's correlation of bits from the counts of ones together; whole numbers, so that dead bits give just 0."""
    ones = both.diagonal()
    covariance = both * count - np.outer(ones, ones)
    deviation = np.sqrt(covariance.diagonal().astype(np.float64))
    scale = np.outer(deviation, deviation)
    return np.clip(covariance / np.where(scale == 0, 1, scale), -1, 1)


def _entropy_terms(shares: np.ndarray) -> np.ndarray:
    return np.asarray(-shares * np.log2(np.where(shares == 0, 1, shares)))
