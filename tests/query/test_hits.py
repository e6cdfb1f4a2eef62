"""Hits and the items of their codes."""

import numpy as np
import pytest
from samples import collection, same

import jaxhash as jh
from jaxhash.codes.distances import Queries
from jaxhash.query.hits import (
    Hits,
    Request,
    hits_among,
    in_chunks,
    join_matches,
    matches_of_hits,
    sort_hits,
    sort_matches,
    try_in_turn,
)
from jaxhash.query.plan import LIMITS, Option
from jaxhash.query.radius import find_matches
from jaxhash.query.results import RadiusMatches


def code(*values):
    return np.array(values, np.uint32)[:, None]


def hits_of(*rows):
    """Hits from the (distance, rank) of each query's."""
    pairs = np.array([pair for row in rows for pair in row], np.int32).reshape(-1, 2)
    return Hits(np.cumsum([0, *map(len, rows)]), pairs[:, 0], pairs[:, 1])


def test_hits_are_sorted_by_query_distance_and_rank():
    query, distance, rank = np.array([(2, 0, 7), (0, 3, 5), (0, 3, 2), (0, 1, 9), (2, 0, 7), (2, 0, 1)]).T
    unique = hits_of([(1, 9), (3, 2), (3, 5)], [], [(0, 1), (0, 7)], [])
    same(sort_hits(4, query, distance, rank, unique=False), unique)
    assert sort_hits(4, query, distance, rank, unique=False).queries.tolist() == [0, 0, 0, 2, 2]
    same(sort_hits(4, *np.delete([query, distance, rank], 4, axis=1)), unique)


@pytest.mark.parametrize("num_queries", [0, 1, 3])
def test_no_hits_are_none_for_each_query(num_queries):
    none = np.zeros(0, int)
    for unique in (True, False):
        same(sort_hits(num_queries, none, none, none, unique=unique), hits_of(*[[]] * num_queries))


def test_the_largest_numbers_fit_a_packed_hit():
    query, distance, rank = 2**13 - 2, 15 * 2**15, 2**31 - 1
    found = sort_hits(query + 1, *np.array([[query, 0], [distance, 0], [rank, rank]]))
    assert found.queries.tolist() == [0, query]
    assert found.distances.tolist() == [0, distance]
    assert found.ranks.tolist() == [rank, rank]
    assert found.ranks.dtype == found.distances.dtype == np.int32


def test_hits_among_candidates_by_hand():
    index = jh.build_index(code(0b0000, 0b0001, 0b0111, 0b1111), 32)
    query, rank = np.array([1, 0, 0, 0, 1, 1]), np.array([3, 2, 0, 1, 3, 2])
    found = hits_among(index, code(0b0001, 0b1111), query, rank, 1)
    same(found, hits_of([(0, 1), (1, 0)], [(0, 3), (1, 2)]))


@pytest.fixture(scope="module")
def copies():
    """Codes of three, one and two items."""
    return jh.build_index(code(4, 4, 4, 5, 6, 6), 32, ids=[8, 2, 5, 7, 9, 1])


def test_items_of_codes_by_hand(copies):
    hits = hits_of([(0, 2), (3, 0)], [], [(1, 1)])
    same(matches_of_hits(copies, hits), RadiusMatches([0, 5, 5, 6], [0, 0, 3, 3, 3, 1], [1, 9, 2, 5, 8, 7]))
    allowed = np.isin(np.arange(10), [9, 5, 8])
    same(matches_of_hits(copies, hits, allowed), RadiusMatches([0, 3, 3, 3], [0, 3, 3], [9, 5, 8]))
    single = jh.build_index(code(4, 5, 6), 32, ids=[8, 2, 5])
    same(matches_of_hits(single, hits), RadiusMatches([0, 2, 2, 3], [0, 3, 1], [5, 8, 2]))


def test_the_first_items_of_codes_by_hand(copies):
    # With k codes for each query, as k nearest codes have at least k items.
    hits = hits_of([(0, 2), (3, 0)], [(1, 1), (2, 0)], [(1, 0), (2, 2)])
    found = matches_of_hits(copies, hits, first=2)
    same(found, RadiusMatches([0, 2, 4, 6], [0, 0, 1, 2, 1, 1], [1, 9, 7, 2, 2, 5]))
    same(
        matches_of_hits(copies, hits_of([(0, 1), (3, 0), (4, 2)]), first=3), RadiusMatches([0, 3], [0, 3, 3], [7, 2, 5])
    )


def test_parts_of_matches_are_joined_and_sorted():
    one = RadiusMatches(np.array([0, 1, 1]), np.array([4]), np.array([7]))
    other = RadiusMatches(np.array([0, 2]), np.array([0, 1]), np.array([5, 6]))
    whole = RadiusMatches([0, 1, 1, 3], [4, 0, 1], [7, 5, 6])
    same(join_matches([one, other]), whole)
    same(join_matches([]), RadiusMatches([0], [], []))
    same(sort_matches(3, np.array([2, 2, 0]), np.array([0, 1, 4]), np.array([5, 6, 7])), whole)


def matches_of_some(queries, answered):
    """As many matches for each query as its code says, at distance 9, and which queries have an answer."""
    counts = np.where(answered, queries.words[:, 0], 0).astype(np.int64)
    ids = np.repeat(queries.words[:, 0], counts).astype(np.int32)
    return RadiusMatches(np.append(0, np.cumsum(counts)), np.full_like(ids, 9), ids), answered


def test_each_method_gets_the_queries_that_are_left():
    asked, log = [], ["even", "small", "all", "never"]
    rules = {"even": lambda word: word % 2 == 0, "small": lambda word: word < 4, "all": lambda word: word >= 0}

    def method(name):
        def answer(_, queries, option):
            asked.append((option.method, queries.words[:, 0].tolist()))
            return matches_of_some(queries, rules[name](queries.words[:, 0]))

        return answer

    methods, options = {name: method(name) for name in rules}, [Option(name, 0.0) for name in log]
    queries = Queries(code(2, 5, 0, 1, 3, 5))
    found = try_in_turn(methods, options, Request(None, None, LIMITS), queries)
    assert asked == [("even", [2, 5, 0, 1, 3, 5]), ("small", [5, 1, 3, 5]), ("all", [5, 5])]
    ids = [2] * 2 + [5] * 5 + [1] + [3] * 3 + [5] * 5
    same(found, RadiusMatches([0, 2, 7, 7, 8, 11, 16], [9] * 16, ids))
    same(try_in_turn(methods, options, Request(None, None, LIMITS), Queries(code())), RadiusMatches([0], [], []))


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_chunks_are_joined_and_mark_what_is_left(size):
    queries = Queries(code(2, 5, 0, 1, 3))

    def find(rows):
        assert len(rows.words) <= size
        return None if (rows.words == 5).any() else matches_of_some(rows, np.ones(len(rows.words), bool))[0]

    left = np.arange(5) // size == 1 // size  # the chunk of the second
    found, done = in_chunks(find, queries, size)
    same(done, ~left)
    same(found, matches_of_some(queries, ~left)[0])


@pytest.mark.parametrize("method", ["probe", "multi_index", "scan"])
@pytest.mark.parametrize("candidates", [16, 48, 800])
def test_any_number_of_candidates_at_once_gives_the_same(method, candidates):
    index, queries, *_ = collection(17, 3000, q=20)
    limits = LIMITS._replace(numpy=1e12, candidates=candidates, candidate=0.0)
    expected = find_matches(index, queries, 4, limits=LIMITS._replace(program=1e12))
    assert expected.offsets[-1] > 800
    same(find_matches(index, queries, 4, method=method, limits=limits), expected)


def test_few_codes_are_compared_with_any_number_of_queries():
    index, queries = jh.build_index(code(0, 1, 3), 32), code(*range(7))
    found, times = jh.radius_search(index, queries, radius=1), 2**17 // 7
    many = jh.radius_search(index, np.tile(queries, (times, 1)), radius=1)
    same(many.ids, np.tile(found.ids, times))
    same(np.diff(many.offsets), np.tile(np.diff(found.offsets), times))
