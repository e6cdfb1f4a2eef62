"""The option `--embedder`: a function of the user's that makes vectors of images.

A file of a collection holds the function's name, to compare it. Only the name on the command line is ever imported.
"""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from jaxhash.core.checks import check_embedded

SIDE = 224


class Embedding(NamedTuple):
    """By what images became vectors."""

    name: str  # package.module:function
    side: int  # of the squares that images are stretched to, in pixels


class Embedder:
    """A function that makes vectors of images.

    Attributes:
        embedding: its name, and the side of the images it is given.
        width: the length of its vectors; `None` until that is known.
    """

    def __init__(self, embedding: Embedding, width: int | None = None):
        """Imports the function; raises `ValueError` unless that works."""
        self.embedding, self.width = embedding, width
        self._function = import_function(embedding.name)

    def __call__(self, pixels: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
        """Makes vectors, float32 `[m, d]`, of images, uint8 `[m, side, side, 3]`, called by these names in errors.

        Raises:
            ValueError: the function fails, or gives something else or vectors of another length.
        """
        name = self.embedding.name
        try:
            vectors = self._function(pixels)
        except Exception as error:
            message = (
                f"--embedder {name} failed on uint8 images of shape {pixels.shape}: {type(error).__name__}: {error}"
            )
            raise ValueError(message) from error
        vectors = check_embedded(f"--embedder {name}", vectors, len(pixels), labels=names)
        self.check_width(vectors.shape[1])
        return vectors

    def check_width(self, *widths: int) -> None:
        """Raises `ValueError` unless these are the length of all vectors so far."""
        for width in widths:
            self.width = self.width or width
            if width != self.width:
                raise ValueError(f"--embedder {self.embedding.name}: vectors of {width} values, not of {self.width}")


def import_function(name: str) -> Callable[[np.ndarray], Any]:
    """Imports `package.module:function`, also from the working folder."""
    module, _, path = name.partition(":")
    if not module or not path:
        raise ValueError(f"--embedder must be package.module:function, got {name!r}")
    if os.getcwd() not in sys.path:  # an installed command does not look there  # noqa: PTH109
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        function = attrgetter(path)(import_module(module))
    except Exception as error:
        raise ValueError(f"--embedder {name} can't be imported: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ValueError(f"--embedder {name} must be a function, got {type(function).__name__}")
    return function


def check_embedding(path: str, built_by: Embedding | None, name: str | None) -> None:
    """Raises `ValueError` unless the embedder asked for is the one a file was built by."""
    known = None if built_by is None else built_by.name
    if known == name:
        return
    if known is None:
        raise ValueError(f"{path} was built without --embedder, from the pixels of images or from vectors")
    asked = "give it again, as a file never makes code run" if name is None else f"not by {name}"
    raise ValueError(f"{path} was built by --embedder {known}: {asked}")
