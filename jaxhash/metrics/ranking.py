"""Metrics of whole rankings by distance, averaged over all orders of tied items.

Hamming distances are small integers, so rankings are mostly ties, and a metric that depends on the order of tied items
measures that order too. Average precision here is the mean over all orders of the tied items (McSherry and Najork 2008,
"Computing information retrieval performance measures efficiently in the presence of tied scores"). For codes, the
numbers of items and of relevant items at each distance from each query suffice.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.bits import hamming_distance, unpack_bits
from jaxhash.codes.weights import MAX_WEIGHT, check_weights
from jaxhash.core.checks import check_codes, check_integer, check_num_bits

# Pairs of query and item compared at a time: bounds the memory at about 100 MB.
PAIRS_PER_CHUNK = 2**22


def mean_average_precision(distances: ArrayLike, relevant: ArrayLike, *, k: int | None = None) -> float:
    """Computes the mean over queries of the average precision, expected over random orders of tied items.

    The average precision of a ranking is the mean of the precision at the rank of each relevant item. Without ties it
    equals scikit-learn's `average_precision_score` of negated distances; scikit-learn gives tied items the precision at
    the end of the tie. For codes, `distance_counts` computes the same without holding all distances.

    Args:
        distances: real numbers `[..., n]`, from each query to all items; the smallest ranks first.
        relevant: bool or 0/1 `[..., n]`, whether an item is relevant to a query.
        k: evaluates only the first k ranks. The sum of precisions is then divided by the smaller of k and the number
            of relevant items, so the best possible ranking still scores 1.

    Returns:
        A number in [0, 1]; queries without relevant items count as 0.

    Raises:
        ValueError: the shapes differ or hold no query, a distance is NaN or not a real number, `relevant` holds values
            other than 0 and 1, or k is less than 1.
    """
    gaps, hits = _check_pairs(distances, relevant)
    k = gaps.shape[1] if k is None else check_integer("k", k, 1)
    harmonic = _compute_harmonic_numbers(gaps.shape[1])
    return float(
        np.mean([_compute_average_precision(*_group_ties(*row), k, harmonic) for row in zip(gaps, hits, strict=True)])
    )


def precision_in_radius(distances: ArrayLike, relevant: ArrayLike, *, radius: float) -> float:
    """Computes the mean over queries of the precision among items within a radius.

    A query without items within the radius counts as 0, as usual in the hashing literature. Excluding such queries
    would favor long codes.

    Args:
        distances: real numbers `[..., n]`, from each query to all items.
        relevant: bool or 0/1 `[..., n]`.
        radius: the largest distance that counts (inclusive).

    Raises:
        ValueError: as for `mean_average_precision`.
    """
    gaps, hits = _check_pairs(distances, relevant)
    near = gaps <= radius
    return _average_precisions((near & hits).sum(1), near.sum(1))


def _check_pairs(distances: ArrayLike, relevant: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    gaps, hits = np.asarray(distances), np.asarray(relevant)
    if gaps.ndim == 0 or gaps.shape != hits.shape or 0 in gaps.shape[:-1]:
        raise ValueError(f"distances and relevant must both be [..., n], not empty, got {gaps.shape} and {hits.shape}")
    if gaps.dtype.kind not in "iuf" or np.isnan(gaps).any():
        raise ValueError(f"distances must be real numbers and not NaN, got dtype {gaps.dtype}")
    if hits.dtype.kind not in "biuf" or not np.isin(hits, (0, 1)).all():
        raise ValueError(f"relevant must be bool or 0/1, got dtype {hits.dtype}")
    shape = (math.prod(gaps.shape[:-1]), gaps.shape[-1])
    return gaps.reshape(shape), hits.reshape(shape).astype(bool)


def _average_precisions(hits: np.ndarray, counts: np.ndarray) -> float:
    return float((hits / np.maximum(counts, 1)).mean())


def _group_ties(distances: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts the items and the relevant items up to the end of each group of ties: two int `[g]`."""
    order = np.argsort(distances)
    ordered = distances[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(ordered))
    return ends, np.append(0, np.cumsum(relevant[order]))[ends]


def _compute_harmonic_numbers(count: int) -> np.ndarray:
    """Returns 0, 1, 1 + 1/2, ...: float64 `[count + 1]`."""
    return np.append(0.0, np.cumsum(1.0 / np.arange(1, count + 1)))


def _compute_average_precision(ends: np.ndarray, hits: np.ndarray, k: int, harmonic: np.ndarray) -> np.ndarray:
    """Computes the expected average precision from cumulative counts of items and relevant items, `[..., g]`.

    Take a group of m tied items, r of them relevant, after N items, R of them relevant. The item at rank N + j is
    relevant with probability r / m; if it is, R + 1 + (j - 1) (r - 1) / (m - 1) relevant items are expected up to it.
    Divided by the rank and summed over j, this gives a constant and a difference of harmonic numbers.
    """
    items, relevant = np.diff(ends, prepend=0), np.diff(hits, prepend=0)
    before, hits_before = np.minimum(ends - items, k), hits - relevant
    counted = np.minimum(ends, k) - before
    slope = (relevant - 1) / np.maximum(items - 1, 1)
    offset = hits_before + 1 - slope * (before + 1)
    precisions = slope * counted + offset * (harmonic[before + counted] - harmonic[before])
    total = (relevant / np.maximum(items, 1) * precisions).sum(-1)
    return np.asarray(total / np.maximum(np.minimum(hits[..., -1], k), 1))


class DistanceCounts(NamedTuple):
    """The number of items at each distance, 0 to m - 1, from each query: the input of tie-aware metrics."""

    items: np.ndarray  # int32 [q, m]; m is b + 1 for Hamming distances and 15 b + 1 for weighted ones
    relevant: np.ndarray  # int32 [q, m], items with the query's label

    def mean_average_precision(self, *, k: int | None = None) -> float:
        """Computes the same as `mean_average_precision` of all distances."""
        num_items = int(self.items[0].sum())
        k = num_items if k is None else check_integer("k", k, 1)
        harmonic, num_chunks = _compute_harmonic_numbers(num_items), self.items.size // PAIRS_PER_CHUNK + 1
        chunks = zip(*(np.array_split(counts, num_chunks) for counts in self), strict=True)
        precisions = [
            _compute_average_precision(items.cumsum(1), hits.cumsum(1), k, harmonic) for items, hits in chunks
        ]
        return float(np.concatenate(precisions).mean())

    def precision_in_radius(self, *, radius: int) -> float:
        """Computes the same as `precision_in_radius` of all distances."""
        end = check_integer("radius", radius, 0) + 1
        return _average_precisions(self.relevant[:, :end].sum(1), self.items[:, :end].sum(1))


def distance_counts(
    codes: ArrayLike,
    labels: ArrayLike,
    queries: ArrayLike,
    query_labels: ArrayLike,
    num_bits: int,
    *,
    weights: ArrayLike | None = None,
) -> DistanceCounts:
    """Counts all items, and items with the query's label, by distance from each query.

    Args:
        codes: uint32 `[n, w]`, the codes of the items.
        labels: `[n]`.
        queries: uint32 `[q, w]`, at least one.
        query_labels: `[q]`.
        num_bits: the number of bits of a code, `b`.
        weights: integers from 0 to 15, `[q, b]` or `[b]`, as for `search`; by default all 1.

    Raises:
        ValueError: numbers of codes, labels and weights differ, there is no query, codes have bits past `num_bits`, or
            a weight is out of range.
        TypeError: codes are not uint32, or weights are not integers.
    """
    check_num_bits(num_bits)
    table, rows = check_codes("codes", codes, num_bits), check_codes("queries", queries, num_bits)
    for name, array, names in (("codes", table, labels), ("queries", rows, query_labels)):
        if array.ndim != 2 or np.shape(names) != array.shape[:1]:
            raise ValueError(f"{name} must be [n, w] and their labels [n], got {array.shape} and {np.shape(names)}")
    if not len(rows):
        raise ValueError(f"queries must hold at least one code, got shape {rows.shape}")
    checked = None if weights is None else np.asarray(check_weights(weights, rows.shape[:1], num_bits)[0])
    num_distances = (num_bits if checked is None else MAX_WEIGHT * num_bits) + 1
    classes, query_classes = (numbers.astype(np.int32) for numbers in number_classes(labels, query_labels))
    items, size = jax.device_put((table, classes)), max(1, PAIRS_PER_CHUNK // max(len(table), 2 * num_distances))
    counts = np.empty((len(rows), num_distances, 2), np.int32)
    for first in range(0, len(rows), size):
        chunk = slice(first, first + size)
        batch = (rows[chunk], query_classes[chunk], None if checked is None else checked[chunk])
        cells = np.asarray(_locate_cells(*items, *batch, num_distances))
        counts[chunk] = np.bincount(cells.reshape(-1), minlength=counts[chunk].size).reshape(counts[chunk].shape)
    return DistanceCounts(counts.sum(2, dtype=np.int32), counts[..., 1])


@partial(jax.jit, static_argnums=5)
def _locate_cells(
    codes: jax.Array,
    classes: jax.Array,
    queries: jax.Array,
    query_classes: jax.Array,
    weights: jax.Array | None,
    num_distances: int,
) -> jax.Array:
    """Returns the flat position in a `[q, m, 2]` histogram of each pair of query and item: int32 `[q, n]`.

    Numpy does the counting: on CPU, XLA's scatter takes five times as long.
    """
    if weights is None:
        distances = hamming_distance(queries[:, None], codes[None])
    else:
        distances = _compute_weighted_distances(codes, queries, weights)
    rows = jnp.arange(len(queries), dtype=jnp.int32)[:, None] * num_distances
    return (rows + distances) * 2 + (classes[None] == query_classes[:, None]).astype(jnp.int32)


def _compute_weighted_distances(codes: jax.Array, queries: jax.Array, weights: jax.Array) -> jax.Array:
    """Computes the weighted distances of all pairs, int32 `[q, n]`, by one matrix product.

    A bit c of an item costs w |q - c| = w q + c w (1 - 2 q). The sums are integers below 2^24, exact in float32.
    """
    num_bits = weights.shape[1]
    weight = weights.astype(jnp.float32)
    query_bits, bits = (unpack_bits(array, num_bits).astype(jnp.float32) for array in (queries, codes))
    products = jnp.matmul(weight * (1 - 2 * query_bits), bits.T, precision="highest")
    return ((weight * query_bits).sum(1, keepdims=True) + products).astype(jnp.int32)


def number_classes(labels: ArrayLike, query_labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Maps labels of items and of queries to class numbers 0, 1, ..., in the order of the labels."""
    item_array, query_array = np.asarray(labels), np.asarray(query_labels)
    if item_array.ndim != 1:
        raise ValueError(f"labels must have shape [n], one for each item, got {item_array.shape}")
    kinds = [_name_kind(array) for array in (item_array, query_array)]
    if item_array.size and query_array.size and kinds[0] != kinds[1]:
        raise TypeError(f"labels and query_labels must be of one kind, got {kinds[0]} and {kinds[1]}")
    classes = np.unique(np.concatenate([item_array, query_array]), return_inverse=True)[1]
    return classes[: len(item_array)], classes[len(item_array) :]


def _name_kind(labels: np.ndarray) -> str:
    """Names the kind of labels; raises `TypeError` for `None`, which numpy can't sort."""
    values = labels.reshape(-1).tolist() if labels.dtype == object else []
    if any(value is None for value in values):
        raise TypeError("labels must not be None: leave out items without a label, or give them one of their own")
    if values:
        return "strings" if all(isinstance(value, str) for value in values) else "objects"
    return {"U": "strings", "S": "bytes", "O": "objects"}.get(labels.dtype.kind, "numbers")
