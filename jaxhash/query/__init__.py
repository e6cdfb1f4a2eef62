"""From codes to ids: exact search, by scanning all codes or by probing address tables.

`search` finds the k nearest items of each query, `radius_search` all items within an inclusive radius. Results are
sorted by (distance, code, id) and do not depend on the batch, device or method. If an index has fewer than k items, the
remaining slots hold `Neighbors.NO_ID` (-1) and `Neighbors.NO_DISTANCE`.

All methods are exact; "auto" picks the one with the lowest estimated cost (`plan`). "scan" compares all codes. "probe"
looks up the addresses a few flipped bits away in a bitmap of the codes' first bits, "multi_index" in one bitmap for
each of several slices of the bits. The first table takes 16 to 32 bytes per code; each further slice takes up to as
much again plus 8 bytes. Tables are built when the scans they would have saved have cost as much as building them, when
a method is requested by name, or by `prepare`. They live as long as the index object, and `describe` lists them.

Every search takes `allowed`, a mask over ids, and searches the allowed items only. `search` also takes bit weights.
Inside `jit`, `radius_search_padded` returns the first matches and their true counts.
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
