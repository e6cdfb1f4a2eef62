"""Building an index on several hosts: `python tests/benchmarks/hosts.py [--items N] [--hosts 2 4]`

Each process of `jax.distributed` has its own part of N codes of 64 bits. Prints for each the seconds, the maximum
number of items at a time over its share of N, and its peak memory without its part, over its share of the index.
"""

import argparse
import os
import socket
import subprocess
import sys
import time

import numpy as np


def build(number, count, port, n):
    """Runs one process: builds, and prints a row."""
    import jax
    from scale import Peak

    import jaxhash as jh
    from jaxhash.index import sharded_building

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, number)
    mesh = jax.make_mesh((count,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
    rng = np.random.default_rng(number)
    # A third of the codes are near a few centers, so ranges of equal width hold unequal numbers of codes.
    codes = rng.integers(0, 2**32, (n // count, 2), dtype=np.uint32)
    codes[::3, 0] = np.uint32(5 << 20) + (codes[::3, 0] >> np.uint32(20))
    ids = np.arange(number * (n // count), (number + 1) * (n // count))
    jh.build_sharded_index(codes[:10], 64, mesh, ids=ids[:10])  # compiles
    held, exchange = [], sharded_building.exchange_rows

    def counting(parts, mesh):
        received = exchange(parts, mesh)
        held.append(max(len(received), sum(map(len, parts))))
        return received

    sharded_building.exchange_rows = counting
    with Peak() as peak:
        start = time.perf_counter()
        index = jax.block_until_ready(jh.build_sharded_index(codes, 64, mesh, ids=ids))
        seconds = time.perf_counter() - start
    own = sum(piece.data.nbytes for leaf in jax.tree.leaves(index) for piece in leaf.addressable_shards)
    share = max(held) / (n / count)
    print(f"{count:>6}{number:>8}{seconds:>9.1f}{share:>14.3f}{peak!s:>14}{own / 2**20:>10,.0f} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10**7)
    parser.add_argument("--hosts", type=int, nargs="+", default=[2, 4])
    options = parser.parse_args()
    print(f"{'hosts':>6}{'number':>8}{'seconds':>9}{'items/share':>14}{'peak':>14}{'its shard':>14}", flush=True)
    for count in options.hosts:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, __file__, "--one"]
        started = [
            subprocess.Popen([*command, *map(str, (number, count, port, options.items))], env=os.environ | ENVIRONMENT)
            for number in range(count)
        ]
        for process in started:
            process.wait()


ENVIRONMENT = {"JAX_PLATFORMS": "cpu"}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        build(*map(int, sys.argv[2:]))
    else:
        main()
