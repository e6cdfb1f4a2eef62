"""What do the steps of a search take on this machine? `python tests/benchmarks/calibrate.py`

Prints a row for the table in `jaxhash/query/costs.py`, by which the method "auto" chooses. It takes half a minute on an
idle machine, and means nothing on a busy one.
"""

import statistics
import time

import jax
import numpy as np

import jaxhash as jh
from jaxhash.index.address_table import Slice, build_table, get_tables
from jaxhash.index.hash_index import code_runs
from jaxhash.query.cost_model import Plan, count_probes
from jaxhash.query.costs import Costs, describe_processor
from jaxhash.query.few_queries import search_few
from jaxhash.query.hits import Hits, find_hits, matches_of_hits
from jaxhash.query.kernels import group_minima
from jaxhash.query.probe import probe

RNG = np.random.default_rng(0)
QUERIES = 256
SECONDS = 0.5  # for each figure
NEAR, FAR = 22, 28  # bits of addresses whose bitmaps fit the caches, or don't


def nanoseconds(function):
    """The median time of a call."""
    jax.block_until_ready(function())
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter_ns()
        jax.block_until_ready(function())
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times)


def random_codes(n):
    return RNG.integers(0, 2**32, (n, 2), dtype=np.uint32)


def first_hits(index, queries, bits, radius):
    return next(find_hits(index, queries, radius, Plan((Slice(0, bits),), (radius,), 0.0)))


def measure_scans(n):
    """Of n codes, and of few to see what a call costs."""
    index, few = (jh.build_index(random_codes(count), 64) for count in (n, 1000))
    queries, minima = random_codes(QUERIES), jax.jit(group_minima)
    alone = nanoseconds(lambda: minima(index.codes, queries)) / QUERIES
    small, large = (nanoseconds(lambda k=k: jh.search(index, queries, k=k, method="scan")) / QUERIES for k in (1, 31))
    return {
        "scan_call": nanoseconds(lambda: list(find_hits(few, queries[:1], 0, None))),
        "search_call": nanoseconds(lambda: jh.search(few, queries[0], k=1, method="scan")),
        "scan_word": alone / index.codes.size,
        "select": max(0.0, large - small) / 30,
        "scan_query": nanoseconds(lambda: jh.search(few, queries, k=1, method="scan")) / QUERIES,
    }


def measure_matches(n):
    """One query that has a hundred matches, far apart among n codes, asked over and over; and one that has none."""
    codes, query = random_codes(n), random_codes(1)
    codes[:100] = query ^ (np.uint32(1) << RNG.integers(0, 32, (100, 2), dtype=np.uint32))  # two bits differ
    index = jh.build_index(codes, 64)
    found = len(jh.radius_search(index, query, radius=2).ids)
    some, none = (
        nanoseconds(lambda asked=asked: jh.radius_search(index, asked, radius=2, method="scan"))
        for asked in (np.repeat(query, QUERIES, axis=0), np.repeat(~query, QUERIES, axis=0))
    )
    return {"scan_match": max(0.0, some - none) / QUERIES / found}


def measure_probes(n):
    """By tables of few codes, so that nearly nothing is found; then by buckets that hold a hundred codes each."""
    index, queries = jh.build_index(random_codes(min(n, 10_000)), 64), random_codes(16 * QUERIES)
    near, far = get_tables(index, (Slice(0, NEAR), Slice(0, FAR)))

    def per_word(table):
        one, two = (nanoseconds(lambda radius=radius: probe(table, queries, radius)) for radius in (1, 2))
        words = count_probes(table.bits.size, 2) - count_probes(table.bits.size, 1)
        return max(0.0, two - one) / len(queries) / words

    dense, bits = jh.build_index(random_codes(n), 64), max(1, n.bit_length() - 7)
    table = get_tables(dense, (Slice(0, bits),))[0]
    asked = queries[:QUERIES]
    candidates = int(probe(table, asked, 0).sizes.sum())
    compared = nanoseconds(lambda: first_hits(dense, asked, bits, 0)) - nanoseconds(lambda: probe(table, asked, 0))
    return {
        "table_call": nanoseconds(lambda: probe(near, queries[:1], 2)),
        "fill_call": nanoseconds(lambda: matches_of_hits(index, [Hits(1, np.arange(9, dtype=np.uint64))])),
        "probe_query": nanoseconds(lambda: probe(near, queries, 0)) / len(queries),
        "probe_near": per_word(near),
        "probe_far": per_word(far),
        "candidate": max(0.0, compared) / max(1, candidates),
    }


def measure_builds(n):
    """Of four tables at a time, in two threads, and of the one of the first bits."""
    index = jh.build_index(random_codes(n), 64)

    def build(slices):
        return nanoseconds(lambda: get_tables(jax.tree.map(lambda array: array, index), slices)) / n / len(slices)

    return {
        "build": build(tuple(Slice(first, 16) for first in (16, 24, 32, 48))),
        "build_sorted": nanoseconds(lambda: build_table(code_runs(index), Slice(0, 26)).bitmap) / n,
    }


def measure_host(n):
    """One query among few codes and among many."""
    few, index, query = jh.build_index(random_codes(1000), 64), jh.build_index(random_codes(n), 64), random_codes(1)[0]
    call, whole = (nanoseconds(lambda index=index: search_few(index, query, 10)) for index in (few, index))
    return {"host_query": call, "host_word": max(0.0, whole - call) / index.codes.size}


def measure(n):
    """All costs on this machine, from indexes of n codes."""
    part = max(2000, n // 16)
    figures = measure_scans(n) | measure_matches(part) | measure_probes(n) | measure_builds(n) | measure_host(part)
    return Costs(counts_in_vectors=describe_processor()[1], **figures)


def main(n=10**6):
    print(f'    "{describe_processor()[0]}": Costs(')
    for name, figure in measure(n)._asdict().items():
        print(f"        {name}={figure if isinstance(figure, bool) else float(f'{figure:.2g}')},")
    print("    ),")


if __name__ == "__main__":
    main()
