"""Atomic replacement of files: readers find either the old contents or the new ones.

Contents are written to a temporary file beside the old one, synced to disk, and renamed over it. A failed save removes
its temporary file. If a save was killed, the next save in the same folder removes it.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".jaxhash-{}.tmp"


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Opens a temporary file for writing that replaces the file at `path` when the context exits without an error.

    Raises:
        OSError: the file can't be written; the error names `path`.
    """
    try:
        with _replace_file(path) as file:
            yield file
    except OSError as error:
        name = "" if error.filename is None else os.fsdecode(os.path.basename(error.filename))  # noqa: PTH119
        if error.errno is None or (name and not name.startswith(TEMPORARY.partition("{")[0])):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextmanager
def _replace_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    target = Path(os.path.realpath(path))
    mode = _get_mode(target)
    _remove_abandoned(target.parent)
    with _open_temporary(target.parent) as (temporary, file):
        if mode is not None:
            temporary.chmod(mode)
        yield file
        file.flush()
        os.fsync(file.fileno())
        if os.name == "nt":  # Windows can't rename open files
            file.close()
        temporary.replace(target)
    sync_directory(target.parent)


def _get_mode(target: Path) -> int | None:
    """Returns the permissions of the file to replace, or `None` without one; raises `OSError` for a folder."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "not a regular file", str(target))
    return stat.S_IMODE(mode)


@contextmanager
def _open_temporary(folder: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Opens a new file, locked so that other saves don't remove it, and removes it on exit."""
    path = folder / TEMPORARY.format(secrets.token_hex(8))
    try:
        with path.open("x+b") as file:
            if _lock_new(file):
                yield path, file
            else:
                with _open_temporary(folder) as another:
                    yield another
    finally:
        with suppress(OSError):  # a successful save has renamed it
            path.unlink()


def _lock_new(file: IO[bytes]) -> bool:
    """Locks a new file; returns false if another save removed it as abandoned before it was locked."""
    try:
        _lock(file.fileno())
    except BlockingIOError:
        return False
    except OSError:  # without locks, no save removes abandoned files
        return True
    return os.fstat(file.fileno()).st_nlink > 0


def _lock(descriptor: int) -> None:
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "no file locks")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_abandoned(folder: Path) -> None:
    """Removes the temporary files of killed saves, which have no lock."""
    with suppress(OSError):
        for path in folder.glob(TEMPORARY.format("*")):
            with suppress(OSError, AttributeError):  # AttributeError: systems without these flags have no locks
                descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
                try:
                    _lock(descriptor)
                    path.unlink()
                finally:
                    os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Syncs a directory's entries to disk, so that a rename survives a power failure.

    Errors are ignored: the new file is complete and in place. At worst a power failure restores the old one.
    """
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
