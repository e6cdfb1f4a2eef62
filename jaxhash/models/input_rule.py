"""The input rule of a model: the valid range of item values.

A rule is float32 `[3]`: minimum, maximum, and 1 if uint8 items (divided by 255) are accepted, else 0. It is an array so
that files store it like a weight. It rejects items unlike the training items.

A model stores its rule in the units of its layers: for items shifted and scaled by the model.
"""

from typing import Any

import numpy as np

MAX_FLOAT = float(np.finfo(np.float32).max)
UNIT_RULE = np.array([0.0, 1.0, 1.0], np.float32)
COUNTS_RULE = np.array([0.0, MAX_FLOAT, 0.0], np.float32)


class ItemError(ValueError):
    """Raised if item `row` is outside the range of its model, `low` to `high`."""

    def __init__(self, message: str, row: int, low: float, high: float):
        super().__init__(message)
        self.row, self.low, self.high = row, low, high


def make_untrained_rule(activation: Any) -> np.ndarray:
    """Makes the rule before training: [0, 1] for sigmoid outputs, counts for softmax, else any finite values."""
    if activation == "softmax":
        return COUNTS_RULE
    return UNIT_RULE if activation == "sigmoid" else np.array([-MAX_FLOAT, MAX_FLOAT, 1.0], np.float32)


def make_trained_rule(activation: Any, dtype: np.dtype[Any], low: float, high: float) -> np.ndarray:
    """Makes the rule after training on items of a dtype with values in `[low, high]`.

    The range is widened on both sides by the largest of its length and the magnitudes of its ends. It contains other
    vectors of the same kind, but usually not bytes passed as floats, or items that were not normalized.
    """
    if activation == "softmax":
        return COUNTS_RULE
    if activation == "sigmoid" or dtype in (np.uint8, np.bool_):
        return UNIT_RULE
    span = max(high - low, abs(low), abs(high))
    return _make_rule(low - span, high + span, 0.0)


def scale_rule(rule: np.ndarray, shift: np.ndarray, scale: float) -> np.ndarray:
    """Converts a rule of items to a rule of items shifted by `[...]` and scaled."""
    low, high, takes_bytes = rule.astype(np.float64)
    return _make_rule((low - shift.min()) / scale, (high - shift.max()) / scale, takes_bytes)


def unscale_rule(rule: np.ndarray, shift: np.ndarray, scale: float) -> np.ndarray:
    """Inverts `scale_rule`."""
    low, high, takes_bytes = rule.astype(np.float64)
    return _make_rule(low * scale + shift.min(), high * scale + shift.max(), takes_bytes)


def _make_rule(low: float, high: float, takes_bytes: float) -> np.ndarray:
    return np.array([max(low, -MAX_FLOAT), min(high, MAX_FLOAT), takes_bytes], np.float32)


def check_values(rule: np.ndarray, items: np.ndarray, first: int = 0) -> None:
    """Raises `ValueError` unless float items `[n, ...]` are finite, and `ItemError` unless in the rule's range.

    The message gives the row, counted from `first`.
    """
    low, high, takes_bytes = rule
    finite = np.isfinite(items).all(axis=tuple(range(1, items.ndim)))
    if not finite.all():
        raise ValueError(f"images must be finite, but row {first + int(np.argmin(finite))} holds NaN or infinity")
    if items.size and (items.min() < low or items.max() > high):
        row = int(np.argmax(((items < low) | (items > high)).any(axis=tuple(range(1, items.ndim)))))
        are_bytes = takes_bytes and items.min() >= 0 and 1 < items.max() <= 255
        message = (
            f"images must lie in [{low:g}, {high:g}]{' (or be uint8)' if takes_bytes else ''} for this model, but row "
            f"{first + row} spans {items[row].min()} to {items[row].max()}"
            f"{': divide by 255, or give uint8' if are_bytes else ''}"
        )
        raise ItemError(message, first + row, float(low), float(high))
