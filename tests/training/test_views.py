import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxhash as jh
from jaxhash.models.code_layer import CodeLayer, make_batch_statistics
from jaxhash.models.encoder import DenseEncoder
from jaxhash.training import data, views
from jaxhash.training.data import Run, TrainingData, send_if_small, split_run
from jaxhash.training.objectives import Batch
from jaxhash.training.positives import Positives, add_self

OPTIONS = {"num_views": 3, "warp": jh.training.PhotoWarp()}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(images):
    model = jh.PatchEncoder((8, 8, 3), 8, (), num_atoms=4, num_components=6)
    model.learn_features(images, seed=0)
    return model


def source_of(images):
    return TrainingData(jh.PatchEncoder((8, 8, 3), 8, ()), images, jh.training.Reconstruct(), 32, 0)


def test_the_first_view_is_the_image_and_the_others_are_warped(images, model, monkeypatch):
    monkeypatch.setattr(views, "IMAGES_PER_CHUNK", 32)
    found = views.store_views(model, source_of(images), **OPTIONS, seed=0)
    assert (found.shape, found.dtype) == ((70, 3, 6), np.float16)
    floats, compute = jnp.asarray(images, jnp.float32) / 255, jax.jit(model.compute_features)
    np.testing.assert_allclose(found[:, 0], compute(floats), atol=2e-3)
    key = jax.random.fold_in(jax.random.key(0), 32)  # of the second batch
    warped = jax.jit(jh.training.PhotoWarp())(jax.random.fold_in(key, 2), floats[32:64])
    np.testing.assert_allclose(found[32:64, 2], compute(warped), atol=2e-3)


def test_streams_give_the_views_of_arrays(images, model):
    batches = type("Loader", (), {"__iter__": lambda _: iter([images[:30], images[30:]])})()
    expected = views.store_views(model, source_of(images), **OPTIONS, seed=0)
    found = views.store_views(model, source_of(batches), **OPTIONS, seed=0)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("limit", [0, 2**30])
def test_a_view_is_drawn_for_each_item_and_for_its_positive(limit, monkeypatch):
    monkeypatch.setattr(data, "BYTES_PER_CHUNK", 40)
    table = np.arange(60, dtype=np.float32).reshape(60, 1)  # of view v of item i: 4 i + v
    partners = np.roll(np.arange(15, dtype=np.int32), 1)[:, None]
    run = send_if_small(Run(table, Positives(partners), 4), limit)
    drawn, seen = set(), []
    for seed in range(20):
        for (items, _), rows, fresh in split_run(run, 5, np.random.default_rng(seed)):
            values = [np.asarray(items)[part, 0].astype(int) for part in rows]
            np.testing.assert_array_equal((values[0] // 4 - 1) % 15, values[1] // 4)
            seen.extend(values[0].ravel()[:fresh] // 4)
            drawn |= set(values[0].ravel() % 4) | set(values[1].ravel() % 4)
    assert drawn == {0, 1, 2, 3}
    np.testing.assert_array_equal(np.bincount(seen), np.full(15, 20))


def test_half_of_the_positives_are_the_item_itself():
    np.testing.assert_array_equal(add_self(np.array([[1, 2], [2, 0], [0, 1]], np.int32))[1], [2, 0, 1, 1])


def test_positives_of_views_are_mutual_neighbors():
    angles = np.array([0, 10, 25, 29])  # the nearest are 1, 0, 3, 2; of two, 0 has 2, which has 1 and 3
    features = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1).astype(np.float32)
    found = jh.training.Retrieve(num_neighbors=2).pair_views(features, 0)
    np.testing.assert_array_equal(found.indices, [[1, 1, 0, 0], [0, 2, 1, 1], [3, 1, 2, 2], [2, 2, 3, 3]])


def test_a_single_image_is_its_own_positive(rng):
    found = jh.training.Retrieve().pair_views(rng.normal(size=(1, 5)).astype(np.float32), 0)
    np.testing.assert_array_equal(found.indices, [[0, 0]])


def test_all_bits_of_views_are_coarse(rng):
    model = DenseEncoder(6, 32, (), rngs=nnx.Rngs(0))
    batch = Batch(*(jnp.asarray(rng.normal(size=(16, 6)), jnp.float32) for _ in range(2)))
    layer = CodeLayer(make_batch_statistics(32), jnp.float32(0), "rounding")
    few, all_bits = (
        jax.jit(jh.training.Retrieve(coarse_share=share))(model, batch, jax.random.key(0), layer)
        for share in (0.1, 1.0)
    )
    assert few[0] == all_bits[0]
