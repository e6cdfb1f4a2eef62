"""Skewed buckets and bounded memory."""

import oracle
import pytest
from samples import collection, same

import jaxhash as jh
from jaxhash.query import hits


@pytest.mark.parametrize("shared", [1.0, 0.5])
def test_skewed_buckets_stay_exact_and_small(shared, rng, monkeypatch):
    # All codes, or half of them, share their first 28 bits, and so one bucket of the first table.
    bits = rng.random((4000, 60)) < 0.5
    bits[: int(4000 * shared), :28] = True
    index, queries = jh.build_index(oracle.pack(bits), 60), oracle.pack(bits[::40])
    expected = jh.radius_search(index, queries, radius=2, method="scan")
    same(jh.radius_search(index, queries, radius=2, method="probe"), expected)
    monkeypatch.setattr(hits, "CANDIDATES_AT_ONCE", 1000)  # less than one query's bucket
    largest = []
    real = hits.hits_among
    monkeypatch.setattr(hits, "hits_among", lambda *a: largest.append(len(a[3])) or real(*a))
    same(jh.radius_search(index, queries, radius=2, method="probe"), expected)
    assert max(largest, default=0) <= 1000


@pytest.mark.parametrize("limit", [16, 48, 800])
def test_any_number_of_candidates_at_once_gives_the_same_matches(limit, monkeypatch):
    index, queries = collection(17, 3000, q=20)
    whole = jh.radius_search(index, queries, radius=4, method="scan")
    monkeypatch.setattr(hits, "CANDIDATES_AT_ONCE", limit)
    same(jh.radius_search(index, queries, radius=4, method="scan"), whole)
    same(jh.radius_search(index, queries, radius=4, method="probe"), whole)
