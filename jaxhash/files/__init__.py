"""One checked file of named arrays, replaced as a whole or not at all.

Others use `read_archive`, `write_archive` and `replace_file`; every failure to read a file is a `CorruptFileError`.
"""

from jaxhash.files.archive import AnyPath, Archive, CorruptFileError, read_archive, write_archive
from jaxhash.files.atomic import replace_file, sync_directory

__all__ = [
    "AnyPath",
    "Archive",
    "CorruptFileError",
    "read_archive",
    "replace_file",
    "sync_directory",
    "write_archive",
]
