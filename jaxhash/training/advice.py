"""Warnings of training that works but gives worse codes than it could, and of bits that turned out useless."""

import warnings

import numpy as np

from jaxhash.codes.statistics import bit_statistics
from jaxhash.models.encoder import Encoder
from jaxhash.models.encoding import encode

# Smaller pictures are told from other vectors less surely, and warps gain less on them.
MIN_SIDE = 12
# Of neighbouring pixels: .74 on MNIST, .8 on Fashion-MNIST. Of neighbouring values of embeddings: about 0.
MIN_CORRELATION = 0.4
# The share of the variance that lies between the first run of a stream and all of it. Of MNIST or Fashion-MNIST sorted
# by label, a first run of a tenth has .3 to .4, one of half .02 to .13; in random order it is below .0001.
MAX_SORTED_SHARE = 0.03
ITEMS_TO_LOOK_AT = 1024

# Of fewer images, different bits may agree by chance.
ITEMS_TO_TELL_COPIES = 100


class CodeWarning(UserWarning):
    """Some bits of a trained model are useless: constant, or copies of others."""


class QualityWarning(UserWarning):
    """Training works, but a small change of what it is given would make better codes."""


def warn_of_lost_quality(items: np.ndarray, warps: bool, stacklevel: int) -> None:
    """Warns of images in a form that training makes less of.

    Args:
        items: `[s, h, w, c]` or `[s, d]`, a sample.
        warps: whether the objective would warp images.
        stacklevel: as for `warnings.warn`, seen from this function.
    """
    reason = _find_reason(items[:ITEMS_TO_LOOK_AT], warps)
    if reason:
        warnings.warn(reason, QualityWarning, stacklevel=stacklevel + 1)


def _find_reason(items: np.ndarray, warps: bool) -> str | None:
    if items.ndim == 4:
        if items.shape[1] in (1, 3) and min(items.shape[2:]) >= MIN_SIDE:
            return (
                f"images of shape {items.shape[1:]} are taken as [h, w, c], but look like [c, h, w]: move the channels "
                "to the last axis, images.transpose(0, 2, 3, 1)"
            )
        return None
    shape = find_picture_shape(items) if warps else None
    if shape is None:
        return None
    return (
        f"items of {items.shape[1]} values look like pictures of shape {shape}, laid flat. Training warps no flat "
        "items, which costs much: on MNIST .25 of the mean average precision. Give images as "
        f"[n, {', '.join(map(str, shape))}], or say Autoencoder(..., image_shape={shape})"
    )


def find_picture_shape(items: np.ndarray) -> tuple[int, ...] | None:
    """Returns the shape of the square pictures that items `[s, d]` seem to be, `(h, h)` or `(h, h, 3)`, or None.

    Bytes of a fitting number are taken as pictures, other values if neighbours on the grid are alike.
    """
    for depth in (1, 3):
        side = round((items.shape[1] / depth) ** 0.5)
        if side < MIN_SIDE or side * side * depth != items.shape[1]:
            continue
        if items.dtype == np.uint8 or _correlate_neighbors(items.reshape(len(items), side, side, depth)):
            return (side, side) if depth == 1 else (side, side, depth)
    return None


def _correlate_neighbors(pictures: np.ndarray) -> bool:
    """Returns whether pixels resemble the ones to their right and the ones below, over `[s, h, w, c]`."""
    centered = pictures - pictures.mean(axis=0, dtype=np.float32)
    pairs = (centered[:, :, 1:], centered[:, :, :-1]), (centered[:, 1:], centered[:, :-1])
    return all(
        (one * other).sum() > MIN_CORRELATION * np.sqrt((one**2).sum() * (other**2).sum()) for one, other in pairs
    )


def warn_if_sorted(first: np.ndarray, count: int, sample: np.ndarray, stacklevel: int) -> None:
    """Warns if the first run of a stream differs from all of it.

    Args:
        first: the mean of the first items, `[...]`.
        count: how many they are.
        sample: a random sample of all items, `[s, ...]`.
        stacklevel: as for `warnings.warn`, seen from this function.
    """
    mean, variance = (getattr(sample, name)(axis=0, dtype=np.float64) for name in ("mean", "var"))
    share = ((first - mean) ** 2).sum() / max(variance.sum(), 1e-30)
    if share > MAX_SORTED_SHARE + 3 / count:  # 1 / count is due to chance
        warnings.warn(
            f"the stream seems to be sorted: its first items differ from all of them by {share:.0%} of the variance. "
            "Items are shuffled, and neighbours found, within a run alone: bring them in random order",
            QualityWarning,
            stacklevel=stacklevel + 1,
        )


def warn_of_useless_bits(model: Encoder, sample: np.ndarray) -> None:
    """Warns of bits that are constant or copied in the codes of sample items `[s, ...]`."""
    statistics = bit_statistics(encode(model, sample), model.num_bits)
    dead = len(statistics.dead_bits)
    copied = len(statistics.duplicated_bits) if len(sample) >= ITEMS_TO_TELL_COPIES else 0
    if dead or copied:
        warnings.warn(
            f"of {model.num_bits} bits {dead} are the same for all images and {copied} pairs are copies of each other "
            f"({statistics.num_codes} distinct codes for {len(sample)} images): try fewer bits, more or more varied "
            "images, more epochs or a smaller learning rate",
            CodeWarning,
            stacklevel=3,
        )
