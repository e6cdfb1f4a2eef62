"""Collections to search, and comparing pytrees."""

import jax
import numpy as np
import oracle

import jaxhash as jh


def same(a, b):
    """Raises unless two pytrees have equal values."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def identical(a, b):
    """Raises unless two pytrees have equal values, structures and dtypes."""
    same(a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert [leaf.dtype for leaf in jax.tree.leaves(a)] == [leaf.dtype for leaf in jax.tree.leaves(b)]


def items(num_bits, n=400, q=70, seed=0):
    """Clustered codes with copies, shuffled ids, and queries of which some are stored codes."""
    rng = np.random.default_rng((seed, num_bits, n))
    codes = oracle.pack(oracle.clustered(rng, n, num_bits))
    queries = oracle.pack(oracle.clustered(rng, q, num_bits))
    queries[: min(5, n)] = codes[: min(5, q)]
    return codes, rng.permutation(3 * n)[:n], queries


def collection(num_bits, n=400, q=70, seed=0):
    """An index of such items, and queries."""
    codes, ids, queries = items(num_bits, n, q, seed)
    return jh.build_index(codes, num_bits, ids=ids), queries
