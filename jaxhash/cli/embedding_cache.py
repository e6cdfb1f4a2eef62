"""The vectors of image files, kept beside the output while a collection is built, so that Ctrl-C loses seconds of work.

The cache is a folder of checked files (see `jaxhash.files.archive`), each with some vectors and the files they belong
to. A vector counts if its file has the same name, size and time of change. Other files in the folder are left alone.
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from jaxhash.cli.embedder import Embedding
from jaxhash.files.archive import Archive, read_archive, write_archive
from jaxhash.files.header import CorruptFileError, looks_like_archive

KIND = "embeddings"
SUFFIX = ".embeddings"  # of the folder, after the name of the output
PART = "[0-9]" * 6 + ".npz"  # the names of its files
SECONDS_IN_PART = 10.0
DIGEST_BYTES = 32

Stamp = tuple[int, int]  # the size of a file in bytes, and the time of its last change in nanoseconds


class Part(NamedTuple):
    """The contents of one file of the cache, m vectors."""

    names: list[str]
    stamps: np.ndarray  # int64 [m, 2]
    digests: np.ndarray  # uint8 [m, DIGEST_BYTES], of the image files
    vectors: np.ndarray  # float32 [m, d]


class EmbeddingCache:
    """The vectors that an embedder has made of image files so far; a context manager that saves those added.

    Attributes:
        notes: the parts of an earlier cache that could not be used, and why.
    """

    def __init__(self, output: str | os.PathLike[str], embedding: Embedding):
        """Opens the cache beside an output, or begins one; vectors of another embedder or side are removed."""
        self.notes: list[str] = []
        self._folder, self._embedding = Path(f"{os.fspath(output)}{SUFFIX}"), embedding
        self._places: dict[str, tuple[Stamp, Path, int]] = {}
        self._last: tuple[Path | None, Part | None] = None, None
        self._lock = threading.Lock()
        self._begin_part()
        for path in self._list_parts():
            self._open(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def __len__(self) -> int:
        return len(self._places)

    def find(self, name: str, stamp: Stamp) -> tuple[bytes, np.ndarray] | None:
        """Finds the digest and the vector of a file, if it is as it was; threads may call it."""
        known, path, row = self._places.get(name, (None, None, 0))
        if known != stamp or path is None:
            return None
        with self._lock:
            if self._last[0] != path:  # files are read in the order in which they were added
                self._last = path, _read_part(path, self._embedding)
            part = self._last[1]
        return None if part is None else (part.digests[row].tobytes(), part.vectors[row])

    def add(self, name: str, stamp: Stamp, digest: bytes, vector: np.ndarray) -> None:
        """Adds the vector of a file, and saves those added if the last time is some seconds ago."""
        self._added.append((name, stamp, digest, vector))
        if time.monotonic() - self._saved > SECONDS_IN_PART:
            self.save()

    def save(self) -> None:
        """Saves the vectors that were added since the last time."""
        if self._added:
            self._folder.mkdir(exist_ok=True)
            numbers = [int(path.stem) for path in self._folder.glob(PART) if path.stem.isdecimal()]
            _write_part(self._folder / f"{max(numbers, default=0) + 1:06}.npz", self._embedding, self._added)
        self._begin_part()

    def remove(self) -> None:
        """Removes the folder."""
        self._begin_part()
        for path in self._list_parts():
            path.unlink()
        with suppress(OSError):  # it was never made, or holds other files
            self._folder.rmdir()

    def _list_parts(self) -> list[Path]:
        """Lists the files that a cache has written, by their names and first bytes: they may be damaged."""
        return [path for path in sorted(self._folder.glob(PART)) if looks_like_archive(path)]

    def _begin_part(self) -> None:
        self._added: list[tuple[str, Stamp, bytes, np.ndarray]] = []
        self._saved = time.monotonic()

    def _open(self, path: Path) -> None:
        try:
            part = _read_part(path, self._embedding)
        except CorruptFileError as error:
            self.notes.append(f"{error}: its images are embedded again")
            path.unlink()
            return
        if part is None:
            self.notes.append(f"{path} is of another embedder or side and is removed")
            path.unlink()
            return
        for row, (name, (size, changed)) in enumerate(zip(part.names, part.stamps.tolist(), strict=True)):
            self._places[name] = (size, changed), path, row


def _write_part(path: Path, embedding: Embedding, added: list[tuple[str, Stamp, bytes, np.ndarray]]) -> None:
    names, stamps, digests, vectors = zip(*added, strict=True)
    arrays = {
        "names": np.frombuffer(b"".join(os.fsencode(name) + b"\0" for name in names), np.uint8),
        "stamps": np.array(stamps, "<i8").view("<u4"),
        "digests": np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES),
        "vectors": np.stack(vectors),
    }
    write_archive(path, Archive(KIND, embedding._asdict(), arrays))


def _read_part(path: Path, embedding: Embedding) -> Part | None:
    """Reads a file of the cache; `None` if it is of another embedder. Raises `CorruptFileError` if it is damaged."""
    archive = read_archive(path, KIND)
    if archive.meta != embedding._asdict():
        return None
    try:
        names, stamps, digests, vectors = (archive.arrays[name] for name in ("names", "stamps", "digests", "vectors"))
        part = Part(
            [os.fsdecode(name) for name in names.tobytes().split(b"\0")[:-1]],
            np.ascontiguousarray(stamps).view("<i8"),
            digests,
            vectors,
        )
    except (KeyError, ValueError) as error:
        raise CorruptFileError(f"{path}: {type(error).__name__}: {error}") from None
    count = len(part.names)
    if (
        part.stamps.shape != (count, 2)
        or part.digests.shape != (count, DIGEST_BYTES)
        or part.digests.dtype != np.uint8
        or (part.vectors.ndim, len(part.vectors)) != (2, count)
        or part.vectors.dtype != np.float32
        or not np.isfinite(part.vectors).all()
    ):
        raise CorruptFileError(f"{path}: its arrays do not belong to {count} images")
    return part
