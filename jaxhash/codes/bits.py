"""Packed binary codes: packing, Hamming distance, and conversion to the formats of other libraries.

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
    check_known_codes,
    check_num_bits,
    dtype_of,
    is_traced,
    num_words,
    padding_mask,
)


def pack_bits(bits: ArrayLike) -> jax.Array:
    """Packs bits into codes.

    Args:
        bits: bool, or numbers that are all 0 or 1, `[..., b]`. Traced values can't be checked: there, any nonzero
            number counts as 1.

    Returns:
        uint32 `[..., w]`.

    Raises:
        ValueError: a value is neither 0 nor 1, or there is no axis of bits.
        TypeError: `bits` is neither bool nor numeric.
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
    return (planes << _make_shifts(32, 1, planes.ndim)).sum(-1, dtype=jnp.uint32)


def _make_shifts(count: int, step: int, ndim: int) -> jax.Array:
    """Returns the shifts `(count - 1) * step, ..., step, 0`, the first field being the highest, with `ndim` axes."""
    return (jnp.arange(count - 1, -1, -1, dtype=jnp.uint32) * jnp.uint32(step)).reshape((1,) * (ndim - 1) + (-1,))


def unpack_bits(codes: ArrayLike, num_bits: int) -> jax.Array:
    """Unpacks codes, uint32 `[..., w]`, into bool `[..., num_bits]`."""
    return _unpack(check_known_codes("codes", codes, check_num_bits(num_bits)), num_bits)


@partial(jax.jit, static_argnums=1)
def _unpack(codes: ArrayLike, num_bits: int) -> jax.Array:
    words = jnp.asarray(codes)[..., None]
    planes = (words >> _make_shifts(32, 1, words.ndim)) & jnp.uint32(1)
    return planes.reshape(*words.shape[:-2], 32 * words.shape[-2])[..., :num_bits] != 0


def first_bits(codes: ArrayLike, num_bits: int) -> jax.Array:
    """Truncates codes, uint32 `[..., w]`, to their first bits: uint32 `[..., ceil(num_bits / 32)]`.

    Training with `short_bits` makes the first bits of a code usable as a code of their own.

    Raises:
        ValueError: `num_bits` is below 1 or exceeds the length of the codes.
        TypeError: codes are not uint32.
    """
    width = num_words(check_num_bits(num_bits))
    check_code_array("codes", codes)
    if width > np.shape(codes)[-1]:
        raise ValueError(f"num_bits must be at most {32 * np.shape(codes)[-1]} for these codes, got {num_bits}")
    return _first_bits(_to_native(codes), num_bits)


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

    Raises:
        ValueError: widths differ, or leading axes don't broadcast.
        TypeError: codes are not uint32.
    """
    check_code_array("a", a)
    check_code_array("b", b, np.shape(a)[-1])
    try:
        np.broadcast_shapes(np.shape(a), np.shape(b))
    except ValueError:
        raise ValueError(f"a and b must have shapes that broadcast, got {np.shape(a)} and {np.shape(b)}") from None
    return _count_differing(_to_native(a), _to_native(b))


def _to_native(codes: ArrayLike) -> ArrayLike:
    """Converts to native byte order, the only one that JAX accepts."""
    return codes if isinstance(codes, jax.Array) else np.asarray(codes).astype(np.uint32, copy=False)


@jax.jit
def _count_differing(a: ArrayLike, b: ArrayLike) -> jax.Array:
    shape = np.broadcast_shapes(jnp.shape(a), jnp.shape(b))
    differing = jnp.broadcast_to(a, shape) ^ jnp.broadcast_to(b, shape)
    # population_count and sum would keep uint32
    return jax.lax.population_count(differing).sum(-1, dtype=jnp.int32)


def codes_from_bytes(packed: ArrayLike, num_bits: int) -> jax.Array:
    """Converts codes from the byte order of `numpy.packbits`, which FAISS and sentence-transformers use.

    Args:
        packed: uint8 `[..., ceil(num_bits / 8)]`; the unused low bits of the last byte are zero.
        num_bits: the number of bits of a code.

    Returns:
        uint32 `[..., w]`.

    Raises:
        ValueError: the number of bytes is wrong, or a padding bit is set.
        TypeError: `packed` is not uint8.
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
    return (planes << _make_shifts(4, 8, planes.ndim)).sum(-1, dtype=jnp.uint32)


def codes_to_bytes(codes: ArrayLike, num_bits: int) -> jax.Array:
    """Converts codes, uint32 `[..., w]`, to bytes, uint8 `[..., ceil(num_bits / 8)]`: undoes `codes_from_bytes`."""
    return _to_bytes(check_known_codes("codes", codes, check_num_bits(num_bits)), num_bits)


@partial(jax.jit, static_argnums=1)
def _to_bytes(codes: ArrayLike, num_bits: int) -> jax.Array:
    words = jnp.asarray(codes)[..., None]
    planes = ((words >> _make_shifts(4, 8, words.ndim)) & jnp.uint32(0xFF)).astype(jnp.uint8)
    return planes.reshape(*words.shape[:-2], 4 * words.shape[-2])[..., : -(-num_bits // 8)]


def codes_to_integers(codes: ArrayLike, num_bits: int) -> np.ndarray:
    """Converts codes of up to 64 bits, uint32 `[..., w]`, to numpy uint64 `[...]` on the host.

    Bit 0 is the most significant of the `num_bits` bits, so integers sort as codes do: 0b101 is 5. (In the source post
    the first bit is the least significant; pack the bits in reverse order to get its integers.)
    """
    check_num_bits(num_bits, maximum=64)
    words = check_codes("codes", codes, num_bits).astype(np.uint64)
    high = words[..., 0] << np.uint64(32)
    whole = high | words[..., 1] if words.shape[-1] == 2 else high
    return np.asarray(whole >> np.uint64(64 - num_bits))


def codes_from_integers(ints: ArrayLike, num_bits: int) -> jax.Array:
    """Converts integers in [0, 2^num_bits), `[...]`, to codes, uint32 `[..., w]`: undoes `codes_to_integers`."""
    check_num_bits(num_bits, maximum=64)
    values = np.asarray(ints)
    if values.dtype.kind not in "iu" and values.size:
        raise TypeError(f"ints must be an array of integers (for large ones, numpy uint64), got {values.dtype}")
    if values.size and (values.min() < 0 or int(values.max()) >> num_bits):
        raise ValueError(f"ints must lie between 0 and 2**{num_bits} - 1, got {values.min()} to {values.max()}")
    whole = values.astype(np.uint64) << np.uint64(64 - num_bits)
    words = np.stack([whole >> np.uint64(32), whole & np.uint64(0xFFFFFFFF)], axis=-1).astype(np.uint32)
    return jax.device_put(words[..., : num_words(num_bits)])  # `jnp.asarray` would compile a program for each shape
