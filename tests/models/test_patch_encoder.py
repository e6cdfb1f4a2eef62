import jax
import numpy as np
import pytest
from flax import nnx
from loaders import Loader

import jaxhash as jh

# Two bits tell the four kinds of images apart: whether others become copies of these is a matter of rounding.
pytestmark = pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")


@pytest.fixture(scope="module")
def images():
    """Small pictures in four kinds: stripes across or down, reddish or bluish."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(4, size=200)
    stripes = np.where(np.arange(10) % 4 < 2, 200, 40)
    pictures = np.stack([np.tile(stripes, (10, 1)).T if kind % 2 else np.tile(stripes, (10, 1)) for kind in kinds])
    tint = np.where(kinds[:, None, None, None] < 2, [1, 0.6, 0.3], [0.3, 0.6, 1])
    return (pictures[..., None] * tint + rng.integers(0, 50, (200, 10, 10, 3))).astype(np.uint8), kinds


@pytest.fixture(scope="module")
def trained(images):
    model = jh.PatchEncoder((10, 10, 3), 16, (32,), num_atoms=8, num_components=16)
    return jh.fit(model, images[0], epochs=8, batch_size=64, objective="retrieve")


def test_images_of_a_kind_get_similar_codes(trained, images):
    model, history = trained
    codes, kinds = jh.encode(model, images[0]), images[1]
    assert history.loss[-1] < history.loss[0]
    index = jh.build_index(codes, 16)
    nearest = jh.search(index, codes, k=10).ids
    assert (kinds[nearest] == kinds[:, None]).mean() > 0.9


def test_a_model_goes_from_bytes_to_ids_in_one_program(trained, images):
    model, pictures = trained[0], images[0]
    codes = jh.encode(model, pictures)
    np.testing.assert_array_equal(jax.jit(jh.encode)(model, pictures), codes)
    np.testing.assert_array_equal(jh.encode(model, pictures[3]), codes[3])
    np.testing.assert_array_equal(jh.encode(model, pictures[5:6].reshape(1, -1)), codes[5:6])
    np.testing.assert_array_equal(np.concatenate(list(jh.encode(model, iter([pictures[:7]])))), codes[:7])
    retriever = jh.Retriever(model, jh.build_index(codes, 16))
    found = jax.jit(lambda retriever, images: jh.retrieve(retriever, images, k=3))(retriever, pictures[:9])
    np.testing.assert_array_equal(found.ids, jh.search(retriever.index, codes[:9], k=3).ids)
    weighted = jh.encode_weighted(model, pictures[:9])
    np.testing.assert_array_equal(weighted[0], codes[:9])
    assert weighted[1].shape == (9, 16)


def test_a_model_is_saved_and_loaded(trained, images, tmp_path):
    model = trained[0]
    jh.save_model(tmp_path / "model", model)
    loaded = jh.load_model(tmp_path / "model")
    assert loaded.config == model.config
    np.testing.assert_array_equal(jh.encode(loaded, images[0]), jh.encode(model, images[0]))


def test_training_goes_on_with_the_same_dictionary(trained, images):
    model = trained[0]
    more, _ = jh.fit(model, images[0], epochs=1, batch_size=64, objective="retrieve")
    assert all(np.array_equal(*pair) for pair in zip(model.dictionary, more.dictionary, strict=True))
    assert not np.array_equal(model.network.encoder.layers[0].kernel[...], more.network.encoder.layers[0].kernel[...])


def test_streams_train_as_arrays_do(images):
    model = jh.PatchEncoder((10, 10, 3), 8, (16,), num_atoms=8, num_components=16)
    batches = np.split(images[0], 4)
    options = {"epochs": 2, "batch_size": 64, "objective": "retrieve"}
    expected, history = jh.fit(model, images[0], **options)
    for stream in (iter(batches), Loader(images[0], 50)):
        found = jh.fit(model, stream, **options)
        jax.tree.map(np.testing.assert_array_equal, nnx.state(found[0]), nnx.state(expected))
        assert found[1] == history


def test_other_objectives_see_features_as_vectors(images):
    seen = []

    class Watched(jh.training.KeepNeighbors):
        def find_positives(self, items, seed):
            seen.append(items)
            return super().find_positives(items, seed)

    model = jh.PatchEncoder((10, 10, 3), 8, (), num_atoms=8, num_components=16)
    model, _ = jh.fit(model, images[0], epochs=1, batch_size=64, objective=Watched())
    (found,) = seen
    expected = jax.jit(model.compute_features)(images[0].astype(np.float32) / 255)
    np.testing.assert_allclose(found, expected, atol=2e-3)  # kept as float16


def test_there_is_no_decoder(trained, images):
    for function in (jh.reconstruct, jh.training.reconstruction_loss):
        with pytest.raises(TypeError, match="Autoencoder, which has a decoder, got PatchEncoder"):
            function(trained[0], images[0])
    with pytest.raises(ValueError, match=r'PatchEncoder has no decoder.*"retrieve"'):
        jh.fit(trained[0], images[0], epochs=1, objective="reconstruct")


def test_the_summary_shows_fixed_layers_and_trained_ones():
    lines = jh.models.summary(jh.PatchEncoder((32, 32, 3), 32)).splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["input", "(n,"], ["atoms", "(n,"], ["components", "(n,"]]
    assert "7200" in lines[2]
    assert lines[-2].startswith("round to bits")


@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 50, 2), (28, 28)])
def test_images_of_any_shape_are_encoded(shape):
    model = jh.PatchEncoder(shape, 10, (8,), num_atoms=4)
    assert jh.encode(model, np.zeros((2, *shape), np.uint8)).shape == (2, 1)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="image_shape"):
        jh.PatchEncoder((28,), 8)
    for name in ("num_atoms", "num_components"):
        with pytest.raises(ValueError, match=name):
            jh.PatchEncoder((8, 8), 8, **{name: 0})
    with pytest.raises(ValueError, match="8, 8, 3"):
        jh.encode(jh.PatchEncoder((8, 8, 3), 8), np.zeros((8, 8), np.uint8))
