"""Packed binary codes: conversion and Hamming distance, sorting on the host, and statistics of their bits.

The first bit of a code is the highest of its first 32-bit word; unused low bits of the last word are zero. Bytes keep
the order of `numpy.packbits`, which FAISS and sentence-transformers use, for any number of bits. (FAISS's `IndexLSH`
numbers bits from the lowest; distances come out the same.) Codes of up to 64 bits convert to integers and back.

Arrays answer in kind. Numpy arrays and lists give numpy arrays, which numpy computes alone. JAX arrays, concrete or
traced, give JAX arrays on their device. `codes_to_integers` and `bit_statistics` always give numpy arrays.

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

`bit_statistics` shows how codes use their bits: which are dead (the same for all items) and which are copies of others.

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
