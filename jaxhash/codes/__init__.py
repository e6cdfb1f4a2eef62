"""Packed binary codes: conversion and Hamming distance, sorting on the host, and statistics of their bits.

`jaxhash.index` and `jaxhash.query` build on `sorting`; the names below are public.
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
