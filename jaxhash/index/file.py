"""Saving and loading indexes, as a whole or in parts."""

from jax.sharding import Mesh

from jaxhash.files.archive import Archive, read_archive, write_archive
from jaxhash.files.header import AnyPath
from jaxhash.index.contents import index_to_arrays, read_sorted
from jaxhash.index.hash_index import HashIndex, index_from_sorted
from jaxhash.index.parts import PARTS, load_shards, load_whole, save_parts
from jaxhash.index.sharding import ShardedIndex, check_mesh


def save_index(path: AnyPath, index: HashIndex | ShardedIndex) -> None:
    """Saves an index. An old file stays until the new one is complete; equal indexes give equal bytes.

    A `ShardedIndex` is saved in parts: one file for each shard beside `path`, and a manifest at `path`. All processes
    that hold shards must make this call and see the same folder. Two saves in parts to one path must not run at once.

    Address tables are not saved, since building them is as fast as reading and checking them:
    `jh.prepare(jh.load_index(path), radius=r)`.

    Args:
        path: where to save.
        index: a `HashIndex` or `ShardedIndex`.

    Raises:
        OSError: the file can't be written; the old one is untouched.
        TypeError: `index` is neither a `HashIndex` nor a `ShardedIndex`.
    """
    if isinstance(index, ShardedIndex):
        save_parts(path, index)
    else:
        write_archive(path, Archive("index", *index_to_arrays(index)))


def load_index(path: AnyPath) -> HashIndex:
    """Loads a whole index, also one saved in parts.

    Raises:
        OSError: the file can't be read.
        CorruptFileError: the file is damaged or is not a saved index, or a part is missing.
        ValueError: the parts together are too large for one device.
    """
    archive = read_archive(path, "index", PARTS)
    if archive.kind == PARTS:
        return load_whole(path, archive)
    return index_from_sorted(*read_sorted(path, archive))


def load_sharded_index(path: AnyPath, mesh: Mesh, *, axis_name: str = "shards") -> ShardedIndex:
    """Loads an index, saved as a whole or in any number of parts, and shards it over the devices of a mesh.

    Each process reads only the parts for its own devices, one at a time. All processes with devices in the mesh must
    make this call.

    Args:
        path: the path given to `save_index`.
        mesh: as for `shard_index`.
        axis_name: as for `shard_index`.

    Raises:
        ValueError: as for `shard_index`.
        OSError: a file can't be read.
        CorruptFileError: a file is damaged or is not a saved index, or a part is missing.
        RuntimeError: another process failed, or read another version because the file was replaced during loading.
    """
    check_mesh(mesh, axis_name)
    return load_shards(path, mesh, axis_name)
