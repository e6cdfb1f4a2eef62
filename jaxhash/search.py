"""The public names of searching; `jaxhash.query` holds the code."""

from jaxhash.core.checks import check_slots as check_places
from jaxhash.index.sharding import AnyIndex
from jaxhash.query.nearest import SEARCH_METHODS, WORTH_TWO_THREADS, radius_search_padded, search
from jaxhash.query.radius import RADIUS_METHODS, radius_search
from jaxhash.query.results import Neighbors, PaddedMatches, RadiusMatches

__all__ = [
    "RADIUS_METHODS",
    "SEARCH_METHODS",
    "WORTH_TWO_THREADS",
    "AnyIndex",
    "Neighbors",
    "PaddedMatches",
    "RadiusMatches",
    "check_places",
    "radius_search",
    "radius_search_padded",
    "search",
]
