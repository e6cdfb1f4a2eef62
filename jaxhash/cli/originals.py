"""The files or rows that a collection was built of: whether they are still as they were when they were encoded."""

import hashlib
import stat
import sys
from pathlib import Path

import numpy as np

from jaxhash.cli.collection import Collection
from jaxhash.cli.sources import start_workers
from jaxhash.cli.terminal import StatusLine, escape_name
from jaxhash.cli.vectors import read_rows

FileKey = tuple[int, int]  # device and inode: all names of a file have the same


class Originals:
    """Checks the items of a collection, each once.

    An item is stale if its file or row is gone or has changed, or if its file is that of an earlier item under another
    name.
    """

    def __init__(self, collection: Collection):
        """Raises `FileNotFoundError` if the whole source is gone."""
        if not Path(collection.source).exists():
            raise FileNotFoundError(
                f"{collection.source} is gone, so its items can't be checked: build again from where they are now"
            )
        self._collection = collection
        self._checked = np.empty(0, np.int32)
        self._paths: dict[FileKey, str] = {}  # the first path of each file

    def find_stale(self, ids: np.ndarray) -> np.ndarray:
        """Finds which of these items are stale, and names them on stderr. No item is checked twice."""
        ids = np.setdiff1d(ids, self._checked)
        self._checked = np.union1d(self._checked, ids)
        paths = self._collection.find_paths(ids)
        check, row = (self._check_files, "") if self._collection.holds_images else (self._check_rows, "row ")
        reasons = check(paths, self._collection.find_digests(ids))
        for path, reason in zip(paths, reasons, strict=True):
            if reason is not None:
                print(f"left out {row}{escape_name(path)}: {reason}", file=sys.stderr)
        return ids[[reason is not None for reason in reasons]]

    def _check_rows(self, rows: list[str], digests: list[bytes]) -> list[str | None]:
        found = read_rows(self._collection.source, zip(map(int, rows), digests, strict=True))
        return ["gone or changed since it was encoded" if vector is None else None for vector in found]

    def _check_files(self, paths: list[str], digests: list[bytes]) -> list[str | None]:
        status = StatusLine()
        reasons: list[str | None] = []
        with start_workers() as workers:
            for path, found in zip(paths, workers.map(_check_file, paths, digests), strict=True):
                status.update(f"checking {len(reasons):,} of {len(paths):,} files")
                reasons.append(found if isinstance(found, str) else self._compare_names(found, path))
        status.clear()
        return reasons

    def _compare_names(self, key: FileKey, path: str) -> str | None:
        first = self._paths.setdefault(key, path)
        return None if first == path else f"another name of {escape_name(first)}"


def _check_file(path: str, digest: bytes) -> FileKey | str:
    """Returns the key of a file that has this digest, or else the reason why it is stale."""
    try:
        status = Path(path).lstat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for a writer
            return "a link, or no regular file any more"
        with Path(path).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").digest()
    except (FileNotFoundError, NotADirectoryError):
        return "gone since it was encoded"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return (status.st_dev, status.st_ino) if found == digest else "changed since it was encoded"
