"""How fast is the search beside its peers? `python tests/benchmarks/search.py [CASE ...]`

Every row runs ours and the peer in turns in one process with as many threads, and prints the ratio of the medians:
above 1 we are quicker. What is compiled or built on the first call is not counted; it is printed apart. Needs
faiss-cpu, usearch and pynear; MNIST in $JAXHASH_DATA for the rows named after it.
"""

import argparse
import collections
import os
import resource
import statistics
import time

import faiss
import jax
import numpy as np
import pynear
from usearch.compiled import hardware_acceleration  # noqa: F401  (fails early where usearch is missing)
from usearch.index import MetricKind, ScalarKind
from usearch.index import search as usearch_exact

import jaxhash as jh

ROUNDS = 7
PAUSE = 0.02  # seconds in which the other library's threads stop spinning
RNG = np.random.default_rng(0)


def clustered(n, q, num_bits, size=100, flips=2.0):
    """Bits of n items around n / size centres, with a few of the bits flipped, and of q queries like them."""
    centres = RNG.random((max(1, n // size), num_bits)) < 0.5

    def near(count):
        bits = centres[RNG.integers(0, len(centres), count)]
        bits ^= RNG.random((count, num_bits)) < flips / num_bits
        return bits

    return near(n), near(q)


def uniform(n, q, num_bits):
    return RNG.random((n, num_bits)) < 0.5, RNG.random((q, num_bits)) < 0.5


class Case:
    """One collection in the forms of all libraries."""

    def __init__(self, bits, queries):
        self.num_bits = bits.shape[1]
        pack = lambda b: np.asarray(jh.codes_from_bytes(np.packbits(b, axis=1), self.num_bits))  # noqa: E731
        start = time.perf_counter()
        self.codes, self.queries = pack(bits), pack(queries)
        self.index = jh.build_index(self.codes, self.num_bits)
        self.build_time = time.perf_counter() - start
        # FAISS counts bits from the lowest of each byte, so that a hash of the first bits needs this order.
        self.packed, self.packed_queries = (np.packbits(b, axis=1, bitorder="little") for b in (bits, queries))

    def faiss(self, make):
        index = make(self.packed.shape[1] * 8)
        index.add(self.packed)
        return index


def seconds(function):
    """How long a call takes."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def compare(name, ours, peer, per=1, mark=None):
    """Prints one row; `per` is the number of queries of a call."""
    first = seconds(ours)
    for _ in range(3):
        seconds(ours), seconds(peer)
    repeats = [max(1, int(0.02 / seconds(function))) for function in (ours, peer)]
    times = ([], [])
    for _ in range(ROUNDS):
        for function, count, results in zip((ours, peer), repeats, times, strict=True):
            time.sleep(PAUSE)
            seconds(function)
            results.append(statistics.median(seconds(function) for _ in range(count)))
    mine, theirs = (statistics.median(results) / per * 1e6 for results in times)
    aim = "" if mark is None else f"{mark:8g}"
    print(f"{name:<62}{mine:>11.1f}{theirs:>12.1f}{theirs / mine:>9.1f}{aim:>9}{first:>9.2f}", flush=True)


def k_nearest():
    for num_bits, n, k, q, mark in [
        (32, 10**6, 10, 256, 18),
        (64, 10**6, 10, 256, 12),
        (256, 10**6, 10, 256, 5),
        (512, 10**6, 10, 256, 3),
        (1024, 10**6, 10, 256, 4),
        (64, 65_536, 10, 256, 8),
        (64, 10**6, 100, 256, 8),
        (64, 15_000, 10, 1, 0.8),
        (64, 65_536, 10, 1, 1.5),
        (64, 10**6, 10, 1, 5),
    ]:
        case = Case(*uniform(n, q, num_bits))
        flat = case.faiss(faiss.IndexBinaryFlat)
        queries = case.queries if q > 1 else case.queries[0]
        name = f"k={k}, {n:,} codes of {num_bits} bits, batch {q}: FAISS Flat"
        compare(
            name,
            lambda case=case, queries=queries, k=k: jh.search(case.index, queries, k=k),
            lambda case=case, flat=flat, k=k: flat.search(case.packed_queries, k),
            q,
            mark,
        )


def other_exact():
    case = Case(*uniform(10**6, 64, 64))
    ours = lambda: jh.search(case.index, case.queries, k=10)  # noqa: E731

    def numpy_scan():
        for query in case.queries:
            distances = np.bitwise_count(case.codes ^ query).sum(1, dtype=np.uint8)
            np.argpartition(distances, 10)[:10]

    def usearch():
        usearch_exact(
            case.packed, case.packed_queries, 10, MetricKind.Hamming, exact=True, threads=2, dtype=ScalarKind.B1
        )

    compare("k=10, 1,000,000 codes of 64 bits, batch 64: usearch exact", ours, usearch, 64)
    compare("k=10, 1,000,000 codes of 64 bits, batch 64: numpy", ours, numpy_scan, 64)


def recall(found, index, queries):
    """The share of the ten nearest that were found, by distance: ties count as found."""
    worst = np.asarray(jh.search(index, queries, k=10).distances)[:, -1:]
    return float((np.asarray(found) <= worst).mean())


def inexact():
    case = Case(*clustered(10**6, 256, 64, flips=6.0))
    multi = case.faiss(lambda d: faiss.IndexBinaryMultiHash(d, 4, 16))
    multi.nflip = 1
    right = recall(multi.search(case.packed_queries, 10)[0], case.index, case.queries)
    ours = lambda: jh.search(case.index, case.queries, k=10)  # noqa: E731
    name = f"k=10, 1,000,000 clustered codes of 64 bits: FAISS MultiHash ({right:.0%})"
    compare(name, ours, lambda: multi.search(case.packed_queries, 10), 256, 3)
    mih = pynear.MIHBinaryIndex(4)
    mih.set(case.packed)
    right = recall(mih.searchKNN(case.packed_queries, 10)[1], case.index, case.queries)
    name = f"k=10, 1,000,000 clustered codes of 64 bits: pynear MIH ({right:.0%})"
    compare(name, ours, lambda: mih.searchKNN(case.packed_queries, 10), 256, 3)


def radius():
    case = Case(*clustered(10**6, 256, 64, size=100, flips=4.0))
    flat = case.faiss(faiss.IndexBinaryFlat)
    found = len(jh.radius_search(case.index, case.queries, radius=12).ids) / 256
    name = f"radius 12 ({found:.0f} matches), 1,000,000 codes of 64 bits: FAISS Flat"
    ours = lambda: jh.radius_search(case.index, case.queries, radius=12)  # noqa: E731
    compare(name, ours, lambda: flat.range_search(case.packed_queries, 13), 256, 5)
    case = Case(*clustered(10**6, 256, 28))
    for reach, mark in ((2, 5), (3, 8)):
        hashed = case.faiss(lambda d: faiss.IndexBinaryHash(d, 28))
        hashed.nflip = reach
        ours = lambda case=case, reach=reach: jh.radius_search(case.index, case.queries, radius=reach)  # noqa: E731
        theirs = lambda hashed=hashed, case=case, reach=reach: hashed.range_search(case.packed_queries, reach + 1)  # noqa: E731
        same = len(ours().ids) == theirs()[0][-1]
        compare(f"radius {reach}, 1,000,000 clustered codes of 28 bits: FAISS Hash {same=}", ours, theirs, 256, mark)


def multi_index():
    case = Case(*uniform(10**7, 256, 64))
    ours = lambda: jh.radius_search(case.index, case.queries, radius=3, method="multi-index")  # noqa: E731
    scan = lambda: jh.radius_search(case.index, case.queries, radius=3, method="scan")  # noqa: E731
    compare("radius 3, 10,000,000 codes of 64 bits: our own scan", ours, scan, 256, 25)
    multi = case.faiss(lambda d: faiss.IndexBinaryMultiHash(d, 4, 16))
    multi.nflip = 0
    theirs = lambda: multi.range_search(case.packed_queries, 4)  # noqa: E731
    compare("radius 3, 10,000,000 codes of 64 bits: FAISS MultiHash", ours, theirs, 256, 50)


def mnist():
    data = jh.load_dataset("mnist")
    model, _ = jh.fit(jh.Autoencoder(784, 17), data.train_images, epochs=4)
    bits, queries = (
        np.asarray(jh.unpack_bits(jh.encode(model, images), 17)) for images in (data.train_images, data.test_images)
    )
    case = Case(bits, queries[:256])
    hashed = case.faiss(lambda d: faiss.IndexBinaryHash(d, 17))
    hashed.nflip = 2
    ours = lambda: jh.radius_search(case.index, case.queries, radius=2)  # noqa: E731
    theirs = lambda: hashed.range_search(case.packed_queries, 3)  # noqa: E731
    compare("radius 2, 60,000 MNIST codes of 17 bits: FAISS Hash", ours, theirs, 256, 2)

    table = collections.defaultdict(list)
    for number, code in enumerate(jh.codes_to_integers(case.codes, 17).tolist()):
        table[code].append(number)
    asked = jh.codes_to_integers(case.queries, 17).tolist()

    def hamming_distance(a, b):  # as the post writes it
        differing, distance = a ^ b, 0
        while differing:
            distance += 1
            differing &= differing - 1
        return distance

    def dictionary(query):
        return [i for code, items in table.items() if hamming_distance(code, query) <= 1 for i in items]

    def ours_per_query():
        return jh.radius_search(case.index, case.queries, radius=1)

    start = time.perf_counter()
    ours_per_query(), ours_per_query()
    start = time.perf_counter()
    for query in asked[:8]:
        dictionary(query)
    slow = (time.perf_counter() - start) / 8
    start = time.perf_counter()
    for _ in range(20):
        ours_per_query()
    fast = (time.perf_counter() - start) / 20 / 256
    name = "radius 1, 60,000 MNIST codes of 17 bits: dictionary"
    print(f"{name:<62}{fast * 1e6:>11.1f}{slow * 1e6:>12.1f}{slow / fast:>9.0f}{10_000:>9}", flush=True)


def growth():
    first = None
    for n in (10**4, 10**5, 10**6, 10**7, 10**8):
        num_bits = jh.suggest_num_bits(n)
        codes = RNG.integers(0, 2**num_bits, (n, 1), dtype=np.uint32) << np.uint32(32 - num_bits)
        start = time.perf_counter()
        index = jh.build_index(codes, num_bits)
        built = time.perf_counter() - start
        queries = codes[RNG.integers(0, n, 256)] ^ np.uint32(1 << (32 - num_bits))
        ours = lambda index=index, queries=queries: jh.radius_search(index, queries, radius=2, method="probe")  # noqa: E731
        found = len(ours().ids) / 256
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            ours()
            times.append((time.perf_counter() - start) / 256 * 1e6)
        mine = statistics.median(times)
        first = first or mine
        print(
            f"radius 2, {n:>11,} codes of {num_bits} bits: {mine:7.1f} us per query, {mine / first:5.1f} x the first "
            f"(mark at 100,000,000: 6), {found:.0f} matches, built in {built:.2f} s",
            flush=True,
        )


def memory():
    codes, queries = (RNG.integers(0, 2**32, (n, 2), dtype=np.uint32) for n in (10**6, 10_000))
    index = jh.build_index(codes, 64)
    jax.block_until_ready(index.codes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, ask in (
        ("k=10", lambda: jax.block_until_ready(jh.search(index, queries, k=10, method="scan"))),
        ("radius 12", lambda: jh.radius_search(index, queries, radius=12, method="scan")),
    ):
        ask()
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"{name}, 10,000 queries on 1,000,000 codes of 64 bits: peak {more:.0f} MiB above the index (mark: 256)")


CASES = {
    "memory": memory,  # first, as it reads the highest mark so far
    "k_nearest": k_nearest,
    "radius": radius,
    "mnist": mnist,
    "inexact": inexact,
    "other_exact": other_exact,
    "multi_index": multi_index,
    "growth": growth,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}; by default all")
    names = parser.parse_args().case or list(CASES)
    threads = os.cpu_count()
    faiss.omp_set_num_threads(threads)
    print(f"jax {jax.__version__}, faiss {faiss.__version__}, {threads} threads; microseconds per query, medians")
    print(f"{'case: peer':<62}{'ours':>11}{'peer':>12}{'ratio':>9}{'mark':>9}{'first s':>9}")
    for name in names:
        if name == "mnist" and "JAXHASH_DATA" not in os.environ:
            print("MNIST is not in $JAXHASH_DATA: its rows are left out")
            continue
        CASES[name]()


if __name__ == "__main__":
    main()
