"""Saving and loading: what of an index and a model goes into a file, and what a file must hold to become one.

A file keeps an index without its spare room and tiling, and a model as the arguments that make it and its weights. So
the layout in memory can change while old files stay readable. A matching digest says that a file is as it was written,
not that its writer was honest: everything the search relies on is checked again.
"""

import inspect
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from jaxhash.archive import Archive, CorruptFileError, read_archive, write_archive
from jaxhash.autoencoder import Autoencoder
from jaxhash.checks import check_codes, check_integer
from jaxhash.convolutional import ConvAutoencoder
from jaxhash.index import HashIndex, index_from_sorted
from jaxhash.index_files import AnyPath, Arrays, index_contents, sorted_from
from jaxhash.parts import PARTS, load_shards, save_parts, whole_of_parts
from jaxhash.retriever import Retriever, check_retriever
from jaxhash.scan import AnyIndex
from jaxhash.sharding import ShardedIndex, check_mesh

# The classes of models, by the names that files know them by.
MODELS: dict[str, type[Autoencoder]] = {"Autoencoder": Autoencoder, "ConvAutoencoder": ConvAutoencoder}


def save_index(path: AnyPath, index: AnyIndex) -> None:
    """Saves an index. The old file, if any, stays until the new one is complete; equal indexes give equal bytes.

    A `ShardedIndex` is saved in parts: each shard goes to a file of its own beside `path`, which then gets a list of
    them. All processes that hold shards have to make this call, and to see the same folder; only one index at a time
    may be saved in parts under a name.

    Raises:
        OSError: the file can't be written; the old one is untouched.
    """
    if isinstance(index, ShardedIndex):
        save_parts(path, index)
        return
    write_archive(path, Archive("index", *index_contents(index)))


def load_index(path: AnyPath) -> HashIndex:
    """Loads an index, as a whole if it was saved in parts.

    Raises:
        OSError: the file can't be read.
        CorruptFileError: it is damaged or is not a saved index, or a part of it is missing.
        ValueError: it was saved in parts, and is too large for one device.
    """
    archive = read_archive(path, "index", PARTS)
    if archive.kind == PARTS:
        return whole_of_parts(path, archive)
    return index_from_sorted(*sorted_from(path, archive))


def load_sharded_index(path: AnyPath, mesh: Mesh, axis_name: str = "shards") -> ShardedIndex:
    """Loads an index, saved as a whole or in any number of parts, and spreads it over the devices of a mesh.

    Of parts, each process reads those that its own devices need, one at a time. All processes that have devices in the
    mesh have to make this call.

    Args:
        path: what was given to `save_index`.
        mesh: as for `shard_index`.
        axis_name: as for `shard_index`.

    Raises:
        ValueError: as for `shard_index`.
        OSError: a file can't be read.
        CorruptFileError: a file is damaged or is not a saved index, or a part is missing.
        RuntimeError: another process failed, or has read another version: the file was replaced meanwhile.
    """
    check_mesh(mesh, axis_name)
    return load_shards(path, mesh, axis_name)


def save_model(path: AnyPath, model: Autoencoder) -> None:
    """Saves a model; as `save_index`.

    Raises:
        OSError: the file can't be written; the old one is untouched.
        ValueError: the model's output activation is a function, which can't be stored.
    """
    write_archive(path, Archive("model", *_model_contents(model)))


def load_model(path: AnyPath) -> Autoencoder:
    """Loads a model; raises what `load_index` raises."""
    return _model_from(path, read_archive(path, "model"))


def save_retriever(path: AnyPath, retriever: Retriever[HashIndex]) -> None:
    """Saves model and index in one file; raises what `save_model` raises, and `TypeError` for a `ShardedIndex`."""
    write_archive(path, Archive("retriever", *retriever_contents(retriever)))


def load_retriever(path: AnyPath) -> Retriever[HashIndex]:
    """Loads a model and its index; raises what `load_index` raises."""
    return retriever_from(path, read_archive(path, "retriever"))


def retriever_contents(retriever: Retriever[HashIndex]) -> tuple[dict[str, Any], Arrays]:
    """What of a retriever goes into a file: plain data, and arrays by name."""
    check_retriever(retriever)
    if isinstance(retriever.index, ShardedIndex):
        raise TypeError(
            "retriever must have a HashIndex to go into one file, got a ShardedIndex: save its parts by save_model and "
            "save_index, and make a Retriever of what load_model and load_sharded_index give"
        )
    index_meta, index_arrays = index_contents(retriever.index)
    model_meta, model_arrays = _model_contents(retriever.model)
    long_codes = {} if retriever.long_codes is None else {"long_codes": np.asarray(retriever.long_codes)}
    return index_meta | model_meta, index_arrays | model_arrays | long_codes


def retriever_from(path: AnyPath, archive: Archive) -> Retriever[HashIndex]:
    """The reverse; raises `CorruptFileError` unless they are what a retriever can be made of."""
    model, index = _model_from(path, archive), index_from_sorted(*sorted_from(path, archive))
    long_codes = archive.arrays.get("long_codes")
    retriever = Retriever(model, index, None if long_codes is None else jax.device_put(long_codes))
    try:
        check_retriever(retriever)
        if long_codes is not None:
            check_codes("long_codes", long_codes, model.num_bits)
    except (TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: {error}") from None
    return retriever


def _model_contents(model: Autoencoder) -> tuple[dict[str, Any], Arrays]:
    if not isinstance(model, Autoencoder):
        raise TypeError(f"model must be an Autoencoder, got {type(model).__name__}")
    config = model.config
    if not isinstance(config["output_activation"], str):
        raise ValueError(
            f"a model whose output_activation is a function ({config['output_activation']!r}) can't be saved: "
            "give it by name"
        )
    arrays = {f"model.{name}": np.asarray(array) for name, array in _named(nnx.state(model)).items()}
    return {"model": {"class": type(model).__name__, "config": config}}, arrays


def _model_from(path: AnyPath, archive: Archive) -> Autoencoder:
    try:
        meta = archive.meta["model"]
        make, config = MODELS.get(meta["class"]), dict(meta["config"])
        if make is None:
            raise ValueError(f"unknown class of model {meta['class']!r}")
        _check_config(make, config, archive.arrays)
        graph, state = nnx.split(nnx.eval_shape(lambda: make(**config)))
        return nnx.merge(graph, _filled(state, archive.arrays))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f"{path}: model: {error!r}" if isinstance(error, KeyError) else f"{path}: {error}"
        ) from None


def _check_config(make: type[Autoencoder], config: dict[str, Any], arrays: Arrays) -> None:
    """Refuses, before anything is made of them, the arguments of a model larger than its file."""
    expected = set(inspect.signature(make.__init__).parameters) - {"self", "rngs"}
    if config.keys() != expected:
        raise ValueError(f"config must hold {', '.join(sorted(expected))}, got {', '.join(map(str, config))}")
    stored = sum(array.size for array in arrays.values())
    for name, value in config.items():
        if name != "output_activation":
            sizes = value if isinstance(value, list) else [value]
            if len(sizes) > len(arrays):
                raise ValueError(f"{name} has more entries than there are arrays")
            for size in sizes:
                check_integer(name, size, 1, maximum=max(1, stored))


def _filled(state: Any, arrays: Arrays) -> Any:
    """A model's state with the arrays of a file, which must be exactly those the model has."""
    expected = _named(state)
    found = {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}
    if expected.keys() != found.keys():
        raise ValueError(f"the model has {len(expected)} arrays, the file {len(found)} or of other names")
    for name, wanted in expected.items():
        if wanted.shape != found[name].shape or wanted.dtype != found[name].dtype:
            raise ValueError(f"{name} must be {wanted.dtype}{wanted.shape}, got {found[name].dtype}{found[name].shape}")
        if not np.isfinite(found[name]).all():
            raise ValueError(f"{name} holds NaN or infinity")
    tree = nnx.to_pure_dict(state)
    filled = jax.tree_util.tree_map_with_path(lambda path, _: jax.numpy.asarray(found[_name(path)]), tree)
    nnx.replace_by_pure_dict(state, filled)
    return state


def _named(state: Any) -> dict[str, Any]:
    """The arrays of a model by name, such as `encoder.layers.0.kernel`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))
    return {_name(path): leaf for path, leaf in leaves}


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(entry.key) for entry in path)
