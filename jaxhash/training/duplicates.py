"""An objective for near duplicates: an image and a changed copy of it are to have nearly the same code."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from jaxhash.models.code_layer import CodeLayer, compute_soft_signs, round_logits
from jaxhash.models.encoder import Encoder
from jaxhash.models.inputs import to_floats
from jaxhash.training.augment import PhotoWarp, Warp
from jaxhash.training.losses import contrast, correlations
from jaxhash.training.objectives import Batch, Objective
from jaxhash.training.positives import Positives


@dataclass(frozen=True)
class FindDuplicates(Objective):
    """Trains codes of images by which changed copies are found: cropped, mirrored, brighter or compressed ones.

    A contrast tells which of the other images in the batch, changed at random, is the item's own copy. All others are
    to have other codes, however similar they look. Nothing is reconstructed, and the decoder stays as it was.

    Attributes:
        warp: what copies may differ by. The default crops little, as a stronger crop makes other photographs alike.
        noise: the standard deviation of what is added to each pixel, as compression does, in [0, 1].
        temperature: of the softmax of codes; lower ones push the nearest other images away.
        decorrelation: the weight of the mean squared off-diagonal correlation of bits.
    """

    warp: Warp = field(
        default_factory=lambda: PhotoWarp(
            crop=(0.85, 1.0), brightness=0.4, contrast=0.3, saturation=0.3, tint=0.1, gray=0.1
        )
    )
    noise: float = 0.03
    temperature: float = 0.1
    decorrelation: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature!r}")
        if not self.noise >= 0:
            raise ValueError(f"noise must be at least 0, got {self.noise!r}")

    def find_positives(self, items: np.ndarray, seed: int) -> Positives | None:
        """Finds nothing: an item's partner is made of itself.

        Raises:
            ValueError: items are no images.
        """
        if items.ndim != 4:
            raise ValueError(f"this objective is for images [n, h, w, c], got items of shape {items.shape[1:]}")
        return None

    def __call__(self, model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer) -> tuple[jax.Array, jax.Array]:
        """The loss of a batch, float32 `[]`, and the bits of its items, changed, float32 `[m, b]`."""
        items, count = to_floats(batch.items), len(batch.items)
        warp_key, noise_key = jax.random.split(key)
        views = self.warp(warp_key, jnp.concatenate([items, items]))
        views = jnp.clip(views + self.noise * jax.random.normal(noise_key, views.shape, jnp.float32), 0, 1)
        logits = layer.normalize(model.code_logits(views.reshape(len(views), *model.input_shape)))
        signs = compute_soft_signs(logits)
        loss = contrast(signs, self.temperature) + self.decorrelation * (correlations(signs) ** 2).mean()
        return loss, round_logits(logits[:count])
