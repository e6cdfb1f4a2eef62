"""When address tables are built: by `prepare`, by searches, and for programs."""

import jax
import numpy as np
import pytest
from samples import collection, identical, same

import jaxhash as jh
from jaxhash.codes.distances import Queries
from jaxhash.index.address_table import Slice
from jaxhash.index.hash_index import sizes_of
from jaxhash.index.probe_tables import tables_of_slices
from jaxhash.index.sharding import local_shards
from jaxhash.query.nearest import choose_options, find_nearest
from jaxhash.query.plan import LIMITS, Limits, order_nearest, order_radius, plan_multi_index, plan_tables
from jaxhash.query.probe.tables import _build_wanted, check_tables
from jaxhash.query.radius import find_matches

MESH = jax.make_mesh((1,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))


@pytest.fixture(scope="module")
def large():
    codes = np.random.default_rng(0).integers(0, 2**24, (100_000, 1), dtype=np.uint32) << np.uint32(8)
    return jh.build_index(codes, 24)


def fresh(index):
    """The same index with nothing cached."""
    return jax.tree.map(lambda array: array, index)


def slices(index):
    return tuple(Slice(table.first, table.size) for table in jh.describe(index).tables)


def test_a_prepared_index_probes_from_the_first_query_on(large):
    queries = np.asarray(large.codes).reshape(-1, 1)[:256]
    expected = jh.radius_search(large, queries, radius=2, method="scan"), jh.search(large, queries, k=1, method="scan")
    assert slices(large) == ()
    prepared = fresh(large)
    assert jh.prepare(prepared, radius=2, k=1) is prepared
    for order in (order_radius(sizes_of(prepared), 256, 2), order_nearest(sizes_of(prepared), 256, 1, 1)):
        assert choose_options(prepared, order)[0].method == "probe"
    tables = jh.describe(prepared).tables
    same(jh.radius_search(prepared, queries, radius=2), expected[0])
    same(jh.search(prepared, queries, k=1), expected[1])
    assert jh.describe(prepared).tables == tables


@pytest.mark.parametrize("limits", [Limits(), Limits(compare_word=0.02)], ids=["slow count", "fast count"])
@pytest.mark.parametrize(("radius", "k"), [(2, None), (3, None), (None, 1)])
def test_prepare_builds_what_auto_would(large, radius, k, limits):
    prepared, searched = fresh(large), fresh(large)
    _build_wanted(prepared, radius, k, limits)
    queries = np.asarray(large.codes).reshape(-1, 1)[:256]
    if k is None:
        find_matches(searched, queries, radius, limits=limits)
    else:
        find_nearest(searched, Queries(queries), k=k, limits=limits)
    assert slices(prepared) == slices(searched) != ()


def test_several_tables_are_prepared_for_long_codes():
    codes = np.random.default_rng(0).integers(0, 2**32, (50_000, 2), dtype=np.uint32)
    index = jh.prepare(jh.build_index(codes, 64), radius=6)
    assert slices(index) == order_radius(sizes_of(index), LIMITS.max_queries, 6)[0].slices
    assert len(slices(index)) > 1


def test_nothing_is_built_where_a_scan_is_quicker():
    index = jh.build_index(np.arange(1000, dtype=np.uint32)[:, None], 32)
    assert slices(jh.prepare(index, radius=16, k=5)) == ()
    assert slices(jh.prepare(jh.build_index(np.zeros((0, 1), np.uint32), 32), radius=1, k=1)) == ()


def test_shards_are_prepared(large):
    sharded = jh.shard_index(large, MESH)
    assert jh.prepare(sharded, k=1) is sharded
    assert slices(sharded) == ()  # shards are scanned for the nearest
    assert slices(jh.prepare(sharded, radius=2)) == slices(jh.prepare(fresh(large), radius=2))
    assert slices(local_shards(sharded)[0]) == slices(sharded)


def test_wrong_arguments_of_prepare_are_named():
    index, queries, *_ = collection(17)
    for arguments, error, words in [
        ({}, ValueError, "a radius, k, or both"),
        ({"radius": -1}, ValueError, "radius"),
        ({"k": 0}, ValueError, "k must"),
        ({"radius": 1.0}, TypeError, "radius"),
    ]:
        with pytest.raises(error, match=words):
            jh.prepare(index, **arguments)
    with pytest.raises(TypeError, match="index must be a HashIndex"):
        jh.prepare(queries, k=1)
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(lambda index: jh.prepare(index, k=1))(index)


# Tables for programs.


def test_the_cheapest_number_of_tables_is_built():
    index = jh.build_index(np.random.default_rng(0).integers(0, 2**32, (20_000, 2), dtype=np.uint32), 64)
    for radius in (1, 4):
        plans = [plan_tables(sizes_of(index), radius, 1), plan_multi_index(sizes_of(index), radius)]
        cheapest = min(plans, key=lambda plan: plan.cost)
        assert jh.build_tables(index, radius=radius).slices == cheapest.slices
    # They are those that searches on the host use too.
    assert jh.describe(index).tables != ()
    identical(tables_of_slices(index, cheapest.slices), jh.build_tables(index, radius=4))


def test_tables_of_another_index_are_refused():
    index, queries, *_ = collection(40)
    tables = jh.build_tables(index, radius=3)
    check_tables(index, tables, 3)
    others = [jh.build_index(np.zeros((1, 2), np.uint32), 64), collection(40, 5000).index]
    for other in others:
        with pytest.raises(ValueError, match="tables must be built from this index"):
            check_tables(other, tables, 3)
    with pytest.raises(TypeError, match="tables must be a ProbeTables, got ndarray"):
        check_tables(index, queries, 3)


def test_a_radius_of_too_many_probes_is_refused():
    codes = np.random.default_rng(0).integers(0, 2**32, (40_000, 2), dtype=np.uint32)
    index = jh.build_index(codes, 64)
    with pytest.raises(ValueError, match="a radius of 20 takes too many probes of 1 tables; scan instead"):
        jh.build_tables(index, radius=20, num_tables=1)
    tables = jh.build_tables(index, radius=2, num_tables=1)
    with pytest.raises(ValueError, match="radius 20 takes more than 65536 probes of these tables: build tables for it"):
        jh.radius_search_padded(index, codes[:1], radius=20, max_results=3, tables=tables)


def test_wrong_arguments_of_build_tables_are_named():
    index, queries, *_ = collection(40)
    for call, error, words in [
        (lambda: jh.build_tables(index, radius=-1), ValueError, "radius"),
        (lambda: jh.build_tables(index, radius=1.0), TypeError, "radius"),
        (lambda: jh.build_tables(index, radius=1, num_tables=0), ValueError, "num_tables"),
        (lambda: jh.build_tables(index, radius=1, num_tables=41), ValueError, "num_tables"),
        (lambda: jh.build_tables(queries, radius=1), TypeError, "index must be"),
        (lambda: jax.jit(lambda index: jh.build_tables(index, radius=1))(index), TypeError, "outside jit"),
    ]:
        with pytest.raises(error, match=words):
            call()
