"""One of two processes with two devices each, started by `test_sharding.py`: `hosts.py CASE NUMBER PORT FOLDER`.

Each holds only the shards of its own devices; what they find is compared with the whole index.
"""

import os
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest

import jaxhash as jh
from jaxhash.index import parts, sharding
from jaxhash.query import radius

case, number, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, number, heartbeat_timeout_seconds=10)

mesh = jax.make_mesh((4,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
rng = np.random.default_rng(0)
codes = rng.integers(0, 2**10, (3001, 2), dtype=np.uint32) << np.uint32(22)
index, queries = jh.build_index(codes, 64, ids=rng.permutation(3001)), codes[:40] ^ np.uint32(1)


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def same_answers(sharded):
    same(jh.search(sharded, queries, k=9), jh.search(index, queries, k=9))
    same(jh.search(sharded, queries[0], k=9), jh.search(index, queries[0], k=9))
    inside = jax.jit(lambda index, queries: jh.search(index, queries, k=9))(sharded, queries)
    same(inside, jh.search(index, queries, k=9))
    padded = {"radius": 6, "max_results": 5}
    same(jh.radius_search_padded(sharded, queries, **padded), jh.radius_search_padded(index, queries, **padded))
    same(jh.radius_search(sharded, queries, radius=6), jh.radius_search(index, queries, radius=6))


def equal():
    sharded = jh.shard_index(index, mesh)
    assert len(sharding.local_shards(sharded)) == 2
    assert not sharded.codes.is_fully_addressable
    same_answers(sharded)
    assert jh.describe(sharded) == jh.describe(index)
    model = jh.Autoencoder(12, 64, (16,))
    images = rng.integers(0, 256, (37, 12), dtype=np.uint8)
    same(jh.retrieve(jh.Retriever(model, sharded), images, k=5), jh.retrieve(jh.Retriever(model, index), images, k=5))


def saving():
    """Both save their parts, and load what was saved in two parts onto four devices."""
    path = f"{folder}/index"
    sharded = jh.shard_index(index, mesh)
    jh.save_index(path, sharded)
    read = parts.read_archive
    opened = set()

    def noting(path, *kinds):
        opened.add(str(path))
        return read(path, *kinds)

    parts.read_archive = noting
    loaded = jh.load_sharded_index(path, mesh)
    assert len(opened) == 3  # the list and two parts
    same_answers(loaded)
    same(jh.load_index(path), index)
    two = jax.sharding.Mesh(jax.devices()[::2], ("shards",), axis_types=mesh.axis_types)
    jh.save_index(path, jh.shard_index(index, two))
    jax.tree.map(
        np.testing.assert_array_equal, *map(sharding.local_shards, (jh.load_sharded_index(path, mesh), loaded))
    )


def failing():
    """One process can't answer, and lives on: the other must not wait for it."""
    sharded = jh.shard_index(index, mesh)
    scan = radius._scan
    if number == 1:
        radius._scan = lambda *_: 1 / 0
    expected = (RuntimeError, ZeroDivisionError)[number]
    with pytest.raises(expected, match=("process 1 failed", "division by zero")[number]):
        jh.radius_search(sharded, queries, radius=6, method="scan")
    radius._scan = scan
    same(jh.radius_search(sharded, queries, radius=6), jh.radius_search(index, queries, radius=6))


def dying():
    """One process goes while the other is waiting for its answers, and gets an error instead."""
    sharded = jh.shard_index(index, mesh)
    jh.search(sharded, queries, k=9)
    if number == 1:
        time.sleep(2)
        os._exit(9)
    start = time.monotonic()
    try:
        jh.search(sharded, queries, k=9)
    except Exception as error:
        print(f"after {time.monotonic() - start:.1f} s: {type(error).__name__}", flush=True)
        os._exit(3)  # leaving in good order would wait for the one that is gone


{"equal": equal, "failing": failing, "saving": saving, "dying": dying}[case]()
print("done", flush=True)
