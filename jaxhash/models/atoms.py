"""Dictionary learning for patches (`jaxhash.models.dictionary`): whitening, k-means, principal components.

It needs neither gradients nor labels and takes seconds.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxhash.core.batching import in_batches
from jaxhash.models.dictionary import Dictionary, normalize_patches, patch_side, pool_responses
from jaxhash.models.inputs import to_floats

PATCHES_PER_ATOM = 250
KMEANS_ITERATIONS = 10
# Added to the variances of patches, so that whitening does not amplify noise.
WHITENING_FLOOR = 0.1
IMAGES_FOR_COMPONENTS = 2**13
IMAGES_PER_CHUNK = 256
# Oversampling and iterations of the randomized subspace iteration.
OVERSAMPLING, SUBSPACE_ITERATIONS = 32, 4


def learn_dictionary(images: np.ndarray, num_atoms: int, num_components: int, seed: int) -> Dictionary:
    """Learns a dictionary from images `[n, h, w, c]`, uint8 or float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    drawn = draw_patches(images, PATCHES_PER_ATOM * num_atoms, rng)
    patches = normalize_patches(to_floats(jnp.asarray(drawn)))
    mean, whitening = _find_whitening(np.asarray(patches))
    whitened = (patches - mean[None]) @ whitening
    atoms = whitening @ find_atoms(whitened, num_atoms, jax.random.key(seed)).T
    untrained = Dictionary(atoms, mean @ atoms, jnp.zeros(0, jnp.float32), jnp.zeros((0, 0), jnp.float32))
    sample = images[np.sort(rng.permutation(len(images))[:IMAGES_FOR_COMPONENTS])]
    pooled = in_batches(lambda batch: _compiled_pool(untrained, batch), sample, IMAGES_PER_CHUNK)
    return untrained._replace(**find_components(pooled, num_components, jax.random.key(seed)))


def draw_patches(images: np.ndarray, num_patches: int, rng: np.random.Generator) -> np.ndarray:
    """Draws patches at random positions of random images: `[num_patches, d]`, of the images' dtype."""
    count, height, width, _ = images.shape
    side = patch_side(height, width)
    limits = (count, height - side + 1, width - side + 1)
    number, top, left = (rng.integers(limit, size=num_patches) for limit in limits)
    within = np.arange(side)
    rows, columns = top[:, None, None] + within[:, None], left[:, None, None] + within
    return images[number[:, None, None], rows, columns].reshape(num_patches, -1)


def _find_whitening(patches: np.ndarray) -> tuple[jax.Array, jax.Array]:
    variances, axes = np.linalg.eigh(np.cov(patches.T).reshape(patches.shape[1], -1))
    whitening = (axes / np.sqrt(np.maximum(variances, 0) + WHITENING_FLOOR)) @ axes.T
    return jnp.asarray(patches.mean(axis=0)), jnp.asarray(whitening, jnp.float32)


@functools.partial(jax.jit, static_argnums=1)
def find_atoms(patches: jax.Array, num_atoms: int, key: jax.Array) -> jax.Array:
    """Computes atoms by spherical k-means up to sign: float32 `[a, d]`, of unit length."""
    blocks = patches.reshape(num_atoms, -1, patches.shape[1])

    def gather_members(atoms: jax.Array, block: jax.Array) -> jax.Array:
        products = block @ atoms.T
        nearest = jnp.abs(products).argmax(1)
        signed = block * jnp.take_along_axis(products, nearest[:, None], axis=1)
        return jax.ops.segment_sum(signed, nearest, num_atoms)

    def update(iteration: jax.Array, atoms: jax.Array) -> jax.Array:
        sums = lax.scan(lambda total, block: (total + gather_members(atoms, block), None), 0 * atoms, blocks)[0]
        resampled = jax.random.choice(jax.random.fold_in(key, iteration), patches, (num_atoms,))
        return _to_unit(jnp.where(jnp.linalg.norm(sums, axis=1, keepdims=True) > 1e-6, sums, resampled))

    start = _to_unit(jax.random.normal(key, (num_atoms, patches.shape[1]), jnp.float32))
    return lax.fori_loop(0, KMEANS_ITERATIONS, update, start)


def _to_unit(rows: jax.Array) -> jax.Array:
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


@functools.partial(jax.jit, static_argnums=1)
def find_components(values: jax.Array, count: int, key: jax.Array) -> dict[str, jax.Array]:
    """Computes principal components by randomized subspace iteration (Halko, Martinsson and Tropp 2011).

    Each is divided by the root of its standard deviation. If there are fewer than `count`, zeros are appended.
    """
    mean = values.mean(0)
    centered = values - mean[None]
    start = jax.random.normal(key, (values.shape[1], min(count + OVERSAMPLING, *values.shape)), jnp.float32)

    def iterate(_: jax.Array, axes: jax.Array) -> jax.Array:
        return jnp.linalg.qr(centered.T @ (centered @ axes))[0]

    axes = lax.fori_loop(0, SUBSPACE_ITERATIONS, iterate, start)
    projected = centered @ axes
    variances, rotation = jnp.linalg.eigh(projected.T @ projected / len(values))
    axes, variances = (axes @ rotation)[:, ::-1][:, :count], variances[::-1][:count]
    axes *= jnp.maximum(variances, 1e-12)[None] ** -0.25
    return {"mean": mean, "components": jnp.pad(axes, ((0, 0), (0, count - axes.shape[1])))}


_compiled_pool = jax.jit(lambda dictionary, images: pool_responses(dictionary, to_floats(images)))
