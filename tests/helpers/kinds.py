"""Every function whose results have the kind of its queries, with arguments."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import oracle

import jaxhash as jh

NUM_BITS = 40


class Case(NamedTuple):
    function: Callable  # of the queries, and of what is beside them
    queries: Any  # numpy
    beside: tuple = ()  # numpy arrays whose kind makes no difference
    traced: bool = True  # whether it can be called inside jit


def make_cases(lead, put=lambda tree: tree, seed=0):
    """Cases by name, for queries of the leading shape. `put` puts what is searched on a device."""
    rng = np.random.default_rng(seed)
    codes, count = oracle.pack(oracle.clustered(rng, 300, NUM_BITS)), int(np.prod(lead))
    queries = oracle.pack(oracle.clustered(rng, count, NUM_BITS)).reshape(*lead, 2)
    index = put(jh.build_index(codes, NUM_BITS))
    many = put(jh.build_index(codes, NUM_BITS, ids=np.arange(300) // 5, multi=True))
    tables = put(jh.build_tables(index, radius=2))
    weights = rng.integers(0, 16, (*lead, NUM_BITS), dtype=np.int32)
    allowed = rng.random(300) < 0.5
    candidates = rng.integers(-1, 300, (*lead, 20), dtype=np.int32)
    vectors, wanted = (rng.random((*shape, 6), np.float32) for shape in ((300,), lead))
    bags = np.stack([queries, queries[..., ::-1] & np.uint32(0xFF000000)], -2)
    padded = partial(jh.radius_search_padded, index, radius=2, max_results=5)
    cases = {
        "search": Case(partial(jh.search, index, k=5), queries),
        "search, scan": Case(partial(jh.search, index, k=5, method="scan"), queries),
        "search, probe": Case(partial(jh.search, index, k=5, method="probe"), queries),
        "search, weights": Case(lambda q, w: jh.search(index, q, weights=w, k=5), queries, (weights,)),
        "search, allowed": Case(lambda q, a: jh.search(index, q, allowed=a, k=5), queries, (allowed,)),
        "radius_search_padded": Case(padded, queries),
        "radius_search_padded, tables": Case(
            lambda q, a: padded(q, allowed=a, tables=tables, max_candidates=9), queries, (allowed,)
        ),
        "bag_search": Case(partial(jh.bag_search, many, radius=4, k=5), bags, traced=False),
        "rerank": Case(lambda q, ids, rows: jh.rerank(rows, q, ids, k=5), queries, (candidates, codes)),
        "rerank, weights": Case(
            lambda q, ids, rows, w: jh.rerank(rows, q, ids, weights=w, k=5), queries, (candidates, codes, weights)
        ),
        "rerank_vectors": Case(
            lambda q, ids, rows: jh.rerank_vectors(rows, q, ids, k=5), wanted, (candidates, vectors)
        ),
    }
    return cases | _retrievers(lead, put, rng)


def _retrievers(lead, put, rng):
    """Retrieving by codes alone, and by what ranks a shortlist."""
    images, wanted = (rng.integers(0, 256, (*shape, 12), dtype=np.uint8) for shape in ((300,), lead))
    model = jh.Autoencoder(12, NUM_BITS, ())
    codes, allowed = jh.encode(model, images), rng.random(300) < 0.5
    short = jh.build_index(jh.codes.first_bits(codes, 9), 9)
    retrievers = {
        "retrieve": jh.Retriever(model, jh.build_index(codes, NUM_BITS)),
        "retrieve, long codes": jh.Retriever(model, short, long_codes=codes),
        "retrieve, vectors": jh.Retriever(
            model, jh.build_index(codes, NUM_BITS), vectors=jax.device_put(images.astype(np.float32))
        ),
    }

    def make_case(retriever):
        retriever = put(retriever)
        return Case(lambda x, a: jh.retrieve(retriever, x, k=5, allowed=a, weighted=True), wanted, (allowed,))

    return {name: make_case(retriever) for name, retriever in retrievers.items()}
