import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import clustered, pack
from scipy.special import entr

import jaxhash as jh
from jaxhash.codes import statistics


def entropy(counts):
    """In bits, along the first axis."""
    return entr(counts / np.sum(counts, axis=0)).sum(axis=0) / np.log(2)


def statistics_of(bits, **options):
    return jh.codes.bit_statistics(pack(bits), np.shape(bits)[1], **options)


def test_statistics_by_hand():
    # bit 1 is the opposite of bit 0, bit 2 is dead, bit 3 goes its own way
    stats = statistics_of([[0, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 0], [1, 0, 1, 1], [0, 1, 1, 0], [1, 0, 1, 1]])
    np.testing.assert_allclose(stats.ones, [1 / 2, 1 / 2, 1, 1 / 2])
    np.testing.assert_allclose(stats.entropy, [1, 1, 0, 1])
    np.testing.assert_allclose(
        stats.correlation, [[1, -1, 0, 1 / 3], [-1, 1, 0, -1 / 3], [0, 0, 0, 0], [1 / 3, -1 / 3, 0, 1]]
    )
    assert stats.max_correlation == 1
    assert stats.dead_bits.tolist() == [2]
    assert stats.duplicated_bits.tolist() == [[0, 1]]
    assert stats.num_codes == 4
    assert stats.code_entropy == pytest.approx(entropy([2, 1, 1, 2]))
    assert (stats.min_density, stats.median_density, stats.mean_density, stats.max_density) == (1, 1.5, 1.5, 2)


def test_a_collapsed_code_has_only_dead_bits_and_no_nan():
    stats = statistics_of([[1, 0, 1]] * 7)
    assert stats.dead_bits.tolist() == [0, 1, 2]
    assert stats.duplicated_bits.shape == (0, 2)
    assert stats.num_codes == 1
    assert stats.code_entropy == stats.max_correlation == 0
    assert not stats.entropy.any()
    assert not stats.correlation.any()


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 40), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_statistics_equal_those_of_numpy(n, num_bits, seed):
    rng = np.random.default_rng(seed)
    bits = rng.random((n, num_bits)) < rng.random(num_bits)
    stats = statistics_of(bits)
    with np.errstate(invalid="ignore"):
        correlation = np.atleast_2d(np.corrcoef(bits.T.astype(float)))
    np.testing.assert_allclose(stats.correlation, np.nan_to_num(correlation, nan=0.0), atol=1e-12)
    np.testing.assert_allclose(stats.entropy, entropy([bits.mean(0), 1 - bits.mean(0)]), atol=1e-12)
    distinct, counts = np.unique(bits, axis=0, return_counts=True)
    assert stats.num_codes == len(distinct)
    assert stats.code_entropy == pytest.approx(entropy(counts))
    assert stats[-4:] == (counts.min(), np.median(counts), n / len(counts), counts.max())


@pytest.mark.parametrize(("threshold", "copies"), [(0.95, [[0, 1]]), (0.5, [[0, 1], [0, 2], [1, 2]]), (1.0, [])])
def test_the_threshold_decides_what_is_duplicated(threshold, copies):
    bits = np.zeros((1000, 3), int)
    bits[:500] = 1
    bits[0, 1] ^= 1
    bits[:100, 2] ^= 1
    assert statistics_of(bits, threshold=threshold).duplicated_bits.tolist() == copies


def test_codes_counted_in_parts_have_the_same_statistics(rng, monkeypatch):
    codes = pack(clustered(rng, 1000, 40))
    whole = jh.codes.bit_statistics(jnp.asarray(codes), 40)
    monkeypatch.setattr(statistics, "CODES_PER_CHUNK", 300)
    for a, b in zip(whole, jh.codes.bit_statistics(codes, 40), strict=True):
        np.testing.assert_array_equal(a, b)


def test_statistics_of_no_codes_are_refused():
    with pytest.raises(ValueError, match="at least one code"):
        jh.codes.bit_statistics(np.zeros((0, 1), np.uint32), 17)
    with pytest.raises(ValueError, match="shape"):
        jh.codes.bit_statistics(np.zeros(1, np.uint32), 17)
    with pytest.raises(TypeError, match="uint32"):
        jh.codes.bit_statistics(np.zeros((3, 17)), 17)
