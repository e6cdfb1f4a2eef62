"""Adding, removing and merging items, against building anew."""

import itertools

import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from methods import prefer
from samples import collection, identical

import jaxhash as jh
from jaxhash.codes.distances import Queries
from jaxhash.index import hash_index
from jaxhash.index.hash_index import sorted_arrays
from jaxhash.query.nearest import find_nearest

WIDTHS = [1, 2, 17, 31, 32, 33, 63, 64, 65, 128, 256, 800, 1024]


def three_items():
    """Two items of code 011, with the ids 4 and 9, and one of code 100, with the id 7."""
    return jh.build_index(jh.pack_bits([[0, 1, 1], [1, 0, 0], [0, 1, 1]]), 3, ids=[9, 7, 4])


def contents(index):
    table, offsets, ids = sorted_arrays(index)
    return jh.codes.codes_to_integers(table, index.num_bits).tolist(), offsets.tolist(), ids.tolist()


def test_adding_by_hand():
    index = three_items()
    more = jh.add_items(index, jh.pack_bits([[1, 1, 1], [0, 1, 1], [0, 0, 0]]), ids=[1, 5, 2])
    assert contents(more) == ([0b000, 0b011, 0b100, 0b111], [0, 1, 4, 5, 6], [2, 4, 5, 9, 7, 1])
    assert contents(index) == ([0b011, 0b100], [0, 2, 3], [4, 9, 7])


def test_removing_by_hand():
    index = three_items()
    assert contents(jh.remove_items(index, [9])) == ([0b011, 0b100], [0, 1, 2], [4, 7])
    assert contents(jh.remove_items(index, [4, 9])) == ([0b100], [0, 1], [7])
    assert contents(jh.remove_items(index, [7, 4, 9])) == ([], [0], [])
    assert contents(index) == ([0b011, 0b100], [0, 2, 3], [4, 9, 7])


def test_merging_by_hand():
    other = jh.build_index(jh.pack_bits([[0, 1, 1], [0, 0, 1]]), 3, ids=[6, 8])
    assert contents(jh.merge_indexes(three_items(), other)) == ([0b001, 0b011, 0b100], [0, 1, 4, 5], [8, 4, 6, 9, 7])


@pytest.mark.parametrize("num_bits", WIDTHS)
def test_adding_in_batches_equals_building_at_once(num_bits):
    whole, _, codes, ids = collection(num_bits, 300)
    order = np.random.default_rng(1).permutation(len(codes))
    index = jh.build_index(codes[:0], num_bits)
    for batch in np.array_split(order, 7):
        index = jh.add_items(index, codes[batch], ids=ids[batch])
    identical(index, whole)


@pytest.mark.parametrize("num_bits", WIDTHS)
def test_removing_equals_building_without(num_bits):
    index, _, codes, ids = collection(num_bits, 300)
    gone = np.random.default_rng(2).random(len(codes)) < 0.4
    left = jh.remove_items(index, ids[gone])
    identical(left, jh.build_index(codes[~gone], num_bits, ids=ids[~gone]))


@pytest.mark.parametrize("num_bits", WIDTHS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_merging_equals_building_from_both_in_either_order(num_bits, share):
    whole, _, codes, ids = collection(num_bits, 300)
    first = np.random.default_rng(3).random(len(codes)) < share
    a, b = (jh.build_index(codes[part], num_bits, ids=ids[part]) for part in (first, ~first))
    identical(jh.merge_indexes(a, b), whole)
    identical(jh.merge_indexes(b, a), whole)


@settings(deadline=None)
@given(st.integers(0, 80), st.integers(0, 80), st.sampled_from([1, 3, 33, 70]), st.integers(0, 2**32))
def test_any_two_collections_merge_as_if_built_together(n, m, num_bits, seed):
    expected, _, codes, ids = collection(num_bits, n + m, 0, seed)
    a, b = jh.build_index(codes[:n], num_bits, ids=ids[:n]), jh.build_index(codes[n:], num_bits, ids=ids[n:])
    identical(jh.merge_indexes(a, b), expected)
    identical(jh.add_items(a, codes[n:], ids=ids[n:]), expected)
    identical(jh.remove_items(expected, ids[n:]), a)


def test_capacity_grows_and_shrinks_as_if_built_anew():
    codes = oracle.pack(np.unique(np.random.default_rng(0).random((3000, 40)) < 0.5, axis=0))
    index = jh.build_index(codes[:1000], 40)
    grown = jh.add_items(index, codes[1000:])
    assert grown.capacity > index.capacity
    identical(grown, jh.build_index(codes, 40))
    identical(jh.remove_items(grown, np.arange(1000, len(codes))), index)


def test_default_ids_continue_after_the_largest():
    one = np.zeros((1, 1), np.uint32)
    assert sorted_arrays(jh.add_items(jh.build_index(one[:0], 3), one))[2].tolist() == [0]
    assert sorted_arrays(jh.add_items(three_items(), np.repeat(one, 2, axis=0)))[2].tolist() == [10, 11, 4, 9, 7]


def test_default_ids_past_int32_are_refused_and_ids_asked_for():
    index = jh.build_index(np.zeros((1, 1), np.uint32), 3, ids=[2**31 - 2])
    assert jh.add_items(index, np.zeros((1, 1), np.uint32)).ids[1] == 2**31 - 1
    with pytest.raises(ValueError, match="give ids"):
        jh.add_items(index, np.zeros((2, 1), np.uint32))


def test_nothing_to_change_gives_the_index_back():
    index = three_items()
    assert jh.add_items(index, np.zeros((0, 1), np.uint32)) is index
    assert jh.remove_items(index, []) is index
    assert jh.remove_items(index, np.array([5, 6]), missing="ignore") is index
    identical(jh.merge_indexes(index, jh.build_index(np.zeros((0, 1), np.uint32), 3)), index)


def test_all_items_may_leave_and_come_back():
    index, _, codes, ids = collection(40)
    empty = jh.remove_items(index, ids)
    identical(empty, jh.build_index(codes[:0], 40))
    identical(jh.add_items(empty, codes, ids=ids), index)


def test_an_item_that_leaves_and_comes_back_is_there_once():
    index = three_items()
    again = jh.add_items(jh.remove_items(index, [9]), jh.pack_bits([[0, 1, 1]]), ids=[9])
    identical(again, index)
    assert jh.radius_search(again, jh.pack_bits([0, 1, 1]), radius=0).ids.tolist() == [4, 9]


def test_ids_to_remove_are_a_set():
    index = three_items()
    identical(jh.remove_items(index, [9, 9, 7]), jh.remove_items(index, [7, 9]))


@pytest.mark.parametrize("unknown", [5, -1, 2**31, 2**63])
def test_an_unknown_id_is_named_or_ignored(unknown):
    index, ids = three_items(), np.array([9, unknown, unknown], np.uint64 if unknown > 9 else np.int64)
    with pytest.raises(KeyError, match=f"id {unknown} is not in the index"):
        jh.remove_items(index, ids)
    identical(jh.remove_items(index, ids, missing="ignore"), jh.remove_items(index, [9]))


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1.0], TypeError, "ids must be integers, got dtype float64"),
        ([True], TypeError, "ids must be integers, got dtype bool"),
        (["9"], TypeError, "ids must be integers"),
        ([2**70], TypeError, "ids must be integers, got dtype object"),
        (9, ValueError, r"ids must have shape \[m\], got \(\)"),
        ([[9]], ValueError, r"ids must have shape \[m\], got \(1, 1\)"),
    ],
)
def test_wrong_ids_to_remove_are_refused(ids, error, message):
    with pytest.raises(error, match=message):
        jh.remove_items(three_items(), ids)


@pytest.mark.parametrize("missing", ["Raise", "", None, True])
def test_unknown_values_of_missing_are_refused(missing):
    with pytest.raises(ValueError, match="missing must be raise or ignore, got"):
        jh.remove_items(three_items(), [9], missing=missing)


@pytest.mark.parametrize(
    ("codes", "ids", "error", "message"),
    [
        (np.zeros((2, 1), np.int32), None, TypeError, "codes must be packed codes of dtype uint32"),
        (np.zeros((2, 2), np.uint32), None, ValueError, "codes must have 1 words"),
        (np.zeros(2, np.uint32), None, ValueError, "codes must have shape"),
        (np.full((2, 1), 1, np.uint32), None, ValueError, "padding bits must be zero"),
        (np.zeros((2, 1), np.uint32), [1, 9], ValueError, "ids must be new, but 9 is in the index already"),
        (np.zeros((2, 1), np.uint32), [9, 7], ValueError, "ids must be new, but 7 is in the index already"),
        (np.zeros((2, 1), np.uint32), [1, 1], ValueError, "1 occurs more than once"),
        (np.zeros((2, 1), np.uint32), [1], ValueError, r"ids must have shape \(2,\)"),
        (np.zeros((2, 1), np.uint32), [1, -1], ValueError, "got -1"),
        (np.zeros((2, 1), np.uint32), [1, 2**31], ValueError, r"my_ids\[ids\]"),
        (np.zeros((2, 1), np.uint32), [0.0, 1.0], TypeError, "ids must be integers"),
    ],
)
def test_wrong_additions_are_refused_and_change_nothing(codes, ids, error, message):
    index = three_items()
    with pytest.raises(error, match=message):
        jh.add_items(index, codes, ids=ids)
    identical(index, three_items())


def test_one_invalid_code_of_a_thousand_adds_none():
    index, codes = three_items(), np.zeros((1000, 1), np.uint32)
    codes[500] = 1
    with pytest.raises(ValueError, match=r"the code at \(500,\) has bits past 3"):
        jh.add_items(index, codes)
    identical(index, three_items())


def test_indexes_that_do_not_fit_together_are_refused():
    index = three_items()
    with pytest.raises(ValueError, match="codes of the same length, got 3 and 4 bits"):
        jh.merge_indexes(index, jh.build_index(np.zeros((1, 1), np.uint32), 4))
    shared = jh.build_index(np.zeros((3, 1), np.uint32), 3, ids=[9, 1, 7])
    for a, b in ((index, shared), (shared, index)):
        with pytest.raises(ValueError, match="both have 7"):
            jh.merge_indexes(a, b)
    identical(index, three_items())


@pytest.mark.parametrize("wrong", [None, np.zeros((3, 1), np.uint32)])
def test_other_types_than_an_index_are_refused(wrong):
    index = three_items()
    for call in (
        lambda: jh.add_items(wrong, np.zeros((1, 1), np.uint32)),
        lambda: jh.remove_items(wrong, [1]),
        lambda: jh.merge_indexes(index, wrong),
        lambda: jh.merge_indexes(wrong, index),
    ):
        with pytest.raises(TypeError, match="must be a HashIndex"):
            call()


def test_collections_that_grow_past_int32_are_refused(monkeypatch):
    index = three_items()
    endless = np.broadcast_to(np.uint32(0), (2**31, 1))  # takes no memory
    with pytest.raises(ValueError, match="sharding"):
        jh.add_items(index, endless)
    a, b = (jh.build_index(np.zeros((1000, 1), np.uint32), 32, ids=np.arange(i, i + 1000)) for i in (0, 1000))
    monkeypatch.setattr(hash_index, "INT32_MAX", 2000)
    with pytest.raises(ValueError, match="sharding"):
        jh.add_items(a, np.zeros((1000, 1), np.uint32))
    with pytest.raises(ValueError, match="sharding"):
        jh.merge_indexes(a, b)


def test_an_index_that_went_through_jax_can_be_changed():
    index, _, codes, ids = collection(40, 300)
    moved = jax.jit(lambda index: jax.tree.map(lambda leaf: leaf + 0, index))(index)
    more = jh.add_items(moved, codes[:5], ids=ids[:5] + 1000)
    identical(jh.remove_items(more, ids[:5] + 1000), index)


def test_a_hundred_additions_compile_few_programs(compilations):
    codes = collection(42, 4000).codes
    queries = codes[::10][:400]
    index = jh.build_index(codes[:2000], 42)
    with compilations:
        for turn in range(1, 101):
            index = jh.add_items(index, codes[len(sorted_arrays(index)[2]) :][:10])
            find_nearest(index, Queries(queries[: 1 + turn % 16]), k=2, limits=prefer("scan"))
    assert jh.describe(index).num_items == 3000
    assert 1 <= compilations.count <= 8


class Countdown:
    """Raises KeyboardInterrupt from its n-th call on; before, calls a function."""

    def __init__(self, function, number):
        self.function, self.left = function, number

    def __call__(self, *arguments, **options):
        self.left -= 1
        if self.left <= 0:
            raise KeyboardInterrupt
        return self.function(*arguments, **options)


@pytest.mark.parametrize("name", ["argsort", "append", "insert"])
def test_ctrl_c_during_an_addition_changes_nothing(name, monkeypatch):
    codes = collection(64, 300).codes
    index = jh.build_index(codes[:150], 64)
    for number in itertools.count(1):
        countdown = Countdown(getattr(np, name), number)
        with monkeypatch.context() as patch:
            patch.setattr(np, name, countdown)
            try:
                jh.add_items(index, codes[150:])
                break
            except KeyboardInterrupt:
                pass
        identical(index, jh.build_index(codes[:150], 64))
    assert number > 1
    identical(jh.add_items(index, codes[150:]), jh.build_index(codes, 64))


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([3, 12, 40]))
def test_changes_of_items_with_several_codes_equal_a_new_build(seed, num_bits):
    rng = np.random.default_rng(seed)
    codes, ids = collection(num_bits, 60, 0, seed).codes, rng.integers(0, 9, 60)
    whole = jh.build_index(codes, num_bits, ids=ids, multi=True)
    part, rest = (jh.build_index(codes[s], num_bits, ids=ids[s], multi=True) for s in (slice(0, 35), slice(20, 60)))
    identical(whole, jh.merge_indexes(part, rest))
    identical(whole, jh.merge_indexes(rest, part))
    identical(whole, jh.add_items(part, codes[20:], ids=ids[20:]))
    kept = ids != ids[0]
    identical(jh.build_index(codes[kept], num_bits, ids=ids[kept], multi=True), jh.remove_items(whole, ids[:1]))


def test_rows_of_codes_are_added_after_the_largest_id():
    codes = collection(20, 12).codes.reshape(4, 3, 1)
    index = jh.add_items(jh.build_index(codes[:1], 20, multi=True), codes[1:])
    identical(index, jh.build_index(codes, 20, multi=True))


def test_indexes_of_different_multi_are_not_merged():
    codes = np.zeros((2, 1), np.uint32)
    with pytest.raises(ValueError, match="a and b must have the same multi, got"):
        jh.merge_indexes(jh.build_index(codes, 8), jh.build_index(codes, 8, ids=[5, 6], multi=True))


class Collection(RuleBasedStateMachine):
    """An index beside a dictionary from ids to codes as Python integers."""

    def __init__(self):
        super().__init__()
        self.num_bits = None
        self.items = {}

    @precondition(lambda self: self.num_bits is None)
    @rule(num_bits=st.sampled_from([2, 31, 40, 64]))
    def start(self, num_bits):
        self.num_bits = num_bits
        self.index = self.built({})

    def codes(self, integers):
        return np.asarray(jh.codes.codes_from_integers(np.array(list(integers), np.uint64), self.num_bits))

    def built(self, items):
        return jh.build_index(self.codes(items.values()), self.num_bits, ids=list(items))

    def drawn(self, data, max_size=6):
        """Codes near each other, so that many are equal."""
        near = st.builds(lambda a, b: (a << self.num_bits - 2) | (b & 1), st.integers(0, 3), st.integers(0, 2**20))
        return data.draw(st.lists(near.map(lambda code: code % 2**self.num_bits), max_size=max_size))

    @precondition(lambda self: self.num_bits is not None)
    @rule(data=st.data())
    def add_with_default_ids(self, data):
        codes = self.drawn(data)
        first = max(self.items, default=-1) + 1
        self.index = jh.add_items(self.index, self.codes(codes))
        self.items |= dict(enumerate(codes, first))

    @precondition(lambda self: self.num_bits is not None)
    @rule(data=st.data())
    def add_with_ids(self, data):
        codes = self.drawn(data)
        ids = data.draw(st.lists(st.integers(0, 50), min_size=len(codes), max_size=len(codes), unique=True))
        if set(ids) & self.items.keys():
            with pytest.raises(ValueError, match="in the index already"):
                jh.add_items(self.index, self.codes(codes), ids=ids)
        else:
            self.index = jh.add_items(self.index, self.codes(codes), ids=ids)
            self.items |= dict(zip(ids, codes, strict=True))

    @precondition(lambda self: self.num_bits is not None)
    @rule(ids=st.lists(st.integers(0, 50), max_size=8), ignore=st.booleans())
    def remove(self, ids, ignore):
        if not ignore and set(ids) - self.items.keys():
            with pytest.raises(KeyError):
                jh.remove_items(self.index, ids)
            return
        self.index = jh.remove_items(self.index, ids, missing="ignore" if ignore else "raise")
        self.items = {i: code for i, code in self.items.items() if i not in ids}

    @precondition(lambda self: self.num_bits is not None)
    @rule(data=st.data())
    def merge(self, data):
        codes = self.drawn(data)
        other = dict(enumerate(codes, data.draw(st.integers(0, 60))))
        if other.keys() & self.items.keys():
            with pytest.raises(ValueError, match="no id in common"):
                jh.merge_indexes(self.index, self.built(other))
        else:
            self.index = jh.merge_indexes(self.built(other), self.index)
            self.items |= other

    @precondition(lambda self: self.num_bits is not None)
    @rule()
    def save_and_load(self):
        path = self.folder / "index"
        jh.save_index(path, self.index)
        self.index = jh.load_index(path)

    @precondition(lambda self: self.num_bits is not None)
    @rule(data=st.data())
    def search(self, data):
        query = (self.drawn(data) or [0])[0]
        radius = data.draw(st.integers(0, self.num_bits))
        ranked = sorted(((code ^ query).bit_count(), code, i) for i, code in self.items.items())
        within = [(distance, i) for distance, _, i in ranked if distance <= radius]
        found = jh.radius_search(self.index, self.codes([query])[0], radius=radius)
        assert list(zip(found.distances.tolist(), found.ids.tolist(), strict=True)) == within
        nearest = jh.search(self.index, self.codes([query])[0], k=3)
        assert [i for i in nearest.ids.tolist() if i != -1] == [i for _, _, i in ranked[:3]]

    @precondition(lambda self: self.num_bits is not None)
    @invariant()
    def equals_one_built_at_once(self):
        identical(self.index, self.built(self.items))


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory):
    Collection.folder = tmp_path_factory.mktemp("collection")


TestCollection = Collection.TestCase
TestCollection.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
