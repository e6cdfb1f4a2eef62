"""Arrays answer in kind: numpy arrays give numpy arrays, JAX arrays and traced ones give JAX arrays."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conversions import make_cases
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxhash as jh
from jaxhash import codes
from jaxhash.core import checks

CASES = make_cases((3,), 30)
MAX_IN_JAX = 64 if jax.config.jax_enable_x64 else 32

LENGTHS = st.integers(0, 3)
NUM_BITS = st.integers(1, 100)
SEEDS = st.integers(0, 2**32 - 1)
LAYOUTS = [
    np.asarray,
    partial(np.array, order="F"),
    lambda array: np.repeat(array[..., None], 2, axis=-1)[..., 0],
    lambda array: array.astype(array.dtype.newbyteorder(">")),
]


def check(found, expected, kind):
    assert isinstance(found, kind)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


def test_every_conversion_has_a_case():
    always_numpy = {"bit_statistics", "codes_to_integers"}
    assert {name for name in codes.__all__ if name.islower()} - always_numpy == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_conversions_keep_the_kind_and_device_of_arrays(name):
    convert, arrays, expected = CASES[name]
    on_device = jax.device_put(arrays)
    convert(*on_device)  # compiling may move constants
    with jax.transfer_guard("disallow_explicit"):
        of_numpy, of_jax = convert(*arrays), convert(*on_device)
    check(of_numpy, expected, np.ndarray)
    check(of_jax, expected, jax.Array)


@given(st.lists(LENGTHS, max_size=3), NUM_BITS, SEEDS)
def test_numpy_forms_equal_the_slow_exact_ones(lead, num_bits, seed):
    for convert, arrays, expected in make_cases(lead, num_bits, seed).values():
        for lay_out in LAYOUTS:
            found = convert(*map(lay_out, arrays))
            check(found, expected, np.ndarray)
            assert found.flags.c_contiguous


@settings(max_examples=10)
@given(st.lists(LENGTHS, min_size=1, max_size=3), NUM_BITS, SEEDS)
def test_jax_forms_equal_the_slow_exact_ones(lead, num_bits, seed):
    cases = make_cases(lead, num_bits, seed)
    if num_bits > MAX_IN_JAX:
        cases.pop("codes_from_integers", None)

    def convert(arrays):
        return {name: cases[name].convert(*arrays[name]) for name in cases}

    for program in (jax.jit(convert), jax.jit(jax.vmap(convert))):
        found = program({name: case.arrays for name, case in cases.items()})
        for name, case in cases.items():
            check(found[name], case.expected, jax.Array)


def test_lists_give_numpy_arrays():
    assert isinstance(jh.pack_bits([1, 0, 1]), np.ndarray)
    assert isinstance(jh.codes.codes_from_integers([5], 3), np.ndarray)


def test_a_distance_to_a_jax_code_is_of_jax():
    _, (a, b), expected = CASES["hamming_distance"]
    check(jh.hamming_distance(jnp.asarray(a), b), expected, jax.Array)
    check(jh.hamming_distance(a, jnp.asarray(b)), expected, jax.Array)
    check(jax.jit(lambda b: jh.hamming_distance(a, b))(b), expected, jax.Array)


def test_traced_integers_keep_their_last_bits():
    found = jax.jit(lambda ints: jh.codes.codes_from_integers(ints, 3))(np.array([-1, 9], np.int32))
    np.testing.assert_array_equal(found, jh.codes.codes_from_integers([7, 1], 3))


def test_small_integers_make_long_codes():
    expected = jh.codes.codes_from_integers([5, 127], 60)
    np.testing.assert_array_equal(jh.codes.codes_from_integers(jnp.array([5, 127], jnp.int8), 60), expected)


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize(
    ("convert", "right", "wrong", "message"),
    [
        (jh.pack_bits, jnp.array([0, 1]), jnp.array([2, 0]), "got 2"),
        (partial(jh.unpack_bits, num_bits=31), jnp.uint32([2]), jnp.uint32([3]), "past 31"),
        (partial(jh.codes_to_bytes, num_bits=31), jnp.uint32([2]), jnp.uint32([3]), "past 31"),
        (partial(jh.codes_from_bytes, num_bits=7), jnp.uint8([2]), jnp.uint8([3]), "past 7"),
        (partial(jh.codes.codes_from_integers, num_bits=3), jnp.array([0, 7]), jnp.array([-1, 4]), "got -1 to 4"),
        (partial(jh.codes.codes_from_integers, num_bits=3), jnp.array([0, 7]), jnp.array([0, 8]), "got 0 to 8"),
    ],
)
def test_known_jax_values_are_checked(convert, right, wrong, message, on_host, monkeypatch):
    if not on_host:  # as arrays on an accelerator are
        monkeypatch.setattr(checks, "is_on_host", lambda array: not isinstance(array, jax.Array))
    np.testing.assert_array_equal(jax.jit(lambda: convert(right))(), convert(right))
    for call in (lambda: convert(wrong), jax.jit(lambda: convert(wrong))):
        with pytest.raises(ValueError, match=message):
            call()
