"""A model in place of the one that the demo trains."""

import jaxhash as jh


def make_small_model(data, num_bits):
    """In place of the post's network, which takes its time."""
    return jh.Autoencoder(data.train_images[0].size, num_bits, (32,))
