"""The package in threads and processes, on several devices, in little memory, in 64-bit mode and under `-O`."""

import dataclasses
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.experimental import checkify
from samples import same

import jaxhash as jh
from jaxhash.query import hits

HELPERS = Path(__file__).parents[1] / "helpers"


def sample_codes(num_bits, n=2000, q=16):
    rng = np.random.default_rng((num_bits, n))
    codes = oracle.pack(oracle.clustered(rng, n + q, num_bits))
    return codes[:n], codes[n:]


def run_together(*jobs):
    """Runs jobs in threads that start at once; raises an error of any of them."""
    start, wrong = threading.Barrier(len(jobs)), []

    def run(job):
        try:
            start.wait()
            job()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


def test_eight_threads_that_compile_at_once_find_the_nearest():
    codes, queries = sample_codes(43, n=7000)  # of a size that no other test searches
    index = jh.build_index(codes, 43)
    expected = oracle.nearest(codes, np.arange(len(codes)), queries, 11)
    within = oracle.within(codes, np.arange(len(codes)), queries, 4)

    def work(number):
        for turn in range(50):
            row = (number + turn) % len(queries)
            if turn % 2:
                found = jh.search(index, queries[row], k=11)
                same(tuple(found), (expected[0][row], expected[1][row]))
            else:
                found = jh.radius_search(index, queries[row], radius=4)
                same((found.distances, found.ids), within[row])

    run_together(*(partial(work, number) for number in range(8)))


def test_searches_while_items_are_added_see_one_index_or_the_other():
    codes, queries = sample_codes(44, n=1500)
    current = [jh.build_index(codes[:1000], 44)]
    stages = [1000 + 50 * turn for turn in range(11)]
    expected = [
        {stage: oracle.nearest(codes[:stage], np.arange(stage), [query], 5) for stage in stages}
        for query in queries[:2]
    ]
    done = threading.Event()

    def add():
        for first in stages[:-1]:
            current[0] = jh.add_items(current[0], codes[first : first + 50])
            time.sleep(0.002)
        done.set()

    def search(number):
        while not done.is_set():
            index = current[0]
            found = jh.search(index, queries[number : number + 1], k=5)
            same(tuple(found), expected[number][jh.describe(index).num_items])

    run_together(add, *(partial(search, number % 2) for number in range(4)))
    assert jh.describe(current[0]).num_items == 1500


def search_file(path, query):
    return np.asarray(jh.search(jh.load_index(path), query, k=3).ids)


def test_a_spawned_process_finds_the_same(tmp_path):
    codes, queries = sample_codes(40)
    index = jh.build_index(codes, 40)
    jh.save_index(tmp_path / "index", index)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(search_file, (tmp_path / "index", queries))
    same(found, jh.search(index, queries, k=3).ids)


def run_python(code, *arguments, flags=(), **environment):
    done = subprocess.run(
        [sys.executable, *flags, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=HELPERS,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


SAVE = """
import sys
import numpy as np, jaxhash as jh
own, other = sys.argv[1:]
codes = np.random.default_rng(0).integers(0, 2**32, (500, 2), dtype=np.uint32)
jh.save_index(own, jh.build_index(codes, 64))
print(jh.search(jh.load_index(other), codes[:20] ^ 5, k=3).ids.tolist())
"""


def test_files_pass_between_32_and_64_bit_mode(tmp_path):
    narrow, wide = tmp_path / "narrow", tmp_path / "wide"
    first = run_python(SAVE, narrow, narrow, JAX_ENABLE_X64="0")
    assert run_python(SAVE, wide, narrow, JAX_ENABLE_X64="1", PYTHONHASHSEED="1") == first
    assert run_python(SAVE, narrow, wide, JAX_ENABLE_X64="0", PYTHONHASHSEED="2") == first
    assert narrow.read_bytes() == wide.read_bytes()


TRAIN = """
import sys, numpy as np, jaxhash as jh
images = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)
for objective in ("reconstruct", "retrieve"):
    model, _ = jh.fit(jh.Autoencoder(64, 8, (16,)), images, epochs=2, batch_size=50, objective=objective)
jh.save_model(sys.argv[1], model)
print(np.asarray(jh.encode(jh.load_model(sys.argv[2]), images)).tobytes().hex())
"""


def test_models_pass_between_32_and_64_bit_mode(tmp_path):
    narrow, wide = tmp_path / "narrow", tmp_path / "wide"
    first = run_python(TRAIN, narrow, narrow, JAX_ENABLE_X64="0")
    assert run_python(TRAIN, wide, narrow, JAX_ENABLE_X64="1") == first
    run_python(TRAIN, narrow, wide, JAX_ENABLE_X64="0")


def test_files_do_not_depend_on_the_time_of_the_save(tmp_path, monkeypatch):
    index = jh.build_index(sample_codes(40)[0], 40)
    jh.save_index(tmp_path / "now", index)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(1e9))
    jh.save_index(tmp_path / "then", index)
    assert (tmp_path / "now").read_bytes() == (tmp_path / "then").read_bytes()


SHARDED = """
import jax, numpy as np, jaxhash as jh
from jax.sharding import Mesh, NamedSharding, PartitionSpec
codes = np.random.default_rng(0).integers(0, 2**32, (500, 2), dtype=np.uint32)
spread = jax.device_put(codes, NamedSharding(Mesh(np.array(jax.devices()), ("d",)), PartitionSpec("d")))
assert len(spread.sharding.device_set) == 2
a, b = jh.build_index(codes, 64), jh.build_index(spread, 64)
jax.tree.map(np.testing.assert_array_equal, a, b)
jax.tree.map(np.testing.assert_array_equal, jh.search(a, spread, k=3), jh.search(a, codes, k=3))
jax.tree.map(np.testing.assert_array_equal, jh.add_items(a, spread), jh.add_items(a, codes))
"""


def test_codes_spread_over_devices_give_the_same_index_and_results():
    run_python(SHARDED, XLA_FLAGS="--xla_force_host_platform_device_count=2")


def test_wrong_input_is_refused_without_asserts_too():
    # In test modules pytest turns asserts into raises, so that they hold under -O too.
    modules = (
        "codes/test_bits",
        "index/test_building",
        "index/test_density",
        "query/test_nearest",
        "index/test_changes",
        "files/test_archive",
    )
    code = f"""
import sys, pytest
assert False, "this must not be seen"
sys.exit(pytest.main([
    "-q", "-p", "no:cacheprovider", "-k", "refused or named or asked_for", "-W", "ignore::pytest.PytestConfigWarning",
    *("../%s.py" % name for name in {modules!r})
]))
"""
    out = run_python(code, flags=("-O", "-X", "dev"))
    passed = int(out.rsplit(" passed", 1)[0].split()[-1])
    assert passed > 130


def test_importing_opens_no_connection_and_starts_no_thread():
    code = """
import sys, threading
events = []
sys.addaudithook(lambda event, _: events.append(event))
import jaxhash, jaxhash.retriever, jaxhash.training
assert not [event for event in events if event.startswith("socket.")], events
assert threading.active_count() == 1
"""
    run_python(code)


def test_memory_beside_the_result_is_bounded(monkeypatch):
    codes, queries = sample_codes(20, n=4000, q=250)
    index = jh.build_index(codes, 20)
    monkeypatch.setattr(hits, "CANDIDATES_AT_ONCE", 2**15)
    jh.radius_search(index, queries, radius=20)  # compiling takes memory of its own
    tracemalloc.start()
    found = jh.radius_search(index, queries, radius=20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.ids) == 4000 * 250
    result = found.ids.nbytes + found.distances.nbytes
    assert peak < 2 * result + 200 * 2**15  # bytes for each candidate


@pytest.mark.parametrize(
    ("n", "function"),
    [(3000, partial(jh.search, k=5000)), (0, partial(jh.radius_search_padded, radius=40, max_results=9))],
)
def test_no_gather_of_a_search_reaches_out_of_bounds(n, function):
    codes, queries = sample_codes(40, n=n)
    index = jh.build_index(codes, 40)
    error, found = jax.jit(checkify.checkify(function, errors=checkify.index_checks))(index, queries)
    error.throw()
    same(found, function(index, queries))


def test_an_index_of_donated_buffers_is_an_error():
    index = jh.build_index(sample_codes(40)[0], 40)
    copy = jax.tree.map(jnp.copy, index)
    moved = jax.jit(lambda index: dataclasses.replace(index, ids=index.ids + 1), donate_argnums=0)(copy)
    same(moved.codes, index.codes)
    np.testing.assert_array_equal(moved.ids[:2000], index.ids[:2000] + 1)
    with pytest.raises(RuntimeError, match="deleted"):
        jh.add_items(copy, sample_codes(40)[0])
