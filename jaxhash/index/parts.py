"""An index saved in parts, so that none of those who save or load it has to hold it all.

Every shard is a file that holds an index by itself, named by its own digest. The file at the path that the user gave
lists them, and is written when all of them are in place. Which version there is, it alone says: the parts of the one
before stay until then, and no reader can mix the two.

The list also has marks: the ranks of many codes in each part, and how many items come before them. An index is cut for
another number of devices at marks, so that the shapes of all shards are known before any part is read.
"""

import functools
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxhash.core.checks import check_num_bits
from jaxhash.files.archive import DIGEST_LENGTH, AnyPath, Archive, CorruptFileError, read_archive, write_archive
from jaxhash.files.atomic import sync_directory
from jaxhash.index.contents import check_sorted, index_to_arrays, read_sorted
from jaxhash.index.hash_index import HashIndex, Sorted, check_size, index_from_sorted
from jaxhash.index.processes import gather_rows
from jaxhash.index.sharding import ShardedIndex, assemble_shards, cut_evenly, local_shards, shard_index

PARTS = "index in parts"
MARKS = 1024  # in each part, at most


class Listing(NamedTuple):
    """The list of the parts, p of them, none of them empty."""

    num_bits: int
    digests: list[str]
    starts: np.ndarray  # int64 [p + 1], how many codes come before each part, and in all
    ranks: np.ndarray  # int64 [m + 1], which codes are marked; the number of codes stands behind them
    items: np.ndarray  # int64 [m + 1], how many items come before each


def save_parts(path: AnyPath, index: ShardedIndex) -> None:
    """Saves the shards, each process its own, and then the list; what `save_index` does for a `ShardedIndex`."""
    target, several = Path(path).resolve(), index.mesh.is_multi_process

    def own_parts() -> np.ndarray:
        parts = [_saved_part(target, number, shard) for number, shard in local_shards(index).items()]
        return np.concatenate([np.zeros((0, 3 + DIGEST_LENGTH // 8), np.int32), *parts])

    rows = gather_rows(own_parts, several)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]

    def listing() -> np.ndarray:
        if not several or jax.process_index() == 0:
            _save_listing(target, rows, index.num_bits)
        return np.zeros((0, 1), np.int32)

    gather_rows(listing, several)


def _saved_part(target: Path, number: int, shard: HashIndex) -> np.ndarray:
    """Saves a shard, unless it is empty: rows int32 `[m, 3 + 8]`.

    A row is its number, a marked rank, how many items come before, and the digest; the last one is for its end.
    """
    meta, arrays = index_to_arrays(shard)
    count = len(arrays["index.codes"])
    marks = cut_evenly(count, max(1, min(MARKS, count)))
    rows = np.zeros((len(marks), 3 + DIGEST_LENGTH // 8), np.int32)
    if not count:
        return rows[:0]
    unnamed = target.with_name(f"{target.name}.{number}.writing")
    digest = write_archive(unnamed, Archive("index", meta, arrays))
    unnamed.replace(_part_path(target, digest))
    sync_directory(target.parent)
    rows[:, 0], rows[:, 1], rows[:, 2] = number, marks, arrays["index.offsets"][marks]
    rows[:, 3:] = np.frombuffer(bytes.fromhex(digest), ">i4")
    return rows


def _part_path(target: Path, digest: str) -> Path:
    return target.with_name(f"{target.name}.{digest}.part")


def _save_listing(target: Path, rows: np.ndarray, num_bits: int) -> None:
    """Puts the list in place, and removes what parts it does not name."""
    last = np.diff(rows[:, 0], append=-1) != 0
    starts = np.cumsum(np.concatenate([np.zeros((1, 2), np.int32), rows[last, 1:3]]), axis=0, dtype=np.int32)
    part = np.cumsum(last) - last
    marks = np.concatenate([(rows[:, 1:3] + starts[part])[~last], starts[-1:]])
    digests = [row.astype(">i4").tobytes().hex() for row in rows[last, 3:]]
    arrays = {"starts": starts[:, 0], "ranks": marks[:, 0], "items": marks[:, 1]}
    write_archive(target, Archive(PARTS, {"index": {"num_bits": num_bits, "parts": digests}}, arrays))
    named = {_part_path(target, digest) for digest in digests}
    for path in target.parent.iterdir():
        part_name = re.fullmatch(rf"{re.escape(target.name)}\.[0-9a-f]{{{DIGEST_LENGTH}}}\.part", path.name)
        if part_name and path not in named:
            path.unlink(missing_ok=True)


def _listing(path: AnyPath, archive: Archive) -> Listing:
    try:
        num_bits, digests = check_num_bits(archive.meta["index"]["num_bits"]), archive.meta["index"]["parts"]
        if not isinstance(digests, list) or not all(re.fullmatch("[0-9a-f]{64}", str(digest)) for digest in digests):
            raise ValueError("parts must be named by digests")
        starts, ranks, items = (_rising(archive.arrays[name]) for name in ("starts", "ranks", "items"))
        if len(starts) != len(digests) + 1 or len(ranks) != len(items) or ranks[-1] != starts[-1]:
            raise ValueError("starts and marks must be those of the parts")
        return Listing(num_bits, digests, starts, ranks, items)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: list of parts: {error!r}") from None


def _rising(numbers: np.ndarray) -> np.ndarray:
    """Numbers as int64 `[m]`, at least one, that rise from 0."""
    if numbers.dtype != np.int32 or numbers.ndim != 1 or numbers[:1].tolist() != [0] or (np.diff(numbers) <= 0).any():
        raise ValueError("numbers of codes and items must be int32 and rise from 0")
    return numbers.astype(np.int64)


def load_whole(path: AnyPath, archive: Archive) -> HashIndex:
    """A whole index from the list of its parts; what `load_index` does for one in parts."""
    listing = _listing(path, archive)
    check_size(int(listing.items[-1]), listing.num_bits)
    table, offsets, ids = _range(_reader(path, listing), listing, 0, int(listing.starts[-1]))
    _check_joined(path, table, offsets, ids, listing.num_bits)
    return index_from_sorted(table, offsets, ids, listing.num_bits)


def load_shards(path: AnyPath, mesh: Mesh, axis_name: str) -> ShardedIndex:
    """What `load_sharded_index` does."""
    loaded = []

    def own_shards() -> np.ndarray:
        archive = read_archive(path, "index", PARTS)
        loaded.append(_spread(path, archive, mesh, axis_name))
        return np.frombuffer(bytes.fromhex(archive.digest), ">i4").astype(np.int32)[None]

    versions = gather_rows(own_shards, mesh.is_multi_process)
    if (versions != versions[:1]).any():
        raise RuntimeError(f"{path} was replaced while it was being read, and processes differ: load it again")
    return loaded[0]


def _spread(path: AnyPath, archive: Archive, mesh: Mesh, axis_name: str) -> ShardedIndex:
    if archive.kind == "index":
        return shard_index(index_from_sorted(*read_sorted(path, archive)), mesh, axis_name)
    listing = _listing(path, archive)
    read, total = _reader(path, listing), int(listing.starts[-1])
    marks = np.searchsorted(listing.ranks, cut_evenly(total, mesh.shape[axis_name]), side="right") - 1
    cuts, num_items = listing.ranks[marks], np.diff(listing.items[marks])

    def part(number: int) -> Sorted:
        shard = _range(read, listing, int(cuts[number]), int(cuts[number + 1]))
        _check_joined(path, *shard, listing.num_bits)
        if len(shard[2]) != num_items[number]:
            raise CorruptFileError(f"{path}: its marks are not those of its parts")
        return shard

    return assemble_shards(part, int(np.diff(cuts).max()), int(num_items.max()), listing.num_bits, mesh, axis_name)


def _reader(path: AnyPath, listing: Listing) -> Callable[[int], Sorted]:
    """What reads a part, and keeps the last one, as neighbouring shards may both need it."""

    @functools.lru_cache(1)
    def read(number: int) -> Sorted:
        place = _part_path(Path(path).resolve(), listing.digests[number])
        try:
            archive = read_archive(place, "index")
        except FileNotFoundError:
            raise CorruptFileError(f"{path}: its part {place.name} is missing") from None
        table, offsets, ids, num_bits, _ = read_sorted(place, archive)
        expected = (listing.digests[number], listing.num_bits, listing.starts[number + 1] - listing.starts[number])
        if (archive.digest, num_bits, len(table)) != expected:
            raise CorruptFileError(f"{path}: its part {place.name} is not the file that was saved")
        return table, offsets, ids

    return read


def _range(read: Callable[[int], Sorted], listing: Listing, first: int, last: int) -> Sorted:
    """The codes of ranks from `first` to before `last`, from the parts that hold some."""
    width = -(-listing.num_bits // 32)
    tables, sizes, labels = [np.zeros((0, width), np.uint32)], [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for number, (start, end) in enumerate(pairwise(listing.starts.tolist())):
        begin, stop = max(first, start) - start, min(last, end) - start
        if begin < stop:
            table, offsets, ids = read(number)
            tables.append(table[begin:stop])
            sizes.append(np.diff(offsets[begin : stop + 1]))
            labels.append(ids[offsets[begin] : offsets[stop]])
    offsets = np.append(0, np.cumsum(np.concatenate(sizes))).astype(np.int32)
    return np.concatenate(tables), offsets, np.concatenate(labels)


def _check_joined(path: AnyPath, table: np.ndarray, offsets: np.ndarray, ids: np.ndarray, num_bits: int) -> None:
    """Raises unless parts, each right by itself, are so together."""
    try:
        check_sorted(table, offsets, ids, num_bits)
    except ValueError as error:
        raise CorruptFileError(f"{path}: its parts do not go together: {error}") from None
