"""Collections to search, and comparing results."""

import jax
import numpy as np
import oracle

import jaxhash as jh


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def collection(num_bits, n=400, q=70, seed=0):
    rng = np.random.default_rng((seed, num_bits, n))
    codes = oracle.pack(oracle.clustered(rng, n, num_bits))
    queries = oracle.pack(oracle.clustered(rng, q, num_bits))
    queries[: min(5, n)] = codes[:5]
    return jh.build_index(codes, num_bits, ids=rng.permutation(3 * n)[:n]), queries
