"""Three ways in which a network learns to speak in bits.

- "rounding": Krizhevsky and Hinton, "Using Very Deep Autoencoders for Content-Based Image Retrieval" (ESANN 2011),
  round the code layer's outputs in the forward pass and go back through them as if they had not been rounded.
- "stochastic": each output is the chance with which its bit is set. Bengio, Leonard and Courville, "Estimating or
  Propagating Gradients Through Stochastic Neurons" (2013, arXiv:1308.3432), name going back in that same way the
  straight-through estimator.
- "gaussian_noise": Salakhutdinov and Hinton, "Semantic Hashing" (2009), add noise to what code units receive and round
  nothing while training. Outputs near 0 and 1 are all that comes through noise unharmed, so that is what units learn.
  Their noise is the same for an item each time; here it is drawn anew, and grows from epoch to epoch.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

BINARIZATIONS = ("rounding", "gaussian_noise", "stochastic")

# The deviation of the noise in the last epoch: the best of 2, 4 and 6 for held-out training images of MNIST.
GREATEST_NOISE = 4.0


def straight_through(x: jax.Array, value: jax.Array) -> jax.Array:
    """Gives `value` forward, exactly, and the gradient of `x` backward.

    The familiar `x + stop_gradient(value - x)` rounds twice: where `x` is 0.3 and `value` is -1, it gives -0.99999994.
    Here the first term is exactly zero.
    """
    return (x - lax.stop_gradient(x)) + lax.stop_gradient(value)


def straight_through_round(x: jax.Array) -> jax.Array:
    """Rounds finite `x` to the nearest integer (halves to even); the gradient is the identity's."""
    return straight_through(x, jnp.round(x))


def stochastic_round(probabilities: jax.Array, key: jax.Array) -> jax.Array:
    """Draws 0 or 1 by each probability; the gradient is the identity's, that of the expectation."""
    return straight_through(probabilities, jax.random.bernoulli(key, probabilities).astype(probabilities.dtype))


def noisy_sigmoid(inputs: jax.Array, deviation: jax.Array, key: jax.Array) -> jax.Array:
    """The sigmoid of inputs with Gaussian noise added, of this deviation (a scalar): real numbers, not bits."""
    return jax.nn.sigmoid(inputs + deviation * jax.random.normal(key, inputs.shape, inputs.dtype))


def noise_at_epoch(epoch: int, epochs: int) -> float:
    """The deviation of the noise in an epoch, from 1: grows evenly to `GREATEST_NOISE` in the last."""
    return GREATEST_NOISE * epoch / epochs


def check_binarization(binarization: str) -> str:
    """Raises unless this names a way to bits."""
    if not isinstance(binarization, str) or binarization not in BINARIZATIONS:
        raise ValueError(f"binarization must be one of {', '.join(BINARIZATIONS)}, got {binarization!r}")
    return binarization


# Sharpens the sigmoid of the standardised logits, which at unit variance lies far from the bits it is rounded to.
LOGIT_GAIN = 2.0
VARIANCE_FLOOR = 1e-5


class LogitStatistics(NamedTuple):
    """The mean and variance of code logits over many items, and whether training is to hold to them."""

    mean: jax.Array  # float32 [b]
    variance: jax.Array  # float32 [b]
    held: jax.Array  # bool []; if not, each batch has its own


def make_batch_statistics(num_bits: int) -> LogitStatistics:
    """Statistics that let each batch have its own."""
    nothing = jnp.zeros(num_bits, jnp.float32)
    return LogitStatistics(nothing, nothing, jnp.asarray(False))


def center(logits: jax.Array, statistics: LogitStatistics) -> jax.Array:
    """Code logits `[n, b]` less their mean."""
    return logits - jnp.where(statistics.held, statistics.mean, logits.mean(0))[None]


def standardize(logits: jax.Array, statistics: LogitStatistics) -> jax.Array:
    """Code logits `[n, b]` less their mean, over their deviation."""
    mean = jnp.where(statistics.held, statistics.mean, logits.mean(0))
    variance = jnp.where(statistics.held, statistics.variance, logits.var(0))
    return (logits - mean[None]) * jax.lax.rsqrt(variance + VARIANCE_FLOOR)[None]


def round_logits(logits: jax.Array) -> jax.Array:
    """Standardised logits to bits as float32; gradients pass through the rounding."""
    return straight_through_round(jax.nn.sigmoid(LOGIT_GAIN * logits))


def compute_soft_signs(logits: jax.Array) -> jax.Array:
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

    def normalize(self, logits: jax.Array) -> jax.Array:
        """Code logits `[n, b]` standardised, or, where there is noise, center."""
        scale = center if self.binarization == "gaussian_noise" else standardize
        return scale(logits, self.statistics)

    def binarize(self, logits: jax.Array, key: jax.Array) -> jax.Array:
        """What the decoder is given for normalised logits while training: float32 `[n, b]` in [0, 1]."""
        if self.binarization == "gaussian_noise":
            return noisy_sigmoid(LOGIT_GAIN * logits, self.noise, key)
        if self.binarization == "stochastic":
            return stochastic_round(jax.nn.sigmoid(LOGIT_GAIN * logits), key)
        return round_logits(logits)
