"""From codes to ids: exact search by scanning all codes or by probing address tables, whichever is quicker.

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

Methods. "auto" takes the one that a model of costs (`cost_model`) expects to be quickest; all are exact.

- "scan" compares the query with all codes. It keeps the least distance of each group of 16 codes, and looks again only
  into groups that can hold an answer. It is what runs inside `jit`, and on shards for k neighbours.
- "probe" looks up the addresses a few flipped bits away in a bitmap of the codes' first bits. For short codes and small
  radii its cost hardly grows with the collection. For `search` it widens the radius until k items are found.
- "multi-index", for `radius_search` in long codes, probes several slices of the bits: a code within the radius is near
  in one of them (Norouzi, Punjani and Fleet 2012). `num_tables` sets the number of slices.

The last two need tables: 16 to 32 bytes a code for the first bits, up to as much again and 8 bytes more for each
further slice. They are built when the time lost without them exceeds that of building, when a method is asked for by
name, or by `prepare`. They live as long as the index object; `describe(index).tables` lists them, its
`kept_bytes` is their memory, and `save_index(path, index, tables=True)` has them built again when the file is loaded.

>>> index = jh.prepare(index, radius=1)
>>> probed = jh.radius_search(index, queries, radius=1, method="probe")
>>> scanned = jh.radius_search(index, queries, radius=1, method="scan")
>>> bool((probed.ids == scanned.ids).all())
True

Weights. `weighted_search` finds the nearest by the sum of the weights, 0 to 15, of the bits that differ;
`encode_weighted` returns codes with such weights, the model's certainty of each bit. The index is the same.

>>> heavy_first = np.repeat([15, 1], 8)  # the first 8 bits count most
>>> jh.weighted_search(index, queries, heavy_first, k=3).ids.shape
(5, 3)

Filters. Every search takes `allowed`, a boolean for each id, and finds what it would find if the index held the allowed
items alone. One compiled program serves all masks, also traced ones.

>>> even = np.arange(1000) % 2 == 0
>>> set((np.asarray(jh.search(index, queries, k=3, allowed=even).ids) % 2).ravel().tolist())
{0}

Pairs. `neighbor_pairs` lists all pairs of items within a radius, each once. `deduplicate` returns the items that may go
because a near one stays, and which one that is.

>>> pairs = jh.neighbor_pairs(index, radius=0)
>>> bool((pairs.first < pairs.second).all())
True
>>> removed, kept = jh.deduplicate(index, radius=0)
>>> len(removed) == 1000 - int(index.num_codes)
True

Several indexes, in a list, are searched as one, so that there may be more than 2^31 items; `id_offsets` tells their ids
apart, which are then int64.

Inside `jit`, where shapes are fixed, `radius_search_padded` returns the first `max_results` matches and the true
counts. `probe_padded` does so by tables that are arguments of the program, in 1/9 of the time at 1,000,000 codes of 28
bits and 1/70 at 10,000,000; `complete` tells for which queries there was room enough.

>>> tables = jh.build_tables(index, radius=1)
>>> found = jh.probe_padded(index, tables, queries, radius=1, max_candidates=64, max_results=64)
>>> bool(found.complete.all()) and found.counts.tolist() == np.diff(probed.offsets).tolist()
True
"""

from jaxhash.query.bags import BagMatches, bag_search
from jaxhash.query.duplicates import Redundant, deduplicate, duplicate_groups
from jaxhash.query.estimate import estimate_matches
from jaxhash.query.nearest import radius_search_padded, search
from jaxhash.query.pairs import NeighborPairs, neighbor_pairs
from jaxhash.query.prepare import prepare
from jaxhash.query.probe_padded import probe_padded
from jaxhash.query.probe_tables import ProbeTables, build_tables
from jaxhash.query.radius import radius_search
from jaxhash.query.reranking import rerank
from jaxhash.query.results import Neighbors, PaddedMatches, ProbedMatches, RadiusMatches, ScoredNeighbors
from jaxhash.query.vector_reranking import rerank_vectors
from jaxhash.query.weighted import weighted_search

__all__ = [
    "BagMatches",
    "NeighborPairs",
    "Neighbors",
    "PaddedMatches",
    "ProbeTables",
    "ProbedMatches",
    "RadiusMatches",
    "Redundant",
    "ScoredNeighbors",
    "bag_search",
    "build_tables",
    "deduplicate",
    "duplicate_groups",
    "estimate_matches",
    "neighbor_pairs",
    "prepare",
    "probe_padded",
    "radius_search",
    "radius_search_padded",
    "rerank",
    "rerank_vectors",
    "search",
    "weighted_search",
]
