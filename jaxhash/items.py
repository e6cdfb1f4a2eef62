"""What a source, a folder of images or a file of vectors, holds at a moment; and what of it is not known yet."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DIGEST_WORDS = hashlib.sha256().digest_size // 4

# Called with how many files have been read, and how many there are.
OnProgress = Callable[[int, int], None]


class Skipped(NamedTuple):
    """A file that is left out."""

    name: str
    reason: str


class Items(NamedTuple):
    """The n items of a source, and the values of the m that are new or changed."""

    names: list[str]  # in order: paths inside a folder, or row numbers
    digests: np.ndarray  # uint32 [n, DIGEST_WORDS]: the sha256 of each item
    fresh: np.ndarray  # bool [n], whether an item is new or changed
    values: np.ndarray  # of those: uint8 [m, side, side, 3], or float32 [m, d]
    skipped: list[Skipped]


def digest_table(digests: list[bytes]) -> np.ndarray:
    """Digests as uint32 `[n, DIGEST_WORDS]`."""
    return np.frombuffer(b"".join(digests), "<u4").reshape(-1, DIGEST_WORDS).astype(np.uint32)
