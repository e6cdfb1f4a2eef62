"""A model in place of the one that the demo trains."""

import jaxhash as jh


def make_small_model(data, num_bits, objective):
    """In place of the demo's models, which take their time."""
    return jh.Autoencoder(data.train_images[0].size, num_bits, (32,))
