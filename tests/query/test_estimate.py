import numpy as np
import pytest
from oracle import clustered, pack, within

import jaxhash as jh


@pytest.mark.parametrize("radius", [1, 50])
def test_matches_are_estimated_by_the_mean_over_the_sample(rng, radius):
    codes = pack(clustered(rng, 430, 16))
    index, queries = jh.build_index(codes[:400], 16), codes[400:]
    found = [len(ids) for _, ids in within(codes[:400], np.arange(400), queries, radius)]
    assert jh.estimate_matches(index, queries, radius) == pytest.approx(np.mean(found))
    assert jh.estimate_matches(index, queries[0], radius=radius) == found[0]


def test_the_estimate_sees_the_crowding_that_the_rule_does_not(rng):
    codes = pack(clustered(rng, 1000, 32))
    assert jh.estimate_matches(jh.build_index(codes, 32), codes[:100], 2) > 50 > jh.expected_matches(1000, 32, 2)


def test_no_query_gives_no_estimate():
    with pytest.raises(ValueError, match="at least one"):
        jh.estimate_matches(jh.build_index(np.zeros((2, 1), np.uint32), 8), np.zeros((0, 1), np.uint32), 1)
