"""Training: an epoch is one compiled scan over minibatches, with the data on the device.

Dispatching each step from Python takes twice as long. Images stay bytes on the device and are scaled batch by batch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.typing import ArrayLike

from jaxhash.autoencoder import ITEMS_AT_ONCE, Autoencoder, check_items, item_bits, scaled, training_bits
from jaxhash.checks import check_integer
from jaxhash.dispatch import entry_point, in_batches

# So many images, chosen at random, fix the mean of the code logits after training. (Evenly spaced ones would not do:
# in MNIST the odd and the even rows come from different writers, and means differ by half a standard deviation.)
IMAGES_FOR_MEAN = 2**16


class DivergenceError(FloatingPointError):
    """The training loss became infinite or not a number."""


class History(NamedTuple):
    """What `fit` saw, epoch by epoch."""

    loss: tuple[float, ...]  # mean of the minibatch losses while training, as Keras reports it


def fit(
    model: Autoencoder,
    images: ArrayLike,
    *,
    epochs: int,
    batch_size: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    seed: int = 0,
    on_epoch: Callable[[int, History], None] | None = None,
) -> tuple[Autoencoder, History]:
    """Trains a model to reconstruct images through its bits.

    Each epoch goes through the images in a new random order. If their number is no multiple of the batch size, the
    last batch is filled up with the first images of that order, so that none is left out.

    Args:
        model: an autoencoder; it stays as it is.
        images: `[n, ...]`, as for `encode`.
        epochs: how often to go through the images.
        batch_size: images in a step; at most n are used.
        optimizer: any Optax optimiser; by default `default_optimizer` for as many steps as there will be.
        seed: decides the order of the images. One seed gives the same weights on the same machine.
        on_epoch: called after each epoch with its number, from 1, and the history so far.

    Returns:
        A trained model, and the `History`.

    Raises:
        ValueError: there are no images, an image is not fit for the model, or a number is out of range.
        TypeError: an argument is of the wrong kind.
        DivergenceError: the loss stopped being finite.
    """
    items, _, _ = check_items(model, images)
    if isinstance(items, jax.core.Tracer):
        raise TypeError("fit compiles its own epochs and can't be traced: call it outside jit")
    epochs = check_integer("epochs", epochs, 1)
    batch_size = min(check_integer("batch_size", batch_size, 1), max(1, len(items)))
    check_integer("seed", seed, 0, maximum=2**32 - 1)
    if len(items) == 0:
        raise ValueError(f"images must hold at least one image, got shape {np.shape(images)}")

    steps = -(-len(items) // batch_size)
    optimizer = default_optimizer(epochs * steps) if optimizer is None else optimizer
    graph, *states = nnx.split(model, nnx.Param, ...)
    weights, rest = states
    opt_state = optimizer.init(weights)
    data = jax.device_put(items)
    losses: list[float] = []
    for epoch in range(1, epochs + 1):
        key = jax.random.fold_in(jax.random.key(seed), epoch)
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes dtypes, which strict callers forbid
            weights, opt_state, step_losses = _epoch(graph, weights, rest, opt_state, data, key, optimizer, batch_size)
        losses.append(_mean_loss(np.asarray(step_losses), epoch))
        if on_epoch is not None:
            on_epoch(epoch, History(tuple(losses)))
    trained = nnx.merge(graph, weights, rest)
    # A new variable, since `rest` still holds that of the given model.
    trained.logit_mean = nnx.BatchStat(_mean_logits(trained, items, seed))
    return trained, History(tuple(losses))


@functools.cache
def default_optimizer(steps: int) -> optax.GradientTransformation:
    """Nadam with 5 % of the steps to warm up, then a cosine down to zero. One object for each number of steps.

    A new optimiser is a new static argument, for which the epoch would be compiled again.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, warmup_steps=steps // 20, decay_steps=steps)
    return optax.nadam(schedule, b2=0.99)


@functools.partial(jax.jit, static_argnums=(0, 6, 7))
def _epoch(
    graph: Any,
    weights: Any,
    rest: Any,
    opt_state: Any,
    data: jax.Array,
    key: jax.Array,
    optimizer: Any,
    batch_size: int,
) -> tuple[Any, Any, jax.Array]:
    """One pass over the data: new weights, new state of the optimiser, and the loss of each step, `[steps]`."""

    def loss_of(weights: Any, batch: jax.Array) -> jax.Array:
        return _training_loss(nnx.merge(graph, weights, rest), batch)

    def step(carry: tuple[Any, Any], rows: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
        weights, opt_state = carry
        loss, gradient = jax.value_and_grad(loss_of)(weights, scaled(data[rows]))
        updates, opt_state = optimizer.update(gradient, opt_state, weights)
        return (optax.apply_updates(weights, updates), opt_state), loss

    steps = -(-len(data) // batch_size)
    order = jnp.resize(jax.random.permutation(key, len(data)), (steps, batch_size))
    (weights, opt_state), losses = lax.scan(step, (weights, opt_state), order)
    return weights, opt_state, losses


def _training_loss(model: Autoencoder, items: jax.Array) -> jax.Array:
    return item_losses(model, model.output_logits(training_bits(model.code_logits(items))), items).mean()


def item_losses(model: Autoencoder, logits: jax.Array, items: jax.Array) -> jax.Array:
    """The loss of each item, averaged over its values: float32 `[n]`."""
    if model.output_activation == "sigmoid":
        losses = optax.sigmoid_binary_cross_entropy(logits, items)
    else:
        losses = optax.squared_error(model.activation(logits), items)
    return losses.reshape(len(items), -1).mean(1)


def _mean_loss(step_losses: np.ndarray, epoch: int) -> float:
    finite = np.isfinite(step_losses)
    if not finite.all():
        step = int(np.argmin(finite)) + 1
        raise DivergenceError(
            f"the loss became {step_losses[step - 1]} in epoch {epoch}, step {step}: try a smaller learning rate"
        )
    return float(step_losses.mean())


def _mean_logits(model: Autoencoder, items: np.ndarray, seed: int) -> jax.Array:
    """The mean of the code logits over the images, or many of them: float32 `[b]`."""
    if len(items) > IMAGES_FOR_MEAN:
        items = items[np.random.default_rng(seed).choice(len(items), IMAGES_FOR_MEAN, replace=False)]
    logits = in_batches(lambda batch: _compiled_logits(model, batch), items, ITEMS_AT_ONCE)
    return jnp.asarray(np.asarray(logits).mean(0, dtype=np.float64).astype(np.float32))


def _logits(model: Autoencoder, items: jax.Array) -> jax.Array:
    return model.code_logits(scaled(items))


def reconstruction_loss(model: Autoencoder, images: ArrayLike) -> float:
    """The mean loss over all values of all images, with the codes that `encode` gives.

    Binary cross-entropy (natural logarithm) for sigmoid outputs, squared error for others.
    """
    items, _, _ = check_items(model, images)
    losses = in_batches(lambda batch: _compiled_losses(model, batch), items, ITEMS_AT_ONCE)
    return float(np.asarray(losses).mean(dtype=np.float64))


def _losses(model: Autoencoder, items: jax.Array) -> jax.Array:
    inputs = scaled(items)
    return item_losses(model, model.output_logits(item_bits(model, inputs).astype(jnp.float32)), inputs)


_compiled_logits = entry_point(_logits)
_compiled_losses = entry_point(_losses)
