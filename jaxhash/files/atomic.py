"""Files that are replaced as a whole: whoever reads one, at any moment, finds the old contents or the new ones.

What is written goes to a temporary file beside the old one, which takes the old one's name when all of it is on the
disk. A save that fails removes it; one that is killed can't, so the next save in that folder does.
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
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A new file, open for writing, that takes the place of `path` once all of it is on the disk."""
    target = Path(os.path.realpath(path))
    mode = _mode_of(target)
    _remove_abandoned(target.parent)
    with _temporary(target.parent) as (temporary, file):
        if mode is not None:
            temporary.chmod(mode)
        yield file
        file.flush()
        os.fsync(file.fileno())
        if os.name == "nt":  # where no open file can be renamed
            file.close()
        temporary.replace(target)
    sync_directory(target.parent)


def _mode_of(target: Path) -> int | None:
    """The permissions of the file to be replaced, `None` if there is none; a folder or a device must not be."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "not a regular file", str(target))
    return stat.S_IMODE(mode)


@contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file, locked as long as it is open, so that nobody takes it for abandoned, and gone afterwards."""
    path = folder / TEMPORARY.format(secrets.token_hex(8))
    try:
        with path.open("x+b") as file:
            if _claimed(file):
                yield path, file
            else:
                with _temporary(folder) as another:
                    yield another
    finally:
        with suppress(OSError):  # it has another name now, if all went well
            path.unlink()


def _claimed(file: IO[bytes]) -> bool:
    """Locks a new file; false if somebody who was clearing up has taken it before it was locked."""
    try:
        _lock(file.fileno())
    except BlockingIOError:
        return False
    except OSError:  # no locks here, so nobody clears up
        return True
    return os.fstat(file.fileno()).st_nlink > 0


def _lock(descriptor: int) -> None:
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "no file locks")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_abandoned(folder: Path) -> None:
    """Removes the temporary files of saves that were killed: those that nobody holds locked."""
    with suppress(OSError):
        for path in folder.glob(TEMPORARY.format("*")):
            with suppress(OSError, AttributeError):  # AttributeError: a system without these flags has no locks either
                descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
                try:
                    _lock(descriptor)
                    path.unlink()
                finally:
                    os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Makes a rename last.

    Where that fails, or directories can't be opened, the save has succeeded all the same: the new file is in place and
    whole. Only after a power cut might the old one be back.
    """
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
