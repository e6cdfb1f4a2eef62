"""How long searches take in the demo: the post's two ways beside the index, one query at a time and all at once."""

import itertools
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxhash.cli.report import Report
from jaxhash.codes.bits import unpack_bits
from jaxhash.datasets import Dataset
from jaxhash.index.hash_index import HashIndex
from jaxhash.models.encoding import encode, encode_weighted
from jaxhash.query.nearest import search
from jaxhash.query.radius import radius_search
from jaxhash.retriever import Retriever, retrieve

NEIGHBORS = 10
RADII = (0, 1, 2, 3)
TIMED_QUERIES, TIMED_BATCHES = 50, 5
MAX_ADDRESSES = 50_000  # of one query, for which a dictionary is timed

Search = Callable[[int], np.ndarray]


def report_times(report: Report, data: Dataset, retriever: Retriever[HashIndex]) -> None:
    """Times searches among the codes of the training images by those of the test images."""
    report.add_heading("How fast")
    codes = np.asarray(encode(retriever.model, data.train_images))
    queries, weights = (np.asarray(array) for array in encode_weighted(retriever.model, data.test_images))
    report.add_text(
        f"Microseconds for a query, the median of {min(TIMED_QUERIES, len(queries))} asked one by one, and of "
        f"{TIMED_BATCHES} batches of all {len(queries):,}. The post's ways are to compare the bits of the query with "
        "those of each image by cosine, in numpy, and to keep the images of each code in a Python dictionary, with one "
        "look-up for each address that differs in few bits. All searches are on the codes trained to reconstruct; the "
        "index finds what comparing with every code would find."
    )
    report.add_table(_time_nearest(data, retriever, codes, queries, weights))
    report.add_text("All images within a radius. The dictionary finds the same images, in no order:")
    report.add_table(_time_radii(retriever.index, codes, queries))
    report.add_text(
        "A call from Python has a cost of its own, whatever it finds; queries that are asked together share it. A "
        "dictionary is quick as long as there are few addresses to look up: for codes of 64 bits and radius "
        f"{RADII[-1]} there are {_count_addresses(64, RADII[-1]):,}."
    )


def _time_nearest(
    data: Dataset, retriever: Retriever[HashIndex], codes: np.ndarray, queries: np.ndarray, weights: np.ndarray
) -> list[tuple[str, ...]]:
    index, images, k = retriever.index, data.test_images, min(NEIGHBORS, len(codes))
    linear = make_linear_search(codes, queries, index.num_bits, k)
    searches: dict[str, Callable[[Any], Any]] = {
        "index, Hamming distance": lambda rows: search(index, queries[rows], k=k),
        "index, weighted distance": lambda rows: search(index, queries[rows], k=k, weights=weights[rows]),
        "from pixels to ids": lambda rows: retrieve(retriever, images[rows], k=k),
    }
    rows = [
        (name, _time_single(find, len(queries)), _time_batch(find, len(queries))) for name, find in searches.items()
    ]
    linear_row = ("linear search, cosine", _time_single(linear, len(queries)), "")
    return [(f"{k} nearest", "one by one", "all at once"), linear_row, *rows]


def _time_radii(index: HashIndex, codes: np.ndarray, queries: np.ndarray) -> list[tuple[str, ...]]:
    rows = []
    for radius in (radius for radius in RADII if radius <= index.num_bits):
        lookups = _count_addresses(index.num_bits, radius)
        time_of_dictionary = "not timed"
        if lookups <= MAX_ADDRESSES:
            find = make_dictionary_search(codes, queries, index.num_bits, radius)
            time_of_dictionary = _time_single(find, len(queries))

        def within(rows: Any, radius: int = radius) -> Any:
            return radius_search(index, queries[rows], radius=radius)

        times = (_time_single(within, len(queries)), _time_batch(within, len(queries)))
        rows.append((str(radius), f"{lookups:,}", time_of_dictionary, *times))
    return [("radius", "look-ups", "dictionary", "index, one by one", "all at once"), *rows]


def _count_addresses(num_bits: int, radius: int) -> int:
    return sum(math.comb(num_bits, flips) for flips in range(radius + 1))


def make_linear_search(codes: np.ndarray, queries: np.ndarray, num_bits: int, k: int) -> Search:
    """Makes the post's linear search: the ids of the k largest cosines of a query's bits with those of all items."""
    vectors, query_vectors = (unpack_bits(part, num_bits).astype(np.float32) for part in (codes, queries))
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return lambda row: np.argsort(-(vectors @ query_vectors[row]), kind="stable")[:k]


def make_dictionary_search(codes: np.ndarray, queries: np.ndarray, num_bits: int, radius: int) -> Search:
    """Makes the post's hash table: a dictionary from codes to lists of ids, looked up at each flipped address."""
    table: dict[int, list[int]] = defaultdict(list)
    for number, code in enumerate(_to_integers(codes)):
        table[code].append(number)
    buckets, addresses, width = dict(table), _to_integers(queries), 32 * codes.shape[1]
    flips = [
        sum(1 << (width - 1 - bit) for bit in bits)
        for count in range(radius + 1)
        for bits in itertools.combinations(range(num_bits), count)
    ]

    def find(row: int) -> np.ndarray:
        address = addresses[row]
        found: list[int] = []
        for flip in flips:
            bucket = buckets.get(address ^ flip)
            if bucket is not None:
                found += bucket
        return np.array(found, np.int32)

    return find


def _to_integers(codes: np.ndarray) -> list[int]:
    """Converts codes uint32 `[n, w]` to Python integers of 32 w bits."""
    return [int.from_bytes(row.tobytes(), "big") for row in codes.astype(">u4")]


def _time_single(find: Callable[[int], Any], count: int) -> str:
    return _format(_time_calls(find, range(min(TIMED_QUERIES, count))))


def _time_batch(find: Callable[[Any], Any], count: int) -> str:
    return _format(_time_calls(find, [slice(None)] * TIMED_BATCHES) / count)


def _format(seconds: float) -> str:
    return f"{seconds * 1e6:,.{0 if seconds >= 1e-5 else 1}f}"


def _time_calls(find: Callable[[Any], Any], arguments: Any) -> float:
    """Returns the median time in seconds of a call, after one that compiles."""
    find(arguments[0])
    times = []
    for argument in arguments:
        start = time.perf_counter()
        find(argument)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
