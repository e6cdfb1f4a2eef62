"""What training asks of a model: to give items back through their bits, or also to give like items like codes.

`Reconstruct` is the source post's loss. `Retrieve` adds contrast between an item and one of its neighbours, both warped
by chance, after Oord, Li and Vinyals 2018, "Representation learning with contrastive predictive coding"
(arXiv:1807.03748): a softmax over the batch draws the codes of such a pair together and all others apart. And some of
its bits are to tell what the others leave out of an item's features.
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxhash.core.checks import check_integer
from jaxhash.models.autoencoder import Autoencoder
from jaxhash.models.code_layer import CodeLayer, compute_soft_signs, round_logits
from jaxhash.models.inputs import to_floats
from jaxhash.models.word_counts import mean_length
from jaxhash.training.augment import AffineWarp, Warp
from jaxhash.training.positives import feature_points, mutual_neighbors, nearest_neighbors

Batch = tuple[jax.Array, ...]

LEAST_COARSE_BITS = 14
RIDGE = 0.02  # bits that copy each other in a batch, or are dead in it, have no single best map; signs have variance 1


class Company(NamedTuple):
    """What stands beside each of n items in a batch."""

    partners: np.ndarray  # int32 [n, k], positions of items like each, of which one is drawn
    points: np.ndarray  # float32 [n, p], where features place it among the others


def _check_short_bits(short_bits: int | None) -> None:
    if short_bits is not None:
        check_integer("short_bits", short_bits, 1)


@dataclass(frozen=True)
class Reconstruct:
    """Gives items back: the loss is that of the outputs.

    Attributes:
        short_bits: how many of the first bits are to be a code of their own, which gives items back without the others;
            `None` if there is to be no such code.
    """

    short_bits: int | None = None

    # Whether the statistics of the code logits are held to in the last epoch.
    holds_statistics: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_short_bits(self.short_bits)

    def company(self, items: np.ndarray, seed: int) -> Company | None:
        """What stands beside items in a batch: nothing."""
        return None

    def __call__(
        self, model: Autoencoder, batch: Batch, key: jax.Array, layer: CodeLayer
    ) -> tuple[jax.Array, jax.Array]:
        """The loss of a batch `(items [m, ...],)`, and its bits float32 `[m, b]`."""
        items = _inputs(model, to_floats(batch[0]))
        logits = layer.normalize(model.code_logits(items))
        bits = layer.binarize(logits, key)
        loss = mean_loss(model, model.output_logits(bits), items)
        if self.short_bits is not None:
            loss += mean_loss(model, model.output_logits(_first_alone(bits, self.short_bits)), items)
        return loss, round_logits(logits)


@dataclass(frozen=True)
class Retrieve:
    """Gives items back, and neighbours like codes.

    The first bits, the coarse ones, are told apart by contrast and come to say what kind of thing an item is. The
    others, the fine ones, tell alike items apart: they are to say what the coarse ones leave out about an item's
    features, which see more than its pixels do (Wei et al. 2022, "Masked feature prediction for self-supervised visual
    pre-training", arXiv:2112.09133). As each gains only by what no other says, they don't follow one another.

    Attributes:
        warp: changes items by chance; `None` leaves them alone, as `AffineWarp` does with items that are no images.
        num_neighbors: among so many nearest training items a partner is drawn, if there are mutual ones, among these.
        coarse_share: the share of bits that are coarse; 14 are, if there are so many, as kinds need some room.
        contrast: the weight of the contrast of the coarse bits.
        temperature: of their softmax; lower ones spread the codes.
        features: the weight of what the bits leave unexplained of the features, for the fine bits alone.
        copying: the weight of what any two bits' correlation exceeds 0.9 by, squared.
        short_bits: how many of the first bits are to be a code of their own, which feels contrast by itself; `None` if
            there is to be no such code.

    They were compared on training images of MNIST and Fashion-MNIST that were held out of training, for both together;
    the default lies between the values compared, as what serves one set or measure best costs another.
    """

    warp: Warp | None = field(default_factory=AffineWarp)
    num_neighbors: int = 10
    coarse_share: float = 0.7
    contrast: float = 1.0
    temperature: float = 0.25
    features: float = 2.0
    copying: float = 10.0
    short_bits: int | None = None

    # Those of items are not those of warped ones, and to hold to them costs some precision.
    holds_statistics: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_short_bits(self.short_bits)
        check_integer("num_neighbors", self.num_neighbors, 1)
        if not 0 < self.coarse_share <= 1:
            raise ValueError(f"coarse_share must lie above 0 and be at most 1, got {self.coarse_share!r}")

    def company(self, items: np.ndarray, seed: int) -> Company | None:
        """What stands beside items in a batch; a single item is its own partner."""
        k = min(self.num_neighbors, len(items) - 1)
        points = feature_points(items, seed)
        partners = mutual_neighbors(nearest_neighbors(points, k, seed)) if k > 0 else np.zeros((1, 1), np.int32)
        return Company(partners, points)

    def __call__(
        self, model: Autoencoder, batch: Batch, key: jax.Array, layer: CodeLayer
    ) -> tuple[jax.Array, jax.Array]:
        """The loss of a batch `(items [m, ...], partners [m, ...], points [m, p])`, and its items' bits `[m, b]`."""
        items = to_floats(batch[0])
        views = jnp.concatenate([items, to_floats(batch[1])])
        if self.warp is not None:
            views = self.warp(key, views)
        logits = layer.normalize(model.code_logits(_inputs(model, views)))
        bits = layer.binarize(logits[: len(items)], jax.random.fold_in(key, 1))
        loss = mean_loss(model, model.output_logits(bits), _inputs(model, items))
        loss += self._likeness_loss(compute_soft_signs(logits)) + self._features_loss(bits, batch[2])
        return loss, round_logits(logits[: len(items)])

    def _num_coarse(self, num_bits: int) -> int:
        return min(num_bits, max(LEAST_COARSE_BITS, round(self.coarse_share * num_bits)))

    def _likeness_loss(self, signs: jax.Array) -> jax.Array:
        """The contrast of soft signs `[2 m, b]`, of m items and then their partners, and what keeps bits apart."""
        num_bits = signs.shape[1]
        num_coarse = self._num_coarse(num_bits)
        correlation = correlations(signs)
        excess = jax.nn.relu(jnp.abs(correlation) - 0.9)
        loss = self.contrast * contrast(signs[:, :num_coarse], self.temperature)
        loss += self.copying * (excess**2).sum() / num_bits
        if self.short_bits is not None:
            loss += self.contrast * contrast(signs[:, : self.short_bits], self.temperature)
        return loss

    def _features_loss(self, bits: jax.Array, points: jax.Array) -> jax.Array:
        """What bits `[m, b]` leave unexplained of points `[m, p]`, which is for the fine bits alone to mend."""
        num_coarse = self._num_coarse(bits.shape[1])
        if num_coarse == bits.shape[1]:
            return jnp.float32(0)
        coarse, fine = jax.lax.stop_gradient(bits[:, :num_coarse]), bits[:, num_coarse:]
        return self.features * unexplained(2 * jnp.concatenate([coarse, fine], axis=1) - 1, points)


Objective = Reconstruct | Retrieve

OBJECTIVES: dict[str, Objective] = {"reconstruct": Reconstruct(), "retrieve": Retrieve()}


def objective_named(objective: str | Objective, num_bits: int) -> Objective:
    """The objective of a name, or the one given, for codes of so many bits."""
    if isinstance(objective, Objective):
        if objective.short_bits is not None and objective.short_bits > num_bits:
            raise ValueError(f"short_bits must be at most the model's {num_bits} bits, got {objective.short_bits}")
        return objective
    if not isinstance(objective, str) or objective not in OBJECTIVES:
        names = ", ".join(OBJECTIVES)
        raise ValueError(f"objective must be one of {names}, or a Reconstruct or Retrieve, got {objective!r}")
    return OBJECTIVES[objective]


def _first_alone(bits: jax.Array, count: int) -> jax.Array:
    """Bits `[n, b]` with one half, which tells the decoder nothing, for all but the first."""
    return jnp.where(jnp.arange(bits.shape[1])[None] < count, bits, 0.5)


def _inputs(model: Autoencoder, items: jax.Array) -> jax.Array:
    return items.reshape(len(items), *model.input_shape)


def mean_loss(model: Autoencoder, logits: jax.Array, items: jax.Array) -> jax.Array:
    """The mean over all values of all items; of documents, over all words."""
    loss = item_losses(model, logits, items).mean()
    return loss / mean_length(items) if model.output_activation == "softmax" else loss


def item_losses(model: Autoencoder, logits: jax.Array, items: jax.Array) -> jax.Array:
    """The loss of each item: float32 `[n]`.

    Binary cross-entropy (natural logarithm) for sigmoid outputs and squared error for others, averaged over an item's
    values; for softmax outputs the cross-entropy of all words of a document.
    """
    if model.output_activation == "softmax":
        return optax.softmax_cross_entropy(logits, items)
    if model.output_activation == "sigmoid":
        losses = optax.sigmoid_binary_cross_entropy(logits, items)
    else:
        losses = optax.squared_error(model.activation(logits), items)
    return losses.reshape(len(items), -1).mean(1)


def contrast(signs: jax.Array, temperature: float) -> jax.Array:
    """How hard it is to find each item's partner in the batch, and each partner's item; in nats.

    Args:
        signs: float32 `[2 m, b]` in [-1, 1], of m items and then of their partners.
        temperature: divides the mean product of two codes' signs.
    """
    items, partners = jnp.split(signs, 2)
    likeness = items @ partners.T / (signs.shape[1] * temperature)
    right = jnp.diag(likeness)
    return (jax.nn.logsumexp(likeness, axis=0) + jax.nn.logsumexp(likeness, axis=1) - 2 * right).mean() / 2


def correlations(signs: jax.Array) -> jax.Array:
    """The correlations of the bits of `[n, b]` with each other: float32 `[b, b]`, with zeros on the diagonal."""
    centred = signs - signs.mean(0, keepdims=True)
    normed = centred * jax.lax.rsqrt((centred**2).sum(0, keepdims=True) + 1e-9)
    return (normed.T @ normed) * (1 - jnp.eye(signs.shape[1], dtype=jnp.float32))


def unexplained(signs: jax.Array, points: jax.Array) -> jax.Array:
    """The share of the variance of points `[n, p]` that no linear map of signs `[n, b]` explains: float32 `[]`.

    Coordinates are first divided by the fourth root of their variance, so that the largest don't count for all. The map
    is the best one for these items but for a slight ridge. No gradient passes through it: where it is best, the share
    does not change with it to first order.
    """
    signs = signs - signs.mean(0, keepdims=True)
    points = points - points.mean(0, keepdims=True)
    points *= ((points**2).mean(0, keepdims=True) + 1e-9) ** -0.25
    fixed = jax.lax.stop_gradient(signs)
    products = fixed.T @ fixed / len(signs) + RIDGE * jnp.eye(signs.shape[1], dtype=jnp.float32)
    best_map = inverse(products) @ (fixed.T @ points / len(signs))
    return ((points - signs @ best_map) ** 2).sum() / ((points**2).sum() + 1e-9)


def inverse(matrix: jax.Array) -> jax.Array:
    """The inverse of a symmetric positive definite matrix, nearly, by Newton's iteration (Schulz 1933).

    A call of LAPACK within the scan of an epoch takes as long as the rest of a step on a CPU.
    """
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    found = identity / jnp.abs(matrix).sum(0).max()
    for _ in range(10):
        found = found @ (2 * identity - matrix @ found)
    return found
