"""Semantic hashing in JAX: learn short binary codes, and search them exactly by XOR and popcount.

Letters for shapes: n items, q queries, b bits, w = ceil(b / 32) words, k neighbours, u distinct codes.
"""

from jaxhash.bits import (
    codes_from_bytes,
    codes_from_integers,
    codes_to_bytes,
    codes_to_integers,
    hamming_distance,
    pack_bits,
    unpack_bits,
)
from jaxhash.index import HashIndex, IndexStats, build_index, describe, expected_matches, suggest_num_bits
from jaxhash.matches import RadiusMatches
from jaxhash.search import Neighbors, PaddedMatches, radius_search, radius_search_padded, search
