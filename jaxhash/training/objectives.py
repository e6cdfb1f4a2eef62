"""Objectives of training: what `fit` minimises.

`Reconstruct` is the source post's loss. `Retrieve` adds a contrast between an item and one of its neighbours, both
changed at random: a softmax over the batch pulls the codes of such a pair together and pushes all others apart. Other
objectives inherit from `Objective`.
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

# Bits that tell kinds of items apart, at least, if there are so many.
MIN_COARSE_BITS = 14
# Two bits count as copies above this correlation, regardless of sign.
COPIES = 0.9
# The deviation of the logits of fine bits, over that of the coarse ones' logits.
FINE_DEVIATION = 0.25


class Batch(NamedTuple):
    """What an objective is given in a step: m items, and what it has found beside them."""

    items: jax.Array  # [m, h, w, c] if they are images, or [m, d], of the dtype given to `fit`
    positives: jax.Array | None = None  # [m, ...], for each item one of its positives; None if there are none
    features: jax.Array | None = None  # float32 [m, p], of the items


class Objective(ABC):
    """What `fit` minimises: a loss, and the items it compares each item with. The base class of all objectives.

    An objective of your own inherits from this class and has a `__call__`; all else has a default. It is a static
    argument of the compiled epoch and must be hashable: equal objectives share one compiled program, so a frozen
    dataclass serves best.

    `objective(model, batch, key, layer)` computes the loss of a batch; traced, and differentiated by the model's
    weights. The `model` is an `Encoder`: its `code_logits` map float32 items `[m, *input_shape]` to logits `[m, b]`. If
    it is an `Autoencoder`, its `output_logits` map bits float32 `[m, b]` to outputs before their activation. The
    `batch` is a `Batch` of m items, the `key` a random key of this step. The `layer` is the `CodeLayer` of this epoch:
    `layer.normalize` standardises code logits, and `layer.binarize` makes of them what the decoder is given. Returned
    are the loss, float32 `[]`, and the bits of the items, 0 or 1, float32 `[m, b]`, for the `History`.

    Attributes:
        needs_decoder: whether only models with a decoder can be trained.
        holds_statistics: whether the mean and variance of the code logits are fixed in the last of several epochs, to
            those of the items. False suits a loss of warped or paired items, whose logits have others.
        short_bits: how many of the first bits form a code of their own, at most the model's bits; or `None`.
        warp: what changes images at random in training (the loss applies it); or `None`.
        num_views: how many views of each image, warped by `warp`, a `PatchEncoder` learns from, the first unwarped.

    Methods:
        init_weights(model, items, seed): sets the weights of a model that has not been trained, in place. The items
            are those given to `fit`, or a sample of them. By default the weights stay as they are.
        find_positives(items, seed): finds what a batch holds beside its items. Called once for an array, and for each
            run of a stream in each epoch. Items are `[n, h, w, c]` if they are images, or `[n, d]`, of the dtype given
            to `fit`; those of a stream are overwritten by the next run. Returns a `Positives`, or `None`, the default,
            if the loss needs the items alone.
        pair_views(features, seed): finds the positives of images with several views, of whose first ones these are the
            features, float32 `[n, p]`; by default by `find_positives`.
        scale_logits(deviations): takes the standard deviations of the code logits after training, float32 `[b]`, and
            returns a positive factor for each, float32 `[b]`, or `None`, the default. Factors change no bit, but how
            much each bit weighs in `encode_weighted`. Not called for a `PatchEncoder`.

    Example:
        Reconstruction with a penalty on set bits, which makes codes sparse:

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
        """Sets the weights of a model that has not been trained."""

    def find_positives(self, items: np.ndarray, seed: int) -> Positives | None:
        """Finds what a batch holds beside its items."""
        return None

    def pair_views(self, features: np.ndarray, seed: int) -> Positives | None:
        """Finds the positives of images with several views."""
        return self.find_positives(features, seed)

    def scale_logits(self, deviations: np.ndarray) -> np.ndarray | None:
        """Returns a factor for each code logit of given standard deviations, or `None`."""
        return None


def _check_short_bits(short_bits: int | None) -> None:
    if short_bits is not None:
        check_integer("short_bits", short_bits, 1)


@dataclass(frozen=True)
class Reconstruct(Objective):
    """Reconstructs items: the loss is that of the outputs.

    Attributes:
        short_bits: how many of the first bits form a code of their own, which is also decoded without the others;
            `None` for no such code.
    """

    short_bits: int | None = None

    needs_decoder: ClassVar[bool] = True
    holds_statistics: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_short_bits(self.short_bits)

    def __call__(self, model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer) -> tuple[jax.Array, jax.Array]:
        """The loss of a batch, float32 `[]`, and the bits of its items, float32 `[m, b]`."""
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
    """Reconstructs items, and gives neighbours similar codes.

    The first bits, the coarse ones, are trained by contrast and say what kind of thing an item is. The others, the fine
    ones, tell similar items apart: they explain what the coarse ones leave unexplained of an item's features, which
    describe more than its pixels do (Wei et al. 2022, "Masked feature prediction for self-supervised visual
    pre-training", arXiv:2112.09133). Each gains only by what no other bit explains, so they do not copy each other.
    Those of a `PatchEncoder` are all coarse: with fine ones among 32, the mean average precision of the first 1,000 on
    held-out training images of CIFAR-10 was .375, not .418 (one seed).

    Attributes:
        warp: changes items at random; by default a `PhotoWarp` for images of three channels and an `AffineWarp` for
            others. Items that are no images stay as they are; `None` changes nothing.
        num_neighbors: a positive is drawn among so many nearest training items, or among the mutual ones of these if
            there are any.
        coarse_share: the share of bits that are coarse; at least 14 bits are, if there are so many.
        contrast_weight: the weight of the contrast of the coarse bits.
        temperature: of its softmax; lower ones spread the codes.
        features_weight: the weight of the share of the features' variance that the bits leave unexplained; it trains
            the fine bits alone.
        decorrelation: the weight of the squared excess over 0.9 of the correlation of any two bits.
        short_bits: how many of the first bits form a code of their own, with a contrast of its own; `None` for no such
            code.
        num_views: how many views of each image a `PatchEncoder` learns from, the first unwarped.

    Settings were compared on training images of MNIST and Fashion-MNIST held out of training, for both together. The
    defaults lie between the values compared, as what suits one data set or measure best costs another.
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
            raise ValueError(f"coarse_share must lie above 0 and be at most 1, got {self.coarse_share!r}")

    def find_positives(self, items: np.ndarray, seed: int) -> Positives | None:
        """Finds each item's nearest neighbours, and its features."""
        return find_similar(items, self.num_neighbors, seed)

    def pair_views(self, features: np.ndarray, seed: int) -> Positives:
        """Finds the mutual neighbours of images with several views: half of the time another view is the positive.

        Args:
            features: float32 `[n, p]`, of the images as they are.
            seed: that of `fit`.
        """
        return Positives(add_self(keep_mutual(find_directions(features, self.num_neighbors, seed))))

    def scale_logits(self, deviations: np.ndarray) -> np.ndarray:
        """Factors, powers of two, by which fine bits weigh about a quarter of what coarse ones do: float32 `[b]`.

        So a weighted search sorts by kind first, and items of a kind by what tells them apart. Of held-out training
        images, 32 bits, two seeds, mean average precision rises from .938 to .946 (MNIST) and from .628 to .638
        (Fashion-MNIST), and votes stay as they are.
        """
        num_coarse = self._num_coarse(len(deviations))
        wanted = FINE_DEVIATION * deviations[:num_coarse].mean()
        factors = np.ones(len(deviations), np.float32)
        fine = (np.arange(len(deviations)) >= num_coarse) & (deviations > 0) & (wanted > 0)  # a dead bit stays dead
        factors[fine] = 2.0 ** np.round(np.log2(wanted / deviations[fine]))
        return factors

    def __call__(self, model: Encoder, batch: Batch, key: jax.Array, layer: CodeLayer) -> tuple[jax.Array, jax.Array]:
        """The loss of a batch with positives and features, float32 `[]`, and its items' bits, float32 `[m, b]`."""
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
        """Contrast and decorrelation of soft signs `[2 m, b]`, of m items and then of their positives."""
        num_bits = signs.shape[1]
        num_coarse = self._num_coarse(num_bits)
        correlation = correlations(signs)
        excess = jax.nn.relu(jnp.abs(correlation) - COPIES)
        loss = self.contrast_weight * contrast(signs[:, :num_coarse], self.temperature)
        loss += self.decorrelation * (excess**2).sum() / num_bits
        if self.short_bits is not None:
            loss += self.contrast_weight * contrast(signs[:, : self.short_bits], self.temperature)
        return loss

    def _features_loss(self, bits: jax.Array, features: jax.Array) -> jax.Array:
        """What bits `[m, b]` leave unexplained of features `[m, p]`; only the fine bits have a gradient."""
        num_coarse = self._num_coarse(bits.shape[1])
        if num_coarse == bits.shape[1]:
            return jnp.float32(0)
        coarse, fine = jax.lax.stop_gradient(bits[:, :num_coarse]), bits[:, num_coarse:]
        return self.features_weight * unexplained_variance(2 * jnp.concatenate([coarse, fine], axis=1) - 1, features)


def _keep_first(bits: jax.Array, count: int) -> jax.Array:
    """Bits `[n, b]` with one half, which tells the decoder nothing, for all but the first."""
    return jnp.where(jnp.arange(bits.shape[1])[None] < count, bits, 0.5)


def _to_inputs(model: Encoder, items: jax.Array) -> jax.Array:
    return items.reshape(len(items), *model.input_shape)
