"""Indexes: sorted codes with offsets into a list of ids, built, updated, sharded, described and saved.

An index is immutable. `add_items`, `remove_items` and `merge_indexes` return a new one, equal to an index built from
all its items at once. Other threads can keep searching the old one.

>>> import jaxhash as jh
>>> codes = jh.pack_bits([[0, 0], [0, 1], [0, 1]])
>>> index = jh.build_index(codes, num_bits=2)
>>> longer = jh.add_items(index, codes[:1])  # its id is 3, one more than the largest
>>> jh.remove_items(longer, [0, 3])
HashIndex(num_items=2, num_codes=1, num_bits=2)

Each item takes 4 bytes for its id, and each distinct code takes 4 bytes per word and 4 for its offset. Padding adds up
to a quarter, so that adding items seldom changes shapes and compiled programs are reused. An index holds up to 2^31
items, and up to 2^31 words on one device. `build_index` also takes batches of codes, from a generator or from `encode`,
which need not be in memory together.

Files are written atomically, and loading a damaged one raises `CorruptFileError`. A digest detects damage, not
tampering: load only files that you trust, although nothing in them is executed.

`shard_index` gives each device of a mesh a range of the sorted codes. Searches take the result like a whole index and
return the same, ties included; each device sends k results per query, for any number of codes. With several processes,
all make the same calls in the same order:

    jax.distributed.initialize(heartbeat_timeout_seconds=10)  # once; detects TPU pods and Slurm
    mesh = jax.make_mesh((jax.device_count(),), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
    index = jh.load_sharded_index("/shared/index", mesh)  # each process reads its own part
    distances, ids = jh.search(index, queries, k=10)  # the same queries and results in every process
    jh.save_index("/shared/index", index)  # a file for each shard, then the manifest

`build_sharded_index` builds from items held by different processes. Updates take a whole index, which is then sharded
again. Sharding is tested on CPU, with 8 devices of one process and with two and four processes. For more than 2^31
items, `search_several` and `radius_search_several` of `jaxhash.query` take several indexes, also sharded.

Search functions are in `jaxhash.query`.
"""

from jaxhash.index.building import build_index
from jaxhash.index.changes import add_items, merge_indexes, remove_items
from jaxhash.index.density import IndexStats, TableStats, describe, expected_matches, suggest_num_bits
from jaxhash.index.file import load_index, load_sharded_index, save_index
from jaxhash.index.hash_index import HashIndex
from jaxhash.index.sharded_building import build_sharded_index
from jaxhash.index.sharding import ShardedIndex, shard_index

__all__ = [
    "HashIndex",
    "IndexStats",
    "ShardedIndex",
    "TableStats",
    "add_items",
    "build_index",
    "build_sharded_index",
    "describe",
    "expected_matches",
    "load_index",
    "load_sharded_index",
    "merge_indexes",
    "remove_items",
    "save_index",
    "shard_index",
    "suggest_num_bits",
]
