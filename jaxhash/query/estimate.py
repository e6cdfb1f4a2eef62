"""Estimating the number of matches from a sample of queries."""

import numpy as np
from jax.typing import ArrayLike

from jaxhash.index.hash_index import HashIndex
from jaxhash.query.nearest import radius_search_padded


def estimate_matches(index: HashIndex, queries: ArrayLike, radius: int) -> float:
    """Returns the mean number of items within `radius` of a query, over a sample of queries.

    `expected_matches` assumes that codes spread evenly. Learned codes are denser where the queries are, so that many
    times as many items can match. A few hundred queries suffice, if they are drawn like those to come. An indexed item
    also matches itself.

    Args:
        index: a `HashIndex` of b-bit codes.
        queries: codes, uint32 `[..., w]`, at least one.
        radius: the largest Hamming distance that counts as a match, inclusive.

    Raises:
        ValueError: there are no queries, they don't fit the index, or the radius is negative.
        TypeError: queries are not uint32.
    """
    counts = np.asarray(radius_search_padded(index, queries, radius=radius, max_results=1).counts)
    if not counts.size:
        raise ValueError(f"queries must hold at least one code, got shape {np.shape(queries)}")
    return float(counts.mean(dtype=np.float64))
