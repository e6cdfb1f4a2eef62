"""The kernels are lowered for other platforms."""

from functools import partial

import jax
import numpy as np
import pytest
from samples import collection

import jaxhash as jh
from jaxhash.query import probe
from jaxhash.query.kernels import near_groups


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("num_bits", [17, 64, 256])
def test_every_kernel_lowers_for_accelerators(platform, num_bits):
    index, queries = collection(num_bits)
    masks, left = probe.make_flip_masks(17, 2)
    bitmap, address = np.zeros(2**12, np.uint32), np.zeros(4, np.uint32)
    programs = [
        (partial(jh.search, k=10), (index, queries)),
        (partial(jh.radius_search_padded, radius=2, max_results=5), (index, queries)),
        (lambda codes, queries: near_groups(codes, queries, radius=np.uint32(2)), (index.codes, queries)),
        (probe.find_taken, (bitmap, address, masks, left)),
    ]
    for function, arguments in programs:
        lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))
        assert "module" in lowered.as_text()
