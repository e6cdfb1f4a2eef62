"""From codes to ids: exact search by comparing all codes or by probing address tables, whichever should be quicker.

`search` finds the k nearest items of each query, `radius_search` all within a radius, which is inclusive. Results are
sorted by (distance, code, id), and are the same for any batch, device and method. Where there are fewer than k items,
the slots after them hold `Neighbors.NO_ID` (-1) and `Neighbors.NO_DISTANCE`.

>>> import numpy as np
>>> import jaxhash as jh
>>> codes = jh.pack_bits(np.random.default_rng(0).integers(0, 2, (1000, 16)))
>>> index, queries = jh.build_index(codes, num_bits=16), codes[:5]
>>> distances, ids = jh.search(index, queries, k=3)
>>> ids[:, 0].tolist()
[0, 1, 2, 3, 4]
>>> matches = jh.radius_search(index, queries, radius=2)
>>> first = matches.ids[matches.offsets[0] : matches.offsets[1]]  # those of query 0
>>> bool((jh.hamming_distance(codes[first], queries[0]) <= 2).all())
True

Methods are all exact; "auto" takes the one that should be quickest, by the rules in `plan`. "scan" compares all codes.
"probe" looks up the addresses a few flipped bits away in a bitmap of the codes' first bits, and "multi_index" does so
for several slices of the bits. These need tables of 16 to 32 bytes a code, and up to as much again and 8 bytes more for
each further slice. Tables are built once the scans that they would have spared have cost as much as building them, when
a method is asked for by name, or by `prepare`; they live as long as the index object, and `describe` lists them.

Every search takes `allowed`, a mask over ids, and finds what it would find if the index held the allowed items alone.
`search` takes weights of bits. Inside `jit`, `radius_search_padded` returns the first matches and their true counts.
"""

from jaxhash.index.probe_tables import ProbeTables
from jaxhash.query.bags import bag_search
from jaxhash.query.nearest import search
from jaxhash.query.pairs.items import deduplicate, duplicate_groups, neighbor_pairs
from jaxhash.query.probe.tables import build_tables, prepare
from jaxhash.query.radius import radius_search, radius_search_padded
from jaxhash.query.rerank import rerank, rerank_vectors
from jaxhash.query.results import (
    NeighborPairs,
    Neighbors,
    PaddedMatches,
    RadiusMatches,
    Redundant,
    ScoredNeighbors,
)
from jaxhash.query.several import radius_search_several, search_several

__all__ = [
    "NeighborPairs",
    "Neighbors",
    "PaddedMatches",
    "ProbeTables",
    "RadiusMatches",
    "Redundant",
    "ScoredNeighbors",
    "bag_search",
    "build_tables",
    "deduplicate",
    "duplicate_groups",
    "neighbor_pairs",
    "prepare",
    "radius_search",
    "radius_search_padded",
    "radius_search_several",
    "rerank",
    "rerank_vectors",
    "search",
    "search_several",
]
