"""Every conversion whose results have the kind of its arguments, with arguments and the results of the slow form."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import oracle

import jaxhash as jh


class Case(NamedTuple):
    convert: Callable
    arrays: tuple
    expected: np.ndarray


def make_cases(lead, num_bits, seed=0):
    """Cases by name, for random bits `[*lead, num_bits]`; integers have at most 64."""
    rng = np.random.default_rng(seed)
    bits, other = rng.random((2, *lead, num_bits)) < 0.5
    few = int(rng.integers(1, num_bits + 1))
    codes, packed = _pack(bits), _pack(bits, np.uint8)
    cases = {
        "pack_bits": Case(jh.pack_bits, (bits,), codes),
        "unpack_bits": Case(partial(jh.unpack_bits, num_bits=num_bits), (codes,), bits),
        "first_bits": Case(partial(jh.codes.first_bits, num_bits=few), (codes,), _pack(bits[..., :few])),
        "hamming_distance": Case(jh.hamming_distance, (codes, _pack(other)), (bits != other).sum(-1, dtype=np.int32)),
        "codes_from_bytes": Case(partial(jh.codes_from_bytes, num_bits=num_bits), (packed,), codes),
        "codes_to_bytes": Case(partial(jh.codes_to_bytes, num_bits=num_bits), (codes,), packed),
    }
    if num_bits <= 64:
        powers = 2 ** np.arange(num_bits - 1, -1, -1, dtype=object)
        ints = np.array((bits * powers).sum(-1), np.uint32 if num_bits <= 32 else np.uint64)
        cases["codes_from_integers"] = Case(partial(jh.codes.codes_from_integers, num_bits=num_bits), (ints,), codes)
    return cases


def _pack(bits, dtype=np.uint32):
    words = oracle.pack(bits.reshape(-1, bits.shape[-1]), dtype)
    return words.reshape(*bits.shape[:-1], words.shape[-1])
