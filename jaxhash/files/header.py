"""The JSON header of a file: its first zip member, which names the format, its version and the kind of contents."""

import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

FORMAT, VERSION = "jaxhash", 1
HEADER = "header.json"
HEADER_LIMIT = 2**20
# The first bytes of a zip member, and the positions of its size and name.
BEGIN, SIZE_POSITION, NAME_POSITION = b"PK\3\4", 22, 30

AnyPath = str | os.PathLike[str]


class CorruptFileError(ValueError):
    """Raised if a file is damaged or of another kind. The message names the file and the problem."""


def looks_like_archive(path: AnyPath) -> bool:
    """Returns whether a file begins like a jaxhash file; the rest may be damaged."""
    return _find_header(path) is not None


def read_kind(path: AnyPath) -> str | None:
    """Reads the kind in the header of a jaxhash file; `None` for other files. The rest may be damaged.

    Raises:
        OSError: the file can't be read.
    """
    header = _find_header(path)
    try:
        return None if header is None else str(parse_header(header)["kind"])
    except (ValueError, RecursionError):
        return None


def _find_header(path: AnyPath) -> memoryview | None:
    """Reads the JSON header alone; `None` if the file does not begin with a member of its name."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        return None
    with Path(path).open("rb") as file:
        begin = file.read(NAME_POSITION + len(HEADER))
        if not begin.startswith(BEGIN) or begin[NAME_POSITION:] != HEADER.encode():
            return None
        return memoryview(file.read(min(HEADER_LIMIT, *struct.unpack("<I", begin[SIZE_POSITION : SIZE_POSITION + 4]))))


def parse_header(member: memoryview) -> dict[str, Any]:
    """Parses a header strictly; raises `CorruptFileError`, or what decoders of UTF-8 and JSON raise."""
    text = bytes(member[: HEADER_LIMIT + 1])
    if len(text) > HEADER_LIMIT:
        raise CorruptFileError(f"{HEADER} is longer than {HEADER_LIMIT} bytes")
    header = json.loads(
        text.decode(), object_pairs_hook=_make_dict, parse_constant=_refuse_constant, parse_int=_parse_integer
    )
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CorruptFileError(f"{HEADER} does not name the format {FORMAT!r}")
    version = header.get("version")
    if type(version) is not int or version < 1:
        raise CorruptFileError(f"version must be a positive integer, got {version!r}")
    if version > VERSION:
        raise CorruptFileError(f"written by a newer version (format {version}, this reads {VERSION}): upgrade jaxhash")
    for field, expected in (("kind", str), ("meta", dict), ("arrays", dict)):
        if not isinstance(header.get(field), expected):
            raise CorruptFileError(f"{HEADER}: {field} must be a {expected.__name__}")
    return header


def _make_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises for duplicate names: this JSON parser would keep the last value, others the first."""
    if len(dict(pairs)) < len(pairs):
        raise CorruptFileError(f"{HEADER} names a field twice")
    return dict(pairs)


def _refuse_constant(text: str) -> Any:
    raise CorruptFileError(f"{HEADER} holds {text}")


def _parse_integer(text: str) -> int:
    if len(text) > 20:  # parsing time grows with the square of the length
        raise CorruptFileError(f"{HEADER} holds an integer of {len(text)} digits")
    return int(text)
