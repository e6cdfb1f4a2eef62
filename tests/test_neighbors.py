import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhash as jh
from jaxhash import neighbors
from jaxhash.neighbors import features, nearest_neighbors, principal_components


def slow_neighbors(points, k):
    """Each point's k nearest by comparing all."""
    distances = ((points[:, None] - points[None]) ** 2).sum(2)
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :k], np.sort(distances, axis=1)[:, :k]


@pytest.mark.parametrize("count", [2, 3, 40, 700])
def test_neighbors_are_those_of_comparing_all(count, rng):
    vectors = rng.normal(size=(count, 12)).astype(np.float32)  # fewer dimensions than components: nothing is lost
    k = min(5, count - 1)
    found = nearest_neighbors(vectors, k)
    points = np.asarray(features(jnp.asarray(vectors)))
    expected, distances = slow_neighbors(points.astype(np.float64), k)
    assert (found.dtype, found.shape) == (np.int32, (count, k))
    reached = ((points[found] - points[:, None]) ** 2).sum(2)
    np.testing.assert_allclose(reached, distances, rtol=1e-3, atol=1e-5)
    assert (found == expected).mean() > 0.99  # but for what rounding swaps


def test_copies_are_neighbors_and_nothing_is_its_own(rng):
    vectors = np.repeat(rng.normal(size=(50, 8)).astype(np.float32), 2, axis=0)
    found = nearest_neighbors(vectors, 3)
    assert (found[:, 0] == np.arange(100) ^ 1).all()
    assert (found != np.arange(100)[:, None]).all()


def test_neighbors_may_be_looked_for_among_some_items_only(rng, monkeypatch):
    monkeypatch.setattr(neighbors, "CANDIDATES", 64)
    vectors = rng.normal(size=(300, 6)).astype(np.float32)
    found = nearest_neighbors(vectors, 4, seed=1)
    assert len(np.unique(found)) <= 64
    assert (found != np.arange(300)[:, None]).all()
    assert all(len(set(row)) == 4 for row in found.tolist())
    assert not np.array_equal(found, nearest_neighbors(vectors, 4, seed=2))


def test_principal_components_are_the_directions_of_the_greatest_variance(rng):
    spread = np.zeros(100)
    spread[[7, 3, 50]] = 9.0, 4.0, 2.0
    vectors = (rng.normal(size=(4000, 100)) * (spread + 0.01) + 5).astype(np.float32)
    basis = principal_components(vectors)
    np.testing.assert_allclose(basis.mean, vectors.mean(0), rtol=1e-4)
    assert np.abs(basis.components[:, :3]).argmax(axis=0).tolist() == [7, 3, 50]
    np.testing.assert_allclose(basis.components.T @ basis.components, np.eye(64), atol=1e-4)


def test_features_ignore_exposure_and_have_unit_length(rng):
    images = rng.integers(0, 100, (4, 14, 21, 3), dtype=np.uint8)
    seen = features(jnp.asarray(images))
    np.testing.assert_allclose(seen, features(jnp.asarray(images * np.uint8(2))), atol=1e-6)
    np.testing.assert_allclose((seen**2).sum(1), np.full(4, 2.0), rtol=1e-5)  # of pixels, and of gradients
    assert jnp.isfinite(features(jnp.zeros((2, 5, 5, 1)))).all()


def test_gradients_tell_directions_apart():
    image = np.zeros((1, 28, 28, 1), np.float32)
    image[:, :, 14:] = 1.0  # gets brighter to the right
    gradients = np.asarray(features(jnp.asarray(image)))[0, 28 * 28 :].reshape(7, 7, 4)
    assert gradients[:, 3, 0].min() > 0
    assert gradients[:, :, 1:].max() == 0


def test_images_of_any_size_have_features():
    for shape in [(1, 1, 1), (3, 50, 2), (100, 40, 3)]:
        images = jax.random.uniform(jax.random.key(0), (2, *shape))
        assert jnp.isfinite(features(images)).all()


def test_neighbors_of_digits_mostly_share_their_label():
    digits = jh.load_dataset("digits")
    images = digits.train_images.reshape(-1, 8, 8, 1)
    found = nearest_neighbors(images, 5)
    assert (digits.train_labels[found] == digits.train_labels[:, None]).mean() > 0.93
