"""An epoch: one compiled scan over minibatches.

Items stay on the device in their own dtype, usually bytes, and each step gathers its batch there. Dispatching steps
from Python takes twice as long. A run too large for the device takes several scans of equal length: the host gathers
one part while the device processes the previous one.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from jaxhash.codes.bits import pack_bits
from jaxhash.models.code_layer import CodeLayer, LogitStatistics
from jaxhash.models.encoder import Encoder
from jaxhash.training.data import TrainingData, split_run
from jaxhash.training.objectives import Batch, Objective


class History(NamedTuple):
    """Losses and code statistics of `fit`, per epoch. Each item counts as of its step, before the update."""

    loss: tuple[float, ...] = ()  # mean of the minibatch losses, as Keras reports it
    entropy: tuple[float, ...] = ()  # mean over the bits, in bits: 1 if each is set in half of the items
    num_codes: tuple[int, ...] = ()  # distinct codes of the items
    dead_bits: tuple[int, ...] = ()  # bits that were the same for all items


class TrainSpec(NamedTuple):
    """The constants of a training."""

    model: Encoder  # as given to `fit`
    graph: Any  # the structure of its trained part, usually all of it
    rest: Any  # the other variables of this part
    optimizer: optax.GradientTransformation
    objective: Objective
    binarization: str
    epochs: int
    batch_size: int
    seed: int


class TrainState(NamedTuple):
    """The state that an epoch updates and a checkpoint holds."""

    epoch: int  # finished epochs
    weights: Any
    opt_state: Any
    statistics: LogitStatistics  # of the last epoch
    history: History


def run_epoch(
    spec: TrainSpec, data: TrainingData, state: TrainState, layer: CodeLayer
) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """Trains for one epoch. The order of items depends only on the seed and the epoch.

    Returns:
        The weights and the optimizer state; the losses, float32 `[steps]`; and the codes of all items, each as of its
        step, uint32 `[n, w]`, in any order.
    """
    epoch = state.epoch + 1
    key = jax.random.fold_in(jax.random.key(spec.seed), epoch)
    rng = np.random.default_rng([spec.seed, epoch])
    weights, opt_state, losses, codes = state.weights, state.opt_state, [], []
    parts = (part for run in data.runs() for part in split_run(run, spec.batch_size, rng))
    for number, (tables, rows, fresh) in enumerate(parts):
        part_key = jax.random.fold_in(key, number)
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes dtypes, which fails under strict promotion
            weights, opt_state, part_losses, part_codes = _run_steps(
                spec.graph,
                spec.optimizer,
                spec.objective,
                spec.rest,
                layer,
                weights,
                opt_state,
                tables,
                rows,
                part_key,
            )
        losses.append(part_losses)
        codes.append((part_codes, fresh))
        # Dispatch is asynchronous: without waiting, the host would soon hold all gathered parts.
        jax.block_until_ready(losses[-2:-1])
    epoch_codes = [np.asarray(part).reshape(-1, part.shape[-1])[:fresh] for part, fresh in codes]
    return weights, opt_state, np.concatenate(losses), np.concatenate(epoch_codes)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run_steps(
    graph: Any,
    optimizer: Any,
    objective: Objective,
    rest: Any,
    layer: CodeLayer,
    weights: Any,
    opt_state: Any,
    tables: tuple[jax.Array, jax.Array | None],
    rows: tuple[jax.Array, ...],
    key: jax.Array,
) -> tuple[Any, Any, jax.Array, jax.Array]:
    """Runs one step per batch of rows `[steps, m]`; also returns losses `[steps]` and codes `[steps, m, w]`."""

    def loss_of(weights: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss, bits = objective(nnx.merge(graph, weights, rest), batch, key, layer)
        expected = (len(batch.items), len(layer.statistics.mean))
        if jnp.shape(bits) != expected:
            raise ValueError(f"objective must return a loss and bits {list(expected)}, got shape {jnp.shape(bits)}")
        return loss, bits

    def step(carry: Any, inputs: Any) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        weights, opt_state = carry
        rows, key = inputs
        (loss, bits), gradient = jax.value_and_grad(loss_of, has_aux=True)(weights, gather(tables, rows), key)
        updates, opt_state = optimizer.update(gradient, opt_state, weights)
        return (optax.apply_updates(weights, updates), opt_state), (loss, pack_bits(bits > 0.5))

    keys = jax.random.split(key, len(rows[0]))
    (weights, opt_state), (losses, codes) = lax.scan(step, (weights, opt_state), (rows, keys))
    return weights, opt_state, losses, codes


def gather(tables: tuple[jax.Array, jax.Array | None], rows: tuple[jax.Array, ...]) -> Batch:
    """Gathers a batch from rows `[m]` of items and, if any, of their positives."""
    items, features = tables
    return Batch(
        _take(items, rows[0]),
        _take(items, rows[1]) if len(rows) > 1 else None,
        None if features is None else _take(features, rows[0]),
    )


def _take(table: jax.Array, rows: jax.Array) -> jax.Array:
    """Takes rows `[m]` of a table `[t, ...]`. On CPU, XLA gathers flat rows up to eight times as fast as images."""
    flat = table.reshape(len(table), -1)
    return jnp.take(flat, rows, axis=0, mode="clip").reshape(-1, *table.shape[1:])  # rows are always in bounds
