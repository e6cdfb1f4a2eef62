"""Speed of k-nearest search compared with peers: `python tests/benchmarks/search.py [CASE ...]`

For each row, jaxhash and the peer take turns in one process, with the same number of threads and numpy queries. The
first call, which compiles and builds, is printed separately. Needs faiss-cpu, and for some rows usearch and pynear;
without them, rows show only jaxhash. `--device` puts queries on the default device, and needs no peer.
"""

import importlib.util
import resource
import statistics
import threading
import time

import comparing
import numpy as np
from comparing import RNG, Case, clustered, medians, seconds, uniform, wait

import jaxhash as jh
from jaxhash.codes.distances import Queries
from jaxhash.query.hits import matches_of_hits
from jaxhash.query.scan.host import nearest_hits

MILLION = 10**6
SCALE = 1  # the tests divide sizes by it


def nearest(table, case, k, mark=""):
    """Prints a row; a single query has no leading axis, so it needs no padding."""
    n, q = len(case.bits), len(case.queries)
    flat, queries = case.faiss("IndexBinaryFlat"), table.place(case.queries if q > 1 else case.queries[0])
    table.compare(
        f"k={k}, {n:,} codes of {case.num_bits} bits, batch {q}: FAISS Flat",
        lambda: jh.search(case.index, queries, k=k),
        flat and (lambda: flat.search(case.packed_queries, k)),
        q,
        mark,
    )


def single(table):
    for n, mark in ((1000, 0.45), (15_000, 0.65), (65_536, 1.2), (MILLION, 3)):
        nearest(table, Case(*uniform(n // SCALE, 1, 64)), 10, mark)


def batches(table):
    for num_bits, mark in ((32, 16), (64, 12), (256, 5), (512, 3), (1024, 4)):
        nearest(table, Case(*uniform(MILLION // SCALE, 256, num_bits)), 10, mark)


def selection(table):
    marks = {(65_536, 10): 8, (65_536, 100): 3, (MILLION, 100): 9, (MILLION, 1000): 4}
    for n in (15_000, 65_536, MILLION, 10 * MILLION):
        case = Case(*uniform(n // SCALE, 256, 64))
        for k in (1, 10, 100, 1000):
            nearest(table, case, k, marks.get((n, k), ""))


def options(table):
    """Times weights, and a mask of half of the items, compared with FAISS without either."""
    n = MILLION // SCALE
    case = Case(*uniform(n, 256, 64))
    flat, queries = case.faiss("IndexBinaryFlat"), table.place(case.queries)
    peer = flat and (lambda: flat.search(case.packed_queries, 10))
    weights = RNG.integers(0, 16, (256, 64))
    name = f"k=10, {n:,} codes of 64 bits, batch 256"
    ours = lambda: jh.search(case.index, queries, k=10, weights=weights)  # noqa: E731
    table.compare(f"{name}, weights of 0 to 15: FAISS Flat without", ours, peer, 256)
    allowed = RNG.random(n) < 0.5
    ours = lambda: jh.search(case.index, queries, k=10, allowed=allowed)  # noqa: E731
    table.compare(f"{name}, half of them allowed: FAISS Flat of all", ours, peer, 256)


def overhead(table):
    """Measures the overhead of a call from Python over the chosen method."""
    case = Case(*uniform(15_000 // SCALE, 256, 64))
    query = case.queries[0]

    def work():
        return matches_of_hits(case.index, nearest_hits(case.index, Queries(query[None]), 10), first=10)

    call, work = medians(lambda: jh.search(case.index, query, k=10), work)
    table.note("k=10, 15,000 codes, one query: the call less its work in numpy", f"{(call - work) * 1e6:.1f}", "12 us")


def threads(table):
    case = Case(*uniform(65_536 // SCALE, 256, 64))

    def ask(count):
        for i in range(count):
            wait(jh.search(case.index, case.queries[i % 256], k=10))

    def rate(workers, count=2000 // SCALE):
        together = [threading.Thread(target=ask, args=(count // workers,)) for _ in range(workers)]
        start = time.perf_counter()
        for thread in together:
            thread.start()
        for thread in together:
            thread.join()
        return count / (time.perf_counter() - start)

    rate(1)
    one, eight = (statistics.median(rate(workers) for _ in range(3)) for workers in (1, 8))
    table.note("65,536 codes, single queries a second: 1 thread", f"{one:.0f}")
    table.note("65,536 codes, single queries a second: 8 threads over 1", f"{eight / one:.2f}", 1.7)


def shapes(table):
    """Counts the programs for 200 shapes, and times the first call with a million codes."""
    import jax

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    case = Case(*uniform(MILLION // SCALE, 256, 64))
    table.note("k=10, 1,000,000 codes, the first call, s", f"{seconds(lambda: first_call(case)):.2f}", 2)
    compiled.clear()
    for _ in range(200):
        count, words = int(RNG.integers(1, 300)), int(RNG.integers(1, 3))
        jh.search(case.index, case.queries[np.arange(count * words).reshape(count, words) % 256], k=10)
    table.note("k=10, 200 odd shapes of queries: programs compiled", len(compiled), 12)


def first_call(case):
    case.index  # noqa: B018 (built, if it is not yet)
    return jh.search(case.index, case.queries, k=10)


def inexact(table):
    n = MILLION // SCALE
    case = Case(*clustered(n, 256, 64, flips=6.0))
    ours = lambda: jh.search(case.index, case.queries, k=10)  # noqa: E731
    multi = case.faiss("IndexBinaryMultiHash", 4, 16, flips=1)
    name = f"k=10, {n:,} clustered codes of 64 bits: FAISS MultiHash (inexact)"
    table.compare(name, ours, multi and (lambda: multi.search(case.packed_queries, 10)), 256, 3)
    if importlib.util.find_spec("pynear"):
        import pynear

        mih = pynear.MIHBinaryIndex(4)
        mih.set(case.packed)
        name = f"k=10, {n:,} clustered codes of 64 bits: pynear MIH (inexact)"
        table.compare(name, ours, lambda: mih.searchKNN(case.packed_queries, 10), 256, 3)


def other_exact(table):
    n = MILLION // SCALE
    case = Case(*uniform(n, 64, 64))
    ours = lambda: jh.search(case.index, case.queries, k=10)  # noqa: E731
    words, asked = (packed.view(np.uint64)[:, 0] for packed in (case.packed, case.packed_queries))

    def in_numpy():
        for query in asked:
            np.argpartition(np.bitwise_count(words ^ query), 10)[:10]

    table.compare(f"k=10, {n:,} codes of 64 bits, batch 64: numpy", ours, in_numpy, 64)
    if importlib.util.find_spec("usearch"):
        from usearch.index import MetricKind, ScalarKind, search

        options = {"exact": True, "threads": comparing.THREADS, "dtype": ScalarKind.B1}
        peer = lambda: search(case.packed, case.packed_queries, 10, MetricKind.Hamming, **options)  # noqa: E731
        table.compare(f"k=10, {n:,} codes of 64 bits, batch 64: usearch exact", ours, peer, 64)


def memory(table):
    codes, queries = (RNG.integers(0, 2**32, (n // SCALE, 2), dtype=np.uint32) for n in (MILLION, 10_000))
    index = jh.build_index(codes, 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, ask in (
        ("k=10", lambda: jh.search(index, queries, k=10, method="scan")),
        ("radius 12", lambda: jh.radius_search(index, queries, radius=12, method="scan")),
    ):
        wait(ask())
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        table.note(f"{name}, 10,000 queries, 1,000,000 codes of 64 bits, MiB above the index", f"{more:.0f}", 256)


CASES = {
    "memory": memory,  # first, as it reads the peak so far
    "shapes": shapes,
    "single": single,
    "overhead": overhead,
    "threads": threads,
    "batches": batches,
    "selection": selection,
    "options": options,
    "inexact": inexact,
    "other_exact": other_exact,
}

if __name__ == "__main__":
    comparing.run(CASES, __doc__)
