"""Metrics of search results, by labels or by true neighbors.

Labels are numbers, strings or other values that numpy can sort.
"""

import numpy as np
from jax.typing import ArrayLike

from jaxhash.core.checks import INT32_MAX, check_integer
from jaxhash.metrics.ranking import number_classes


def precision_at_k(ids: ArrayLike, labels: ArrayLike, query_labels: ArrayLike, *, k: int | None = None) -> float:
    """Computes the fraction of the first k results that have their query's label.

    Args:
        ids: int `[q, m]`, positions in `labels`, nearest first, as from `search`; empty slots (-1) count as wrong.
        labels: `[n]`, the labels of the indexed items.
        query_labels: `[q]`.
        k: how many items of each query count, from 1 to m; by default all m.

    Raises:
        ValueError: shapes don't match or are empty, an id is not a position in `labels`, or k is out of range.
        TypeError: ids or k are not integers.
    """
    classes, query_classes = _look_up_classes(ids, labels, query_labels)
    if k is not None:
        classes = classes[:, : check_integer("k", k, 1, maximum=classes.shape[1])]
    return float((classes == query_classes[:, None]).mean())


def vote_accuracy(ids: ArrayLike, labels: ArrayLike, query_labels: ArrayLike) -> float:
    """Computes the accuracy of a k-nearest-neighbor vote; the lowest label wins ties.

    Args:
        ids: int `[q, k]`, as for `precision_at_k`; empty slots have no vote.
        labels: `[n]`.
        query_labels: `[q]`.

    Raises:
        ValueError: as for `precision_at_k`.
        TypeError: ids are not integers.
    """
    classes, query_classes = _look_up_classes(ids, labels, query_labels)
    row, slot = np.nonzero(classes >= 0)
    num_classes = int(classes.max(initial=0)) + 1
    candidate, votes = np.unique(row * num_classes + classes[row, slot], return_counts=True)
    order = np.lexsort((-votes, candidate // num_classes))  # stable: the lowest of tied labels stays first
    candidate = candidate[order]
    voting, first = np.unique(candidate // num_classes, return_index=True)
    return float((candidate[first] % num_classes == query_classes[voting]).sum() / len(query_classes))


def _look_up_classes(ids: ArrayLike, labels: ArrayLike, query_labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes of the results, `[q, k]` with -1 for empty slots, and of the queries, `[q]`."""
    positions = _check_ids("ids", ids)
    if positions.ndim != 2 or np.shape(query_labels) != positions.shape[:1] or not positions.size:
        raise ValueError(
            f"ids must be [q, k] and query_labels [q], not empty, got {positions.shape} and {np.shape(query_labels)}"
        )
    item_classes, query_classes = number_classes(labels, query_labels)
    if positions.max() >= len(item_classes):
        raise ValueError(f"ids must be positions in the {len(item_classes)} labels, got {positions.max()}")
    classes = np.full(positions.shape, -1, np.int64)
    classes[positions >= 0] = item_classes[positions[positions >= 0]]
    return classes, query_classes


def recall(
    true_ids: ArrayLike,
    found_ids: ArrayLike,
    *,
    true_distances: ArrayLike | None = None,
    found_distances: ArrayLike | None = None,
) -> float:
    """Computes the fraction of the true neighbors found, over all queries together.

    Without distances, a result counts if its id is among the true ids. But the choice of the k nearest among ties is
    arbitrary. With distances, a result counts if it is no farther than the farthest true neighbor, up to the number of
    true neighbors. (As in ann-benchmarks, without its tolerance, which integers don't need.)

    Args:
        true_ids: int `[q, t]`, padded with -1.
        found_ids: int `[q, k]`, from `search` or another library; -1 is an empty slot. Duplicates for a query count
            once.
        true_distances: real numbers `[q, t]`.
        found_distances: real numbers `[q, k]`; both or neither must be given.

    Returns:
        A number in [0, 1]; 1 if there are no true neighbors.

    Raises:
        ValueError: shapes don't match, or only one kind of distances is given.
        TypeError: ids are not integers.
    """
    found, true = _check_ids("found_ids", found_ids), _check_ids("true_ids", true_ids)
    if found.ndim != 2 or true.ndim != 2 or len(found) != len(true):
        raise ValueError(f"found_ids must be [q, k] and true_ids [q, t], got {found.shape} and {true.shape}")
    true_pairs = _list_pairs(true, true >= 0)
    if found_distances is None and true_distances is None:
        hits = np.isin(true_pairs, _list_pairs(found, found >= 0)).sum()
    else:
        gaps = _check_distances("found_distances", found_distances, found)
        farthest = _check_distances("true_distances", true_distances, true).max(1, keepdims=True, initial=-np.inf)
        counts = [
            np.bincount(pairs >> 32, minlength=len(true))
            for pairs in (true_pairs, _list_pairs(found, gaps <= farthest))
        ]
        hits = np.minimum(*counts).sum()
    return float(hits / len(true_pairs)) if len(true_pairs) else 1.0


def _list_pairs(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the distinct pairs of query and id selected by a mask, as int64 with the query in the high half."""
    row, slot = np.nonzero(mask & (ids >= 0))
    return np.unique((row << 32) + ids[row, slot])


def _check_ids(name: str, ids: ArrayLike) -> np.ndarray:
    array = np.asarray(ids)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    if array.size and array.max() > INT32_MAX:
        raise ValueError(f"{name} must lie below 2^31, got {array.max()}")
    return array.astype(np.int64)


def _check_distances(name: str, distances: ArrayLike | None, ids: np.ndarray) -> np.ndarray:
    """Returns distances as float64, -inf in empty slots."""
    if distances is None or np.shape(distances) != ids.shape:
        got = None if distances is None else np.shape(distances)
        raise ValueError(
            f"{name} must have shape {ids.shape}, one for each id, got {got}; give both kinds of distances or neither"
        )
    return np.where(ids >= 0, np.asarray(distances, np.float64), -np.inf)
