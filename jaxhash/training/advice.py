"""Warnings about input that gives worse codes, and about useless bits after training."""

import warnings

import numpy as np

from jaxhash.codes.statistics import bit_statistics
from jaxhash.models.encoder import Encoder
from jaxhash.models.encoding import encode

# Smaller pictures are harder to detect in flat items, and warps gain less on them.
MIN_SIDE = 12
# Correlation of neighboring values: .74 on MNIST, .8 on Fashion-MNIST, about 0 in embeddings.
MIN_CORRELATION = 0.4
# Share of the variance between the first run of a stream and the whole. On MNIST and Fashion-MNIST sorted by label, a
# first run of a tenth gives .3 to .4, one of half .02 to .13; in random order it is below .0001.
MAX_SORTED_SHARE = 0.03
MAX_ITEMS = 1024

# In fewer images, different bits can agree by chance.
MIN_ITEMS_FOR_COPIES = 100


class CodeWarning(UserWarning):
    """Some bits of a trained model are useless: constant, or duplicates of others."""


class QualityWarning(UserWarning):
    """The input is valid, but in a form that gives worse codes."""


def warn_of_lost_quality(items: np.ndarray, warps: bool, stacklevel: int) -> None:
    """Warns about images in a form that gives worse codes.

    Args:
        items: `[s, h, w, c]` or `[s, d]`, a sample.
        warps: whether the objective warps images.
        stacklevel: as for `warnings.warn`, relative to this function.
    """
    reason = _find_reason(items[:MAX_ITEMS], warps)
    if reason:
        warnings.warn(reason, QualityWarning, stacklevel=stacklevel + 1)


def _find_reason(items: np.ndarray, warps: bool) -> str | None:
    if items.ndim == 4:
        if items.shape[1] in (1, 3) and min(items.shape[2:]) >= MIN_SIDE:
            return (
                f"images of shape {items.shape[1:]} are read as [h, w, c], but look like [c, h, w]: move the channels "
                "to the last axis, images.transpose(0, 2, 3, 1)"
            )
        return None
    shape = find_picture_shape(items) if warps else None
    if shape is None:
        return None
    return (
        f"items of {items.shape[1]} values look like flattened pictures of shape {shape}, which are trained without "
        "augmentation; on MNIST this costs .25 of the mean average precision. Give images as "
        f"[n, {', '.join(map(str, shape))}], or use Autoencoder(..., image_shape={shape})"
    )


def find_picture_shape(items: np.ndarray) -> tuple[int, ...] | None:
    """Guesses whether items `[s, d]` are flattened square pictures: returns `(h, h)`, `(h, h, 3)` or None.

    Bytes need only the right number of values; other dtypes also need correlated neighbors.
    """
    for depth in (1, 3):
        side = round((items.shape[1] / depth) ** 0.5)
        if side < MIN_SIDE or side * side * depth != items.shape[1]:
            continue
        if items.dtype == np.uint8 or _correlate_neighbors(items.reshape(len(items), side, side, depth)):
            return (side, side) if depth == 1 else (side, side, depth)
    return None


def _correlate_neighbors(pictures: np.ndarray) -> bool:
    """Returns whether pixels of `[s, h, w, c]` correlate with those to their right and those below."""
    centered = pictures - pictures.mean(axis=0, dtype=np.float32)
    pairs = (centered[:, :, 1:], centered[:, :, :-1]), (centered[:, 1:], centered[:, :-1])
    return all(
        (one * other).sum() > MIN_CORRELATION * np.sqrt((one**2).sum() * (other**2).sum()) for one, other in pairs
    )


def warn_if_sorted(first: np.ndarray, count: int, sample: np.ndarray, stacklevel: int) -> None:
    """Warns if the first run of a stream differs from the whole.

    Args:
        first: mean of the first items, `[...]`.
        count: number of these items.
        sample: a random sample of all items, `[s, ...]`.
        stacklevel: as for `warnings.warn`, relative to this function.
    """
    mean, variance = (getattr(sample, name)(axis=0, dtype=np.float64) for name in ("mean", "var"))
    share = ((first - mean) ** 2).sum() / max(variance.sum(), 1e-30)
    if share > MAX_SORTED_SHARE + 3 / count:  # 1 / count is expected by chance
        warnings.warn(
            f"the stream looks sorted: its first items differ from the whole by {share:.0%} of the variance. "
            "Items are shuffled, and neighbors found, only within a run: provide them in random order",
            QualityWarning,
            stacklevel=stacklevel + 1,
        )


def warn_of_useless_bits(model: Encoder, sample: np.ndarray) -> None:
    """Warns about constant or duplicated bits in the codes of sample items `[s, ...]`."""
    statistics = bit_statistics(encode(model, sample), model.num_bits)
    dead = len(statistics.dead_bits)
    copied = len(statistics.duplicated_bits) if len(sample) >= MIN_ITEMS_FOR_COPIES else 0
    if dead or copied:
        warnings.warn(
            f"of {model.num_bits} bits {dead} are the same for all images and {copied} pairs are duplicates "
            f"({statistics.num_codes} distinct codes for {len(sample)} images): try fewer bits, more or more varied "
            "images, more epochs, or a smaller learning rate",
            CodeWarning,
            stacklevel=3,
        )
