"""Ideas of the papers beyond one code per image: `python tests/benchmarks/papers.py [CASE ...] --data DIR`

- `bags`: a 28-bit code for each of the 256 patches of 13x13 pixels of an image. Prints milliseconds per query of
  `bag_search` in a batch for each radius, compared with a loop over a dictionary, as in the source post, for two
  queries; and the quality.
- `two-codes`: 28 bits shortlist 500 items, the whole 256-bit code re-ranks them. Prints the mean average precision of
  the first 500 results, compared with a search of all long codes.
- `speed`: microseconds per query for shortlisting and re-ranking 1,000,000 items.

Items with the query's label are relevant; training images are the database, test images the queries.
"""

import argparse
import itertools
import time
from collections import defaultdict

import jax
import numpy as np
from quality import COLUMNS, cell, judged, judged_by_ids, print_row

import jaxhash as jh

PATCH, PATCH_BITS = 13, 28
SHORT, LONG = 28, 256
CANDIDATES = 500
HIDDEN = (512, 256, 128)


def patch_model(images):
    """Trains a model on 60,000 patches."""
    rng = np.random.default_rng(0)
    some = jh.models.extract_patches(images[rng.choice(len(images), 2000, replace=False)], PATCH).reshape(
        -1, PATCH, PATCH
    )
    chosen = some[rng.choice(len(some), 60_000, replace=False)]
    return jh.fit(jh.Autoencoder(PATCH * PATCH, PATCH_BITS, (256, 128)), chosen, epochs=4)[0]


def loop_over_dictionary(items_of, bag, radius, k):
    """Scores a bag code by code and flip by flip, as the post does."""
    scores = defaultdict(int)
    for code in bag:
        best = {}
        for distance in range(radius + 1):
            for bits in itertools.combinations(range(PATCH_BITS), distance):
                for item in items_of.get(code ^ sum(1 << bit for bit in bits), ()):
                    best.setdefault(item, 2 ** (radius - distance))
        for item, score in best.items():
            scores[item] += score
    return sorted((-score, item) for item, score in scores.items())[:k]


def dictionary(codes):
    """Maps each code, as an integer of 28 bits, to its items."""
    items_of = defaultdict(set)
    for item, bag in enumerate(jh.codes.codes_to_integers(codes, PATCH_BITS).tolist()):
        for code in bag:
            items_of[code].add(item)
    return items_of


def bags(data, options):
    model = patch_model(data.train_images)
    start = time.perf_counter()
    codes = jh.models.encode_patches(model, data.train_images, PATCH)
    encoded = time.perf_counter()
    index = jh.build_index(codes, PATCH_BITS, multi=True)
    print(f"\n### {data.name}: {codes.shape[1]} codes for each of {codes.shape[0]:,} images\n")
    print(f"encoding {encoded - start:.1f} s, building {time.perf_counter() - encoded:.1f} s, {index}\n")
    queries = jh.models.encode_patches(model, data.test_images[: options.queries], PATCH)
    items_of = dictionary(codes)
    print_row("radius", "ms per query", "loop over a dictionary, s per query", "P@100", "10-NN vote")
    print_row(*["---"] * 5)
    for radius in range(4):
        jh.bag_search(index, queries[:64], radius=radius, k=10)  # builds tables, compiles
        start = time.perf_counter()
        found = jh.bag_search(index, queries, radius=radius, k=100)
        seconds = (time.perf_counter() - start) / len(queries)
        loop = loop_seconds(items_of, queries, found, radius)
        measures = judged_by_ids(np.asarray(found.ids), data)
        print_row(radius, f"{1000 * seconds:.1f}", f"{loop:.1f}", *(f"{value:.3f}" for value in measures.values()))


def loop_seconds(items_of, queries, found, radius, count=2):
    """Times the loop per query, and checks its results against `found`."""
    start = time.perf_counter()
    for row, bag in enumerate(jh.codes.codes_to_integers(queries[:count], PATCH_BITS).tolist()):
        best = loop_over_dictionary(items_of, bag, radius, found.ids.shape[1])
        same = [(-score, item) for score, item in best] == list(
            zip(found.scores[row].tolist(), found.ids[row].tolist(), strict=True)
        )
        if not same:
            raise RuntimeError(f"query {row}, radius {radius}: the loop finds different items")
    return (time.perf_counter() - start) / count


def average_precision(ids, data):
    """Computes the mean average precision of ranked items `[q, k]`, over the relevant items among them."""
    relevant = data.train_labels[ids] == data.test_labels[:, None]
    precision = np.cumsum(relevant, axis=1) / np.arange(1, ids.shape[1] + 1)
    return float(((precision * relevant).sum(1) / np.maximum(1, relevant.sum(1))).mean())


def two_codes(data, options):
    print(f"\n### {data.name}: {SHORT} bits, then {LONG}\n")
    columns = ["mAP", "P@100", "P in radius 2", "10-NN vote", "distinct codes"]
    print_row("objective", "code", *columns, f"mAP@{CANDIDATES}: re-ranked", "all long codes", "share")
    print_row(*["---"] * (len(columns) + 5))
    for objective in (jh.training.Reconstruct(short_bits=SHORT), jh.training.Retrieve(short_bits=SHORT)):
        model = jh.Autoencoder(data.train_images[0].size, LONG, HIDDEN)
        model, _ = jh.fit(model, data.train_images, epochs=options.epochs, objective=objective)
        codes, queries = (np.asarray(jh.encode(model, images)) for images in (data.train_images, data.test_images))
        short, short_queries = (jh.codes.first_bits(array, SHORT) for array in (codes, queries))
        shortlist = jh.search(jh.build_index(short, SHORT), short_queries, k=CANDIDATES).ids
        ranked = jh.rerank(codes, queries, shortlist, k=CANDIDATES).ids
        exact = jh.search(jh.build_index(codes, LONG), queries, k=CANDIDATES).ids
        reached, whole = average_precision(ranked, data), average_precision(exact, data)
        name = type(objective).__name__
        for what, measures in [
            (f"first {SHORT}", judged(short, short_queries, None, data, SHORT)),
            (f"all {LONG}", judged(codes, queries, None, data, LONG)),
            ("reranked", judged_by_ids(ranked[:, :100], data)),
        ]:
            cells = [cell([measures[column]] if column in measures else [], COLUMNS[column]) for column in columns]
            shares = (
                ["", "", ""] if what != "reranked" else [f"{reached:.4f}", f"{whole:.4f}", f"{reached / whole:.1%}"]
            )
            print_row(name, what, *cells, *shares)


def speed(options):
    rng = np.random.default_rng(0)
    centers = rng.random((2000, LONG)) < 0.5
    bits = centers[rng.integers(0, 2000, 10**6)] ^ (rng.random((10**6, LONG)) < 1.5 / SHORT)
    long_codes = jax.device_put(jh.pack_bits(bits))
    short = jh.codes.first_bits(long_codes, SHORT)
    index = jh.build_index(short, SHORT)
    queries, short_queries = (np.asarray(array[:1024]) for array in (long_codes, short))

    def timed(function):
        times = []
        for _ in range(6):
            start = time.perf_counter()
            result = jax.block_until_ready(function())
            times.append(time.perf_counter() - start)
        return result, 1e6 * float(np.median(times[1:])) / len(queries)

    print("\n### 1,000,000 items, 1,024 queries, microseconds per query\n")
    found, shortlisting = timed(lambda: jh.search(index, short_queries, k=CANDIDATES))
    _, ranking = timed(lambda: jh.rerank(long_codes, queries, found.ids, k=100))
    print(f"shortlist {shortlisting:.0f}, re-ranking {ranking:.0f}, total {shortlisting + ranking:.0f}")


CASES = {"bags": bags, "two-codes": two_codes}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="bags, two-codes or speed; default: all")
    parser.add_argument("--data", help="folder of the IDX files; by default $JAXHASH_DATA")
    parser.add_argument("--datasets", nargs="+", default=["mnist", "fashion-mnist"])
    parser.add_argument("--queries", type=int, default=512, help="how many test images")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args(arguments)
    cases = options.cases or [*CASES, "speed"]
    if unknown := set(cases) - {*CASES, "speed"}:
        parser.error(f"unknown case {', '.join(unknown)}")
    if "speed" in cases:
        speed(options)
    for name in options.datasets if CASES.keys() & set(cases) else []:
        data = jh.load_dataset(name, options.data)
        some = slice(options.queries)
        data = data._replace(test_images=data.test_images[some], test_labels=data.test_labels[some])
        for case in [case for case in CASES if case in cases]:
            CASES[case](data, options)


if __name__ == "__main__":
    main()
