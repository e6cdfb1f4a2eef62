"""The shapes of images that a model is made for, and takes."""

from collections.abc import Sequence

from jaxhash.core.checks import check_integer

# Height, width and channels.
ImageShape = tuple[int, int, int]


def check_image_shape(image_shape: Sequence[int]) -> ImageShape:
    """Returns `(h, w, c)` of `(h, w)` or `(h, w, c)`, c being 1 by default."""
    if not isinstance(image_shape, Sequence) or len(image_shape) not in (2, 3):
        raise ValueError(f"image_shape must be (h, w) or (h, w, c), got {image_shape!r}")
    height, width, depth = (*(check_integer("image_shape", side, 1) for side in image_shape), 1)[:3]
    return height, width, depth


def takes_shape(image_shape: ImageShape, shape: tuple[int, ...]) -> bool:
    """Whether an item may have a shape: `(h, w, c)`, `(h, w)` if c is 1, or flat."""
    height, width, depth = image_shape
    return shape in (image_shape, (height * width * depth,)) or (*shape, 1) == image_shape
