import jax
import jax.numpy as jnp
import numpy as np

from jaxhash.training import positives as room
from jaxhash.training.positives import feature_points, features, principal_components


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


def test_points_are_as_far_apart_as_features(rng):
    vectors = rng.normal(size=(40, 12)).astype(np.float32)  # fewer dimensions than components: nothing is lost
    points, seen = feature_points(vectors), np.asarray(features(jnp.asarray(vectors)))
    for found in (points, seen):
        assert found.dtype == np.float32
    apart = [((found[:, None] - found[None]) ** 2).sum(2) for found in (points, seen)]
    np.testing.assert_allclose(*apart, atol=1e-5)


def test_points_of_many_items_are_seen_from_the_components_of_some(rng, monkeypatch):
    monkeypatch.setattr(room, "ITEMS_FOR_BASIS", 50)
    vectors = rng.normal(size=(300, 6)).astype(np.float32)
    assert feature_points(vectors, seed=1).shape == (300, 6)
    np.testing.assert_array_equal(feature_points(vectors, seed=1), feature_points(vectors, seed=1))
    assert not np.allclose(feature_points(vectors, seed=1), feature_points(vectors, seed=2))
