"""Tables that are built because someone says so."""

import jax
import numpy as np
import pytest
from samples import same

import jaxhash as jh
from jaxhash.query import nearest, radius
from jaxhash.query.cost_model import choose_slices


@pytest.fixture(scope="module")
def index():
    codes = np.random.default_rng(0).integers(0, 2**24, (300_000, 1), dtype=np.uint32) << np.uint32(8)
    return jh.build_index(codes, 24)


def fresh(index):
    """The same index with nothing remembered."""
    return jax.tree.map(lambda array: array, index)


def slices(index):
    return tuple((table.first, table.size) for table in jh.describe(index).tables)


def test_a_prepared_index_probes_from_the_first_query_on(index, monkeypatch):
    queries = np.asarray(index.codes).reshape(-1, 1)[:1024]
    expected = jh.radius_search(index, queries, radius=2, method="scan"), jh.search(index, queries, k=1, method="scan")
    assert slices(index) == ()
    prepared = fresh(index)
    assert jh.prepare(prepared, radius=2, k=1) is prepared
    tables = jh.describe(prepared).tables
    monkeypatch.setattr(radius, "_scan", None)
    monkeypatch.setattr(nearest, "_compiled_search", None)
    same(jh.radius_search(prepared, queries, radius=2), expected[0])
    same(jh.search(prepared, queries, k=1), expected[1])
    assert jh.describe(prepared).tables == tables


def test_each_number_builds_what_its_searches_probe(index):
    assert slices(jh.prepare(fresh(index), k=1)) == slices(jh.prepare(fresh(index), radius=2)) == ((0, 24),)
    codes = np.random.default_rng(0).integers(0, 2**32, (200_000, 2), dtype=np.uint32)
    long = jh.prepare(jh.build_index(codes, 64), radius=3)
    assert slices(long) == choose_slices(long, 3, None)
    assert len(slices(long)) > 1


def test_nothing_is_built_where_a_scan_is_quicker():
    index = jh.build_index(np.arange(1000, dtype=np.uint32)[:, None], 32)
    assert slices(jh.prepare(index, radius=8, k=5)) == ()
    assert slices(jh.prepare(jh.build_index(np.zeros((0, 1), np.uint32), 32), radius=1, k=1)) == ()


def test_wrong_arguments_are_named(index):
    for arguments, error, words in [
        ({}, ValueError, "a radius, k, or both"),
        ({"radius": -1}, ValueError, "radius"),
        ({"k": 0}, ValueError, "k must"),
        ({"radius": 1.0}, TypeError, "radius"),
    ]:
        with pytest.raises(error, match=words):
            jh.prepare(index, **arguments)
    with pytest.raises(TypeError, match="index must be a HashIndex"):
        jh.prepare(np.zeros((3, 1), np.uint32), k=1)
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(lambda index: jh.prepare(index, k=1))(index)
