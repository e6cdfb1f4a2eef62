"""How fast is the search beside its peers? `python tests/benchmarks/search.py [CASE ...]`

Every row runs ours and the peer in turns in one process with as many threads; the peer's time alone, in a process
without JAX, stands beside it. What is compiled or built on the first call is printed apart. Needs faiss-cpu, and for
some rows usearch and pynear; rows of what is not installed show our times alone. MNIST in $JAXHASH_DATA for the rows
named after it. `--device` asks from the default device, and needs no peer.
"""

import collections
import importlib.util
import os
import resource
import statistics
import threading
import time

import comparing
import numpy as np
from comparing import RNG, Case, clustered, medians, seconds, uniform, wait

import jaxhash as jh

MILLION = 10**6
SCALE = 1  # the tests divide sizes by it


def placed(table, queries):
    """Queries where the table wants them: on the host, or on the device."""
    if not table.on_device:
        return queries
    import jax

    return jax.device_put(queries)


def nearest(table, num_bits, n, k, q, mark):
    case = Case(*uniform(n // SCALE, q, num_bits))
    flat = case.faiss("IndexBinaryFlat")
    queries = placed(table, case.queries if q > 1 else case.queries[0])
    table.compare(
        f"k={k}, {n // SCALE:,} codes of {num_bits} bits, batch {q}: FAISS Flat",
        lambda: jh.search(case.index, queries, k=k),
        flat and (lambda: flat.search(case.packed_queries, k)),
        q,
        mark,
    )


def single(table):
    for n, mark in ((1000, 0.45), (15_000, 0.65), (65_536, 1), (MILLION, 4)):
        nearest(table, 64, n, 10, 1, mark)


def batches(table):
    for num_bits, mark in ((32, 16), (64, 12), (256, 5), (512, 3), (1024, 4)):
        nearest(table, num_bits, MILLION, 10, 256, mark)


def selection(table):
    marks = {(65_536, 10): 8, (65_536, 100): 3, (MILLION, 100): 9, (MILLION, 1000): 4}
    for n in (15_000, 65_536, MILLION, 10 * MILLION):
        for k in (1, 10, 100, 1000):
            nearest(table, 64, n, k, 256, marks.get((n, k), ""))


def overhead(table):
    """What a call from Python takes beside its compiled program, and how threads share the work."""
    if not table.runs_ours:
        return
    from jaxhash.query.nearest import _compiled_search

    case = Case(*uniform(15_000 // SCALE, 256, 64))
    query = case.queries[0]
    call, program = medians(
        lambda: jh.search(case.index, query, k=10), lambda: _compiled_search(case.index, query, k=10)
    )
    table.note("k=10, 15,000 codes, one query: the call less its compiled program", f"{(call - program) * 1e6:.1f}", 12)


def threads(table):
    if not table.runs_ours:
        return
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
    table.note("65,536 codes, single queries a second: 1 thread", f"{one:.0f}", "")
    table.note("65,536 codes, single queries a second: 8 threads over 1", f"{eight / one:.2f}", 1.7)


def shapes(table):
    """How many programs 200 odd shapes take, and how long the first call at a million codes."""
    if not table.runs_ours:
        return
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


def within(table, name, case, radius, peer, q=256, mark="", **options):
    """A row of a search by radius; the peer must find as many matches."""
    queries, asked = case.queries[:q], case.packed_queries[:q]
    if peer is not None and table.side == "both":
        found = (
            len(jh.radius_search(case.index, queries, radius=radius).ids),
            int(peer.range_search(asked, radius + 1)[0][-1]),
        )
        if found[0] != found[1]:
            raise RuntimeError(f"{name}: {found[0]} matches, but {found[1]} of the peer")
    table.compare(
        name,
        lambda: jh.radius_search(case.index, queries, radius=radius, **options),
        peer and (lambda: peer.range_search(asked, radius + 1)),
        q,
        mark,
    )


def radius(table):
    n = MILLION // SCALE
    case = Case(*clustered(n, 256, 64, flips=4.0))
    within(table, f"radius 12, {n:,} codes of 64 bits: FAISS Flat", case, 12, case.faiss("IndexBinaryFlat"), mark=5)
    case = Case(*clustered(n, 256, 28))
    single, *hashed = (case.faiss("IndexBinaryHash", 28, flips=flips) for flips in (2, 2, 3))
    for i in range(200 // SCALE if table.runs_ours else 0):
        jh.radius_search(case.index, case.queries[i : i + 1], radius=2)
    within(table, f"radius 2, {n:,} clustered codes of 28 bits, one query: FAISS Hash", case, 2, single, 1, 0.7)
    for reach, peer, mark in zip((2, 3), hashed, (5, 8), strict=True):
        within(table, f"radius {reach}, {n:,} clustered codes of 28 bits: FAISS Hash", case, reach, peer, mark=mark)
    case = Case(*clustered(n, 256, 64))
    for _ in range(2 if table.runs_ours else 0):
        jh.radius_search(case.index, case.queries, radius=2)
    peer = case.faiss("IndexBinaryHash", 20, flips=2)
    within(table, f"radius 2, {n:,} clustered codes of 64 bits, third call on: FAISS Hash", case, 2, peer, mark=3)


def multi_index(table):
    n = 10 * MILLION // SCALE
    case = Case(*uniform(n, 256, 64))
    name, method = f"radius 3, {n:,} codes of 64 bits: FAISS MultiHash", "multi-index"
    within(table, name, case, 3, case.faiss("IndexBinaryMultiHash", 4, 16, flips=0), mark=50, method=method)


def mnist(table):
    if "JAXHASH_DATA" not in os.environ:
        print("MNIST is not in $JAXHASH_DATA: its rows are left out")
        return
    data = jh.load_dataset("mnist")
    if table.side == "peers":  # they need codes like ours, and no training
        bits, queries = clustered(60_000, 256, 17, size=1000)
    else:
        model, _ = jh.fit(jh.Autoencoder(784, 17), data.train_images, epochs=4)
        images = data.train_images, data.test_images[:256]
        bits, queries = (np.asarray(jh.unpack_bits(jh.encode(model, some), 17)).astype(bool) for some in images)
    case = Case(bits, queries)
    within(
        table,
        "radius 2, 60,000 MNIST codes of 17 bits: FAISS Hash",
        case,
        2,
        case.faiss("IndexBinaryHash", 17, flips=2),
        mark=2,
    )
    codes = collections.defaultdict(list)
    for number, code in enumerate(np.packbits(bits, axis=1, bitorder="little") @ np.array([1, 256, 65536])):
        codes[int(code)].append(number)
    asked = (case.packed_queries @ np.array([1, 256, 65536])).tolist()

    def hamming_distance(a, b):  # as the post writes it
        differing, distance = a ^ b, 0
        while differing:
            distance += 1
            differing &= differing - 1
        return distance

    def dictionary():
        return [i for code, items in codes.items() if hamming_distance(code, asked[0]) <= 1 for i in items]

    name = "radius 1, 60,000 MNIST codes of 17 bits, one query: dictionary"
    table.compare(name, lambda: jh.radius_search(case.index, case.queries[:1], radius=1), dictionary, mark=100)


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


def growth(table):
    """How the time of a query grows with the collection, at .4 items a code."""
    first = None
    for n in (10**4, 10**5, 10**6, 10**7, 10**8) if table.runs_ours else ():
        num_bits = jh.suggest_num_bits(n // SCALE)
        codes = RNG.integers(0, 2**num_bits, (n // SCALE, 1), dtype=np.uint32) << np.uint32(32 - num_bits)
        index = jh.build_index(codes, num_bits)
        queries = codes[RNG.integers(0, len(codes), 256)] ^ np.uint32(1 << (32 - num_bits))
        mine = medians(lambda i=index, q=queries: jh.radius_search(i, q, radius=2, method="probe"))[0] / 256 * 1e6
        first = first or mine
        table.note(f"radius 2, {n // SCALE:,} codes of {num_bits} bits", f"{mine:.1f}", "")
    if first:
        table.note("radius 2, the last over the first", f"{mine / first:.1f}", 5)


def memory(table):
    if not table.runs_ours:
        return
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
    "memory": memory,  # first, as it reads the highest mark so far
    "shapes": shapes,
    "single": single,
    "overhead": overhead,
    "threads": threads,
    "batches": batches,
    "selection": selection,
    "radius": radius,
    "mnist": mnist,
    "inexact": inexact,
    "other_exact": other_exact,
    "multi_index": multi_index,
    "growth": growth,
}

if __name__ == "__main__":
    comparing.run(__file__, CASES, __doc__)
