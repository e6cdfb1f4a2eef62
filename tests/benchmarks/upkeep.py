"""Speed of changing and loading an index: `python tests/benchmarks/upkeep.py [CASE ...]`

Compares changes with rebuilding the whole index, and loading with reading and hashing the file and with loading without
the digest. Prints medians of several rounds. `loading` writes a file of about 1 GB to a temporary folder; it also
prints the minimum, as virtual machines can take seconds to provide memory that was unused for a while.
"""

import argparse
import hashlib
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np

import jaxhash as jh
from jaxhash.files import archive

ROUNDS = 7
RNG = np.random.default_rng(0)


def timed(*functions, pick=statistics.median):
    """Times functions in turns."""
    times = [[] for _ in functions]
    for number in range(ROUNDS + 1):
        for function, results in zip(functions, times, strict=True):
            start = time.perf_counter()
            done = jax.block_until_ready(function())
            if number:  # the first round warms up
                results.append(time.perf_counter() - start)
            del done
    return [pick(results) for results in times]


def codes_of(n, num_bits):
    words = RNG.integers(0, 2**32, (n, -(-num_bits // 32)), dtype=np.uint32)
    words[:, -1] &= np.uint32(2**32 - 2 ** (-num_bits % 32))
    return words


def changes():
    print(f"{'milliseconds, n = 1,000,000':<34}{'change':>9}{'rebuild':>9}{'ratio':>7}")
    for num_bits in (28, 64, 256):
        codes, more = codes_of(10**6, num_bits), codes_of(1000, num_bits)
        index, ids = jh.build_index(codes, num_bits), RNG.permutation(10**6).astype(np.int32)
        shuffled = jh.build_index(codes, num_bits, ids=ids)
        gone, kept = ids[:1000], ids[1000:]
        half = [jh.build_index(codes[part], num_bits, ids=ids[part]) for part in (slice(0, None, 2), slice(1, None, 2))]
        for name, change, rebuild in [
            (
                "add 1,000",
                lambda index=index, more=more: jh.add_items(index, more),
                lambda codes=codes, more=more, b=num_bits: jh.build_index(np.concatenate([codes, more]), b),
            ),
            (
                "remove 1,000",
                lambda shuffled=shuffled, gone=gone: jh.remove_items(shuffled, gone),
                lambda codes=codes, kept=kept, b=num_bits: jh.build_index(codes[1000:], b, ids=kept),
            ),
            (
                "merge two halves",
                lambda half=half: jh.merge_indexes(*half),
                lambda codes=codes, ids=ids, b=num_bits: jh.build_index(codes, b, ids=ids),
            ),
        ]:
            ours, theirs = timed(change, rebuild)
            print(
                f"{f'{name}, {num_bits} bits':<34}{ours * 1e3:>9.1f}{theirs * 1e3:>9.1f}{theirs / ours:>7.1f}",
                flush=True,
            )


def big_file(path, n):
    """Writes an index of n distinct codes of 64 bits without building one."""
    keys = np.sort(RNG.integers(0, 2**64, n, dtype=np.uint64))
    keys = keys[np.append(True, keys[1:] != keys[:-1])]
    codes = np.stack([(keys >> np.uint64(32)).astype(np.uint32), keys.astype(np.uint32)], axis=1)
    arrays = {
        "index.codes": codes,
        "index.offsets": np.arange(len(codes) + 1, dtype=np.int32),
        "index.ids": RNG.permutation(len(codes)).astype(np.int32),
    }
    archive.write_archive(path, archive.Archive("index", {"index": {"num_bits": 64, "multi": False}}, arrays))


def loading():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        writer = os.fork()  # so that its memory is not counted here
        if writer == 0:
            big_file(path, 62_500_000)
            os._exit(0)
        os.waitpid(writer, 0)
        size = path.stat().st_size

        def hashed():
            return hashlib.sha256(path.read_bytes()).hexdigest()

        def unhashed():
            with mock.patch.object(archive.hashlib, "sha256") as digest:
                digest.return_value.hexdigest.return_value = stored
                return jh.load_index(path)

        with path.open("rb") as file:
            file.seek(-64, os.SEEK_END)
            stored = file.read().decode()
        jax.block_until_ready(jh.build_index(codes_of(10, 64), 64).codes)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        jh.load_index(path)
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        functions = (hashed, lambda: jh.load_index(path), unhashed)
        for name, pick in (("median", statistics.median), ("best", min)):
            base, whole, bare = timed(*functions, pick=pick)
            ratio = f"{whole:.2f} s, {whole / base:.2f} x (mark: 2)"
            print(
                f"{name}: reading and hashing {base:.2f} s; loading {ratio}; without the digest {bare:.2f} s",
                flush=True,
            )
    print(f"peak of memory while loading {size / 1e9:.2f} GB: {peak / 1e9:.2f} GB")


CASES = {"changes": changes, "loading": loading}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}; by default all")
    for case in parser.parse_args().case or CASES:
        CASES[case]()


if __name__ == "__main__":
    main()
