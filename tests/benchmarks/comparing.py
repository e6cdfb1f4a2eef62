"""Collections in the forms of our library and of its peers, and rows that compare their times."""

import argparse
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import jaxhash as jh

ROUNDS = 7
SECONDS = 0.02  # of calls in a round
PAUSE = 0.02  # seconds in which the other library's threads stop spinning
RNG = np.random.default_rng(0)

# Which side runs: "both" in turns in one process; "ours"; or "peers", without even importing jax.
SIDES = ("both", "ours", "peers")
THREADS = os.cpu_count()


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
        self.bits, self.query_bits = bits, queries
        # FAISS counts bits from the lowest of each byte, so that a hash of the first bits needs this order.
        self.packed, self.packed_queries = (np.packbits(b, axis=1, bitorder="little") for b in (bits, queries))

    def _pack(self, bits):
        return np.asarray(jh.codes_from_bytes(np.packbits(bits, axis=1), self.num_bits))

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
        """The FAISS index of a name, with all items; `None` where FAISS is not installed."""
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
    """Waits for arrays on a device; results of other kinds are there already."""
    for array in result if isinstance(result, tuple) else ():
        if hasattr(array, "block_until_ready"):
            array.block_until_ready()


def seconds(function):
    """How long a call takes."""
    start = time.perf_counter()
    wait(function())
    return time.perf_counter() - start


def medians(*functions):
    """The median time of each function; they take turns."""
    for _ in range(3):
        for function in functions:
            seconds(function)
    repeats = [max(1, int(SECONDS / seconds(function))) for function in functions]
    times = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, count, results in zip(functions, repeats, times, strict=True):
            time.sleep(PAUSE)
            seconds(function)
            results.append(statistics.median(seconds(function) for _ in range(count)))
    return [statistics.median(results) for results in times]


class Table:
    """Prints rows of times in microseconds per query, and the ratio of the peer's to ours: above 1 we are quicker."""

    def __init__(self, side="both", alone=None, on_device=False):
        self.side = side
        self.on_device = on_device  # whether queries lie on the default device
        self.alone = alone or {}  # the times of peers by themselves, in another process
        self.peers = {}

    @property
    def runs_ours(self):
        return self.side != "peers"

    def head(self):
        self.line("case: peer", "ours", "peer", "ratio", "mark", "alone", "first s")

    def line(self, name, *cells):
        if self.runs_ours:
            print(f"{name:<66}" + "".join(f"{cell:>10}" for cell in cells), flush=True)

    def compare(self, name, ours, peer, per=1, mark=""):
        """One row; `per` is the number of queries of a call, and a peer that is `None` is not installed."""
        first = seconds(ours) if self.runs_ours else 0.0
        runs_peer = self.side != "ours" and peer is not None
        times = medians(*[ours] * self.runs_ours, *[peer] * runs_peer)
        each = [f"{time / per * 1e6:.1f}" for time in times]
        if self.runs_ours:
            theirs = [each[1], f"{times[1] / times[0]:.2f}"] if runs_peer else ["", ""]
            alone = self.alone.get(name)
            self.line(name, each[0], *theirs, mark, "" if alone is None else f"{alone:.1f}", f"{first:.2f}")
        elif runs_peer:
            self.peers[name] = times[0] / per * 1e6

    def note(self, name, value, mark):
        """A row with one figure of ours."""
        self.line(name, value, "", "", mark)


def run(script, cases, doc):
    """Runs the cases that the command line names: functions of a `Table`, by name."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("case", nargs="*", help=f"of {', '.join(cases)}; by default all")
    parser.add_argument("--side", choices=SIDES, default="both", help="which libraries run")
    parser.add_argument("--device", action="store_true", help="as --side ours, with queries on the default device")
    arguments = parser.parse_args()
    names = arguments.case or list(cases)
    side = "ours" if arguments.device else arguments.side
    table = Table(side, run_alone(script, names) if side == "both" else None, arguments.device)
    if table.runs_ours:
        print(describe())
    table.head()
    for name in names:
        cases[name](table)
    if side == "peers":
        print(json.dumps(table.peers))


def run_alone(script, names):
    """The times of the peers in a process of their own: two libraries' threads may disturb each other."""
    command = [sys.executable, str(Path(script)), "--side", "peers", *names]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def describe():
    """The machine and the versions."""
    import jax

    from jaxhash.query.costs import describe_processor

    device = jax.devices()[0]
    processor, counts_in_vectors = describe_processor()
    kind = "counts bits in vectors" if counts_in_vectors else "counts no bits in vectors"
    versions = [f"{name} {version(name)}" for name in ("jax", "numpy", "faiss") if importlib.util.find_spec(name)]
    return f"{processor} ({kind}), {THREADS} threads, {device.platform} {device.device_kind}; {', '.join(versions)}"


def version(name):
    return importlib.import_module(name).__version__
