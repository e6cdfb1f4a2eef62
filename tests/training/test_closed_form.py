"""The start in closed form: the projection of ITQ, and a decoder that matches it."""

import jax
import numpy as np
import pytest
from flax import nnx

import jaxhash as jh
from jaxhash.training.closed_form import find_itq, start_from_itq


def correlated(count, dims, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, dims)) * np.linspace(2, 0.2, dims)).astype(np.float32)


@pytest.mark.parametrize("num_bits", [3, 6, 10])
def test_the_projection_has_orthonormal_columns_or_rows(num_bits):
    projection, _ = find_itq(correlated(300, 6), num_bits, np.random.default_rng(0))
    assert projection.shape == (6, num_bits)
    gram = projection.T @ projection if num_bits <= 6 else projection @ projection.T
    np.testing.assert_allclose(gram, np.eye(min(num_bits, 6)), atol=1e-5)


def test_itq_values_are_nearer_to_their_signs_than_those_of_pca():
    vectors = correlated(500, 6)
    projection, size = find_itq(vectors, 3, np.random.default_rng(0))
    axes = np.linalg.svd(vectors, full_matrices=False)[2][:3].T
    spreads = [np.var(np.abs(vectors @ directions)) for directions in (projection, axes)]
    assert spreads[0] < 0.95 * spreads[1]
    assert size == pytest.approx(np.abs(vectors @ projection).mean(), rel=1e-5)


def test_vectors_are_decoded_in_their_own_units():
    vectors = 5 + correlated(400, 8)
    model = jh.Autoencoder(8, 8, (), output_activation="linear")
    model.init_scaling(vectors)
    start_from_itq(model, vectors, 0)
    unexplained = jh.training.reconstruction_loss(model, vectors) / (vectors - vectors.mean(0)).var()
    assert unexplained < 0.5
    np.testing.assert_allclose(np.asarray(jh.reconstruct(model, vectors)).mean(0), vectors.mean(0), atol=0.3)


@pytest.mark.parametrize("model", [jh.Autoencoder(16, 4, (5,)), jh.ConvAutoencoder((4, 4), 4, (2,), (3,))])
def test_models_with_more_than_one_layer_are_left_as_they_are(model):
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    start_from_itq(model, np.zeros((9, 16), np.float32), 0)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model)), before)
