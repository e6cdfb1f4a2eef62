"""Reading of sources, folders of images or files of vectors: all items, and the values of new and changed ones."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxhash.cli.images import ImageError, guard_pillow, read_image

DIGEST_WORDS = hashlib.sha256().digest_size // 4

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


def _stack_digests(digests: list[bytes]) -> np.ndarray:
    """Stacks digests as uint32 `[n, DIGEST_WORDS]`."""
    return np.frombuffer(b"".join(digests), "<u4").reshape(-1, DIGEST_WORDS).astype(np.uint32)


def read_folder(
    folder: str,
    side: int,
    known: Mapping[str, bytes],
    *,
    strict: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> Items:
    """Reads the images of a folder and its sub-folders.

    Args:
        folder: the path of the folder.
        side: images are stretched to squares of this many pixels a side.
        known: digests by paths inside the folder; a file that still has its digest is not decoded.
        strict: whether a file that is no image is an error.
        on_progress: called after each file.

    Raises:
        OSError: the folder can't be listed.
        ValueError: `strict` is set and something would be skipped.
    """
    names, skipped = list_files(folder)
    images: dict[str, tuple[bytes, np.ndarray | None]] = {}
    read = partial(_try_read, folder, side, known)
    with guard_pillow(), start_workers() as workers:
        for done, (name, result) in enumerate(zip(names, workers.map(read, names), strict=True), start=1):
            if isinstance(result, ImageError):
                skipped.append(Skipped(name, str(result)))
            else:
                images[name] = result
            if strict and skipped:
                raise ValueError(f"{Path(folder) / skipped[0].name}: {skipped[0].reason}")
            on_progress(done, len(names))
    digests = _stack_digests([digest for digest, _ in images.values()])
    decoded = [pixels for _, pixels in images.values() if pixels is not None]
    values = np.stack(decoded) if decoded else np.empty((0, side, side, 3), np.uint8)
    fresh = np.array([pixels is not None for _, pixels in images.values()], bool)
    return Items(list(images), digests, fresh, values, sorted(skipped))


def _try_read(
    folder: str, side: int, known: Mapping[str, bytes], name: str
) -> tuple[bytes, np.ndarray | None] | ImageError:
    """Reads one image; an error is returned, so that it does not end the reading of the others."""
    try:
        return read_image(Path(folder) / name, side, known.get(name))
    except ImageError as error:
        return error


def list_files(folder: str) -> tuple[list[str], list[Skipped]]:
    """Lists the files of a folder and its sub-folders by their sorted paths inside it, and what is skipped.

    Names that are not UTF-8 are kept exactly, by Python's "surrogateescape".
    """
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
            if entry.name.startswith("."):
                skipped.append(Skipped(name, "hidden"))
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


def read_vectors(path: str, known: Mapping[str, bytes]) -> Items:
    """Reads the vectors of a file; the name of an item is the number of its row.

    Args:
        path: the path of the `.npy` file.
        known: digests of rows by their names.

    Raises:
        OSError: the file can't be read.
        ValueError: it is not a `.npy` file of finite numbers `[n, d]`.
    """
    table = load_vectors(path)
    if table.ndim != 2:
        raise ValueError(f"{path}: expected vectors of shape [n, d], got shape {table.shape}")
    names = [str(row) for row in range(len(table))]
    digests = [hashlib.sha256(row.tobytes()).digest() for row in table]
    fresh = np.array([known.get(name) != digest for name, digest in zip(names, digests, strict=True)])
    return Items(names, _stack_digests(digests), fresh, table[fresh], [])


def load_vectors(path: str) -> np.ndarray:
    """Loads the array in a `.npy` file as float32 `[..., d]`; raises what `read_vectors` raises."""
    array = _map_array(path)
    if not array.shape or 0 in array.shape:
        raise ValueError(f"{path}: expected at least one vector, got shape {array.shape}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: expected real numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # overflow gives infinity, which is refused below
        values = np.array(array, dtype=np.float32, order="C")
    finite = np.isfinite(values.reshape(-1, values.shape[-1])).all(axis=1)
    if not finite.all():
        raise ValueError(f"{path}: row {int(np.argmin(finite))} holds NaN or a number too large for float32")
    return values


def read_row(path: str, row: int, digest: bytes) -> np.ndarray | None:
    """Reads one row of a file of vectors, float32 `[d]`; returns `None` unless it is there and has this digest."""
    try:
        with np.errstate(over="ignore"):
            vector = np.array(_map_array(path)[row : row + 1], dtype=np.float32, order="C").reshape(-1)
    except (OSError, ValueError, TypeError, IndexError):
        return None
    return vector if hashlib.sha256(vector.tobytes()).digest() == digest else None


def _map_array(path: str) -> np.ndarray:
    """Maps the array in a file into memory, so that a false size in its header allocates nothing."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise ValueError(f"{path}: not a regular file")
    try:
        array = np.load(os.fspath(path), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: not a .npy file of numbers ({error})") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path}: an archive of several arrays; save the vectors alone by numpy.save")
    return array
