import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from samples import same

import jaxhash as jh
from jaxhash.models.encoding import weigh_logits
from jaxhash.models.inputs import ITEMS_PER_CHUNK


@pytest.fixture(scope="module")
def model():
    return jh.Autoencoder(12, 40, (16, 8), rngs=nnx.Rngs(3))


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (30, 3, 4), dtype=np.uint8)


def test_codes_are_the_signs_of_the_standardized_logits(model, images):
    logits = model.code_logits(jnp.asarray(images.reshape(30, 12), jnp.float32) / 255)
    codes = jh.encode(model, images)
    assert (codes.dtype, codes.shape) == (jnp.uint32, (30, 2))
    np.testing.assert_array_equal(jh.unpack_bits(codes, 40), logits > model.logit_mean[...][None])


def test_images_keep_their_leading_shape(model, images):
    codes = jh.encode(model, images)
    np.testing.assert_array_equal(jh.encode(model, images.reshape(5, 6, 12)), codes.reshape(5, 6, 2))
    np.testing.assert_array_equal(jh.encode(model, images[0]), codes[0])
    assert jh.reconstruct(model, images.reshape(5, 6, 3, 4)).shape == (5, 6, 3, 4)
    assert jh.encode(model, images[:0]).shape == (0, 2)


def test_images_on_a_device_keep_their_leading_shape(model, images):
    codes = jh.encode(model, images)
    for lead in ((), (1,), (1, 4), (4, 1), (4, 2)):
        batch = jax.device_put(images[: int(np.prod(lead))].reshape(*lead, 3, 4))
        found = jh.encode(model, batch)
        np.testing.assert_array_equal(found, codes[: int(np.prod(lead))].reshape(*lead, 2))
        assert jh.reconstruct(model, batch).shape == batch.shape


def test_encoding_traces(model, images):
    codes, rebuilt = jh.encode(model, images), jh.reconstruct(model, images)
    np.testing.assert_array_equal(jax.jit(lambda x: jh.encode(model, x))(images), codes)
    np.testing.assert_array_equal(jax.jit(jh.encode)(model, images), codes)
    np.testing.assert_array_equal(jax.vmap(lambda x: jh.encode(model, x))(images), codes)
    np.testing.assert_array_equal(jax.jit(lambda: jh.encode(model, images))(), codes)
    np.testing.assert_allclose(jax.jit(jh.reconstruct)(model, images), rebuilt, rtol=1e-5)


def test_codes_do_not_depend_on_the_batch(model, rng):
    images = rng.random((ITEMS_PER_CHUNK + 77, 12), np.float32)
    logits = np.asarray(jax.jit(model.code_logits)(images))
    sure = np.abs(logits - np.asarray(model.logit_mean[...])) > 1e-3  # others may round differently
    assert sure.mean() > 0.99
    whole = np.asarray(jh.unpack_bits(jh.encode(model, images), 40))
    for size in (1, 7, 256):
        part = np.asarray(jh.unpack_bits(jh.encode(model, images[:size]), 40))
        assert (part == whole[:size])[sure[:size]].all()


def test_reconstructions_come_from_the_codes_alone(model, images):
    rebuilt = np.asarray(jh.reconstruct(model, images))
    bits = jh.unpack_bits(jh.encode(model, images), 40).astype(jnp.float32)
    expected = jax.nn.sigmoid(model.output_logits(bits)).reshape(30, 3, 4)
    np.testing.assert_allclose(rebuilt, expected, rtol=1e-5)
    assert (rebuilt.min() >= 0) & (rebuilt.max() <= 1)


@pytest.mark.parametrize("activation", ["linear", "tanh", "relu", "softplus", jnp.sin])
def test_outputs_may_have_any_activation(activation, images):
    model = jh.Autoencoder(12, 6, (8,), output_activation=activation)
    vectors = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 12)
    rebuilt = jh.reconstruct(model, vectors)
    logits = model.output_logits(jh.unpack_bits(jh.encode(model, vectors), 6).astype(jnp.float32))
    function = {"linear": lambda x: x, "tanh": jnp.tanh, "relu": jax.nn.relu, "softplus": jax.nn.softplus}
    np.testing.assert_allclose(rebuilt, function.get(activation, activation)(logits), rtol=1e-5)


def test_one_shape_is_compiled_once(model, images, compilations):
    for _ in range(2):
        with compilations:
            jh.encode(model, images)
            jh.reconstruct(model, images)
            jh.training.reconstruction_loss(model, images)
    assert compilations.count == 0


def test_bytes_and_the_floats_they_stand_for_have_one_code(model, images):
    np.testing.assert_array_equal(jh.encode(model, images), jh.encode(model, images.astype(np.float32) / 255))


@pytest.mark.parametrize("shape", [(64, 12), (64, 3, 4), (4, 16, 12), (1024, 12)])
@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float32, jnp.bfloat16])
def test_images_on_a_device_are_encoded_without_transfers(model, rng, shape, dtype):
    images = rng.integers(0, 2, shape).astype(dtype)
    codes, rebuilt = jh.encode(model, images), jh.reconstruct(model, images)
    on_device = jax.device_put(images)
    with jax.transfer_guard("disallow"):
        same_codes, same_images = jh.encode(model, on_device), jh.reconstruct(model, on_device)
    np.testing.assert_array_equal(same_codes, codes)
    np.testing.assert_array_equal(same_images, rebuilt)


def test_more_images_than_a_batch_may_be_on_a_device(model, rng):
    images = rng.random((ITEMS_PER_CHUNK + 5, 3, 4), np.float32)
    np.testing.assert_array_equal(jh.encode(model, jax.device_put(images)), jh.encode(model, images))


def test_weights_are_distances_of_logits_from_thresholds(model, images):
    codes, weights = jh.encode_weighted(model, images)
    np.testing.assert_array_equal(codes, jh.encode(model, images))
    assert (weights.dtype, weights.shape) == (jnp.uint8, (30, 40))
    sizes = np.abs(
        model.code_logits(jnp.asarray(images.reshape(30, 12), jnp.float32) / 255) - model.logit_mean[...][None]
    )
    np.testing.assert_allclose(weights, 15 * sizes / sizes.max(1, keepdims=True) + 0.5, atol=0.501)
    np.testing.assert_array_equal(np.max(weights, 1), 15)


def test_weights_by_hand_of_zero_and_overflowing_logits():
    inf, nan, least = np.inf, np.nan, np.finfo(np.float32).smallest_subnormal
    logits = [[0, 1, -1.5, 3], [0, 0, 0, 0], [inf, -inf, 0, 0], [nan, 2, 1, 0], [least, -least, 0, 0]]
    weights = np.asarray(jax.jit(weigh_logits)(jnp.asarray(logits, jnp.float32)))
    assert weights[:4].tolist() == [[0, 5, 8, 15], [0, 0, 0, 0], [15, 15, 0, 0], [0, 15, 8, 0]]
    assert weights.max() <= 15
    huge = np.random.default_rng(0).uniform(1e37, 3e38, (50, 9)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(jax.jit(weigh_logits)(huge)).max(1), 15)


def test_weighted_encoding_traces_and_keeps_the_leading_shape(model, images):
    expected = jh.encode_weighted(model, images)
    same(jax.jit(jh.encode_weighted)(model, images), expected)
    same(jax.vmap(lambda x: jh.encode_weighted(model, x))(images), expected)
    cube = jh.encode_weighted(model, images.reshape(5, 6, 12))
    same(cube, (expected[0].reshape(5, 6, 2), expected[1].reshape(5, 6, 40)))
    assert jh.encode_weighted(model, images[0])[1].shape == (40,)
    assert jh.encode_weighted(model, images[:0])[1].shape == (0, 40)


def test_images_on_a_device_are_weighted_without_transfers(model, rng):
    images = rng.random((64, 12), np.float32)
    expected = jh.encode_weighted(model, images)
    on_device = jax.device_put(images)
    with jax.transfer_guard("disallow"):
        found = jh.encode_weighted(model, on_device)
    same(found, expected)


def test_a_stream_of_images_is_weighted_batch_by_batch(model, images):
    parts = list(jh.encode_weighted(model, iter([images[:7], images[7:]])))
    same(parts, [jh.encode_weighted(model, images[:7]), jh.encode_weighted(model, images[7:])])
    with pytest.raises(TypeError, match="model must be an Encoder"):
        jh.encode_weighted(None, iter([images]))


def test_photographs_and_word_counts_are_weighted(rng):
    color = jh.ConvAutoencoder((8, 8, 3), 9, (4,))
    counts = jh.Autoencoder(10, 9, (), output_activation="softmax")
    for model, items in ((color, rng.random((3, 8, 8, 3), np.float32)), (counts, np.eye(3, 10, dtype=np.float32))):
        codes, weights = jh.encode_weighted(model, items)
        np.testing.assert_array_equal(codes, jh.encode(model, items))
        assert weights.shape == (3, 9)
        assert (np.max(weights, 1) == 15).all()
