"""Results have the kind of the queries: numpy arrays give numpy arrays, JAX arrays and traced ones JAX arrays."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from kinds import NUM_BITS, make_cases
from samples import collection, same

import jaxhash as jh
from jaxhash import query
from jaxhash.codes.distances import Queries
from jaxhash.query.nearest import find_nearest
from jaxhash.query.plan import LIMITS

CASES = make_cases((3,))
RAGGED = {"radius_search", "radius_search_several", "neighbor_pairs", "duplicate_groups", "deduplicate"}
ON_THE_HOST = RAGGED | {"search_several"}  # always numpy's


def kinds(found):
    """The kinds of the arrays in a result."""
    return {np.ndarray if isinstance(leaf, np.ndarray) else jax.Array for leaf in jax.tree.leaves(found)}


def test_every_search_has_a_case():
    searches = {name for name in query.__all__ if name.islower()} - {"build_tables", "prepare"}
    named = {name.split(",")[0] for name in CASES}
    assert named == searches - ON_THE_HOST | {"retrieve"}


@pytest.mark.parametrize("name", CASES)
def test_results_are_of_the_kind_of_the_queries(name):
    function, queries, beside, _ = CASES[name]
    expected = function(queries, *beside)
    assert kinds(expected) == {np.ndarray}
    on_device = jax.device_put(queries)
    for others in (beside, jax.device_put(beside)):
        assert kinds(function(queries, *others)) == {np.ndarray}
        found = function(on_device, *others)
        assert type(found) is type(expected)
        assert kinds(found) == {jax.Array}
        assert {leaf.sharding for leaf in jax.tree.leaves(found)} == {on_device.sharding}
        same(found, expected)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].traced])
def test_traced_queries_give_traced_results(name):
    function, queries, beside, _ = CASES[name]
    expected, seen = function(queries, *beside), []

    def program(*arrays):
        seen.append(function(*arrays))
        return seen[-1]

    same(jax.jit(program)(queries, *beside), expected)
    assert all(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(seen))
    same(jax.jit(lambda: function(queries, *beside))(), expected)


def test_a_filter_made_inside_a_jit_serves_outside():
    index, queries, *_ = collection(NUM_BITS)
    limits = LIMITS._replace(min_gathered_items=1, gathered_ratio=2)  # few items are allowed: their codes are gathered
    search = partial(find_nearest, index, Queries(queries), np.arange(1200) < 30, k=3, limits=limits)
    same(jax.jit(search)(), search())


@pytest.mark.parametrize("lead", [(), (0,), (2, 2), pytest.param((512,), marks=pytest.mark.slow)])
def test_kinds_hold_for_queries_of_any_shape(lead):
    cases = make_cases(lead)
    for name in (
        "search",
        "search, scan",
        "radius_search_padded",
        "bag_search",
        "rerank",
        "rerank_vectors",
        "retrieve",
    ):
        function, queries, beside, _ = cases[name]
        of_numpy, of_jax = function(queries, *beside), function(jax.device_put(queries), *beside)
        assert (kinds(of_numpy), kinds(of_jax)) == ({np.ndarray}, {jax.Array}), name
        assert jax.tree.map(np.shape, of_jax) == jax.tree.map(np.shape, of_numpy), name
        same(of_jax, of_numpy)


def test_ragged_results_are_always_of_numpy():
    codes = np.arange(9, dtype=np.uint32)[:, None] << np.uint32(24)
    for kind in (np.asarray, jax.device_put):
        index, queries = jh.build_index(kind(codes), 8), kind(codes[:2])
        for found in (
            jh.radius_search(index, queries, radius=1, allowed=kind(np.arange(9) > 0)),
            jh.neighbor_pairs(index, radius=1),
            jh.duplicate_groups(index, radius=1),
            jh.deduplicate(index, radius=1),
            query.search_several([index], queries, k=2),
            query.radius_search_several([index], queries, radius=1),
        ):
            assert kinds(found) == {np.ndarray}


def test_networks_always_give_jax_arrays():
    model, images = jh.Autoencoder(12, NUM_BITS, ()), np.zeros((3, 12), np.uint8)
    for array in (images, jax.device_put(images)):
        for function in (jh.encode, jh.encode_weighted, jh.reconstruct):
            assert kinds(function(model, array)) == {jax.Array}


OF_NUMPY = """
from typing import assert_type

import jaxhash as jh
import numpy as np

codes = jh.pack_bits(np.eye(32, dtype=bool))
index = jh.build_index(codes, num_bits=32)
found = jh.search(index, codes[:2], k=3, allowed=np.ones(32, bool))
assert_type(found, jh.query.Neighbors[np.ndarray])
names = np.array([f"item {number}" for number in range(32)])
print(names[found.ids], found.distances.mean())
matches = jh.radius_search(index, codes, radius=2)
first: np.ndarray = matches.ids[matches.offsets[0] : matches.offsets[1]]
padded = jh.radius_search_padded(index, codes, radius=2, max_results=8)
assert_type(padded, jh.query.PaddedMatches[np.ndarray])
distances, ids = jh.rerank(codes, codes[:2], found.ids, k=2)
assert_type(ids, np.ndarray)
"""

OF_JAX = """
from typing import assert_type

import jax
import jaxhash as jh
import jax.numpy as jnp

model = jh.Autoencoder(12, num_bits=32)
codes = jh.encode(model, jnp.zeros((9, 12)))
index = jh.build_index(codes, num_bits=32)


@jax.jit
def nearest(index: jh.HashIndex, queries: jax.Array) -> jax.Array:
    found = jh.search(index, queries, k=3)
    assert_type(found, jh.query.Neighbors[jax.Array])
    return jh.rerank_vectors(jnp.zeros((9, 2)), jnp.zeros((len(queries), 2)), found.ids, k=2).ids


print(nearest(index, codes).sharding, jh.bag_search(index, codes, radius=2, k=3).scores.sum())
"""


@pytest.mark.parametrize("program", [OF_NUMPY, OF_JAX])
def test_users_programs_run(program):
    variables = {}
    exec(program, variables)  # noqa: S102
    assert variables["index"].num_bits == 32


@pytest.mark.slow  # reads the types of JAX, numpy and flax
def test_users_programs_have_the_types_of_their_arrays(tmp_path):
    pytest.importorskip("mypy")
    for name, program in (("of_numpy.py", OF_NUMPY), ("of_jax.py", OF_JAX)):
        (tmp_path / name).write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "of_numpy.py", "of_jax.py"]
    environment = os.environ | {"PYTHONPATH": str(Path(jh.__file__).parents[1])}  # as if installed: py.typed counts
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
