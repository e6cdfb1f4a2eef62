"""Sorted codes with offsets into a list of ids, and how they are built, changed, sharded, described and saved.

Nothing here searches: `jaxhash.query` does.
"""

from jaxhash.index.building import build_index, check_pairs, check_table
from jaxhash.index.changes import add_items, merge_indexes, remove_items
from jaxhash.index.density import IndexStats, describe, expected_matches, suggest_num_bits
from jaxhash.index.file import load_index, load_sharded_index, save_index
from jaxhash.index.hash_index import (
    NO_ID,
    HashIndex,
    check_size,
    code_runs,
    index_from_sorted,
    layout,
    padded_size,
    sorted_arrays,
    tile_shape,
)
from jaxhash.index.sharded_building import build_sharded_index
from jaxhash.index.sharding import ShardedIndex, shard_index

__all__ = [
    "NO_ID",
    "HashIndex",
    "IndexStats",
    "ShardedIndex",
    "add_items",
    "build_index",
    "build_sharded_index",
    "check_pairs",
    "check_size",
    "check_table",
    "code_runs",
    "describe",
    "expected_matches",
    "index_from_sorted",
    "layout",
    "load_index",
    "load_sharded_index",
    "merge_indexes",
    "padded_size",
    "remove_items",
    "save_index",
    "shard_index",
    "sorted_arrays",
    "suggest_num_bits",
    "tile_shape",
]
