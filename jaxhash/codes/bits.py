"""Packed binary codes: packing, Hamming distance, and conversion to the formats of other libraries.

A code of b bits is `w = ceil(b / 32)` words of uint32 in big-endian bit order: bit 0 is the most significant bit of
word 0, and the unused low bits of the last word are zero. Codes therefore sort like bit strings.

Each conversion has two forms: one in numpy here, one for JAX arrays in `jaxhash.codes.compiled`.
"""

from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.compiled import count_differing, join_bytes, pack, pack_integers, split_bytes, truncate, unpack
from jaxhash.core.checks import (
    MAX_NUM_BITS,
    SIGNED_BYTES,
    AnyArray,
    any_known,
    as_array,
    check_code_array,
    check_codes,
    check_integer,
    check_known_codes,
    check_num_bits,
    dtype_of,
    find_padding,
    is_jax,
    num_words,
    padding_mask,
)

# Numpy sums rows of 2 words six times as fast by column, rows of 32 words six times as fast by row.
MAX_WORDS_BY_COLUMN = 8


def pack_bits(bits: AnyArray) -> AnyArray:
    """Packs bits into codes.

    Args:
        bits: bool, or numbers 0 and 1, `[..., b]`. Traced values can't be checked: any nonzero number counts as 1.

    Returns:
        uint32 `[..., w]`.

    Raises:
        ValueError: a value is neither 0 nor 1, or `bits` is a scalar.
        TypeError: `bits` is neither bool nor numeric.

    Example:
        >>> jh.pack_bits([[1, 0, 1]])  # 0b101 and 29 zero bits
        array([[2684354560]], dtype=uint32)
    """
    array = as_array(bits)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)):
        raise TypeError(f"bits must be bool or numbers, got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError("bits must have shape [..., b], got a scalar")
    check_integer("the last axis of bits", array.shape[-1], 1, MAX_NUM_BITS)
    if array.dtype != bool and any_known(_is_not_bit, array):
        wrong = np.asarray(array)
        raise ValueError(f"bits: values must be 0/1, got {wrong[_is_not_bit(wrong)][0]}")
    convert: Any = pack if is_jax(array) else _pack_on_host
    return convert(array)


def _is_not_bit(values: Any) -> Any:
    return (values != 0) & (values != 1)


def _pack_on_host(bits: np.ndarray) -> np.ndarray:
    return _join_bytes_on_host(np.packbits(bits.astype(bool, copy=False), axis=-1))


def unpack_bits(codes: AnyArray, num_bits: int) -> AnyArray:
    """Unpacks codes, uint32 `[..., w]`, into bool `[..., num_bits]`.

    Example:
        >>> jh.unpack_bits(jh.pack_bits([[1, 0, 1]]), num_bits=3)
        array([[ True, False,  True]])
    """
    checked = check_known_codes("codes", codes, check_num_bits(num_bits))
    convert: Any = unpack if is_jax(checked) else _unpack_on_host
    return convert(checked, num_bits)


def _unpack_on_host(codes: np.ndarray, num_bits: int) -> np.ndarray:
    return np.unpackbits(_split_words(codes), axis=-1, count=num_bits).view(bool)


def first_bits(codes: AnyArray, num_bits: int) -> AnyArray:
    """Truncates codes, uint32 `[..., w]`, to their first bits: uint32 `[..., ceil(num_bits / 32)]`.

    Training with `short_bits` makes the first bits of a code usable as a shorter code.

    Raises:
        ValueError: `num_bits` is below 1 or exceeds the length of the codes.
        TypeError: codes are not uint32.
    """
    width = num_words(check_num_bits(num_bits))
    check_code_array("codes", codes)
    if width > np.shape(codes)[-1]:
        raise ValueError(f"num_bits must be at most {32 * np.shape(codes)[-1]} for these codes, got {num_bits}")
    convert: Any = truncate if is_jax(codes) else _truncate_on_host
    return convert(_to_native(codes), num_bits)


def _truncate_on_host(codes: np.ndarray, num_bits: int) -> np.ndarray:
    first = codes[..., : num_words(num_bits)].copy()
    first[..., -1] &= np.uint32(0xFFFFFFFF ^ padding_mask(num_bits))
    return first


@overload
def hamming_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray: ...
@overload
def hamming_distance(a: jax.Array, b: np.ndarray | jax.Array) -> jax.Array: ...
@overload
def hamming_distance(a: np.ndarray, b: jax.Array) -> jax.Array: ...
def hamming_distance(a: np.ndarray | jax.Array, b: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    """Counts the bits in which codes differ.

    The result is a JAX array if `a` or `b` is. Numpy holds the differing bits in memory, about 5 w bytes per distance.

    Args:
        a: uint32 `[..., w]`.
        b: uint32 `[..., w]`; the leading axes of `a` and `b` broadcast.

    Returns:
        int32 `[...]`.

    Raises:
        ValueError: widths differ, or leading axes don't broadcast.
        TypeError: codes are not uint32.

    Example:
        >>> jh.hamming_distance(jh.pack_bits([1, 0, 1]), jh.pack_bits([[1, 1, 1], [0, 1, 0]]))
        array([1, 3], dtype=int32)
    """
    check_code_array("a", a)
    check_code_array("b", b, np.shape(a)[-1])
    try:
        np.broadcast_shapes(np.shape(a), np.shape(b))
    except ValueError:
        raise ValueError(f"a and b must have shapes that broadcast, got {np.shape(a)} and {np.shape(b)}") from None
    count: Any = count_differing if is_jax(a, b) else _count_differing_on_host
    return count(_to_native(a), _to_native(b))


def _to_native(codes: ArrayLike) -> Any:
    """Converts codes to native byte order, which JAX requires."""
    return codes if isinstance(codes, jax.Array) else np.asarray(codes).astype(np.uint32, copy=False)


def _count_differing_on_host(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    differing = np.bitwise_xor(a, b, order="F" if a.shape[-1] <= MAX_WORDS_BY_COLUMN else "C")
    return np.asarray(np.bitwise_count(differing).sum(-1, dtype=np.int32), order="C")


def codes_from_bytes(packed: AnyArray, num_bits: int) -> AnyArray:
    """Converts codes from the byte order of `numpy.packbits`, FAISS and sentence-transformers.

    Args:
        packed: uint8 `[..., ceil(num_bits / 8)]`; the unused low bits of the last byte are zero. For int8 x from
            sentence-transformers with `precision="binary"`, pass `x.view(np.uint8) ^ 0x80`.
        num_bits: the number of bits of a code.

    Returns:
        uint32 `[..., w]`.

    Raises:
        ValueError: the number of bytes is wrong, or a padding bit is set.
        TypeError: `packed` is not uint8.

    Example:
        >>> signs = np.array([[0.5, -1.0, 2.0, -0.1, 0.3, 0.2, -0.4, 1.5]]) > 0
        >>> codes = jh.codes_from_bytes(np.packbits(signs, axis=1), num_bits=8)
        >>> jh.unpack_bits(codes, 8).astype(int)
        array([[1, 0, 1, 0, 1, 1, 0, 1]])
    """
    num_bytes = -(-check_num_bits(num_bits) // 8)
    dtype, shape = dtype_of(packed), np.shape(packed)
    if dtype != np.uint8:
        remedy = f"; {SIGNED_BYTES}" if dtype == np.int8 else ""
        raise TypeError(f"packed must have dtype uint8, got {dtype}{remedy}")
    if not shape or shape[-1] != num_bytes:
        raise ValueError(f"packed must have {num_bytes} bytes in the last axis for {num_bits} bits, got {shape}")
    array = as_array(packed)
    if num_bits % 8 and any_known(find_padding, array, num_bits):
        raise ValueError(f"packed: padding bits must be zero, but a code has bits past {num_bits}")
    convert: Any = join_bytes if is_jax(array) else _join_bytes_on_host
    return convert(array)


def _join_bytes_on_host(packed: np.ndarray) -> np.ndarray:
    *lead, num_bytes = packed.shape
    if num_bytes % 4:
        packed = np.concatenate([packed, np.zeros((*lead, -num_bytes % 4), np.uint8)], axis=-1)
    return np.ascontiguousarray(packed).view(">u4").astype(np.uint32)


def codes_to_bytes(codes: AnyArray, num_bits: int) -> AnyArray:
    """Converts codes, uint32 `[..., w]`, to bytes, uint8 `[..., ceil(num_bits / 8)]`. Inverts `codes_from_bytes`."""
    checked = check_known_codes("codes", codes, check_num_bits(num_bits))
    convert: Any = split_bytes if is_jax(checked) else _split_bytes_on_host
    return convert(checked, num_bits)


def _split_bytes_on_host(codes: np.ndarray, num_bits: int) -> np.ndarray:
    return np.ascontiguousarray(_split_words(codes)[..., : -(-num_bits // 8)])


def _split_words(codes: np.ndarray) -> np.ndarray:
    """Splits codes `[..., w]` into bytes in the order of their bits: uint8 `[..., 4 w]`."""
    return codes.astype(">u4", order="C").view(np.uint8)


def codes_to_integers(codes: ArrayLike, num_bits: int) -> np.ndarray:
    """Converts codes of up to 64 bits, uint32 `[..., w]`, to numpy uint64 `[...]` on the host.

    Bit 0 is the most significant of the `num_bits` bits, so integers sort like codes: 0b101 is 5. (In the source post
    the first bit is the least significant; pack the bits in reverse order to get its integers.)
    """
    _check_integer_bits(num_bits)
    words = check_codes("codes", codes, num_bits).astype(np.uint64)
    high = words[..., 0] << np.uint64(32)
    whole = high | words[..., 1] if words.shape[-1] == 2 else high
    return np.asarray(whole >> np.uint64(64 - num_bits))


def _check_integer_bits(num_bits: int) -> None:
    if check_num_bits(num_bits) > 64:
        raise ValueError(
            f"num_bits must lie between 1 and 64 for integers, got {num_bits}: use codes_from_bytes and "
            f'codes_to_bytes, with x.to_bytes({-(-num_bits // 8)}, "big") of each Python integer x'
        )


def codes_from_integers(ints: AnyArray, num_bits: int) -> AnyArray:
    """Converts integers in [0, 2^num_bits), `[...]`, to codes, uint32 `[..., w]`. Inverts `codes_to_integers`.

    JAX arrays hold integers of at most 32 bits, unless `jax_enable_x64` is set; numpy arrays up to 64. Traced values
    can't be checked: only their last `num_bits` bits count.
    """
    _check_integer_bits(num_bits)
    values = as_array(ints)
    if not values.size:
        values = values.astype(np.uint32)  # numpy converts an empty list to floats
    if values.dtype.kind not in "iu":
        raise TypeError(f"ints must be an array of integers (for large ones, numpy uint64), got {values.dtype}")
    if any_known(_exceeds, values, num_bits):
        values = np.asarray(values)
        raise ValueError(f"ints must lie between 0 and 2**{num_bits} - 1, got {values.min()} to {values.max()}")
    convert: Any = pack_integers if is_jax(values) else _pack_integers_on_host
    return convert(values, num_bits)


def _exceeds(values: Any, num_bits: int) -> Any:
    """Marks integers that are negative or have more bits."""
    return values >> num_bits != 0


def _pack_integers_on_host(values: np.ndarray, num_bits: int) -> np.ndarray:
    whole = values.astype(np.uint64)[..., None] << np.uint64(64 - num_bits)
    return whole.astype(">u8", order="C").view(">u4")[..., : num_words(num_bits)].astype(np.uint32)
