import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhash.training import losses
from jaxhash.training.losses import invert, invert_by_newton

# One program for each shape, not one for each operation.
contrast, correlations, unexplained_variance = (
    jax.jit(function) for function in (losses.contrast, losses.correlations, losses.unexplained_variance)
)

KEY = jax.random.key(0)


def test_contrast_of_two_pairs_by_hand():
    # Items (1, 1) and (-1, -1), each its own positive: their similarity is 1 / T, other pairs have -1 / T.
    signs = jnp.array([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    assert contrast(signs, 0.5) == pytest.approx(np.log(1 + np.exp(-4.0)), rel=1e-4)


def test_contrast_is_the_mean_cross_entropy_of_both_directions(rng):
    signs = rng.uniform(-1, 1, (12, 5))
    similarity = signs[:6] @ signs[6:].T / 5 / 0.3
    right = [similarity[i, i] for i in range(6)]
    rows = [np.log(np.exp(similarity[i]).sum()) - right[i] for i in range(6)]
    columns = [np.log(np.exp(similarity[:, i]).sum()) - right[i] for i in range(6)]
    assert contrast(jnp.asarray(signs, jnp.float32), 0.3) == pytest.approx(np.mean(rows + columns), rel=1e-5)


def test_contrast_falls_as_positives_come_closer():
    items = jax.random.uniform(KEY, (20, 8), minval=-1, maxval=1)
    others = jax.random.uniform(jax.random.key(1), (20, 8), minval=-1, maxval=1)
    losses = [float(contrast(jnp.concatenate([items, items * s + others * (1 - s)]), 0.2)) for s in (0.0, 0.5, 1.0)]
    assert losses[0] > losses[1] > losses[2]


def test_correlations_are_those_of_numpy(rng):
    signs = rng.normal(size=(50, 6)).astype(np.float32)
    expected = np.corrcoef(signs.T) - np.eye(6)
    np.testing.assert_allclose(correlations(jnp.asarray(signs)), expected, atol=1e-5)
    np.testing.assert_array_equal(correlations(jnp.ones((5, 3), jnp.float32)), np.zeros((3, 3)))  # of dead bits


def test_unexplained_variance_is_the_residual_of_least_squares(rng):
    signs = rng.choice([-1.0, 1.0], (200, 6))
    points = signs @ rng.normal(size=(6, 9)) + rng.normal(size=(200, 9)) * np.arange(1, 10)
    centered = points - points.mean(0)
    weighted = centered / np.sqrt(centered.std(0))
    fit = np.linalg.lstsq(signs - signs.mean(0), weighted, rcond=None)[0]
    expected = ((weighted - (signs - signs.mean(0)) @ fit) ** 2).sum() / (weighted**2).sum()
    found = unexplained_variance(jnp.asarray(signs, jnp.float32), jnp.asarray(points, jnp.float32))
    assert found == pytest.approx(expected, abs=1e-3)


def test_signs_explain_their_linear_maps_and_nothing_else():
    signs = jax.random.rademacher(KEY, (400, 4)).astype(jnp.float32)
    noise = jax.random.normal(jax.random.key(1), (400, 3), jnp.float32)
    assert unexplained_variance(signs, signs @ jnp.ones((4, 2), jnp.float32) + 5) < 0.01
    assert unexplained_variance(signs, noise) > 0.95
    assert unexplained_variance(jnp.repeat(signs, 3, axis=1), noise) > 0.95  # copies explain no more
    assert (
        unexplained_variance(jnp.ones((1, 4), jnp.float32), jnp.ones((1, 3), jnp.float32)) == 0
    )  # a single item has no variance


def test_the_best_map_needs_no_gradient(rng, monkeypatch):
    monkeypatch.setattr(losses, "RIDGE", 0.0)
    # At the best map the gradient through it is zero, so solving the least-squares problem gives the same gradient.
    signs = jnp.asarray(rng.uniform(-1, 1, (50, 5)), jnp.float32)
    points = jnp.asarray(rng.normal(size=(50, 4)), jnp.float32)

    def solved(signs):
        signs, weighted = signs - signs.mean(0)[None], points - points.mean(0)[None]
        weighted /= jnp.sqrt(weighted.std(0))[None]
        best_map = jnp.linalg.lstsq(signs, weighted)[0]
        return ((weighted - signs @ best_map) ** 2).sum() / (weighted**2).sum()

    found = jax.jit(jax.grad(losses.unexplained_variance))(signs, points)
    expected = jax.jit(jax.grad(solved))(signs)
    np.testing.assert_allclose(found, expected, atol=0.01 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("size", [1, 2, 32, 200])
def test_both_ways_to_invert_agree(size, rng):
    samples = rng.choice([-1.0, 1.0], (4 * size + 20, size))
    matrix = jnp.asarray(samples.T @ samples / len(samples) + 0.02 * np.eye(size), jnp.float32)
    found, expected = np.asarray(jax.jit(invert_by_newton)(matrix)), np.linalg.inv(matrix)
    np.testing.assert_allclose(found @ matrix, np.eye(size), atol=1e-2)
    np.testing.assert_allclose(found, expected, atol=1e-2 * np.abs(expected).max())


def test_the_platform_chooses_how_to_invert():
    matrix = jnp.eye(3, dtype=jnp.float32)
    np.testing.assert_array_equal(jax.jit(invert)(matrix), jax.jit(invert_by_newton)(matrix))
    programs = {
        platform: jax.jit(invert).trace(matrix).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    solves = {platform: "triangular_solve" in program for platform, program in programs.items()}
    assert solves == {"cpu": False, "cuda": True, "tpu": True}
