"""What is remembered for an index."""

import copy
import pickle
import threading
import weakref

import jax
import numpy as np

import jaxhash as jh
from jaxhash.index.hash_index import IndexMemory, memory_of


def index_of(count):
    return jh.build_index(np.arange(count, dtype=np.uint32)[:, None], 32)


def test_each_index_has_one_memory():
    one, other = index_of(3), index_of(3)
    assert memory_of(one) is memory_of(one)
    assert memory_of(one) is not memory_of(other)


def test_a_value_is_computed_once_even_by_many_threads():
    memory, calls, results = IndexMemory(), [], []
    start = threading.Barrier(8)

    def compute():
        calls.append(threading.get_ident())
        return object()

    def ask():
        start.wait()
        results.append(memory.remember("key", compute))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len({id(result) for result in results}) == 1


def test_missing_names_what_was_not_computed_yet():
    memory = IndexMemory()
    memory.remember("a", lambda: None)
    assert memory.missing(["a", "b"]) == ["b"]


def test_values_that_are_missing_are_computed_together():
    memory = IndexMemory()
    memory.remember("b", lambda: 1)
    assert memory.remember_all(["a", "b", "c"], lambda keys: [key * 2 for key in keys]) == ["aa", 1, "cc"]
    assert memory.remember_all(["c", "a"], list) == ["cc", "aa"]
    assert memory.values_of(str) == ["aa", "cc"]


def test_lost_time_is_added_up_for_each_plan_alone():
    memory = IndexMemory()
    assert [memory.add_lost_time("a", 2.0), memory.add_lost_time("a", 3.0)] == [2.0, 5.0]
    assert memory.add_lost_time("b", 1.0) == 1.0


def test_copies_of_an_index_start_with_nothing():
    index = index_of(3)
    memory_of(index).remember("key", object)
    copies = [
        pickle.loads(pickle.dumps(index)),  # noqa: S301
        copy.deepcopy(index),
        jax.tree.map(lambda array: array, index),
    ]
    for other in copies:
        assert memory_of(other).missing(["key"]) == ["key"]


def test_what_is_remembered_is_freed_with_the_index():
    index = index_of(3)
    value = weakref.ref(memory_of(index).remember("key", IndexMemory))
    assert value() is not None
    del index
    assert value() is None
