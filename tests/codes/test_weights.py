"""Bit planes of weights, and what weights are refused (`tests/query/test_weights.py` has the rest)."""

import jax
import numpy as np
import pytest

import jaxhash as jh
from jaxhash.codes.weights import ALL_PLANES, check_weights, pack_planes


@pytest.mark.parametrize("num_bits", [1, 17, 32, 70])
def test_planes_are_the_binary_digits_of_weights(num_bits, rng):
    weights = rng.integers(0, 16, (3, 2, num_bits), dtype=np.uint8)
    planes = pack_planes(weights)
    assert (planes.shape, planes.dtype) == ((3, 2, 4, -(-num_bits // 32)), np.uint32)
    digits = jh.unpack_bits(planes, num_bits).astype(int)
    np.testing.assert_array_equal(sum(digits[:, :, power] << power for power in ALL_PLANES), weights)
    some = pack_planes(weights, (1, 3))
    np.testing.assert_array_equal(some, planes[:, :, [1, 3]])
    np.testing.assert_array_equal(jax.jit(lambda traced: pack_planes(traced, (1, 3)))(weights), some)


def test_one_row_of_weights_serves_all_queries():
    weights, exponents = check_weights([8, 1], (2, 3), 2)
    assert weights.shape == (2, 3, 2)
    assert exponents == (0, 3)
    with pytest.raises(ValueError, match="got 16"):
        check_weights([[15, 16]], (1,), 2)
