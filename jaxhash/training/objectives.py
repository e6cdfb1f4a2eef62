"""Training objectives: the base class `Objective`, `Reconstruct` and `Retrieve`.

`Reconstruct` is the loss of the source post. `Retrieve` adds a contrastive loss of positive pairs: an item and one of
its neighbors, both augmented. A softmax over the batch pulls the codes of a pair together and pushes others apart.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhash.core.checks import check_integer
from jaxhash.models.autoencoder import check_decoder
from jaxhash.models.code_layer import CodeLayer, compute_soft_signs, round_logits
from jaxhash.models.encoder import Encoder
from jaxhash.models.inputs import to_floats
from jaxhash.training.augment import DefaultWarp, Warp
from jaxhash.training.losses import contrast, correlations, decoder_loss, mean_loss, unexplained_variance
from jaxhash.training.positives import Positives, add_self, find_directions, find_similar, keep_mutual

# Minimum number of coarse bits, unless the code is shorter.
MIN_COARSE_BITS = 14
# Larger absolute correlations of two bits are penalized.
MAX_CORRELATION = 0.9
# Ratio of the standard deviations of fine and coarse logits.
FINE_DEVIATION = 0.25


class Batch(NamedTuple):
    """A training batch: m items, with their positives and features if the objective found any."""

    items: jax.Array  # [m, h, w, c] if they are images, or [m, d], of the dtype given to `fit`
    positives: jax.Array | None = None  # [m, ...], one positive of each item, or None
    features: jax.Array | None = None  # float32 [m, p], of the items, or None


class Objective(ABC):
    """Base class of objectives: the loss that `fit` minimizes, and the positives of each item.

    A subclass must define `__call__`; everything else has a default. The objective is a static argument of the compiled
    epoch and must be hashable. Equal objectives share one compiled program, so use a frozen dataclass.

    `objective(model, batch, key, layer)` computes the loss of a batch. It is traced, and differentiated with respect to
    the model's weights. The `model` is an `Encoder`: its `code_logits` map float32 items `[m, *input_shape]` to logits
    `[m, b]`. If it is an `Autoencoder`, its `output_logits` map float32 bits `[m, b]` to outputs before the activation.
    The `batch` is a `Batch` of m items, and `key` the random key of this step. The `layer` is the `CodeLayer` of this
    epoch: `layer.normalize` standardizes code logits, and `layer.binarize` turns them into bits for the decoder.
    Returns the loss, float32 `[]`, and the bits of the items, 0 or 1, float32 `[m, b]`, for the `History`.

    Attributes:
        needs_decoder: whether only models with a decoder can be trained.
        holds_statistics: whether the last of several epochs fixes the mean and variance of the code logits to the
            statistics of the items. Use False if the loss warps or pairs items, as their logits have others.
        short_bits: number of leading bits that also form a short code, at most the model's bits; or `None`.
        warp: image augmentation, applied by the loss; or `None`.
        num_views: number of views of each image, augmented by `warp` except the first, that train a `PatchEncoder`.

    Methods:
        init_weights(model, items, seed): initializes an untrained model in place. The items are those given to `fit`,
            or a sample of them. By default does nothing.
        find_positives(items, seed): finds the positives and features of items. Called once for an array, and for each
            run of a stream in each epoch. Items are `[n, h, w, c]` if they are images, or `[n, d]`, of the dtype given
            to `fit`; the next run of a stream overwrites them. Returns a `Positives`, or `None`, the default, if the
            loss needs only the items.
        pair_views(features, seed): finds the positives of images with several views from the features of the first
            views, float32 `[n, p]`. By default calls `find_positives`.
        scale_logits(deviations): takes the standard deviations of the code logits after training, float32 `[b]`, and
            returns a positive factor for each, float32 `[b]`, or `None`, the default. Factors leave the bits unchanged
            and scale their weights in `encode_weighted`. Not called for a `PatchEncoder`.

    Example:
        Reconstruction with a penalty on set bits, for sparse codes:

        >>> import dataclasses
        >>> import numpy as np
        >>> import jaxhash as jh
        >>> @dataclasses.dataclass(frozen=True)
        ... class Sparse(jh.training.Objective):
        ...     weight: float = 0.1
        ...
        ...     def __call__(self, model, batch, key, layer):
        ...         loss, bits = jh.training.Reconstruct()(model, batch, key, layer)
        ...         return loss + self.weight * bits.mean(), bits
        >>> images = np.random.default_rng(0).integers(0, 256, (500, 8, 8), dtype=np.uint8)
        >>> model, history = jh.fit(jh.Autoencoder(64, 16, (32,)), images, epochs=2, objective=Sparse())
        >>> len(history.loss)
        2
    """

    needs_decoder: ClassVar[bool] = False
    holds_statistics: ClassVar[bool] = False
    short_bits: int | None = None
    warp: Warp | None = None
    num_views: int = 1

    @abstractmethod
    def __call__(self, model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer) -> tuple[jax.Array, jax.Array]:
        """Computes the loss of a batch, float32 `[]`, and the bits of its items, float32 `[m, b]`."""

    def init_weights(self, model: Encoder, items: np.ndarray, seed: int) -> None:  # noqa: B027
        """Initializes the weights of an untrained model in place."""

    def find_positives(self, items: np.ndarray, seed: int) -> Positives | None:
        """Finds the positives and features of items."""
        return None

    def pair_views(self, features: np.ndarray, seed: int) -> Positives | None:
        """Finds the positives of images with several views."""
        return self.find_positives(features, seed)

    def scale_logits(self, deviations: np.ndarray) -> np.ndarray | None:
        """Returns a factor for each code logit from their standard deviations, or `None`."""
        return None


def _check_short_bits(short_bits: int | None) -> None:
    if short_bits is not None:
        check_integer("short_bits", short_bits, 1)


@dataclass(frozen=True)
class Reconstruct(Objective):
    """Minimizes the reconstruction loss of the outputs.

    Attributes:
        short_bits: number of leading bits that also form a short code, decoded without the others; `None` for no short
            code.
    """

    short_bits: int | None = None

    needs_decoder: ClassVar[bool] = True
    holds_statistics: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_short_bits(self.short_bits)

    def __call__(self, model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer) -> tuple[jax.Array, jax.Array]:
        """Computes the loss of a batch, float32 `[]`, and the bits of its items, float32 `[m, b]`."""
        model = check_decoder(model)
        items = _to_inputs(model, to_floats(batch.items))
        logits = layer.normalize(model.code_logits(items))
        bits = layer.binarize(logits, key)
        loss = mean_loss(model, model.output_logits(bits), items)
        if self.short_bits is not None:
            loss += mean_loss(model, model.output_logits(_keep_first(bits, self.short_bits)), items)
        return loss, round_logits(logits)


@dataclass(frozen=True)
class Retrieve(Objective):
    """Reconstructs items and gives neighbors similar codes.

    The leading coarse bits are trained by a contrastive loss and represent an item's kind. The remaining fine bits
    distinguish similar items: they are trained to explain the variance of an item's features that the coarse bits leave
    unexplained. Features describe more than pixels do (Wei et al. 2022, "Masked feature prediction for self-supervised
    visual pre-training", arXiv:2112.09133). A bit gains only from variance that no other bit explains, so bits do not
    duplicate each other. All bits of a `PatchEncoder` are coarse: with fine ones among 32, the mean average precision
    of the first 1,000 on held-out training images of CIFAR-10 was .375, not .418 (one seed).

    Attributes:
        warp: random augmentation; by default `PhotoWarp` for images of three channels, else `AffineWarp`. Items that
            are not images are unchanged. `None` for no augmentation.
        num_neighbors: number of nearest training items to draw a positive from; only the mutual ones if there are any.
        coarse_share: share of coarse bits; at least 14 bits are coarse, or all bits of a shorter code.
        contrast_weight: weight of the contrastive loss of the coarse bits.
        temperature: of its softmax; lower values spread the codes.
        features_weight: weight of the unexplained share of the features' variance, which trains only the fine bits.
        decorrelation: weight of the squared excess of bit correlations over 0.9.
        short_bits: number of leading bits that also form a short code, with its own contrastive loss; `None` for no
            short code.
        num_views: number of views of each image that train a `PatchEncoder`, the first unwarped.

    Settings were compared on held-out training images of MNIST and Fashion-MNIST together. The defaults are
    compromises: the best value for one data set or measure is worse for another.
    """

    warp: Warp | None = field(default_factory=DefaultWarp)
    num_neighbors: int = 10
    coarse_share: float = 0.7
    contrast_weight: float = 1.0
    temperature: float = 0.25
    features_weight: float = 2.0
    decorrelation: float = 10.0
    short_bits: int | None = None
    num_views: int = 8

    def __post_init__(self) -> None:
        _check_short_bits(self.short_bits)
        check_integer("num_neighbors", self.num_neighbors, 1)
        check_integer("num_views", self.num_views, 1)
        if not 0 < self.coarse_share <= 1:
            raise ValueError(f"coarse_share must be above 0 and at most 1, got {self.coarse_share!r}")

    def find_positives(self, items: np.ndarray, seed: int) -> Positives | None:
        """Finds each item's nearest neighbors and features."""
        return find_similar(items, self.num_neighbors, seed)

    def pair_views(self, features: np.ndarray, seed: int) -> Positives:
        """Finds mutual neighbors of images with several views. Half of the time another view is the positive.

        Args:
            features: float32 `[n, p]`, of the unwarped images.
            seed: the seed of `fit`.
        """
        return Positives(add_self(keep_mutual(find_directions(features, self.num_neighbors, seed))))

    def scale_logits(self, deviations: np.ndarray) -> np.ndarray:
        """Returns powers of two that scale fine bits to about a quarter of the coarse bits' weight: float32 `[b]`.

        A weighted search then orders by kind first, and within a kind by the fine bits. On held-out training images,
        with 32 bits and two seeds, mean average precision rises from .938 to .946 (MNIST) and from .628 to .638
        (Fashion-MNIST); votes are unchanged.
        """
        num_coarse = self._num_coarse(len(deviations))
        target = FINE_DEVIATION * deviations[:num_coarse].mean()
        factors = np.ones(len(deviations), np.float32)
        fine = (np.arange(len(deviations)) >= num_coarse) & (deviations > 0) & (target > 0)  # dead bits keep factor 1
        factors[fine] = 2.0 ** np.round(np.log2(target / deviations[fine]))
        return factors

    def __call__(self, model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer) -> tuple[jax.Array, jax.Array]:
        """Computes the loss of a batch with positives, float32 `[]`, and the bits of its items, float32 `[m, b]`."""
        items = to_floats(batch.items)
        views = jnp.concatenate([items, to_floats(jnp.asarray(batch.positives))])
        if self.warp is not None:
            views = self.warp(key, views)
        logits = layer.normalize(model.code_logits(_to_inputs(model, views)))
        bits = layer.binarize(logits[: len(items)], jax.random.fold_in(key, 1))
        loss = decoder_loss(model, bits, _to_inputs(model, items))
        if batch.features is None:
            loss += replace(self, coarse_share=1.0)._contrast_loss(compute_soft_signs(logits))
        else:
            loss += self._contrast_loss(compute_soft_signs(logits)) + self._features_loss(bits, batch.features)
        return loss, round_logits(logits[: len(items)])

    def _num_coarse(self, num_bits: int) -> int:
        return min(num_bits, max(MIN_COARSE_BITS, round(self.coarse_share * num_bits)))

    def _contrast_loss(self, signs: jax.Array) -> jax.Array:
        """Computes contrast and decorrelation of soft signs `[2 m, b]`: m items, then their positives."""
        num_bits = signs.shape[1]
        num_coarse = self._num_coarse(num_bits)
        correlation = correlations(signs)
        excess = jax.nn.relu(jnp.abs(correlation) - MAX_CORRELATION)
        loss = self.contrast_weight * contrast(signs[:, :num_coarse], self.temperature)
        loss += self.decorrelation * (excess**2).sum() / num_bits
        if self.short_bits is not None:
            loss += self.contrast_weight * contrast(signs[:, : self.short_bits], self.temperature)
        return loss

    def _features_loss(self, bits: jax.Array, features: jax.Array) -> jax.Array:
        """Computes the variance of features `[m, p]` unexplained by bits `[m, b]`; only fine bits have a gradient."""
        num_coarse = self._num_coarse(bits.shape[1])
        if num_coarse == bits.shape[1]:
            return jnp.float32(0)
        coarse, fine = jax.lax.stop_gradient(bits[:, :num_coarse]), bits[:, num_coarse:]
        return self.features_weight * unexplained_variance(2 * jnp.concatenate([coarse, fine], axis=1) - 1, features)


def _keep_first(bits: jax.Array, count: int) -> jax.Array:
    """Replaces all but the first bits of `[n, b]` by one half, which carries no information."""
    return jnp.where(jnp.arange(bits.shape[1])[None] < count, bits, 0.5)


def _to_inputs(model: Encoder, items: jax.Array) -> jax.Array:
    return items.reshape(len(items), *model.input_shape)
