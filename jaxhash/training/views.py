"""Training data of models with views: features of several augmented views of each image, computed once.

Features take far longer to compute than a training step. So a few views of each image are kept as float16 in a
temporary file, and each step draws one. With 512 components a view takes 1 KiB.
"""

import tempfile
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxhash.core.batching import entry_point, pad_rows
from jaxhash.models.encoder import Encoder
from jaxhash.models.inputs import to_floats
from jaxhash.training.augment import Warp
from jaxhash.training.data import ITEMS_IN_SAMPLE, Run, TrainingData, check_positives, choose_rows, send_if_small
from jaxhash.training.objectives import Objective, Reconstruct

IMAGES_PER_CHUNK = 256


class ViewData(TrainingData):
    """The views of all images in one run, as input vectors of the trained layers.

    The model's features are learned from a sample of the images, unless already learned. The objective defines the
    number of views, their augmentation and the positives.
    """

    def __init__(
        self,
        model: Encoder,
        images: ArrayLike | Iterable[ArrayLike],
        objective: Objective,
        batch_size: int,
        seed: int,
    ):
        source = TrainingData(model, images, Reconstruct(), batch_size, seed)
        model.learn_features(source.sample, seed)
        views = store_views(model, source, objective.num_views if objective.warp else 1, objective.warp, seed)
        plain = views[:, 0].astype(np.float32)
        find = objective.pair_views if views.shape[1] > 1 else objective.find_positives
        run = Run(views.reshape(-1, views.shape[2]), check_positives(find(plain, seed), len(views)), views.shape[1])
        run = send_if_small(run)
        self._start_epoch = lambda: iter([run])
        self.count = self.num_items = len(views)
        self.low, self.high = float(plain.min()), float(plain.max())
        self.sample_rows = choose_rows(views[:, 0])
        positions = np.random.default_rng(seed).permutation(len(plain))[:ITEMS_IN_SAMPLE]
        self._kept = plain[np.sort(positions)]


def store_views(
    model: Encoder, source: TrainingData, num_views: int, warp: Warp | None, seed: int
) -> np.memmap[Any, Any]:
    """Computes the features of views of all images, the first unwarped: float16 `[n, num_views, p]`, on disk."""
    count, key = 0, jax.random.key(seed)
    with tempfile.TemporaryFile() as file:
        for items, *_ in source.runs():
            for start in range(0, len(items), IMAGES_PER_CHUNK):
                batch = np.asarray(items[start : start + IMAGES_PER_CHUNK])
                rows, batch_key = pad_rows(batch, IMAGES_PER_CHUNK), jax.random.fold_in(key, count)
                features = _compiled_views(model, rows, batch_key, num_views=num_views, warp=warp)
                file.write(np.asarray(features)[: len(batch)].tobytes())
                count += len(batch)
        file.flush()
        # The mapping keeps the file alive.
        return np.memmap(file, np.float16, "r", shape=(count, num_views, *model.trained_part.input_shape))


def _compute_views(model: Encoder, items: jax.Array, key: jax.Array, *, num_views: int, warp: Warp | None) -> jax.Array:
    """Computes the features of views of items `[m, h, w, c]`: float16 `[m, num_views, p]`."""
    images = to_floats(items)

    def compute(number: jax.Array) -> jax.Array:
        if warp is None:
            return model.compute_features(images)
        warped = warp(jax.random.fold_in(key, number), images)
        return model.compute_features(jnp.where(number == 0, images, warped))

    return jnp.moveaxis(lax.map(compute, jnp.arange(num_views)), 0, 1).astype(jnp.float16)


_compiled_views = entry_point(_compute_views, "num_views", "warp")
