"""Sharding an index; tests/whole/devices has what needs several devices."""

import jax
import numpy as np
import pytest
from samples import identical

import jaxhash as jh

MESH = jax.make_mesh((1,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))


def test_one_device_holds_one_shard():
    index = jh.build_index(np.array([[3], [1], [3]], np.uint32) << 24, 8, ids=[5, 6, 6], multi=True)
    sharded = jh.shard_index(index, MESH)
    assert (sharded.num_shards, sharded.multi) == (1, True)
    identical([sharded.codes, sharded.offsets, sharded.ids], [index.codes, index.offsets, index.ids])
    identical(
        jh.build_sharded_index(np.array([[3], [1]], np.uint32) << 24, 8, MESH, ids=[6, 6], multi=True),
        jh.shard_index(jh.build_index(np.array([[3], [1]], np.uint32) << 24, 8, ids=[6, 6], multi=True), MESH),
    )


def test_repeated_ids_without_multi_are_refused():
    with pytest.raises(ValueError, match="multi=True allows several codes per item"):
        jh.build_sharded_index(np.zeros((2, 1), np.uint32), 8, MESH, ids=[6, 6])
