"""Looks for files that `load_*` treats otherwise than it promises: `python tests/whole/fuzz/loading.py [MINUTES]`

Feeds damaged and forged files to every loader. Whatever does not load must end in `CorruptFileError`, within a second
and in memory bounded by the size of the file. A file that does otherwise is kept in `tests/whole/fuzz/cases`, where
`tests/whole/test_fuzz.py` finds it from then on. Runs under atheris, which looks for inputs that reach new code, where
that is installed, else on random choices alone.
"""

import hashlib
import random
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "helpers"))

try:
    import atheris
except ModuleNotFoundError:
    atheris = None

if atheris is None:
    import jaxhash as jh
    from jaxhash.cli import collection
else:
    with atheris.instrument_imports(
        include=[
            "jaxhash.files.archive",
            "jaxhash.cli.collection",
            "jaxhash.index.contents",
            "jaxhash.index.parts",
            "jaxhash.retriever",
            "json",
            "zipfile",
        ]
    ):
        import jaxhash as jh
        from jaxhash.cli import collection

import damage

CASES = Path(__file__).parent / "cases"
SECONDS = 1.0
BYTES = 2**23


def complaint(path, content):
    """What is wrong with how some loader treats a file of these contents; `None` if nothing is."""
    path.write_bytes(content)
    for load in (jh.load_index, jh.load_model, jh.load_retriever, collection.load_collection):
        tracemalloc.start()
        start = time.thread_time()
        try:
            load(path)
        except jh.CorruptFileError as error:
            if not str(error).startswith(f"{path}: "):
                return f"{load.__name__} does not name the file: {error}"
        except Exception as error:
            return f"{load.__name__} raises {error!r}"
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        if time.thread_time() - start > SECONDS:
            return f"{load.__name__} took {time.thread_time() - start:.1f} s"
        if peak > BYTES + 16 * len(content):
            return f"{load.__name__} took {peak:,} bytes of memory"
    return None


def try_one(choices, seeds, path):
    content = damage.mutated(choices, seeds)
    wrong = complaint(path, content)
    if wrong is not None:
        case = CASES / hashlib.sha256(content).hexdigest()[:16]
        case.write_bytes(content)
        print(f"{case.name}: {wrong}", flush=True)


class FromBytes(random.Random):
    """Random choices that are read from the bytes that atheris offers."""

    def __init__(self, data):
        super().__init__(0)
        self.data = atheris.FuzzedDataProvider(data)

    def random(self):
        return self.data.ConsumeIntInRange(0, 2**32 - 1) / 2**32

    def getrandbits(self, count):
        return int.from_bytes(self.data.ConsumeBytes((count + 7) // 8).ljust((count + 7) // 8, b"\0")) % 2**count


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with tempfile.TemporaryDirectory() as folder:
        fuzz(60 * minutes, Path(folder) / "f", damage.seeds())


def fuzz(seconds, path, seeds):
    if atheris is not None:
        arguments = [sys.argv[0], f"-max_total_time={int(seconds)}", "-max_len=4096", "-verbosity=0"]
        atheris.Setup(arguments, lambda data: try_one(FromBytes(data), seeds, path))
        atheris.Fuzz()
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try_one(random.Random(count), seeds, path)  # noqa: S311
        count += 1
    print(f"{count:,} files tried")


if __name__ == "__main__":
    main()
