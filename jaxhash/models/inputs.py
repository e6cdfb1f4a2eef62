"""Checks of the items that a model is given, and their layout."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhash.core.checks import dtype_of, is_traced
from jaxhash.models.autoencoder import Autoencoder
from jaxhash.models.input_rule import check_values, make_untrained_rule

# Items that pass through the network at a time when the caller is Python.
ITEMS_AT_ONCE = 1024


def check_items(
    model: Autoencoder, images: ArrayLike, *, new_kind: bool = False
) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """Checks images and lays them out one item a row; `new_kind` leaves out what the model was trained on.

    Returns:
        Items `[n, *input_shape]`, numpy if their values are known; the leading axes of `images`; and the shape of one
        item there.
    """
    items, lead, item_shape = _checked_rows(model, images, new_kind)
    return items if is_traced(images) else _narrowed(items), lead, item_shape


def _checked_rows(
    model: Autoencoder, images: ArrayLike, new_kind: bool = False
) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """What `check_items` gives, but for numbers of other widths, which stay as they are."""
    check_model(model)
    if hasattr(images, "toarray"):
        raise TypeError(
            f"images must be a dense array, got {type(images).__name__}: use .toarray(), some rows at a time"
        )
    dtype = dtype_of(images)
    if dtype != np.uint8 and dtype != np.bool_ and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"images must be uint8 (0 to 255), bool or floating, got dtype {dtype}")
    lead, item_shape = _split_shape(np.shape(images), model)
    shape = (math.prod(lead), *model.input_shape)
    stored = model.input_rule[...]
    rule = make_untrained_rule(model.output_activation) if new_kind or is_traced(stored) else np.asarray(stored)
    if dtype == np.uint8 and model.output_activation == "softmax":
        raise TypeError("counts must be floating, got dtype uint8, which is divided by 255")
    if dtype == np.uint8 and not rule[2]:
        raise TypeError("images must be floating, scaled as those this model was trained on, got dtype uint8")
    if is_traced(images):
        return jnp.asarray(images).reshape(shape), lead, item_shape
    items = np.asarray(images).reshape(shape)
    if dtype != np.uint8 and dtype != np.bool_:
        # Some at a time: a check of all would take up a quarter of the room of the items, which may fill the disk.
        for start in range(0, len(items), ITEMS_AT_ONCE):
            check_values(rule, _narrowed(items[start : start + ITEMS_AT_ONCE]), start)
    return items, lead, item_shape


def check_model(model: Autoencoder) -> None:
    """Raises unless this is an autoencoder."""
    if not isinstance(model, Autoencoder):
        raise TypeError(f"model must be an Autoencoder, got {type(model).__name__}")


def _narrowed(items: np.ndarray) -> np.ndarray:
    """Floating numbers as float32; what overflows becomes infinite, and is refused as that."""
    if items.dtype == np.uint8 or items.dtype == np.bool_:
        return items
    with np.errstate(over="ignore"):
        return items.astype(np.float32, copy=False)


def _split_shape(shape: tuple[int, ...], model: Autoencoder) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Parts `[..., *item]` where the last axes first make up one item."""
    for axis in range(len(shape) - 1, -1, -1):
        if model.takes(shape[axis:]):
            return shape[:axis], shape[axis:]
    wanted = ", ".join(map(str, model.input_shape))
    raise ValueError(f"images must have shape [..., {wanted}] (or last axes of that product), got {shape}")


def to_floats(items: jax.Array) -> jax.Array:
    """Items as the network sees them, float32: bytes are divided by 255, other numbers stay as they are."""
    return items.astype(jnp.float32) / 255.0 if items.dtype == jnp.uint8 else items.astype(jnp.float32)
