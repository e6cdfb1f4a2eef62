"""`Embedded`: a user-supplied feature extractor combined with a model of its vectors."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhash.core.checks import check_embedded, check_integer, dtype_of, is_traced
from jaxhash.models.encoder import Encoder


@partial(jax.tree_util.register_dataclass, data_fields=["model"], meta_fields=["embed", "batch_size"])
@dataclass(frozen=True, eq=False)
class Embedded:
    """A model of vectors, combined with a function that computes these vectors from images.

    `encode`, `encode_weighted` and `retrieve` accept it as a model of images. Inside `jit`, a traceable function such
    as a Flax network becomes part of the program. Otherwise the function runs eagerly, batch by batch. Files contain
    only the model: save `model`, and wrap it in `Embedded` again after loading.

    Attributes:
        embed: maps images, uint8 `[n, h, w, 3]`, to vectors, floating `[n, d]`: numpy or JAX arrays, or anything that
            numpy converts, such as PyTorch tensors on the CPU.
        model: a model of vectors `[d]`.
        batch_size: maximum number of images per call of `embed`.

    Example:
        >>> import numpy as np
        >>> import jaxhash as jh
        >>> photos = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
        >>> def mean_colors(images):
        ...     return images.mean((1, 2))
        >>> vectors = mean_colors(photos)
        >>> model, _ = jh.fit(jh.Autoencoder(3, 4, (), output_activation="linear"), vectors, epochs=1)
        >>> retriever = jh.Retriever(jh.Embedded(mean_colors, model), jh.build_index(jh.encode(model, vectors), 4))
        >>> jh.retrieve(retriever, photos[:2], k=5).ids.shape
        (2, 5)
    """

    embed: Callable[[Any], Any]
    model: Encoder
    batch_size: int = 64

    def __post_init__(self) -> None:
        if not callable(self.embed):
            raise TypeError(f"embed must be a function from images to vectors, got {type(self.embed).__name__}")
        check_integer("batch_size", self.batch_size, 1)
        # JAX unflattens dataclasses with placeholders as well.
        if isinstance(self.model, Encoder) and len(self.model.input_shape) != 1:
            raise ValueError(f"model must be one of vectors [d], got a model of items {self.model.input_shape}")

    @property
    def num_bits(self) -> int:
        """Number of bits of a code."""
        return self.model.num_bits

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of a vector, `(d,)`."""
        return self.model.input_shape


def embed_images(model: Any, images: ArrayLike) -> tuple[Any, ArrayLike]:
    """Embeds the images of an `Embedded`: returns its model and the vectors. Other models and images are unchanged.

    Raises:
        ValueError: images are not `[..., h, w, 3]`, or `embed` does not return vectors that fit the model.
        TypeError: images are not uint8.
    """
    if not isinstance(model, Embedded):
        return model, images
    shape = np.shape(images)
    if len(shape) < 3 or shape[-1] != 3:
        raise ValueError(f"images must have shape [..., h, w, 3] to be embedded, got {shape}")
    if dtype_of(images) != np.uint8:
        raise TypeError(f"images must be uint8 (0 to 255) to be embedded, got dtype {dtype_of(images)}")
    count, width = math.prod(shape[:-3]), model.model.input_shape[0]
    rows = (images if isinstance(images, jax.Array) else np.asarray(images)).reshape(count, *shape[-3:])
    if is_traced(model, images):
        return model.model, jnp.asarray(model.embed(rows)).reshape(*shape[:-3], width)
    vectors = np.empty((count, width), np.float32)
    for start in range(0, count, model.batch_size):
        batch = rows[start : start + model.batch_size]
        vectors[start : start + len(batch)] = check_embedded("embed", model.embed(batch), len(batch), width)
    return model.model, vectors.reshape(*shape[:-3], width)
