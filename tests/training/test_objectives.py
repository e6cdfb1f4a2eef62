import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhash as jh
from jaxhash.models.code_layer import CodeLayer, make_batch_statistics
from jaxhash.training import objectives
from jaxhash.training.objectives import contrast, correlations, inverse, objective_named, unexplained

KEY = jax.random.key(0)


def code_layer(num_bits):
    return CodeLayer(make_batch_statistics(num_bits), jnp.float32(0), "rounding")


@pytest.fixture(scope="module")
def digits():
    return jh.load_dataset("digits")


def test_contrast_of_two_pairs_by_hand():
    # Items (1, 1) and (-1, -1), each its own partner: the right likeness is 1 / T, the wrong one -1 / T.
    signs = jnp.array([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    assert contrast(signs, 0.5) == pytest.approx(np.log(1 + np.exp(-4.0)), rel=1e-4)


def test_contrast_is_the_mean_cross_entropy_of_both_directions(rng):
    signs = rng.uniform(-1, 1, (12, 5))
    likeness = signs[:6] @ signs[6:].T / 5 / 0.3
    right = [likeness[i, i] for i in range(6)]
    rows = [np.log(np.exp(likeness[i]).sum()) - right[i] for i in range(6)]
    columns = [np.log(np.exp(likeness[:, i]).sum()) - right[i] for i in range(6)]
    assert contrast(jnp.asarray(signs, jnp.float32), 0.3) == pytest.approx(np.mean(rows + columns), rel=1e-5)


def test_contrast_falls_as_partners_come_closer():
    items = jax.random.uniform(KEY, (20, 8), minval=-1, maxval=1)
    others = jax.random.uniform(jax.random.key(1), (20, 8), minval=-1, maxval=1)
    losses = [float(contrast(jnp.concatenate([items, items * s + others * (1 - s)]), 0.2)) for s in (0.0, 0.5, 1.0)]
    assert losses[0] > losses[1] > losses[2]


def test_correlations_are_those_of_numpy(rng):
    signs = rng.normal(size=(50, 6)).astype(np.float32)
    expected = np.corrcoef(signs.T) - np.eye(6)
    np.testing.assert_allclose(correlations(jnp.asarray(signs)), expected, atol=1e-5)
    np.testing.assert_array_equal(
        correlations(jnp.ones((5, 3), jnp.float32)), np.zeros((3, 3))
    )  # dead bits copy nothing


def test_what_signs_leave_unexplained_is_what_least_squares_leaves(rng):
    signs = rng.choice([-1.0, 1.0], (200, 6))
    points = signs @ rng.normal(size=(6, 9)) + rng.normal(size=(200, 9)) * np.arange(1, 10)
    centred = points - points.mean(0)
    weighted = centred / np.sqrt(centred.std(0))
    fit = np.linalg.lstsq(signs - signs.mean(0), weighted, rcond=None)[0]
    expected = ((weighted - (signs - signs.mean(0)) @ fit) ** 2).sum() / (weighted**2).sum()
    found = unexplained(jnp.asarray(signs, jnp.float32), jnp.asarray(points, jnp.float32))
    assert found == pytest.approx(expected, abs=1e-3)


def test_signs_explain_what_they_decide_and_nothing_else():
    signs = jax.random.rademacher(KEY, (400, 4)).astype(jnp.float32)
    noise = jax.random.normal(jax.random.key(1), (400, 3), jnp.float32)
    assert unexplained(signs, signs @ jnp.ones((4, 2), jnp.float32) + 5) < 0.01
    assert unexplained(signs, noise) > 0.95
    assert unexplained(jnp.repeat(signs, 3, axis=1), noise) > 0.95  # copies explain no more
    assert (
        unexplained(jnp.ones((1, 4), jnp.float32), jnp.ones((1, 3), jnp.float32)) == 0
    )  # nor is there anything about a single item


def test_the_best_map_may_be_held_still(rng, monkeypatch):
    monkeypatch.setattr(objectives, "RIDGE", 0.0)
    # At the best map the gradient through it is zero, so that of a solved least-squares problem must be the same.
    signs = jnp.asarray(rng.uniform(-1, 1, (50, 5)), jnp.float32)
    points = jnp.asarray(rng.normal(size=(50, 4)), jnp.float32)

    def solved(signs):
        signs, weighted = signs - signs.mean(0)[None], points - points.mean(0)[None]
        weighted /= jnp.sqrt(weighted.std(0))[None]
        best_map = jnp.linalg.lstsq(signs, weighted)[0]
        return ((weighted - signs @ best_map) ** 2).sum() / (weighted**2).sum()

    found, expected = jax.grad(unexplained)(signs, points), jax.grad(solved)(signs)
    np.testing.assert_allclose(found, expected, atol=0.01 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("size", [1, 2, 32, 200])
def test_inverse_is_that_of_numpy(size, rng):
    samples = rng.choice([-1.0, 1.0], (4 * size + 20, size))
    matrix = samples.T @ samples / len(samples) + 0.02 * np.eye(size)
    found = np.asarray(inverse(jnp.asarray(matrix, jnp.float32)))
    np.testing.assert_allclose(found @ matrix, np.eye(size), atol=1e-2)


def test_features_are_for_the_fine_bits_alone(rng):
    bits = jnp.asarray(rng.uniform(0, 1, (40, 20)), jnp.float32)
    points = jnp.asarray(rng.normal(size=(40, 4)), jnp.float32)
    gradient = np.asarray(jax.grad(jh.Retrieve()._features_loss)(bits, points))
    assert (gradient[:, :14] == 0).all()
    assert (gradient[:, 14:] != 0).any(axis=0).all()
    assert jh.Retrieve(coarse_share=1.0)._features_loss(bits, points) == 0


def test_only_copies_are_charged_for():
    apart = jax.random.rademacher(KEY, (400, 8)).astype(jnp.float32)
    copied = apart.at[:, 5].set(-apart[:, 0])
    silent = jh.Retrieve(contrast=0.0)
    assert silent._likeness_loss(apart) == 0
    # Two entries of the matrix exceed 0.9 by 0.1.
    assert silent._likeness_loss(copied) == pytest.approx(10 * 2 * 0.01 / 8, rel=1e-2)


def test_without_its_other_terms_retrieve_is_reconstruct(rng):
    model = jh.Autoencoder(12, 8, (10,))
    images = jnp.asarray(rng.integers(0, 256, (20, 3, 4, 1), dtype=np.uint8))
    plain = jh.Retrieve(warp=None, contrast=0.0, features=0.0, copying=0.0)
    # Beside themselves, so that the code logits are standardised over the same items.
    loss, bits = plain(model, (images, images, jnp.zeros((20, 4), jnp.float32)), KEY, code_layer(8))
    expected, expected_bits = jh.Reconstruct()(model, (images,), KEY, code_layer(8))
    assert loss == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_array_equal(bits, expected_bits)


@pytest.mark.parametrize("num_bits", [1, 2, 33])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_any_number_of_bits_can_be_split(num_bits, share, rng):
    model = jh.Autoencoder(12, num_bits, (10,))
    vectors = jnp.asarray(rng.integers(0, 256, (6, 12), dtype=np.uint8))  # no images, as warps take long to compile
    points = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    objective = jh.Retrieve(coarse_share=share)
    loss, gradient = jax.jit(
        jax.value_and_grad(lambda m: objective(m, (vectors, vectors, points), KEY, code_layer(num_bits))[0])
    )(model)
    assert jnp.isfinite(loss)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
def test_codes_for_retrieval_find_more_of_a_kind(digits):
    def found(objective):
        model, _ = jh.fit(
            jh.Autoencoder(64, 16, (128, 64)), digits.train_images, epochs=20, batch_size=64, objective=objective
        )
        codes, queries = jh.encode(model, digits.train_images), jh.encode(model, digits.test_images)
        return jh.distance_counts(codes, digits.train_labels, queries, digits.test_labels, 16).mean_average_precision()

    assert found("retrieve") > found("reconstruct") + 0.15


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
@pytest.mark.parametrize("count", [1, 2, 5])
def test_retrieve_trains_on_few_items_and_on_vectors(count, rng):
    vectors = rng.normal(size=(count, 6)).astype(np.float32)
    model = jh.Autoencoder(6, 4, (5,), output_activation="linear")
    _, history = jh.fit(model, vectors, epochs=2, objective="retrieve")
    assert np.isfinite(history.loss).all()


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
def test_a_warp_of_the_users_own_is_used(digits):
    shapes = []

    def warp(key, images):
        shapes.append(images.shape)
        return images

    model = jh.Autoencoder(64, 8, (16,))
    jh.fit(model, digits.train_images[:32], epochs=1, batch_size=16, objective=jh.Retrieve(warp=warp))
    assert set(shapes) == {(32, 8, 8, 1)}  # items and partners


def test_one_seed_gives_one_result(digits):
    first, again, other = (
        jh.fit(jh.Autoencoder(64, 8, (16,)), digits.train_images[:300], epochs=2, seed=seed, objective="retrieve")[
            1
        ].loss
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_objectives_go_by_name_or_as_they_are():
    assert objective_named("reconstruct", 8) == jh.Reconstruct()
    assert objective_named("retrieve", 8) == jh.Retrieve()
    mine = jh.Retrieve(num_neighbors=3)
    assert objective_named(mine, 8) is mine
    for wrong in ("retreive", None, 3, jh.Retrieve):
        with pytest.raises(ValueError, match="objective must be one of reconstruct, retrieve"):
            objective_named(wrong, 8)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="num_neighbors"):
        jh.Retrieve(num_neighbors=0)
    for share in (0, -0.5, 1.5):
        with pytest.raises(ValueError, match="coarse_share"):
            jh.Retrieve(coarse_share=share)


def test_short_codes_are_decoded_by_themselves(rng):
    model = jh.Autoencoder(12, 8, (10,))
    images = jnp.asarray(rng.integers(0, 256, (20, 3, 4, 1), dtype=np.uint8))
    loss, bits = jh.Reconstruct(short_bits=3)(model, (images,), KEY, code_layer(8))
    plain, same_bits = jh.Reconstruct()(model, (images,), KEY, code_layer(8))
    np.testing.assert_array_equal(bits, same_bits)
    alone = np.array(bits)
    alone[:, 3:] = 0.5
    outputs = np.asarray(model.output_logits(jnp.asarray(alone)), np.float64)
    items = np.asarray(images, np.float64).reshape(20, 12) / 255
    short = np.mean(np.log1p(np.exp(outputs)) - items * outputs)
    assert loss == pytest.approx(float(plain) + short, rel=1e-5)


def test_short_codes_feel_contrast_by_themselves():
    signs = jax.random.uniform(KEY, (20, 30), jnp.float32, minval=-1, maxval=1)
    whole, short = jh.Retrieve()._likeness_loss(signs), jh.Retrieve(short_bits=7)._likeness_loss(signs)
    assert short == pytest.approx(float(whole + contrast(signs[:, :7], 0.25)), rel=1e-5)


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
def test_training_with_short_bits_makes_the_first_bits_a_better_code(digits):
    def short_precision(objective):
        model = jh.Autoencoder(64, 48, (128, 64))
        model, _ = jh.fit(model, digits.train_images, epochs=20, batch_size=64, objective=objective)
        codes, queries = (jh.first_bits(jh.encode(model, x), 8) for x in (digits.train_images, digits.test_images))
        return jh.distance_counts(codes, digits.train_labels, queries, digits.test_labels, 8).mean_average_precision()

    assert short_precision(jh.Reconstruct(short_bits=8)) > short_precision(jh.Reconstruct()) + 0.03


def test_wrong_short_bits_are_refused(digits):
    for wrong, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError)):
        with pytest.raises(error, match="short_bits"):
            jh.Reconstruct(short_bits=wrong)
        with pytest.raises(error, match="short_bits"):
            jh.Retrieve(short_bits=wrong)
    with pytest.raises(ValueError, match="short_bits must be at most the model's 8 bits, got 9"):
        jh.fit(jh.Autoencoder(64, 8, ()), digits.train_images, epochs=1, objective=jh.Reconstruct(short_bits=9))
