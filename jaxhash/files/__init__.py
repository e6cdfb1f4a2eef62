"""One checked file of named arrays, replaced as a whole or not at all.

Every failure to read one is a `CorruptFileError`.
"""

from jaxhash.files.header import CorruptFileError

__all__ = ["CorruptFileError"]
