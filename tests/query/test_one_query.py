"""One query in plain Python gets what numpy finds."""

import numpy as np
import oracle
import pytest
from samples import same

import jaxhash as jh
from jaxhash.index.address_table import get_tables
from jaxhash.query import one_query, radius
from jaxhash.query.cost_model import plan_tables
from jaxhash.query.one_query import match_one


def tables_of(index, num_codes, reach, count):
    plan = plan_tables(num_codes, index.num_bits, reach, count)
    return [pair for pair in zip(get_tables(index, plan.slices), plan.radii, strict=True) if pair[1] >= 0]


def test_matches_by_hand():
    codes = np.array([[0b1000], [0b0001], [0b0111], [0b0001], [0b0000]], np.uint32) << np.uint32(20)
    index = jh.build_index(codes, 12, ids=[7, 5, 9, 4, 8])
    found = match_one(index, np.zeros(1, np.uint32), 1, tables_of(index, 4, 1, 1))
    assert found.offsets.tolist() == [0, 4]
    assert found.distances.tolist() == [0, 1, 1, 1]  # by distance, then by code, then by id
    assert found.ids.tolist() == [8, 4, 5, 7]


@pytest.mark.parametrize(("num_bits", "count"), [(12, 1), (17, 1), (40, 3), (64, 1), (64, 4), (90, 2)])
@pytest.mark.parametrize("reach", [0, 1, 3])
def test_it_equals_the_scan(num_bits, count, reach, monkeypatch):
    rng = np.random.default_rng((num_bits, count))
    codes, queries = (oracle.pack(oracle.clustered(rng, n, num_bits)) for n in (500, 20))
    index = jh.build_index(codes, num_bits, ids=rng.permutation(900)[:500])
    monkeypatch.setattr(one_query, "MOST_CANDIDATES", 10**6)
    tables = tables_of(index, int(index.num_codes), reach, count)
    for query in queries:
        same(match_one(index, query, reach, tables), jh.radius_search(index, query, radius=reach, method="scan"))


def test_many_candidates_are_left_to_numpy(monkeypatch):
    codes = np.arange(1000, dtype=np.uint32)[:, None]
    index, query = jh.build_index(codes, 32), codes[7]
    tables = tables_of(index, 1000, 1, 1)
    assert match_one(index, query, 1, tables) is None  # they share their first 16 bits
    expected = jh.radius_search(index, query, radius=1, method="scan")
    same(jh.radius_search(index, query, radius=1, method="probe"), expected)


def test_a_search_for_one_query_by_tables_takes_this_way(monkeypatch):
    index = jh.build_index(np.arange(64, dtype=np.uint32)[:, None] << np.uint32(26), 6)
    expected = jh.radius_search(index, np.zeros(1, np.uint32), radius=1, method="scan")
    monkeypatch.setattr(radius, "find_hits", None)
    same(jh.radius_search(index, np.zeros(1, np.uint32), radius=1, method="probe"), expected)
