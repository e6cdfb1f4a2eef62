"""One checked file of named arrays: an uncompressed `.npz` with a JSON header and a digest.

The archive's comment, which is the end of the file, is the sha256 of all bytes before it, so that a flipped, missing or
added byte is noticed, while numpy can still open the file. Files depend on nothing but their contents: equal contents
give equal bytes. A save either completes or leaves the old file as it was.
"""

import hashlib
import json
import math
import os
import secrets
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

FORMAT, VERSION = "jaxhash", 1
HEADER = "header.json"
HEADER_LIMIT = 2**20
DIGEST_LENGTH = 64
DTYPES = ("<u4", "<i4", "<f4")
CHUNK = 2**22


class CorruptFileError(ValueError):
    """A file is damaged, or is not what it should be; the message names the file and what is wrong."""


class Archive(NamedTuple):
    """What a file holds."""

    kind: str  # "index", "model" or "retriever"
    meta: dict[str, Any]  # plain JSON data
    arrays: dict[str, np.ndarray]


def write_archive(path: str | os.PathLike[str], archive: Archive) -> None:
    """Writes a file, or raises `OSError` and leaves what was there."""
    arrays = {
        name: np.asarray(array, dtype=np.dtype(array.dtype).newbyteorder("<"), order="C")
        for name, array in archive.arrays.items()
    }
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
            members.writestr(zipfile.ZipInfo(HEADER), json.dumps(header, indent=1))
            for name, array in arrays.items():
                with members.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            members.comment = b"0" * DIGEST_LENGTH
        digest = _digest(file)
        file.seek(-DIGEST_LENGTH, os.SEEK_END)
        file.write(digest)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A new file, open for writing, that takes the place of `path` once all of it is on the disk."""
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(target.parent)


def _sync_directory(directory: Path) -> None:
    """Makes a rename last; systems that can't open directories keep their own promises."""
    with suppress(PermissionError, IsADirectoryError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _digest(file: IO[bytes]) -> bytes:
    """The sha256, in hexadecimal, of all bytes but the last `DIGEST_LENGTH`."""
    left = file.seek(0, os.SEEK_END) - DIGEST_LENGTH
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (chunk := file.read(min(left, CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()


def read_archive(path: str | os.PathLike[str], kind: str) -> Archive:
    """Reads a file of the given kind.

    Nothing in the file is trusted before its digest is right, and no array is read before its declared size is known
    to be in the file.

    Raises:
        OSError: the file can't be opened or read.
        CorruptFileError: it can, but is not a whole jaxhash file of this kind.
    """
    with Path(path).open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CorruptFileError(f"{path}: not a regular file")
        try:
            return _read(file, kind)
        except CorruptFileError as error:
            raise CorruptFileError(f"{path}: {error}") from None
        except (
            EOFError,
            KeyError,
            NotImplementedError,
            OverflowError,
            RecursionError,
            RuntimeError,
            ValueError,
            zipfile.BadZipFile,
        ) as error:
            raise CorruptFileError(f"{path}: not a jaxhash file ({type(error).__name__}: {error})") from error


def _read(file: IO[bytes], kind: str) -> Archive:
    size = file.seek(0, os.SEEK_END)
    if size <= DIGEST_LENGTH:
        raise CorruptFileError(f"only {size} bytes long")
    digest = _digest(file)
    if file.read(DIGEST_LENGTH + 1) != digest:
        raise CorruptFileError("the digest does not match: the file is damaged, cut short, or not a jaxhash file")
    with zipfile.ZipFile(file) as members:
        header = _read_header(members)
        if header["kind"] != kind:
            raise CorruptFileError(f"expected a saved {kind}, but it holds: {header['kind']}")
        return Archive(kind, header["meta"], _read_arrays(members, header["arrays"]))


def _read_header(members: zipfile.ZipFile) -> dict[str, Any]:
    info = members.getinfo(HEADER)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > HEADER_LIMIT:
        raise CorruptFileError(f"{HEADER} is compressed or longer than {HEADER_LIMIT} bytes")
    header = json.loads(members.read(info))
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


def _read_arrays(members: zipfile.ZipFile, described: dict[str, Any]) -> dict[str, np.ndarray]:
    names = [info.filename for info in members.infolist()]
    if names != [HEADER, *(f"{name}.npy" for name in described)]:
        raise CorruptFileError(f"the members of the archive are not those that {HEADER} lists")
    return {name: _read_array(members, name, description) for name, description in described.items()}


def _read_array(members: zipfile.ZipFile, name: str, described: Any) -> np.ndarray:
    dtype, shape = (described.get("dtype"), described.get("shape")) if isinstance(described, dict) else (None, None)
    if dtype not in DTYPES:
        raise CorruptFileError(f"{name}: dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
        raise CorruptFileError(f"{name}: shape must be a list of integers, got {shape!r}")
    info = members.getinfo(f"{name}.npy")
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or size > info.file_size:
        raise CorruptFileError(f"{name}: {size} bytes declared, {info.compress_size} stored")
    with members.open(info) as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise CorruptFileError(f"{name}: not an array of npy version 1.0")
        found = np.lib.format.read_array_header_1_0(member)
        if found != (tuple(shape), False, np.dtype(dtype)):
            raise CorruptFileError(
                f"{name}: {HEADER} declares {dtype}{shape}, the array is {found[2].str}{list(found[0])}"
            )
        data = member.read()
    if len(data) != size:
        raise CorruptFileError(f"{name}: {size} bytes declared, {len(data)} found")
    return np.frombuffer(data, dtype).reshape(shape)
