"""Saving and loading of models: files hold the constructor arguments and the arrays."""

import inspect
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxhash.core.checks import check_integer
from jaxhash.files.archive import Archive, Arrays, read_archive, write_archive
from jaxhash.files.header import AnyPath, CorruptFileError
from jaxhash.models.autoencoder import Autoencoder
from jaxhash.models.convolutional import ConvAutoencoder
from jaxhash.models.encoder import Encoder
from jaxhash.models.patch_encoder import PatchEncoder

# Model classes by name.
MODELS: dict[str, type[Any]] = {
    "Autoencoder": Autoencoder,
    "ConvAutoencoder": ConvAutoencoder,
    "PatchEncoder": PatchEncoder,
}


def save_model(path: AnyPath, model: Encoder) -> None:
    """Saves a model; replaces an existing file atomically.

    Raises:
        OSError: the file can't be written; the old one is intact.
        ValueError: the model's output activation is a function, which can't be stored.
        TypeError: the model has a custom class, which can't be stored.
    """
    write_archive(path, Archive("model", *model_to_arrays(model)))


def load_model(path: AnyPath) -> Encoder:
    """Loads a model; raises the same errors as `load_index`."""
    return model_from_archive(path, read_archive(path, "model"))


def model_to_arrays(model: Encoder) -> tuple[dict[str, Any], Arrays]:
    """Converts a model to JSON metadata and named arrays."""
    if type(model) not in MODELS.values():
        raise TypeError(f"model must be one of {', '.join(MODELS)} to be saved, got {type(model).__name__}")
    config = model.config
    if not isinstance(config.get("output_activation", ""), str):
        raise ValueError(
            f"a model whose output_activation is a function ({config['output_activation']!r}) can't be saved: "
            "give it by name"
        )
    arrays = {f"model.{name}": np.asarray(array) for name, array in _name_arrays(nnx.state(model)).items()}
    return {"model": {"class": type(model).__name__, "config": config}}, arrays


def model_from_archive(path: AnyPath, archive: Archive) -> Encoder:
    """Restores the model of an archive; raises `CorruptFileError` if it has none."""
    try:
        meta = archive.meta["model"]
        make, config = MODELS.get(meta["class"]), dict(meta["config"])
        if make is None:
            raise ValueError(f"unknown class of model {meta['class']!r}")
        _check_config(make, config, archive.arrays)
        graph, state = nnx.split(nnx.eval_shape(lambda: make(**config)))
        return nnx.merge(graph, _fill_state(state, archive.arrays))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(
            f"{path}: model: {error!r}" if isinstance(error, KeyError) else f"{path}: {error}"
        ) from None


def _check_config(make: type[Any], config: dict[str, Any], arrays: Arrays) -> None:
    """Checks the constructor arguments against the file's size, before anything is allocated."""
    expected = set(inspect.signature(make.__init__).parameters) - {"self", "rngs"}
    if config.keys() != expected:
        raise ValueError(f"config must hold {', '.join(sorted(expected))}, got {', '.join(map(str, config))}")
    stored = sum(array.size for array in arrays.values())
    for name, value in config.items():
        if name != "output_activation" and (name, value) != ("image_shape", None):
            sizes = value if isinstance(value, list) else [value]
            if len(sizes) > len(arrays):
                raise ValueError(f"{name} has more entries than the file has arrays")
            for size in sizes:
                check_integer(name, size, 1, maximum=max(1, stored))


def _fill_state(state: Any, arrays: Arrays) -> Any:
    """Fills a model's state with the arrays of a file; names, shapes and dtypes must match."""
    expected = _name_arrays(state)
    stored = {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}
    if expected.keys() != stored.keys():
        raise ValueError(f"the model has {len(expected)} arrays, the file {len(stored)} or other names")
    for name, leaf in expected.items():
        if leaf.shape != stored[name].shape or leaf.dtype != stored[name].dtype:
            raise ValueError(f"{name} must be {leaf.dtype}{leaf.shape}, got {stored[name].dtype}{stored[name].shape}")
        if not np.isfinite(stored[name]).all():
            raise ValueError(f"{name} holds NaN or infinity")
        if name.endswith("input_scale") and stored[name] <= 0:
            raise ValueError(f"{name} must be above 0, got {stored[name]}")
    tree = nnx.to_pure_dict(state)
    # `jnp.asarray` would compile a program for each shape.
    filled = jax.tree_util.tree_map_with_path(lambda path, _: jax.device_put(stored[_join_path(path)]), tree)
    nnx.replace_by_pure_dict(state, filled)
    return state


def _name_arrays(state: Any) -> dict[str, Any]:
    """Returns the arrays of a model's state by name, such as `encoder.layers.0.kernel`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))
    return {_join_path(path): leaf for path, leaf in leaves}


def _join_path(path: tuple[Any, ...]) -> str:
    return ".".join(str(entry.key) for entry in path)
