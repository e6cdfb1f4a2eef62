"""The public names of searching; `jaxhash.query` holds the code."""

from jaxhash.query.matches import RadiusMatches
from jaxhash.query.nearest import (
    RADIUS_METHODS,
    SEARCH_METHODS,
    WORTH_TWO_THREADS,
    check_places,
    radius_search,
    radius_search_padded,
    search,
)
from jaxhash.query.scan import AnyIndex, Neighbors, PaddedMatches

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
