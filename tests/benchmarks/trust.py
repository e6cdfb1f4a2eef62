"""Handling of bad inputs and damaged files, by jaxhash and peers: `python tests/benchmarks/trust.py [CASE ...]`

Tests jaxhash, FAISS (IndexBinaryFlat) and usearch with the same damage, and prints a row for each. Attempts run in
separate processes, since a library can crash. Needs faiss-cpu and usearch.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

NUM_BITS, PATIENCE = 64, 120
RNG = np.random.default_rng(0)
PLANES = RNG.random((3000, NUM_BITS)) < 0.5
FIRST = np.bitwise_count(np.packbits(PLANES[:2000], axis=1) ^ np.packbits(PLANES[0])).sum(1)  # distances from item 0


class Jaxhash:
    """The calls that the cases need; there is such a class for each library."""

    large = 1_000_000

    def __init__(self):
        import jaxhash
        from jaxhash import retriever
        from jaxhash.files import archive

        self.jh, self.archive, self.retriever = jaxhash, archive, retriever
        self.codes = jaxhash.pack_bits(PLANES)

    def make(self, num_bits, codes, ids=None):
        return self.jh.build_index(codes, num_bits, ids=ids)

    def add(self, index, codes, ids):
        return self.jh.add_items(index, codes, ids=ids)

    def search(self, index, queries, k):
        return self.jh.search(index, queries, k=k)

    def within(self, index, queries, radius):
        found = self.jh.radius_search(index, queries, radius=radius)
        return len(found.ids)

    def remove(self, index, ids):
        return self.jh.remove_items(index, ids)

    def merge(self, a, b):
        return self.jh.merge_indexes(a, b)

    def save(self, path, index):
        self.jh.save_index(path, index)

    def load(self, path):
        return self.jh.load_index(path)

    def saver(self, path, count):
        """Returns a function that saves a large index. It starts no thread, since it runs in a forked process."""
        codes = np.arange(2 * count, dtype=np.uint32).reshape(count, 2)
        offsets = np.arange(count + 1, dtype=np.int32)
        arrays = {"index.codes": codes, "index.offsets": offsets, "index.ids": offsets[:-1]}
        content = self.archive.Archive("index", {"index": {"num_bits": NUM_BITS, "multi": False}}, arrays)
        return lambda: self.archive.write_archive(path, content)


class Faiss:
    large = 4_000_000

    def __init__(self):
        import faiss

        self.faiss, self.codes = faiss, np.packbits(PLANES, axis=1)

    def make(self, num_bits, codes, ids=None):
        index = self.faiss.IndexBinaryIDMap2(self.faiss.IndexBinaryFlat(num_bits))
        index.add_with_ids(codes, np.arange(len(codes)) if ids is None else ids)
        return index

    def add(self, index, codes, ids):
        index.add_with_ids(codes, ids)
        return index

    def search(self, index, queries, k):
        return index.search(queries, k)

    def within(self, index, queries, radius):
        # its radius is exclusive
        return len(index.range_search(queries, radius + 1 if type(radius) is int else radius)[2])

    def remove(self, index, ids):
        if index.remove_ids(ids) < len(ids):
            raise KeyError("fewer removed than asked for")  # it returns the number
        return index

    def merge(self, a, b):
        a.merge_from(b)
        return a

    def save(self, path, index):
        self.faiss.write_index_binary(index, str(path))

    def load(self, path):
        return self.faiss.read_index_binary(str(path))

    def saver(self, path, count):
        index = self.faiss.IndexBinaryFlat(NUM_BITS)
        index.add(np.arange(8 * count).astype(np.uint8).reshape(count, 8))
        return lambda: self.faiss.write_index_binary(index, str(path))


class Usearch:
    large = 30_000

    def __init__(self):
        from usearch.index import Index, MetricKind, ScalarKind

        self.kind = lambda num_bits: Index(ndim=num_bits, metric=MetricKind.Hamming, dtype=ScalarKind.B1)
        self.restore, self.codes = Index.restore, np.packbits(PLANES, axis=1)

    def make(self, num_bits, codes, ids=None):
        return self.add(self.kind(num_bits), codes, np.arange(len(codes)) if ids is None else ids)

    def add(self, index, codes, ids):
        index.add(ids, codes)
        return index

    def search(self, index, queries, k):
        found = index.search(queries, k, exact=True)
        return found.distances, found.keys

    def within(self, index, queries, radius):
        return int((index.search(queries, 2000, exact=True).distances <= radius).sum())

    def remove(self, index, ids):
        for number in ids:
            if not index.remove(int(number)):
                raise KeyError("not there")  # its result reports it
        return index

    def merge(self, a, b):
        return a.join(b)

    def save(self, path, index):
        index.save(str(path))

    def load(self, path):
        index = self.restore(str(path))
        if index is None:
            raise ValueError("None instead of an index")  # its way to report an unreadable file
        return index

    def saver(self, path, count):
        index = self.kind(NUM_BITS)
        index.add(np.arange(count), RNG.integers(0, 256, (count, 8), dtype=np.uint8))
        return lambda: index.save(str(path))


LIBRARIES = {"jaxhash": Jaxhash, "faiss": Faiss, "usearch": Usearch}


def answers_rightly(library, index, count=10):
    """Returns whether the nearest neighbors of item 0 have the right distances."""
    distances = np.asarray(library.search(index, library.codes[:1], count)[0], dtype=float).reshape(-1)
    return distances.tolist() == np.sort(FIRST)[:count].tolist()


def inputs(library):
    """Returns bad inputs by name. A call passes if it raises an error or returns true."""
    codes = library.codes[:2000]
    query, good = codes[:1], library.make(NUM_BITS, codes)

    def made(codes, ids=None, num_bits=NUM_BITS):
        return lambda: answers_rightly(library, library.make(num_bits, codes, ids))

    def never(function):
        def call():
            function()
            return False

        return call

    ids = np.arange(len(codes))
    wider = np.concatenate([codes, codes[:, :1]], axis=1)
    cases = {f"{num_bits!r} bits": never(made(codes, num_bits=num_bits)) for num_bits in (0, -8, 63.5, "64", None)}
    cases |= {f"codes of {kind}": made(codes.astype(kind)) for kind in ("int8", "int64", "float32", "object", "str")}
    cases |= {
        "codes too wide": never(made(wider)),
        "codes too narrow": never(made(codes[:, :-1])),
        "codes 1-D": never(made(codes[0])),
        "codes 3-D": never(made(codes[None])),
        "codes 0-D": never(made(codes[0, 0])),
        "codes strided": made(np.repeat(codes, 2, 0)[::2]),
        "codes in Fortran order": made(np.asfortranarray(codes)),
        "codes reversed twice": made(codes[::-1].copy()[::-1]),
        "no codes added": lambda: answers_rightly(library, library.add(good, codes[:0], ids[:0])),
        "an id twice": never(made(codes, np.where(ids == 5, 6, ids))),
        "an id there already": never(lambda: library.add(library.make(NUM_BITS, codes), codes[:1], ids[:1])),
        "an id of -1": never(made(codes, ids - 1)),
        "too few ids": never(made(codes, ids[:-1])),
        "too many ids": never(made(codes, np.arange(len(codes) + 1))),
        "ids of float": never(made(codes, ids + 0.5)),
        "ids 2-D": never(made(codes, ids[:, None])),
        "remove what is not there": never(lambda: library.remove(good, np.array([12345]))),
        "merge with 128 bits": never(
            lambda: library.merge(library.make(64, codes), library.make(128, np.concatenate([codes, codes], 1)))
        ),
    }
    cases |= {f"k={k!r}": never(lambda k=k: library.search(good, query, k)) for k in (0, -1, 2.5, None, 2**40)}
    cases["k > n"] = lambda: answers_beyond(library, library.make(NUM_BITS, codes[:20]))
    cases |= {f"radius {r!r}": never(lambda r=r: library.within(good, query, r)) for r in (-1, 2.7, float("nan"), None)}
    cases |= {f"radius {r}": lambda r=r: library.within(good, query, r) == 2000 for r in (64, 65, 10**6)}
    cases["radius 0"] = lambda: library.within(good, query, 0) == 1
    cases |= {
        "queries too wide": never(lambda: library.search(good, wider[:1], 3)),
        "queries too narrow": never(lambda: library.search(good, query[:, :-1], 3)),
        "queries of int64": never(lambda: library.search(good, query.astype(np.int64), 3)),
        "queries of float": never(lambda: library.search(good, query.astype(np.float32), 3)),
        "query 0-D": never(lambda: library.search(good, query[0, 0], 3)),
        "no queries": lambda: np.shape(library.search(good, query[:0], 3)[0]) == (0, 3),
        "an empty index": lambda: empty_answer(library.search(library.make(NUM_BITS, codes[:0]), query, 3)),
    }
    return cases


def answers_beyond(library, index):
    distances = np.asarray(library.search(index, library.codes[:1], 50)[0], dtype=float).reshape(-1)
    return distances[:20].tolist() == np.sort(FIRST[:20]).tolist()


def empty_answer(found):
    ids = np.asarray(found[1])
    return ids.size == 0 or (ids == -1).all()


def outcome(call):
    """Returns `refused`, `right`, `wrong`, or `unclear` for an assertion (removed by -O) or a lack of memory."""
    try:
        return "right" if call() else "wrong"
    except (AssertionError, MemoryError, AttributeError):
        return "unclear"
    except Exception:
        return "refused"


def work(name, action, arguments):
    """Runs in a separate process, and prints a line for each attempt."""
    library = LIBRARIES[name]()
    if action == "inputs":
        for number, call in enumerate(list(inputs(library).values())[int(arguments[0]) :], int(arguments[0])):
            print(number, outcome(call), flush=True)
    if action == "make":
        library.save(arguments[0], library.make(NUM_BITS, library.codes[:2000]))
    if action == "load":
        for path in arguments:
            print(path, outcome(lambda path=path: answers_rightly(library, library.load(path), 2000)), flush=True)
    if action == "open":
        for path in arguments:
            print(path, outcome(lambda path=path: library.load(path) is not None), flush=True)
    if action == "kill":
        kill_saves(library, Path(arguments[0]), int(arguments[1]))
    if action == "fill":
        fill_disk(library, Path(arguments[0]))


def kill_saves(library, folder, count):
    save = library.saver(folder / "f", library.large)
    save()
    start = time.perf_counter()
    save()
    took = time.perf_counter() - start
    for moment in range(count):
        child = os.fork()
        if child == 0:
            save()
            os._exit(0)
        time.sleep(took * (moment + 0.5) / count)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        (folder / f"killed-{moment}").write_bytes((folder / "f").read_bytes() if (folder / "f").exists() else b"")


def fill_disk(library, path):
    size = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
    index = library.make(NUM_BITS, library.codes[1000:3000])
    try:
        library.save(path, index)
        print("no error", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)


def start(name, action, *arguments):
    """Returns the output lines and exit status of a process of a library."""
    command = [sys.executable, "-W", "ignore", __file__, "--work", name, action, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode().splitlines(), "hangs"
    return done.stdout.splitlines(), done.returncode


def attempts(name, action, things):
    """Returns the outcome of each attempt; if one kills the process, another process continues."""
    found = []
    while len(found) < len(things):
        left = [len(found)] if action == "inputs" else things[len(found) :]
        lines, status = start(name, action, *left)
        found += [line.rsplit(" ", 1)[1] for line in lines]
        if len(found) < len(things):
            found.append("hangs" if status == "hangs" else "crashes")
    return found


def count(found):
    return json.dumps({kind: found.count(kind) for kind in sorted(set(found))}).replace('"', "").strip("{}")


def bad_inputs(name, folder):
    names = json.loads(start(name, "names")[0][0])
    found = attempts(name, "inputs", names)
    clean = sum(kind in ("refused", "right") for kind in found)
    bad = [f"{what} {kind}" for what, kind in zip(names, found, strict=True) if kind not in ("refused", "right")]
    return f"{clean} of {len(names)} clean ({count(found)}{''.join(f'; {what}' for what in bad)})"


def damaged(name, folder, contents):
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"damaged-{number}")
        paths[-1].write_bytes(content)
    found = attempts(name, "load", paths)
    return f"{found.count('refused')} of {len(paths)} noticed ({count(found)})"


def flipped_bytes(name, folder):
    start(name, "make", folder / "f")
    content = (folder / "f").read_bytes()
    places = np.linspace(0, len(content) - 1, 200).astype(int)

    def flipped(place):
        wrong = bytearray(content)
        wrong[place] ^= 1 << (place % 8)
        return bytes(wrong)

    return damaged(name, folder, map(flipped, places))


def truncations(name, folder):
    start(name, "make", folder / "f")
    content = (folder / "f").read_bytes()
    lengths = np.linspace(0, len(content) - 1, 200).astype(int)
    return damaged(name, folder, [content[:length] for length in lengths])


def kills(name, folder):
    start(name, "kill", folder, 40)
    found = attempts(name, "open", [folder / f"killed-{moment}" for moment in range(40)])
    return f"{found.count('right')} of {len(found)} files readable ({count(found)})"


def full_disk(name, folder):
    start(name, "make", folder / "f")
    old = (folder / "f").read_bytes()
    lines, _ = start(name, "fill", folder / "f")
    intact = (folder / "f").exists() and (folder / "f").read_bytes() == old
    rest = [path.name for path in folder.iterdir() if path.name != "f"]
    said = lines[-1] if lines else "crashes"
    return f"{said}, old file {'intact' if intact else 'lost'}, left over: {', '.join(rest) or 'nothing'}"


CASES = {
    "bad_inputs": bad_inputs,
    "flipped_bytes": flipped_bytes,
    "truncations": truncations,
    "kills": kills,
    "full_disk": full_disk,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}; by default all")
    for case in parser.parse_args().case or CASES:
        for name in LIBRARIES:
            with tempfile.TemporaryDirectory() as folder:
                print(f"{case:<14}{name:<9}{CASES[case](name, Path(folder))}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        name, action, *arguments = sys.argv[2:]
        if action == "names":
            print(json.dumps(list(inputs(LIBRARIES[name]()))))
        else:
            with contextlib.suppress(BrokenPipeError):
                work(name, action, arguments)
    else:
        main()
