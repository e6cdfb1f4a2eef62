"""Collections to search, and comparing pytrees."""

from typing import NamedTuple

import jax
import numpy as np
import oracle

import jaxhash as jh


class Collection(NamedTuple):
    index: jh.HashIndex
    queries: np.ndarray
    codes: np.ndarray
    ids: np.ndarray


def collection(num_bits, n=400, q=70, seed=0):
    """Clustered codes with copies, their ids, unordered and below 3 n, the index, and queries, the first few stored."""
    rng = np.random.default_rng((seed, num_bits, n))
    codes = oracle.pack(oracle.clustered(rng, n, num_bits))
    queries = oracle.pack(oracle.clustered(rng, q, num_bits))
    queries[: min(5, n)] = codes[: min(5, q)]
    ids = rng.permutation(3 * n)[:n]
    return Collection(jh.build_index(codes, num_bits, ids=ids), queries, codes, ids)


def same(a, b):
    """Raises unless two pytrees have equal values."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def identical(a, b):
    """Raises unless two pytrees have equal values, structures and dtypes."""
    same(a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert [leaf.dtype for leaf in jax.tree.leaves(a)] == [leaf.dtype for leaf in jax.tree.leaves(b)]
