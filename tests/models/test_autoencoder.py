import jax
import numpy as np
import pytest
from flax import nnx

import jaxhash as jh


def test_the_posts_network_has_the_posts_number_of_parameters():
    model = jh.Autoencoder(784, 17)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == 3_508_301
    lines = jh.models.summary(model).splitlines()
    assert lines[-1].split() == ["total", "3,508,301"]
    assert [line.split()[-1] for line in lines[2:8]] == ["785,000", "700,700", "210,300", "45,150", "11,325", "1,292"]
    assert "(n, 17)" in lines[7]


def test_a_network_without_hidden_layers_works():
    model, images = jh.Autoencoder(12, 5, ()), np.zeros((30, 3, 4), np.uint8)
    assert jh.encode(model, images).shape == (30, 1)
    assert jh.reconstruct(model, images).shape == images.shape


def test_outputs_start_at_the_items_mean_unless_trained():
    model = jh.Autoencoder(3, 4, (5,))
    model.init_output_bias(np.array([0.25, 0.5, 0.0]))
    start = np.asarray(model.output_bias[...])
    np.testing.assert_allclose(jax.nn.sigmoid(start), [0.25, 0.5, 0.001], rtol=1e-5)
    model.init_output_bias(np.array([0.9, 0.9, 0.9]))
    np.testing.assert_array_equal(model.output_bias[...], start)
    linear = jh.Autoencoder(2, 4, (5,), output_activation="linear")
    linear.init_output_bias(np.array([-7.0, 7.0]))
    np.testing.assert_array_equal(linear.output_bias[...], [-7.0, 7.0])


def test_vectors_train_alike_whatever_their_mean_and_scale():
    vectors = np.random.default_rng(0).integers(-8, 8, (64, 6)).astype(np.float32)
    moved = 4 * vectors + 64  # exact, and so are the means of 64 rows
    fits = [jh.fit(jh.Autoencoder(6, 5, (), output_activation="linear"), v, epochs=3) for v in (vectors, moved)]
    (one, one_history), (other, other_history) = fits
    np.testing.assert_array_equal(jh.encode(other, moved), jh.encode(one, vectors))
    np.testing.assert_allclose(other_history.loss, one_history.loss, rtol=1e-4)
    np.testing.assert_allclose(jh.reconstruct(other, moved), 4 * jh.reconstruct(one, vectors) + 64, atol=1e-3)


def test_the_first_vectors_scale_a_model():
    vectors = np.random.default_rng(0).normal(3, 0.5, (64, 6)).astype(np.float32)
    model, _ = jh.fit(jh.Autoencoder(6, 5, (), output_activation="linear"), vectors, epochs=1)
    np.testing.assert_allclose(model.input_shift[...], vectors.mean(0), rtol=1e-6)
    np.testing.assert_allclose(model.input_scale[...], (vectors - vectors.mean(0)).std(), rtol=1e-5)
    again, _ = jh.fit(model, 2 * vectors, epochs=1)
    np.testing.assert_array_equal(again.input_shift[...], model.input_shift[...])
    np.testing.assert_array_equal(again.input_scale[...], model.input_scale[...])


def test_vectors_that_are_all_the_same_are_not_divided_by_zero():
    model = jh.Autoencoder(2, 3, (), output_activation="linear")
    model.init_scaling(np.full((4, 2), 7, np.float32))
    assert (model.input_shift[...].tolist(), float(model.input_scale[...])) == ([7, 7], 1)
    model.init_output_bias(np.full(2, 7.0))
    assert not model.output_bias[...].any()


@pytest.mark.parametrize(("activation", "dtype"), [("linear", np.uint8), ("sigmoid", np.float32)])
def test_bytes_and_pixels_are_not_scaled(activation, dtype):
    model = jh.Autoencoder(2, 3, (), output_activation=activation)
    model.init_scaling(np.ones((4, 2), dtype))
    assert not model.is_scaled


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((0, 17), {}, ValueError),
        ((784, 0), {}, ValueError),
        ((784, True), {}, TypeError),
        ((784.0, 17), {}, TypeError),
        ((784, 17, (10, 0)), {}, ValueError),
        ((784, 17, (10, 2.5)), {}, TypeError),
        ((784, 17, ()), {"output_activation": "sigmoidal"}, ValueError),
    ],
)
def test_impossible_networks_are_refused(arguments, options, error):
    with pytest.raises(error, match="must"):
        jh.Autoencoder(*arguments, **options)
