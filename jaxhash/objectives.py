"""What training asks of a model: to give items back through their bits, or also to give like items like codes.

`Reconstruct` is the source post's loss. `Retrieve` adds contrast between an item and one of its neighbours, both warped
by chance, after Oord, Li and Vinyals 2018, "Representation learning with contrastive predictive coding"
(arXiv:1807.03748): a softmax over the batch draws the codes of such a pair together and all others apart.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxhash.autoencoder import Autoencoder, scaled
from jaxhash.checks import check_integer
from jaxhash.code_layer import CodeLayer, rounded, soft_signs
from jaxhash.documents import mean_length, word_losses
from jaxhash.neighbors import nearest_neighbors
from jaxhash.warps import AffineWarp, Warp

Batch = tuple[jax.Array, ...]

LEAST_COARSE_BITS = 12


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

    def __post_init__(self) -> None:
        _check_short_bits(self.short_bits)

    def partners(self, items: np.ndarray, seed: int) -> np.ndarray | None:
        """Which items may stand beside each in a batch: none."""
        return None

    def __call__(
        self, model: Autoencoder, batch: Batch, key: jax.Array, layer: CodeLayer
    ) -> tuple[jax.Array, jax.Array]:
        """The loss of a batch `(items [m, ...],)`, and its bits float32 `[m, b]`."""
        items = _inputs(model, scaled(batch[0]))
        logits = layer.normalized(model.code_logits(items))
        bits = layer.passed_on(logits, key)
        loss = mean_loss(model, model.output_logits(bits), items)
        if self.short_bits is not None:
            loss += mean_loss(model, model.output_logits(_first_alone(bits, self.short_bits)), items)
        return loss, rounded(logits)


@dataclass(frozen=True)
class Retrieve:
    """Gives items back, and neighbours like codes.

    The first bits, the coarse ones, are told apart by contrast and come to say what kind of thing an item is. The
    others, the fine ones, feel little of it and are kept from following one another: they tell alike items apart.

    Attributes:
        warp: changes items by chance; `None` leaves them alone, as `AffineWarp` does with items that are no images.
        num_neighbors: among so many nearest training items a partner is drawn.
        coarse_share: the share of bits that are coarse; a dozen are, if there are so many, as kinds need some room.
        contrast: the weight of the contrast of the coarse bits.
        temperature: of their softmax; lower ones spread the codes.
        fine_contrast: the weight of the contrast of the fine bits.
        fine_temperature: of their softmax.
        decorrelation: the weight of the fine bits' mutual squared correlations.
        copying: the weight of what any two bits' correlation exceeds 0.9 by, squared.
        short_bits: how many of the first bits are to be a code of their own, which feels contrast by itself; `None` if
            there is to be no such code.

    They were compared on training images of MNIST and Fashion-MNIST that were held out of training, for both together;
    the default lies between the values compared, as what serves one set or measure best costs another.
    """

    warp: Warp | None = field(default_factory=AffineWarp)
    num_neighbors: int = 10
    coarse_share: float = 0.5
    contrast: float = 0.5
    temperature: float = 0.3
    fine_contrast: float = 0.02
    fine_temperature: float = 0.2
    decorrelation: float = 0.025
    copying: float = 2.5
    short_bits: int | None = None

    def __post_init__(self) -> None:
        _check_short_bits(self.short_bits)
        check_integer("num_neighbors", self.num_neighbors, 1)
        if not 0 < self.coarse_share <= 1:
            raise ValueError(f"coarse_share must lie above 0 and be at most 1, got {self.coarse_share!r}")

    def partners(self, items: np.ndarray, seed: int) -> np.ndarray | None:
        """Which items may stand beside each in a batch: int32 `[n, k]`; a single item is its own."""
        k = min(self.num_neighbors, len(items) - 1)
        return nearest_neighbors(items, k, seed) if k > 0 else np.zeros((1, 1), np.int32)

    def __call__(
        self, model: Autoencoder, batch: Batch, key: jax.Array, layer: CodeLayer
    ) -> tuple[jax.Array, jax.Array]:
        """The loss of a batch `(items [m, ...], partners [m, ...])`, and its items' bits float32 `[m, b]`."""
        items = scaled(batch[0])
        views = jnp.concatenate([items, scaled(batch[1])])
        if self.warp is not None:
            views = self.warp(key, views)
        logits = layer.normalized(model.code_logits(_inputs(model, views)))
        outputs = model.output_logits(layer.passed_on(logits[: len(items)], jax.random.fold_in(key, 1)))
        loss = mean_loss(model, outputs, _inputs(model, items))
        return loss + self._likeness_loss(soft_signs(logits)), rounded(logits[: len(items)])

    def _likeness_loss(self, signs: jax.Array) -> jax.Array:
        """The contrast of soft signs `[2 m, b]`, of m items and then their partners, and what keeps bits apart."""
        num_bits = signs.shape[1]
        num_coarse = min(num_bits, max(LEAST_COARSE_BITS, round(self.coarse_share * num_bits)))
        coarse, fine = signs[:, :num_coarse], signs[:, num_coarse:]
        correlation = correlations(signs)
        excess = jax.nn.relu(jnp.abs(correlation) - 0.9)
        loss = self.contrast * contrast(coarse, self.temperature) + self.copying * (excess**2).sum() / num_bits
        if self.short_bits is not None:
            loss += self.contrast * contrast(signs[:, : self.short_bits], self.temperature)
        if num_coarse == num_bits:
            return loss
        loss += self.fine_contrast * contrast(fine, self.fine_temperature)
        return loss + self.decorrelation * (correlation[num_coarse:, num_coarse:] ** 2).sum() / num_bits


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
        return word_losses(logits, items)
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
