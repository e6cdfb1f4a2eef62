"""Checked files of named arrays, replaced atomically. Invalid files raise `CorruptFileError`."""

from jaxhash.files.header import CorruptFileError

__all__ = ["CorruptFileError"]
