import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxhash as jh
from jaxhash.training.pretraining import Machine, apply_below, contrastive_divergence, sample_hidden, train_layer

KEY = jax.random.key(0)
compiled_divergence = jax.jit(contrastive_divergence, static_argnums=(2, 3))
SMALL = {"input_dim": 64, "num_bits": 12, "hidden_dims": (48, 32)}
ONCE = {"epochs": 1, "batch_size": 64}


@pytest.fixture(scope="module")
def images():
    return jh.load_dataset("digits").train_images[:600]


def arrays(model):
    return [np.array(leaf) for leaf in jax.tree.leaves(nnx.state(model))]


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


MEANS = {"sigmoid": sigmoid, "linear": lambda x: x, "relu": lambda x: np.maximum(x, 0)}


@pytest.mark.parametrize(("visible", "hidden"), [("sigmoid", "relu"), ("linear", "relu"), ("relu", "sigmoid")])
def test_one_step_of_divergence_is_that_of_numpy(visible, hidden, rng):
    kernel, visible_bias, hidden_bias, data = (
        rng.normal(size=shape).astype(np.float32) for shape in [(4, 3), (4,), (3,), (6, 4)]
    )
    machine = Machine(*map(jnp.asarray, (kernel, visible_bias, hidden_bias)))
    direction, error = compiled_divergence(machine, jnp.asarray(data), visible, hidden, KEY)
    given = data @ kernel + hidden_bias
    sample = np.asarray(sample_hidden(hidden, jnp.asarray(given), KEY))
    back = MEANS[visible](sample @ kernel.T + visible_bias)
    of_data, of_back = MEANS[hidden](given), MEANS[hidden](back @ kernel + hidden_bias)
    expected = Machine(-(data.T @ of_data - back.T @ of_back) / 6, -(data - back).mean(0), -(of_data - of_back).mean(0))
    for found, wanted in zip(direction, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert error == pytest.approx(((back - data) ** 2).mean(), rel=1e-4)


def test_the_layers_below_are_applied_as_in_the_encoder(images):
    model = jh.Autoencoder(**SMALL)
    below = [(layer.kernel[...], layer.bias[...] - 0.1) for layer in model.encoder.layers[:2]]
    found = expected = images[:9].reshape(9, 64).astype(np.float32) / 255
    for kernel, bias in below:
        expected = np.maximum(expected @ np.asarray(kernel) + np.asarray(bias), 0)
    assert (expected == 0).any()
    np.testing.assert_allclose(apply_below(jnp.asarray(found), below), expected, atol=1e-5)


def test_data_reconstructed_exactly_give_no_step():
    machine = Machine(jnp.zeros((3, 2)), jnp.array([0.5, -1.0, 2.0]), jnp.array([0.3, -0.3]))
    direction, error = compiled_divergence(machine, jnp.tile(machine.visible_bias, (5, 1)), "linear", "relu", KEY)
    assert error == 0
    assert all((part == 0).all() for part in direction)


def test_samples_have_the_means_and_spreads_of_their_units():
    inputs = jnp.tile(jnp.array([-1.0, 0.5, 30.0]), (50_000, 1))
    binary, rectified = sample_hidden("sigmoid", inputs, KEY), sample_hidden("relu", inputs, KEY)
    assert jnp.isin(binary, jnp.array([0.0, 1.0])).all()
    np.testing.assert_allclose(binary.mean(0), sigmoid(np.array([-1, 0.5, 30])), atol=0.01)
    assert (rectified >= 0).all()
    assert rectified[:, 2].mean() == pytest.approx(30, abs=0.05)  # far above zero nothing is cut off
    assert rectified[:, 2].std() == pytest.approx(1, abs=0.02)
    assert (rectified[:, 0] == 0).mean() == pytest.approx(0.973, abs=0.01)  # the noise stays below 1 / .52 deviations


def test_each_layer_learns_to_reconstruct_its_inputs(images):
    model = jh.Autoencoder(**SMALL)
    items = images.reshape(-1, 64)
    for layer in range(3):
        errors = train_layer(model, layer, items, 8, 64, 0)
        assert errors[-1] < 0.8 * errors[0]


def test_the_decoder_mirrors_the_encoder(images):
    model = jh.training.pretrain(jh.Autoencoder(**SMALL), images, **ONCE)
    for down, up in zip(model.encoder.layers, reversed(model.decoder.layers), strict=True):
        np.testing.assert_array_equal(down.kernel[...].T, up.kernel[...])
        assert up.bias[...].any()


def test_the_stack_reconstructs_before_any_fit(images):
    model = jh.Autoencoder(**SMALL)
    losses = [
        jh.training.reconstruction_loss(jh.training.pretrain(model, images, epochs=epochs, batch_size=64), images)
        for epochs in (1, 15)
    ]
    assert losses[1] < losses[0] < jh.training.reconstruction_loss(model, images)


def test_fit_starts_lower_after_pretraining(images):
    options = {"epochs": 2, "batch_size": 64}
    model = jh.Autoencoder(**SMALL)
    started = jh.training.pretrain(model, images, epochs=10, batch_size=64)
    assert jh.fit(started, images, **options)[1].loss[0] < jh.fit(model, images, **options)[1].loss[0]


def test_the_given_model_stays_and_one_seed_gives_one_result(images):
    model = jh.Autoencoder(**SMALL)
    before = arrays(model)
    first, again, other = (jh.training.pretrain(model, images, **ONCE, seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(before, arrays(model), strict=True))
    assert equal(first, again)
    assert not equal(first, other)


def test_vectors_train_gaussian_units(rng):
    vectors = (rng.normal(size=(300, 2)) @ rng.normal(size=(2, 8)) + 3).astype(np.float32)
    model = jh.Autoencoder(8, 6, (16,), output_activation="linear")
    started = jh.training.pretrain(model, vectors, epochs=1)
    errors = train_layer(started, 0, vectors, 30, 50, 0)
    assert errors[-1] < 0.5 * errors[0]


def test_layers_compile_once_for_each_shape(images, compilations):
    for epochs in (1, 3):
        with compilations:
            jh.training.pretrain(jh.Autoencoder(**SMALL), images, epochs=epochs, batch_size=64)
    assert compilations.count == 0


def test_wrong_models_images_and_numbers_are_refused():
    images = np.zeros((4, 64), np.uint8)
    with pytest.raises(TypeError, match="dense Autoencoder, got ConvAutoencoder"):
        jh.training.pretrain(jh.ConvAutoencoder((4, 4), 4, (2,), ()), images, epochs=1)
    with pytest.raises(TypeError, match="dense Autoencoder, got str"):
        jh.training.pretrain("model", images, epochs=1)
    with pytest.raises(ValueError, match="must be sigmoid or linear to pre-train, got 'tanh'"):
        jh.training.pretrain(jh.Autoencoder(**SMALL, output_activation="tanh"), images, epochs=1)
    with pytest.raises(ValueError, match="at least one image"):
        jh.training.pretrain(jh.Autoencoder(**SMALL), images[:0], epochs=1)
    for wrong in ({"epochs": 0}, {"epochs": 1, "batch_size": 0}, {"epochs": 1, "seed": -1}):
        with pytest.raises(ValueError, match=r"epochs|batch_size|seed"):
            jh.training.pretrain(jh.Autoencoder(**SMALL), images, **wrong)
