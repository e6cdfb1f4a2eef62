"""The package in threads and processes, in little memory and in 64-bit mode."""

import dataclasses
import multiprocessing
import threading
import time
import tracemalloc
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.experimental import checkify
from samples import collection, same

import jaxhash as jh
from jaxhash.codes.distances import Queries
from jaxhash.models.atoms import learn_dictionary
from jaxhash.query.nearest import find_nearest
from jaxhash.query.plan import LIMITS
from jaxhash.query.radius import find_matches


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
    index, queries, codes, ids = collection(43, 7000, 16)  # of a size that no other test searches
    expected = oracle.nearest(codes, ids, queries, 11)
    within = oracle.within(codes, ids, queries, 4)

    def work(number):
        for turn in range(20):
            row = (number + turn) % len(queries)
            if turn % 2:
                found = jh.search(index, queries[row], k=11)
                same(tuple(found), (expected[0][row], expected[1][row]))
            else:
                found = jh.radius_search(index, queries[row], radius=4)
                same((found.distances, found.ids), within[row])

    run_together(*(partial(work, number) for number in range(8)))


def test_searches_while_items_are_added_see_old_or_new():
    _, queries, codes, _ = collection(44, 1500)
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


def search_file(path, queries):
    return jh.search(jh.load_index(path), queries, k=3).ids


@pytest.mark.slow  # a new process imports JAX
def test_a_spawned_process_finds_the_same(tmp_path):
    index, queries, *_ = collection(32)
    jh.save_index(tmp_path / "index", index)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(search_file, (tmp_path / "index", queries))
    same(found, jh.search(index, queries, k=3).ids)


@pytest.fixture
def in_modes():
    """Calls a function in 32-bit and in 64-bit mode and returns both results; `tests/stacks.sh` starts JAX in each."""

    def call(function):
        found = []
        for wide in (False, True):
            jax.config.update("jax_enable_x64", wide)
            found.append(function())
        return found

    before = jax.config.jax_enable_x64
    yield call
    jax.config.update("jax_enable_x64", before)


def test_files_pass_between_32_and_64_bit_mode(tmp_path, in_modes):
    _, queries, codes, _ = collection(64, 500)
    names = iter(("narrow", "wide"))
    in_modes(lambda: jh.save_index(tmp_path / next(names), jh.build_index(codes, 64)))
    assert (tmp_path / "narrow").read_bytes() == (tmp_path / "wide").read_bytes()
    same(*in_modes(lambda: jh.search(jh.load_index(tmp_path / "narrow"), queries, k=3)))


def test_few_allowed_items_are_the_same_in_64_bit_mode(in_modes):
    _, queries, codes, _ = collection(64, 500)
    search = partial(find_nearest, k=3, limits=LIMITS._replace(min_gathered_items=1))
    # An index keeps its filters.
    same(*in_modes(lambda: search(jh.build_index(codes, 64), Queries(queries), np.arange(500) < 2)))


@pytest.mark.slow  # as the next one
def test_dictionaries_are_learned_alike_in_64_bit_mode(in_modes):
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 9, 3), dtype=np.uint8)
    narrow, wide = in_modes(lambda: learn_dictionary(images, 6, 30, seed=0))
    for array, other in zip(narrow, wide, strict=True):
        assert array.dtype == other.dtype == np.float32
        np.testing.assert_allclose(array, other, atol=1e-3)


@pytest.mark.slow  # compiles all of training in 64-bit mode, which tests/stacks.sh runs too
def test_models_pass_between_32_and_64_bit_mode(tmp_path, in_modes):
    # No images: their warps take long to compile.
    vectors = np.random.default_rng(0).integers(0, 256, (200, 64), dtype=np.uint8)
    options = {"epochs": 2, "batch_size": 50, "objective": "retrieve"}

    def make():  # other tests train in 32-bit mode
        model = jh.Autoencoder(64, 8, (16,))
        return jh.fit(model, vectors, **options)[0] if jax.config.jax_enable_x64 else model

    for model in in_modes(make):
        jh.save_model(tmp_path / "model", model)
        same(*in_modes(lambda: np.asarray(jh.encode(jh.load_model(tmp_path / "model"), vectors))))


def test_files_do_not_depend_on_the_time_of_the_save(tmp_path, monkeypatch):
    index = collection(40).index
    jh.save_index(tmp_path / "now", index)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(1e9))
    jh.save_index(tmp_path / "then", index)
    assert (tmp_path / "now").read_bytes() == (tmp_path / "then").read_bytes()


@pytest.mark.parametrize("method", ["scan", "auto", "probe"])
def test_memory_beside_the_result_is_bounded(method):
    index, queries, *_ = collection(20, 4000, 250)
    limits = LIMITS._replace(candidates=2**15, compared=2**15, probes=2**15, max_queries=32)
    search = partial(find_matches, index, queries, 20, method=method, limits=limits)
    search()  # compiling takes memory of its own
    tracemalloc.start()
    found = search()
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
    index, queries, *_ = collection(40, n, 16)
    error, found = jax.jit(checkify.checkify(function, errors=checkify.index_checks))(index, queries)
    error.throw()
    same(found, function(index, queries))


def test_an_index_of_donated_buffers_is_an_error():
    index, _, codes, _ = collection(40)
    copy = jax.tree.map(jnp.copy, index)
    moved = jax.jit(lambda index: dataclasses.replace(index, ids=index.ids + 1), donate_argnums=0)(copy)
    same(moved.codes, index.codes)
    np.testing.assert_array_equal(moved.ids[:400], index.ids[:400] + 1)
    with pytest.raises(RuntimeError, match="deleted"):
        jh.add_items(copy, codes)
