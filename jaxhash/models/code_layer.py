"""The code layer in training: normalization and binarization of code logits.

Logits are normalized over a batch or the whole data set, then binarized in one of three ways. Gradients pass through
the rounding unchanged (the straight-through estimator of Bengio, Leonard and Courville, "Estimating or Propagating
Gradients Through Stochastic Neurons", 2013, arXiv:1308.3432).

- "rounding": the sigmoid is rounded, as in Krizhevsky and Hinton, "Using Very Deep Autoencoders for Content-Based Image
  Retrieval" (ESANN 2011).
- "stochastic": the sigmoid is the probability of a set bit (Bengio et al.).
- "gaussian_noise": noise is added to the logits and nothing is rounded, as in Salakhutdinov and Hinton, "Semantic
  Hashing" (2009). Only outputs near 0 and 1 survive the noise, so the network learns these. In the paper the noise of
  an item is fixed. Here each step draws it, and it grows with the epochs.

After training, a bit is the sign of a logit minus its mean (`jaxhash.models.encoding.compute_bits`).
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

BINARIZATIONS = ("rounding", "gaussian_noise", "stochastic")

# Standard deviation of the noise in the last epoch: the best of 2, 4 and 6 on held-out training images of MNIST.
MAX_NOISE = 4.0
# Steepens the sigmoid: without it, standardized logits have sigmoids far from the bits they are rounded to.
LOGIT_GAIN = 2.0
VARIANCE_FLOOR = 1e-5


def check_binarization(binarization: str) -> str:
    """Checks the name of a binarization, and returns it."""
    if not isinstance(binarization, str) or binarization not in BINARIZATIONS:
        raise ValueError(f"binarization must be one of {', '.join(BINARIZATIONS)}, got {binarization!r}")
    return binarization


class LogitStatistics(NamedTuple):
    """Mean and variance of code logits over many items, for normalization."""

    mean: jax.Array  # float32 [b]
    variance: jax.Array  # float32 [b]
    held: jax.Array  # bool []; if false, batch statistics are used instead


def make_batch_statistics(num_bits: int) -> LogitStatistics:
    """Makes statistics that select each batch's own mean and variance."""
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

    The common form `x + stop_gradient(value - x)` rounds twice: for `x` 0.3 and `value` -1 it gives -0.99999994. Here
    the first term is exactly zero.
    """
    return (x - lax.stop_gradient(x)) + lax.stop_gradient(value)


def straight_through_round(x: jax.Array) -> jax.Array:
    """Rounds finite `x` to the nearest integer (halves to even); the gradient is the identity's."""
    return straight_through(x, jnp.round(x))


def stochastic_round(probabilities: jax.Array, key: jax.Array) -> jax.Array:
    """Draws 1 with each probability, else 0; the gradient is the identity's, as for the expectation."""
    return straight_through(probabilities, jax.random.bernoulli(key, probabilities).astype(probabilities.dtype))


def noisy_sigmoid(logits: jax.Array, deviation: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the sigmoid of logits plus Gaussian noise of a standard deviation `[]`, unrounded."""
    return jax.nn.sigmoid(logits + deviation * jax.random.normal(key, logits.shape, logits.dtype))


def compute_noise(epoch: int, epochs: int) -> float:
    """Returns the standard deviation of the noise in an epoch, from 1; it grows linearly to `MAX_NOISE`."""
    return MAX_NOISE * epoch / epochs


def round_logits(logits: jax.Array) -> jax.Array:
    """Rounds the sigmoid of normalized logits to float32 bits, with the gradient of the sigmoid."""
    return straight_through_round(jax.nn.sigmoid(LOGIT_GAIN * logits))


def compute_soft_signs(logits: jax.Array) -> jax.Array:
    """Maps normalized logits to (-1, 1): the sigmoid of `round_logits`, scaled to signs."""
    return jnp.tanh(LOGIT_GAIN / 2 * logits)


@partial(jax.tree_util.register_dataclass, data_fields=["statistics", "noise"], meta_fields=["binarization"])
@dataclass(frozen=True)
class CodeLayer:
    """The code layer in one epoch of training.

    Attributes:
        statistics: mean and variance that normalize logits.
        noise: standard deviation of the noise, float32 `[]`; used only by "gaussian_noise".
        binarization: a name in `BINARIZATIONS` (static).
    """

    statistics: LogitStatistics
    noise: jax.Array
    binarization: str

    def normalize(self, logits: jax.Array) -> jax.Array:
        """Standardizes code logits `[n, b]`; for "gaussian_noise" only centers them, so that they can outgrow it."""
        scale = center if self.binarization == "gaussian_noise" else standardize
        return scale(logits, self.statistics)

    def binarize(self, logits: jax.Array, key: jax.Array) -> jax.Array:
        """Binarizes normalized logits `[n, b]` for the decoder: float32 `[n, b]` in [0, 1]."""
        if self.binarization == "gaussian_noise":
            return noisy_sigmoid(LOGIT_GAIN * logits, self.noise, key)
        if self.binarization == "stochastic":
            return stochastic_round(jax.nn.sigmoid(LOGIT_GAIN * logits), key)
        return round_logits(logits)
