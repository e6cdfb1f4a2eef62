"""Statistics of the bits of codes, without labels."""

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

# Bits with a larger absolute correlation count as duplicates.
DUPLICATE_CORRELATION = 0.95

# Codes unpacked at a time. Ones are counted in float32, which is exact up to 2^24.
CODES_PER_CHUNK = 2**16


class BitStatistics(NamedTuple):
    """The result of `bit_statistics`. Density is the number of items that share a code, as in `IndexStats`."""

    ones: np.ndarray  # float64 [b], the fraction of codes in which a bit is 1
    entropy: np.ndarray  # float64 [b], in bits: 1 for a balanced bit, 0 for a dead one
    correlation: np.ndarray  # float64 [b, b], Pearson's, in [-1, 1]; 0 in rows and columns of dead bits
    dead_bits: np.ndarray  # int64 [d], bits that are constant
    duplicated_bits: np.ndarray  # int64 [c, 2], pairs of nearly equal or nearly opposite bits, the lower first
    num_codes: int  # distinct codes
    code_entropy: float  # in bits, of the distribution of items over codes; at most b and log2 n
    min_density: int
    median_density: float
    mean_density: float
    max_density: int

    @property
    def max_correlation(self) -> float:
        """The largest absolute correlation of two different bits."""
        return float(np.abs(np.triu(self.correlation, 1)).max())


def bit_statistics(codes: ArrayLike, num_bits: int, threshold: float = DUPLICATE_CORRELATION) -> BitStatistics:
    """Computes balance, entropy and correlation of the bits of codes, and the density of codes.

    Args:
        codes: uint32 `[n, w]`, at least one.
        num_bits: the number of bits of a code, `b`.
        threshold: the absolute correlation above which two bits count as duplicated.

    Raises:
        ValueError: there are no codes, or they have another shape or bits past `num_bits`.
        TypeError: codes are not uint32.
    """
    check_num_bits(num_bits)
    table = check_codes("codes", codes, num_bits)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"codes must have shape [n, {table.shape[-1]}] with at least one code, got {table.shape}")
    both = _count_common_ones(table, num_bits)
    ones = both.diagonal() / len(table)
    correlation = _correlate(both, len(table))
    density = _count_densities(table)
    return BitStatistics(
        ones,
        _compute_entropy_terms(ones) + _compute_entropy_terms(1 - ones),
        correlation,
        np.flatnonzero((ones == 0) | (ones == 1)),
        np.argwhere(np.triu(np.abs(correlation), 1) > threshold),
        len(density),
        float(_compute_entropy_terms(density / len(table)).sum()),
        int(density.min()),
        float(np.median(density)),
        len(table) / len(density),
        int(density.max()),
    )


def _count_densities(table: np.ndarray) -> np.ndarray:
    """Counts the items that share each distinct code, by ascending code: int64 `[u]`."""
    starts = find_run_starts(table[argsort_codes(table)])
    return np.diff(np.append(starts, len(table)))


def _count_common_ones(table: np.ndarray, num_bits: int) -> np.ndarray:
    """Counts the codes in which two bits are both 1, for each pair of bits: int64 `[b, b]`."""
    total = np.zeros((num_bits, num_bits), np.int64)
    for first in range(0, len(table), CODES_PER_CHUNK):
        chunk = pad_rows(table[first : first + CODES_PER_CHUNK], CODES_PER_CHUNK)  # padding is zero and adds nothing
        total += np.asarray(_count_in_chunk(chunk, num_bits)).astype(np.int64)
    return total


@partial(jax.jit, static_argnums=1)
def _count_in_chunk(codes: jax.Array, num_bits: int) -> jax.Array:
    bits = unpack_bits(codes, num_bits).astype(jnp.float32)
    return bits.T @ bits  # exact at any matmul precision: the factors are 0 and 1


def _correlate(both: np.ndarray, count: int) -> np.ndarray:
    """Computes Pearson's correlation of bits from their counts of common ones: float64 `[b, b]`.

    Covariances are integers, so they are exactly 0 for dead bits.
    """
    ones = both.diagonal()
    covariance = both * count - np.outer(ones, ones)
    deviation = np.sqrt(covariance.diagonal().astype(np.float64))
    scale = np.outer(deviation, deviation)
    return np.clip(covariance / np.where(scale == 0, 1, scale), -1, 1)


def _compute_entropy_terms(p: np.ndarray) -> np.ndarray:
    """Computes `-p log2 p`, 0 at p = 0."""
    return np.asarray(-p * np.log2(np.where(p == 0, 1, p)))
