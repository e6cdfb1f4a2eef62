"""From codes to ids: exact search by scanning all codes or by probing address tables, whichever is quicker.

The public functions check and batch; `kernels` and `probe` do the work; `cost_model` chooses between them.
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
