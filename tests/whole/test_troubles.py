"""What the README's table of troubles says, as far as no other test shows it."""

import multiprocessing

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxhash as jh


def test_items_of_one_code_are_told_apart_by_vectors():
    codes = jh.pack_bits(np.ones((4, 8), bool))
    index = jh.build_index(codes, num_bits=8)
    assert jh.describe(index).max_density == 4
    found = jh.search(index, codes[:1], k=4)
    assert found.distances.tolist() == [[0, 0, 0, 0]]
    vectors = jnp.array([[0.0, 1], [1, 1], [1, 0], [-1, 0]])
    assert jh.rerank_vectors(vectors, vectors[2:3], found.ids, k=2).ids.tolist() == [[2, 1]]


def test_where_nothing_is_near_there_are_no_results():
    index = jh.build_index(jh.codes.codes_from_integers([0, 1, 255], 8), num_bits=8)
    query = jh.codes.codes_from_integers([24], 8)
    assert jh.radius_search(index, query, radius=1).ids.tolist() == []
    found = jh.search(index, query, k=4, allowed=np.array([True, True, False]))
    assert found.ids.tolist() == [[0, 1, jh.query.Neighbors.NO_ID, jh.query.Neighbors.NO_ID]]
    assert found.distances.tolist() == [[2, 3] + [jh.query.Neighbors.NO_DISTANCE] * 2]


def test_codes_of_another_model_are_near_nothing(rng):
    old, new = (jh.Autoencoder(9, 16, (), rngs=nnx.Rngs(seed)) for seed in (0, 1))
    items = rng.random((20, 9), np.float32)
    index = jh.build_index(jh.encode(old, items), num_bits=16)
    assert (jh.search(index, jh.encode(new, items), k=1).distances > 0).any()
    assert (jh.search(index, jh.encode(old, items), k=1).distances == 0).all()


def search_file(path, queries):
    return jh.search(jh.load_index(path), queries, k=3).ids


@pytest.mark.slow  # a new process imports JAX
def test_a_spawned_process_finds_the_same(rng, tmp_path):
    codes = rng.integers(0, 2**32, (100, 1), dtype=np.uint32)
    index = jh.build_index(codes, num_bits=32)
    jh.save_index(tmp_path / "index", index)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(search_file, (tmp_path / "index", codes[:5]))
    np.testing.assert_array_equal(found, jh.search(index, codes[:5], k=3).ids)
