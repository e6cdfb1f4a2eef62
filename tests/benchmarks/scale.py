"""Scaling with items, devices and memory: `python tests/benchmarks/scale.py [CASE ...] [--items N]`

- `items`: microseconds per query by number of items, by scan and by probe.
- `devices`: the same by number of shards, on as many devices of this host.
- `building`: seconds and peak memory of building, saving in parts and loading.
- `stream`: encodes and indexes a file of byte images in less memory than its size, and trains on it.
- `billion`: builds an index of codes of 32 bits from batches, and searches within radius 2 of 4,096 queries. A billion
  codes take about 17 GiB, so this case runs only if named.
- `paper`: extrapolates the costs per code measured here to 1, 10 and 100 billion items.

Each measurement runs in its own process, since freed memory is rarely returned to the system. Peak memory excludes
pages of memory-mapped files, which the system can evict at any time.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import jax
import numpy as np

import jaxhash as jh
from jaxhash.index.address_table import list_tables
from jaxhash.index.hash_index import sizes_of
from jaxhash.query.plan import LIMITS, order_nearest, order_radius, plan_tables

ROUNDS = 5
QUERIES = 256
SIZES = [10**4, 10**5, 10**6, 10**7]
DEVICES = [1, 2, 4, 8]


def timed(function):
    """Measures the median seconds of a few rounds after a warm-up."""
    times = []
    for number in range(ROUNDS + 1):
        start = time.perf_counter()
        jax.block_until_ready(function())
        if number:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


class Peak:
    """Peak memory of this process within a `with` block, without mapped files, above the initial memory."""

    def __enter__(self):
        self.first = self.bytes = self._now()
        self._on = True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._on = False
        self._thread.join()

    def __str__(self):
        return f"{(self.bytes - self.first) / 2**20:,.0f} MiB"

    def _watch(self):
        while self._on:
            self.bytes = max(self.bytes, self._now())
            time.sleep(0.005)

    @staticmethod
    def _now():
        lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024


def codes_of(n, num_bits, seed=0):
    words = np.random.default_rng(seed).integers(0, 2**32, (n, -(-num_bits // 32)), dtype=np.uint32)
    words[:, -1] &= np.uint32(2**32 - 2 ** (-num_bits % 32))
    return words


def mesh_of(num_devices):
    return jax.make_mesh((num_devices,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))


def items(n):
    """Prints a row: k-NN by scan of 64 bits; radius 2 by probe and by scan of codes of log2(n / 0.4) bits.

    Each is followed by the estimate of the plan, which `method="auto"` uses.
    """
    num_bits = jh.suggest_num_bits(n)
    index, queries = jh.build_index(codes_of(n, 64), 64), codes_of(QUERIES, 64, seed=1)
    scan = timed(lambda: jh.search(index, queries, k=10, method="scan"))
    plan = order_nearest(sizes_of(index), QUERIES, 10, 10, method="scan")[0]
    cells = [scan / QUERIES * 1e6, plan.cost / QUERIES / 1e3]
    index, queries = jh.build_index(codes_of(n, num_bits), num_bits), codes_of(QUERIES, num_bits, seed=1)
    sizes = sizes_of(index)
    expected = {
        "probe": plan_tables(sizes, 2, 1).cost + LIMITS.probe_table / QUERIES,
        "scan": order_radius(sizes, QUERIES, 2, method="scan")[0].cost / QUERIES,
    }
    for method, cost in expected.items():
        seconds = timed(lambda method=method: jh.radius_search(index, queries, radius=2, method=method))
        cells += [seconds / QUERIES * 1e6, cost / 1e3]
    row = "".join(f"{cell:>12,.1f}" for cell in cells)
    print(f"{n:>13,}{row}{scan / QUERIES / n * 1e9:>12.3f}", flush=True)


def devices(n, num_devices):
    """Prints a row: k-NN and radius 2 in 64 bits on `num_devices` devices."""
    index, queries = jh.build_index(codes_of(n, 64), 64), codes_of(QUERIES, 64, seed=1)
    sharded = jh.shard_index(index, mesh_of(num_devices))
    cells = [
        timed(lambda index=index: jh.search(index, queries, k=10, method="scan")) for index in (index, sharded)
    ] + [timed(lambda: jh.radius_search(sharded, queries, radius=2, method="scan"))]
    print(f"{num_devices:>13}" + "".join(f"{cell / QUERIES * 1e6:>14,.1f}" for cell in cells), flush=True)


def building(n, num_devices):
    """Prints seconds and peak memory of each step, and the bytes of the index."""
    mesh, fewer = mesh_of(num_devices), mesh_of(num_devices // 2)
    jh.shard_index(jh.build_index(codes_of(10, 64), 64), mesh)
    index = step("build", jh.build_index, codes_of(n, 64), 64)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(index)) / 2**20
    print(f"  (an index of {n:,} codes of 64 bits takes {size:,.0f} MiB)")
    sharded = step(f"shard over {num_devices} devices", jh.shard_index, index, mesh)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        step(f"save in {num_devices} parts", jh.save_index, path, sharded)
        step(f"load onto {num_devices // 2} devices", jh.load_sharded_index, path, fewer)
        step("load as a whole", jh.load_index, path)


def step(name, function, *arguments):
    with Peak() as peak:
        start = time.perf_counter()
        result = jax.block_until_ready(function(*arguments))
        seconds = time.perf_counter() - start
    print(f"  {name:<34}{seconds:>8.2f} s{peak!s:>14}", flush=True)
    return result


def stream(n):
    """Encodes, indexes and trains on n images of 784 bytes from a memory-mapped file, with a small network."""
    model = jh.Autoencoder(784, 64, (128,))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        file = np.lib.format.open_memmap(path, "w+", np.uint8, (n, 784))
        rng = np.random.default_rng(0)
        for start in range(0, n, 2**16):
            file[start : start + 2**16] = rng.integers(0, 256, (min(2**16, n - start), 784), dtype=np.uint8)
        file.flush()
        del file
        mapped = np.load(path, mmap_mode="r")
        jh.encode(model, mapped[:4096])
        print(f"  {n:,} images, a file of {path.stat().st_size / 1e9:.2f} GB", flush=True)
        for name, images in [("as an array", mapped), ("in batches", Batches(mapped))]:
            step(f"encode and index, {name}", lambda images=images: jh.build_index(jh.encode(model, images), 64))
        for name, images in [("as an array", mapped), ("in batches", Batches(mapped))]:
            step(f"train for an epoch, {name}", lambda images=images: trained(model, images))


def trained(model, images):
    """Trains for an epoch. The images are noise, so warnings about useless bits are ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jh.training.CodeWarning)
        return jh.fit(model, images, epochs=1, batch_size=1024)[1].loss


class Batches:
    """Batches of rows, read again from the file in each iteration."""

    def __init__(self, rows, size=2**14):
        self.rows, self.size = rows, size

    def __iter__(self):
        return (np.array(self.rows[start : start + self.size]) for start in range(0, len(self.rows), self.size))


def billion(n, q=4096):
    """Prints seconds and peak memory of index and tables, time per query, and the bytes of each part."""
    queries = codes_of(q, 32, seed=n)
    batches = (codes_of(min(2**22, n - start), 32, seed=start) for start in range(0, n, 2**22))
    index = step(f"build of {n:,} codes", jh.build_index, batches, 32)

    def probe():
        return jh.radius_search(index, queries, radius=2, method="probe")

    matches = step(f"tables, and {q:,} queries", probe)
    print(f"  radius 2: {timed(probe) / q * 1e6:,.1f} us per query, {len(matches.ids) / q:.1f} matches", flush=True)
    start = time.perf_counter()
    few = jh.radius_search(index, queries[:4], radius=2, method="scan")
    print(f"  by scan:  {(time.perf_counter() - start) / 4 * 1e6:,.0f} us per query (4 at a time, once)")
    np.testing.assert_array_equal(few.ids, matches.ids[: matches.offsets[4]])
    (table,) = list_tables(index)
    parts = {name: getattr(index, name) for name in ("codes", "offsets", "ids")}
    parts |= table.bitmap._asdict() | {"starts": table.starts}
    for name, array in parts.items():
        if array is not None:
            print(f"    {name:<14}{array.nbytes / 2**20:>8,.0f} MiB{array.nbytes / n:>8.2f} bytes per item", flush=True)


def paper(per_code_word, per_build, memory=16 * 2**30, k=10):
    """Prints the costs of large collections, given nanoseconds per compared word and per code built in, on this host.

    Bytes include codes, an offset and an id for each; padding adds at most a quarter. A device has 16 GiB. Positions
    and ids are int32, so an index holds at most 2^31 items, with any number of shards. Larger collections need several
    indexes, searched sequentially or in parallel.
    """
    print(f"{'items':>16}{'bits':>6}{'bytes/item':>12}{'GB':>10}{'devices':>9}{'indexes':>9}", end="")
    print(f"{'ms/query':>10}{'bytes/query':>13}{'build-hours':>12}")
    for n in (10**9, 10**10, 10**11):
        for num_bits in (64, 128):
            row = estimate(n, num_bits, per_code_word, per_build, memory, k)
            print(f"{n:>16,}{num_bits:>6}" + "".join(row), flush=True)


def estimate(n, num_bits, per_code_word, per_build, memory, k):
    """Formats the cells of a row of `paper`."""
    words = num_bits // 32
    per_item = 4 * words + 4 + 4
    limit = min(memory // (per_item * 5 // 4), (2**31 - 1) * 4 // 5 // words)  # of one shard
    num_devices = math.ceil(n / limit)
    scan = n / num_devices * words * per_code_word * 1e-6
    network = num_devices * k * 8
    cells = (
        f"{per_item:>12}",
        f"{n * per_item / 1e9:>10,.0f}",
        f"{num_devices:>9}",
        f"{math.ceil(n / (2**31 - 1)):>9}",
    )
    return (*cells, f"{scan:>10.1f}", f"{network:>13,}", f"{n * per_build / 3.6e12:>12.2f}")


def measured_paper(n=10**7):
    """Prints the table for the costs measured here."""
    codes, queries = codes_of(n, 64), codes_of(QUERIES, 64, seed=1)
    start = time.perf_counter()
    index = jh.build_index(codes, 64)
    per_build = (time.perf_counter() - start) / n * 1e9
    per_word = timed(lambda: jh.search(index, queries, k=10, method="scan")) / QUERIES / n / 2 * 1e9
    print(f"measured at {n:,}: {per_word:.4f} ns per word compared, {per_build:.0f} ns per code built in")
    paper(per_word, per_build)


HEADS = {
    "items": f"{'microseconds':>13}"
    + "".join(f"{name:>12}{'model':>12}" for name in ("k-NN, 64 b", "r=2 probe", "r=2 scan"))
    + f"{'ns per code':>12}",
    "devices": f"{'devices':>13}{'whole, k-NN':>14}{'shards, k-NN':>14}{'shards, r=2':>14}",
}


def apart(num_devices, call):
    """Runs a call of this file in a process with `num_devices` devices."""
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}", "JAX_PLATFORMS": "cpu"}
    folder = Path(__file__).parent
    subprocess.run(
        [sys.executable, "-c", f"import scale; scale.{call}"], cwd=folder, env=os.environ | flags, check=True
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help="those above; default: all but billion")
    parser.add_argument("--items", type=int, help="the only size to measure")
    options = parser.parse_args()
    for case in options.case or ["items", "devices", "building", "stream", "paper"]:
        print(HEADS.get(case, case), flush=True)
        if case == "items":
            for n in [options.items] if options.items else SIZES:
                apart(1, f"items({n})")
        elif case == "devices":
            for num_devices in DEVICES:
                apart(num_devices, f"devices({options.items or 10**6}, {num_devices})")
        elif case == "building":
            apart(8, f"building({options.items or 10**7}, 8)")
        else:
            calls = {
                "stream": f"stream({options.items or 10**7})",
                "billion": f"billion({options.items or 10**9})",
                "paper": "measured_paper()",
            }
            apart(1, calls[case])


if __name__ == "__main__":
    main()
