from functools import partial

import jax
import numpy as np
import pytest

import jaxhash as jh


@pytest.fixture(scope="module")
def retriever():
    model = jh.Autoencoder(12, 20, (16,))
    images = np.random.default_rng(0).integers(0, 256, (500, 12), dtype=np.uint8)
    return jh.Retriever(model, jh.build_index(jh.encode(model, images), 20))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (37, 12), dtype=np.uint8)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_retrieving_is_encoding_and_searching(retriever, images):
    found = jh.retrieve(retriever, images, k=5)
    same(found, jh.search(retriever.index, jh.encode(retriever.model, images), k=5))
    assert isinstance(found, jh.Neighbors)


def test_retrieving_inside_the_callers_jit_and_vmap(retriever, images):
    found = jh.retrieve(retriever, images, k=5)
    same(jax.jit(partial(jh.retrieve, k=5))(retriever, images), found)
    same(jax.jit(lambda x: jh.retrieve(retriever, x, k=5))(images), found)
    same(jax.jit(lambda: jh.retrieve(retriever, images, k=5))(), found)
    same(jax.vmap(lambda x: jh.retrieve(retriever, x, k=5))(images), found)


def test_a_program_around_retrieval_is_one_program(retriever, images, compilations):
    @jax.jit
    def doubled_ids(retriever, images):
        return 2 * jh.retrieve(retriever, images, k=3).ids

    with compilations:
        doubled = doubled_ids(retriever, images)
    assert compilations.count == 1
    np.testing.assert_array_equal(doubled, 2 * np.asarray(jh.retrieve(retriever, images, k=3).ids))


def test_images_keep_their_leading_shape(retriever, images):
    found = jh.retrieve(retriever, images, k=5)
    assert jh.retrieve(retriever, images[0].reshape(3, 4), k=5).ids.shape == (5,)
    cube = jh.retrieve(retriever, images[:30].reshape(2, 15, 3, 4), k=5)
    np.testing.assert_array_equal(cube.ids, found.ids[:30].reshape(2, 15, 5))
    assert jh.retrieve(retriever, images[:0], k=5).ids.shape == (0, 5)


def test_a_retriever_is_a_pytree(retriever, images):
    copied = jax.tree.map(lambda leaf: leaf + 0, retriever)
    same(jh.retrieve(copied, images, k=4), jh.retrieve(retriever, images, k=4))


def test_one_shape_is_compiled_once(retriever, images, compilations):
    for _ in range(2):
        with compilations:
            jh.retrieve(retriever, images, k=6)
    assert compilations.count == 0


def test_model_and_index_of_different_bits_are_refused(images):
    mixed = jh.Retriever(jh.Autoencoder(12, 20, ()), jh.build_index(np.zeros((3, 1), np.uint32), 17))
    with pytest.raises(ValueError, match="codes of 20 bits, but the index holds codes of 17 bits"):
        jh.retrieve(mixed, images, k=1)


def test_wrong_input_is_refused(retriever, images):
    with pytest.raises(TypeError, match="retriever must be a Retriever"):
        jh.retrieve(retriever.index, images, k=1)
    with pytest.raises(ValueError, match="k must lie"):
        jh.retrieve(retriever, images, k=0)
    with pytest.raises(ValueError, match="images must have shape"):
        jh.retrieve(retriever, images[:, :5], k=1)
    with pytest.raises(ValueError, match="row 1"):
        jh.retrieve(retriever, np.array([[0.0] * 12, [np.nan] * 12]), k=1)
