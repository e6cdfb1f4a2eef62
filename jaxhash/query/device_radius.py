"""All items within a radius by probing on an accelerator: a program for each batch, of which only matches are fetched.

On CPU, where the host reads the codes without a transfer, numpy puts matches together sooner: see `hits`.
"""

from functools import partial

import jax
import numpy as np

from jaxhash.core.checks import INT32_MAX, is_on_host
from jaxhash.index.hash_index import NO_ID, HashIndex, memory_of
from jaxhash.query.cost_model import Plan
from jaxhash.query.hits import find_hits, matches_of_hits
from jaxhash.query.probe_padded import probe_padded
from jaxhash.query.probe_tables import build_tables
from jaxhash.query.results import RadiusMatches

# Room for the candidates and matches of a query: those that have more are probed again, in the end by the host.
ROOMS = (2**8, 2**12)


def probes_on_device(index: HashIndex, plan: Plan) -> bool:
    """Whether to probe on the device that holds the index."""
    return not is_on_host(index.codes) and len(plan.slices) * (index.capacity + 1) <= INT32_MAX


def probe_on_device(
    index: HashIndex, queries: np.ndarray, radius: int, plan: Plan, allowed: np.ndarray | None
) -> RadiusMatches:
    """All matches of queries uint32 `[q, w]` among the items that a mask by id allows, by the tables of a plan."""
    build = partial(build_tables, index, radius=radius, num_tables=len(plan.slices))
    tables = memory_of(index).remember(("device tables", plan.slices), build)
    left, parts = np.arange(len(queries)), []
    for room in ROOMS:
        if len(left):
            probed = probe_padded(index, tables, queries[left], radius=radius, max_candidates=room, max_results=room)
            found = jax.device_get(probed)
            done = found.complete & (found.counts <= room)
            row, slot = np.nonzero(found.ids[done] != NO_ID)
            parts.append((left[done][row], found.distances[done][row, slot], found.ids[done][row, slot]))
            left = left[~done]
    rest = matches_of_hits(index, find_hits(index, queries[left], radius, plan))
    parts.append((left[np.repeat(np.arange(len(left)), np.diff(rest.offsets))], rest.distances, rest.ids))
    query, distances, ids = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    kept = np.ones(len(ids), bool) if allowed is None else allowed[ids]
    order = np.argsort(query[kept], kind="stable")
    offsets = np.append(0, np.cumsum(np.bincount(query[kept], minlength=len(queries))))
    return RadiusMatches(offsets, distances[kept][order], ids[kept][order])
