"""What a source, a folder of images or a file of vectors, holds at a moment; and what of it is not known yet."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxhash.cli.images import ImageError, careful_pillow, read_image

DIGEST_WORDS = hashlib.sha256().digest_size // 4

# Called with how many files have been read, and how many there are.
OnProgress = Callable[[int, int], None]


class Skipped(NamedTuple):
    """A file that is left out."""

    name: str
    reason: str


class Items(NamedTuple):
    """The n items of a source, and the values of the m that are new or changed."""

    names: list[str]  # in order: paths inside a folder, or row numbers
    digests: np.ndarray  # uint32 [n, DIGEST_WORDS]: the sha256 of each item
    fresh: np.ndarray  # bool [n], whether an item is new or changed
    values: np.ndarray  # of those: uint8 [m, side, side, 3], or float32 [m, d]
    skipped: list[Skipped]


def digest_table(digests: list[bytes]) -> np.ndarray:
    """Digests as uint32 `[n, DIGEST_WORDS]`."""
    return np.frombuffer(b"".join(digests), "<u4").reshape(-1, DIGEST_WORDS).astype(np.uint32)


def read_folder(
    folder: str,
    side: int,
    known: Mapping[str, bytes],
    *,
    strict: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> Items:
    """Reads the images of a folder.

    Args:
        folder: the folder.
        side: images are stretched to squares of so many pixels a side.
        known: the digests of files by their paths inside the folder; a file that still has its digest is not decoded.
        strict: whether a file that is no image is an error.
        on_progress: called after each file.

    Raises:
        OSError: the folder can't be listed.
        ValueError: `strict`, and there is something that would have been skipped.
    """
    names, skipped = list_files(folder)
    found: list[str] = []
    digests: list[bytes] = []
    pixels: list[np.ndarray | None] = []

    def read(name: str) -> tuple[bytes, np.ndarray | None] | ImageError:
        try:
            return read_image(Path(folder) / name, side, known.get(name))
        except ImageError as error:
            return error

    with careful_pillow(), _workers() as workers:
        for done, (name, result) in enumerate(zip(names, workers.map(read, names), strict=True), start=1):
            if isinstance(result, ImageError):
                skipped.append(Skipped(name, str(result)))
            else:
                found.append(name)
                digests.append(result[0])
                pixels.append(result[1])
            if strict and skipped:
                raise ValueError(f"{Path(folder) / skipped[0].name}: {skipped[0].reason}")
            on_progress(done, len(names))
    decoded = [image for image in pixels if image is not None]
    values = np.stack(decoded) if decoded else np.empty((0, side, side, 3), np.uint8)
    fresh = np.array([image is not None for image in pixels], bool)
    return Items(found, digest_table(digests), fresh, values, sorted(skipped))


def list_files(folder: str) -> tuple[list[str], list[Skipped]]:
    """The paths inside a folder of all files in it, in order, and what is passed over.

    Paths are as the system gives them; bytes that are no UTF-8 are kept as Python keeps them, by "surrogateescape".
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
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Threads, one for each processor; after an error or Ctrl-C they finish what they are at, and no more."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def read_vectors(path: str, known: Mapping[str, bytes]) -> Items:
    """Reads the vectors of a file `[n, d]`; an item's name is the number of its row.

    Args:
        path: the file.
        known: the digests of rows by their names.

    Raises:
        OSError: the file can't be read.
        ValueError: it is no `.npy` file of finite numbers `[n, d]`.
    """
    table = load_vectors(path)
    if table.ndim != 2:
        raise ValueError(f"{path}: expected vectors of shape [n, d], got shape {table.shape}")
    names = [str(row) for row in range(len(table))]
    digests = [hashlib.sha256(row.tobytes()).digest() for row in table]
    fresh = np.array([known.get(name) != digest for name, digest in zip(names, digests, strict=True)])
    return Items(names, digest_table(digests), fresh, table[fresh], [])


def load_vectors(path: str) -> np.ndarray:
    """The array in a `.npy` file as float32; raises as `read_vectors`, but takes any shape `[..., d]`."""
    array = _mapped(path)
    if not array.shape or 0 in array.shape:
        raise ValueError(f"{path}: expected at least one vector, got shape {array.shape}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: expected real numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused as that
        values = np.array(array, dtype=np.float32, order="C")
    finite = np.isfinite(values.reshape(-1, values.shape[-1])).all(axis=1)
    if not finite.all():
        raise ValueError(f"{path}: row {int(np.argmin(finite))} holds NaN or a number too large for float32")
    return values


def _mapped(path: str) -> np.ndarray:
    """The array in a file, not read yet, so that a size that the file only claims to have costs nothing."""
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
