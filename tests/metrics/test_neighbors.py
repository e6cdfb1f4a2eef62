from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxhash as jh

MEASURES = [jh.metrics.precision_at_k, jh.metrics.vote_accuracy]


def precision_by_loop(ids, labels, query_labels):
    hits = [i >= 0 and labels[i] == wanted for row, wanted in zip(ids, query_labels, strict=True) for i in row]
    return sum(hits) / len(hits)


def vote_by_counter(ids, labels, query_labels):
    right = 0
    for row, wanted in zip(ids, query_labels, strict=True):
        votes = Counter(labels[i] for i in row if i >= 0)
        most = max(votes.values(), default=0)
        right += wanted == min((label for label in votes if votes[label] == most), default=None)
    return right / len(ids)


@st.composite
def searches(draw):
    labels = draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    q, k = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    place = st.integers(-1, len(labels) - 1)
    # the first place is filled, as it is wherever anything is indexed
    row = st.tuples(st.integers(0, len(labels) - 1), *[place] * (k - 1))
    ids = draw(st.lists(row, min_size=q, max_size=q))
    return ids, labels, draw(st.lists(st.integers(0, 5), min_size=q, max_size=q))


def test_precision_by_hand():
    labels = [0, 1, 1, 2]
    ids = [[0, 1], [1, 2], [3, 0]]  # labels 0 1, 1 1, 2 0
    assert jh.metrics.precision_at_k(ids, labels, [0, 1, 1]) == 3 / 6
    assert jh.metrics.precision_at_k(ids, labels, [0, 1, 1], k=1) == 2 / 3
    with pytest.raises(ValueError, match="k must"):
        jh.metrics.precision_at_k(ids, labels, [0, 1, 1], k=3)


def test_vote_by_hand():
    labels = [0, 1, 1, 2]
    ids = [[0, 1, 2], [0, 1, 2], [3, 3, 1]]  # majorities 1, 1, 2
    assert jh.metrics.vote_accuracy(ids, labels, [1, 0, 2]) == 2 / 3


def test_an_unfilled_slot_counts_as_wrong_for_precision():
    assert jh.metrics.precision_at_k([[1, -1], [-1, -1]], [4, 7], [7, 7]) == 1 / 4


def test_an_unfilled_slot_has_no_vote():
    assert jh.metrics.vote_accuracy([[0, -1, -1]], [3, 4], [3]) == 1
    assert jh.metrics.vote_accuracy([[-1, -1, 1, 0, 1]], [3, 4], [4]) == 1


@pytest.mark.parametrize(
    ("ids", "winner"), [([[0, 1]], 1), ([[1, 0]], 1), ([[2, 2, 1, 0, 0]], 2), ([[2, -1, 0, -1]], 2), ([[2, 1, 0]], 1)]
)
def test_the_lowest_label_wins_a_tied_vote(ids, winner):
    labels = [2, 1, 3]
    assert [jh.metrics.vote_accuracy(ids, labels, [label]) for label in (1, 2, 3)] == [
        winner == label for label in (1, 2, 3)
    ]


def test_a_query_that_found_nothing_has_no_majority():
    assert jh.metrics.vote_accuracy([[-1, -1], [0, 0]], [0], [0, 0]) == 1 / 2


@pytest.mark.parametrize("measure", MEASURES)
def test_nothing_indexed_means_nothing_right(measure):
    assert measure([[-1, -1]], np.zeros(0, np.int32), [1]) == 0


@pytest.mark.parametrize("measure", MEASURES)
def test_a_label_that_only_the_query_has_is_a_miss(measure):
    assert measure([[0, 1]], [0, 1], [9]) == 0


@pytest.mark.parametrize("measure", MEASURES)
def test_rows_do_not_see_each_other(measure):
    labels, wanted = [0, 1, 1, 2, 0], [0, 1, 2]
    ids = [[0, 4, 1], [3, -1, -1], [3, 3, 2]]
    by_row = [measure([row], labels, [label]) for row, label in zip(ids, wanted, strict=True)]
    assert len(set(by_row)) > 1
    assert measure(ids, labels, wanted) == pytest.approx(np.mean(by_row))


@pytest.mark.parametrize("measure", MEASURES)
def test_numpy_and_jax_arrays_give_the_same_plain_float(measure):
    ids, labels, wanted = [[0, 1, 1], [2, -1, 0]], [5, 6, 7], [6, 7]
    answers = [measure(*map(kind, (ids, labels, wanted))) for kind in (list, np.array, jnp.array)]
    assert {type(answer) for answer in answers} == {float}
    assert len(set(answers)) == 1


@settings(deadline=None)
@given(searches())
def test_precision_equals_counting_in_a_loop(search):
    assert jh.metrics.precision_at_k(*search) == pytest.approx(precision_by_loop(*search))


@settings(deadline=None)
@given(searches())
def test_vote_equals_counting_with_a_counter(search):
    assert jh.metrics.vote_accuracy(*search) == pytest.approx(vote_by_counter(*search))


def test_slots_that_search_leaves_unfilled_count_as_wrong():
    index = jh.build_index(jh.pack_bits([[0, 0, 0, 0], [1, 1, 1, 1]]), 4)
    ids = jh.search(index, jh.pack_bits([[0, 0, 0, 1]]), k=5).ids
    assert jh.metrics.precision_at_k(ids, [8, 9], [8]) == 1 / 5
    assert jh.metrics.vote_accuracy(ids, [8, 9], [8]) == 1


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("ids", "query_labels"),
    [
        ([0, 1], [0, 1]),
        ([[[0], [1]]], [0]),
        (0, 0),
        ([[0, 1]], [0, 1]),
        ([[0], [1]], [0]),
        ([[0], [1]], [[0], [1]]),
        ([[0]], 0),
    ],
)
def test_wrong_shapes_are_refused_with_both_shapes(measure, ids, query_labels):
    with pytest.raises(ValueError, match="query_labels") as refusal:
        measure(ids, [0, 1], query_labels)
    assert str(np.shape(ids)) in str(refusal.value)
    assert str(np.shape(query_labels)) in str(refusal.value)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("wrong", [3, 2**31 - 1])
def test_an_id_beyond_the_labels_is_refused_by_its_value(measure, wrong):
    with pytest.raises(ValueError, match=rf"\b3\b.*\b{wrong}\b"):
        measure([[0, 1], [wrong, -1]], [0, 1, 2], [0, 1])


@pytest.mark.parametrize("measure", [jh.metrics.precision_at_k, jh.metrics.vote_accuracy])
def test_no_query_and_ids_that_are_no_integers_are_refused(measure):
    for empty in (np.zeros((0, 3), int), np.zeros((2, 0), int)):
        with pytest.raises(ValueError, match="not empty"):
            measure(empty, np.array([0]), np.zeros(len(empty), int))
    with pytest.raises(TypeError, match="ids must be integers"):
        measure(np.zeros((1, 1)), np.array([0]), np.array([0]))


@pytest.mark.parametrize("measure", MEASURES)
def test_labels_may_be_bytes_negative_huge_or_names(measure):
    ids, right = [[0, 1], [2, -1]], [1 / 2, 2 / 2]
    for labels in (np.array([3, 3, 4], np.uint8), [-1, -1, 5], [2**62, 2**62, 7], ["cat", "cat", "dog"]):
        kind = np.asarray(labels).dtype
        wanted = np.array([labels[0], labels[0]], kind), np.array([labels[0], labels[2]], kind)
        expected = [1 / 2, 3 / 4] if measure is jh.metrics.precision_at_k else right
        assert [measure(ids, labels, query_labels) for query_labels in wanted] == expected


@pytest.mark.parametrize("measure", MEASURES)
def test_no_label_of_a_query_equals_an_unfilled_slot(measure):
    assert measure([[-1, -1]], [3, 4], [-1]) == 0


def test_recall_by_hand():
    assert jh.metrics.recall([[3, 2, 9], [6, 7, 8]], [[1, 2, 3], [4, 5, 6]]) == pytest.approx(3 / 6)
    assert jh.metrics.recall([[2, 1]], [[1, 2]]) == 1
    assert jh.metrics.recall([[3, 4]], [[1, 2]]) == 0


def test_recall_of_more_or_fewer_than_the_true_ones():
    assert jh.metrics.recall([[1, 2]], [[9, 8, 1, 2]]) == 1
    assert jh.metrics.recall([[1, 2]], [[1]]) == 1 / 2
    assert jh.metrics.recall([[1, 2]], np.zeros((1, 0), int)) == 0


def test_rows_of_recall_do_not_see_each_other():
    assert jh.metrics.recall([[2], [1]], [[1], [2]]) == 0


def test_an_id_found_twice_counts_once():
    assert jh.metrics.recall([[1, 2]], [[1, 1]]) == 1 / 2
    assert jh.metrics.recall([[1, 2]], [[1, 1]], true_distances=[[0, 0]], found_distances=[[0, 0]]) == 1 / 2


def test_unfilled_slots_are_neither_found_nor_missed():
    assert jh.metrics.recall([[1, 2, -1]], [[1, -1, -1]]) == 1 / 2
    none = jh.query.Neighbors.NO_DISTANCE
    assert (
        jh.metrics.recall([[1, 2, -1]], [[1, -1, -1]], true_distances=[[3, 4, none]], found_distances=[[3, none, none]])
        == 1 / 2
    )
    assert jh.metrics.recall([[-1, -1]], [[5, -1]], true_distances=[[none, none]], found_distances=[[0, none]]) == 1
    assert jh.metrics.recall([[-1, -1], [1, 3]], [[5, 6], [1, 2]]) == 1 / 2


@pytest.mark.parametrize(("found", "share"), [([], 0), ([0.2, 0.3], 0.5), ([0.2], 0.5), ([0.2, 0.25], 1)])
def test_recall_by_distance_in_the_cases_of_ann_benchmarks(found, share):
    ids = np.arange(len(found))[None] + 10  # none of the true ids: the distances alone decide
    assert jh.metrics.recall([[0, 1]], ids, true_distances=[[0.1, 0.25]], found_distances=[found]) == share


def test_an_item_as_near_as_the_furthest_true_one_is_as_good():
    assert jh.metrics.recall([[1, 2]], [[1, 7]]) == 1 / 2
    assert jh.metrics.recall([[1, 2]], [[1, 7]], true_distances=[[3, 5]], found_distances=[[3, 5]]) == 1
    assert jh.metrics.recall([[1, 2]], [[1, 7]], true_distances=[[3, 5]], found_distances=[[3, 6]]) == 1 / 2
    assert (
        jh.metrics.recall([[1, 2]], [[7, 8, 9]], true_distances=[[3, 5]], found_distances=[[5, 5, 5]]) == 1
    )  # no more than there are true ones


def test_recall_of_a_search_by_itself_is_one(rng):
    index = jh.build_index(jh.pack_bits(rng.random((200, 6)) < 0.5), 6)
    distances, ids = jh.search(index, jh.pack_bits(rng.random((9, 6)) < 0.5), k=300)
    assert (
        jh.metrics.recall(ids, ids)
        == jh.metrics.recall(ids, ids, true_distances=distances, found_distances=distances)
        == 1
    )
    assert jh.metrics.recall(ids[:, :10], ids[:, 10:]) == 0
    far = jh.build_index(jh.pack_bits(np.ones((2, 1024), int)), 1024)
    distances, ids = jh.search(far, jh.pack_bits(np.zeros((1, 1024), int)), k=2)
    assert jh.metrics.recall(ids, [[1, 0]], true_distances=distances, found_distances=[[1024, 1024]]) == 1
    assert jh.metrics.recall(ids, [[1, 0]], true_distances=distances, found_distances=[[1024, 1025]]) == 1 / 2


def test_recall_refuses_arrays_that_do_not_match():
    with pytest.raises(ValueError, match=r"found_ids must be \[q, k\]"):
        jh.metrics.recall([[1], [2]], [[1]])
    with pytest.raises(ValueError, match=r"found_ids must be \[q, k\]"):
        jh.metrics.recall([1], [1])
    with pytest.raises(TypeError, match="true_ids must be integers"):
        jh.metrics.recall([[1.0]], [[1]])
    with pytest.raises(ValueError, match="below 2"):
        jh.metrics.recall([[1]], [[2**40]])
    with pytest.raises(ValueError, match="true_distances must have shape"):
        jh.metrics.recall([[1]], [[1]], found_distances=[[0]])
    with pytest.raises(ValueError, match="found_distances must have shape"):
        jh.metrics.recall([[1]], [[1]], true_distances=[[0]], found_distances=[[0, 1]])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("labels", "query_labels", "words"),
    [
        ([1.0, 2.0], ["1.0"], "of one kind, got numbers and strings"),
        (["a", "b"], [1], "of one kind, got strings and numbers"),
        ([None, 1], [1], "must not be None"),
        ([0, 1], [None], "must not be None"),
        (["a", None], ["a"], "must not be None"),
    ],
)
def test_labels_that_can_not_be_compared_are_an_error(measure, labels, query_labels, words):
    with pytest.raises(TypeError, match=words):
        measure([[0, 1]], labels, query_labels)


def test_strings_of_any_kind_are_labels():
    assert jh.metrics.precision_at_k([[0, 1]], np.array(["a", "b"], object), ["a"]) == 0.5
