"""Distances of codes and queries, traced and in numpy, against counting bit by bit."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from samples import same

from jaxhash.codes.distances import Queries, count_differing, join_words, weigh_differing
from jaxhash.codes.weights import ALL_PLANES, pack_planes, weigh_queries

WIDTHS = [1, 2, 3, 8, 9]
EXPONENTS = [(0,), (3,), (0, 2), ALL_PLANES]


def example(width, rng):
    """Codes uint32 `[11, w]`, queries `[4, w]`, and weights `[4, 32 w]`."""
    codes, queries = (rng.integers(0, 2**32, (n, width), dtype=np.uint32) for n in (11, 4))
    codes[0] = queries[0]
    codes[1] = ~queries[0]
    return codes, queries, rng.integers(0, 16, (4, 32 * width))


def slow(codes, queries, weights):
    """Weighted distances `[q, n]`."""
    return ((oracle.unpack(codes)[None] != oracle.unpack(queries)[:, None]) * weights[:, None]).sum(-1)


def by_words(queries, codes):
    """All distances by `Queries.measure_words`: `[q, n]`."""
    return queries.measure_words([word[None] for word in jnp.asarray(codes).T], lambda number: number[:, None])


def at_once(queries, codes):
    """All distances by `Queries.measure`: `[q, n]`."""
    return queries.measure(jnp.asarray(codes)[None], lambda words: words[:, None], axis=2)


FORMS = [by_words, at_once]


@pytest.mark.parametrize("measure", FORMS)
def test_one_byte_by_hand(measure):
    codes, query = jnp.array([[0b0000_0000], [0b0000_0111]], jnp.uint32), np.uint32([[0b0000_0101]])
    assert measure(Queries(query), codes).tolist() == [[2, 1]]
    planes = np.uint32([[[0b0000_0001], [0b0000_0110]]])  # the lowest bit weighs 1, the next two 8 each
    assert measure(Queries(query, planes, (0, 3)), codes).tolist() == [[9, 8]]
    assert measure(Queries(query, planes[:, 1:], (3,)), codes).tolist() == [[8, 8]]


@pytest.mark.parametrize("measure", FORMS)
@pytest.mark.parametrize("width", WIDTHS)
def test_measured_distances_count_differing_bits(width, measure, rng):
    codes, queries, _ = example(width, rng)
    expected = slow(codes, queries, np.ones((4, 32 * width), int))
    assert expected[0, :2].tolist() == [0, 32 * width]
    for function in (measure, jax.jit(measure)):
        found = function(Queries(queries), codes)
        assert found.dtype == np.uint32
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("measure", FORMS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("exponents", EXPONENTS)
def test_measured_distances_sum_the_weights(width, exponents, measure, rng):
    codes, queries, weights = example(width, rng)
    weights &= sum(1 << power for power in exponents)
    weighted = Queries(queries, pack_planes(weights, exponents), exponents)
    found = jax.jit(measure)(weighted, codes)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, slow(codes, queries, weights))
    alone = jax.vmap(lambda query: measure(query.map(lambda array: array[None]), codes)[0])(weighted)
    np.testing.assert_array_equal(alone, found)


def test_the_largest_distance_is_that_of_all_bits():
    words = np.zeros((5, 3), np.uint32)
    assert Queries(words).largest_distance() == 96
    assert weigh_queries(words, np.full(96, 15), 96).largest_distance() == 96 * 15
    assert weigh_queries(words, np.full(96, 8), 96).largest_distance() == 96 * 8


def test_mapping_reaches_words_and_planes():
    queries = Queries(np.uint32([[1], [2]]), np.uint32([[[3]], [[4]]]), (2,))
    last = queries.map(lambda array: array[1:])
    assert (last.words.tolist(), last.planes.tolist(), last.exponents) == ([[2]], [[[4]]], (2,))
    assert Queries(np.uint32([[1]])).map(lambda array: array + 1).planes is None


def test_exponents_are_static_and_arrays_are_leaves():
    leaves, structure = jax.tree.flatten(Queries(np.uint32([[1]]), np.uint32([[[3]]]), (2,)))
    assert len(leaves) == 2
    assert jax.tree.unflatten(structure, leaves).exponents == (2,)


@pytest.mark.parametrize("width", WIDTHS)
def test_joined_words_hold_all_bits(width, rng):
    codes, _, _ = example(width, rng)
    for layout in (codes, np.asfortranarray(codes), np.repeat(codes, 2, axis=0)[::2]):
        joined = join_words(layout)
        assert joined.shape == (-(-width // 2), 11)
        assert joined.dtype == (np.uint32 if width == 1 else np.uint64)
        np.testing.assert_array_equal(np.bitwise_count(joined).sum(0), np.bitwise_count(codes).sum(1))
        assert len(np.unique(joined, axis=1).T) == 11


def test_no_codes_join_to_none():
    assert join_words(np.zeros((0, 3), np.uint32)).shape == (2, 0)


@pytest.mark.parametrize(("width", "dtype"), [(1, np.uint8), (2, np.uint8), (3, np.uint16), (9, np.uint16)])
def test_counted_distances_equal_the_slow_form(width, dtype, rng):
    codes, queries, _ = example(width, rng)
    found = count_differing(join_words(codes)[:, None], join_words(queries)[:, :, None])
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, slow(codes, queries, np.ones((4, 32 * width), int)))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("exponents", EXPONENTS)
def test_weighed_distances_equal_the_slow_form(width, exponents, rng):
    codes, queries, weights = example(width, rng)
    weights &= sum(1 << power for power in exponents)
    packed = pack_planes(weights, exponents)
    planes = [join_words(packed[:, plane])[:, :, None] for plane in range(len(exponents))]
    found = weigh_differing(join_words(codes)[:, None], join_words(queries)[:, :, None], planes, exponents)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, slow(codes, queries, weights))


def test_the_longest_codes_do_not_overflow():
    codes, queries = np.zeros((1, 2**10), np.uint32), np.full((1, 2**10), 0xFFFFFFFF, np.uint32)
    words, wanted = join_words(codes), join_words(queries)
    assert count_differing(words, wanted).tolist() == [2**15]
    assert weigh_differing(words, wanted, [wanted] * 4, ALL_PLANES).tolist() == [15 * 2**15]


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_planes_are_of_the_kind_of_the_queries(kind):
    queries = kind(np.zeros((4, 2), np.uint32))
    for weights in (np.ones(64, int), jnp.ones((4, 64), int)):
        weighted = weigh_queries(queries, weights, 64)
        assert isinstance(weighted.planes, jax.Array) == isinstance(queries, jax.Array)
        assert (weighted.planes.shape, weighted.exponents) == ((4, 1, 2), (0,))
        same(weighted.planes, np.full((4, 1, 2), 0xFFFFFFFF, np.uint32))


@pytest.mark.parametrize(("weight", "exponents"), [(1, (0,)), (8, (3,)), (9, (0, 3)), (15, ALL_PLANES), (0, (0,))])
def test_planes_that_are_zero_are_left_out(weight, exponents):
    assert weigh_queries(np.zeros(2, np.uint32), np.full(64, weight), 64).exponents == exponents
