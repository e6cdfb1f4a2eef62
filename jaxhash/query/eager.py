"""The nearest items of queries that are known now, by the method that should be quickest."""

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxhash.core.checks import INT32_MAX, is_on_host
from jaxhash.index.hash_index import HashIndex
from jaxhash.query.cost_model import Plan, choose_nearest, plan_widening, sizes_of
from jaxhash.query.few_queries import search_few
from jaxhash.query.host_selection import MOST_CODES
from jaxhash.query.results import Neighbors
from jaxhash.query.timings import timed, timings_of
from jaxhash.query.widening import probe_widening

Scan = Callable[[Any], Neighbors]


def search_by(index: HashIndex, queries: Any, k: int, method: str, allowed: Any, scan: Scan) -> Neighbors:
    """Finds the k nearest items of queries uint32 `[..., w]`.

    Args:
        index: a `HashIndex`.
        queries: a numpy or JAX array, not traced.
        k: how many items to find.
        method: "auto" or "probe".
        allowed: which items may be found, bool `[m]`, or `None`.
        scan: the compiled search of queries.
    """
    among, count = _scale_to_all(k, allowed), math.prod(queries.shape[:-1])
    if method == "probe":
        plans = plan_widening(index, among)
        return _probe(index, queries, k, plans, allowed, scan) if plans else scan(queries)
    few = count > 0 and sizes_of(index).num_codes <= MOST_CODES
    host = few and allowed is None and is_on_host(index.codes)
    chosen, alone = choose_nearest(index, count, among, host=host)
    find = scan
    if chosen.method == "host":
        find = partial(_search_on_host, index, k=k, scan=scan)
    elif chosen.slices:
        find = partial(_probe, index, k=k, plans=chosen.method, allowed=allowed, scan=scan)
    key = ("nearest", among), chosen.method
    if alone or (find is scan and timings_of(index).is_settled(key, count)):
        return find(queries)
    with timed(index, key, count):  # of scans only a few, as callers may want to go on while they run
        return jax.block_until_ready(find(queries))


_host = threading.Lock()


def _search_on_host(index: HashIndex, queries: Any, k: int, scan: Scan) -> Neighbors:
    """Finds the k nearest items in numpy, if no other thread does so, or else by a scan.

    Several threads would wait for Python's lock at each call of numpy, and together find half as much as one alone.
    """
    if not _host.acquire(blocking=False):
        return scan(queries)
    try:
        return search_few(index, queries, k)
    finally:
        _host.release()


def _scale_to_all(k: int, allowed: Any) -> int:
    """Among about how many of the nearest items there are k allowed ones."""
    if allowed is None:
        return k
    return min(INT32_MAX, k * allowed.size // max(1, int(np.count_nonzero(np.asarray(allowed)))))


def _probe(index: HashIndex, queries: Any, k: int, plans: Sequence[Plan], allowed: Any, scan: Scan) -> Neighbors:
    """Finds the k nearest allowed items by probing; queries that probing leaves unfinished are scanned."""
    flat, lead = np.asarray(queries).reshape(-1, index.num_words), queries.shape[:-1]
    distances, ids, unfinished = probe_widening(index, flat, k, plans, allowed)
    if len(unfinished):
        distances[unfinished], ids[unfinished] = scan(flat[unfinished])
    return Neighbors(jax.device_put(distances.reshape(*lead, k)), jax.device_put(ids.reshape(*lead, k)))
