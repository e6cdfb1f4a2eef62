"""An item has one code: with logits on their thresholds, where any other rounding would show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from samples import same

import jaxhash as jh
from jaxhash.models.encoding import MIN_ROWS
from jaxhash.training.fitting import compute_logits

COUNT, SIZES = 1000, (1, 2, 7, 16, 31, 33, 40, 64, 255, 256, 257)


def make_model(kind):
    rngs = nnx.Rngs(0)
    if kind == "deep":
        return jh.Autoencoder(784, 32, (512, 256, 128), rngs=rngs)
    if kind == "word counts":
        return jh.Autoencoder(100, 40, (64,), output_activation="softmax", rngs=rngs)
    if kind == "convolutional":
        return jh.ConvAutoencoder((16, 16, 3), 24, (8, 16), rngs=rngs)
    if kind == "patches":
        model = jh.PatchEncoder((12, 12, 3), 24, (48,), num_atoms=16, num_components=64, rngs=rngs)
        model.atoms[...] = jax.random.normal(rngs(), model.atoms.shape)
        model.components[...] = jax.random.normal(rngs(), model.components.shape)
        return model
    width, num_bits = map(int, kind.split("-"))
    return jh.Autoencoder(width, num_bits, (), output_activation="linear", rngs=rngs)


@pytest.fixture(scope="module", params=["32-24", "384-256", "deep", "word counts", "convolutional", "patches"])
def case(request):
    """A model and items of which one has a logit on each threshold, or as little above it as can be."""
    model, rng = make_model(request.param), np.random.default_rng(0)
    shape = (COUNT, *model.input_shape)
    if model.output_activation == "sigmoid":
        items = rng.integers(0, 256, shape, dtype=np.uint8)
    else:
        items = rng.poisson(1, shape).astype(np.float32) if request.param == "word counts" else rng.normal(size=shape)
    items = items.astype(np.float32) if items.dtype == np.float64 else items
    logits = compute_logits(model, items)
    near = rng.permutation(COUNT)[: model.num_bits]
    on = logits[near, np.arange(model.num_bits)]
    model.trained_part.logit_mean[...] = jnp.asarray(np.where(rng.random(len(on)) < 0.5, on, np.nextafter(on, -np.inf)))
    return model, items, np.concatenate([near, np.setdiff1d(np.arange(COUNT), near)])


def test_codes_do_not_depend_on_the_batch(case):
    model, items, order = case
    whole = np.asarray(jh.encode(model, items))
    for size in SIZES:
        for chosen in (order[:size], np.sort(order[5 : size + 5])):
            np.testing.assert_array_equal(jh.encode(model, items[chosen]), whole[chosen], err_msg=str(size))
    np.testing.assert_array_equal(jh.encode(model, items[order]), whole[order])
    for row in order[:30]:
        np.testing.assert_array_equal(jh.encode(model, items[row]), whole[row])


def test_weights_and_searches_use_the_same_codes(case):
    model, items, order = case
    near = items[order[: model.num_bits]]
    expected = jh.encode_weighted(model, near)
    same(jh.encode(model, items)[order[: model.num_bits]], expected[0])
    retriever = jh.Retriever(model, jh.build_index(jh.encode(model, items), model.num_bits))
    for shape in ((), (1,), (1, 3), (2, 4), (5, 1, 4)):
        count = int(np.prod(shape))
        queries = near[:count].reshape(*shape, *model.input_shape)
        cut = tuple(part[:count].reshape(*shape, -1) for part in expected)
        same(jh.encode(model, queries), cut[0])
        same(jh.encode_weighted(model, jax.device_put(queries)), cut)
    assert not np.any(jh.retrieve(retriever, near[:3], k=1).distances)


def test_reconstructions_and_losses_use_the_same_codes(case):
    model, items, order = case
    if not isinstance(model, jh.Autoencoder):
        return
    near = items[order[: model.num_bits]]
    whole = np.asarray(jh.reconstruct(model, items[order]))[: model.num_bits]
    alone = np.stack([jh.reconstruct(model, item) for item in near[:8]])
    np.testing.assert_allclose(alone, whole[:8], rtol=1e-4, atol=1e-5)


def test_a_jit_around_full_batches_changes_no_code(case):
    model, items, order = case
    batch = items[order[:MIN_ROWS]]
    same(jax.jit(jh.encode)(model, batch), jh.encode(model, batch))
