"""Speed of radius search, and when it builds tables: `python tests/benchmarks/radius.py [CASE ...]`

Rows are as in `search.py`; "after prepare" means that tables were built beforehand. A peer must find the same number of
matches. `first_calls_large` and `growth` run only if named: they take minutes to make collections of 100,000,000 codes.
Needs faiss-cpu, and MNIST in $JAXHASH_DATA for its rows.
"""

import collections
import dataclasses
import itertools
import os
from functools import partial

import comparing
import numpy as np
from comparing import RNG, Case, clustered, medians, random_codes, seconds, uniform

import jaxhash as jh
from jaxhash.cli.demo_times import make_dictionary_search

MILLION = 10**6
SCALE = 1  # the tests divide sizes by it
QUERIES = 256
CALLS = 1000  # calls to wait for tables


def in_turn(search, queries):
    """Returns a function that passes one query per call, `[1, w]`, in turn."""
    rows = itertools.cycle([queries[i : i + 1] for i in range(len(queries))])
    return lambda: search(next(rows))


def fresh(index):
    """Copies an index with the same arrays and an empty cache."""
    return dataclasses.replace(index)


def within(table, name, case, radius, peer, mark="", single=False):
    """Prints a row of a radius search, compared with a FAISS index."""
    find = partial(jh.radius_search, case.index, radius=radius)
    queries, asked = table.place(case.queries), case.packed_queries
    if peer is None:
        theirs = None
    else:
        found, other = len(find(queries).ids), int(peer.range_search(asked, radius + 1)[0][-1])
        if found != other:
            raise RuntimeError(f"{name}: {found} matches, but {other} by the peer")
        theirs = lambda rows=asked: peer.range_search(rows, radius + 1)  # noqa: E731
    if single:
        table.compare(name, in_turn(find, queries), theirs and in_turn(theirs, asked), 1, mark)
    else:
        table.compare(name, lambda: find(queries), theirs, len(asked), mark)


def small(table):
    """Times single queries of a collection of the demo's size, compared with a dictionary."""
    case = Case(*clustered(4500 // SCALE, QUERIES, 13, size=50))
    look_up, rows = make_dictionary_search(case.codes, case.queries, 13, 3), itertools.cycle(range(QUERIES))
    ours = in_turn(partial(jh.radius_search, case.index, radius=3), case.queries)
    name = f"radius 3, {len(case.bits):,} codes of 13 bits, one query: dictionary"
    table.compare(name, ours, lambda: look_up(next(rows)), mark="40 us")


def scan(table):
    n = MILLION // SCALE
    case = Case(*clustered(n, QUERIES, 64, flips=4.0))
    within(table, f"radius 12, {n:,} codes of 64 bits: FAISS Flat", case, 12, case.faiss("IndexBinaryFlat"), 5)


def short_codes(table):
    n = MILLION // SCALE
    case = Case(*clustered(n, QUERIES, 28))
    name = f"{n:,} clustered codes of 28 bits"
    table.note(f"radius 2, {name}, one query: calls until tables", calls_until_tables(case, 1), 100)
    for radius, mark in ((2, 5), (3, 8)):
        jh.prepare(case.index, radius=radius)
        peer = case.faiss("IndexBinaryHash", 28, flips=radius)
        if radius == 2:
            single = f"radius 2, {name}, one query, after prepare: FAISS Hash"
            within(table, single, case, radius, peer, 0.5, single=True)
        within(table, f"radius {radius}, {name}, after prepare: FAISS Hash", case, radius, peer, mark)


def long_codes(table):
    n = MILLION // SCALE
    case = Case(*clustered(n, QUERIES, 64))
    name = f"{n:,} clustered codes of 64 bits"
    table.note(f"radius 2, {name}, batch {QUERIES}: calls until tables", calls_until_tables(case, QUERIES), 3)
    jh.prepare(case.index, radius=2)
    peer = case.faiss("IndexBinaryHash", 20, flips=2)
    within(table, f"radius 2, {name}, after prepare: FAISS Hash", case, 2, peer, 3)


def multi_index(table):
    n = 10 * MILLION // SCALE
    case = Case(*uniform(n, QUERIES, 64))
    jh.prepare(case.index, radius=3)
    peer = case.faiss("IndexBinaryMultiHash", 4, 16, flips=0)
    within(table, f"radius 3, {n:,} codes of 64 bits, after prepare: FAISS MultiHash", case, 3, peer, 50)


def calls_until_tables(case, num_queries):
    """Counts the searches within radius 2, by batch size, until an index builds tables."""
    index = fresh(case.index)
    for number in range(CALLS):
        first = number % (len(case.queries) // num_queries) * num_queries
        jh.radius_search(index, case.queries[first : first + num_queries], radius=2)
        if jh.describe(index).tables:
            return number + 1
    return f"> {CALLS}"


def spread(table):
    """Measures the variation of single calls after `prepare`."""
    n = MILLION // SCALE
    case = Case(*uniform(n, QUERIES, 64))
    index = jh.prepare(case.index, radius=3)
    times = [seconds(lambda: jh.radius_search(index, case.queries, radius=3)) for _ in range(60)]
    name = f"radius 3, {n:,} codes of 64 bits, after prepare: 95th percentile over median"
    table.note(name, f"{np.percentile(times, 95) / np.median(times):.2f}", 2)


def first_calls(table, n=2 * MILLION, rounds=5):
    """Compares five calls on a new index with `prepare` and five calls, with and without compilation."""
    codes, queries = (random_codes(count, 28) for count in (n // SCALE, QUERIES))
    index = jh.build_index(codes, 28)

    def ask(prepared):
        asked = jh.prepare(fresh(index), radius=2) if prepared else fresh(index)
        for _ in range(5):
            jh.radius_search(asked, queries, radius=2)

    times = np.array([[seconds(lambda p=prepared: ask(p)) for prepared in (False, True)] for _ in range(1 + rounds)])
    for name, (unprepared, prepared) in (("compiling", times[0]), ("compiled", np.median(times[1:], axis=0))):
        name = f"radius 2, {len(codes):,} codes of 28 bits: 5 calls over prepare and 5, {name}"
        table.note(f"{name} ({unprepared:.2f} s)", f"{unprepared / prepared:.2f}", 2)


def growth(table):
    """Measures the growth of query time with the collection, at .4 items per code."""
    first = None
    for n in (10**4, 10**5, 10**6, 10**7, 10**8):
        num_bits = jh.suggest_num_bits(n // SCALE)
        codes = random_codes(n // SCALE, num_bits)
        index = jh.prepare(jh.build_index(codes, num_bits), radius=2)
        queries = codes[RNG.integers(0, len(codes), QUERIES)] ^ np.uint32(1 << (32 - num_bits))
        mine = medians(lambda i=index, q=queries: jh.radius_search(i, q, radius=2))[0] / QUERIES * 1e6
        first = first or mine
        table.note(f"radius 2, {n // SCALE:,} codes of {num_bits} bits, after prepare", f"{mine:.1f}")
    table.note("radius 2, the last over the first", f"{mine / first:.1f}", 8)


def in_jit(table):
    """Times `radius_search_padded` in a compiled program, with and without tables."""
    import jax

    find = jax.jit(partial(jh.radius_search_padded, radius=2, max_results=64))
    for n, mark in ((MILLION // SCALE, 9), (10 * MILLION // SCALE, 70)):
        codes, queries = (random_codes(count, 28) for count in (n, QUERIES))
        index, queries = jh.build_index(codes, 28), table.place(queries)
        tables = jh.build_tables(index, radius=2)
        name = f"radius 2, {n:,} codes of 28 bits, in jit, with tables: without"
        probe, scan = partial(find, index, queries, tables=tables), partial(find, index, queries)
        if not bool(probe().complete.all()):
            raise RuntimeError(f"{name}: max_candidates is too small")
        table.compare(name, probe, scan, QUERIES, mark)


def mnist(table):
    if "JAXHASH_DATA" not in os.environ:
        print("MNIST is not in $JAXHASH_DATA: its rows are omitted")
        return
    data = jh.load_dataset("mnist")
    model, _ = jh.fit(jh.Autoencoder(784, 17), data.train_images, epochs=4)
    images = data.train_images, data.test_images[:QUERIES]
    case = Case(*(np.asarray(jh.unpack_bits(jh.encode(model, some), 17)).astype(bool) for some in images))
    jh.prepare(case.index, radius=2)
    hashed = case.faiss("IndexBinaryHash", 17, flips=2)
    within(table, "radius 2, 60,000 MNIST codes of 17 bits, after prepare: FAISS Hash", case, 2, hashed, 2)
    codes = collections.defaultdict(list)
    for number, code in enumerate(jh.codes.codes_to_integers(case.codes, 17).tolist()):
        codes[code].append(number)
    wanted = int(jh.codes.codes_to_integers(case.queries, 17)[0])

    def hamming_distance(a, b):  # as in the post
        differing, distance = a ^ b, 0
        while differing:
            distance += 1
            differing &= differing - 1
        return distance

    def dictionary():
        return [i for code, items in codes.items() if hamming_distance(code, wanted) <= 1 for i in items]

    name = "radius 1, 60,000 MNIST codes of 17 bits, one query: dictionary"
    table.compare(name, lambda: jh.radius_search(case.index, case.queries[:1], radius=1), dictionary, mark=100)


CASES = {
    "small": small,
    "scan": scan,
    "short_codes": short_codes,
    "long_codes": long_codes,
    "multi_index": multi_index,
    "spread": spread,
    "first_calls": first_calls,
    "first_calls_large": partial(first_calls, n=100 * MILLION, rounds=1),
    "growth": growth,
    "in_jit": in_jit,
    "mnist": mnist,
}

if __name__ == "__main__":
    comparing.run(CASES, __doc__, by_name=("first_calls_large", "growth"))
