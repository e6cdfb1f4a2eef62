"""How good codes are for retrieval, judged by labels that training never saw."""

import numpy as np
from jax.typing import ArrayLike


def precision_at_k(ids: ArrayLike, labels: ArrayLike, query_labels: ArrayLike) -> float:
    """The share of found items that bear their query's label.

    Args:
        ids: int `[q, k]`, positions in `labels`, as `search` finds them; places filled with -1 count as wrong.
        labels: `[n]`, the labels of the indexed items.
        query_labels: `[q]`.
    """
    found, wanted = _labels_found(ids, labels, query_labels)
    return float((found == wanted[:, None]).mean())


def vote_accuracy(ids: ArrayLike, labels: ArrayLike, query_labels: ArrayLike) -> float:
    """The share of queries whose label is the most frequent among the found items; of equals, the lowest label wins.

    Args:
        ids: int `[q, k]`, as for `precision_at_k`.
        labels: int `[n]`, at least 0.
        query_labels: int `[q]`.
    """
    found, wanted = _labels_found(ids, labels, query_labels)
    num_labels = int(max(found.max(initial=0), wanted.max(initial=0))) + 1
    votes = np.zeros((len(found), num_labels + 1), np.int64)  # the last column takes the votes of empty places
    np.add.at(votes, (np.arange(len(found))[:, None], found), 1)
    elected = np.where(votes[:, :num_labels].any(1), votes[:, :num_labels].argmax(1), -1)
    return float((elected == wanted).mean())


def _labels_found(ids: ArrayLike, labels: ArrayLike, query_labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the found items, -1 for empty places, `[q, k]`, and of the queries, `[q]`."""
    places, known, wanted = np.asarray(ids), np.asarray(labels), np.asarray(query_labels)
    if places.ndim != 2 or wanted.shape != places.shape[:1] or not places.size:
        raise ValueError(f"ids must be [q, k] and query_labels [q], not empty, got {places.shape} and {wanted.shape}")
    if places.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers, got dtype {places.dtype}")
    if places.size and places.max() >= len(known):
        raise ValueError(f"ids must be positions in labels, of which there are {len(known)}, got {places.max()}")
    found = np.full(places.shape, -1, known.dtype)
    found[places >= 0] = known[places[places >= 0]]
    return found, wanted
