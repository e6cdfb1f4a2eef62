"""Files of named arrays: an uncompressed `.npz` with a JSON header and a digest.

The archive's comment, the last bytes of the file, is the sha256 of all bytes before it, which detects flipped, missing
or added bytes; numpy can still open the file. Equal contents give equal bytes. A save either completes or leaves the
old file unchanged.
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
from numpy.lib import format as npy

from jaxhash.files.atomic import replace_file
from jaxhash.files.header import (
    BEGIN,
    FORMAT,
    HEADER,
    HEADER_LIMIT,
    NAME_POSITION,
    VERSION,
    AnyPath,
    CorruptFileError,
    parse_header,
)

# Longer array headers raise. Ours have 128 bytes, and 64 axes would need less than 1,500.
NPY_HEADER_LIMIT = 1500
DIGEST_LENGTH = 64
DTYPES = ("<u4", "<i4", "<f4", "|u1")
BYTES_PER_CHUNK = 2**22
# The first bytes of the zip's end record, which the digest follows.
END, END_LENGTH = b"PK\5\6", 22 + DIGEST_LENGTH

Arrays = dict[str, np.ndarray]


class Archive(NamedTuple):
    """The content of a file."""

    kind: str  # "index", "index in parts", "model", "retriever", "training" or "collection"
    meta: dict[str, Any]  # plain JSON data
    arrays: dict[str, np.ndarray]
    digest: str = ""  # of the file it was read from


def write_archive(path: AnyPath, archive: Archive) -> str:
    """Writes a file and returns its digest.

    Raises:
        OSError: the file can't be written; an old one is untouched.
        TypeError: an array has a dtype that files can't hold.
    """
    arrays = {name: _to_file_order(name, array) for name, array in archive.arrays.items()}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "kind": archive.kind,
        "meta": archive.meta,
        "arrays": {name: {"dtype": array.dtype.str, "shape": array.shape} for name, array in arrays.items()},
    }
    with replace_file(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as members:
            members.writestr(_make_member(HEADER), json.dumps(header, indent=1))
            for name, array in arrays.items():
                with members.open(_make_member(f"{name}.npy"), "w", force_zip64=True) as member:
                    npy.write_array_header_1_0(member, npy.header_data_from_array_1_0(array))
                    member.write(array.reshape(-1).view(np.uint8).data)
            members.comment = b"0" * DIGEST_LENGTH
        digest = _compute_digest(file)
        file.seek(-DIGEST_LENGTH, os.SEEK_END)
        file.write(digest)
    return digest.decode()


def _to_file_order(name: str, array: np.ndarray) -> np.ndarray:
    """Converts an array to little-endian byte order and C order; raises `TypeError` for a dtype not in `DTYPES`."""
    array = np.asarray(array, dtype=np.dtype(array.dtype).newbyteorder("<"), order="C")
    if array.dtype.str not in DTYPES:
        raise TypeError(f"{name} must have one of the dtypes {', '.join(DTYPES)} to be saved, got {array.dtype.str}")
    return array


def _make_member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3  # Unix on every system, for equal bytes
    return info


def _compute_digest(file: IO[bytes]) -> bytes:
    """Computes the hexadecimal sha256 of all bytes except the last `DIGEST_LENGTH`."""
    left = file.seek(0, os.SEEK_END) - DIGEST_LENGTH
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (chunk := file.read(min(left, BYTES_PER_CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()


def read_archive(path: AnyPath, *kinds: str) -> Archive:
    """Reads a file of one of the given kinds, or of any kind if none is given.

    The digest is checked before parsing and detects most damage. A digest is not a signature, so parsing is strict too:
    members must be contiguous and fill the file. Arrays are views of the file's bytes, so a declared size can't
    allocate more memory than the file's length.

    Raises:
        OSError: the file can't be read.
        CorruptFileError: it is damaged, or not a jaxhash file of these kinds.
    """
    # Checked before opening: opening a FIFO would wait for a writer, and opening some devices has side effects.
    regular = stat.S_ISREG(Path(path).stat().st_mode)
    try:
        if not regular:
            raise CorruptFileError("not a regular file")
        with _BoundedFile(path) as file:
            return _parse_archive(file, _read_content(file), kinds)
    except CorruptFileError as error:
        raise CorruptFileError(f"{path}: {error}") from None


class _BoundedFile(io.FileIO):
    """A file with bounded reads: zipfile would read a directory of any declared size."""

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(HEADER_LIMIT + 1 if size is None or size < 0 else min(size, HEADER_LIMIT + 1))
        if len(content) > HEADER_LIMIT:
            raise CorruptFileError(f"its directory is longer than {HEADER_LIMIT} bytes")
        return content


def _read_content(file: io.FileIO) -> memoryview:
    """Reads all bytes of a file and checks the digest, after checking the first and last bytes."""
    size, begin = os.fstat(file.fileno()).st_size, file.read(len(BEGIN))
    file.seek(max(0, size - END_LENGTH))
    if begin != BEGIN or not file.read(END_LENGTH).startswith(END):
        raise CorruptFileError("damaged, truncated, or not a jaxhash file")
    file.seek(0)
    content = np.empty(size, np.uint8).data  # numpy allocates huge pages, which are filled faster
    digest, position = hashlib.sha256(), 0
    while count := file.readinto(content[position : position + BYTES_PER_CHUNK]):
        digest.update(content[position : min(position + count, size - DIGEST_LENGTH)])
        position += count
    if digest.hexdigest().encode() != content[-DIGEST_LENGTH:] or position != size:
        raise CorruptFileError("the digest does not match: damaged, truncated, or not a jaxhash file")
    return content


def _parse_archive(file: io.FileIO, content: memoryview, kinds: tuple[str, ...]) -> Archive:
    try:
        members = _split_members(file, content)
        header = parse_header(members[HEADER])
        if kinds and header["kind"] not in kinds:
            raise CorruptFileError(f"expected a saved {kinds[0]}, but it holds: {header['kind']}")
        digest = bytes(content[-DIGEST_LENGTH:]).decode()
        return Archive(header["kind"], header["meta"], _parse_arrays(members, header["arrays"]), digest)
    except CorruptFileError:
        raise
    except Exception as error:  # the parsers of zip, JSON and npy raise many types of exceptions
        raise CorruptFileError(f"not a jaxhash file ({type(error).__name__}: {error})") from error


def _split_members(file: io.FileIO, content: memoryview) -> dict[str, memoryview]:
    """Returns the contents of the archive's members by name; members must be contiguous and fill the file."""
    members: dict[str, memoryview] = {}
    position = 0
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name_length, extra_length = struct.unpack_from("<2H", content, position + NAME_POSITION - 4)
            name_end = position + NAME_POSITION + name_length
            begin, name = content[position : position + 4], content[position + NAME_POSITION : name_end]
            valid = begin == BEGIN and name == info.filename.encode()
            if info.header_offset != position or not valid or info.filename in members:
                raise CorruptFileError(f"{info.filename}: the members of the archive are not contiguous")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
                raise CorruptFileError(f"{info.filename}: compressed or encrypted")
            position = name_end + extra_length + info.file_size
            members[info.filename] = content[position - info.file_size : position]
        if position != archive.start_dir:
            raise CorruptFileError("the members of the archive do not end where its directory begins")
    return members


def _parse_arrays(members: dict[str, memoryview], described: dict[str, Any]) -> dict[str, np.ndarray]:
    if list(members) != [HEADER, *(f"{name}.npy" for name in described)]:
        raise CorruptFileError(f"the members of the archive are not those that {HEADER} lists")
    return {name: _parse_array(name, members[f"{name}.npy"], declared) for name, declared in described.items()}


def _parse_array(name: str, member: memoryview, declared: Any) -> np.ndarray:
    dtype, shape = (declared.get("dtype"), declared.get("shape")) if isinstance(declared, dict) else (None, None)
    if dtype not in DTYPES:
        raise CorruptFileError(f"{name}: dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
        raise CorruptFileError(f"{name}: shape must be a list of integers, got {shape!r}")
    stored, values = _parse_npy(name, member)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size != len(values):
        raise CorruptFileError(f"{name}: {size} bytes declared, {len(values)} stored")
    if stored != (tuple(shape), False, np.dtype(dtype)):
        raise CorruptFileError(f"{name}: the array is not the {dtype}{shape} that {HEADER} declares")
    return np.frombuffer(values, dtype).reshape(shape)


def _parse_npy(name: str, member: memoryview) -> tuple[tuple[Any, ...], memoryview]:
    """Splits an npy file, version 1.0, into its header `(shape, Fortran order, dtype)` and the array's bytes."""
    start = io.BytesIO(member[:NPY_HEADER_LIMIT])
    try:
        if npy.read_magic(start) != (1, 0):
            raise ValueError("not of npy version 1.0")
        header = npy.read_array_header_1_0(start)
    except Exception as error:  # ValueError, and the exceptions of numpy's parser of Python literals
        raise CorruptFileError(f"{name}: {error}") from None
    return header, member[start.tell() :]
