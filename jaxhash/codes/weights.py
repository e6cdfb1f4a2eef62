"""Weights of a query's bits: integers from 0 to 15.

The weighted distance is the sum of the query's weights of the differing bits. XOR and popcount compute it from bit
planes of the weights: the sum over planes p of `2^p popcount((q ^ c) & plane_p)`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.bits import pack_bits
from jaxhash.codes.distances import Queries
from jaxhash.core.checks import AnyArray, dtype_of, is_jax, is_on_host, is_traced

MAX_WEIGHT = 15
ALL_PLANES = (0, 1, 2, 3)


def check_weights(weights: ArrayLike, lead: tuple[int, ...], num_bits: int) -> tuple[Any, tuple[int, ...]]:
    """Returns checked weights `[*lead, b]` and the exponents of their nonzero bit planes.

    Untraced weights must lie between 0 and `MAX_WEIGHT`; traced ones get all planes.
    """
    dtype, shape = dtype_of(weights), np.shape(weights)
    if dtype.kind not in "iu":
        raise TypeError(f"weights must be integers from 0 to {MAX_WEIGHT}, got dtype {dtype}")
    if shape not in ((num_bits,), (*lead, num_bits)):
        raise ValueError(f"weights must have shape {(num_bits,)} or {(*lead, num_bits)}, got {shape}")
    if is_traced(weights):
        return jnp.broadcast_to(weights, (*lead, num_bits)), ALL_PLANES
    # The OR of all weights has the bits set in any weight, and is negative if any weight is.
    union = int(np.bitwise_or.reduce(weights, axis=None) if is_on_host(weights) else jax.device_get(_union(weights)))
    if not 0 <= union <= MAX_WEIGHT:
        array = np.asarray(weights)
        wrong = array[(array < 0) | (array > MAX_WEIGHT)][0]
        raise ValueError(f"weights must lie between 0 and {MAX_WEIGHT}, got {wrong}")
    exponents = tuple(power for power in ALL_PLANES if union >> power & 1) or ALL_PLANES[:1]
    if isinstance(weights, jax.Array):
        return jnp.broadcast_to(weights, (*lead, num_bits)), exponents
    return np.broadcast_to(np.asarray(weights).astype(np.uint8), (*lead, num_bits)), exponents


@jax.jit
def _union(weights: jax.Array) -> jax.Array:
    return jnp.bitwise_or.reduce(weights, axis=None)


def weigh_queries(codes: Any, weights: ArrayLike, num_bits: int) -> Queries:
    """Joins queries, uint32 `[..., w]`, with checked weights `[..., b]` or `[b]`.

    The bit planes are numpy or JAX arrays like the queries.
    """
    values, exponents = check_weights(weights, codes.shape[:-1], num_bits)
    if not is_jax(codes) and not is_traced(values):
        values = np.asarray(values)
    planes = (_compiled_planes if is_jax(values) else pack_planes)(values, exponents)
    return Queries(codes, jnp.asarray(planes) if is_jax(codes) else planes, exponents)


def pack_planes(weights: AnyArray, exponents: tuple[int, ...] = ALL_PLANES) -> AnyArray:
    """Packs the bit planes of weights, integers `[..., b]`: uint32 `[..., p, w]`, one plane for each exponent."""
    stack: Any = jnp.stack if is_jax(weights) else np.stack
    return pack_bits(stack([(weights >> power & 1) != 0 for power in exponents], axis=-2))


_compiled_planes = jax.jit(pack_planes, static_argnums=1)
