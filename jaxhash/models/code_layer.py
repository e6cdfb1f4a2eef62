"""The code layer in training: from code logits to what the decoder is given.

First the logits are normalised over the items of a batch or of a whole data set. Then one of three binarizations
follows. All pass gradients back as if nothing had been rounded (the straight-through estimator of Bengio, Leonard and
Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013, arXiv:1308.3432).

- "rounding": the sigmoid is rounded, as in Krizhevsky and Hinton, "Using Very Deep Autoencoders for Content-Based Image
  Retrieval" (ESANN 2011).
- "stochastic": the sigmoid is the probability with which the bit is set (Bengio and others).
- "gaussian_noise": noise is added to the logits and nothing is rounded, as in Salakhutdinov and Hinton, "Semantic
  Hashing" (2009). Only outputs near 0 and 1 survive the noise, so the network learns these. In the paper an item has
  the same noise each time. Here it is drawn anew, and grows from epoch to epoch.

After training, a bit is the sign of a logit less its mean (`jaxhash.models.encoding.compute_bits`).
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

BINARIZATIONS = ("rounding", "gaussian_noise", "stochastic")

# The noise's standard deviation in the last epoch: the best of 2, 4 and 6 on held-out training images of MNIST.
MAX_NOISE = 4.0
# Steepens the sigmoid: without it, standardised logits lie far from the bits that they are rounded to.
LOGIT_GAIN = 2.0
VARIANCE_FLOOR = 1e-5


def check_binarization(binarization: str) -> str:
    """Returns the name of a binarization, or raises `ValueError`."""
    if not isinstance(binarization, str) or binarization not in BINARIZATIONS:
        raise ValueError(f"binarization must be one of {', '.join(BINARIZATIONS)}, got {binarization!r}")
    return binarization


class LogitStatistics(NamedTuple):
    """Mean and variance of code logits over many items, to normalise by."""

    mean: jax.Array  # float32 [b]
    variance: jax.Array  # float32 [b]
    held: jax.Array  # bool []; if false, mean and variance of the batch take their place


def make_batch_statistics(num_bits: int) -> LogitStatistics:
    """Returns statistics that normalise each batch by its own mean and variance."""
    zeros = jnp.zeros(num_bits, jnp.float32)
    return LogitStatistics(zeros, zeros, jnp.asarray(False))


def center(logits: jax.Array, statistics: LogitStatistics) -> jax.Array:
    """Subtracts the mean from code logits `[n, b]`."""
    return logits - jnp.where(statistics.held, statistics.mean, logits.mean(0))[None]


def standardize(logits: jax.Array, statistics: LogitStatistics) -> jax.Array:
    """Subtracts the mean from code logits `[n, b]` and divides by the standard deviation."""
    mean = jnp.where(statistics.held, statistics.mean, logits.mean(0))
    variance = jnp.where(statistics.held, statistics.variance, logits.var(0))
    return (logits - mean[None]) * lax.rsqrt(variance + VARIANCE_FLOOR)[None]


def straight_through(x: jax.Array, value: jax.Array) -> jax.Array:
    """Returns `value` exactly, with the gradient of `x`.

    The common form `x + stop_gradient(value - x)` rounds twice: where `x` is 0.3 and `value` is -1, it gives
    -0.99999994. Here the first term is exactly zero.
    """
    return (x - lax.stop_gradient(x)) + lax.stop_gradient(value)


def straight_through_round(x: jax.Array) -> jax.Array:
    """Rounds finite `x` to the nearest integer (halves to even); the gradient is the identity's."""
    return straight_through(x, jnp.round(x))


def stochastic_round(probabilities: jax.Array, key: jax.Array) -> jax.Array:
    """Draws 1 with each probability, else 0; the gradient is the identity's, that of the expectation."""
    return straight_through(probabilities, jax.random.bernoulli(key, probabilities).astype(probabilities.dtype))


def noisy_sigmoid(logits: jax.Array, deviation: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the sigmoid of logits plus Gaussian noise of this standard deviation (a scalar); nothing is rounded."""
    return jax.nn.sigmoid(logits + deviation * jax.random.normal(key, logits.shape, logits.dtype))


def compute_noise(epoch: int, epochs: int) -> float:
    """Returns the noise's standard deviation in an epoch, counted from 1: it grows linearly to `MAX_NOISE`."""
    return MAX_NOISE * epoch / epochs


def round_logits(logits: jax.Array) -> jax.Array:
    """Rounds the sigmoid of normalised logits: bits as float32, with the gradient of the sigmoid."""
    return straight_through_round(jax.nn.sigmoid(LOGIT_GAIN * logits))


def compute_soft_signs(logits: jax.Array) -> jax.Array:
    """Maps normalised logits to (-1, 1): the sigmoid that `round_logits` rounds, on the scale of signs."""
    return jnp.tanh(LOGIT_GAIN / 2 * logits)


@partial(jax.tree_util.register_dataclass, data_fields=["statistics", "noise"], meta_fields=["binarization"])
@dataclass(frozen=True)
class CodeLayer:
    """The code layer in one epoch of training.

    Attributes:
        statistics: mean and variance to normalise logits by.
        noise: standard deviation of the noise, float32 `[]`; used by "gaussian_noise" alone.
        binarization: a name in `BINARIZATIONS` (static).
    """

    statistics: LogitStatistics
    noise: jax.Array
    binarization: str

    def normalize(self, logits: jax.Array) -> jax.Array:
        """Standardises code logits `[n, b]`; only centers them for "gaussian_noise", so that they can outgrow it."""
        scale = center if self.binarization == "gaussian_noise" else standardize
        return scale(logits, self.statistics)

    def binarize(self, logits: jax.Array, key: jax.Array) -> jax.Array:
        """Returns what the decoder is given for normalised logits `[n, b]`: float32 `[n, b]` in [0, 1]."""
        if self.binarization == "gaussian_noise":
            return noisy_sigmoid(LOGIT_GAIN * logits, self.noise, key)
        if self.binarization == "stochastic":
            return stochastic_round(jax.nn.sigmoid(LOGIT_GAIN * logits), key)
        return round_logits(logits)
