import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import jaxhash as jh
from jaxhash.codes import sorting
from jaxhash.codes.sorting import Pairs, argsort_codes, find_positions, group_pairs, mark_run_starts, sort_pairs
from jaxhash.index import hash_index
from jaxhash.index.hash_index import code_runs, sorted_arrays

WORDS = st.sampled_from([0, 1, 2, 2**31, 2**32 - 1])
TABLES = st.integers(1, 6).flatmap(
    lambda w: hnp.arrays(np.uint32, st.tuples(st.integers(0, 60), st.just(w)), elements=WORDS)
)


@given(TABLES)
def test_sorting_is_lexicographic_and_stable(table):
    np.testing.assert_array_equal(argsort_codes(table), np.lexsort(table.T[::-1]))
    ids = -np.arange(len(table))
    np.testing.assert_array_equal(argsort_codes(table, ids), np.lexsort((ids, *table.T[::-1])))


@given(TABLES, st.integers(0, 2**32))
def test_pairs_are_sorted_by_code_and_then_by_id(table, seed):
    ids = np.random.default_rng(seed).choice(2**31, len(table), replace=False).astype(np.int32)
    before = table.copy()
    codes, labels = sort_pairs(Pairs(table, ids))
    expected = sorted((*map(int, code), int(label)) for code, label in zip(table, ids, strict=True))
    assert [(*map(int, code), int(label)) for code, label in zip(codes, labels, strict=True)] == expected
    assert (codes.dtype, labels.dtype) == (np.uint32, np.int32)
    np.testing.assert_array_equal(table, before)


@given(TABLES)
def test_equal_codes_are_kept_once(table):
    distinct, offsets, ids = group_pairs(Pairs(table, np.arange(len(table), dtype=np.int32)))
    assert [tuple(code) for code in distinct] == sorted(set(map(tuple, table)))
    for code, first, last in zip(distinct, offsets, offsets[1:], strict=False):
        assert (table[ids[first:last]] == code).all()
    assert offsets[-1] == len(table)


@pytest.mark.parametrize("rows", [[], [3], [3, 3, 4, 5, 5, 5, 9], [0] * 30])
def test_positions_are_found_in_parts(rows, monkeypatch):
    monkeypatch.setattr(sorting, "ENTRIES_PER_CHUNK", 2)
    new = mark_run_starts(np.array(rows, np.uint32))
    expected = [i for i in range(len(rows)) if i == 0 or rows[i] != rows[i - 1]]
    positions = find_positions(new, fill=99, length=len(expected) + 2)
    assert positions.tolist() == [*expected, 99, 99]
    assert positions.dtype == np.int32


@pytest.mark.parametrize("num_bits", [20, 64])
@pytest.mark.parametrize("n", [0, 1, 1024, 5000])
def test_code_runs_hold_all_codes_in_order(n, num_bits, rng, monkeypatch):
    monkeypatch.setattr(hash_index, "CODES_PER_CHUNK", 1500)
    index = jh.build_index(jh.pack_bits(rng.random((n, num_bits)) < 0.5), num_bits)
    runs = list(code_runs(index))
    assert len(runs) == -(-int(index.num_codes) // 1024)
    table = sorted_arrays(index)[0]
    np.testing.assert_array_equal(np.concatenate([table[:0], *runs]), table)
