"""Initial weights, drawn by one compiled program for kernels of all shapes.

XLA takes half a second to compile a draw, and `jax.random` compiles one for each shape. So does `jnp.asarray`, but not
`device_put`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxhash.core.checks import is_traced

BLOCK = 2**15
# Standard deviation of a standard normal distribution truncated to [-2, 2].
DEVIATION_WITHIN_TWO = 0.87962566103423978


def he_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Draws a kernel `[d, m]` of variance 2 / d, for ReLU.

    After He et al. 2015, "Delving deep into rectifiers: surpassing human-level performance on ImageNet classification"
    (arXiv:1502.01852).
    """
    size, scale = math.prod(shape), math.sqrt(2 / shape[0]) / DEVIATION_WITHIN_TWO
    blocks = [_draw_block(key, np.uint32(number)) for number in range(-(-size // BLOCK))]
    if is_traced(blocks):
        return (jnp.concatenate(blocks)[:size].reshape(shape) * jnp.float32(scale)).astype(dtype)
    values = np.concatenate([np.asarray(block) for block in blocks])[:size].reshape(shape)
    return jax.device_put((values * np.float32(scale)).astype(dtype))


@jax.jit
def _draw_block(key: jax.Array, number: jax.Array) -> jax.Array:
    """Draws a block of a kernel: float32 `[BLOCK]`, normal, truncated at two standard deviations."""
    return jax.random.truncated_normal(jax.random.fold_in(key, number), -2.0, 2.0, (BLOCK,), jnp.float32)


def zeros(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Makes a bias of zeros; the key is not used."""
    return jax.device_put(np.zeros(shape, dtype))
