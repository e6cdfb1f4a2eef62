import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxhash as jh
from jaxhash.models.word_counts import compute_log_shares, mean_length, normalize_lengths, scale_to_counts
from jaxhash.training.losses import item_losses, mean_loss

# Two topics do not need eight bits.
pytestmark = pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")

WORDS = 30


@pytest.fixture
def counts(rng):
    """Documents of two topics, each with words of its own; the last is empty."""
    topics = np.repeat(np.eye(2), 15, axis=1) * 0.9 + 0.05
    lengths = rng.integers(5, 60, 200)
    drawn = [rng.multinomial(n, topics[i % 2] / topics[i % 2].sum()) for i, n in enumerate(lengths)]
    return np.array([*drawn, np.zeros(WORDS)], np.float32)


@pytest.fixture
def model():
    return jh.Autoencoder(WORDS, 8, (16,), output_activation="softmax", rngs=nnx.Rngs(1))


@pytest.fixture
def trained(model, counts):
    return jh.fit(model, counts, epochs=20, batch_size=32)[0]


def softmax(x):
    powers = np.exp(x - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_inputs_are_roots_of_equal_length():
    # Roots 1, 2, 2 of length 3; times the root of 3 words.
    inputs = normalize_lengths(jnp.float32([[1.0, 4.0, 4.0], [0.0, 0.0, 0.0], [0.0, 7.0, 0.0]]))
    expected = np.sqrt(3) * np.array([[1 / 3, 2 / 3, 2 / 3], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(inputs, expected, rtol=1e-6)


def test_the_loss_is_the_mean_cross_entropy_of_all_words():
    logits = jnp.log(jnp.float32([[0.5, 0.25, 0.25]] * 3))
    counts = jnp.float32([[3.0, 1.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    bits = np.array([3 * 1 + 1 * 2, 2 * 2, 0])
    model = jh.Autoencoder(3, 2, (), output_activation="softmax")
    np.testing.assert_allclose(item_losses(model, logits, counts), np.log(2) * bits, rtol=1e-6)
    assert mean_loss(model, logits, counts) == pytest.approx(np.log(2) * bits.sum() / 6, rel=1e-6)


def test_the_gradient_is_the_expected_less_the_true_counts(rng):
    model = jh.Autoencoder(6, 2, (), output_activation="softmax")
    logits, counts = rng.normal(size=(4, 6)), rng.integers(0, 5, (4, 6)) + np.eye(4, 6)
    slope = jax.grad(lambda x: item_losses(model, x, jnp.float32(counts)).sum())(jnp.float32(logits))
    np.testing.assert_allclose(slope, counts.sum(1, keepdims=True) * softmax(logits) - counts, atol=1e-5)


def test_an_empty_document_has_no_gradient():
    model = jh.Autoencoder(4, 2, (), output_activation="softmax")
    empty, some = jnp.zeros((1, 4), jnp.float32), jnp.ones((1, 4), jnp.float32)
    assert mean_length(empty) == 1
    assert not np.asarray(jax.jit(jax.grad(lambda x: mean_loss(model, x, empty)))(some)).any()
    assert jnp.isfinite(normalize_lengths(empty)).all()


def test_reconstructions_are_the_counts_to_expect(trained, counts):
    expected = np.asarray(jh.reconstruct(trained, counts))
    assert expected.shape == counts.shape
    np.testing.assert_allclose(expected.sum(1), counts.sum(1), rtol=1e-5)
    bits = np.asarray(jh.unpack_bits(jh.encode(trained, counts), 8), np.float32)
    shares = softmax(np.asarray(trained.output_logits(jnp.asarray(bits))))
    np.testing.assert_allclose(expected, shares * counts.sum(1, keepdims=True), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(expected[-1], np.zeros(WORDS))
    np.testing.assert_array_equal(scale_to_counts(jnp.ones((1, 2)) / 2, jnp.array([[3.0, 1.0]])), [[2, 2]])


def test_the_reconstruction_loss_is_that_of_numpy(trained, counts):
    bits = np.asarray(jh.unpack_bits(jh.encode(trained, counts), 8), np.float32)
    shares = softmax(np.asarray(trained.output_logits(jnp.asarray(bits)), np.float64))
    expected = -(counts * np.log(shares)).sum() / counts.sum()
    assert jh.training.reconstruction_loss(trained, counts) == pytest.approx(expected, rel=1e-5)


def test_outputs_start_from_the_shares_of_all_words(model, counts):
    np.testing.assert_allclose(compute_log_shares(np.array([3.0, 1.0])), np.log([0.75, 0.25]))
    assert np.isfinite(compute_log_shares(np.array([3.0, 0.0]))).all()
    assert np.ptp(compute_log_shares(np.zeros(4))) == 0
    model.init_output_bias(counts.mean(axis=0, dtype=np.float64))
    bias = np.asarray(model.output_bias[...], np.float64)
    np.testing.assert_allclose(np.exp(bias), counts.sum(0) / counts.sum(), rtol=1e-5)


def test_training_separates_topics(trained, counts):
    topics = np.arange(200) % 2
    index = jh.build_index(jh.encode(trained, counts[:100]), 8)
    found = jh.search(index, jh.encode(trained, counts[100:200]), k=10)
    assert jh.metrics.precision_at_k(found.ids, topics[:100], topics[100:]) > 0.9


@pytest.mark.parametrize("factor", [16, 2**20])  # powers of four, whose roots are exact
def test_codes_do_not_depend_on_the_length_of_a_document(trained, counts, factor):
    np.testing.assert_array_equal(jh.encode(trained, counts), jh.encode(trained, factor * counts))


def test_documents_train_to_retrieve(model, counts):
    _, history = jh.fit(model, counts, epochs=5, batch_size=32, objective="retrieve")
    assert np.isfinite(history.loss).all()
    assert history.loss[-1] < history.loss[0]


@pytest.mark.parametrize("binarization", [pytest.param("gaussian_noise", marks=pytest.mark.slow), "stochastic"])
def test_documents_train_with_each_binarization(binarization, model, counts):
    _, history = jh.fit(model, counts, epochs=5, batch_size=32, binarization=binarization)
    assert history.loss[-1] < history.loss[0]


def test_empty_documents_alone_train_without_nan(model):
    trained, history = jh.fit(model, np.zeros((3, WORDS), np.float32), epochs=2)
    assert history.loss == (0, 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(nnx.state(trained)))


def test_retrievers_are_saved_with_the_input_rule(trained, counts, tmp_path):
    index = jh.build_index(jh.encode(trained, counts), 8)
    jh.save_retriever(tmp_path / "documents.npz", jh.Retriever(trained, index))
    loaded = jh.load_retriever(tmp_path / "documents.npz")
    found = jh.retrieve(loaded, counts[:10], k=3)
    np.testing.assert_array_equal(found.ids, jh.search(index, jh.encode(trained, counts[:10]), k=3).ids)
    with pytest.raises(ValueError, match="row 0"):
        jh.encode(loaded.model, -counts[:1])


def test_negative_nonfinite_and_uint8_counts_are_refused(model, trained, counts):
    wrong = counts[:3].copy()
    wrong[1, 4] = -1
    for some in (model, trained):
        with pytest.raises(ValueError, match=r"must lie in \[0, .* row 1 spans -1"):
            jh.encode(some, wrong)
        with pytest.raises(TypeError, match="counts must be floating, got dtype uint8"):
            jh.encode(some, counts.astype(np.uint8))
    wrong[1, 4] = np.nan
    with pytest.raises(ValueError, match="finite, but row 1"):
        jh.fit(model, wrong, epochs=1)
    with pytest.raises(TypeError, match="counts must be floating, got dtype uint8"):
        jh.fit(model, counts.astype(np.uint8), epochs=1)


def test_sparse_counts_are_refused_with_advice(model, counts):
    sparse = pytest.importorskip("scipy.sparse")
    for kind in (sparse.csr_matrix, sparse.csr_array):
        with pytest.raises(TypeError, match=r"dense array, got csr_\w+: use \.toarray\(\)"):
            jh.encode(model, kind(counts))
        with pytest.raises(TypeError, match="dense array"):
            jh.fit(model, kind(counts), epochs=1)


def test_convolutional_models_have_no_softmax_outputs():
    with pytest.raises(ValueError, match=r"softmax.*Autoencoder"):
        jh.ConvAutoencoder((8, 8), 4, output_activation="softmax")
