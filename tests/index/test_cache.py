"""What is kept beside an index."""

import copy
import pickle
import threading
import weakref

import jax
import numpy as np
import pytest
from samples import same

import jaxhash as jh
from jaxhash.index.address_table import Slice, get_tables, list_tables
from jaxhash.index.hash_index import Cache, Sizes, cache_of, replace_ids, sizes_of


def index_of(count):
    return jh.build_index(np.arange(count, dtype=np.uint32)[:, None], 32)


def in_threads(function, count=8):
    """What a function returns in threads that start together."""
    start, results = threading.Barrier(count), []

    def work():
        start.wait()
        results.append(function())

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_each_index_has_one_cache():
    one, other = index_of(3), index_of(3)
    assert cache_of(one) is cache_of(one)
    assert cache_of(one) is not cache_of(other)
    assert len(set(map(id, in_threads(lambda: cache_of(other))))) == 1


def test_a_value_is_made_once_even_by_many_threads():
    cache, calls = Cache(), []

    def make():
        calls.append(threading.get_ident())
        return np.zeros(3)

    results = in_threads(lambda: cache.keep("words", make))
    assert len(calls) == 1
    assert all(result is cache.words for result in results)


def test_a_maker_that_fails_keeps_nothing():
    cache = Cache()

    def fail():
        raise MemoryError

    with pytest.raises(MemoryError):
        cache.keep("words", fail)
    assert cache.keep("words", lambda: 7) == 7


def test_sizes_by_hand():
    index = jh.build_index(np.array([[3], [1], [3]], np.uint32) << 24, 8)
    assert sizes_of(index) == Sizes(num_items=3, num_codes=2, num_bits=8, capacity=index.capacity, on_host=True)
    assert sizes_of(index) is sizes_of(index)


def test_tables_add_their_crowding_to_the_sizes():
    index = jh.build_index(np.array([[1], [2], [3], [2**31]], np.uint32), 32)
    plain = sizes_of(index)
    assert plain.crowding == ()
    (table,) = get_tables(index, (Slice(0, 8),))  # three codes share an address, one is alone
    assert table.crowding == pytest.approx((3 * 3 + 1) / 4 / (1 + 4 / 2**8))
    assert sizes_of(index) == plain._replace(crowding=((Slice(0, 8), table.crowding),))
    get_tables(index, (Slice(20, 8),))
    assert [bits for bits, _ in sizes_of(index).crowding] == [Slice(0, 8), Slice(20, 8)]


def test_copies_of_an_index_start_with_nothing():
    index = index_of(3)
    get_tables(index, (Slice(0, 8),))
    cache_of(index).spent[()] = 1.0
    copies = [
        pickle.loads(pickle.dumps(index)),  # noqa: S301
        copy.deepcopy(index),
        jax.tree.map(lambda array: array, index),
    ]
    for other in copies:
        assert vars(cache_of(other)) | {"lock": None} == vars(Cache()) | {"lock": None}
        same(other, index)


def test_other_ids_share_what_depends_on_the_codes():
    index = index_of(300)
    other = replace_ids(index, index.ids[::-1])
    allowed = np.arange(len(index.ids)) % 2 == 0
    jh.search(index, np.zeros((1, 1), np.uint32), k=1, allowed=allowed, method="scan")
    get_tables(other, (Slice(0, 8),))
    assert list_tables(index) == list_tables(other)
    assert cache_of(other).spent is cache_of(index).spent
    assert cache_of(index).last_filter is not None
    assert cache_of(other).last_filter is None


def test_cached_values_are_freed_with_the_index():
    index = index_of(3)
    value = weakref.ref(cache_of(index).keep("numbered", Cache))
    assert value() is not None
    del index
    assert value() is None
