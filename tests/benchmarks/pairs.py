"""All near pairs, by jaxhash and by FAISS: `python tests/benchmarks/pairs.py [--items N] [--radius R ...] [--faiss N]`

Clustered codes of 64 bits with duplicates. `neighbor_pairs` finds all pairs of N items, and of the first `--faiss`;
the latter must equal an all-pairs `IndexBinaryFlat.range_search` of FAISS (needs faiss-cpu and takes minutes: its time
is quadratic). Memory is the peak without codes, index and pairs.
"""

import argparse
import time

import faiss
import numpy as np
from scale import Peak

import jaxhash as jh

NUM_BITS = 64
CLUSTERS = 20_000
QUERIES_PER_CHUNK = 2000


def clustered(n):
    """Draws codes uint32 `[n, 2]`, most of them a few flips from one of many centers, some equal."""
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 2**64, CLUSTERS, dtype=np.uint64)
    codes = centers[rng.integers(0, CLUSTERS, n)]
    for _ in range(6):
        flip = np.uint64(1) << rng.integers(0, 64, n, dtype=np.uint64)
        codes ^= np.where(rng.random(n) < 0.5, flip, np.uint64(0))
    return np.stack([codes >> np.uint64(32), codes & np.uint64(2**32 - 1)], axis=1).astype(np.uint32)


def find_pairs(index, radius):
    """Returns the pairs, the seconds, and the peak memory without the pairs in MiB."""
    with Peak() as peak:
        start = time.perf_counter()
        pairs = jh.neighbor_pairs(index, radius=radius)
        seconds = time.perf_counter() - start
    return pairs, seconds, (peak.bytes - peak.first - sum(array.nbytes for array in pairs)) / 2**20


def find_by_faiss(codes, radius):
    """Finds the same pairs in the same order by FAISS, and the seconds of its searches."""
    octets = codes.astype(">u4").view(np.uint8)
    index = faiss.IndexBinaryFlat(NUM_BITS)
    index.add(octets)
    parts, seconds = [], 0.0
    for start in range(0, len(codes), QUERIES_PER_CHUNK):
        begin = time.perf_counter()
        ends, distances, ids = index.range_search(octets[start : start + QUERIES_PER_CHUNK], radius + 1)
        seconds += time.perf_counter() - begin
        query = start + np.repeat(np.arange(len(ends) - 1), np.diff(ends.astype(np.int64)))
        later = ids > query
        parts.append(np.stack([query[later], ids[later], distances[later].astype(np.int64)]))
    first, second, distances = np.concatenate(parts, axis=1)
    order = np.lexsort((second, distances, first))
    return (first[order], second[order], distances[order]), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10**6)
    parser.add_argument("--radius", type=int, nargs="+", default=[3, 6])
    parser.add_argument("--faiss", type=int, default=200_000)
    options = parser.parse_args()
    codes = clustered(options.items)
    index = jh.build_index(codes, NUM_BITS)
    print(f"{'items':>12}{'radius':>8}{'pairs':>14}{'seconds':>10}{'memory':>14}{'FAISS':>12}", flush=True)
    for radius in options.radius:
        pairs, seconds, memory = find_pairs(index, radius)
        print(f"{len(codes):>12,}{radius:>8}{len(pairs.first):>14,}{seconds:>10.2f}{memory:>10,.0f} MiB", flush=True)
        del pairs
        some = codes[: options.faiss]
        pairs, seconds, memory = find_pairs(jh.build_index(some, NUM_BITS), radius)
        expected, faiss_seconds = find_by_faiss(some, radius)
        for array, other in zip(pairs, expected, strict=True):
            np.testing.assert_array_equal(array, other)
        row = f"{len(some):>12,}{radius:>8}{len(pairs.first):>14,}{seconds:>10.2f}{memory:>10,.0f} MiB"
        print(f"{row}{faiss_seconds:>10.1f} s, equal", flush=True)


if __name__ == "__main__":
    main()
