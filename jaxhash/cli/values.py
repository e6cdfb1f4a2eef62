"""The values of images as they are read: a batch in memory, all others in a file that is mapped in the end."""

import tempfile
from typing import NamedTuple, Self

import numpy as np

from jaxhash.cli.embedder import Embedder
from jaxhash.cli.embedding_cache import EmbeddingCache, Stamp

IMAGES_PER_CHUNK = 64


class ReadFile(NamedTuple):
    """What was read of an image file."""

    name: str
    stamp: Stamp
    digest: bytes
    value: np.ndarray | None  # uint8 [side, side, 3], its vector float32 [d] if known, or None if nothing has changed


class ValueWriter:
    """Collects the values of files: their pixels, or the vectors that an embedder makes of them.

    A context manager, in which the file has no name; `finish` maps it.
    """

    def __init__(self, side: int, embedder: Embedder | None = None, cache: EmbeddingCache | None = None):
        self._embedder, self._cache = embedder, cache
        self._batch: list[ReadFile] = []
        self._file = tempfile.TemporaryFile(prefix="jaxhash-")  # noqa: SIM115
        self._empty = np.empty((0, 0), np.float32) if embedder else np.empty((0, side, side, 3), np.uint8)
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, file: ReadFile) -> None:
        """Adds a file whose value is not `None`."""
        self._batch.append(file)
        if len(self._batch) == IMAGES_PER_CHUNK:
            self._write()

    def finish(self) -> np.ndarray:
        """Returns all values: uint8 `[m, side, side, 3]`, or float32 `[m, d]`."""
        if self._batch:
            self._write()
        if not self._count:
            return self._empty
        self._file.flush()
        shape = (self._count, *self._empty.shape[1:])
        return np.memmap(self._file, self._empty.dtype, "r", shape=shape)

    def _write(self) -> None:
        values = self._compute_values()
        self._file.write(np.ascontiguousarray(values).data)
        self._empty, self._count, self._batch = values[:0], self._count + len(values), []

    def _compute_values(self) -> np.ndarray:
        """Returns the values of the batch; of an embedder, those that the cache did not have are computed."""
        values = [file.value for file in self._batch if file.value is not None]
        if self._embedder is None:
            return np.stack(values)
        rows = [row for row, value in enumerate(values) if value.ndim == 3]
        if rows:
            names = [self._batch[row].name for row in rows]
            vectors = self._embedder(np.stack([values[row] for row in rows]), names)
            for row, vector in zip(rows, vectors, strict=True):
                values[row] = vector
                if self._cache is not None:
                    self._cache.add(self._batch[row].name, self._batch[row].stamp, self._batch[row].digest, vector)
        self._embedder.check_width(*{len(value) for value in values})
        return np.stack(values)
