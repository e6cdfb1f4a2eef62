"""The README's table of what can go wrong: each row is tested, here or where this says."""

import multiprocessing
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxhash as jh

TESTS = Path(__file__).parents[1]

TESTED = {
    "`CodeWarning`": "training/test_fitting.py::test_one_constant_image_trains_with_a_warning_of_dead_bits",
    "`QualityWarning`": "training/test_advice.py::test_fit_tells_of_flat_pictures_and_takes_their_shape",
    "All neighbours at the same distance": "whole/test_troubles.py::test_items_of_one_code_are_told_apart_by_vectors",
    "No results": "query/test_estimate.py::test_the_estimate_sees_the_crowding_that_the_rule_does_not",
    "`DivergenceError`": "training/test_fitting.py::test_divergence_leaves_the_last_good_model",
    "Out of memory": "query/test_pairs.py::test_too_many_pairs_are_an_error_before_they_take_memory",
    "Neighbours make no sense": "whole/test_troubles.py::test_codes_of_another_model_are_near_nothing",
    "Single queries are slow": "query/test_prepare.py::test_a_prepared_index_probes_from_the_first_query_on",
    "A forked process hangs": "whole/test_troubles.py::test_a_spawned_process_finds_the_same",
    "`CorruptFileError`": "files/test_archive.py::test_every_flipped_byte_is_noticed",
}


def test_the_table_holds_what_is_tested():
    section = (TESTS.parent / "README.md").read_text().partition("## When something is wrong")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!what you see)([^|]+) \|", section, re.MULTILINE)
    assert [re.split("[:,]", row)[0] for row in rows] == list(TESTED)


@pytest.mark.parametrize("test", TESTED.values())
def test_what_tests_a_row_is_there(test):
    path, name = test.split("::")
    assert f"def {name}(" in (TESTS / path).read_text()


def test_items_of_one_code_are_told_apart_by_vectors():
    codes = jh.pack_bits(np.ones((4, 8), bool))
    index = jh.build_index(codes, num_bits=8)
    assert jh.describe(index).max_density == 4
    found = jh.search(index, codes[:1], k=4)
    assert np.asarray(found.distances).tolist() == [[0, 0, 0, 0]]
    vectors = jnp.array([[0.0, 1], [1, 1], [1, 0], [-1, 0]])
    assert jh.rerank_vectors(vectors, vectors[2:3], found.ids, k=2).ids.tolist() == [[2, 1]]


def test_codes_of_another_model_are_near_nothing(rng):
    old, new = (jh.Autoencoder(9, 16, (), rngs=nnx.Rngs(seed)) for seed in (0, 1))
    items = rng.random((20, 9), np.float32)
    index = jh.build_index(jh.encode(old, items), num_bits=16)
    assert (np.asarray(jh.search(index, jh.encode(new, items), k=1).distances) > 0).any()
    assert (np.asarray(jh.search(index, jh.encode(old, items), k=1).distances) == 0).all()


def search_file(path, queries):
    return np.asarray(jh.search(jh.load_index(path), queries, k=3).ids)


@pytest.mark.slow  # a new process imports JAX
def test_a_spawned_process_finds_the_same(rng, tmp_path):
    codes = rng.integers(0, 2**32, (100, 1), dtype=np.uint32)
    index = jh.build_index(codes, num_bits=32)
    jh.save_index(tmp_path / "index", index)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(search_file, (tmp_path / "index", codes[:5]))
    np.testing.assert_array_equal(found, jh.search(index, codes[:5], k=3).ids)
