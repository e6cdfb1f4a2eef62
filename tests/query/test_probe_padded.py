"""Probing in a fixed number of slots, against comparing all codes, and as a program for other programs."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from samples import collection, identical, same

import jaxhash as jh
from jaxhash.query.probe_padded import sort_matches

ROOM = {"radius": 3, "max_candidates": 64, "max_results": 20}


def skewed(num_bits, seed):
    """An index of which a part shares one code or few addresses, and queries near all parts of it."""
    rng = np.random.default_rng((num_bits, seed))
    centres = rng.random((3, num_bits)) < 0.5
    bits = centres[rng.choice(3, 300, p=[0.6, 0.39, 0.01])]
    bits ^= (rng.random(bits.shape) < 2 / num_bits) & (rng.random((300, 1)) < rng.random())
    bits[:60] = rng.random((60, num_bits)) < 0.5
    queries = np.concatenate([bits[rng.integers(0, 300, 20)], rng.random((12, num_bits)) < 0.5])
    queries ^= rng.random(queries.shape) < 1 / num_bits
    codes = oracle.pack(bits)
    ids = rng.permutation(900)[:300]
    return jh.build_index(codes, num_bits, ids=ids), codes, ids, oracle.pack(queries)


def check(found, codes, ids, queries, room):
    """Compares with all matches where the search is complete; elsewhere, what is given must be true."""
    expected = oracle.within(codes, ids, queries, room["radius"])
    for row, (distances, matches) in enumerate(expected):
        count = min(len(matches), room["max_results"])
        if found.complete[row]:
            assert found.counts[row] == len(matches)
            assert found.ids[row, :count].tolist() == matches[:count].tolist()
            assert found.distances[row, :count].tolist() == distances[:count].tolist()
        else:
            assert found.counts[row] <= len(matches)
            count = min(int(found.counts[row]), room["max_results"])
            pairs = list(zip(found.distances[row, :count].tolist(), found.ids[row, :count].tolist(), strict=True))
            assert set(pairs) <= set(zip(distances.tolist(), matches.tolist(), strict=True))
            assert len(set(pairs)) == len(pairs)
        assert (found.ids[row, count:] == found.NO_ID).all()
        assert (found.distances[row, count:] == found.NO_DISTANCE).all()


@pytest.mark.parametrize(("num_bits", "num_tables"), [(8, 1), (40, 1), (40, 5), (70, 3)])
def test_complete_results_are_those_of_comparing_all_codes(num_bits, num_tables):
    outcomes = []
    for seed in range(6):
        index, codes, ids, queries = skewed(num_bits, seed)
        tables = jh.build_tables(index, radius=ROOM["radius"], num_tables=num_tables)
        found = jax.tree.map(np.asarray, jh.probe_padded(index, tables, queries, **ROOM))
        assert isinstance(found, jh.ProbedMatches)
        check(found, codes, ids, queries, ROOM)
        outcomes += found.complete.tolist()
    assert True in outcomes
    assert False in outcomes  # one batch holds rows of both kinds


def test_enough_room_is_complete_and_room_for_all_but_one_is_not():
    index, codes, ids, queries = skewed(20, 0)
    tables = jh.build_tables(index, radius=20, num_tables=1)
    num_codes = jh.describe(index).num_codes
    for max_candidates in (num_codes, num_codes - 1):
        room = {"radius": 20, "max_candidates": max_candidates, "max_results": 300}
        found = jh.probe_padded(index, tables, queries[:3], **room)
        assert (np.asarray(found.complete) == (max_candidates == num_codes)).all()
        check(jax.tree.map(np.asarray, found), codes, ids, queries[:3], room)


@pytest.mark.parametrize("n", [0, 1])
def test_the_smallest_indexes_are_probed(n):
    index, queries = collection(40, n)
    found = jh.probe_padded(index, jh.build_tables(index, radius=3), queries, **ROOM)
    same(found[:3], tuple(jh.radius_search_padded(index, queries, radius=3, max_results=20)))
    assert found.complete.all()


def test_the_tables_of_one_radius_serve_others():
    index, queries = collection(64)
    tables = jh.build_tables(index, radius=3)
    for radius in (0, 5):
        found = jh.probe_padded(index, tables, queries, radius=radius, max_candidates=400, max_results=9)
        assert found.complete.all()
        same(found[:3], tuple(jh.radius_search_padded(index, queries, radius=radius, max_results=9)))


def test_it_is_one_program_for_callers_of_jit_and_vmap():
    index, queries = collection(40, q=6)
    tables = jh.build_tables(index, radius=3, num_tables=2)

    def probe(index, tables, queries):
        return jh.probe_padded(index, tables, queries, **ROOM | {"max_candidates": 800})

    expected = probe(index, tables, queries)
    same(expected[:3], tuple(jh.radius_search_padded(index, queries, radius=3, max_results=20)))
    identical(jax.jit(probe)(index, tables, queries), expected)
    identical(jax.jit(lambda queries: probe(index, tables, queries))(queries), expected)
    identical(jax.vmap(probe, (None, None, 0))(index, tables, jnp.asarray(queries)), expected)
    identical(probe(index, tables, queries[2]), jax.tree.map(lambda array: array[2], expected))
    identical(
        probe(index, tables, queries.reshape(3, 2, 2)),
        jax.tree.map(lambda array: array.reshape(3, 2, *array.shape[1:]), expected),
    )


def test_batches_of_any_size_give_the_same():
    index, queries = collection(40, q=264)
    tables = jh.build_tables(index, radius=3, num_tables=5)
    found = jh.probe_padded(index, tables, queries, **ROOM)
    identical(jax.jit(lambda queries: jh.probe_padded(index, tables, queries, **ROOM))(queries), found)
    same(jax.tree.map(lambda array: array[261:], found), jh.probe_padded(index, tables, queries[261:], **ROOM))


def test_padding_bits_of_a_traced_query_do_not_count():
    index, queries = collection(40, q=6)
    tables = jh.build_tables(index, radius=3, num_tables=5)
    probe = jax.jit(lambda queries: jh.probe_padded(index, tables, queries, **ROOM))
    same(probe(queries | np.array([0, 0xFFFFFF], np.uint32)), probe(queries))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_it_lowers_for_accelerators_and_neither_scatters_nor_sorts_all_codes(platform):
    index, queries = collection(64, 5000)
    tables = jh.build_tables(index, radius=3)
    program = jax.jit(lambda *arguments: jh.probe_padded(*arguments, **ROOM))
    text = program.trace(index, tables, queries).lower(lowering_platforms=(platform,)).as_text()
    assert "scatter" not in text
    sorts = [line for line in text.splitlines() if "stablehlo.sort" in line]
    assert len(sorts) == 1
    assert f"tensor<{len(queries)}x{ROOM['max_candidates']}x" in text


def test_matches_are_sorted_alike_as_one_key_and_as_two(rng):
    distances = rng.integers(0, 4, (5, 90), dtype=np.int32)
    distances[distances == 3] = jh.ProbedMatches.NO_DISTANCE
    ranks = np.stack([rng.permutation(1000)[:90] for _ in range(5)]).astype(np.int32)
    together = sort_matches(distances, ranks, 2, 1000)
    apart = sort_matches(distances, ranks, 2, 2**31 - 1)
    same(together[0], apart[0])
    found = np.asarray(apart[0]) <= 2
    same(np.asarray(together[1])[found], np.asarray(apart[1])[found])
    for row in range(5):
        pairs = sorted(zip(distances[row].tolist(), ranks[row].tolist(), strict=True))
        assert np.asarray(apart[1])[row].tolist() == [rank for _, rank in pairs]


def test_wrong_arguments_are_named():
    index, queries = collection(40)
    tables = jh.build_tables(index, radius=3)
    other = jh.build_tables(jh.build_index(np.zeros((1, 2), np.uint32), 64), radius=1)
    for call, error, words in [
        (lambda: jh.build_tables(index, radius=-1), ValueError, "radius"),
        (lambda: jh.build_tables(index, radius=1, num_tables=41), ValueError, "num_tables"),
        (lambda: jh.build_tables(queries, radius=1), TypeError, "index must be"),
        (lambda: jax.jit(lambda index: jh.build_tables(index, radius=1))(index), TypeError, "outside jit"),
        (lambda: jh.probe_padded(index, other, queries, **ROOM), ValueError, "not those of this index"),
        (lambda: jh.probe_padded(index, None, queries, **ROOM), TypeError, "tables must be"),
        (lambda: jh.probe_padded(index, tables, queries[:, :1], **ROOM), ValueError, "2 words"),
        (lambda: jh.probe_padded(index, tables, queries, **ROOM | {"max_candidates": 0}), ValueError, "max_cand"),
        (lambda: jh.probe_padded(index, tables, queries, **ROOM | {"max_results": 2.0}), TypeError, "max_results"),
        (lambda: jh.probe_padded(index, tables, queries, **ROOM | {"max_candidates": 2**30}), ValueError, "2\\^31"),
    ]:
        with pytest.raises(error, match=words):
            call()


def test_a_radius_of_too_many_probes_is_refused():
    codes = np.random.default_rng(0).integers(0, 2**32, (40_000, 2), dtype=np.uint32)
    index = jh.build_index(codes, 64)
    with pytest.raises(ValueError, match="too many probes"):
        jh.build_tables(index, radius=20, num_tables=1)
    with pytest.raises(ValueError, match="more than 65536 probes"):
        jh.probe_padded(index, jh.build_tables(index, radius=2, num_tables=1), codes[:1], **ROOM | {"radius": 20})
