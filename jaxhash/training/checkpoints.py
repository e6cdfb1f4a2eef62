"""Training that survives: what `fit` writes at the end of each epoch, and how it goes on from there.

An epoch depends only on the weights, the optimiser's state and the settings, so that a run that was killed and resumed
ends with the same bits as one that was not, on the same machine.
"""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhash.files.archive import Archive, CorruptFileError, read_archive, write_archive
from jaxhash.models.autoencoder import Autoencoder
from jaxhash.models.code_layer import LogitStatistics
from jaxhash.training.epoch import Course, History, State


class Progress(NamedTuple):
    """How far training has come."""

    epoch: int
    state: State
    statistics: LogitStatistics
    history: History


def settings_of(model: Autoencoder, course: Course, state: State, epochs: int) -> dict[str, Any]:
    """All that decides how training goes on, as plain JSON data; of a user's functions it knows the names alone."""
    few = course.feed.few
    return {
        "model": type(model).__name__,
        **{name: _plain(value) for name, value in model.config.items()},
        "epochs": epochs,
        "batch_size": course.batch_size,
        "seed": course.seed,
        "objective": _plain(course.objective),
        "binarization": course.binarization,
        "optimizer": [type(part).__name__ for part in jax.tree.leaves(state.opt_state, is_leaf=_is_named_tuple)],
        "images": f"{few.dtype}{(course.feed.num_items, *few.shape[1:])}",
        "image values": hashlib.sha256(np.ascontiguousarray(few).tobytes()).hexdigest()[:16],
    }


def _is_named_tuple(part: Any) -> bool:
    return isinstance(part, tuple) and hasattr(part, "_fields")


def _plain(value: Any) -> Any:
    """Settings as JSON data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
    return value


def save_progress(path: str | os.PathLike[str], settings: dict[str, Any], progress: Progress) -> None:
    """Writes a checkpoint; or leaves the old one as it was and raises `OSError`."""
    arrays = {f"{number:04}": np.asarray(leaf) for number, leaf in enumerate(_leaves(progress))}
    meta = {"settings": settings, "epoch": progress.epoch, "history": progress.history._asdict()}
    write_archive(path, Archive("training", meta, arrays))


def load_progress(path: str | os.PathLike[str], settings: dict[str, Any], start: Progress) -> Progress:
    """The progress that a file holds, or `start` if there is no file.

    Raises:
        CorruptFileError: the file is damaged or is no checkpoint.
        ValueError: it is one of a training with other settings; the message lists them.
    """
    if not os.path.lexists(path):
        return start
    archive = read_archive(path, "training")
    _check_settings(path, archive.meta.get("settings"), settings)
    try:
        leaves, tree = jax.tree.flatten((start.state, start.statistics))
        found = [_fitting(archive.arrays[f"{number:04}"], leaf) for number, leaf in enumerate(leaves)]
        state, statistics = jax.tree.unflatten(tree, found)
        history = History(*(tuple(archive.meta["history"][name]) for name in History._fields))
        epoch = archive.meta["epoch"]
        if type(epoch) is not int or not 0 < epoch == len(history.loss) <= settings["epochs"]:
            raise ValueError(f"epoch {epoch!r} of {settings['epochs']} with {len(history.loss)} losses")
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{Path(path)}: checkpoint: {error!r}") from None
    return Progress(epoch, state, statistics, history)


def training_state(path: str | os.PathLike[str], archive: Archive) -> tuple[int, int, float]:
    """How many epochs of how many a checkpoint has seen, and the loss of the last."""
    try:
        meta = archive.meta
        return int(meta["epoch"]), int(meta["settings"]["epochs"]), float(meta["history"]["loss"][-1])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{Path(path)}: checkpoint: {error!r}") from None


def _leaves(progress: Progress) -> list[Any]:
    leaves = jax.tree.leaves((progress.state, progress.statistics))
    return [np.asarray(leaf, np.int32) if leaf.dtype == bool else leaf for leaf in leaves]


def _fitting(array: np.ndarray, leaf: Any) -> jax.Array:
    """A stored array in the form of a leaf of this training."""
    if array.shape != leaf.shape or (leaf.dtype != bool and array.dtype != leaf.dtype):
        raise ValueError(f"expected {leaf.dtype}{leaf.shape}, got {array.dtype}{array.shape}")
    return jax.numpy.asarray(array.astype(leaf.dtype))


def _check_settings(path: str | os.PathLike[str], stored: Any, given: dict[str, Any]) -> None:
    if not isinstance(stored, dict):
        raise CorruptFileError(f"{Path(path)}: checkpoint: settings are missing")
    names = [name for name in {**given, **stored} if stored.get(name) != given.get(name)]
    if names:
        differing = "; ".join(f"{name} was {stored.get(name)!r}, now {given.get(name)!r}" for name in names)
        raise ValueError(
            f"checkpoint {Path(path)} belongs to another training: {differing}. "
            "Give the settings it was started with, or another path"
        )
