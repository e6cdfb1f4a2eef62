"""How good codes are for retrieval: what a search found, judged by labels or by the true neighbours.

Whole rankings are judged in `ranking`, codes without labels in `code_statistics`; their measures can be had from here
as well. Labels may be whatever numpy can sort, numbers or strings.
"""

import numpy as np
from jax.typing import ArrayLike

from jaxhash.core.checks import INT32_MAX
from jaxhash.metrics.ranking import (
    number_classes,
)


def precision_at_k(ids: ArrayLike, labels: ArrayLike, query_labels: ArrayLike) -> float:
    """The share of found items that bear their query's label.

    Args:
        ids: int `[q, k]`, positions in `labels`, as `search` finds them; places filled with -1 count as wrong.
        labels: `[n]`, the labels of the indexed items.
        query_labels: `[q]`.
    """
    found, wanted = _classes_found(ids, labels, query_labels)
    return float((found == wanted[:, None]).mean())


def vote_accuracy(ids: ArrayLike, labels: ArrayLike, query_labels: ArrayLike) -> float:
    """The share of queries whose label is the most frequent among the found items; of equals, the lowest label wins.

    Args:
        ids: int `[q, k]`, as for `precision_at_k`; empty places have no vote.
        labels: `[n]`.
        query_labels: `[q]`.
    """
    found, wanted = _classes_found(ids, labels, query_labels)
    row, place = np.nonzero(found >= 0)
    num_classes = int(found.max(initial=0)) + 1
    candidate, votes = np.unique(row * num_classes + found[row, place], return_counts=True)
    candidate = candidate[np.lexsort((-votes, candidate // num_classes))]  # stable: of equals the lowest stays first
    voting, first = np.unique(candidate // num_classes, return_index=True)
    return float((candidate[first] % num_classes == wanted[voting]).sum() / len(wanted))


def _classes_found(ids: ArrayLike, labels: ArrayLike, query_labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers of the found items, -1 for empty places, `[q, k]`, and of the queries, `[q]`."""
    places = _legal_ids("ids", ids)
    if places.ndim != 2 or np.shape(query_labels) != places.shape[:1] or not places.size:
        raise ValueError(
            f"ids must be [q, k] and query_labels [q], not empty, got {places.shape} and {np.shape(query_labels)}"
        )
    known, wanted = number_classes(labels, query_labels)
    if places.max() >= len(known):
        raise ValueError(f"ids must be positions in labels, of which there are {len(known)}, got {places.max()}")
    found = np.full(places.shape, -1, np.int64)
    found[places >= 0] = known[places[places >= 0]]
    return found, wanted


def recall(
    found_ids: ArrayLike,
    true_ids: ArrayLike,
    found_distances: ArrayLike | None = None,
    true_distances: ArrayLike | None = None,
) -> float:
    """The share of the true neighbours, of all queries together, that were found.

    Which of several items at one distance are among the k nearest is arbitrary. Where distances are given, an item
    counts as found if it lies no further than the furthest true neighbour, and so many count as there are true ones
    (as in ann-benchmarks, without its tolerance, of which whole numbers have no need); else its id must be a true one.

    Args:
        found_ids: int `[q, k]`, as `search` or another library finds them. -1 is an empty place; an id that a query
            found twice counts once.
        true_ids: int `[q, t]`, -1 behind the last.
        found_distances: real numbers `[q, k]`.
        true_distances: real numbers `[q, t]`; both or neither must be given.

    Returns:
        A number from 0 to 1; it is 1 if there are no true neighbours to miss.

    Raises:
        ValueError: shapes don't go together, or only one kind of distances is given.
        TypeError: ids are not integers.
    """
    found, true = _legal_ids("found_ids", found_ids), _legal_ids("true_ids", true_ids)
    if found.ndim != 2 or true.ndim != 2 or len(found) != len(true):
        raise ValueError(f"found_ids must be [q, k] and true_ids [q, t], got {found.shape} and {true.shape}")
    wanted = _pairs(true, true >= 0)
    if found_distances is None and true_distances is None:
        hits = np.isin(wanted, _pairs(found, found >= 0)).sum()
    else:
        gaps = _legal_distances("found_distances", found_distances, found)
        reach = _legal_distances("true_distances", true_distances, true).max(1, keepdims=True, initial=-np.inf)
        counts = [np.bincount(pairs >> 32, minlength=len(true)) for pairs in (wanted, _pairs(found, gaps <= reach))]
        hits = np.minimum(*counts).sum()
    return float(hits / len(wanted)) if len(wanted) else 1.0


def _pairs(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The distinct pairs of query and id in chosen places, each as one int64 with the query in its upper half."""
    row, place = np.nonzero(mask & (ids >= 0))
    return np.unique((row << 32) + ids[row, place])


def _legal_ids(name: str, ids: ArrayLike) -> np.ndarray:
    array = np.asarray(ids)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    if array.size and array.max() > INT32_MAX:
        raise ValueError(f"{name} must lie below 2^31, got {array.max()}")
    return array.astype(np.int64)


def _legal_distances(name: str, distances: ArrayLike | None, ids: np.ndarray) -> np.ndarray:
    """Distances as float64, -inf where there is no id."""
    if distances is None or np.shape(distances) != ids.shape:
        got = None if distances is None else np.shape(distances)
        raise ValueError(
            f"{name} must have shape {ids.shape}, one for each id, or be left out like the other, got {got}"
        )
    return np.where(ids >= 0, np.asarray(distances, np.float64), -np.inf)
