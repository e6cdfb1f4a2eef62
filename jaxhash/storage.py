"""Saving and loading: what of an index and a model goes into a file, and what a file must hold to become one.

A file keeps an index without its spare room and tiling, and a model as the arguments that make it and its weights. So
the layout in memory can change while old files stay readable. A matching digest says that a file is as it was written,
not that its writer was honest: everything the search relies on is checked again.
"""

import inspect
import os
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxhash.archive import Archive, CorruptFileError, read_archive, write_archive
from jaxhash.autoencoder import Autoencoder
from jaxhash.checks import check_codes, check_ids, check_integer, check_num_bits
from jaxhash.convolutional import ConvAutoencoder
from jaxhash.index import HashIndex, check_size, index_from_sorted, sorted_arrays
from jaxhash.retriever import Retriever, check_retriever

Path = str | os.PathLike[str]
Arrays = dict[str, np.ndarray]

# The classes of models, by the names that files know them by.
MODELS: dict[str, type[Autoencoder]] = {"Autoencoder": Autoencoder, "ConvAutoencoder": ConvAutoencoder}


def save_index(path: Path, index: HashIndex) -> None:
    """Saves an index. The old file, if any, stays until the new one is complete; equal indexes give equal bytes.

    Raises:
        OSError: the file can't be written; the old one is untouched.
    """
    write_archive(path, Archive("index", *_index_contents(index)))


def load_index(path: Path) -> HashIndex:
    """Loads an index.

    Raises:
        OSError: the file can't be read.
        CorruptFileError: it is damaged or is not a saved index.
    """
    return _index_from(path, read_archive(path, "index"))


def save_model(path: Path, model: Autoencoder) -> None:
    """Saves a model; as `save_index`.

    Raises:
        OSError: the file can't be written; the old one is untouched.
        ValueError: the model's output activation is a function, which can't be stored.
    """
    write_archive(path, Archive("model", *_model_contents(model)))


def load_model(path: Path) -> Autoencoder:
    """Loads a model; raises what `load_index` raises."""
    return _model_from(path, read_archive(path, "model"))


def save_retriever(path: Path, retriever: Retriever) -> None:
    """Saves model and index in one file; raises what `save_model` raises."""
    write_archive(path, Archive("retriever", *retriever_contents(retriever)))


def load_retriever(path: Path) -> Retriever:
    """Loads a model and its index; raises what `load_index` raises."""
    return retriever_from(path, read_archive(path, "retriever"))


def retriever_contents(retriever: Retriever) -> tuple[dict[str, Any], Arrays]:
    """What of a retriever goes into a file: plain data, and arrays by name."""
    check_retriever(retriever)
    index_meta, index_arrays = _index_contents(retriever.index)
    model_meta, model_arrays = _model_contents(retriever.model)
    return index_meta | model_meta, index_arrays | model_arrays


def retriever_from(path: Path, archive: Archive) -> Retriever:
    """The reverse; raises `CorruptFileError` unless they are what a retriever can be made of."""
    retriever = Retriever(_model_from(path, archive), _index_from(path, archive))
    try:
        check_retriever(retriever)
    except ValueError as error:
        raise CorruptFileError(f"{path}: {error}") from None
    return retriever


def _index_contents(index: HashIndex) -> tuple[dict[str, Any], Arrays]:
    if not isinstance(index, HashIndex):
        raise TypeError(f"index must be a HashIndex, got {type(index).__name__}")
    codes, offsets, ids = sorted_arrays(index)
    return {"index": {"num_bits": index.num_bits}}, {
        "index.codes": codes,
        "index.offsets": offsets,
        "index.ids": ids,
    }


def _index_from(path: Path, archive: Archive) -> HashIndex:
    try:
        meta = archive.meta["index"]
        num_bits = check_num_bits(meta["num_bits"])
        codes, offsets, ids = (archive.arrays[f"index.{name}"] for name in ("codes", "offsets", "ids"))
        codes = check_codes("codes", codes, num_bits)
        _check_sorted(codes, offsets, ids, num_bits)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f"{path}: index: {error!r}" if isinstance(error, KeyError) else f"{path}: {error}"
        ) from None
    return index_from_sorted(codes, offsets, ids, num_bits)


def _check_sorted(codes: np.ndarray, offsets: np.ndarray, ids: np.ndarray, num_bits: int) -> None:
    """Raises unless sorted codes, their offsets and ids are what `build_index` would have made of some input."""
    if codes.ndim != 2 or offsets.shape != (len(codes) + 1,) or offsets.dtype != np.int32 or ids.dtype != np.int32:
        raise ValueError(
            f"codes {codes.shape}, offsets {offsets.dtype}{offsets.shape} and ids {ids.dtype} do not belong together"
        )
    check_ids(ids, len(ids))
    check_size(len(ids), num_bits)
    if offsets[0] != 0 or offsets[-1] != len(ids) or not (offsets[1:] > offsets[:-1]).all():
        raise ValueError(f"offsets must rise from 0 to the number of items, {len(ids)}")
    if not _ascend(codes):
        raise ValueError("codes must be distinct and in ascending order")
    if len(codes) < len(ids) and not _ascend_within(offsets, ids):
        raise ValueError("ids must ascend within each code")


def _ascend_within(offsets: np.ndarray, ids: np.ndarray) -> bool:
    """Whether the ids of each code ascend, given that offsets rise from 0 to their number."""
    in_order = ids[1:] > ids[:-1]
    in_order[offsets[1:-1] - 1] = True  # from one code to the next
    return bool(in_order.all())


def _ascend(codes: np.ndarray) -> bool:
    """Whether codes uint32 `[u, w]` are distinct and in ascending order."""
    tied: Any = slice(1, None)  # codes that agree with the one before in all words so far
    before: Any = slice(None, -1)
    for word in codes.T:
        if (word[tied] < word[before]).any():
            return False
        equal = np.flatnonzero(word[tied] == word[before])
        tied = equal + 1 if isinstance(tied, slice) else tied[equal]
        before = tied - 1
    return not len(tied)


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


def _model_from(path: Path, archive: Archive) -> Autoencoder:
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
