"""Probing on the device that holds an index, which a CPU is told to be an accelerator for."""

import numpy as np
import pytest
from samples import collection, same

import jaxhash as jh
from jaxhash.query import device_radius, radius
from jaxhash.query.cost_model import plan_radius


@pytest.fixture
def on_accelerator(monkeypatch):
    """Lets the index be on an accelerator; returns the plans by which it is probed."""
    plans, probe = [], device_radius.probe_on_device
    monkeypatch.setattr(device_radius, "is_on_host", lambda array: False)
    monkeypatch.setattr(device_radius, "ROOMS", (4, 16))
    monkeypatch.setattr(radius, "probe_on_device", lambda *rest: plans.append(rest[3]) or probe(*rest))
    return plans


@pytest.mark.parametrize("method", ["probe", "multi-index"])
def test_it_finds_what_a_scan_finds(method, on_accelerator):
    index, queries = collection(40)
    expected = jh.radius_search(index, queries, radius=4, method="scan")
    counts = np.diff(expected.offsets)
    assert (counts <= 4).any()
    assert (counts > 16).any()  # left to the host
    same(jh.radius_search(index, queries, radius=4, method=method), expected)
    allowed = np.arange(1200) % 3 > 0
    found = jh.radius_search(index, queries, radius=4, method=method, allowed=allowed)
    same(found, jh.radius_search(index, queries, radius=4, method="scan", allowed=allowed))
    assert jh.radius_search(index, queries[:0], radius=4, method=method).offsets.tolist() == [0]
    assert len(on_accelerator) == 3


def test_items_of_one_code_are_all_found(on_accelerator):
    index = jh.build_index(np.zeros((50, 1), np.uint32), 20, ids=np.arange(50)[::-1])
    assert jh.radius_search(index, np.zeros((1, 1), np.uint32), radius=1, method="probe").ids.tolist() == [*range(50)]


def test_on_the_host_and_in_tables_too_large_for_a_device_the_host_probes(monkeypatch):
    index, _ = collection(40)
    plan = plan_radius(index, 1, 4, "multi-index", None)
    assert not device_radius.probes_on_device(index, plan)
    monkeypatch.setattr(device_radius, "is_on_host", lambda array: False)
    assert device_radius.probes_on_device(index, plan)
    monkeypatch.setattr(device_radius, "INT32_MAX", 1000)
    assert not device_radius.probes_on_device(index, plan)
