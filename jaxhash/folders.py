"""Folders of images: what lies in them, in an order of our own, and the pixels of all images, decoded in parallel.

Sub-folders are gone through, but for hidden ones and links, which may lead in circles. A file is an image if it can be
read as one, whatever its name; one that can't be is left out, with the reason.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jaxhash.items import Items, OnProgress, Skipped, digest_table
from jaxhash.pictures import ImageError, careful_pillow, read_image


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
