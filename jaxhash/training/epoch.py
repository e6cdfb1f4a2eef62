"""An epoch: one compiled scan over minibatches, with the shuffled items on the device as they came, mostly as bytes.

Dispatching each step from Python takes twice as long. A run of items of more than `BYTES_AT_ONCE` passes through in
several scans of equal length: the host gathers one part while the device is busy with the part before.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax import lax

from jaxhash.codes.bits import pack_bits
from jaxhash.models.code_layer import CodeLayer
from jaxhash.training.feed import Feed
from jaxhash.training.objectives import Objective

BYTES_AT_ONCE = 2**28


class Course(NamedTuple):
    """What stays the same in all epochs."""

    graph: Any  # the model's structure
    rest: Any  # the model's variables that are no weights
    optimizer: optax.GradientTransformation
    objective: Objective
    feed: Feed
    batch_size: int
    seed: int
    binarization: str


class State(NamedTuple):
    """What an epoch changes."""

    weights: Any
    opt_state: Any


class History(NamedTuple):
    """What `fit` saw, epoch by epoch. Losses and codes are those of the moment when an item's batch came."""

    loss: tuple[float, ...] = ()  # mean of the minibatch losses, as Keras reports it
    entropy: tuple[float, ...] = ()  # mean over the bits, in bits: 1 if each is set in half of the items
    num_codes: tuple[int, ...] = ()  # how many distinct codes the items had
    dead_bits: tuple[int, ...] = ()  # how many bits were the same for all items


class Seen(NamedTuple):
    """What came by in an epoch, each item when its batch did."""

    losses: np.ndarray  # float32 [steps]
    codes: np.ndarray  # uint32 [n, w]


def run_epoch(course: Course, state: State, layer: CodeLayer, epoch: int) -> tuple[State, Seen]:
    """Goes once through all items, in an order that seed and epoch decide."""
    key = jax.random.fold_in(jax.random.key(course.seed), epoch)
    losses, codes = [], []
    for number, part in enumerate(_shuffled(course, epoch)):
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes dtypes, which strict callers forbid
            state, *seen = _run_steps(
                course.graph,
                course.optimizer,
                course.objective,
                course.rest,
                layer,
                state,
                part.batches,
                jax.random.fold_in(key, number),
            )
        losses.append(seen[0])
        codes.append((seen[1], part.fresh))
        # Calls return before they are done: without waiting, the host would soon have gathered all parts.
        jax.block_until_ready(losses[-2:-1])
    tables = [np.asarray(found).reshape(-1, found.shape[-1])[:fresh] for found, fresh in codes]
    return state, Seen(np.concatenate(losses), np.concatenate(tables))


class _Part(NamedTuple):
    """What a scan goes through: batches `[steps, batch_size, ...]` of items, and of what stands beside them."""

    batches: tuple[np.ndarray, ...]
    fresh: int  # how many items have not come before in this epoch; those behind them have


def _shuffled(course: Course, epoch: int) -> Iterator[_Part]:
    """Yields all items of all runs. The first of a run's order come again at its end if batches would not be full."""
    rng = np.random.default_rng([course.seed, epoch])
    for items, company in course.feed.runs():
        steps = -(-len(items) // course.batch_size)
        beside = 0 if company is None else items[:1].nbytes + company.points[:1].nbytes
        size = course.batch_size * max(1, items[:1].nbytes + beside)
        parts = -(-steps * size // BYTES_AT_ONCE)
        shape = (parts, -(-steps // parts), course.batch_size)
        left = len(items)
        for rows in np.resize(rng.permutation(len(items)), shape):
            batches = [items[rows]]
            if company is not None:
                drawn = rng.integers(company.partners.shape[1], size=rows.shape)
                batches += [items[company.partners[rows, drawn]], company.points[rows]]
            yield _Part(tuple(batches), min(left, rows.size))
            left -= min(left, rows.size)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run_steps(
    graph: Any,
    optimizer: Any,
    objective: Objective,
    rest: Any,
    layer: CodeLayer,
    state: State,
    batches: tuple[jax.Array, ...],
    key: jax.Array,
) -> tuple[State, jax.Array, jax.Array]:
    """One step for each batch `[steps, m, ...]`: also gives losses `[steps]` and codes `[steps, m, w]`."""

    def loss_of(weights: Any, batch: tuple[jax.Array, ...], key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return objective(nnx.merge(graph, weights, rest), batch, key, layer)

    def step(state: State, inputs: Any) -> tuple[State, tuple[jax.Array, jax.Array]]:
        batch, key = inputs
        (loss, bits), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.weights, batch, key)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.weights)
        return State(optax.apply_updates(state.weights, updates), opt_state), (loss, pack_bits(bits > 0.5))

    keys = jax.random.split(key, len(batches[0]))
    state, (losses, codes) = lax.scan(step, state, (batches, keys))
    return state, losses, codes
