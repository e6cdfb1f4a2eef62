"""An encoder of photographs: features by a dictionary of patches, and trained layers above them.

The features are the fixed first layer of the model. So it goes from bytes to bits in one program, as every model does,
while training, which computes the features once, sees the layers above them alone.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxhash.core.checks import check_integer, check_num_bits
from jaxhash.models.autoencoder import Autoencoder, make_dense_layers
from jaxhash.models.dictionary import Dictionary, compute_components, count_pooled, count_values
from jaxhash.models.image_shape import check_image_shape, takes_shape


class DenseEncoder(Autoencoder):
    """Dense layers and a code layer without a decoder: what is trained of a `PatchEncoder`."""

    def __init__(self, input_dim: int, num_bits: int, hidden_dims: Sequence[int], *, rngs: nnx.Rngs):
        self.input_dim = check_integer("input_dim", input_dim, 1)
        self.num_bits = check_num_bits(num_bits)
        self.hidden_dims = tuple(check_integer("hidden_dims", width, 1) for width in hidden_dims)
        self.output_activation = "linear"
        self.encoder = nnx.Sequential(*make_dense_layers((self.input_dim, *self.hidden_dims, self.num_bits), rngs))
        self.decoder = nnx.Sequential()
        self._init_statistics()

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make such a model."""
        return {"input_dim": self.input_dim, "num_bits": self.num_bits, "hidden_dims": self.hidden_dims}

    @property
    def layer_shapes(self) -> list[tuple[int, ...]]:
        """The shape of one item after each layer."""
        return [(width,) for width in (*self.hidden_dims, self.num_bits)]

    @property
    def has_weights(self) -> bool:
        """Whether the model has been trained: training starts by measuring the scale of its items."""
        return self.is_scaled

    def init_output_bias(self, mean: np.ndarray) -> None:
        """Does nothing: there are no outputs."""

    def output_logits(self, bits: jax.Array) -> jax.Array:
        """Raises `TypeError`: there is no decoder."""
        raise TypeError("this model has no decoder: its codes can be searched, but not turned into images")


class PatchEncoder(Autoencoder):
    """An encoder of images by their patches, without a decoder. Best for photographs.

    `fit` first learns a dictionary of patches from the images (`jaxhash.models.dictionary`). Then it computes the
    features of several warped views of each image once, and trains the layers above them.

    Args:
        image_shape: `(h, w)` or `(h, w, c)`; c is 1 by default. About 32 pixels a side are enough; time grows with
            their number.
        num_bits: the number of bits of a code, `b`.
        hidden_dims: widths of the dense layers between the features and the code layer.
        num_atoms: the number of patches in the dictionary, `a`.
        num_components: the number of principal components kept of the features, `p`, if there are so many.
        rngs: random keys for the initial weights; by default `nnx.Rngs(0)`.
    """

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
        self.network: Autoencoder = DenseEncoder(
            self.num_components, num_bits, hidden_dims, rngs=nnx.Rngs(0) if rngs is None else rngs
        )
        self.num_bits, self.hidden_dims = self.network.num_bits, self.network.hidden_dims
        self.output_activation = "sigmoid"  # no outputs, but items as for these: bytes, or floats in [0, 1]
        self._init_input_statistics()
        self.atoms = nnx.BatchStat(jnp.zeros((values, self.num_atoms), jnp.float32))
        self.offsets = nnx.BatchStat(jnp.zeros(self.num_atoms, jnp.float32))
        self.pooled_mean = nnx.BatchStat(jnp.zeros(pooled, jnp.float32))
        self.components = nnx.BatchStat(jnp.zeros((pooled, self.num_components), jnp.float32))

    @property
    def encoder(self) -> nnx.Sequential:  # type: ignore[override]
        """The layers that are trained."""
        return self.network.encoder

    @property
    def decoder(self) -> nnx.Sequential:  # type: ignore[override]
        """No layers."""
        return self.network.decoder

    @property
    def logit_mean(self) -> Any:  # type: ignore[override]
        """The thresholds of the bits, float32 `[b]`."""
        return self.network.logit_mean

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one item, `(h, w, c)`."""
        return self.image_shape

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether an item may have this shape: `(h, w, c)`, `(h, w)` if c is 1, or flat."""
        return takes_shape(self.image_shape, shape)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make such a model."""
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
    def layer_shapes(self) -> list[tuple[int, ...]]:
        """The shape of one item after each layer that is trained."""
        return self.network.layer_shapes

    @property
    def dictionary(self) -> Dictionary:
        """The dictionary, all zeros before training."""
        return Dictionary(self.atoms[...], self.offsets[...], self.pooled_mean[...], self.components[...])

    def set_dictionary(self, dictionary: Dictionary) -> None:
        """Sets the dictionary."""
        variables = (self.atoms, self.offsets, self.pooled_mean, self.components)
        for variable, array in zip(variables, dictionary, strict=True):
            variable[...] = array

    @property
    def has_dictionary(self) -> bool:
        """Whether a dictionary has been learned."""
        return bool(self.atoms[...].any())

    def code_logits(self, items: jax.Array) -> jax.Array:
        """Computes the code layer's outputs before normalisation, `[n, b]`, of float32 items `[n, h, w, c]`."""
        return self.network.code_logits(compute_components(self.dictionary, items))

    def output_logits(self, bits: jax.Array) -> jax.Array:
        """Raises `TypeError`: there is no decoder."""
        return self.network.output_logits(bits)
