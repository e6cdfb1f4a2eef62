"""Checked files of named arrays, replaced atomically. Invalid files raise `CorruptFileError`."""

from jaxhash.files.archive import CorruptFileError

__all__ = ["CorruptFileError"]
