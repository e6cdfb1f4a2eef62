"""Reading of folders of images: all items, and the values of new and changed ones, pixels or vectors of a network.

Links are not followed: what they name is an item where it lies, or outside the folder.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxhash.cli.embedder import Embedder
from jaxhash.cli.embedding_cache import SUFFIX, EmbeddingCache
from jaxhash.cli.images import ImageError, guard_pillow, read_image
from jaxhash.cli.values import ReadFile, ValueWriter

DIGEST_WORDS = hashlib.sha256().digest_size // 4

HIDDEN = "hidden"  # why files are skipped that are not meant as items

# Limits of the images that are decoded before they are needed.
BYTES_AHEAD, FILES_AHEAD = 2**26, 256

# Called with the number of files read so far and the number of all files.
OnProgress = Callable[[int, int], None]


class Skipped(NamedTuple):
    """A file that was not read."""

    name: str
    reason: str


class Items(NamedTuple):
    """The n items of a source, and the values of the m new or changed ones."""

    names: list[str]  # sorted paths inside a folder, or row numbers
    digests: np.ndarray  # uint32 [n, DIGEST_WORDS], the sha256 of each item
    fresh: np.ndarray  # bool [n], whether an item is new or changed
    values: np.ndarray  # of fresh items: uint8 [m, side, side, 3] or float32 [m, d]
    skipped: list[Skipped]


def stack_digests(digests: list[bytes]) -> np.ndarray:
    """Stacks digests as uint32 `[n, DIGEST_WORDS]`."""
    return np.frombuffer(b"".join(digests), "<u4").reshape(-1, DIGEST_WORDS).astype(np.uint32)


def read_folder(
    folder: str,
    side: int,
    known: Mapping[str, bytes],
    *,
    embedder: Embedder | None = None,
    cache: EmbeddingCache | None = None,
    strict: bool = False,
    output: str | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Items:
    """Reads the images of a folder and its sub-folders, each once; memory holds a batch of them.

    Args:
        folder: the path of the folder.
        side: images are stretched to squares of this many pixels a side.
        known: digests by paths inside the folder; a file that has one of them, under any name, is not decoded.
        embedder: if given, values are its vectors, not pixels.
        cache: the vectors of earlier, interrupted readings by this embedder; new ones are added.
        strict: whether a file that is no image is an error, unless it is hidden.
        output: the path of the collection: it may lie in the folder, and is passed over.
        on_progress: called after each file.

    Returns:
        The items; their values are mapped from a file that vanishes with them.

    Raises:
        OSError: the folder can't be listed.
        ValueError: `strict` is set and something would be skipped; or the embedder fails.
    """
    names, skipped = list_files(folder, output)
    if strict:
        _refuse_skipped(folder, skipped)
    found: list[tuple[str, bytes, bool]] = []
    read = partial(_try_read, folder, side, frozenset(known.values()), cache)
    ahead = max(1, min(FILES_AHEAD, BYTES_AHEAD // (3 * side**2)))
    with guard_pillow(), ValueWriter(side, embedder, cache) as writer, start_workers() as workers:
        for done, (name, file) in enumerate(zip(names, _map_ahead(workers, read, names, ahead), strict=True), start=1):
            if isinstance(file, ImageError):
                skipped.append(Skipped(name, str(file)))
            else:
                found.append((name, file.digest, file.value is not None))
                if file.value is not None:
                    writer.add(file)
            if strict:
                _refuse_skipped(folder, skipped[-1:])
            on_progress(done, len(names))
        values = writer.finish()
    digests = stack_digests([digest for _, digest, _ in found])
    fresh = np.array([is_fresh for *_, is_fresh in found], bool)
    return Items([name for name, *_ in found], digests, fresh, values, sorted(skipped))


def _refuse_skipped(folder: str, skipped: list[Skipped]) -> None:
    for name, reason in skipped:
        if reason != HIDDEN:
            raise ValueError(f"{Path(folder) / name}: {reason}")


def _try_read(
    folder: str, side: int, known: Container[bytes], cache: EmbeddingCache | None, name: str
) -> ReadFile | ImageError:
    """Reads one image; an error is returned, so that it does not end the reading of the others."""
    path = Path(folder) / name
    try:
        status = path.stat() if cache is not None else None
    except OSError:
        status = None  # read_image says why
    stamp = (0, 0) if status is None else (status.st_size, status.st_mtime_ns)
    cached = None if cache is None else cache.find(name, stamp)
    try:
        digest, value = read_image(path, side, known) if cached is None else cached
    except ImageError as error:
        return error
    return ReadFile(name, stamp, digest, None if digest in known else value)


def _map_ahead(
    workers: ThreadPoolExecutor, function: Callable[[str], Any], arguments: Iterable[str], ahead: int
) -> Iterator[Any]:
    """Maps a function in threads, in order; up to `ahead` results are computed before they are taken."""
    pending: deque[Future[Any]] = deque()
    for argument in arguments:
        pending.append(workers.submit(function, argument))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def list_files(folder: str, output: str | None = None) -> tuple[list[str], list[Skipped]]:
    """Lists the files of a folder and its sub-folders by their sorted paths inside it, and what is skipped.

    The output of a command and the cache beside it are neither. Names that are not UTF-8 are kept exactly, by Python's
    "surrogateescape".
    """
    own = None if output is None else os.path.relpath(os.path.realpath(output), os.path.realpath(folder))
    names: list[str] = []
    skipped: list[Skipped] = []
    pending = [""]
    while pending:
        inside = pending.pop()
        try:
            entries = list(os.scandir(Path(folder) / inside))
        except OSError as error:
            if not inside:
                raise
            skipped.append(Skipped(inside, f"{type(error).__name__}: {error.strerror}"))
            continue
        for entry in entries:
            name = str(Path(inside) / entry.name)
            if own is not None and name in (own, own + SUFFIX):
                continue
            if entry.name.startswith("."):
                skipped.append(Skipped(name, HIDDEN))
            elif entry.is_symlink():
                kind = "folders" if Path(entry.path).is_dir() else "files"
                skipped.append(Skipped(name, f"links to {kind} are not followed"))
            elif entry.is_dir(follow_symlinks=False):
                pending.append(name)
            else:
                names.append(name)
    return sorted(names), sorted(skipped)


@contextmanager
def start_workers() -> Iterator[ThreadPoolExecutor]:
    """Starts a thread for each processor; after an error or Ctrl-C, tasks not yet begun are cancelled."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
