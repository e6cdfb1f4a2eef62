"""Vectors from a `.npy` file, checked, as float32."""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxhash.items import Items, digest_table


def read_vectors(path: str, known: Mapping[str, bytes]) -> Items:
    """Reads the vectors of a file `[n, d]`; an item's name is the number of its row.

    Args:
        path: the file.
        known: the digests of rows by their names.

    Raises:
        OSError: the file can't be read.
        ValueError: it is no `.npy` file of finite numbers `[n, d]`.
    """
    table = load_vectors(path)
    if table.ndim != 2:
        raise ValueError(f"{path}: expected vectors of shape [n, d], got shape {table.shape}")
    names = [str(row) for row in range(len(table))]
    digests = [hashlib.sha256(row.tobytes()).digest() for row in table]
    fresh = np.array([known.get(name) != digest for name, digest in zip(names, digests, strict=True)])
    return Items(names, digest_table(digests), fresh, table[fresh], [])


def load_vectors(path: str) -> np.ndarray:
    """The array in a `.npy` file as float32; raises as `read_vectors`, but takes any shape `[..., d]`."""
    array = _mapped(path)
    if not array.shape or 0 in array.shape:
        raise ValueError(f"{path}: expected at least one vector, got shape {array.shape}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: expected real numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused as that
        values = np.array(array, dtype=np.float32, order="C")
    finite = np.isfinite(values.reshape(-1, values.shape[-1])).all(axis=1)
    if not finite.all():
        raise ValueError(f"{path}: row {int(np.argmin(finite))} holds NaN or a number too large for float32")
    return values


def _mapped(path: str) -> np.ndarray:
    """The array in a file, not read yet, so that a size that the file only claims to have costs nothing."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise ValueError(f"{path}: not a regular file")
    try:
        array = np.load(os.fspath(path), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: not a .npy file of numbers ({error})") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path}: an archive of several arrays; save the vectors alone by numpy.save")
    return array
