import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhash.training import positives
from jaxhash.training.positives import (
    compute_basis,
    compute_features,
    find_neighbors,
    find_similar,
    keep_mutual,
)

# One program for each shape, not one for each operation.
compute_raw_features = jax.jit(positives.compute_raw_features)


def test_principal_components_have_the_greatest_variance(rng):
    spread = np.zeros(100)
    spread[[7, 3, 50]] = 9.0, 4.0, 2.0
    vectors = (rng.normal(size=(4000, 100)) * (spread + 0.01) + 5).astype(np.float32)
    basis = compute_basis(vectors)
    np.testing.assert_allclose(basis.mean, vectors.mean(0), rtol=1e-4)
    assert np.abs(basis.components[:, :3]).argmax(axis=0).tolist() == [7, 3, 50]
    np.testing.assert_allclose(basis.components.T @ basis.components, np.eye(64), atol=1e-4)


def test_features_ignore_exposure_and_have_unit_length(rng):
    images = rng.integers(0, 100, (4, 14, 21, 3), dtype=np.uint8)
    found = compute_raw_features(jnp.asarray(images))
    np.testing.assert_allclose(found, compute_raw_features(jnp.asarray(images * np.uint8(2))), atol=1e-6)
    np.testing.assert_allclose((found**2).sum(1), np.full(4, 2.0), rtol=1e-5)  # of pixels, and of gradients
    assert jnp.isfinite(compute_raw_features(jnp.zeros((2, 5, 5, 1)))).all()


def test_gradients_depend_on_direction():
    image = np.zeros((1, 28, 28, 1), np.float32)
    image[:, :, 14:] = 1.0  # gets brighter to the right
    gradients = np.asarray(compute_raw_features(jnp.asarray(image)))[0, 28 * 28 :].reshape(7, 7, 4)
    assert gradients[:, 3, 0].min() > 0
    assert gradients[:, :, 1:].max() == 0


def test_images_of_any_size_have_features():
    for shape in [(1, 1, 1), (3, 50, 2), (100, 40, 3)]:
        images = jax.random.uniform(jax.random.key(0), (2, *shape))
        assert jnp.isfinite(compute_raw_features(images)).all()


def test_all_principal_components_keep_distances(rng):
    vectors = rng.normal(size=(40, 12)).astype(np.float32)  # fewer dimensions than components
    features, raw = compute_features(vectors), np.asarray(compute_raw_features(jnp.asarray(vectors)))
    for found in (features, raw):
        assert found.dtype == np.float32
    apart = [((found[:, None] - found[None]) ** 2).sum(2) for found in (features, raw)]
    np.testing.assert_allclose(*apart, atol=1e-5)


def test_the_seed_chooses_the_items_for_the_basis(rng, monkeypatch):
    monkeypatch.setattr(positives, "ITEMS_FOR_BASIS", 50)
    vectors = rng.normal(size=(300, 6)).astype(np.float32)
    assert compute_features(vectors, seed=1).shape == (300, 6)
    np.testing.assert_array_equal(compute_features(vectors, seed=1), compute_features(vectors, seed=1))
    assert not np.allclose(compute_features(vectors, seed=1), compute_features(vectors, seed=2))


def slow_neighbors(points, k):
    """Each point's k nearest by comparing all, and their squared distances."""
    distances = ((points[:, None] - points[None]) ** 2).sum(2)
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :k], np.sort(distances, axis=1)[:, :k]


@pytest.mark.parametrize("count", [2, 3, 40, 700])
def test_neighbors_are_those_of_a_full_comparison(count, rng):
    points = rng.normal(size=(count, 12)).astype(np.float32)
    k = min(5, count - 1)
    found = find_neighbors(points, k)
    expected, distances = slow_neighbors(points.astype(np.float64), k)
    assert (found.dtype, found.shape) == (np.int32, (count, k))
    reached = ((points[found] - points[:, None]) ** 2).sum(2)
    np.testing.assert_allclose(reached, distances, rtol=1e-3, atol=1e-5)
    assert (found == expected).mean() > 0.99  # the rest are near ties


def test_neighbors_are_found_under_debugging_of_infinities(rng):
    with jax.debug_infs(True):
        found = find_neighbors(rng.normal(size=(30, 4)).astype(np.float32), 3, seed=0)
    assert found.shape == (30, 3)


def test_copies_are_neighbors_and_no_item_is_its_own(rng):
    vectors = np.repeat(rng.normal(size=(50, 8)).astype(np.float32), 2, axis=0)
    found = find_neighbors(vectors, 3)
    assert (found[:, 0] == np.arange(100) ^ 1).all()
    assert (found != np.arange(100)[:, None]).all()


def test_the_seed_draws_candidates_from_many_items(rng, monkeypatch):
    monkeypatch.setattr(positives, "MAX_CANDIDATES", 64)
    vectors = rng.normal(size=(300, 6)).astype(np.float32)
    found = find_neighbors(vectors, 4, seed=1)
    assert len(np.unique(found)) <= 64
    assert (found != np.arange(300)[:, None]).all()
    assert all(len(set(row)) == 4 for row in found.tolist())
    assert not np.array_equal(found, find_neighbors(vectors, 4, seed=2))


def test_mutual_neighbors_by_hand():
    # 0 and 1 have each other; 2 has 0, but 0 does not have 2; 3 has two that do not have it.
    neighbors = np.array([[1, 3], [0, 2], [1, 0], [2, 1]], np.int32)
    expected = [[1, 1], [0, 2], [1, 1], [2, 1]]
    np.testing.assert_array_equal(keep_mutual(neighbors), expected)
    assert keep_mutual(neighbors).dtype == np.int32


def test_mutual_neighbors_are_those_of_a_comparison_of_sets(rng, monkeypatch):
    monkeypatch.setattr(positives, "ITEMS_TO_COMPARE", 64)
    found = find_neighbors(rng.normal(size=(300, 4)).astype(np.float32), 6)
    lists = [set(row) for row in found.tolist()]
    shares = []
    for item, (row, kept) in enumerate(zip(found.tolist(), keep_mutual(found).tolist(), strict=True)):
        mutual = [other for other in row if item in lists[other]]
        expected = mutual or row
        assert kept == (expected * 6)[:6]
        shares.append(len(mutual))
    assert 0 < np.mean(shares) < 6


def test_neighbors_of_digits_mostly_share_their_label(digits):
    images = digits.train_images.reshape(-1, 8, 8, 1)
    found = find_neighbors(compute_features(images), 5)
    alike = [(digits.train_labels[rows] == digits.train_labels[:, None]).mean() for rows in (found, keep_mutual(found))]
    assert 0.93 < alike[0] < alike[1]


def test_a_single_item_is_its_own_positive(rng):
    found = find_similar(rng.normal(size=(1, 6)).astype(np.float32), k=10, seed=0)
    np.testing.assert_array_equal(found.indices, [[0]])
    assert found.features.shape == (1, 6)
