"""Binary codes as packed words: packing, Hamming distance, and the forms other libraries use.

A code of b bits is `w = ceil(b / 32)` words of uint32 in big-endian bit order: bit 0 is the most significant bit of
word 0, and the unused low bits of the last word are zero. Codes therefore sort as the bit strings do.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhash.core.checks import (
    MAX_NUM_BITS,
    check_code_array,
    check_codes,
    check_integer,
    check_num_bits,
    dtype_of,
    is_traced,
    num_words,
    padding_mask,
)


def pack_bits(bits: ArrayLike) -> jax.Array:
    """Packs bits into codes.

    Args:
        bits: bool, or numbers that are all 0 or 1, `[..., b]`. Under `jit`, where values can't be checked, any
            number but 0 counts as 1.

    Returns:
        uint32 `[..., w]`.

    Raises:
        ValueError: a value is neither 0 nor 1, or there is no axis of bits.
        TypeError: `bits` holds something else than numbers.
    """
    traced = is_traced(bits)
    array = jnp.asarray(bits) if traced else np.asarray(bits)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)):
        raise TypeError(f"bits must be bool or numbers, got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError("bits must have shape [..., b], got a scalar")
    check_integer("the last axis of bits", array.shape[-1], 1, MAX_NUM_BITS)
    if not traced:
        wrong = array[(array != 0) & (array != 1)]
        if wrong.size:
            raise ValueError(f"bits: values must be 0/1, got {wrong[0]}")
    return _pack(array.astype(bool))


@jax.jit
def _pack(bits: ArrayLike) -> jax.Array:
    *lead, num_bits = jnp.shape(bits)
    width = num_words(num_bits)
    padding = [(0, 0)] * len(lead) + [(0, width * 32 - num_bits)]
    planes = jnp.pad(jnp.asarray(bits), padding).reshape(*lead, width, 32).astype(jnp.uint32)
    return (planes << _shifts(32, 1, planes.ndim)).sum(-1, dtype=jnp.uint32)


def _shifts(count: int, step: int, ndim: int) -> jax.Array:
    """Shifts that put the first of `count` fields highest: `(count - 1) * step, ..., step, 0`, with `ndim` axes."""
    return (jnp.arange(count - 1, -1, -1, dtype=jnp.uint32) * jnp.uint32(step)).reshape((1,) * (ndim - 1) + (-1,))


def unpack_bits(codes: ArrayLike, num_bits: int) -> jax.Array:
    """Unpacks codes, uint32 `[..., w]`, into bool `[..., num_bits]`."""
    return _unpack(_legal(codes, num_bits), num_bits)


def _legal(codes: ArrayLike, num_bits: int) -> ArrayLike:
    """Checks codes as far as they are known: whole when concrete, dtype and width when traced."""
    check_num_bits(num_bits)
    if not is_traced(codes):
        return check_codes("codes", codes, num_bits)
    check_code_array("codes", codes, num_words(num_bits))
    return codes


@partial(jax.jit, static_argnums=1)
def _unpack(codes: ArrayLike, num_bits: int) -> jax.Array:
    words = jnp.asarray(codes)[..., None]
    planes = (words >> _shifts(32, 1, words.ndim)) & jnp.uint32(1)
    return planes.reshape(*words.shape[:-2], -1)[..., :num_bits] != 0


def first_bits(codes: ArrayLike, num_bits: int) -> jax.Array:
    """Cuts codes, uint32 `[..., w]`, off after their first bits: uint32 `[..., ceil(num_bits / 32)]`.

    The first bits of a code that was trained with `short_bits` are a code of their own.
    """
    width = num_words(check_num_bits(num_bits))
    check_code_array("codes", codes)
    if width > np.shape(codes)[-1]:
        raise ValueError(f"num_bits must be at most {32 * np.shape(codes)[-1]} for these codes, got {num_bits}")
    return _first_bits(_native(codes), num_bits)


@partial(jax.jit, static_argnums=1)
def _first_bits(codes: ArrayLike, num_bits: int) -> jax.Array:
    mask = np.full(num_words(num_bits), 0xFFFFFFFF, np.uint32)
    mask[-1] ^= padding_mask(num_bits)
    first = jnp.asarray(codes)[..., : len(mask)]
    return first & jnp.broadcast_to(mask, first.shape)


def hamming_distance(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """Counts the bits in which codes differ.

    Args:
        a: uint32 `[..., w]`.
        b: uint32 `[..., w]`; the leading axes of `a` and `b` broadcast.

    Returns:
        int32 `[...]`.
    """
    check_code_array("a", a)
    check_code_array("b", b, np.shape(a)[-1])
    try:
        np.broadcast_shapes(np.shape(a), np.shape(b))
    except ValueError:
        raise ValueError(f"a and b must have shapes that broadcast, got {np.shape(a)} and {np.shape(b)}") from None
    return _distance(_native(a), _native(b))


def _native(codes: ArrayLike) -> ArrayLike:
    """JAX takes no arrays of foreign byte order."""
    return codes if isinstance(codes, jax.Array) else np.asarray(codes).astype(np.uint32, copy=False)


@jax.jit
def _distance(a: ArrayLike, b: ArrayLike) -> jax.Array:
    shape = np.broadcast_shapes(jnp.shape(a), jnp.shape(b))
    differing = jnp.broadcast_to(a, shape) ^ jnp.broadcast_to(b, shape)
    # population_count keeps its operand's dtype, and so would a sum: ask for int32
    return jax.lax.population_count(differing).sum(-1, dtype=jnp.int32)


def codes_from_bytes(packed: ArrayLike, num_bits: int) -> jax.Array:
    """Reads codes in the order of `numpy.packbits`, which FAISS and sentence-transformers use.

    Args:
        packed: uint8 `[..., ceil(num_bits / 8)]`; the unused low bits of the last byte are zero.
        num_bits: the number of bits of a code.

    Returns:
        uint32 `[..., w]`.
    """
    num_bytes = -(-check_num_bits(num_bits) // 8)
    dtype, shape = dtype_of(packed), np.shape(packed)
    if dtype != np.uint8:
        raise TypeError(f"packed must have dtype uint8, got {dtype}")
    if not shape or shape[-1] != num_bytes:
        raise ValueError(f"packed must have {num_bytes} bytes in the last axis for {num_bits} bits, got {shape}")
    if not is_traced(packed):
        packed = np.asarray(packed)
        if (packed[..., -1] & np.uint8((1 << (-num_bits % 8)) - 1)).any():
            raise ValueError(f"packed: padding bits must be zero, but a code has bits past {num_bits}")
    return _from_bytes(packed)


@jax.jit
def _from_bytes(packed: ArrayLike) -> jax.Array:
    *lead, num_bytes = jnp.shape(packed)
    width = -(-num_bytes // 4)
    padding = [(0, 0)] * len(lead) + [(0, width * 4 - num_bytes)]
    planes = jnp.pad(jnp.asarray(packed), padding).reshape(*lead, width, 4).astype(jnp.uint32)
    return (planes << _shifts(4, 8, planes.ndim)).sum(-1, dtype=jnp.uint32)


def codes_to_bytes(codes: ArrayLike, num_bits: int) -> jax.Array:
    """The reverse of `codes_from_bytes`: uint32 `[..., w]` to uint8 `[..., ceil(num_bits / 8)]`."""
    return _to_bytes(_legal(codes, num_bits), num_bits)


@partial(jax.jit, static_argnums=1)
def _to_bytes(codes: ArrayLike, num_bits: int) -> jax.Array:
    words = jnp.asarray(codes)[..., None]
    planes = ((words >> _shifts(4, 8, words.ndim)) & jnp.uint32(0xFF)).astype(jnp.uint8)
    return planes.reshape(*words.shape[:-2], -1)[..., : -(-num_bits // 8)]


def codes_to_integers(codes: ArrayLike, num_bits: int) -> np.ndarray:
    """Codes as plain numbers, for codes of up to 64 bits: numpy uint64 `[...]`, made on the host.

    Bit 0 is the most significant of the `num_bits` bits, so numbers sort as codes do: 0b101 is 5. (The source post
    put its first bit lowest; pack the bits in reverse order to get its numbers.)
    """
    check_num_bits(num_bits, maximum=64)
    words = check_codes("codes", codes, num_bits).astype(np.uint64)
    high = words[..., 0] << np.uint64(32)
    whole = high | words[..., 1] if words.shape[-1] == 2 else high
    return np.asarray(whole >> np.uint64(64 - num_bits))


def codes_from_integers(ints: ArrayLike, num_bits: int) -> jax.Array:
    """The reverse of `codes_to_integers`: integers in [0, 2^num_bits), `[...]`, to uint32 `[..., w]`."""
    check_num_bits(num_bits, maximum=64)
    values = np.asarray(ints)
    if values.dtype.kind not in "iu" and values.size:
        raise TypeError(f"ints must be an array of integers (for large ones, numpy uint64), got {values.dtype}")
    if values.size and (values.min() < 0 or int(values.max()) >> num_bits):
        raise ValueError(f"ints must lie between 0 and 2**{num_bits} - 1, got {values.min()} to {values.max()}")
    whole = values.astype(np.uint64) << np.uint64(64 - num_bits)
    words = np.stack([whole >> np.uint64(32), whole & np.uint64(0xFFFFFFFF)], axis=-1).astype(np.uint32)
    return jnp.asarray(words[..., : num_words(num_bits)])
