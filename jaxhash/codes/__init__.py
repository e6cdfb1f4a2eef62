"""Packed binary codes: conversion, Hamming distance, and statistics of their bits.

The first bit of a code is the most significant bit of its first 32-bit word; unused low bits of the last word are zero.
Bytes are in the order of `numpy.packbits`, as in FAISS and sentence-transformers, for any number of bits. (FAISS's
`IndexLSH` numbers bits from the lowest; distances are the same.) Codes of up to 64 bits convert to integers and back.

Numpy arrays and lists give numpy arrays, computed without JAX. JAX arrays, concrete or traced, give JAX arrays on their
device. `codes_to_integers` and `bit_statistics` always give numpy arrays.

>>> import numpy as np
>>> import jaxhash as jh
>>> bits = [[1, 0, 1], [1, 1, 1]]
>>> codes = jh.pack_bits(bits)
>>> codes.shape, codes.dtype
((2, 1), dtype('uint32'))
>>> int(jh.hamming_distance(codes[0], codes[1]))
1
>>> jh.codes.codes_to_integers(codes, num_bits=3)
array([5, 7], dtype=uint64)
>>> bool((jh.codes_from_bytes(np.packbits(bits, axis=1), num_bits=3) == codes).all())
True

`bit_statistics` finds dead bits (constant over all items) and duplicated bits, among other statistics.

>>> jh.codes.bit_statistics(codes, num_bits=3).dead_bits
array([0, 2])
"""

from jaxhash.codes.bits import (
    codes_from_bytes,
    codes_from_integers,
    codes_to_bytes,
    codes_to_integers,
    first_bits,
    hamming_distance,
    pack_bits,
    unpack_bits,
)
from jaxhash.codes.statistics import BitStatistics, bit_statistics

__all__ = [
    "BitStatistics",
    "bit_statistics",
    "codes_from_bytes",
    "codes_from_integers",
    "codes_to_bytes",
    "codes_to_integers",
    "first_bits",
    "hamming_distance",
    "pack_bits",
    "unpack_bits",
]
