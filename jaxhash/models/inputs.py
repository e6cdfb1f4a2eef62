"""Model inputs: checks of items, their layout in rows, and conversion to floats."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhash.core.checks import dtype_of, is_on_host, is_traced
from jaxhash.models.encoder import Encoder
from jaxhash.models.input_rule import check_values, make_untrained_rule, unscale_rule

# Batch size outside `jit`.
ITEMS_PER_CHUNK = 1024


def check_model(model: Encoder) -> None:
    """Raises `TypeError` unless `model` is an `Encoder`."""
    if not isinstance(model, Encoder):
        raise TypeError(f"model must be an Encoder, such as an Autoencoder, got {type(model).__name__}")


def check_items(model: Encoder, images: ArrayLike) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """Checks images for a model and arranges them with one item per row.

    Values are checked on their own device. Only the result of the check is fetched from an accelerator, and nothing for
    uint8 and bool items.

    Returns:
        The items `[n, *input_shape]` in their own dtype (`narrow_floats` converts a batch), the leading axes of
        `images`, and the shape of one item in `images`. JAX arrays of at most one batch stay on their device; all
        others become numpy arrays.

    Raises:
        TypeError: images are sparse, or have a dtype that the model does not accept.
        ValueError: the shape does not fit, or a value is not finite or outside the model's input range.
    """
    check_model(model)
    held = model.input_rule[...], model.input_shift[...], model.input_scale[...]
    rule = make_untrained_rule(model.output_activation) if is_traced(held) else unscale_rule(*jax.device_get(held))
    return _check_rows(model, images, rule)


def check_training_items(model: Encoder, images: ArrayLike) -> tuple[np.ndarray, tuple[int, ...]]:
    """Checks training images, regardless of earlier training; raises the same errors as `check_items`.

    Returns:
        The items `[n, *input_shape]` as a numpy array of dtype uint8, bool or float32, and the shape of one item in
        `images`.
    """
    check_model(model)
    items, _, item_shape = _check_rows(model, images, make_untrained_rule(model.output_activation))
    return narrow_floats(np.asarray(items)), item_shape


def _check_rows(model: Encoder, images: ArrayLike, rule: np.ndarray) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    if hasattr(images, "toarray"):
        raise TypeError(
            f"images must be a dense array, got {type(images).__name__}: use .toarray(), some rows at a time"
        )
    lead, item_shape = _split_shape(np.shape(images), model)
    _check_dtype(dtype_of(images), rule, model.output_activation)
    count = math.prod(lead)
    # Larger arrays go through the host in batches: a reshape on the device would copy the whole array.
    stays = is_traced(images) or (isinstance(images, jax.Array) and count <= ITEMS_PER_CHUNK)
    rows = (jnp.asarray(images) if stays else np.asarray(images)).reshape(count, *model.input_shape)
    if not is_traced(rows) and jnp.issubdtype(rows.dtype, jnp.floating) and rows.size:
        _check_floats(rule, rows)
    return rows, lead, item_shape


def _split_shape(shape: tuple[int, ...], model: Encoder) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Splits `[..., *item]` at the shortest run of trailing axes that forms one item."""
    for axis in range(len(shape) - 1, -1, -1):
        if model.takes(shape[axis:]):
            return shape[:axis], shape[axis:]
    expected = ", ".join(map(str, model.input_shape))
    raise ValueError(f"images must have shape [..., {expected}] (or last axes of that product), got {shape}")


def _check_dtype(dtype: np.dtype[Any], rule: np.ndarray, activation: Any) -> None:
    if dtype != np.uint8 and dtype != np.bool_ and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"images must be uint8 (0 to 255), bool or floating, got dtype {dtype}")
    if dtype == np.uint8 and activation == "softmax":
        raise TypeError("counts must be floating, got dtype uint8, which is divided by 255")
    if dtype == np.uint8 and not rule[2]:
        raise TypeError("images must be floating, scaled like this model's training images, got dtype uint8")


def _check_floats(rule: np.ndarray, rows: Any) -> None:
    """Raises `ValueError` unless floating rows `[n, ...]`, n > 0, are finite and in the rule's range."""
    if not is_on_host(rows):
        finite, low, high = jax.device_get(_find_range(rows))
        if finite and rule[0] <= low and high <= rule[1]:
            return
        rows = jax.device_get(rows)
    values = np.asarray(rows)
    # In batches: masks of all rows would take a quarter of their memory.
    for start in range(0, len(values), ITEMS_PER_CHUNK):
        check_values(rule, narrow_floats(values[start : start + ITEMS_PER_CHUNK]), start)


@jax.jit
def _find_range(rows: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns whether all values are finite, their minimum and maximum: bool, float32 and float32 `[]`."""
    values = rows.astype(jnp.float32)
    return jnp.isfinite(values).all(), values.min(), values.max()


def narrow_floats(items: Any) -> Any:
    """Converts floating numpy items to float32, overflow to infinity; returns others unchanged."""
    if isinstance(items, jax.Array) or items.dtype == np.uint8 or items.dtype == np.bool_:
        return items
    with np.errstate(over="ignore"):
        return items.astype(np.float32, copy=False)


def to_floats(items: jax.Array) -> jax.Array:
    """Converts items to float32: uint8 is divided by 255, other values are kept."""
    return items.astype(jnp.float32) / 255.0 if items.dtype == jnp.uint8 else items.astype(jnp.float32)
