"""Items with many codes each, such as one for every patch of an image: search by bags of codes.

Krizhevsky and Hinton, "Using Very Deep Autoencoders for Content-Based Image Retrieval" (ESANN 2011), find images by the
codes of their patches: each patch of the query votes for the images that have a near code, the nearer the more.

Hits come from address tables or a scan, as for a radius search. A score matrix holds, for each code of the query and
each item, the points of the item's nearest code. Far hits are written first and near ones overwrite them, so that no
maximum is needed. A compiled program adds up the rows.
"""

import math
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxhash.codes.sorting import argsort_codes, find_run_starts
from jaxhash.core.batching import entry_point, in_parallel
from jaxhash.core.checks import INT32_MAX, check_codes, check_integer, check_kind, is_traced
from jaxhash.index.hash_index import NO_ID, HashIndex, memory_of
from jaxhash.index.sharding import AnyIndex, ShardedIndex
from jaxhash.query.bags_in_shards import find_best_in_shards
from jaxhash.query.cost_model import plan_radius
from jaxhash.query.filters import check_allowed
from jaxhash.query.hits import Hits, expand_runs, find_hits

# The largest score matrix of one bag, and how many ids are written to it at a time.
SCORE_BYTES = 2**25
IDS_AT_ONCE = 2**21


class BagMatches(NamedTuple):
    """The items with the highest scores for each bag of codes, by (descending score, id)."""

    scores: jax.Array  # int32 [..., k]; 0 where fewer than k items have a code within the radius
    ids: jax.Array  # int32 [..., k]; -1 there


class Items(NamedTuple):
    """The items of an index, numbered in the order of their ids."""

    ids: np.ndarray  # int32 [items], ascending
    numbers: np.ndarray  # int32 [n], the number of the item of each pair of code and id


def bag_search(
    index: AnyIndex, query_codes: ArrayLike, *, radius: int, k: int, allowed: ArrayLike | None = None
) -> BagMatches:
    """Finds the items whose codes best match a bag of codes, exactly.

    The score of an item is a sum over the codes of the query: `2**(radius - distance)` to the item's nearest code, or 0
    if none is within the radius. A code that the query has twice counts twice.

    Args:
        index: a `HashIndex` or `ShardedIndex` of b-bit codes, usually built with `multi=True`.
        query_codes: uint32 `[..., p, w]`, the p codes of each query; one query `[p, w]` gives results `[k]`.
        radius: the largest Hamming distance that counts as a match, inclusive, at least 0.
        k: how many items to find, at least 1.
        allowed: which items may be found, bool `[m]`: `allowed[id]`, with m above the largest id; by default all.

    Returns:
        `BagMatches(scores, ids)`, both int32 `[..., k]`, by descending score, equal scores by ascending id. After the
        last matching item, scores are 0 and ids -1.

    Raises:
        ValueError: query codes or mask don't fit the index, a number is out of range, or scores could exceed int32:
            `p * 2**radius` must be below 2^31.
        TypeError: query codes are not uint32, a number is not an integer, the mask is not bool, `index` is no index,
            or an argument is traced.
    """
    check_kind("index", index, AnyIndex, "jaxhash.build_index")
    if is_traced(index, query_codes, allowed):
        raise TypeError("bag_search is driven from the host and can't be traced: call it outside jit")
    k = check_integer("k", k, 1)
    radius = check_integer("radius", radius, 0)
    codes = check_codes("query_codes", query_codes, index.num_bits)
    if codes.ndim < 2:
        raise ValueError(f"query_codes must have shape [..., p, {index.num_words}], got {codes.shape}")
    *lead, num_codes, width = codes.shape
    if radius > 30 or num_codes << radius > INT32_MAX:
        raise ValueError(f"{num_codes} codes with radius {radius} could score more than 2^31: take a smaller radius")
    mask = None if allowed is None else np.asarray(check_allowed(index, allowed))
    bags = codes.reshape(math.prod(lead), num_codes, width)
    if isinstance(index, ShardedIndex):
        # One after the other: all processes must search the same bag.
        found = [find_best_in_shards(index, *_count_codes(bag), radius, k, mask) for bag in bags]
    else:
        barred = None if mask is None else np.flatnonzero(~mask[find_items(index).ids])
        found = in_parallel(partial(_find_best, index, radius=radius, k=k, barred=barred), list(bags))
    scores, ids = (np.array([bag[field] for bag in found], np.int32).reshape(*lead, k) for field in (0, 1))
    return BagMatches(jax.device_put(scores), jax.device_put(ids))


def _find_best(
    index: HashIndex, bag: np.ndarray, radius: int, k: int, barred: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores and ids, int32 `[k]`, for one bag uint32 `[p, w]`, without the items of the barred numbers."""
    items = find_items(index)
    width = 1 << max(3, (len(items.ids) - 1).bit_length())
    codes, counts = _count_codes(bag)
    rows = min(
        max(1, SCORE_BYTES // (width * np.min_scalar_type(1 << radius).itemsize)),
        1 << max(0, len(codes) - 1).bit_length(),
    )
    totals = np.zeros(width, np.int32)
    for start in range(0, len(codes), rows):
        weights = np.zeros(rows, np.int32)
        weights[: len(counts[start : start + rows])] = counts[start : start + rows]
        scores = _score_items(index, items, codes[start : start + rows], radius, (rows, width))
        totals = _compiled_add_rows(totals, scores, weights)
    if barred is not None:
        totals = np.array(totals)
        totals[barred] = 0
    best, positions = (np.asarray(array) for array in _compiled_select_highest(totals, k=min(k, width)))
    matched = positions[best > 0]
    ids = np.append(items.ids[matched], np.full(k - len(matched), NO_ID, np.int32))
    return np.append(best[best > 0], np.zeros(k - len(matched), np.int32)), ids


def _count_codes(bag: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct codes of a bag and how often each occurs."""
    table = bag[argsort_codes(bag)]
    starts = find_run_starts(table)
    return table[starts], np.diff(np.append(starts, len(table)))


def _score_items(index: HashIndex, items: Items, codes: np.ndarray, radius: int, shape: tuple[int, int]) -> np.ndarray:
    """Returns the score matrix of codes uint32 `[at most r, w]`: `[r, items]`, `2**(radius - distance)` or 0."""
    scores = np.zeros(shape, np.min_scalar_type(1 << radius))
    row, reach = 0, min(radius, index.num_bits)
    plan = plan_radius(index, len(codes), reach, "auto", None)
    for hits in find_hits(index, codes, reach, plan):
        _write_scores(index, items, hits, radius, scores[row : row + hits.num_queries])
        row += hits.num_queries
    return scores


def _write_scores(index: HashIndex, items: Items, hits: Hits, radius: int, scores: np.ndarray) -> None:
    """Writes the scores of hits to their rows, the last hit first: of each row the nearest remains."""
    hits = Hits(hits.num_queries, hits.keys[::-1])
    first = np.asarray(index.offsets)[hits.ranks]
    sizes = np.asarray(index.offsets)[1:][hits.ranks] - first
    row = hits.queries.astype(np.int32) * np.int32(scores.shape[1])
    points = np.left_shift(1, radius - hits.distances).astype(scores.dtype)
    for run in _cut_runs(sizes):
        position = row[run].repeat(sizes[run]) + items.numbers[expand_runs(first[run], sizes[run])]
        scores.reshape(-1)[position] = points[run].repeat(sizes[run])


def _cut_runs(sizes: np.ndarray) -> list[slice]:
    """Cuts sizes `[h]` into runs that each add up to about `IDS_AT_ONCE`."""
    ends = np.cumsum(sizes, dtype=np.int64)
    marks = np.arange(IDS_AT_ONCE, ends[-1] if len(ends) else 0, IDS_AT_ONCE)
    cuts = np.unique(np.searchsorted(ends, marks) + 1)
    return [slice(begin, end) for begin, end in pairwise([0, *cuts.tolist(), len(sizes)])]


def _add_rows(totals: jax.Array, scores: jax.Array, weights: jax.Array) -> jax.Array:
    """Adds the weighted rows of a score matrix to totals int32 `[items]`.

    Row by row: a reduction over the first axis takes several times as long.
    """

    def add(total: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + row[0].astype(jnp.int32) * row[1], None

    return lax.scan(add, totals, (scores, weights))[0]


def _select_highest(totals: jax.Array, *, k: int) -> tuple[jax.Array, jax.Array]:
    """Returns the k highest totals and their positions, ties by position."""
    best, positions = lax.top_k(totals, k)
    return best, positions


_compiled_add_rows = entry_point(_add_rows)
_compiled_select_highest = entry_point(_select_highest, "k")


def find_items(index: HashIndex) -> Items:
    """Returns the items of an index. They are found once and live as long as the index."""

    def find() -> Items:
        entries = np.asarray(index.ids)[: int(index.num_items)]
        ordered = np.sort(entries)
        ids = ordered[find_run_starts(ordered)]
        consecutive = len(ids) == 0 or int(ids[-1]) == len(ids) - 1
        return Items(ids, entries if consecutive else np.searchsorted(ids, entries).astype(np.int32))

    return memory_of(index, ids=True).remember("items", find)
