"""Sharding an index; tests/whole/devices has what needs several devices."""

import jax
import numpy as np
import pytest

import jaxhash as jh


def test_an_index_of_several_codes_an_item_is_refused():
    index = jh.build_index(np.zeros((2, 1), np.uint32), 8, ids=[5, 6], multi=True)
    with pytest.raises(ValueError, match="can't be spread over devices"):
        jh.shard_index(index, jax.make_mesh((1,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,)))
