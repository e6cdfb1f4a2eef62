"""The layout of an index."""

import jax
import numpy as np
import oracle
from samples import identical

import jaxhash as jh
from jaxhash.index.hash_index import padded_size, sorted_arrays, tile_shape


def test_codes_lie_where_the_docstring_says():
    codes = oracle.pack(np.random.default_rng(0).random((5000, 64)) < 0.5)
    index = jh.build_index(codes, 64)
    _, _, group, lanes = index.codes.shape
    table = sorted_arrays(index)[0]
    for rank in (0, 1, 15, 16, 1023, 1024, 4999):
        tile = group * lanes
        position = (rank // tile, rank % group, rank % tile // group)
        np.testing.assert_array_equal(index.codes[(slice(None), *position)], table[rank])


def test_padded_sizes_are_few_and_little_larger():
    sizes = {padded_size(n) for n in range(1, 1_000_000, 997)}
    assert len(sizes) < 45
    for n in (1, 1023, 1024, 1025, 5000, 99_999, 10**9):
        assert n <= padded_size(n) <= max(1024, n * 5 // 4 + 1024)


def test_a_group_never_has_more_than_128_popcounts():
    for width in range(1, 129):
        group, lanes = tile_shape(width)
        assert 1 <= group * width <= 128
        assert (group * lanes) % 16 == 0


def test_an_index_is_a_pytree_with_static_bits():
    index = jh.build_index(jh.pack_bits([[1, 0], [0, 1]]), 2)
    leaves, structure = jax.tree.flatten(index)
    assert len(leaves) == 5
    identical(jax.tree.unflatten(structure, leaves), index)
    assert jax.jit(lambda index: index)(index).num_bits == 2
    assert repr(index) == "HashIndex(num_items=2, num_codes=2, num_bits=2)"
