"""One checked file of named arrays: an uncompressed `.npz` with a JSON header and a digest.

The archive's comment, which is the end of the file, is the sha256 of all bytes before it, so that a flipped, missing or
added byte is noticed, while numpy can still open the file. Files depend on nothing but their contents: equal contents
give equal bytes. A save either completes or leaves the old file as it was.
"""

import hashlib
import io
import json
import math
import os
import stat
import struct
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from jaxhash.files.atomic import replacing

FORMAT, VERSION = "jaxhash", 1
HEADER = "header.json"
HEADER_LIMIT = 2**20
DIGEST_LENGTH = 64
DTYPES = ("<u4", "<i4", "<f4", "|u1")
CHUNK = 2**22
# How the file begins (with a zip member) and how its last bytes do (the zip's end, before the digest).
BEGIN, END, END_LENGTH = b"PK\3\4", b"PK\5\6", 22 + DIGEST_LENGTH


AnyPath = str | os.PathLike[str]
Arrays = dict[str, np.ndarray]


class CorruptFileError(ValueError):
    """A file is damaged, or is not what it should be; the message names the file and what is wrong."""


class Archive(NamedTuple):
    """What a file holds."""

    kind: str  # "index", "index in parts", "model", "retriever", "training" or "collection"
    meta: dict[str, Any]  # plain JSON data
    arrays: dict[str, np.ndarray]
    digest: str = ""  # of the file it was read from


def write_archive(path: AnyPath, archive: Archive) -> str:
    """Writes a file and returns its digest.

    Raises:
        OSError: the file can't be written; what was there is left.
        TypeError: an array has another dtype than files can hold.
    """
    arrays = {
        name: np.asarray(array, dtype=np.dtype(array.dtype).newbyteorder("<"), order="C")
        for name, array in archive.arrays.items()
    }
    for name, array in arrays.items():
        if array.dtype.str not in DTYPES:
            raise TypeError(
                f"{name} must have one of the dtypes {', '.join(DTYPES)} to be saved, got {array.dtype.str}"
            )
    described = {name: {"dtype": array.dtype.str, "shape": array.shape} for name, array in arrays.items()}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "kind": archive.kind,
        "meta": archive.meta,
        "arrays": described,
    }
    with replacing(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as members:
            members.writestr(_member(HEADER), json.dumps(header, indent=1))
            for name, array in arrays.items():
                with members.open(_member(f"{name}.npy"), "w", force_zip64=True) as member:
                    member.write(_npy_header(array.dtype.str, array.shape))
                    member.write(array.reshape(-1).view(np.uint8).data)
            members.comment = b"0" * DIGEST_LENGTH
        digest = _digest(file)
        file.seek(-DIGEST_LENGTH, os.SEEK_END)
        file.write(digest)
    return digest.decode()


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3  # said to be written on Unix on every system, so that the bytes are the same
    return info


def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What stands before an array in a file of npy version 1.0.

    Numpy could write it, and does so with the same spaces, but is free to change them; and reading one is better done
    by comparing it than by parsing what a stranger wrote.
    """
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    text += " " * (21 - len(repr(shape[0])) if shape else 0)
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode("latin1")


def _digest(file: IO[bytes]) -> bytes:
    """The sha256, in hexadecimal, of all bytes but the last `DIGEST_LENGTH`."""
    left = file.seek(0, os.SEEK_END) - DIGEST_LENGTH
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (chunk := file.read(min(left, CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()


def read_archive(path: AnyPath, *kinds: str) -> Archive:
    """Reads a file of one of the given kinds, or of any if none is given.

    Nothing in the file is trusted before its digest is right. Then a file is still taken only as it would be written:
    its members one after the other, and nothing else in it. Arrays are views of the file's bytes, so that no declared
    size can make this allocate more than the file is long.

    Raises:
        OSError: the file can't be read.
        CorruptFileError: it can, but is not a whole jaxhash file of such a kind.
    """
    # Asked before it is opened: a FIFO would wait for a writer, and to open some devices does something.
    regular = stat.S_ISREG(Path(path).stat().st_mode)
    try:
        if not regular:
            raise CorruptFileError("not a regular file")
        with _CautiousFile(path) as file:
            return _parsed(file, _checked_content(file), kinds)
    except CorruptFileError as error:
        raise CorruptFileError(f"{path}: {error}") from None


class _CautiousFile(io.FileIO):
    """A file of which nobody reads much at once: zipfile would read a directory of any size that the file names."""

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(HEADER_LIMIT + 1 if size is None or size < 0 else min(size, HEADER_LIMIT + 1))
        if len(content) > HEADER_LIMIT:
            raise CorruptFileError(f"its directory is longer than {HEADER_LIMIT} bytes")
        return content


def _checked_content(file: io.FileIO) -> memoryview:
    """All bytes of a file, once it looks like ours from outside and their digest is right."""
    size, begin = os.fstat(file.fileno()).st_size, file.read(len(BEGIN))
    file.seek(max(0, size - END_LENGTH))
    if begin != BEGIN or not file.read(END_LENGTH).startswith(END):
        raise CorruptFileError("damaged, cut short, or no jaxhash file")
    file.seek(0)
    content = np.empty(size, np.uint8).data  # numpy asks for large pages, which are filled quicker
    digest, place = hashlib.sha256(), 0
    while count := file.readinto(content[place : place + CHUNK]):
        digest.update(content[place : min(place + count, size - DIGEST_LENGTH)])
        place += count
    if digest.hexdigest().encode() != content[-DIGEST_LENGTH:] or place != size:
        raise CorruptFileError("the digest does not match: the file is damaged, cut short, or not a jaxhash file")
    return content


def _parsed(file: io.FileIO, content: memoryview, kinds: tuple[str, ...]) -> Archive:
    try:
        members = _members(file, content)
        header = _parsed_header(members)
        if kinds and header["kind"] not in kinds:
            raise CorruptFileError(f"expected a saved {kinds[0]}, but it holds: {header['kind']}")
        digest = bytes(content[-DIGEST_LENGTH:]).decode()
        return Archive(header["kind"], header["meta"], _parsed_arrays(members, header["arrays"]), digest)
    except CorruptFileError:
        raise
    except Exception as error:  # whatever the parsers of zip and JSON stumble over, seeking included, is damage
        raise CorruptFileError(f"not a jaxhash file ({type(error).__name__}: {error})") from error


def _members(file: io.FileIO, content: memoryview) -> dict[str, memoryview]:
    """The contents of the archive's members by name. They must lie one after the other and fill the file."""
    found: dict[str, memoryview] = {}
    place = 0
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name_length, extra_length = struct.unpack_from("<2H", content, place + 26)
            name_end = place + 30 + name_length
            whole = content[place : place + 4] == BEGIN and content[place + 30 : name_end] == info.filename.encode()
            if info.header_offset != place or not whole or info.filename in found:
                raise CorruptFileError(f"{info.filename}: the members of the archive do not follow one another")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
                raise CorruptFileError(f"{info.filename}: compressed or encrypted")
            place = name_end + extra_length + info.file_size
            found[info.filename] = content[place - info.file_size : place]
        if place != archive.start_dir:
            raise CorruptFileError("the members of the archive do not end where its directory begins")
    return found


def _parsed_header(members: dict[str, memoryview]) -> dict[str, Any]:
    text = bytes(members[HEADER][: HEADER_LIMIT + 1])
    if len(text) > HEADER_LIMIT:
        raise CorruptFileError(f"{HEADER} is longer than {HEADER_LIMIT} bytes")
    header = json.loads(text.decode(), object_pairs_hook=_distinct, parse_constant=_no_number, parse_int=_short_integer)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CorruptFileError(f"{HEADER} does not name the format {FORMAT!r}")
    version = header.get("version")
    if type(version) is not int or version < 1:
        raise CorruptFileError(f"version must be a positive integer, got {version!r}")
    if version > VERSION:
        raise CorruptFileError(
            f"written by a newer version (format {version}, this one reads {VERSION}): upgrade jaxhash"
        )
    for field, expected in (("kind", str), ("meta", dict), ("arrays", dict)):
        if not isinstance(header.get(field), expected):
            raise CorruptFileError(f"{HEADER}: {field} must be a {expected.__name__}")
    return header


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two equal names, JSON would keep the second, and other readers the first."""
    if len(dict(pairs)) < len(pairs):
        raise CorruptFileError(f"{HEADER} names a field twice")
    return dict(pairs)


def _no_number(text: str) -> Any:
    raise CorruptFileError(f"{HEADER} holds {text}")


def _short_integer(text: str) -> int:
    if len(text) > 20:  # reading long ones takes time that grows with the square of their length
        raise CorruptFileError(f"{HEADER} holds an integer of {len(text)} digits")
    return int(text)


def _parsed_arrays(members: dict[str, memoryview], described: dict[str, Any]) -> dict[str, np.ndarray]:
    if list(members) != [HEADER, *(f"{name}.npy" for name in described)]:
        raise CorruptFileError(f"the members of the archive are not those that {HEADER} lists")
    return {name: _parsed_array(name, members[f"{name}.npy"], what) for name, what in described.items()}


def _parsed_array(name: str, member: memoryview, described: Any) -> np.ndarray:
    dtype, shape = (described.get("dtype"), described.get("shape")) if isinstance(described, dict) else (None, None)
    if dtype not in DTYPES:
        raise CorruptFileError(f"{name}: dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
        raise CorruptFileError(f"{name}: shape must be a list of integers, got {shape!r}")
    begin = _npy_header(dtype, tuple(shape))
    size, stored = math.prod(shape) * np.dtype(dtype).itemsize, len(member) - len(begin)
    if size != stored:
        raise CorruptFileError(f"{name}: {size} bytes declared, {stored} stored")
    if member[: len(begin)] != begin:
        raise CorruptFileError(f"{name}: the array is not the {dtype}{shape} that {HEADER} declares")
    return np.frombuffer(member[len(begin) :], dtype).reshape(shape)
