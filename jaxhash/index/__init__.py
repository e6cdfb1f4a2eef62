"""Sorted codes with offsets into a list of ids, and how they are built, changed, sharded, described and saved.

An index never changes. `add_items`, `remove_items` and `merge_indexes` return another one, equal to one built from all
its items at once. Threads may go on searching the old one.

>>> import jaxhash as jh
>>> codes = jh.pack_bits([[0, 0], [0, 1], [0, 1]])
>>> index = jh.build_index(codes, num_bits=2)
>>> longer = jh.add_items(index, codes[:1])  # its id is 3, one more than the largest
>>> jh.remove_items(longer, [0, 3])
HashIndex(num_items=2, num_codes=1, num_bits=2)

An item takes 4 bytes for each word of its code, 4 for its id and, if no other item has its code, 4 for an offset. Up to
a quarter more is spare room, so that adding items seldom changes shapes, and compiled programs are used again. An index
holds up to 2^31 items, and up to 2^31 words on one device. `build_index` also takes codes in batches, from a generator
or from `encode`, so that they need not be in memory together.

Files are written whole or not at all, and loading one that is damaged raises `CorruptFileError`. A digest guards
against damage, not against intent: load only files that you trust, although nothing in them is ever run.

`shard_index` gives each device of a mesh a range of the sorted codes. The searches take the result in place of the
whole index and return the same, ties included; k answers of each device travel for a query, however many codes there
are. With several processes, all make the same calls in the same order:

    jax.distributed.initialize(heartbeat_timeout_seconds=10)  # once; TPU pods and Slurm find their peers
    mesh = jax.make_mesh((jax.device_count(),), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
    index = jh.load_sharded_index("/shared/index", mesh)  # each process reads its own part
    distances, ids = jh.search(index, queries, k=10)  # the same queries and results in every process
    jh.save_index("/shared/index", index)  # a file for each shard, then the list of them

`build_sharded_index` builds from items that the processes hold apart. What changes an index takes a whole one, which
is then sharded again. This is tested on CPU, with 8 devices of one process and with two and four processes. An index
holds less than 2^31 items; `search_several` and `radius_search_several` of `jaxhash.query` take several, also sharded.

Nothing here searches: `jaxhash.query` does.
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
