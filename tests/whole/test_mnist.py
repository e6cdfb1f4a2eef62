"""The first milestone, on the whole of MNIST: minutes of training, run by hand with `-m slow`."""

import os

import numpy as np
import pytest

import jaxhash as jh

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("JAXHASH_DATA" not in os.environ, reason="needs MNIST in $JAXHASH_DATA"),
]


def test_seventeen_bits_of_mnist_retrieve_their_digit():
    data = jh.load_dataset("mnist")
    model, _ = jh.fit(jh.Autoencoder(784, 17), data.train_images, epochs=5)
    loss = jh.training.reconstruction_loss(model, data.train_images)
    codes = jh.encode(model, data.train_images)
    index = jh.build_index(codes, 17)
    ones = np.asarray(jh.unpack_bits(codes, 17)).mean(0)
    found = jh.search(index, jh.encode(model, data.test_images), k=10)
    vote = jh.metrics.vote_accuracy(found.ids, data.train_labels, data.test_labels)
    print(f"\nloss {loss:.4f}, {jh.describe(index)}, bits from {ones.min():.2f} to {ones.max():.2f}, vote {vote:.4f}")
    assert loss < 0.155
    assert ((ones > 0) & (ones < 1)).all()
    assert jh.describe(index).num_codes > 8000
    assert vote >= 0.84
