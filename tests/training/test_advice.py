"""Training says what would make better codes: of images laid flat or with channels first, of sorted streams."""

import warnings

import numpy as np
import pytest

import jaxhash as jh
from jaxhash.training import data, fitting
from jaxhash.training.advice import find_picture_shape

SIDE = 16
FAST = {"epochs": 1, "batch_size": 32, "objective": "retrieve"}


def make_pictures(rng, *shape):
    """Smooth pictures, uint8: bright blocks of 4x4 pixels."""
    blocks = rng.integers(0, 256, (64, SIDE // 4, SIDE // 4, *shape), dtype=np.uint8)
    return blocks.repeat(4, axis=1).repeat(4, axis=2)


class StoppedError(Exception):
    pass


def stop(*_):
    raise StoppedError


def quality_warnings(model, images, **options):
    """What `fit` warns of before the first epoch, which is not run."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr(fitting, "run_epoch", stop)
        with pytest.raises(StoppedError):
            jh.fit(model, images, **(FAST | options))
    return [str(warning.message) for warning in caught if warning.category is jh.training.QualityWarning]


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (SIDE, SIDE, 3)])
def test_flat_pictures_are_known_by_bytes_or_smoothness(rng, shape):
    flat = make_pictures(rng, *shape[2:]).reshape(64, -1)
    assert find_picture_shape(flat) == shape
    assert find_picture_shape(flat / np.float32(255)) == shape


def test_vectors_are_not_taken_for_pictures(rng):
    assert find_picture_shape(rng.random((64, SIDE * SIDE), dtype=np.float32)) is None
    assert find_picture_shape(make_pictures(rng).reshape(64, -1)[:, :-1]) is None
    # Alike along one axis only, as time series are.
    series = rng.random((64, SIDE, 1), dtype=np.float32).repeat(SIDE, axis=2)
    assert find_picture_shape(series.reshape(64, -1)) is None


def test_fit_tells_of_flat_pictures_and_takes_their_shape(rng):
    flat = make_pictures(rng).reshape(64, -1)
    (message,) = quality_warnings(jh.Autoencoder(SIDE * SIDE, 8, ()), flat)
    assert "image_shape=(16, 16)" in message
    told = jh.Autoencoder(SIDE * SIDE, 8, (), image_shape=(SIDE, SIDE))
    assert quality_warnings(told, flat) == []
    assert quality_warnings(jh.Autoencoder(SIDE * SIDE, 8, ()), flat, objective=jh.training.Retrieve(warp=None)) == []
    assert quality_warnings(jh.Autoencoder(SIDE * SIDE, 8, ()), flat, objective="reconstruct") == []


def test_flat_pictures_of_known_shape_train_as_pictures(rng):
    pictures = make_pictures(rng)
    told = jh.Autoencoder(SIDE * SIDE, 8, (), image_shape=(SIDE, SIDE))
    codes = [jh.encode(jh.fit(told, images, **FAST)[0], pictures) for images in (pictures, pictures.reshape(64, -1))]
    np.testing.assert_array_equal(*codes)


def test_a_model_keeps_the_shape_in_its_file(rng, tmp_path):
    jh.save_model(tmp_path / "model.npz", jh.Autoencoder(SIDE * SIDE, 8, (), image_shape=(SIDE, SIDE)))
    assert jh.load_model(tmp_path / "model.npz").image_shape == (SIDE, SIDE, 1)


@pytest.mark.parametrize("wrong", [(SIDE, SIDE + 1), (SIDE * SIDE,), (SIDE, SIDE, 3), 16])
def test_a_shape_of_another_number_of_values_is_refused(wrong):
    with pytest.raises((ValueError, TypeError), match="image_shape"):
        jh.Autoencoder(SIDE * SIDE, 8, (), image_shape=wrong)


def test_fit_tells_of_channels_first(rng):
    model = jh.Autoencoder(SIDE * SIDE * 3, 8, ())
    color = make_pictures(rng, 3)
    assert quality_warnings(model, color) == []
    (message,) = quality_warnings(model, color.transpose(0, 3, 1, 2))
    assert "channels" in message
    assert "last axis" in message


def test_fit_tells_of_a_sorted_stream_in_several_runs(rng, monkeypatch):
    monkeypatch.setattr(data, "BYTES_IN_RUN", 2**12)
    dark = rng.integers(0, 100, (64, 64), dtype=np.uint8)
    images = np.concatenate([dark, dark + 150])
    shuffled = images[rng.permutation(128)]
    options = {"objective": "reconstruct"}
    (message,) = quality_warnings(jh.Autoencoder(64, 8, ()), Loader(images), **options)
    assert "sorted" in message
    assert quality_warnings(jh.Autoencoder(64, 8, ()), Loader(shuffled), **options) == []


class Loader:
    def __init__(self, images):
        self.images = images

    def __iter__(self):
        return iter(np.split(self.images, 4))


def test_bytes_as_floats_are_refused_with_what_to_do(rng):
    with pytest.raises(ValueError, match="divide by 255"):
        jh.fit(jh.Autoencoder(64, 8, ()), rng.random((8, 64), dtype=np.float32) * 255, epochs=1)
