"""Image shapes of models."""

from collections.abc import Sequence

from jaxhash.core.checks import check_integer

# Height, width and channels.
ImageShape = tuple[int, int, int]


def check_image_shape(image_shape: Sequence[int]) -> ImageShape:
    """Checks `(h, w)` or `(h, w, c)` and returns `(h, w, c)`; c is 1 by default."""
    if not isinstance(image_shape, Sequence) or len(image_shape) not in (2, 3):
        raise ValueError(f"image_shape must be (h, w) or (h, w, c), got {image_shape!r}")
    height, width, depth = (*(check_integer("image_shape", side, 1) for side in image_shape), 1)[:3]
    return height, width, depth
