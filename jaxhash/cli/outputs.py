"""Where a command may write: never over a file that it reads, nor over one that jaxhash has not written."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from jaxhash.cli.page import is_our_page, is_our_picture
from jaxhash.files.header import read_kind

# What a command writes, and how a file of that kind is recognized.
RECOGNIZE: dict[str, Callable[[Path], bool]] = {
    "collection": lambda path: read_kind(path) == "collection",
    "retriever": lambda path: read_kind(path) == "retriever",
    "page": is_our_page,
    "picture": is_our_picture,
}


def check_output(path: str | os.PathLike[str], kind: str, inputs: Iterable[str] = ()) -> None:
    """Raises unless a file of a kind can be written there, before any work, and nothing of the user's is lost by it.

    Args:
        path: the path to write.
        kind: a key of `RECOGNIZE`; only a file of this kind may be replaced.
        inputs: the paths that the command reads; links to them count as these.

    Raises:
        OSError: there is no such folder, it can't be written to, or the path is one itself.
        ValueError: the path is one of the inputs, or a file of another kind is there.
    """
    target = Path(os.path.realpath(path))  # writing replaces the target of a link
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {target.parent}")
    if target.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, expected the name of a file")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"{path}: no permission to write in {target.parent}")
    if not target.exists():
        return
    for name in inputs:
        if Path(name).exists() and target.samefile(name):
            raise ValueError(f"{path}: the output would replace {name}, which the command reads: choose another name")
    if not RECOGNIZE[kind](target):
        raise ValueError(
            f"{path}: is no {kind} that jaxhash has written, so it is not replaced: choose another name, or move it"
        )
