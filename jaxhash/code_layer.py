"""The code layer: how its outputs, the code logits, become bits while a model is trained.

Logits are standardised over the batch (Ioffe and Szegedy 2015, arXiv:1502.03167, without the learned scale and shift,
which could undo it), so that each bit parts the items in about equal halves, and then rounded with gradients passing
through, or what else `jaxhash.binarize` knows. Where there is noise to outgrow, logits are centred alone. In the last
epoch of some objectives their statistics are held still, as they are afterwards.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxhash.binarize import noisy_sigmoid, stochastic_round, straight_through_round

# Sharpens the sigmoid of the standardised logits, which at unit variance lies far from the bits it is rounded to.
LOGIT_GAIN = 2.0
VARIANCE_FLOOR = 1e-5


class LogitStatistics(NamedTuple):
    """The mean and variance of code logits over many items, and whether training is to hold to them."""

    mean: jax.Array  # float32 [b]
    variance: jax.Array  # float32 [b]
    held: jax.Array  # bool []; if not, each batch has its own


def own_statistics(num_bits: int) -> LogitStatistics:
    """Statistics that let each batch have its own."""
    nothing = jnp.zeros(num_bits, jnp.float32)
    return LogitStatistics(nothing, nothing, jnp.asarray(False))


def centred(logits: jax.Array, statistics: LogitStatistics) -> jax.Array:
    """Code logits `[n, b]` less their mean."""
    return logits - jnp.where(statistics.held, statistics.mean, logits.mean(0))[None]


def standardized(logits: jax.Array, statistics: LogitStatistics) -> jax.Array:
    """Code logits `[n, b]` less their mean, over their deviation."""
    mean = jnp.where(statistics.held, statistics.mean, logits.mean(0))
    variance = jnp.where(statistics.held, statistics.variance, logits.var(0))
    return (logits - mean[None]) * jax.lax.rsqrt(variance + VARIANCE_FLOOR)[None]


def rounded(logits: jax.Array) -> jax.Array:
    """Standardised logits to bits as float32; gradients pass through the rounding."""
    return straight_through_round(jax.nn.sigmoid(LOGIT_GAIN * logits))


def soft_signs(logits: jax.Array) -> jax.Array:
    """Standardised logits to numbers between -1 and 1: what `rounded` rounds, on the scale of signs."""
    return jnp.tanh(LOGIT_GAIN / 2 * logits)


@partial(jax.tree_util.register_dataclass, data_fields=["statistics", "noise"], meta_fields=["binarization"])
@dataclass(frozen=True)
class CodeLayer:
    """The code layer of one epoch.

    Attributes:
        statistics: what logits are normalised by.
        noise: the deviation of Gaussian noise, float32 `[]`; only "gaussian_noise" has any.
        binarization: a name in `jaxhash.binarize.BINARIZATIONS` (static).
    """

    statistics: LogitStatistics
    noise: jax.Array
    binarization: str

    def normalized(self, logits: jax.Array) -> jax.Array:
        """Code logits `[n, b]` standardised, or, where there is noise, centred."""
        scale = centred if self.binarization == "gaussian_noise" else standardized
        return scale(logits, self.statistics)

    def passed_on(self, logits: jax.Array, key: jax.Array) -> jax.Array:
        """What the decoder is given for normalised logits while training: float32 `[n, b]` in [0, 1]."""
        if self.binarization == "gaussian_noise":
            return noisy_sigmoid(LOGIT_GAIN * logits, self.noise, key)
        if self.binarization == "stochastic":
            return stochastic_round(jax.nn.sigmoid(LOGIT_GAIN * logits), key)
        return rounded(logits)
