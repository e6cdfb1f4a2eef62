import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxhash as jh
from jaxhash.models import code_layer, straight_through_round
from jaxhash.models.code_layer import (
    BINARIZATIONS,
    LOGIT_GAIN,
    CodeLayer,
    LogitStatistics,
    compute_noise,
    compute_soft_signs,
    make_batch_statistics,
    noisy_sigmoid,
    round_logits,
    standardize,
    stochastic_round,
    straight_through,
)
from jaxhash.training import fitting
from jaxhash.training.epoch import run_epoch

KEY = jax.random.key(0)


def test_values_are_rounded_exactly():
    x = jnp.array([0.0, 0.2, 0.49, 0.5, 0.51, 0.999, 1.0, -0.7, 1.5, 2.5], jnp.float32)
    np.testing.assert_array_equal(straight_through_round(x), [0, 0, 0, 0, 1, 1, 1, -1, 2, 2])


def test_straight_through_values_are_exact():
    x = jnp.linspace(0, 1, 100_001, dtype=jnp.float32)
    signs = -jnp.ones_like(x)
    assert (x + (signs - x) != signs).any()
    assert (straight_through(x, signs) == signs).all()
    assert jnp.isin(straight_through_round(x), jnp.float32([0.0, 1.0])).all()


def test_the_gradient_of_rounding_is_the_identitys():
    x = jnp.array([-1.2, 0.0, 0.3, 0.5, 0.8], jnp.float32)
    np.testing.assert_array_equal(jax.vmap(jax.grad(straight_through_round))(x), jnp.ones(5))
    weights = jnp.float32([3.0, -1.0, 2.0, 0.5, 7.0])
    np.testing.assert_array_equal(jax.grad(lambda x: (weights * straight_through_round(x)).sum())(x), weights)


def test_gradients_pass_through_rounding():
    slope = jax.grad(lambda x: straight_through_round(jax.nn.sigmoid(x)))
    np.testing.assert_array_equal(slope(0.4), jax.grad(jax.nn.sigmoid)(0.4))


def test_stochastic_bits_are_set_with_their_probabilities():
    probabilities = jnp.tile(jnp.float32([0.0, 0.1, 0.5, 0.8, 1.0]), (20_000, 1))
    bits = stochastic_round(probabilities, KEY)
    assert jnp.isin(bits, jnp.float32([0.0, 1.0])).all()
    deviation = np.sqrt(0.25 / 20_000)
    np.testing.assert_allclose(bits.mean(0), probabilities[0], atol=5 * deviation)
    np.testing.assert_array_equal(bits[:, [0, 4]], probabilities[:, [0, 4]])


def test_stochastic_bits_have_the_gradient_of_their_mean():
    weights, probabilities = jnp.float32([3.0, -1.0, 0.5]), jnp.float32([0.2, 0.5, 0.9])
    slope = jax.grad(lambda p: (weights * stochastic_round(p, KEY)).sum())(probabilities)
    np.testing.assert_array_equal(slope, weights)


def test_noise_is_added_before_the_sigmoid():
    x = jnp.zeros(50_000, jnp.float32)
    inputs = jax.scipy.special.logit(noisy_sigmoid(x + 0.5, jnp.float32(2.0), KEY))
    assert inputs.mean() == pytest.approx(0.5, abs=0.05)
    assert inputs.std() == pytest.approx(2.0, rel=0.02)


def test_without_noise_the_noisy_sigmoid_is_the_sigmoid():
    x = jnp.linspace(-4, 4, 9, dtype=jnp.float32)
    nothing = jnp.float32(0.0)
    np.testing.assert_array_equal(noisy_sigmoid(x, nothing, KEY), jax.nn.sigmoid(x))
    slope = jax.grad(lambda x: noisy_sigmoid(x, nothing, KEY).sum())(x)
    share = 1 / (1 + np.exp(-np.arange(-4.0, 5.0)))
    np.testing.assert_allclose(slope, share * (1 - share), rtol=1e-5)


def test_noise_grows_linearly_with_the_epochs():
    noises = [compute_noise(epoch, 5) for epoch in range(1, 6)]
    np.testing.assert_allclose(np.diff(noises), noises[0])
    assert noises[-1] == compute_noise(1, 1) == code_layer.MAX_NOISE


def test_each_epoch_has_its_own_noise(monkeypatch, digits):
    noises = []

    def record(*arguments):
        (layer,) = (argument for argument in arguments if isinstance(argument, CodeLayer))
        noises.append(float(layer.noise))
        return run_epoch(*arguments)

    monkeypatch.setattr(fitting, "run_epoch", record)
    jh.fit(jh.Autoencoder(64, 8, (16,)), digits.train_images[:200], epochs=4, binarization="gaussian_noise")
    np.testing.assert_allclose(noises, code_layer.MAX_NOISE * np.array([0.25, 0.5, 0.75, 1.0]))


def binarize(binarization, logits, key=KEY, noise=1.0):
    return CodeLayer(make_batch_statistics(logits.shape[1]), jnp.float32(noise), binarization).binarize(logits, key)


def test_each_binarization_is_the_function_of_its_name():
    logits = jax.random.normal(jax.random.key(1), (200, 8), jnp.float32)
    np.testing.assert_array_equal(binarize("rounding", logits), round_logits(logits))
    np.testing.assert_array_equal(binarize("gaussian_noise", logits, noise=0), jax.nn.sigmoid(LOGIT_GAIN * logits))
    bits = binarize("stochastic", logits)
    np.testing.assert_array_equal(bits, stochastic_round(jax.nn.sigmoid(LOGIT_GAIN * logits), KEY))
    assert 0.7 < (bits == round_logits(logits)).mean() < 0.95


@pytest.mark.parametrize("binarization", BINARIZATIONS)
def test_the_key_alone_decides_random_bits(binarization):
    logits = jax.random.normal(jax.random.key(1), (20, 8), jnp.float32)
    first, same, other = (binarize(binarization, logits, jax.random.key(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, same)
    assert np.array_equal(first, other) == (binarization == "rounding")


@pytest.mark.parametrize(
    ("objective", "binarizations"),
    [
        ("reconstruct", BINARIZATIONS),
        pytest.param("retrieve", ("rounding", "stochastic"), marks=pytest.mark.slow),
    ],
)
def test_each_binarization_trains_codes_of_its_own(objective, binarizations, digits):
    vectors = digits.train_images[:400].reshape(400, 64)  # warps of images take long to compile

    def trained(binarization):
        options = {"epochs": 4, "batch_size": 64, "objective": objective, "binarization": binarization}
        model, history = jh.fit(jh.Autoencoder(64, 16, (48, 32)), vectors, **options)
        return history, np.asarray(jh.encode(model, vectors))

    found = {name: trained(name) for name in binarizations}
    assert len({history.loss for history, _ in found.values()}) == len(binarizations)
    for history, codes in found.values():
        assert history.loss[-1] < history.loss[0]
        assert len(np.unique(codes)) > 100
    history, codes = trained("stochastic")
    assert history == found["stochastic"][0]
    np.testing.assert_array_equal(codes, found["stochastic"][1])


def test_the_history_counts_the_codes_that_encode_returns():
    # Without learning, bits in training differ from those of `encode` only by the mean of a batch.
    images = np.repeat(np.eye(8, dtype=np.float32), 50, axis=0)
    model = jh.Autoencoder(8, 6, ())
    for binarization in BINARIZATIONS:
        _, history = jh.fit(
            model, images, epochs=1, batch_size=400, optimizer=optax.sgd(0.0), binarization=binarization
        )
        assert history.num_codes[0] <= 8  # samples and noise would give many more


def test_unknown_binarizations_are_refused():
    for wrong in ("rounded", None, 3, ["rounding"]):
        with pytest.raises(ValueError, match="binarization must be one of rounding, gaussian_noise, stochastic, got"):
            jh.fit(jh.Autoencoder(4, 2, ()), np.zeros((4, 4), np.uint8), epochs=1, binarization=wrong)


def test_logits_are_standardized_unless_noise_is_added():
    logits = 5 + 3 * jax.random.normal(KEY, (500, 4), jnp.float32)
    for binarization, deviation in (("rounding", 1.0), ("stochastic", 1.0), ("gaussian_noise", 3.0)):
        normalized = CodeLayer(make_batch_statistics(4), jnp.float32(1.0), binarization).normalize(logits)
        np.testing.assert_allclose(normalized.mean(0), np.zeros(4), atol=1e-4)
        np.testing.assert_allclose(normalized.std(0), np.full(4, deviation), rtol=0.1)


def make_training_bits(logits):
    return round_logits(standardize(logits, make_batch_statistics(logits.shape[1])))


def test_training_bits_split_every_batch():
    logits = 5 + 0.01 * jax.random.normal(jax.random.key(0), (1000, 8), jnp.float32)
    bits = np.asarray(jax.jit(make_training_bits)(logits))
    assert ((bits == 0) | (bits == 1)).all()
    assert (np.abs(bits.mean(0) - 0.5) < 0.1).all()
    factors = np.arange(8000, dtype=np.float32).reshape(1000, 8)
    slopes = np.asarray(jax.jit(jax.grad(lambda x: (make_training_bits(x) * factors).sum()))(logits))
    assert np.isfinite(slopes).all()
    assert (np.abs(slopes) > 0).any()


def test_held_statistics_serve_every_batch():
    logits = jnp.array([[1.0, 2.0], [3.0, 2.0]])
    held = LogitStatistics(jnp.array([1.0, 0.0]), jnp.array([4.0, 1.0]), jnp.asarray(True))
    np.testing.assert_allclose(standardize(logits, held), [[0, 2], [1, 2]], atol=1e-4)
    np.testing.assert_allclose(
        standardize(logits, held._replace(held=jnp.asarray(False))), [[-1, 0], [1, 0]], atol=1e-4
    )


def test_soft_signs_round_to_the_bits_of_round_logits():
    logits = jnp.linspace(-3, 3, 12).reshape(3, 4)
    np.testing.assert_array_equal(round_logits(logits), jnp.round((compute_soft_signs(logits) + 1) / 2))


def test_a_batch_of_equal_images_has_finite_gradients():
    gradient = jax.jit(jax.grad(lambda x: make_training_bits(x).sum()))(jnp.ones((4, 3), jnp.float32))
    assert np.isfinite(gradient).all()
