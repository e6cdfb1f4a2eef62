"""The conversions of `jaxhash.codes.bits` as compiled programs for JAX arrays, without checks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxhash.core.checks import num_words, padding_mask


@jax.jit
def pack(bits: jax.Array) -> jax.Array:
    """Packs bits `[..., b]`, nonzero values as 1: uint32 `[..., w]`."""
    *lead, num_bits = bits.shape
    width = num_words(num_bits)
    padding = [(0, 0)] * len(lead) + [(0, width * 32 - num_bits)]
    planes = jnp.pad(bits.astype(bool), padding).reshape(*lead, width, 32).astype(jnp.uint32)
    return (planes << _make_shifts(32, 1, planes.ndim)).sum(-1, dtype=jnp.uint32)


@partial(jax.jit, static_argnums=1)
def unpack(codes: jax.Array, num_bits: int) -> jax.Array:
    """Unpacks codes, uint32 `[..., w]`: bool `[..., num_bits]`."""
    words = codes[..., None]
    planes = (words >> _make_shifts(32, 1, words.ndim)) & jnp.uint32(1)
    return planes.reshape(*words.shape[:-2], 32 * words.shape[-2])[..., :num_bits] != 0


@partial(jax.jit, static_argnums=1)
def truncate(codes: jax.Array, num_bits: int) -> jax.Array:
    """Truncates codes to their first bits: uint32 `[..., ceil(num_bits / 32)]`."""
    mask = np.full(num_words(num_bits), 0xFFFFFFFF, np.uint32)
    mask[-1] ^= padding_mask(num_bits)
    first = codes[..., : len(mask)]
    return first & jnp.broadcast_to(mask, first.shape)


@jax.jit
def count_differing(a: jax.Array, b: jax.Array) -> jax.Array:
    """Counts the bits in which codes `[..., w]` differ: int32 `[...]`."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    differing = jnp.broadcast_to(a, shape) ^ jnp.broadcast_to(b, shape)
    # Without a dtype, population_count and sum would keep uint32.
    return jax.lax.population_count(differing).sum(-1, dtype=jnp.int32)


@jax.jit
def join_bytes(packed: jax.Array) -> jax.Array:
    """Joins bytes, uint8 `[..., m]`, to codes: uint32 `[..., ceil(m / 4)]`."""
    *lead, num_bytes = packed.shape
    width = -(-num_bytes // 4)
    padding = [(0, 0)] * len(lead) + [(0, width * 4 - num_bytes)]
    planes = jnp.pad(packed, padding).reshape(*lead, width, 4).astype(jnp.uint32)
    return (planes << _make_shifts(4, 8, planes.ndim)).sum(-1, dtype=jnp.uint32)


@partial(jax.jit, static_argnums=1)
def split_bytes(codes: jax.Array, num_bits: int) -> jax.Array:
    """Splits codes into bytes: uint8 `[..., ceil(num_bits / 8)]`."""
    words = codes[..., None]
    planes = ((words >> _make_shifts(4, 8, words.ndim)) & jnp.uint32(0xFF)).astype(jnp.uint8)
    return planes.reshape(*words.shape[:-2], 4 * words.shape[-2])[..., : -(-num_bits // 8)]


@partial(jax.jit, static_argnums=1)
def pack_integers(ints: jax.Array, num_bits: int) -> jax.Array:
    """Packs the last `num_bits` bits of integers `[...]`: uint32 `[..., w]`."""
    shifts = _make_shifts(num_bits, 1, ints.ndim + 1).astype(ints.dtype)
    return pack((ints[..., None] >> shifts) & 1)


def _make_shifts(count: int, step: int, ndim: int) -> jax.Array:
    """Returns the shifts `(count - 1) * step, ..., step, 0`, highest field first, along the last of `ndim` axes."""
    return (jnp.arange(count - 1, -1, -1, dtype=jnp.uint32) * jnp.uint32(step)).reshape((1,) * (ndim - 1) + (-1,))
