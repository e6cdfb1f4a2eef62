"""The input rule of a model: what values its items may have, so that it is never fed what it was not trained on.

A rule is the least and the greatest value of an item, and whether items may be bytes, which are divided by 255: one
array, float32 [3], so that files hold it like a weight.
"""

from typing import Any

import numpy as np

LIMIT = float(np.finfo(np.float32).max)
BYTES = np.array([0.0, 1.0, 1.0], np.float32)
COUNTS = np.array([0.0, LIMIT, 0.0], np.float32)


def make_untrained_rule(activation: Any) -> np.ndarray:
    """The rule before training: sigmoid outputs ask for values in [0, 1], softmax ones for counts, others for none."""
    if activation == "softmax":
        return COUNTS
    return BYTES if activation == "sigmoid" else np.array([-LIMIT, LIMIT, 1.0], np.float32)


def make_trained_rule(activation: Any, dtype: np.dtype[Any], low: float, high: float) -> np.ndarray:
    """The rule after training on items whose values lie between these two.

    Values may lie outside theirs by as much as they span: other vectors of the kind are, bytes taken for floats or a
    forgotten normalisation mostly are not.
    """
    if activation == "softmax":
        return COUNTS
    if activation == "sigmoid" or dtype in (np.uint8, np.bool_):
        return BYTES
    span = max(high - low, abs(low), abs(high))
    return np.array([max(low - span, -LIMIT), min(high + span, LIMIT), 0.0], np.float32)


def check_values(rule: np.ndarray, items: np.ndarray, first: int) -> None:
    """Raises `ValueError` unless float items `[n, ...]` are finite and fit the rule.

    The message names the row; `first` is the number of the first.
    """
    low, high, takes_bytes = rule
    finite = np.isfinite(items).all(axis=tuple(range(1, items.ndim)))
    if not finite.all():
        raise ValueError(f"images must be finite, but row {first + int(np.argmin(finite))} holds NaN or infinity")
    if items.size and (items.min() < low or items.max() > high):
        row = int(np.argmax(((items < low) | (items > high)).any(axis=tuple(range(1, items.ndim)))))
        raise ValueError(
            f"images must lie in [{low:g}, {high:g}]{' (or be uint8)' if takes_bytes else ''} for this model, but row "
            f"{first + row} spans {items[row].min()} to {items[row].max()}"
        )
