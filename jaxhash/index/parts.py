"""Saving and loading an index in parts, so that no process must hold all of it.

Each shard is saved as an index file, named by its digest. The file at the user's path is a manifest that lists these
files. It is written after them, and it alone determines the version: the parts of the old version stay until then, and
readers never mix the two.

The manifest also has marks: the ranks of many codes in each part, and the number of items before each. For another
number of devices, an index is cut at marks, so the shapes of all shards are known before any part is read.
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

from jaxhash.core.checks import num_words
from jaxhash.files.archive import DIGEST_LENGTH, Archive, read_archive, write_archive
from jaxhash.files.atomic import sync_directory
from jaxhash.files.header import AnyPath, CorruptFileError
from jaxhash.index.contents import check_sorted, index_to_arrays, read_settings, read_sorted
from jaxhash.index.hash_index import HashIndex, Sorted, check_size, index_from_sorted
from jaxhash.index.processes import gather_rows
from jaxhash.index.sharding import ShardedIndex, assemble_shards, cut_evenly, local_shards, shard_index

PARTS = "index in parts"
MAX_MARKS = 1024  # in each part

# Columns of the rows about saved parts that processes exchange: part number, rank, number of items, digest.
NUMBER, RANK, ITEMS, DIGEST = 0, 1, 2, slice(3, 3 + DIGEST_LENGTH // 8)


class Manifest(NamedTuple):
    """The p non-empty parts of a saved index, and m marks."""

    num_bits: int
    multi: bool
    digests: list[str]
    starts: np.ndarray  # int64 [p + 1], the rank of the first code of each part; then the number of codes
    ranks: np.ndarray  # int64 [m + 1], the ranks of the marked codes; then the number of codes
    items: np.ndarray  # int64 [m + 1], the number of items before each marked code; then the number of items


def save_parts(path: AnyPath, index: ShardedIndex) -> None:
    """Implements `save_index` for a `ShardedIndex`: each process saves its shards, then one saves the manifest."""
    target, several = Path(path).resolve(), index.mesh.is_multi_process

    def save_own_parts() -> np.ndarray:
        parts = [_save_part(target, number, shard) for number, shard in local_shards(index).items()]
        return np.concatenate([np.zeros((0, DIGEST.stop), np.int32), *parts])

    rows = gather_rows(save_own_parts, several)
    rows = rows[np.lexsort((rows[:, RANK], rows[:, NUMBER]))]

    def save_manifest() -> np.ndarray:
        if not several or jax.process_index() == 0:
            _save_manifest(target, rows, index)
        return np.zeros((0, 1), np.int32)

    gather_rows(save_manifest, several)


def _save_part(target: Path, number: int, shard: HashIndex) -> np.ndarray:
    """Saves a shard unless it is empty; returns a row for each mark and one for the end."""
    meta, arrays = index_to_arrays(shard)
    count = len(arrays["index.codes"])
    marks = cut_evenly(count, max(1, min(MAX_MARKS, count)))
    rows = np.zeros((len(marks), DIGEST.stop), np.int32)
    if not count:
        return rows[:0]
    unnamed = target.with_name(f"{target.name}.{number}.writing")
    digest = write_archive(unnamed, Archive("index", meta, arrays))
    unnamed.replace(_part_path(target, digest))
    sync_directory(target.parent)
    rows[:, NUMBER], rows[:, RANK], rows[:, ITEMS] = number, marks, arrays["index.offsets"][marks]
    rows[:, DIGEST] = _digest_to_row(digest)
    return rows


def _part_path(target: Path, digest: str) -> Path:
    return target.with_name(f"{target.name}.{digest}.part")


def _digest_to_row(digest: str) -> np.ndarray:
    """Converts a digest to int32 `[8]`."""
    return np.frombuffer(bytes.fromhex(digest), ">i4").astype(np.int32)


def _digest_from_row(row: np.ndarray) -> str:
    return row.astype(">i4").tobytes().hex()


def _save_manifest(target: Path, rows: np.ndarray, index: ShardedIndex) -> None:
    """Saves the manifest of parts from their sorted rows, and removes unlisted parts."""
    last = np.diff(rows[:, NUMBER], append=-1) != 0  # the rows for the ends of parts
    sizes = rows[last][:, [RANK, ITEMS]]
    starts = np.cumsum(np.concatenate([np.zeros((1, 2), np.int32), sizes]), axis=0, dtype=np.int32)
    part = np.cumsum(last) - last
    marks = np.concatenate([(rows[:, [RANK, ITEMS]] + starts[part])[~last], starts[-1:]])
    digests = [_digest_from_row(row) for row in rows[last, DIGEST]]
    arrays = {"starts": starts[:, 0], "ranks": marks[:, 0], "items": marks[:, 1]}
    meta = {"num_bits": index.num_bits, "multi": bool(index.multi), "parts": digests}
    write_archive(target, Archive(PARTS, {"index": meta}, arrays))
    _remove_other_parts(target, digests)


def _remove_other_parts(target: Path, digests: list[str]) -> None:
    """Removes the part files of `target` except those with the given digests."""
    listed = {_part_path(target, digest) for digest in digests}
    for path in target.parent.iterdir():
        is_part = re.fullmatch(rf"{re.escape(target.name)}\.[0-9a-f]{{{DIGEST_LENGTH}}}\.part", path.name)
        if is_part and path not in listed:
            path.unlink(missing_ok=True)


def _read_manifest(path: AnyPath, archive: Archive) -> Manifest:
    """Returns the manifest in an archive; raises `CorruptFileError` if it is invalid."""
    try:
        (num_bits, multi), digests = read_settings(archive), archive.meta["index"]["parts"]
        if not isinstance(digests, list) or not all(re.fullmatch("[0-9a-f]{64}", str(digest)) for digest in digests):
            raise ValueError("parts must be named by digests")
        starts, ranks, items = (_check_rising(archive.arrays[name]) for name in ("starts", "ranks", "items"))
        if len(starts) != len(digests) + 1 or len(ranks) != len(items) or ranks[-1] != starts[-1]:
            raise ValueError("starts and marks must match the parts")
        return Manifest(num_bits, multi, digests, starts, ranks, items)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: list of parts: {error!r}") from None


def _check_rising(numbers: np.ndarray) -> np.ndarray:
    """Returns numbers as int64 `[m]`; raises unless they rise strictly from 0."""
    if numbers.dtype != np.int32 or numbers.ndim != 1 or numbers[:1].tolist() != [0] or (np.diff(numbers) <= 0).any():
        raise ValueError("numbers of codes and items must be int32 and rise from 0")
    return numbers.astype(np.int64)


def load_whole(path: AnyPath, archive: Archive) -> HashIndex:
    """Implements `load_index` for a manifest: loads all parts as one index."""
    manifest = _read_manifest(path, archive)
    check_size(int(manifest.items[-1]), manifest.num_bits)
    whole = _read_range(_make_reader(path, manifest), manifest, 0, int(manifest.starts[-1]))
    _check_range(path, whole, manifest)
    return index_from_sorted(*whole, manifest.num_bits, manifest.multi)


def load_shards(path: AnyPath, mesh: Mesh, axis_name: str) -> ShardedIndex:
    """Implements `load_sharded_index`; checks that all processes read one version."""
    loaded = []

    def load_own_shards() -> np.ndarray:
        archive = read_archive(path, "index", PARTS)
        loaded.append(_load_archive(path, archive, mesh, axis_name))
        return _digest_to_row(archive.digest)[None]

    versions = gather_rows(load_own_shards, mesh.is_multi_process)
    if (versions != versions[:1]).any():
        raise RuntimeError(f"{path} was replaced during loading, and processes read different versions: load it again")
    return loaded[0]


def _load_archive(path: AnyPath, archive: Archive, mesh: Mesh, axis_name: str) -> ShardedIndex:
    """Loads the shards of this process from the archive of an index or a manifest."""
    if archive.kind == "index":
        return shard_index(index_from_sorted(*read_sorted(path, archive)), mesh, axis_name=axis_name)
    manifest = _read_manifest(path, archive)
    read_part, num_codes = _make_reader(path, manifest), int(manifest.starts[-1])
    marks = np.searchsorted(manifest.ranks, cut_evenly(num_codes, mesh.shape[axis_name]), side="right") - 1
    cuts, num_items = manifest.ranks[marks], np.diff(manifest.items[marks])

    def read_shard(number: int) -> Sorted:
        shard = _read_range(read_part, manifest, int(cuts[number]), int(cuts[number + 1]))
        _check_range(path, shard, manifest)
        if len(shard[2]) != num_items[number]:
            raise CorruptFileError(f"{path}: its marks don't match its parts")
        return shard

    max_codes, max_items = int(np.diff(cuts).max()), int(num_items.max())
    return assemble_shards(read_shard, max_codes, max_items, manifest.num_bits, mesh, axis_name, multi=manifest.multi)


def _make_reader(path: AnyPath, manifest: Manifest) -> Callable[[int], Sorted]:
    """Returns a function that reads part i. It caches the last part, which the next shard may need too."""

    @functools.lru_cache(1)
    def read_part(number: int) -> Sorted:
        part = _part_path(Path(path).resolve(), manifest.digests[number])
        try:
            archive = read_archive(part, "index")
        except FileNotFoundError:
            raise CorruptFileError(f"{path}: its part {part.name} is missing") from None
        table, offsets, ids, num_bits, multi = read_sorted(part, archive)
        count = manifest.starts[number + 1] - manifest.starts[number]
        expected = (manifest.digests[number], manifest.num_bits, manifest.multi, count)
        if (archive.digest, num_bits, multi, len(table)) != expected:
            raise CorruptFileError(f"{path}: its part {part.name} is not the saved file")
        return table, offsets, ids

    return read_part


def _read_range(read_part: Callable[[int], Sorted], manifest: Manifest, first: int, last: int) -> Sorted:
    """Reads the codes of ranks `first` to `last - 1` from the parts that hold them."""
    width = num_words(manifest.num_bits)
    tables, sizes, labels = [np.zeros((0, width), np.uint32)], [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for number, (start, end) in enumerate(pairwise(manifest.starts.tolist())):
        begin, stop = max(first, start) - start, min(last, end) - start
        if begin < stop:
            table, offsets, ids = read_part(number)
            tables.append(table[begin:stop])
            sizes.append(np.diff(offsets[begin : stop + 1]))
            labels.append(ids[offsets[begin] : offsets[stop]])
    offsets = np.append(0, np.cumsum(np.concatenate(sizes))).astype(np.int32)
    return np.concatenate(tables), offsets, np.concatenate(labels)


def _check_range(path: AnyPath, items: Sorted, manifest: Manifest) -> None:
    """Raises unless individually valid parts are valid together."""
    try:
        check_sorted(*items, manifest.num_bits, manifest.multi)
    except ValueError as error:
        raise CorruptFileError(f"{path}: its parts don't match: {error}") from None
