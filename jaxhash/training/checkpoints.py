"""Checkpoints: files that `fit` writes at the end of each epoch and resumes from.

An epoch depends only on the weights, the optimizer state and the settings. On the same machine, an interrupted and
resumed training therefore ends with bitwise the same weights as an uninterrupted one.
"""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxhash.files.archive import Archive, read_archive, write_archive
from jaxhash.files.header import CorruptFileError
from jaxhash.models.encoder import Encoder
from jaxhash.training.data import TrainingData
from jaxhash.training.epoch import History, TrainSpec, TrainState


def describe_settings(model: Encoder, spec: TrainSpec, data: TrainingData, state: TrainState) -> dict[str, Any]:
    """Returns all settings that determine training, as JSON values. Functions are represented by name."""
    rows = data.sample_rows
    return {
        "model": type(model).__name__,
        **{name: _to_json(value) for name, value in model.config.items()},
        "input scale": float(model.input_scale[...]),
        "epochs": spec.epochs,
        "batch_size": spec.batch_size,
        "seed": spec.seed,
        "objective": _to_json(spec.objective),
        "binarization": spec.binarization,
        "optimizer": [type(part).__name__ for part in jax.tree.leaves(state.opt_state, is_leaf=_is_named_tuple)],
        "images": f"{rows.dtype}{(data.num_items, *rows.shape[1:])}",
        "image values": hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()[:16],
    }


def _is_named_tuple(part: Any) -> bool:
    return isinstance(part, tuple) and hasattr(part, "_fields")


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [_to_json(part) for part in value]
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
    return value


def save_checkpoint(path: str | os.PathLike[str], settings: dict[str, Any], state: TrainState) -> None:
    """Writes a checkpoint. Raises `OSError` on failure and leaves the old one intact."""
    leaves = [np.asarray(leaf, np.int32 if leaf.dtype == bool else None) for leaf in jax.tree.leaves(_arrays_of(state))]
    arrays = {f"{number:04}": leaf for number, leaf in enumerate(leaves)}
    meta = {"settings": settings, "epoch": state.epoch, "history": state.history._asdict()}
    write_archive(path, Archive("training", meta, arrays))


def load_checkpoint(path: str | os.PathLike[str], settings: dict[str, Any], start: TrainState) -> TrainState:
    """Loads the state from a file, or returns `start` if there is no file.

    Raises:
        CorruptFileError: the file is damaged or not a checkpoint.
        ValueError: it was written with other settings; the message lists them.
    """
    if not os.path.lexists(path):
        return start
    archive = read_archive(path, "training")
    _check_settings(path, archive.meta.get("settings"), settings)
    try:
        leaves, tree = jax.tree.flatten(_arrays_of(start))
        stored = [_check_leaf(archive.arrays[f"{number:04}"], leaf) for number, leaf in enumerate(leaves)]
        weights, opt_state, statistics = jax.tree.unflatten(tree, stored)
        history = History(*(tuple(archive.meta["history"][name]) for name in History._fields))
        epoch = archive.meta["epoch"]
        if type(epoch) is not int or not 0 < epoch == len(history.loss) <= settings["epochs"]:
            raise ValueError(f"epoch {epoch!r} of {settings['epochs']} with {len(history.loss)} losses")
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{Path(path)}: checkpoint: {error!r}") from None
    return TrainState(epoch, weights, opt_state, statistics, history)


def read_progress(path: str | os.PathLike[str], archive: Archive) -> tuple[int, int, float]:
    """Returns the number of finished epochs, the total, and the loss of the last finished one."""
    try:
        meta = archive.meta
        return int(meta["epoch"]), int(meta["settings"]["epochs"]), float(meta["history"]["loss"][-1])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"{Path(path)}: checkpoint: {error!r}") from None


def _arrays_of(state: TrainState) -> Any:
    """Selects the arrays of a state, in file order."""
    return state.weights, state.opt_state, state.statistics


def _check_leaf(array: np.ndarray, leaf: Any) -> jax.Array:
    """Checks the shape and dtype of a stored array against a leaf of this training. Bools are stored as int32."""
    if array.shape != leaf.shape or (leaf.dtype != bool and array.dtype != leaf.dtype):
        raise ValueError(f"expected {leaf.dtype}{leaf.shape}, got {array.dtype}{array.shape}")
    return jax.numpy.asarray(array.astype(leaf.dtype))


def _check_settings(path: str | os.PathLike[str], stored: Any, given: dict[str, Any]) -> None:
    if not isinstance(stored, dict) or "model" not in stored:
        raise CorruptFileError(f"{Path(path)}: checkpoint: settings are missing")
    if stored["model"] == given["model"] and stored.keys() != given.keys():
        raise CorruptFileError(f"{Path(path)}: checkpoint: settings must name {', '.join(given)}")
    names = [name for name in {**given, **stored} if stored.get(name) != given.get(name)]
    if names:
        differing = "; ".join(f"{name} was {stored.get(name)!r}, now {given.get(name)!r}" for name in names)
        raise ValueError(
            f"checkpoint {Path(path)} belongs to another training: {differing}. "
            "Give its original settings, or another path"
        )
