"""Saved models: they come back, and only those that fit their configuration are loaded."""

import jax
import numpy as np
import pytest
from samples import identical

import jaxhash as jh
from jaxhash.files.archive import read_archive, write_archive


@pytest.fixture(scope="module")
def model():
    images = np.random.default_rng(0).integers(0, 256, (64, 12), dtype=np.uint8)
    return jh.fit(jh.Autoencoder(12, 40, (8,)), images, epochs=1)[0]


def test_a_model_comes_back_bit_for_bit(model, tmp_path):
    jh.save_model(tmp_path / "model.npz", model)
    loaded = jh.load_model(tmp_path / "model.npz")
    identical(jax.tree.leaves(loaded), jax.tree.leaves(model))
    assert loaded.config == model.config
    images = np.random.default_rng(1).integers(0, 256, (20, 12), dtype=np.uint8)
    np.testing.assert_array_equal(jh.encode(loaded, images), jh.encode(model, images))
    again, _ = jh.fit(loaded, images, epochs=1)
    assert jh.encode(again, images).shape == (20, 2)


def test_loading_compiles_nothing(tmp_path, compilations):
    jh.save_model(tmp_path / "model.npz", jh.Autoencoder(19, 41, (23,)))  # shapes that no other test has
    with compilations:
        jh.load_model(tmp_path / "model.npz")
    assert compilations.count == 0


def test_a_model_of_vectors_keeps_its_shift_and_scale(tmp_path):
    vectors = np.random.default_rng(0).normal(3, 2, (64, 12)).astype(np.float32)
    model, _ = jh.fit(jh.Autoencoder(12, 40, (), output_activation="linear"), vectors, epochs=1)
    jh.save_model(tmp_path / "m", model)
    identical(jax.tree.leaves(jh.load_model(tmp_path / "m")), jax.tree.leaves(model))


@pytest.mark.parametrize("name", ["model.input_scale", "model.network.input_scale"])
def test_a_scale_of_zero_is_refused(name, tmp_path):
    jh.save_model(tmp_path / "m", jh.PatchEncoder((8, 8), 4, (3,), num_atoms=2))
    whole = read_archive(tmp_path / "m", "model")
    write_archive(tmp_path / "m", whole._replace(arrays=whole.arrays | {name: np.zeros((), np.float32)}))
    with pytest.raises(jh.CorruptFileError, match="input_scale must be above 0"):
        jh.load_model(tmp_path / "m")


@pytest.mark.parametrize(
    "model",
    [
        jh.Autoencoder(12, 5, (3,)),
        jh.Autoencoder(12, 5, (3,), image_shape=(2, 6)),
        jh.ConvAutoencoder((4, 4), 5, (2,), (3,)),
        jh.PatchEncoder((8, 8), 4, (3,), num_atoms=2),
    ],
    ids=["Autoencoder", "of flat images", "ConvAutoencoder", "PatchEncoder"],
)
def test_a_file_without_an_argument_or_array_is_refused(model, tmp_path):
    jh.save_model(tmp_path / "m", model)
    assert jh.load_model(tmp_path / "m").config == model.config
    whole = read_archive(tmp_path / "m", "model")
    meta, config = whole.meta["model"], whole.meta["model"]["config"]
    for name in config:
        less = {"model": meta | {"config": {key: value for key, value in config.items() if key != name}}}
        write_archive(tmp_path / "m", whole._replace(meta=less))
        with pytest.raises(jh.CorruptFileError, match="config must hold"):
            jh.load_model(tmp_path / "m")
    for name in whole.arrays:
        write_archive(tmp_path / "m", whole._replace(arrays={k: v for k, v in whole.arrays.items() if k != name}))
        with pytest.raises(jh.CorruptFileError, match="the model has"):
            jh.load_model(tmp_path / "m")


@pytest.mark.parametrize("name", ["image_shape", "num_bits", "channels", "hidden_dims", "output_activation"])
def test_an_argument_that_is_null_is_refused(name, tmp_path):
    jh.save_model(tmp_path / "m", jh.ConvAutoencoder((4, 4), 5))
    whole = read_archive(tmp_path / "m", "model")
    whole.meta["model"]["config"][name] = None
    write_archive(tmp_path / "m", whole)
    with pytest.raises(jh.CorruptFileError, match=name):
        jh.load_model(tmp_path / "m")


def test_a_model_whose_arrays_do_not_fit_its_config_is_refused(model, tmp_path):
    jh.save_model(tmp_path / "m", model)
    whole = read_archive(tmp_path / "m", "model")
    name = "model.encoder.layers.0.kernel"
    for arrays, message in [
        ({key: value for key, value in whole.arrays.items() if key != name}, "the model has"),
        (whole.arrays | {name: whole.arrays[name].T.copy()}, "must be float32"),
        (whole.arrays | {name: whole.arrays[name] * np.float32(np.nan)}, "NaN"),
    ]:
        write_archive(tmp_path / "m", whole._replace(arrays=arrays))
        with pytest.raises(jh.CorruptFileError, match=message):
            jh.load_model(tmp_path / "m")

    def changed(**arguments):
        return {"model": {"class": "Autoencoder", "config": whole.meta["model"]["config"] | arguments}}

    for meta, message in [
        ({"model": {"class": "Trojan", "config": {}}}, "Trojan"),
        (changed(hidden_dims=[8] * 100), "hidden_dims has more entries"),
        (changed(hidden_dims=[2**30]), "hidden_dims must lie between 1"),
        (changed(hidden_dims="8"), "hidden_dims must be an integer"),
        (changed(input_dim=-1), "input_dim must lie between 1"),
        (changed(num_bits=True), "num_bits must be an integer"),
        (changed(output_activation="magic"), "output_activation must be"),
        (changed(rngs=5), "config must hold"),
        ({}, "model"),
    ]:
        write_archive(tmp_path / "m", whole._replace(meta=meta))
        with pytest.raises(jh.CorruptFileError, match=message):
            jh.load_model(tmp_path / "m")


def test_a_model_with_a_function_as_activation_is_not_saved(tmp_path):
    model = jh.Autoencoder(12, 3, (), output_activation=jax.nn.gelu)
    with pytest.raises(ValueError, match="output_activation"):
        jh.save_model(tmp_path / "m", model)
    assert not list(tmp_path.iterdir())


def test_only_a_model_is_saved_as_one(tmp_path):
    class Mine(jh.Autoencoder):
        pass

    for wrong in (jh.build_index(np.zeros((3, 1), np.uint32), 17), Mine(12, 3, ())):  # no class of a user's is loaded
        with pytest.raises(TypeError, match="must be one of Autoencoder, ConvAutoencoder, PatchEncoder to be saved"):
            jh.save_model(tmp_path / "x", wrong)
