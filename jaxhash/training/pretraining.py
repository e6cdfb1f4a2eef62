"""Greedy layer-wise pre-training by restricted Boltzmann machines.

After Salakhutdinov and Hinton, "Semantic Hashing" (2009), and Krizhevsky and Hinton, "Using Very Deep Autoencoders for
Content-Based Image Retrieval" (ESANN 2011). Each layer of the encoder becomes the hidden units of a machine, with the
layer's inputs as visible units. It is trained by one step of contrastive divergence (Hinton 2002, "Training products of
experts by minimizing contrastive divergence"). The decoder gets the transposed weights and the visible biases. The code
layer has binary units; the hidden layers have noisy rectified linear units (Nair and Hinton 2010, "Rectified linear
units improve restricted Boltzmann machines").
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.typing import ArrayLike

from jaxhash.core.checks import check_integer
from jaxhash.models.autoencoder import OUTPUT_ACTIVATIONS, Autoencoder
from jaxhash.models.inputs import check_training_items, to_floats

# Contrastive divergence is no gradient of a loss, but Adam's steps suit all layers, whatever the scale of their units.
OPTIMIZER = optax.adam(1e-3)


class Machine(NamedTuple):
    """A restricted Boltzmann machine between visible units `d` and hidden units `m`."""

    kernel: jax.Array  # float32 [d, m]
    visible_bias: jax.Array  # float32 [d]
    hidden_bias: jax.Array  # float32 [m]


def pretrain(
    model: Autoencoder, images: ArrayLike, *, epochs: int, batch_size: int = 256, seed: int = 0
) -> Autoencoder:
    """Trains the layers of a copy of a dense autoencoder one after the other; `fit` then trains all of them together.

    It serves to test the papers' claim. With this package's initial weights and code layer it does not pay: on MNIST
    and Fashion-MNIST, with 17 and 32 bits and 4 epochs of `fit`, it lowered the loss by 0.3 to 3 %. One or two more
    epochs of `fit` do the same in the same time. Mean average precision was .02 to .03 lower
    (`tests/benchmarks/quality.py`).

    Args:
        model: a dense autoencoder with sigmoid outputs, for binary visible units, or linear ones, for Gaussian units of
            variance 1.
        images: `[n, ...]`, as for `fit`; all are on the device at once.
        epochs: how often each layer goes through the images.
        batch_size: images in a step; at most n are used.
        seed: decides the order of the images and the samples of hidden units.

    Returns:
        An autoencoder whose decoder mirrors its encoder.

    Raises:
        TypeError: the model is no dense `Autoencoder`, or an argument is of the wrong kind.
        ValueError: its outputs are neither "sigmoid" nor "linear", there are no images, one does not suit the model,
            or an argument is out of range.
    """
    if type(model) is not Autoencoder:
        raise TypeError(f"model must be a dense Autoencoder, got {type(model).__name__}")
    if model.output_activation not in ("sigmoid", "linear"):
        raise ValueError(f"output_activation must be sigmoid or linear to pre-train, got {model.output_activation!r}")
    items, _ = check_training_items(model, images)
    if len(items) == 0:
        raise ValueError(f"images must hold at least one image, got shape {np.shape(images)}")
    epochs = check_integer("epochs", epochs, 1)
    batch_size = min(check_integer("batch_size", batch_size, 1), len(items))
    check_integer("seed", seed, 0, maximum=2**32 - 1)
    model = nnx.clone(model)
    model.init_output_bias(items.mean(axis=0, dtype=np.float64) / (255 if items.dtype == np.uint8 else 1))
    for layer in range(len(model.encoder.layers)):
        train_layer(model, layer, items, epochs, batch_size, seed)
    return model


def train_layer(
    model: Autoencoder, layer: int, items: np.ndarray, epochs: int, batch_size: int, seed: int
) -> list[float]:
    """Trains a layer of the encoder and its mirror in place; returns the mean squared error of each epoch."""
    below, encoding, decoding = _get_layers(model, layer)
    visible = model.output_activation if layer == 0 else "relu"
    hidden = "sigmoid" if layer == len(model.encoder.layers) - 1 else "relu"
    machine = Machine(encoding.kernel[...], decoding.bias[...], encoding.bias[...])
    state = (machine, OPTIMIZER.init(machine))
    rng, errors = np.random.default_rng([seed, layer]), []
    for epoch in range(epochs):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), layer), epoch)
        order = np.resize(rng.permutation(len(items)), (-(-len(items) // batch_size), batch_size))
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes dtypes, which strict callers forbid
            state, step_errors = _run_steps(visible, hidden, below, state, items[order], key)
        errors.append(float(step_errors.mean()))
    machine, _ = state
    encoding.kernel[...], encoding.bias[...] = machine.kernel, machine.hidden_bias
    decoding.kernel[...], decoding.bias[...] = machine.kernel.T, machine.visible_bias
    return errors


def _get_layers(model: Autoencoder, layer: int) -> tuple[list[tuple[jax.Array, jax.Array]], Any, Any]:
    """Returns the weights of all layers below a layer of the encoder, the layer, and its mirror in the decoder."""
    layers: Any = model.encoder.layers
    mirror: Any = model.decoder.layers[-1 - layer]
    return [(lower.kernel[...], lower.bias[...]) for lower in layers[:layer]], layers[layer], mirror


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_steps(
    visible: str, hidden: str, below: list[tuple[jax.Array, jax.Array]], state: Any, batches: jax.Array, key: jax.Array
) -> tuple[Any, jax.Array]:
    """One step for each batch `[steps, m, d]`; also returns their errors `[steps]`."""

    def step(state: Any, inputs: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        batch, key = inputs
        data = apply_below(to_floats(batch), below)
        machine, opt_state = state
        direction, error = contrastive_divergence(machine, data, visible, hidden, key)
        updates, opt_state = OPTIMIZER.update(direction, opt_state, machine)
        return (optax.apply_updates(machine, updates), opt_state), error

    return lax.scan(step, state, (batches, jax.random.split(key, len(batches))))


def apply_below(items: jax.Array, below: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """Applies the layers below a layer to items `[n, d]`."""
    for kernel, bias in below:
        items = jax.nn.relu(items @ kernel + bias[None])
    return items


def contrastive_divergence(
    machine: Machine, data: jax.Array, visible: str, hidden: str, key: jax.Array
) -> tuple[Machine, jax.Array]:
    """One step of contrastive divergence for data `[n, d]`.

    Hidden units are sampled once, given the data. All else are expectations, which are less noisy (Hinton 2010, "A
    practical guide to training restricted Boltzmann machines").

    Returns:
        The direction to descend in, and the mean squared error of the visible units.
    """
    inputs = data @ machine.kernel + machine.hidden_bias[None]
    back = OUTPUT_ACTIVATIONS[visible](
        sample_hidden(hidden, inputs, key) @ machine.kernel.T + machine.visible_bias[None]
    )
    of_data = OUTPUT_ACTIVATIONS[hidden](inputs)
    of_back = OUTPUT_ACTIVATIONS[hidden](back @ machine.kernel + machine.hidden_bias[None])
    direction = Machine(
        (back.T @ of_back - data.T @ of_data) / len(data), (back - data).mean(0), (of_back - of_data).mean(0)
    )
    return direction, jnp.square(back - data).mean()


def sample_hidden(hidden: str, inputs: jax.Array, key: jax.Array) -> jax.Array:
    """Samples hidden units: binary ones, or rectifiers with Gaussian noise of variance `sigmoid(inputs)`."""
    if hidden == "sigmoid":
        return jax.random.bernoulli(key, jax.nn.sigmoid(inputs)).astype(inputs.dtype)
    noise = jnp.sqrt(jax.nn.sigmoid(inputs)) * jax.random.normal(key, inputs.shape, inputs.dtype)
    return jax.nn.relu(inputs + noise)
