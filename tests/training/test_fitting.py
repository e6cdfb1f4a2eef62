import jax
import numpy as np
import optax
import pytest
from flax import nnx

import jaxhash as jh
from jaxhash.index.hash_index import sorted_arrays

OPTIMIZER = optax.nadam(1e-3)
SMALL = {"input_dim": 64, "num_bits": 16, "hidden_dims": (48, 32)}


@pytest.fixture(scope="module")
def few(digits):
    """Two batches of 64 images; two epochs of them are one program for all tests."""
    return digits.train_images[:128]


@pytest.fixture(scope="module")
def trained(digits):
    return jh.fit(jh.Autoencoder(**SMALL), digits.train_images, epochs=25, batch_size=64)


def weights(model):
    return jax.tree.leaves(nnx.state(model))


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def test_training_on_digits_keeps_all_bits_alive(trained, digits):
    model, history = trained
    assert len(history.loss) == 25
    assert history.loss[-1] < 0.75 * history.loss[0]
    bits = np.asarray(jh.unpack_bits(jh.encode(model, digits.train_images), 16))
    assert (np.abs(bits.mean(0) - 0.5) < 0.35).all()
    index = jh.build_index(jh.encode(model, digits.train_images), 16)
    assert jh.describe(index).num_codes > 400
    found = jh.search(index, jh.encode(model, digits.test_images), k=10)
    assert jh.metrics.vote_accuracy(found.ids, digits.train_labels, digits.test_labels) > 0.8
    assert len(sorted_arrays(index)[2]) == len(digits.train_images)


def test_stored_mean_is_that_of_the_training_images(digits):
    model, _ = jh.fit(jh.Autoencoder(**SMALL), digits.train_images, epochs=1)
    logits = model.code_logits(np.float32(digits.train_images.reshape(-1, 64)) / 255)
    np.testing.assert_allclose(model.logit_mean[...], logits.mean(0), rtol=1e-4, atol=1e-4)


def test_the_last_epoch_keeps_the_mean_it_started_with(digits):
    def trained(epochs):  # by a rate that does not depend on the number of epochs
        return jh.fit(jh.Autoencoder(**SMALL), digits.train_images, epochs=epochs, optimizer=OPTIMIZER)[0]

    once, twice = trained(1), trained(2)
    np.testing.assert_allclose(twice.logit_mean[...], once.logit_mean[...], rtol=1e-5, atol=1e-6)
    assert not equal(once, twice)


def test_retrieve_measures_the_mean_after_training(digits):
    vectors = digits.train_images.reshape(-1, 64)
    model, _ = jh.fit(jh.Autoencoder(**SMALL), vectors, epochs=2, optimizer=OPTIMIZER, objective="retrieve")
    logits = model.code_logits(np.float32(vectors) / 255)
    np.testing.assert_allclose(model.logit_mean[...], logits.mean(0), rtol=1e-4, atol=1e-4)


def test_reconstruction_loss_is_the_mean_cross_entropy(trained, digits):
    model, history = trained
    x = np.float64(digits.test_images) / 255
    p = np.clip(np.asarray(jh.reconstruct(model, digits.test_images), np.float64), 1e-7, 1 - 1e-7)
    expected = -(x * np.log(p) + (1 - x) * np.log1p(-p)).mean()
    assert jh.training.reconstruction_loss(model, digits.test_images) == pytest.approx(expected, rel=1e-3)
    assert jh.training.reconstruction_loss(model, digits.train_images) == pytest.approx(history.loss[-1], rel=0.1)


def test_other_outputs_train_on_squared_error(rng):
    vectors = rng.normal(size=(256, 64)).astype(np.float32)
    model = jh.Autoencoder(**SMALL, output_activation="linear")
    better, _ = jh.fit(model, vectors, epochs=30)
    expected = ((np.asarray(jh.reconstruct(better, vectors)) - vectors) ** 2).mean()
    assert jh.training.reconstruction_loss(better, vectors) == pytest.approx(expected, rel=1e-4)
    assert expected < jh.training.reconstruction_loss(model, vectors)


def test_the_given_model_stays_as_it_is(few):
    model = jh.Autoencoder(**SMALL)
    before = [np.array(leaf) for leaf in weights(model)]
    better, _ = jh.fit(model, few, epochs=2, batch_size=64)
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(model), strict=True))
    assert not equal(better, model)


def test_one_seed_gives_one_result_and_another_seed_another(few):
    first, second, other = (
        jh.fit(jh.Autoencoder(**SMALL), few, epochs=2, batch_size=64, seed=seed)[0] for seed in (0, 0, 1)
    )
    assert equal(first, second)
    assert not equal(first, other)
    rng_model = jh.Autoencoder(**SMALL, rngs=nnx.Rngs(5))
    assert not equal(rng_model, jh.Autoencoder(**SMALL))


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
def test_every_image_is_trained_on_in_every_epoch():
    # Each image has a pixel of its own; with plain SGD only the images trained on move that pixel's weights.
    images = np.eye(11, dtype=np.float32)
    model = jh.Autoencoder(11, 4, ())
    trained, _ = jh.fit(model, images, epochs=1, batch_size=4, optimizer=optax.sgd(0.1))
    before, after = (np.asarray(m.encoder.layers[0].kernel[...]) for m in (model, trained))
    assert (before != after).any(axis=1).all()


def test_any_optax_optimizer_trains(digits):
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(3e-3))
    _, history = jh.fit(jh.Autoencoder(**SMALL), digits.train_images, epochs=4, batch_size=64, optimizer=optimizer)
    assert history.loss[-1] < history.loss[0]


def test_each_epoch_is_reported(few):
    seen = []
    _, history = jh.fit(
        jh.Autoencoder(**SMALL),
        few,
        epochs=2,
        batch_size=64,
        on_epoch=lambda epoch, so_far: seen.append((epoch, so_far.loss)),
    )
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert [losses for _, losses in seen] == [history.loss[:1], history.loss]


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
@pytest.mark.parametrize("count", [1, 3])
def test_fewer_images_than_a_batch_are_enough(count, digits):
    model, history = jh.fit(jh.Autoencoder(**SMALL), digits.train_images[:count], epochs=2)
    assert np.isfinite(history.loss).all()
    assert jh.encode(model, digits.train_images[:count]).shape == (count, 1)


def test_one_constant_image_trains_with_a_warning_of_dead_bits():
    with pytest.warns(
        jh.training.CodeWarning, match=r"16 are the same for all images .*1 distinct codes for 50 images"
    ):
        _, history = jh.fit(jh.Autoencoder(**SMALL), np.full((50, 64), 128, np.uint8), epochs=2)
    assert np.isfinite(history.loss).all()


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
def test_equal_images_have_one_code_in_training():
    # All zero, since other products may round differently in the last rows of a batch.
    _, history = jh.fit(jh.Autoencoder(64, 16, ()), np.zeros((50, 64), np.uint8), epochs=2)
    assert history.num_codes == (1, 1)
    assert history.dead_bits == (16, 16)


def test_the_history_describes_the_codes(trained, digits):
    model, history = trained
    codes = jh.encode(model, digits.train_images)
    # While training, the weights move between batches; at the end they hardly do.
    assert history.num_codes[-1] == pytest.approx(jh.codes.bit_statistics(codes, 16).num_codes, rel=0.2)
    assert len(history.num_codes) == len(history.entropy) == len(history.dead_bits) == 25
    assert history.dead_bits[-1] == 0
    assert history.entropy[-1] > 0.9


def test_divergence_is_an_error_that_names_epoch_and_step(digits):
    images = digits.train_images[:128]
    with pytest.raises(jh.training.DivergenceError, match=r"epoch \d+, step \d+.*learning rate"):
        jh.fit(jh.Autoencoder(**SMALL), images, epochs=3, batch_size=16, optimizer=optax.sgd(1e30))


def test_divergence_leaves_the_last_good_model(digits):
    images = digits.train_images[:128]
    epochs = {"epochs": 2, "batch_size": 64}
    # Two good steps, then a learning rate that overflows: the second epoch diverges.
    optimizer = optax.sgd(lambda step: jax.numpy.where(step < 2, 0.1, 1e30))
    with pytest.raises(jh.training.DivergenceError, match="epoch 2") as caught:
        jh.fit(jh.Autoencoder(**SMALL), images, **epochs, optimizer=optimizer)
    good, history = jh.fit(jh.Autoencoder(**SMALL), images, epochs=1, batch_size=64, optimizer=optax.sgd(0.1))
    assert equal(caught.value.model, good)
    assert caught.value.history == history


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"epochs": 0}, ValueError),
        ({"epochs": 1.5}, TypeError),
        ({"epochs": 1, "batch_size": 0}, ValueError),
        ({"epochs": 1, "seed": -1}, ValueError),
        ({"epochs": 1, "seed": "0"}, TypeError),
    ],
)
def test_wrong_numbers_are_refused(options, error):
    with pytest.raises(error, match=r"epochs|batch_size|seed"):
        jh.fit(jh.Autoencoder(**SMALL), np.zeros((4, 64), np.uint8), **options)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        jh.fit(jh.Autoencoder(**SMALL), np.zeros((0, 64), np.uint8), epochs=1)


def test_images_with_nan_are_refused():
    images = np.zeros((4, 64), np.float32)
    images[2, 5] = np.nan
    with pytest.raises(ValueError, match="row 2"):
        jh.fit(jh.Autoencoder(**SMALL), images, epochs=1)


def test_fitting_again_compiles_nothing(few, compilations):
    for _ in range(2):
        with compilations:
            jh.fit(jh.Autoencoder(**SMALL), few, epochs=2, batch_size=64)
    assert compilations.count == 0
