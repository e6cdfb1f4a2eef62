import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import clustered, pack
from sklearn.metrics import average_precision_score

import jaxhash as jh
from jaxhash.metrics import ranking


def average_precision_in_order(relevant, k):
    hits = np.asarray(relevant, float)[:k]
    precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return (hits * precisions).sum() / max(1, min(sum(relevant), k))


def mean_over_orders(distances, relevant, k):
    """Average precision over all permutations that leave the distances in ascending order."""
    ascending = [
        order
        for order in itertools.permutations(range(len(distances)))
        if all(distances[a] <= distances[b] for a, b in itertools.pairwise(order))
    ]
    return np.mean([average_precision_in_order([relevant[i] for i in order], k) for order in ascending])


def dense(codes, labels, queries, query_labels):
    distances = np.asarray(jh.hamming_distance(queries[:, None], codes[None]))
    return distances, np.asarray(query_labels)[:, None] == np.asarray(labels)[None]


@pytest.fixture
def collection(rng):
    bits = clustered(rng, 330, 20)
    labels = bits[:, :3].sum(1) + (rng.random(330) < 0.2)
    codes = pack(bits)
    return codes[:300], labels[:300], codes[300:], labels[300:]


@pytest.mark.parametrize(
    ("distances", "relevant", "expected"),
    [
        ([0, 1, 2], [1, 0, 1], (1 + 2 / 3) / 2),
        ([2, 1, 0], [1, 0, 1], (1 + 2 / 3) / 2),
        ([0, 1, 2], [0, 0, 1], 1 / 3),
        ([5, 5], [1, 0], (1 + 1 / 2) / 2),  # first or second, as likely
        ([5, 5, 5], [1, 0, 0], (1 + 1 / 2 + 1 / 3) / 3),
        ([0, 5, 5], [1, 1, 0], (1 + 1 + 1 + 2 / 3) / 4),
        ([7, 7, 7], [1, 1, 1], 1),
        ([0, 1], [0, 0], 0),
    ],
)
def test_average_precision_by_hand(distances, relevant, expected):
    assert jh.metrics.mean_average_precision(distances, relevant) == pytest.approx(expected)


def test_a_cut_ranking_is_divided_by_what_could_be_found_in_it():
    assert jh.metrics.mean_average_precision([0, 1, 2, 3], [1, 1, 1, 1], k=2) == 1
    assert jh.metrics.mean_average_precision([0, 1, 2, 3], [1, 0, 1, 1], k=2) == pytest.approx(1 / 2)
    assert jh.metrics.mean_average_precision([0, 1, 2, 3], [0, 0, 1, 1], k=2) == 0
    assert jh.metrics.mean_average_precision([0, 1, 2, 3], [1, 0, 0, 0], k=2) == 1
    assert jh.metrics.mean_average_precision([0, 4, 4, 4], [0, 1, 0, 0], k=2) == pytest.approx(1 / 3 * 1 / 2)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6),
    st.one_of(st.none(), st.integers(1, 8)),
)
def test_ties_count_as_the_mean_over_all_their_orders(items, k):
    distances, relevant = zip(*items, strict=True)
    slow = mean_over_orders(distances, relevant, len(items) if k is None else k)
    assert jh.metrics.mean_average_precision(distances, relevant, k=k) == pytest.approx(slow)


def test_average_precision_without_ties_equals_scikit_learn(rng):
    distances = np.stack([rng.permutation(200) for _ in range(5)])
    relevant = rng.random((5, 200)) < [[0.02], [0.2], [0.5], [0.9], [1]]
    peer = [average_precision_score(hits, -row) for hits, row in zip(relevant, distances, strict=True)]
    assert jh.metrics.mean_average_precision(distances, relevant) == pytest.approx(np.mean(peer))
    assert jh.metrics.mean_average_precision(distances / 7, relevant) == pytest.approx(np.mean(peer))


def test_scikit_learn_takes_the_precision_at_the_end_of_ties():
    assert average_precision_score([1, 0, 0, 0], [0, 0, 0, 0]) == 1 / 4
    assert jh.metrics.mean_average_precision([0, 0, 0, 0], [1, 0, 0, 0]) == pytest.approx(
        (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4
    )


def test_the_order_of_the_items_does_not_matter(rng):
    distances, relevant = rng.integers(0, 4, (3, 50)), rng.random((3, 50)) < 0.3
    mixed = rng.permutation(50)
    for k in (None, 7):
        there, here = (
            jh.metrics.mean_average_precision(*pair, k=k)
            for pair in ((distances, relevant), (distances[:, mixed], relevant[:, mixed]))
        )
        assert there == pytest.approx(here)


def test_a_query_without_relevant_items_counts_as_zero():
    assert jh.metrics.mean_average_precision([[0, 1], [0, 1]], [[1, 0], [0, 0]]) == 1 / 2
    assert jh.metrics.mean_average_precision(np.zeros((2, 0)), np.zeros((2, 0), bool)) == 0


def test_precision_in_radius_by_hand():
    distances = [[0, 1, 2, 3], [1, 2, 2, 9], [3, 3, 3, 3]]
    relevant = [[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]
    assert jh.metrics.precision_in_radius(distances, relevant, radius=2) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert jh.metrics.precision_in_radius(distances, relevant, radius=0) == pytest.approx(1 / 3)
    assert jh.metrics.precision_in_radius(distances, relevant, radius=9) == pytest.approx((3 / 4 + 3 / 4 + 1) / 3)


@pytest.mark.parametrize("pairs_at_once", [2**22, 1000, 1])
def test_counts_give_the_metrics_of_all_distances(collection, pairs_at_once, monkeypatch):
    monkeypatch.setattr(ranking, "PAIRS_PER_CHUNK", pairs_at_once)
    counts = jh.metrics.distance_counts(*collection, 20)
    distances, relevant = dense(*collection)
    for d in range(21):
        np.testing.assert_array_equal(counts.items[:, d], (distances == d).sum(1))
        np.testing.assert_array_equal(counts.relevant[:, d], ((distances == d) & relevant).sum(1))
    for k in (None, 1, 10, 1000):
        assert counts.mean_average_precision(k=k) == pytest.approx(
            jh.metrics.mean_average_precision(distances, relevant, k=k)
        )
    for radius in (0, 2, 20, 50):
        assert counts.precision_in_radius(radius=radius) == pytest.approx(
            jh.metrics.precision_in_radius(distances, relevant, radius=radius)
        )


@pytest.mark.parametrize("pairs_at_once", [2**22, 1])
def test_counts_give_the_metrics_of_all_weighted_distances(collection, pairs_at_once, monkeypatch, rng):
    monkeypatch.setattr(ranking, "PAIRS_PER_CHUNK", pairs_at_once)
    codes, _, queries, _ = collection
    weights = rng.integers(0, 16, (len(queries), 20))
    counts = jh.metrics.distance_counts(*collection, 20, weights=weights)
    bits, wanted = (np.asarray(jh.unpack_bits(array, 20)) for array in (codes, queries))
    distances = ((bits[None] != wanted[:, None]) * weights[:, None]).sum(-1)
    relevant = dense(*collection)[1]
    assert counts.items.shape == (len(queries), 15 * 20 + 1)
    for query, row in enumerate(distances):
        np.testing.assert_array_equal(counts.items[query], np.bincount(row, minlength=301))
    for k in (None, 10):
        assert counts.mean_average_precision(k=k) == pytest.approx(
            jh.metrics.mean_average_precision(distances, relevant, k=k)
        )
    assert counts.precision_in_radius(radius=33) == pytest.approx(
        jh.metrics.precision_in_radius(distances, relevant, radius=33)
    )


def test_weights_of_one_give_the_counts_of_bits(collection):
    plain, ones = (
        jh.metrics.distance_counts(*collection, 20),
        jh.metrics.distance_counts(*collection, 20, weights=np.ones(20, int)),
    )
    np.testing.assert_array_equal(ones.items[:, :21], plain.items)
    np.testing.assert_array_equal(ones.relevant[:, :21], plain.relevant)
    assert not ones.items[:, 21:].any()


def test_the_largest_weighted_distance_is_counted():
    codes = pack(np.stack([np.zeros(1000, int), np.ones(1000, int)]))
    counts = jh.metrics.distance_counts(codes, [0, 1], codes, [0, 1], 1000, weights=np.full(1000, 15))
    assert counts.items[:, [0, 15_000]].tolist() == [[1, 1], [1, 1]]
    assert counts.relevant[:, 0].tolist() == [1, 1]
    assert counts.relevant.sum() == 2


def test_codes_of_many_words_are_counted_to_the_last_distance():
    codes = pack(np.zeros((1, 1000), int))
    counts = jh.metrics.distance_counts(
        codes, [0], np.concatenate([codes, pack(np.ones((1, 1000), int))]), [0, 1], 1000
    )
    assert counts.items[0, 0] == counts.relevant[0, 0] == counts.items[1, 1000] == 1
    assert counts.items.sum() == 2
    assert counts.relevant.sum() == 1


def test_metrics_of_no_items_are_zero(collection):
    codes, _, queries, query_labels = collection
    counts = jh.metrics.distance_counts(codes[:0], np.zeros(0, int), queries, query_labels, 20)
    assert counts.mean_average_precision() == counts.precision_in_radius(radius=20) == 0


def test_labels_may_be_strings_and_arrays_those_of_jax(collection):
    codes, labels, queries, query_labels = collection
    told = jh.metrics.distance_counts(
        codes, np.char.mod("is %d", labels), queries, np.char.mod("is %d", query_labels), 20
    )
    on_device = jh.metrics.distance_counts(*map(jnp.asarray, collection), 20)
    for counts in (told, on_device):
        np.testing.assert_array_equal(counts.relevant, jh.metrics.distance_counts(*collection, 20).relevant)


def test_wrong_arguments_are_refused(collection):
    codes, labels, queries, query_labels = collection
    for measure in (jh.metrics.mean_average_precision, lambda *pair: jh.metrics.precision_in_radius(*pair, radius=2)):
        for distances, relevant in (([0, 1], [1]), (0, 1), (np.zeros((0, 2)), np.zeros((0, 2)))):
            with pytest.raises(ValueError, match=r"must both be \[\.\.\., n\]"):
                measure(distances, relevant)
        with pytest.raises(ValueError, match="NaN"):
            measure([0.0, np.nan], [1, 0])
        with pytest.raises(ValueError, match="relevant must be bool or 0/1"):
            measure([0, 1], [1, 2])
    with pytest.raises(ValueError, match="k must lie between 1"):
        jh.metrics.mean_average_precision([0, 1], [1, 0], k=0)
    with pytest.raises(ValueError, match="queries"):
        jh.metrics.distance_counts(codes, labels, queries, query_labels[1:], 20)
    with pytest.raises(ValueError, match="codes"):
        jh.metrics.distance_counts(codes, labels[:, None], queries, query_labels, 20)
    with pytest.raises(ValueError, match="at least one"):
        jh.metrics.distance_counts(codes, labels, queries[:0], query_labels[:0], 20)
    with pytest.raises(ValueError, match="weights must lie between 0 and 15, got 16"):
        jh.metrics.distance_counts(*collection, 20, weights=np.full(20, 16))
    with pytest.raises(ValueError, match="weights must have shape"):
        jh.metrics.distance_counts(*collection, 20, weights=np.ones((3, 20), int))
    with pytest.raises(TypeError, match="uint32"):
        jh.metrics.distance_counts(codes.astype(int), labels, queries, query_labels, 20)
