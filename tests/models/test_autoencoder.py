import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxhash as jh
from jaxhash.models.code_layer import (
    LogitStatistics,
    compute_soft_signs,
    make_batch_statistics,
    round_logits,
    standardize,
)
from jaxhash.models.inputs import ITEMS_AT_ONCE


def training_bits(logits):
    return round_logits(standardize(logits, make_batch_statistics(logits.shape[1])))


@pytest.fixture(scope="module")
def model():
    return jh.Autoencoder(12, 40, (16, 8), rngs=nnx.Rngs(3))


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (30, 3, 4), dtype=np.uint8)


def test_the_posts_network_has_the_posts_number_of_parameters(capsys):
    model = jh.Autoencoder(784, 17)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == 3_508_301
    jh.summary(model)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["total", "3,508,301"]
    assert [line.split()[-1] for line in lines[2:8]] == ["785,000", "700,700", "210,300", "45,150", "11,325", "1,292"]
    assert "(n, 17)" in lines[7]


def test_a_network_without_hidden_layers_works(images):
    model = jh.Autoencoder(12, 5, ())
    assert jh.encode(model, images).shape == (30, 1)
    assert jh.reconstruct(model, images).shape == images.shape


def test_codes_are_the_signs_of_the_standardised_logits(model, images):
    logits = model.code_logits(jnp.asarray(images.reshape(30, 12), jnp.float32) / 255)
    codes = jh.encode(model, images)
    assert (codes.dtype, codes.shape) == (jnp.uint32, (30, 2))
    np.testing.assert_array_equal(jh.unpack_bits(codes, 40), logits > model.logit_mean[...][None])


def test_training_bits_split_every_batch():
    logits = 5 + 0.01 * jax.random.normal(jax.random.key(0), (1000, 8), jnp.float32)
    bits = training_bits(logits)
    assert ((bits == 0) | (bits == 1)).all()
    assert (jnp.abs(bits.mean(0) - 0.5) < 0.1).all()
    slopes = jax.grad(lambda x: (training_bits(x) * jnp.arange(8000, dtype=jnp.float32).reshape(1000, 8)).sum())(logits)
    assert jnp.isfinite(slopes).all()
    assert (jnp.abs(slopes) > 0).any()


def test_held_statistics_serve_every_batch():
    logits = jnp.array([[1.0, 2.0], [3.0, 2.0]])
    held = LogitStatistics(jnp.array([1.0, 0.0]), jnp.array([4.0, 1.0]), jnp.asarray(True))
    np.testing.assert_allclose(standardize(logits, held), [[0, 2], [1, 2]], atol=1e-4)
    np.testing.assert_allclose(
        standardize(logits, held._replace(held=jnp.asarray(False))), [[-1, 0], [1, 0]], atol=1e-4
    )


def test_soft_signs_are_what_is_rounded():
    logits = jnp.linspace(-3, 3, 12).reshape(3, 4)
    np.testing.assert_array_equal(round_logits(logits), jnp.round((compute_soft_signs(logits) + 1) / 2))


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


def test_a_batch_of_equal_images_gives_no_nan():
    assert jnp.isfinite(jax.grad(lambda x: training_bits(x).sum())(jnp.ones((4, 3), jnp.float32))).all()


def test_bytes_and_the_floats_they_stand_for_have_one_code(model, images):
    np.testing.assert_array_equal(jh.encode(model, images), jh.encode(model, images.astype(np.float32) / 255))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, jnp.bfloat16, bool])
def test_floats_of_any_width_and_bools_are_taken(model, dtype):
    images = np.eye(12).astype(dtype)
    np.testing.assert_array_equal(jh.encode(model, images), jh.encode(model, np.eye(12, dtype=np.float32)))


def test_images_keep_their_leading_shape(model, images):
    codes = jh.encode(model, images)
    np.testing.assert_array_equal(jh.encode(model, images.reshape(5, 6, 12)), codes.reshape(5, 6, 2))
    np.testing.assert_array_equal(jh.encode(model, images[0]), codes[0])
    assert jh.reconstruct(model, images.reshape(5, 6, 3, 4)).shape == (5, 6, 3, 4)
    assert jh.encode(model, images[:0]).shape == (0, 2)


def test_encoding_traces(model, images):
    codes, rebuilt = jh.encode(model, images), jh.reconstruct(model, images)
    np.testing.assert_array_equal(jax.jit(lambda x: jh.encode(model, x))(images), codes)
    np.testing.assert_array_equal(jax.jit(jh.encode)(model, images), codes)
    np.testing.assert_array_equal(jax.vmap(lambda x: jh.encode(model, x))(images), codes)
    np.testing.assert_array_equal(jax.jit(lambda: jh.encode(model, images))(), codes)
    np.testing.assert_allclose(jax.jit(jh.reconstruct)(model, images), rebuilt, rtol=1e-5)


def test_codes_do_not_depend_on_the_batch(model, rng):
    images = rng.random((ITEMS_AT_ONCE + 77, 12), np.float32)
    logits = model.code_logits(images)
    sure = np.asarray(jnp.abs(logits - model.logit_mean[...][None]) > 1e-3)  # others may round differently
    assert sure.mean() > 0.99
    whole = np.asarray(jh.unpack_bits(jh.encode(model, images), 40))
    for size in (1, 7, 256):
        part = np.asarray(jh.unpack_bits(jh.encode(model, images[:size]), 40))
        assert (part == whole[:size])[sure[:size]].all()


def test_reconstructions_come_from_the_codes_alone(model, images):
    rebuilt = np.asarray(jh.reconstruct(model, images))
    bits = jh.unpack_bits(jh.encode(model, images), 40).astype(jnp.float32)
    expected = jax.nn.sigmoid(model.output_logits(bits)).reshape(30, 3, 4)
    np.testing.assert_allclose(rebuilt, expected, rtol=1e-5)
    assert (rebuilt.min() >= 0) & (rebuilt.max() <= 1)


@pytest.mark.parametrize("activation", ["linear", "tanh", "relu", "softplus", jnp.sin])
def test_outputs_may_have_any_activation(activation, images):
    model = jh.Autoencoder(12, 6, (8,), output_activation=activation)
    vectors = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 12)
    rebuilt = jh.reconstruct(model, vectors)
    logits = model.output_logits(jh.unpack_bits(jh.encode(model, vectors), 6).astype(jnp.float32))
    function = {"linear": lambda x: x, "tanh": jnp.tanh, "relu": jax.nn.relu, "softplus": jax.nn.softplus}
    np.testing.assert_allclose(rebuilt, function.get(activation, activation)(logits), rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_with_a_value_that_is_not_finite_are_refused_by_row(model, value):
    images = np.zeros((5, 3, 4), np.float32)
    images[3, 1, 2] = value
    for call in (jh.encode, jh.reconstruct, jh.reconstruction_loss):
        with pytest.raises(ValueError, match="row 3 holds NaN or infinity"):
            call(model, images)


def test_floats_that_overflow_float32_are_refused():
    model = jh.Autoencoder(2, 3, (), output_activation="linear")
    with pytest.raises(ValueError, match="row 0"):
        jh.encode(model, np.array([[1e300, 0.0]]))


@pytest.mark.parametrize("value", [255.0, -0.5])
def test_floats_outside_the_range_of_a_sigmoid_model_are_refused(model, value):
    images = np.zeros((5, 12), np.float32)
    images[2, 0] = value
    with pytest.raises(ValueError, match=r"\[0, 1\].*row 2"):
        jh.encode(model, images)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.complex64, str, object])
def test_images_of_other_dtypes_are_refused(model, dtype):
    with pytest.raises(TypeError, match="images must be uint8"):
        jh.encode(model, np.zeros((2, 12)).astype(dtype))


@pytest.mark.parametrize("shape", [(30, 13), (30, 4, 4), (), (30,)])
def test_images_of_another_shape_are_refused(model, shape):
    with pytest.raises(ValueError, match=r"images must have shape \[..., 12\].*got \("):
        jh.encode(model, np.zeros(shape, np.uint8))


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


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="model must be an Autoencoder"):
        jh.encode("model", np.zeros((1, 12), np.uint8))


def test_one_shape_is_compiled_once(model, images, compilations):
    for _ in range(2):
        with compilations:
            jh.encode(model, images)
            jh.reconstruct(model, images)
            jh.reconstruction_loss(model, images)
    assert compilations.count == 0


def test_a_model_trained_on_floats_refuses_what_is_not_like_them(rng):
    vectors = rng.normal(size=(200, 12)).astype(np.float32)
    vectors[0, 0], vectors[0, 1] = -4.0, 4.0
    model, _ = jh.fit(jh.Autoencoder(12, 4, (8,), output_activation="linear"), vectors, epochs=1)
    jh.encode(model, vectors * 2.5)  # others of the kind may lie outside
    with pytest.raises(ValueError, match=r"must lie in \[-12, 12\] for this model, but row 3 spans"):
        jh.encode(model, np.concatenate([vectors[:3], vectors[:1] * 255]))
    with pytest.raises(TypeError, match="scaled as those this model was trained on, got dtype uint8"):
        jh.encode(model, np.zeros((2, 12), np.uint8))
    with pytest.raises(TypeError, match="uint8"):
        jax.jit(lambda images: jh.encode(model, images))(np.zeros((2, 12), np.uint8))
    jh.fit(model, vectors * 255, epochs=1)  # training anew is free to change


def test_the_input_rule_is_saved_with_the_model(rng, tmp_path):
    vectors = rng.normal(size=(50, 12)).astype(np.float32)
    model, _ = jh.fit(jh.Autoencoder(12, 4, (8,), output_activation="linear"), vectors, epochs=1)
    jh.save_model(tmp_path / "model", model)
    with pytest.raises(ValueError, match="for this model"):
        jh.encode(jh.load_model(tmp_path / "model"), vectors * 255)


def test_a_model_trained_on_bytes_takes_them_and_what_they_stand_for(rng):
    images = rng.integers(0, 256, (50, 12), dtype=np.uint8)
    model, _ = jh.fit(jh.Autoencoder(12, 4, (8,), output_activation="linear"), images, epochs=1)
    np.testing.assert_array_equal(jh.encode(model, images), jh.encode(model, np.float32(images) / 255))
    with pytest.raises(ValueError, match=r"\[0, 1\] \(or be uint8\)"):
        jh.encode(model, np.float32(images))
