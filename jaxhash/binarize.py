"""Rounding that lets gradients through: how a network learns to speak in bits.

Krizhevsky and Hinton, "Using Very Deep Autoencoders for Content-Based Image Retrieval" (ESANN 2011), round the code
layer's outputs in the forward pass and go back through them as if they had not been rounded; Bengio, Leonard and
Courville, "Estimating or Propagating Gradients Through Stochastic Neurons" (2013, arXiv:1308.3432), name this the
straight-through estimator. Salakhutdinov and Hinton, "Semantic Hashing" (2009), reach bits by noise instead.
"""

import jax
import jax.numpy as jnp
from jax import lax


def straight_through(x: jax.Array, value: jax.Array) -> jax.Array:
    """Gives `value` forward, exactly, and the gradient of `x` backward.

    The familiar `x + stop_gradient(value - x)` rounds twice: where `x` is 0.3 and `value` is -1, it gives -0.99999994.
    Here the first term is exactly zero.
    """
    return (x - lax.stop_gradient(x)) + lax.stop_gradient(value)


def straight_through_round(x: jax.Array) -> jax.Array:
    """Rounds finite `x` to the nearest integer (halves to even); the gradient is the identity's."""
    return straight_through(x, jnp.round(x))
