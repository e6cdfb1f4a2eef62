"""Layer-wise pretraining by restricted Boltzmann machines, as in the papers.

After Salakhutdinov and Hinton, "Semantic Hashing" (2009), and Krizhevsky and Hinton, "Using Very Deep Autoencoders for
Content-Based Image Retrieval" (ESANN 2011). It does not help with the package's initial weights and code layer. The
notebook `papers` contains the same functions.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

MEANS = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu}
OPTIMIZER = optax.adam(1e-3)  # the direction is not the gradient of a loss, but Adam's steps suit all layers


def pretrain(model, images, batch_size=256, seed=0):
    """Trains each layer of a copy of a dense model with sigmoid outputs for one epoch on uint8 images."""
    model, items = nnx.clone(model), images.reshape(len(images), -1)
    model.init_output_bias(items.mean(axis=0) / 255)
    data, last = jnp.asarray(items, jnp.float32) / 255, len(model.encoder.layers) - 1
    for number, (down, up) in enumerate(zip(model.encoder.layers, reversed(model.decoder.layers), strict=True)):
        order = np.random.default_rng([seed, number]).permutation(len(data))
        batches = np.resize(order, (-(-len(data) // batch_size), batch_size))
        units = "relu" if number else "sigmoid", "sigmoid" if number == last else "relu"
        machine = down.kernel[...], up.bias[...], down.bias[...]
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes dtypes
            machine = train(*units, machine, data, batches, jax.random.fold_in(jax.random.key(seed), number))
        down.kernel[...], up.kernel[...] = machine[0], machine[0].T
        up.bias[...], down.bias[...] = machine[1:]
        data = jax.nn.relu(data @ machine[0] + machine[2][None])
    return model


@functools.partial(jax.jit, static_argnums=(0, 1))
def train(visible, hidden, machine, data, batches, key):
    """Runs one step of contrastive divergence per batch of rows; samples only hidden units given data."""

    def step(state, inputs):
        (machine, opt_state), (rows, key) = state, inputs
        kernel, visible_bias, hidden_bias = machine
        given = data[rows]
        driven = given @ kernel + hidden_bias[None]
        back = MEANS[visible](sample(hidden, driven, key) @ kernel.T + visible_bias[None])
        of_data, of_back = MEANS[hidden](driven), MEANS[hidden](back @ kernel + hidden_bias[None])
        products = (back.T @ of_back - given.T @ of_data) / len(rows)
        direction = products, (back - given).mean(0), (of_back - of_data).mean(0)
        updates, opt_state = OPTIMIZER.update(direction, opt_state, machine)
        return (optax.apply_updates(machine, updates), opt_state), None

    start = machine, OPTIMIZER.init(machine)
    return jax.lax.scan(step, start, (batches, jax.random.split(key, len(batches))))[0][0]


def sample(units, inputs, key):
    """Samples binary units, or ReLUs with Gaussian noise of variance `sigmoid(inputs)`."""
    if units == "sigmoid":
        return jax.random.bernoulli(key, jax.nn.sigmoid(inputs)).astype(inputs.dtype)
    noise = jnp.sqrt(jax.nn.sigmoid(inputs)) * jax.random.normal(key, inputs.shape, inputs.dtype)
    return jax.nn.relu(inputs + noise)
