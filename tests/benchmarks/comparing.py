"""Collections in the formats of jaxhash and its peers, and tables of their times."""

import argparse
import functools
import importlib.util
import os
import statistics
import time
from pathlib import Path

import numpy as np

import jaxhash as jh

TURNS, LONG_TURNS = 25, 5  # the latter for calls of a second and more
REST = 0.05  # seconds before each turn, until the other library's threads have stopped spinning
RNG = np.random.default_rng(0)
THREADS = os.cpu_count()


def clustered(n, q, num_bits, size=100, flips=2.0):
    """Draws bits of n items around n / size centers, with a few flipped, and of q similar queries."""
    centers = RNG.random((max(1, n // size), num_bits)) < 0.5

    def near(count):
        bits = centers[RNG.integers(0, len(centers), count)]
        bits ^= RNG.random((count, num_bits), dtype=np.float32) < flips / num_bits
        return bits

    return near(n), near(q)


def uniform(n, q, num_bits):
    return tuple(RNG.integers(0, 2, (count, num_bits), dtype=bool) for count in (n, q))


def random_codes(n, num_bits):
    """Draws packed codes like `uniform`, of at most 32 bits; unpacked, large collections take a byte per bit."""
    return RNG.integers(0, 2**num_bits, (n, 1), dtype=np.uint32) << np.uint32(32 - num_bits)


class Case:
    """One collection in the formats of all libraries."""

    def __init__(self, bits, queries):
        self.num_bits = bits.shape[1]
        self.bits, self.query_bits = bits, queries
        # FAISS numbers bits from the lowest of each byte, so a hash of the first bits needs this order.
        self.packed, self.packed_queries = (np.packbits(b, axis=1, bitorder="little") for b in (bits, queries))

    def _pack(self, bits):
        return jh.codes_from_bytes(np.packbits(bits, axis=1), self.num_bits)

    @functools.cached_property
    def codes(self):
        return self._pack(self.bits)

    @functools.cached_property
    def queries(self):
        return self._pack(self.query_bits)

    @functools.cached_property
    def index(self):
        return jh.build_index(self.codes, self.num_bits)

    def faiss(self, name, *numbers, flips=None):
        """Builds the FAISS index of a name with all items; `None` if FAISS is not installed."""
        if not importlib.util.find_spec("faiss"):
            return None
        import faiss

        faiss.omp_set_num_threads(THREADS)
        index = getattr(faiss, name)(self.packed.shape[1] * 8, *numbers)
        index.add(self.packed)
        if flips is not None:
            index.nflip = flips
        return index


def wait(result):
    """Waits for arrays on a device; other results are already available."""
    for array in result if isinstance(result, tuple) else ():
        if hasattr(array, "block_until_ready"):
            array.block_until_ready()


def seconds(function):
    """Times a call."""
    start = time.perf_counter()
    wait(function())
    return time.perf_counter() - start


def medians(*functions):
    """Measures median times. Functions take turns of three calls; the first call of a turn is not counted."""
    longest = max(min(seconds(function), seconds(function)) for function in functions)
    times = [[] for _ in functions]
    for _ in range(TURNS if longest < 1 else LONG_TURNS):
        for function, results in zip(functions, times, strict=True):
            time.sleep(REST)
            results += [seconds(function) for _ in range(3)][1:]
    return [statistics.median(results) for results in times]


class Table:
    """Prints microseconds per query, and the ratio of the peer's to ours: above 1, jaxhash is faster."""

    def __init__(self, on_device=False):
        self.on_device = on_device  # whether queries are on the default device; peers are then omitted

    def head(self):
        self.line("case: peer", "ours", "peer", "ratio", "mark", "first s")

    def line(self, name, *cells):
        print(f"{name:<86}" + "".join(f"{cell:>10}" for cell in cells), flush=True)

    def place(self, queries):
        """Puts queries on the table's host or device."""
        if not self.on_device:
            return queries
        import jax

        return jax.device_put(queries)

    def compare(self, name, ours, peer, per=1, mark=""):
        """Prints a row; `per` is the number of queries per call, and a peer of `None` is not installed."""
        first = seconds(ours)
        functions = [ours] if peer is None or self.on_device else [ours, peer]
        mine, *theirs = medians(*functions)
        cells = [f"{theirs[0] / per * 1e6:.1f}", f"{theirs[0] / mine:.2f}"] if theirs else ["", ""]
        self.line(name, f"{mine / per * 1e6:.1f}", *cells, mark, f"{first:.2f}")

    def note(self, name, value, mark=""):
        """Prints a row with one figure."""
        self.line(name, value, "", "", mark)


def run(cases, doc, by_name=()):
    """Runs the cases named on the command line: functions of a `Table`. Some run only if named."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [name for name in cases if name not in by_name]
    some = f", or {', '.join(by_name)}" if by_name else ""
    parser.add_argument("case", nargs="*", help=f"of {', '.join(usual)}, which are the default{some}")
    parser.add_argument("--device", action="store_true", help="without peers, with queries on the default device")
    arguments = parser.parse_args()
    table = Table(arguments.device)
    print(describe())
    table.head()
    for name in arguments.case or usual:
        cases[name](table)


def describe():
    """Describes the machine and the versions."""
    import jax

    device = jax.devices()[0]
    versions = [f"{name} {importlib.import_module(name).__version__}" for name in ("jax", "numpy")]
    return f"{_describe_processor()}, {device.platform} {device.device_kind}; {', '.join(versions)}{_describe_faiss()}"


def _describe_processor():
    path = Path("/proc/cpuinfo")
    text = path.read_text(errors="replace") if path.exists() else ""
    models = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")]
    counts = "counts bits of vectors" if "avx512_vpopcntdq" in text else "no vector popcount"
    return f"{models[0] if models else 'unknown processor'} ({counts}), {THREADS} threads"


def _describe_faiss():
    if not importlib.util.find_spec("faiss"):
        return ""
    import faiss

    return f", faiss {faiss.__version__} ({faiss.SIMDConfig.get_level_name()})"
