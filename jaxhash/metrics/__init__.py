"""Metrics of searches and rankings, by labels or by true neighbors.

`neighbors` evaluates search results, `ranking` the order of all items.

>>> import jaxhash as jh
>>> jh.metrics.recall(true_ids=[[3, 8, 9, 1]], found_ids=[[3, 5, 8]])
0.5
>>> labels = [7, 7, 4]  # of the items 0, 1, 2
>>> jh.metrics.precision_at_k([[0, 2]], labels, query_labels=[7])
0.5

Items at equal distances have no defined order. So `mean_average_precision` averages over all their orders, and
`distance_counts` counts items by distance, which suffices for all such metrics.

>>> codes = jh.pack_bits([[0, 0], [0, 1], [1, 1]])
>>> counts = jh.metrics.distance_counts(codes, labels, codes[:1], [7], num_bits=2)
>>> counts.mean_average_precision()
1.0
"""

from jaxhash.metrics.neighbors import precision_at_k, recall, vote_accuracy
from jaxhash.metrics.ranking import (
    DistanceCounts,
    distance_counts,
    mean_average_precision,
    precision_in_radius,
)

__all__ = [
    "DistanceCounts",
    "distance_counts",
    "mean_average_precision",
    "precision_at_k",
    "precision_in_radius",
    "recall",
    "vote_accuracy",
]
