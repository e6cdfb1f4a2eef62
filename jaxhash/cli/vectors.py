"""Reading of files of vectors: all rows, and the values of new and changed ones."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jaxhash.cli.sources import Items, stack_digests
from jaxhash.models.input_rule import ItemError

# Rows of embeddings lie at up to a few times the median distance.
FAR, ROWS_TO_LOOK_AT = 100, 1000


def read_vectors(path: str, known: Mapping[str, bytes]) -> Items:
    """Reads the vectors of a file; the name of an item is the number of its row.

    Args:
        path: the path of the `.npy` file.
        known: digests of rows by their names; a row that has one of them, under any name, is not fresh.

    Raises:
        OSError: the file can't be read.
        ValueError: it is not a `.npy` file of finite numbers `[n, d]`.
    """
    table = load_vectors(path)
    if table.ndim != 2:
        raise ValueError(f"{path}: expected vectors of shape [n, d], got shape {table.shape}")
    names = [str(row) for row in range(len(table))]
    digests = [hashlib.sha256(row.tobytes()).digest() for row in table]
    seen = frozenset(known.values())
    fresh = np.array([digest not in seen for digest in digests])
    return Items(names, stack_digests(digests), fresh, table[fresh], [])


def load_vectors(path: str) -> np.ndarray:
    """Loads the array in a `.npy` file as float32 `[..., d]`; raises what `read_vectors` raises."""
    array = _map_array(path)
    if not array.shape or 0 in array.shape:
        raise ValueError(f"{path}: expected at least one vector, got shape {array.shape}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: expected real numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # overflow gives infinity, which is refused below
        values = np.array(array, dtype=np.float32, order="C")
    finite = np.isfinite(values.reshape(-1, values.shape[-1])).all(axis=1)
    if not finite.all():
        raise ValueError(f"{path}: row {int(np.argmin(finite))} holds NaN or a number too large for float32")
    return values


@contextmanager
def name_items(labels: Sequence[str], cure: str) -> Iterator[None]:
    """Names the item that a model does not take, by its label, and says what to do."""
    try:
        yield
    except ItemError as error:
        raise ValueError(
            f"{labels[error.row]} holds values outside [{error.low:g}, {error.high:g}], the range that the model was "
            f"trained for: {cure}"
        ) from None


def find_odd_rows(vectors: np.ndarray) -> np.ndarray:
    """Finds rows that look like fill values: int `[m]`.

    These are rows of one value, where most have several, and rows that are far from all others: `FAR` times as far from
    the medians of the columns as the median row.
    """
    sample = vectors[:: -(-len(vectors) // ROWS_TO_LOOK_AT)].astype(np.float64)
    middle = np.median(sample, axis=0)
    typical = np.median(np.abs(sample - middle).max(axis=1)) or np.inf
    constant, far = np.zeros((2, len(vectors)), bool)
    for start in range(0, len(vectors), ROWS_TO_LOOK_AT):
        part = slice(start, start + ROWS_TO_LOOK_AT)
        constant[part] = np.ptp(vectors[part], axis=1) == 0
        far[part] = np.abs(vectors[part] - middle).max(axis=1) > FAR * typical
    return np.flatnonzero(far | (constant & (2 * constant.sum() < len(vectors))))


def read_rows(path: str, known: Iterable[tuple[int, bytes]]) -> Iterator[np.ndarray | None]:
    """Reads rows of a file of vectors, float32 `[d]`, by number and digest; `None` where one is gone or has changed."""
    try:
        array = _map_array(path)
    except (OSError, ValueError):
        array = np.empty(0)
    for row, digest in known:
        try:
            with np.errstate(over="ignore"):
                vector = np.array(array[row : row + 1], dtype=np.float32, order="C").reshape(-1)
        except (ValueError, TypeError, IndexError):
            yield None
        else:
            yield vector if hashlib.sha256(vector.tobytes()).digest() == digest else None


def _map_array(path: str) -> np.ndarray:
    """Maps the array in a file into memory, so that a false size in its header allocates nothing."""
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
