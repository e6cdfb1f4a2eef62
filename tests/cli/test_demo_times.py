"""The ways of the source post, by hand."""

import numpy as np

import jaxhash as jh
from jaxhash.cli import demo_times


def test_the_dictionary_flips_bits_of_every_word():
    bits = np.zeros((3, 70), bool)
    bits[1, [0, 69]] = True
    bits[2, [31, 32, 64]] = True
    codes = np.asarray(jh.pack_bits(bits))
    assert [demo_times.make_dictionary_search(codes, codes, 70, radius)(0).tolist() for radius in (1, 2, 3)] == [
        [0],
        [0, 1],
        [0, 1, 2],
    ]


def test_the_linear_search_finds_the_largest_cosines_by_hand():
    codes = np.asarray(jh.pack_bits([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]]))
    find = demo_times.make_linear_search(codes, codes, 4, 3)
    assert find(0).tolist() == [0, 1, 3]  # of equal cosines, the first
    assert find(2).tolist() == [2, 3, 0]
