import jax
import numpy as np
import pytest

import jaxhash as jh
from jaxhash.models.input_rule import make_trained_rule


def test_a_model_trained_on_floats_refuses_bytes(rng):
    vectors = rng.normal(size=(50, 12)).astype(np.float32)
    vectors[0, 0], vectors[0, 1] = -4.0, 4.0
    model, _ = jh.fit(jh.Autoencoder(12, 4, (8,), output_activation="linear"), vectors, epochs=1)
    jh.encode(model, vectors * 2.5)  # similar vectors may lie outside
    with pytest.raises(ValueError, match=r"must lie in \[-12, 12\] for this model, but row 3 spans"):
        jh.encode(model, np.concatenate([vectors[:3], vectors[:1] * 255]))
    with pytest.raises(TypeError, match="scaled like this model's training images, got dtype uint8"):
        jh.encode(model, np.zeros((2, 12), np.uint8))
    with pytest.raises(TypeError, match="uint8"):
        jax.jit(lambda images: jh.encode(model, images))(np.zeros((2, 12), np.uint8))
    jh.fit(model, vectors * 255, epochs=1)  # training again may change the range


def test_the_input_rule_is_saved_with_the_model(rng, tmp_path):
    vectors = rng.normal(size=(50, 12)).astype(np.float32)
    model, _ = jh.fit(jh.Autoencoder(12, 4, (8,), output_activation="linear"), vectors, epochs=1)
    jh.save_model(tmp_path / "model", model)
    with pytest.raises(ValueError, match="for this model"):
        jh.encode(jh.load_model(tmp_path / "model"), vectors * 255)


def test_a_model_trained_on_bytes_takes_unit_floats(rng):
    images = rng.integers(0, 256, (50, 12), dtype=np.uint8)
    model, _ = jh.fit(jh.Autoencoder(12, 4, (8,), output_activation="linear"), images, epochs=1)
    np.testing.assert_array_equal(jh.encode(model, images), jh.encode(model, np.float32(images) / 255))
    with pytest.raises(ValueError, match=r"\[0, 1\] \(or be uint8\)"):
        jh.encode(model, np.float32(images))


def test_the_range_of_vectors_is_widened():
    for low, high, expected in ((-4, 4, (-12, 12)), (10, 12, (-2, 24)), (0, 3e38, (-3e38, 3.4028235e38))):
        rule = make_trained_rule("linear", np.dtype(np.float32), low, high)
        np.testing.assert_allclose(rule, [*expected, 0], rtol=1e-6)
