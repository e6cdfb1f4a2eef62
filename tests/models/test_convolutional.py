import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import jaxhash as jh
from jaxhash.models.convolutional import (
    convolve,
    convolve_by_product,
    convolve_directly,
    default_channels,
    spread_channels,
)

IMAGES = jax.random.uniform(jax.random.key(0), (3, 6, 8, 2))
KERNEL = jax.random.normal(jax.random.key(1), (18, 5))


def convolve_by_loops(images, kernel):
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    places = [(row, column) for row in range(0, images.shape[1], 2) for column in range(0, images.shape[2], 2)]
    windows = [padded[:, row : row + 3, column : column + 3].reshape(len(images), -1) for row, column in places]
    outputs = np.stack(windows, axis=1) @ kernel
    return outputs.reshape(len(images), images.shape[1] // 2, images.shape[2] // 2, -1)


def test_all_forms_of_the_convolution_are_that_of_loops():
    expected = convolve_by_loops(np.asarray(IMAGES), np.asarray(KERNEL))
    for form in (convolve, convolve_by_product, convolve_directly):
        np.testing.assert_allclose(form(IMAGES, KERNEL), expected, atol=1e-5)


@pytest.mark.parametrize("argument", [0, 1])
def test_all_forms_of_the_convolution_have_one_gradient(argument):
    def slope(form):
        return jax.grad(lambda *arguments: jnp.sin(form(*arguments)).sum(), argument)(IMAGES, KERNEL)

    expected = slope(convolve_directly)
    for form in (convolve, convolve_by_product):
        np.testing.assert_allclose(slope(form), expected, atol=1e-5)


@pytest.mark.parametrize(("platform", "has_convolution"), [("cpu", False), ("cuda", True), ("tpu", True)])
def test_only_the_cpu_multiplies_windows(platform, has_convolution):
    def train(kernel):
        def step(kernel, _):
            return kernel - jax.grad(lambda kernel: convolve(IMAGES, kernel).sum())(kernel), None

        return lax.scan(step, kernel, length=2)[0]

    for function in (train, jax.vmap(train)):
        kernels = KERNEL if function is train else jnp.stack([KERNEL, KERNEL])
        text = jax.jit(function).trace(kernels).lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.convolution" in text) == has_convolution


def test_channels_are_spread_over_squares_of_pixels():
    x = jnp.arange(8.0).reshape(1, 1, 2, 4)
    np.testing.assert_array_equal(spread_channels(x)[0, :, :, 0], [[0, 1, 4, 5], [2, 3, 6, 7]])


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((28, 28), None),
        ((28, 28, 1), (4,)),
        ((3, 2), None),
        ((5, 9, 3), (4, 3, 2)),
        ((24, 16, 3), ()),
        ((7, 40), (2, 2)),
    ],
)
def test_images_of_any_shape_are_encoded(shape, channels):
    model = jh.ConvAutoencoder(shape, 10, channels, (16,))
    images = np.zeros((2, *shape), np.uint8)
    assert jh.encode(model, images).shape == (2, 1)
    assert jh.reconstruct(model, images).shape == images.shape
    flat = images.reshape(2, -1)
    np.testing.assert_array_equal(jh.encode(model, flat), jh.encode(model, images))


def test_default_stages_end_at_eight_pixels():
    assert [default_channels(side, 4) for side in (4, 16, 28, 64, 224)] == [
        (16,),
        (16,),
        (16, 32),
        (16, 32, 64),
        (16, 32, 64, 128, 128),
    ]


def test_wrong_shapes_are_refused():
    for shape in [(28,), (2, 3, 4, 5), (0, 3), (3, -1, 1)]:
        with pytest.raises(ValueError, match="image_shape"):
            jh.ConvAutoencoder(shape, 8)
    with pytest.raises(TypeError, match="image_shape"):
        jh.ConvAutoencoder((2.5, 3), 8)
    with pytest.raises(ValueError, match="channels"):
        jh.ConvAutoencoder((8, 8), 8, (0,))
    model = jh.ConvAutoencoder((8, 6), 8)
    for shape in [(8, 7), (6, 8), (2, 4, 12), (8, 6, 3)]:
        with pytest.raises(ValueError, match=r"8, 6.*got " + re.escape(str(shape))):
            jh.encode(model, np.zeros(shape, np.uint8))


def test_outputs_start_at_the_mean_color():
    model = jh.ConvAutoencoder((5, 6, 3), 4, (8,))
    mean = np.tile([0.1, 0.5, 0.8], (5, 6, 1))
    model.init_output_bias(mean)
    model.decoder.layers[-1].kernel[...] = jnp.zeros_like(model.decoder.layers[-1].kernel[...])
    np.testing.assert_allclose(jh.reconstruct(model, np.zeros((5, 6, 3), np.uint8)), mean, atol=1e-5)


def test_a_trained_model_is_saved_and_loaded(tmp_path, digits):
    model = jh.ConvAutoencoder((8, 8), 16, (16,), (64,), rngs=nnx.Rngs(1))
    trained, history = jh.fit(model, digits.train_images[:512], epochs=15, batch_size=64)
    assert history.loss[-1] < 0.75 * history.loss[0]
    jh.save_model(tmp_path / "model", trained)
    loaded = jh.load_model(tmp_path / "model")
    np.testing.assert_array_equal(jh.encode(loaded, digits.test_images), jh.encode(trained, digits.test_images))
    assert loaded.config == trained.config


def test_a_model_retrieves_in_one_program(digits):
    model = jh.ConvAutoencoder((8, 8), 16, (8,), (32,))
    index = jh.build_index(jh.encode(model, digits.train_images), 16)
    found = jax.jit(lambda r, images: jh.retrieve(r, images, k=3))(jh.Retriever(model, index), digits.test_images[:9])
    expected = jh.search(index, jh.encode(model, digits.test_images[:9]), k=3)
    np.testing.assert_array_equal(found.ids, expected.ids)
