import dataclasses
import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhash as jh
from jaxhash.models.code_layer import CodeLayer, make_batch_statistics
from jaxhash.training import Batch, Positives, data
from jaxhash.training.losses import contrast, mean_loss
from jaxhash.training.named_objectives import check_objective

KEY = jax.random.key(0)


def code_layer(num_bits):
    return CodeLayer(make_batch_statistics(num_bits), jnp.float32(0), "rounding")


def test_features_train_the_fine_bits_alone(rng):
    bits = jnp.asarray(rng.uniform(0, 1, (40, 20)), jnp.float32)
    features = jnp.asarray(rng.normal(size=(40, 4)), jnp.float32)
    gradient = np.asarray(jax.jit(jax.grad(jh.training.Retrieve()._features_loss))(bits, features))
    assert (gradient[:, :14] == 0).all()
    assert (gradient[:, 14:] != 0).any(axis=0).all()
    assert jh.training.Retrieve(coarse_share=1.0)._features_loss(bits, features) == 0


def test_fine_bits_are_scaled_to_weigh_a_quarter():
    deviations = np.array([2.0] * 14 + [2.0, 0.1, 30.0, 0.0], np.float32)
    factors = jh.training.Retrieve(coarse_share=0.1).scale_logits(deviations)
    assert factors.tolist() == [1] * 14 + [0.25, 4, 2.0**-6, 1]
    assert jh.training.Retrieve(coarse_share=1.0).scale_logits(deviations).tolist() == [1] * 18
    assert jh.training.Retrieve(coarse_share=0.1).scale_logits(np.zeros(18, np.float32)).tolist() == [1] * 18


def test_scaling_logits_changes_the_weights_of_bits_alone(rng):
    model = jh.Autoencoder(12, 20, (10,))
    items = rng.integers(0, 256, (50, 12), dtype=np.uint8)
    model.logit_mean[...] = jnp.asarray(rng.normal(size=20), jnp.float32)
    codes, weights = jh.encode_weighted(model, items)
    model.scale_logits(np.repeat(np.array([1, 2.0**-10], np.float32), 10))
    scaled_codes, scaled = jh.encode_weighted(model, items)
    np.testing.assert_array_equal(codes, scaled_codes)
    assert np.asarray(scaled)[:, 10:].max() == 1
    assert np.asarray(weights)[:, 10:].max() > 1


@pytest.fixture
def vectors(digits):
    return digits.train_images[:300].reshape(300, 64)  # not warped, which would take long to compile


def test_bits_of_kinds_weigh_more_after_training(vectors):
    given = jh.Autoencoder(64, 20, (16,))
    before = np.asarray(given.encoder.layers[-1].kernel[...])
    model, _ = jh.fit(given, vectors, epochs=2, objective="retrieve")
    weights = np.asarray(jh.encode_weighted(model, vectors)[1])
    assert weights[:, 14:].mean() < weights[:, :14].mean() / 2
    np.testing.assert_array_equal(given.encoder.layers[-1].kernel[...], before)


def test_only_copies_cost_anything():
    apart = jax.random.rademacher(KEY, (400, 8)).astype(jnp.float32)
    copied = apart.at[:, 5].set(-apart[:, 0])
    loss_of = jax.jit(jh.training.Retrieve(contrast_weight=0.0)._contrast_loss)
    assert loss_of(apart) == 0
    # Two entries of the matrix exceed 0.9 by 0.1.
    assert loss_of(copied) == pytest.approx(10 * 2 * 0.01 / 8, rel=1e-2)


def test_without_its_other_terms_retrieve_is_reconstruct(rng):
    model = jh.Autoencoder(12, 8, (10,))
    images = jnp.asarray(rng.integers(0, 256, (20, 3, 4, 1), dtype=np.uint8))
    plain = jh.training.Retrieve(warp=None, contrast_weight=0.0, features_weight=0.0, decorrelation=0.0)
    # Each is its own positive, so that the code logits are standardised over the same items.
    batch = Batch(images, images, jnp.zeros((20, 4), jnp.float32))
    loss, bits = jax.jit(plain)(model, batch, KEY, code_layer(8))
    expected, expected_bits = jax.jit(jh.training.Reconstruct())(model, Batch(images), KEY, code_layer(8))
    assert loss == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_array_equal(bits, expected_bits)


@pytest.mark.parametrize(("num_bits", "share"), [(1, 0.1), (2, 1.0), (33, 0.1)])
def test_any_number_of_bits_can_be_coarse_and_fine(num_bits, share, rng):
    model = jh.Autoencoder(12, num_bits, (10,))
    vectors = jnp.asarray(rng.integers(0, 256, (6, 12), dtype=np.uint8))  # no images, as warps take long to compile
    batch = Batch(vectors, vectors, jnp.asarray(rng.normal(size=(6, 5)), jnp.float32))
    objective = jh.training.Retrieve(coarse_share=share)
    loss, gradient = jax.jit(jax.value_and_grad(lambda m: objective(m, batch, KEY, code_layer(num_bits))[0]))(model)
    assert jnp.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
def test_codes_for_retrieval_find_more_of_a_kind(digits):
    def found(objective):
        model, _ = jh.fit(
            jh.Autoencoder(64, 16, (128, 64)), digits.train_images, epochs=8, batch_size=64, objective=objective
        )
        codes, queries = jh.encode(model, digits.train_images), jh.encode(model, digits.test_images)
        return jh.metrics.distance_counts(
            codes, digits.train_labels, queries, digits.test_labels, 16
        ).mean_average_precision()

    assert found("retrieve") > found("reconstruct") + 0.15


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow), 5])
def test_retrieve_trains_on_few_items_and_on_vectors(count, rng):
    vectors = rng.normal(size=(count, 6)).astype(np.float32)
    model = jh.Autoencoder(6, 4, (5,), output_activation="linear")
    _, history = jh.fit(model, vectors, epochs=2, objective="retrieve")
    assert np.isfinite(history.loss).all()


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
def test_a_user_made_warp_is_used(digits):
    shapes = []

    def warp(key, images):
        shapes.append(images.shape)
        return images

    model = jh.Autoencoder(64, 8, (16,))
    jh.fit(model, digits.train_images[:32], epochs=1, batch_size=16, objective=jh.training.Retrieve(warp=warp))
    assert set(shapes) == {(32, 8, 8, 1)}  # items and positives


def test_one_seed_gives_one_result(vectors):
    first, again, other = (
        jh.fit(jh.Autoencoder(64, 20, (16,)), vectors, epochs=2, seed=seed, objective="retrieve")[1].loss
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_objectives_are_given_by_name_or_as_objects():
    assert check_objective("reconstruct", 8) == jh.training.Reconstruct()
    assert check_objective("retrieve", 8) == jh.training.Retrieve()
    assert check_objective("keep_neighbors", 8) == jh.training.KeepNeighbors()
    assert check_objective("group_by_kind", 8) == jh.training.GroupByKind()
    assert check_objective("find_duplicates", 8) == jh.training.FindDuplicates()
    mine = jh.training.Retrieve(num_neighbors=3)
    assert check_objective(mine, 8) is mine


class Foreign:
    def find_positives(self, items, seed):
        return None

    def __call__(self, model, batch, key, layer):
        return jh.training.Reconstruct()(model, batch, key, layer)


@pytest.mark.parametrize("wrong", [None, 3, jh.training.Retrieve, Foreign()])
def test_objects_of_other_classes_are_refused_with_advice(wrong):
    with pytest.raises(
        TypeError, match=r"whose class inherits from jaxhash.training.Objective and has a __call__\(model, "
    ):
        check_objective(wrong, 8)


def test_unknown_names_of_objectives_are_refused():
    with pytest.raises(ValueError, match=r"one of reconstruct, .*, find_duplicates, got 'retreive'"):
        check_objective("retreive", 8)


def test_the_example_of_a_user_made_objective_runs():
    examples = doctest.DocTestFinder().find(jh.training.Objective, "Objective", globs={})
    assert sum(len(example.examples) for example in examples) > 5
    for example in examples:
        assert doctest.DocTestRunner(verbose=False).run(example).failed == 0


@dataclasses.dataclass(frozen=True)
class Supervised(jh.training.Objective):
    """Pulls together the codes of items with one label."""

    labels: tuple[int, ...]

    def find_positives(self, items, seed):
        labels = np.array(self.labels)
        rng = np.random.default_rng(seed)
        return Positives(
            np.stack([rng.choice(np.flatnonzero(labels == label), 5) for label in labels]).astype(np.int32)
        )

    def __call__(self, model, batch, key, layer):
        assert batch.features is None
        views = jnp.concatenate([batch.items, batch.positives]).astype(jnp.float32) / 255
        items = views.reshape(len(views), -1)
        logits = layer.normalize(model.code_logits(items))
        bits = layer.binarize(logits, key)
        loss = mean_loss(model, model.output_logits(bits), items) + contrast(jnp.tanh(logits), 0.25)
        return loss, bits[: len(batch.items)]


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
@pytest.mark.parametrize("bytes_on_device", [2**30, pytest.param(0, marks=pytest.mark.slow)])
def test_a_user_made_objective_trains_with_its_own_positives(digits, bytes_on_device, monkeypatch):
    monkeypatch.setattr(data, "BYTES_ON_DEVICE", bytes_on_device)
    objective = Supervised(tuple(digits.train_labels.tolist()))
    model, history = jh.fit(
        jh.Autoencoder(64, 16, (128, 64)), digits.train_images, epochs=10, batch_size=64, objective=objective
    )
    codes, queries = jh.encode(model, digits.train_images), jh.encode(model, digits.test_images)
    counts = jh.metrics.distance_counts(codes, digits.train_labels, queries, digits.test_labels, 16)
    assert counts.mean_average_precision() > 0.85
    assert history.loss[-1] < history.loss[0]


@dataclasses.dataclass
class Unhashable(jh.training.Objective):
    def __call__(self, model, batch, key, layer):
        return jh.training.Reconstruct()(model, batch, key, layer)


@dataclasses.dataclass(frozen=True)
class Given(jh.training.Objective):
    """Reconstructs items, and returns positives and a number of bits as given."""

    positives: str
    num_bits: int = 8

    def find_positives(self, items, seed):
        indices = np.zeros((len(items), 1), np.int32)
        return {
            "none": None,
            "array": indices,
            "short": Positives(indices[1:]),
            "floating": Positives(indices.astype(np.float32)),
            "outside": Positives(indices + len(items)),
            "empty": Positives(indices[:, :0]),
            "few features": Positives(indices, np.zeros((1, 3), np.float32)),
        }[self.positives]

    def __call__(self, model, batch, key, layer):
        loss, bits = jh.training.Reconstruct()(model, batch, key, layer)
        return loss, bits[:, : self.num_bits]


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        (Unhashable(), TypeError, "objective must be hashable, such as a frozen dataclass"),
        (Given("array"), TypeError, "must return a Positives or None, got ndarray"),
        (Given("short"), ValueError, r"integers \[20, k\], got int32\[19, 1\]"),
        (Given("floating"), ValueError, "got float32"),
        (Given("empty"), ValueError, r"got int32\[20, 0\]"),
        (Given("outside"), ValueError, r"must lie in \[0, 20\), got 20 to 20"),
        (Given("few features"), ValueError, r"features must have shape \[20, p\], got \[1, 3\]"),
        (Given("none", 7), ValueError, r"must return a loss and bits \[20, 8\], got shape \(20, 7\)"),
    ],
)
def test_what_a_user_made_objective_does_wrong_is_named(objective, error, message, digits):
    with pytest.raises(error, match=message):
        jh.fit(jh.Autoencoder(64, 8, ()), digits.train_images[:20], epochs=1, objective=objective)


def test_equal_user_made_objectives_share_their_programs(digits, compilations):
    for _ in range(2):
        with compilations:
            jh.fit(jh.Autoencoder(64, 8, (16,)), digits.train_images[:100], epochs=2, objective=Given("none"))
    assert compilations.count == 0


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="num_neighbors"):
        jh.training.Retrieve(num_neighbors=0)
    for share in (0, -0.5, 1.5):
        with pytest.raises(ValueError, match="coarse_share"):
            jh.training.Retrieve(coarse_share=share)


def test_short_codes_are_decoded_by_themselves(rng):
    model = jh.Autoencoder(12, 8, (10,))
    images = jnp.asarray(rng.integers(0, 256, (20, 3, 4, 1), dtype=np.uint8))
    loss, bits = jax.jit(jh.training.Reconstruct(short_bits=3))(model, Batch(images), KEY, code_layer(8))
    plain, same_bits = jax.jit(jh.training.Reconstruct())(model, Batch(images), KEY, code_layer(8))
    np.testing.assert_array_equal(bits, same_bits)
    alone = np.array(bits)
    alone[:, 3:] = 0.5
    outputs = np.asarray(model.output_logits(jnp.asarray(alone)), np.float64)
    items = np.asarray(images, np.float64).reshape(20, 12) / 255
    short = np.mean(np.log1p(np.exp(outputs)) - items * outputs)
    assert loss == pytest.approx(float(plain) + short, rel=1e-5)


def test_short_codes_have_a_contrast_of_their_own():
    signs = jax.random.uniform(KEY, (20, 30), jnp.float32, minval=-1, maxval=1)
    whole, short = (jax.jit(jh.training.Retrieve(short_bits=bits)._contrast_loss)(signs) for bits in (None, 7))
    alone = jax.jit(contrast)(signs[:, :7], 0.25)
    assert short == pytest.approx(float(whole + alone), rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
def test_short_bits_make_the_first_bits_a_better_code(digits):
    def short_precision(objective):
        model = jh.Autoencoder(64, 48, (128, 64))
        model, _ = jh.fit(model, digits.train_images, epochs=8, batch_size=64, objective=objective)
        codes, queries = (
            jh.codes.first_bits(jh.encode(model, x), 8) for x in (digits.train_images, digits.test_images)
        )
        return jh.metrics.distance_counts(
            codes, digits.train_labels, queries, digits.test_labels, 8
        ).mean_average_precision()

    assert short_precision(jh.training.Reconstruct(short_bits=8)) > short_precision(jh.training.Reconstruct()) + 0.03


def test_wrong_short_bits_are_refused(digits):
    for wrong, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError)):
        with pytest.raises(error, match="short_bits"):
            jh.training.Reconstruct(short_bits=wrong)
        with pytest.raises(error, match="short_bits"):
            jh.training.Retrieve(short_bits=wrong)
    with pytest.raises(ValueError, match="short_bits must be at most the model's 8 bits, got 9"):
        jh.fit(
            jh.Autoencoder(64, 8, ()), digits.train_images, epochs=1, objective=jh.training.Reconstruct(short_bits=9)
        )
