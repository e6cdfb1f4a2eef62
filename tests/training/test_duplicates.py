"""The objective for near duplicates, beside a slow form of its loss, and what it is for: changed copies are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhash as jh
from jaxhash.models.code_layer import CodeLayer, make_batch_statistics
from jaxhash.training.objectives import Batch

BITS, SHAPE = 16, (8, 8, 3)


def leave(key, images):
    """A warp that changes nothing."""
    return images


def mirror_second_half(key, images):
    """A warp that mirrors each item's partner."""
    half = len(images) // 2
    return jnp.concatenate([images[:half], images[half:, :, ::-1]])


@pytest.fixture(scope="module", params=["convolutional", "dense"])
def model(request):
    if request.param == "dense":
        return jh.Autoencoder(int(np.prod(SHAPE)), BITS, ())
    return jh.ConvAutoencoder(SHAPE, BITS, channels=(8,), hidden_dims=())


def draw(count, seed=0):
    """Smooth random images, uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3))
    return coarse.repeat(2, 1).repeat(2, 2).astype(np.uint8)


@pytest.mark.parametrize("warp", [leave, mirror_second_half])
def test_the_loss_by_hand(model, warp):
    items, layer = jnp.asarray(draw(6)), CodeLayer(make_batch_statistics(BITS), jnp.float32(0), "rounding")
    objective = jh.training.FindDuplicates(warp=warp, noise=0.0, temperature=0.2, decorrelation=0.5)
    loss, bits = jax.jit(lambda key: objective(model, Batch(items), key, layer))(jax.random.key(0))

    views = np.asarray(warp(None, np.concatenate([items, items]) / np.float32(255)))
    rows = views.reshape(12, *model.input_shape)
    logits = np.asarray(jax.jit(lambda views: layer.normalize(model.code_logits(views)))(rows))
    signs = np.tanh(logits)  # the gain of the code layer is 2
    similarity = signs[:6] @ signs[6:].T / BITS / 0.2
    right = np.diag(similarity)
    expected = np.mean([np.log(np.exp(table).sum(1)) - right for table in (similarity, similarity.T)])
    correlation = np.corrcoef(signs.T) - np.eye(BITS)
    assert float(loss) == pytest.approx(expected + 0.5 * (correlation**2).mean(), rel=1e-3)
    np.testing.assert_array_equal(bits, logits[:6] > 0)


def test_mirrored_copies_are_found_by_their_codes():
    images, untrained = draw(64), jh.ConvAutoencoder(SHAPE, 32, channels=(8,), hidden_dims=(32,))
    objective = jh.training.FindDuplicates(warp=mirror_second_half, noise=0.01)
    trained, _ = jh.fit(untrained, images, epochs=80, batch_size=64, objective=objective)

    def find(model):
        index = jh.build_index(jh.encode(model, images), 32)
        ids = np.asarray(jh.search(index, jh.encode(model, images[:, :, ::-1]), k=1).ids)[:, 0]
        return np.mean(ids == np.arange(len(images)))

    assert find(untrained) < 0.2
    assert find(trained) > 0.8


def test_images_are_needed_and_settings_have_a_range():
    with pytest.raises(ValueError, match="for images"):
        jh.fit(jh.Autoencoder(4, 3, ()), np.zeros((9, 4), np.uint8), epochs=1, objective=jh.training.FindDuplicates())
    with pytest.raises(ValueError, match="temperature must be above 0"):
        jh.training.FindDuplicates(temperature=0.0)
    with pytest.raises(ValueError, match="noise must be at least 0"):
        jh.training.FindDuplicates(noise=-1.0)


def test_equal_objectives_share_a_program():
    assert jh.training.FindDuplicates() == jh.training.FindDuplicates()
    assert hash(jh.training.FindDuplicates()) == hash(jh.training.FindDuplicates())
