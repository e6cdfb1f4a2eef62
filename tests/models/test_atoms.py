import jax
import jax.numpy as jnp
import numpy as np

from jaxhash.models.atoms import draw_patches, find_atoms, find_components, learn_dictionary
from jaxhash.models.dictionary import pool_responses

KEY = jax.random.key(0)


def test_atoms_are_directions_of_patches_up_to_sign(rng):
    directions = np.eye(8, dtype=np.float32)[:3]
    signs = rng.choice(np.float32([-1, 1]), (600, 1))
    patches = signs * directions[rng.integers(3, size=600)] + rng.normal(size=(600, 8)).astype(np.float32) / 100
    atoms = np.asarray(find_atoms(jnp.asarray(patches), 3, KEY))
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), np.ones(3), rtol=1e-5)
    nearest = np.abs(atoms @ directions.T)
    assert sorted(nearest.argmax(axis=1)) == [0, 1, 2]
    assert nearest.max(axis=1).min() > 0.999


def test_atoms_without_patches_are_drawn_again():
    patches = jnp.tile(jnp.eye(4, dtype=jnp.float32)[:1], (40, 1))  # all the same, so that one atom takes all
    np.testing.assert_allclose(jnp.abs(find_atoms(patches, 4, KEY)), np.eye(4)[[0, 0, 0, 0]], atol=1e-6)


def test_components_are_divided_by_the_root_of_the_deviation(rng):
    spread = np.float32([8, 4, 2, 1, 0.5, 0.2])
    values = rng.normal(size=(3000, 6)).astype(np.float32) * spread + 7
    found = find_components(jnp.asarray(values), 3, KEY)
    np.testing.assert_allclose(found["mean"], values.mean(axis=0), rtol=1e-4)
    variances, axes = np.linalg.eigh(np.cov(values.T))
    expected = axes[:, ::-1][:, :3] / variances[::-1][:3] ** 0.25
    np.testing.assert_allclose(np.abs(found["components"]), np.abs(expected), atol=0.02)


def test_missing_components_are_zero(rng):
    found = find_components(jnp.asarray(rng.normal(size=(4, 9)), jnp.float32), 6, KEY)["components"]
    assert found.shape == (9, 6)
    assert jnp.isfinite(found).all()
    assert not found[:, 4:].any()


def test_patches_come_from_all_places(rng):
    image = np.arange(9 * 8).reshape(1, 9, 8, 1).astype(np.uint8)
    patches = draw_patches(image, 500, rng).reshape(-1, 6, 6)
    assert set(patches[:, 0, 0].tolist()) == {8 * row + column for row in range(4) for column in range(3)}
    np.testing.assert_array_equal(patches[:, 1, 2], patches[:, 0, 0] + 10)


def test_a_dictionary_describes_what_it_was_learned_from(rng):
    images = rng.integers(0, 256, (40, 9, 9, 3), dtype=np.uint8)
    dictionary = learn_dictionary(images, 6, 30, seed=0)
    pooled = np.asarray(jax.jit(pool_responses)(dictionary, jnp.asarray(images, jnp.float32) / 255))
    components = (pooled - np.asarray(dictionary.mean)) @ np.asarray(dictionary.components)
    np.testing.assert_allclose(components.mean(axis=0), np.zeros(30), atol=1e-4)
    assert (np.diff(components.std(axis=0)) < 1e-3).all()
    again = learn_dictionary(images, 6, 30, seed=0)
    assert all(np.array_equal(*pair) for pair in zip(dictionary, again, strict=True))
