"""Objectives for vectors: what their losses measure, and that training keeps more than its start."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxhash as jh
from jaxhash.training.closed_form import start_from_itq
from jaxhash.training.vector_objectives import compare, disagreement, find_nearest_vectors


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, 49) ** -0.5
    centers = spectrum * rng.standard_normal((150, 48))
    noise = 0.5 * spectrum * rng.standard_normal((2200, 48))
    return (3 + centers[rng.integers(150, size=2200)] + noise).astype(np.float32)


def linear(num_bits=16):
    return jh.Autoencoder(48, num_bits, (), output_activation="linear")


def kept(model, vectors, k=10):
    """The share of the k nearest of 2,000 vectors that are among the k of nearest codes, for the other 200."""
    database, queries = vectors[:2000], vectors[2000:]
    true = np.argsort(((queries[:, None] - database[None]) ** 2).sum(2), axis=1)[:, :k]
    index = jh.build_index(jh.encode(model, database), model.num_bits)
    return jh.metrics.recall(true, np.asarray(jh.search(index, jh.encode(model, queries), k=k).ids))


def test_pair_distances_are_divided_by_their_mean():
    views = np.random.default_rng(0).normal(1000, 1, (7, 3)).astype(np.float32)
    expected = ((views[:, None] - views[None]) ** 2).sum(2)
    np.testing.assert_allclose(jax.jit(compare)(jnp.asarray(views)), expected / expected.mean(), atol=1e-4)
    np.testing.assert_array_equal(compare(jnp.ones((3, 2))), np.zeros((3, 3)))


def test_disagreement_of_similarities_by_hand():
    distances = jnp.asarray(np.random.default_rng(0).random((5, 5)), jnp.float32)
    weights, zeros = jnp.full((5, 5), 0.2, jnp.float32), jnp.zeros((5, 5), jnp.float32)
    for similarities, expected in [(3 - 2 * distances, 0), (distances, 2), (zeros, 1)]:
        assert float(disagreement(similarities, distances, weights)) == pytest.approx(expected, abs=1e-3)


def test_positives_are_the_nearest_vectors():
    vectors = np.arange(12, dtype=np.float32)[:, None] ** 2 * np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(find_nearest_vectors(vectors, 2, 0).indices[[0, 5, 11]], [[1, 2], [4, 6], [10, 9]])
    assert find_nearest_vectors(vectors[:1], 2, 0).indices.tolist() == [[0]]


def test_training_keeps_more_neighbors_than_its_start(vectors):
    start = linear()
    start.init_scaling(vectors[:2000])
    start_from_itq(start, vectors[:2000], 0)
    start.logit_mean[...] = start.code_logits(jnp.asarray(vectors[:2000])).mean(0)
    model, history = jh.fit(linear(), vectors[:2000], epochs=10, objective="keep_neighbors")
    assert history.loss[-1] < history.loss[0]
    assert kept(model, vectors) > kept(start, vectors) + 0.02


def test_grouping_draws_vectors_of_a_kind_together():
    rng = np.random.default_rng(1)
    kinds = rng.integers(8, size=800)
    vectors = (rng.standard_normal((8, 48))[kinds] + rng.standard_normal((800, 48))).astype(np.float32)
    precision = {}
    for objective in ("keep_neighbors", "group_by_kind"):
        model, _ = jh.fit(linear(), vectors, epochs=10, objective=objective)
        codes = jh.encode(model, vectors)
        found = np.asarray(jh.search(jh.build_index(codes, 16), codes, k=50).ids)
        precision[objective] = (kinds[found] == kinds[:, None]).mean()
    assert precision["group_by_kind"] > precision["keep_neighbors"] + 0.03


def test_a_trained_model_is_trained_on_from_where_it_is(vectors):
    options = {"epochs": 1, "objective": "keep_neighbors", "optimizer": optax.sgd(0.0)}
    model, _ = jh.fit(linear(), vectors[:1000], **options)
    still, _ = jh.fit(model, vectors[1000:2000], **options)  # whose principal components are others
    np.testing.assert_array_equal(still.encoder.layers[0].kernel[...], model.encoder.layers[0].kernel[...])


@pytest.mark.parametrize("objective", ["keep_neighbors", "group_by_kind"])
def test_images_are_refused(objective):
    with pytest.raises(ValueError, match=r"for vectors \[n, d\], got items of shape \(4, 6, 1\)"):
        jh.fit(jh.Autoencoder(24, 8, ()), np.zeros((9, 4, 6), np.uint8), epochs=1, objective=objective)


@pytest.mark.parametrize(
    "make",
    [
        lambda: jh.training.KeepNeighbors(bandwidth=0),
        lambda: jh.training.KeepNeighbors(num_neighbors=0),
        lambda: jh.training.GroupByKind(bandwidth=-1),
        lambda: jh.training.GroupByKind(temperature=0),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()
