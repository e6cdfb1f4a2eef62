"""Measures of searches and rankings, by labels or by the true neighbours.

`neighbors` judges the items that a search found, `ranking` the order of all items. Nothing here trains or searches.
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
