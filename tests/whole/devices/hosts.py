"""One of some processes with four devices together: `hosts.py CASE,CASE NUMBER COUNT PORT FOLDER`.

`test_devices.py` starts them. Each holds only the shards of its own devices; what they find is compared with the whole
index.
"""

import os
import sys
import time

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={4 // int(sys.argv[3])}"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhash as jh
from jaxhash.index import parts, sharding
from jaxhash.query import radius_search_several, search_several

wanted, (number, count), (port, folder) = sys.argv[1].split(","), map(int, sys.argv[2:4]), sys.argv[4:]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
patience = 10 if "dying" in wanted else 1000  # a busy machine may not let a process run for minutes
jax.distributed.initialize(f"127.0.0.1:{port}", count, number, heartbeat_timeout_seconds=patience)

mesh = jax.make_mesh((4,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
rng = np.random.default_rng(0)
codes = rng.integers(0, 2**10, (3001, 2), dtype=np.uint32) << np.uint32(22)
ids = rng.permutation(3001)
index, queries = jh.build_index(codes, 64, ids=ids), codes[:40] ^ np.uint32(1)


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def same_answers(sharded, index=index):
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
    assert jh.describe(sharded)[:6] == jh.describe(index)[:6]
    allowed = np.arange(int(np.asarray(index.ids).max()) + 1) % 2 == 0
    same(jh.search(sharded, queries, k=9, allowed=allowed), jh.search(index, queries, k=9, allowed=allowed))
    within = {"radius": 6, "allowed": allowed}
    same(jh.radius_search(sharded, queries, **within), jh.radius_search(index, queries, **within))
    several = {"id_offsets": [0, 2**31], "allowed": [allowed, None]}
    found = search_several([sharded, sharded], queries, k=9, **several)
    same(found, search_several([index, index], queries, k=9, **several))
    found = radius_search_several([sharded, index], queries, radius=6, **several)
    same(found, radius_search_several([index, index], queries, radius=6, **several))
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


def equal_arrays(found, expected):
    for name in sharding.AXES:
        pieces = zip(getattr(found, name).addressable_shards, getattr(expected, name).addressable_shards, strict=True)
        for piece, other in pieces:
            assert piece.index == other.index
            np.testing.assert_array_equal(piece.data, other.data)


def building():
    """Each gives items of its own, in any order and of any number, and gets its shards of the whole."""
    by_code, some = np.lexsort(codes.T[::-1]), rng.permutation(3001)
    for own in [
        np.array_split(some, 2),
        (some[:10], some[10:]),
        (some[:0], some),
        (by_code[1000:], by_code[:1000]),
        (by_code[:0], by_code[:0]),
        (by_code[:1], by_code[:0]),
    ]:
        every, mine = np.concatenate(own), own[number]
        expected = jh.shard_index(jh.build_index(codes[every], 64, ids=ids[every]), mesh)
        equal_arrays(jh.build_sharded_index(codes[mine], 64, mesh, ids=ids[mine]), expected)
    crossed = jax.sharding.Mesh(mesh.devices.reshape(2, 2), ("copies", "shards"), axis_types=(mesh.axis_types[0],) * 2)
    mine = np.array_split(some, 2)[number]
    built = jh.build_sharded_index(codes[mine], 64, crossed, ids=ids[mine])
    equal_arrays(built, jh.shard_index(index, crossed))
    same_answers(jh.build_sharded_index(codes[mine], 64, mesh, ids=ids[mine]))
    several = rng.integers(0, 900, 3001)
    mine = np.array_split(np.append(some, some[:100]), 2)[number]  # some pairs are in both
    built = jh.build_sharded_index(codes[mine], 64, mesh, ids=several[mine], multi=True)
    whole = jh.build_index(codes, 64, ids=several, multi=True)
    equal_arrays(built, jh.shard_index(whole, mesh))
    same_answers(built, whole)
    allowed, bags = np.arange(900) % 2 == 0, queries.reshape(4, 10, 2)
    for mask in (None, allowed):
        found = jh.bag_search(built, bags, radius=6, k=9, allowed=mask)
        same(found, jh.bag_search(whole, bags, radius=6, k=9, allowed=mask))
    refused(lambda: jh.build_sharded_index(codes[:9], 64, mesh, ids=np.arange(9)), "ids must be distinct", every=False)
    multi = number == 1
    refused(lambda: jh.build_sharded_index(codes[:9], 64, mesh, ids=ids[:9], multi=multi), "same in all", every=True)
    refused(lambda: jh.build_sharded_index(codes[:9], 64 - number, mesh, ids=ids[:9]), "same in all", every=True)
    wrong = codes[:9, : 2 - number]
    refused(lambda: jh.build_sharded_index(wrong, 64, mesh, ids=ids[:9]), "shape", every=False)


def many_building():
    """Each of more processes gives a part; then one of them has none."""
    some = rng.permutation(3001)
    for own in (np.array_split(some, count), [some[:0], *np.array_split(some, count - 1)]):
        built = jh.build_sharded_index(codes[own[number]], 64, mesh, ids=ids[own[number]])
        equal_arrays(built, jh.shard_index(index, mesh))
    same(jh.search(built, queries, k=9), jh.search(index, queries, k=9))


def refused(call, words, every):
    """Whether an error of one process is an error in all: of the same kind in all, or a RuntimeError in the others."""
    with pytest.raises((ValueError, RuntimeError)) as caught:
        call()
    assert words in str(caught.value) or (not every and "its own error says why" in str(caught.value))


def failing():
    """One process can't answer, and lives on: the other must not wait for it."""
    sharded = jh.shard_index(index, mesh)
    shards = sharding.local_shards(sharded)
    whole = dict(shards)
    if number == 1:
        last = max(shards)
        shards[last] = jax.tree.map(jnp.copy, shards[last])
        shards[last].codes.delete()
    with pytest.raises(RuntimeError, match=("process 1 failed", "deleted")[number]):
        jh.radius_search(sharded, queries, radius=6, method="scan")
    shards.update(whole)
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


cases = {play.__name__: play for play in (building, many_building, equal, failing, saving, dying)}
for name in wanted:
    cases[name]()
    print(f"{name} is done", flush=True)
