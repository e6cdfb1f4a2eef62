"""An encoder of photographs: features from a dictionary of patches, then trained layers.

The features are the fixed first layer of the model, so encoding is one program from bytes to bits. Training computes
the features once and only updates the layers after them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxhash.core.checks import check_integer
from jaxhash.models.atoms import learn_dictionary
from jaxhash.models.dictionary import Dictionary, compute_components, count_pooled, count_values
from jaxhash.models.encoder import DenseEncoder, Encoder
from jaxhash.models.image_shape import ImageShape, check_image_shape


class PatchEncoder(Encoder):
    """An encoder of images by features of their patches, without a decoder. Best for photographs.

    `fit` first learns a dictionary of patches from the images (`jaxhash.models.dictionary`). It then computes the
    features of several augmented views of each image once, and trains the layers after them.

    Args:
        image_shape: `(h, w)` or `(h, w, c)`; c is 1 by default. A side of about 32 pixels is enough; time grows with
            the number of pixels.
        num_bits: number of bits of a code, `b`.
        hidden_dims: widths of the dense layers between the features and the code layer.
        num_atoms: number of patches in the dictionary, `a`.
        num_components: maximum number of principal components of the features, `p`.
        rngs: random keys for the initial weights; by default `nnx.Rngs(0)`.
    """

    image_shape: ImageShape
    output_activation = "sigmoid"  # there are no outputs; selects items in [0, 1] or bytes
    makes_views = True

    def __init__(
        self,
        image_shape: Sequence[int],
        num_bits: int,
        hidden_dims: Sequence[int] = (1024, 512),
        *,
        num_atoms: int = 400,
        num_components: int = 512,
        rngs: nnx.Rngs | None = None,
    ):
        self.image_shape = check_image_shape(image_shape)
        self.num_atoms = check_integer("num_atoms", num_atoms, 1)
        values, pooled = count_values(self.image_shape), count_pooled(self.image_shape, self.num_atoms)
        self.num_components = min(check_integer("num_components", num_components, 1), pooled)
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.network = DenseEncoder(self.num_components, num_bits, hidden_dims, rngs=rngs)
        self.num_bits, self.hidden_dims = self.network.num_bits, self.network.hidden_dims
        self._init_input_statistics()
        self.atoms = nnx.BatchStat(jnp.zeros((values, self.num_atoms), jnp.float32))
        self.offsets = nnx.BatchStat(jnp.zeros(self.num_atoms, jnp.float32))
        self.pooled_mean = nnx.BatchStat(jnp.zeros(pooled, jnp.float32))
        self.components = nnx.BatchStat(jnp.zeros((pooled, self.num_components), jnp.float32))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one item, `(h, w, c)`."""
        return self.image_shape

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments, except `rngs`."""
        return {
            "image_shape": self.image_shape,
            "num_bits": self.num_bits,
            "hidden_dims": self.hidden_dims,
            "num_atoms": self.num_atoms,
            "num_components": self.num_components,
        }

    @property
    def fixed_layers(self) -> list[tuple[str, tuple[int, ...], int]]:
        """The dictionary and the principal components."""
        values, pooled = self.atoms.shape[0], self.components.shape[0]
        return [
            ("atoms", (pooled,), (values + 1) * self.num_atoms),
            ("components", (self.num_components,), (self.num_components + 1) * pooled),
        ]

    @property
    def trained_part(self) -> DenseEncoder:
        """The layers after the features."""
        return self.network

    def replace_trained_part(self, part: DenseEncoder) -> "PatchEncoder":
        """Returns a copy of the model with other layers after the features."""
        model = nnx.clone(self)
        model.network = part
        return model

    @property
    def dictionary(self) -> Dictionary:
        """The dictionary; all zeros before training."""
        return Dictionary(self.atoms[...], self.offsets[...], self.pooled_mean[...], self.components[...])

    def learn_features(self, items: np.ndarray, seed: int) -> None:
        """Learns the dictionary from images `[n, h, w, c]`, unless already learned."""
        if self.atoms[...].any():
            return
        variables = (self.atoms, self.offsets, self.pooled_mean, self.components)
        learned = learn_dictionary(items, self.num_atoms, self.num_components, seed)
        for variable, array in zip(variables, learned, strict=True):
            variable[...] = array

    def compute_features(self, items: jax.Array) -> jax.Array:
        """Computes the features of float32 images `[n, h, w, c]`: float32 `[n, num_components]`."""
        return compute_components(self.dictionary, items)

    def code_logits(self, items: jax.Array) -> jax.Array:
        """Computes the code layer's outputs before normalization, `[n, b]`, of float32 items `[n, h, w, c]`."""
        return self.network.code_logits(self.compute_features(items))
