import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxhash as jh
from jaxhash.models import inputs


@pytest.fixture(scope="module")
def model():
    return jh.Autoencoder(12, 40, (16, 8), rngs=nnx.Rngs(3))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, jnp.bfloat16, bool])
def test_floats_of_any_width_and_bools_are_taken(model, dtype):
    images = np.eye(12).astype(dtype)
    np.testing.assert_array_equal(jh.encode(model, images), jh.encode(model, np.eye(12, dtype=np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_row_of_a_nonfinite_image_is_named(model, value):
    images = np.zeros((5, 3, 4), np.float32)
    images[3, 1, 2] = value
    for call in (jh.encode, jh.reconstruct, jh.training.reconstruction_loss):
        with pytest.raises(ValueError, match="row 3 holds NaN or infinity"):
            call(model, images)


def test_floats_that_overflow_float32_are_refused():
    model = jh.Autoencoder(2, 3, (), output_activation="linear")
    with pytest.raises(ValueError, match="row 0"):
        jh.encode(model, np.array([[1e300, 0.0]]))


@pytest.mark.parametrize("value", [255.0, -0.5])
def test_floats_outside_the_range_of_a_model_are_refused(model, value):
    images = np.zeros((5, 12), np.float32)
    images[2, 0] = value
    with pytest.raises(ValueError, match=r"\[0, 1\].*row 2"):
        jh.encode(model, images)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.complex64, str, object])
def test_images_of_other_dtypes_are_refused(model, dtype):
    with pytest.raises(TypeError, match="images must be uint8"):
        jh.encode(model, np.zeros((2, 12)).astype(dtype))


@pytest.mark.parametrize("shape", [(30, 13), (30, 4, 4), (), (30,)])
def test_images_of_another_shape_are_refused(model, shape):
    with pytest.raises(ValueError, match=r"images must have shape \[..., 12\].*got \("):
        jh.encode(model, np.zeros(shape, np.uint8))


def test_other_objects_than_models_are_refused():
    with pytest.raises(TypeError, match="model must be an Encoder"):
        jh.encode("model", np.zeros((1, 12), np.uint8))


@pytest.fixture
def accelerator(monkeypatch):
    """Lets JAX arrays pass for ones that the host cannot read, and counts those that are fetched whole."""
    fetched = []
    device_get = jax.device_get

    def record(tree):
        fetched.extend(leaf.shape for leaf in jax.tree.leaves(tree) if leaf.ndim > 1)
        return device_get(tree)

    monkeypatch.setattr(inputs, "is_on_host", lambda array: not isinstance(array, jax.Array))
    monkeypatch.setattr(jax, "device_get", record)
    return fetched


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float16, np.float32])
def test_values_on_an_accelerator_are_checked_there(model, accelerator, dtype):
    items, lead, item_shape = inputs.check_items(model, jnp.ones((2, 3, 4, 3), dtype))
    assert isinstance(items, jax.Array)
    assert (items.shape, items.dtype, lead, item_shape) == ((6, 12), dtype, (2, 3), (4, 3))
    assert not accelerator


@pytest.mark.parametrize(("value", "message"), [(np.nan, "row 3 holds NaN"), (1.5, "row 3 spans"), (-1, "row 3 spans")])
def test_wrong_values_on_an_accelerator_are_named_by_row(model, accelerator, value, message):
    images = jnp.zeros((5, 12), jnp.float32).at[3, 7].set(value)
    with pytest.raises(ValueError, match=message):
        inputs.check_items(model, images)
    assert accelerator == [(5, 12)]


def test_no_images_on_an_accelerator_are_taken(model, accelerator):
    assert inputs.check_items(model, jnp.zeros((0, 3, 4), jnp.float32))[0].shape == (0, 12)


def test_training_items_become_float32_or_stay_bytes():
    model = jh.Autoencoder(12, 4, (), output_activation="linear")
    model.input_rule[...] = jnp.float32([-1, 1, 0])
    for dtype, expected in ((np.uint8, np.uint8), (bool, bool), (np.float64, np.float32), (jnp.bfloat16, np.float32)):
        for images in (np.full((2, 3, 4), 9).astype(dtype), jnp.full((2, 3, 4), 9).astype(jnp.float32)):
            items, item_shape = inputs.check_training_items(model, images)
            assert isinstance(items, np.ndarray)
            assert item_shape == (3, 4)
            assert items.shape == (2, 12)
            assert items.dtype == (np.float32 if isinstance(images, jax.Array) else expected)
