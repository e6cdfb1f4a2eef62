import numpy as np
import pytest

import jaxhash as jh
from jaxhash.training import positives
from jaxhash.training.positives import feature_points, mutual_neighbors, nearest_neighbors


def slow_neighbors(points, k):
    """Each point's k nearest by comparing all."""
    distances = ((points[:, None] - points[None]) ** 2).sum(2)
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :k], np.sort(distances, axis=1)[:, :k]


@pytest.mark.parametrize("count", [2, 3, 40, 700])
def test_neighbors_are_those_of_comparing_all(count, rng):
    points = rng.normal(size=(count, 12)).astype(np.float32)
    k = min(5, count - 1)
    found = nearest_neighbors(points, k)
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
    monkeypatch.setattr(positives, "CANDIDATES", 64)
    vectors = rng.normal(size=(300, 6)).astype(np.float32)
    found = nearest_neighbors(vectors, 4, seed=1)
    assert len(np.unique(found)) <= 64
    assert (found != np.arange(300)[:, None]).all()
    assert all(len(set(row)) == 4 for row in found.tolist())
    assert not np.array_equal(found, nearest_neighbors(vectors, 4, seed=2))


def test_mutual_neighbors_by_hand():
    # 0 and 1 are each other's, 2 has 0 but not the other way round, 3 has two that don't have it.
    neighbors = np.array([[1, 3], [0, 2], [1, 0], [2, 1]], np.int32)
    expected = [[1, 1], [0, 2], [1, 1], [2, 1]]
    np.testing.assert_array_equal(mutual_neighbors(neighbors), expected)
    assert mutual_neighbors(neighbors).dtype == np.int32


def test_mutual_neighbors_are_those_of_comparing_sets(rng, monkeypatch):
    monkeypatch.setattr(positives, "ITEMS_TO_COMPARE", 64)
    found = nearest_neighbors(rng.normal(size=(300, 4)).astype(np.float32), 6)
    lists = [set(row) for row in found.tolist()]
    shares = []
    for item, (row, kept) in enumerate(zip(found.tolist(), mutual_neighbors(found).tolist(), strict=True)):
        mutual = [other for other in row if item in lists[other]]
        expected = mutual or row
        assert kept == (expected * 6)[:6]
        shares.append(len(mutual))
    assert 0 < np.mean(shares) < 6


def test_neighbors_of_digits_mostly_share_their_label():
    digits = jh.load_dataset("digits")
    images = digits.train_images.reshape(-1, 8, 8, 1)
    found = nearest_neighbors(feature_points(images), 5)
    alike = [
        (digits.train_labels[rows] == digits.train_labels[:, None]).mean() for rows in (found, mutual_neighbors(found))
    ]
    assert 0.93 < alike[0] < alike[1]
