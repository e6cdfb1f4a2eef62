"""Initial weights have the right spread, and are the same traced."""

import jax
import numpy as np
import pytest
from flax import nnx

import jaxhash as jh
from jaxhash.models.initial_weights import BLOCK, he_normal


@pytest.mark.parametrize("shape", [(784, 100), (3, 2 * BLOCK), (BLOCK, 1)])
def test_weights_have_the_variance_of_he(shape):
    kernel = np.asarray(he_normal(jax.random.key(0), shape))
    assert kernel.shape == shape
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / shape[0]), rtol=0.02)
    assert abs(kernel.mean()) < 0.02 * np.sqrt(2 / shape[0])
    assert np.abs(kernel).max() <= 2 / 0.8796 * np.sqrt(2 / shape[0])


def test_the_weights_of_blocks_differ():
    first, second = np.asarray(he_normal(jax.random.key(0), (2, BLOCK)))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_the_key_decides_the_weights():
    kernels = [np.asarray(he_normal(jax.random.key(seed), (5, 7))) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def test_traced_weights_are_the_same():
    made = jh.Autoencoder(40, 5, (30,), rngs=nnx.Rngs(3))
    traced = nnx.jit(lambda: jh.Autoencoder(40, 5, (30,), rngs=nnx.Rngs(3)))()
    jax.tree.map(np.testing.assert_array_equal, nnx.state(made, nnx.Param), nnx.state(traced, nnx.Param))


def test_a_model_of_other_widths_draws_by_the_same_program(compilations):
    jh.Autoencoder(40, 5, (30,))
    with compilations:
        jh.Autoencoder(41, 6, (31, 23))
    assert compilations.count <= 2  # of the shift and scale of inputs
