"""An objective for near duplicates: an image and its changed copies get nearly the same code."""

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
    """Trains image codes that find changed copies: cropped, mirrored, brighter or compressed ones.

    A contrastive loss (InfoNCE) identifies the item's copy among the augmented images of the batch. All others get
    other codes, even if they look similar. Nothing is reconstructed, and the decoder is unchanged.

    Attributes:
        warp: makes the copies. The default crops little: strong crops make different photographs alike.
        noise: standard deviation of the noise added to pixels in [0, 1], which stands for compression.
        temperature: of the softmax over codes; lower values separate the most similar other images more.
        decorrelation: weight of the mean squared off-diagonal bit correlation.
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
        """Returns None: an item's positive is its own augmented copy.

        Raises:
            ValueError: items are not images.
        """
        if items.ndim != 4:
            raise ValueError(f"this objective is for images [n, h, w, c], got items of shape {items.shape[1:]}")
        return None

    def __call__(self, model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer) -> tuple[jax.Array, jax.Array]:
        """Computes the loss, float32 `[]`, and the bits of the augmented items, float32 `[m, b]`."""
        items, count = to_floats(batch.items), len(batch.items)
        warp_key, noise_key = jax.random.split(key)
        views = self.warp(warp_key, jnp.concatenate([items, items]))
        views = jnp.clip(views + self.noise * jax.random.normal(noise_key, views.shape, jnp.float32), 0, 1)
        logits = layer.normalize(model.code_logits(views.reshape(len(views), *model.input_shape)))
        signs = compute_soft_signs(logits)
        loss = contrast(signs, self.temperature) + self.decorrelation * (correlations(signs) ** 2).mean()
        return loss, round_logits(logits[:count])
