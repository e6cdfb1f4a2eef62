"""`fit`, the training loop over epochs."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike

from jaxhash.codes.statistics import bit_statistics
from jaxhash.core.batching import entry_point, in_batches
from jaxhash.core.checks import check_integer, is_stream
from jaxhash.models.autoencoder import Autoencoder
from jaxhash.models.code_layer import (
    CodeLayer,
    LogitStatistics,
    check_binarization,
    compute_noise,
    make_batch_statistics,
)
from jaxhash.models.encoder import DenseEncoder, Encoder
from jaxhash.models.encoding import in_full_batches
from jaxhash.models.input_rule import make_trained_rule, scale_rule
from jaxhash.models.inputs import ITEMS_PER_CHUNK, check_model, to_floats
from jaxhash.training.advice import warn_of_useless_bits
from jaxhash.training.checkpoints import describe_settings, load_checkpoint, save_checkpoint
from jaxhash.training.data import TrainingData
from jaxhash.training.epoch import History, TrainSpec, TrainState, run_epoch
from jaxhash.training.errors import CheckpointError, DivergenceError
from jaxhash.training.named_objectives import check_objective
from jaxhash.training.objectives import Objective
from jaxhash.training.views import ViewData

Path = str | os.PathLike[str]
Model = TypeVar("Model", bound=Encoder)


def fit(
    model: Model,
    images: ArrayLike | Iterable[ArrayLike],
    *,
    epochs: int,
    batch_size: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    seed: int = 0,
    on_epoch: Callable[[int, History], None] | None = None,
    objective: str | Objective | None = None,
    binarization: str = "rounding",
    checkpoint: Path | None = None,
) -> tuple[Model, History]:
    """Trains a copy of a model.

    Each epoch iterates over the images in a new random order. If the batch size does not divide their number, the first
    images of that order fill up the last batch. In the last of several epochs
    of "reconstruct" the code logits are standardized by a fixed mean and variance, as they are after training.

    An array of up to 1 GiB is sent to the device once. A larger one can be memory-mapped: it is read in parts of
    256 MiB (but float16 and float64 arrays are copied whole, and "retrieve" keeps about 400 bytes per image).

    Images can also be a stream: an iterable of batches, such as a data loader. It is iterated once to count the images
    and sample them for statistics, then once per epoch, in runs of 128 MiB. Images are shuffled, and neighbors found,
    within a run, so a stream should not be sorted. A stream of a single run and up to 2^16 images, in the same order
    each time, trains like an array. Apart from a run, only the codes are kept in memory.

    Vectors for a model with linear outputs need no centering or scaling: the first training measures the mean of the
    items and a single standard deviation of all their values, and the model stores both. The loss is in units of this
    deviation; `reconstruct` returns the original units.

    A `PatchEncoder` first learns its dictionary, then trains on the features of several views of each image. These are
    computed once and kept in a temporary file (8 KiB per image with "retrieve"), so an iterator serves for many epochs.

    Args:
        model: any model; "reconstruct" requires a decoder.
        images: `[n, ...]`, as for `encode`. Items of two or three axes are images, `[h, w]` or `[h, w, c]`. Or an
            iterable of such arrays, all of one dtype. An iterator, such as a generator, can be iterated only once and
            serves for a single epoch without a checkpoint.
        epochs: number of passes over the images.
        batch_size: images per step, at most n.
        optimizer: any Optax optimizer. Default: Nadam, with a warm-up over 5% of the steps to a rate of 0.002 and a
            cosine decay to zero. An iterator has an unknown number of steps and gets a constant rate of 0.001.
        seed: seeds the order of the images and the randomness of the objective. A seed reproduces the weights on the
            same machine.
        on_epoch: called after each epoch with its number, from 1, and the history so far.
        objective: "reconstruct", the default for models with a decoder; "retrieve", the default for others, for
            similar codes of similar images; for vectors, "keep_neighbors" preserves their nearest neighbors and
            "group_by_kind" gives similar vectors similar codes; "find_duplicates" matches changed copies of images.
            Each name stands for an object with default settings (`Reconstruct`, `Retrieve`, `KeepNeighbors`,
            `GroupByKind`, `FindDuplicates`). Or a custom objective: a hashable instance of an `Objective` subclass.
        binarization: how the code layer makes bits in training: "rounding", "gaussian_noise" that grows with the
            epochs, or "stochastic" bits (see `jaxhash.models.code_layer`). `encode` always rounds.
        checkpoint: file to write at the end of each epoch. If it exists, training resumes from it, with its weights
            instead of the model's, and gives the same result as an uninterrupted run. A stream must yield the same
            images in the same order each time.

    Returns:
        A trained model, and the `History`.

    Raises:
        ValueError: there are no images, an image does not fit the model, or an argument is out of range; an iterator
            would have to be iterated again, or a stream changes its number of images between epochs.
        TypeError: an argument has the wrong type, or an objective is not a hashable `Objective`.
        DivergenceError: the loss is no longer finite; the error holds the model from before that epoch.
        CheckpointError: the checkpoint cannot be written; the old one is intact, and the error holds the model.
        CorruptFileError: the checkpoint is damaged. One written with other settings raises `ValueError`.

    Warns:
        CodeWarning: bits are the same for all images, or duplicates of each other.
        QualityWarning: the form of the images gives worse codes: flattened for "retrieve", channels first, or a sorted
            stream.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
        >>> model = jh.Autoencoder(20, num_bits=8, hidden_dims=(), output_activation="linear")
        >>> model, history = jh.fit(model, vectors, epochs=2, objective="keep_neighbors")
        >>> len(history.loss)
        2
    """
    check_model(model)
    epochs = check_integer("epochs", epochs, 1)
    batch_size = check_integer("batch_size", batch_size, 1)
    check_integer("seed", seed, 0, maximum=2**32 - 1)
    has_decoder = isinstance(model, Autoencoder)
    objective = check_objective(objective or ("reconstruct" if has_decoder else "retrieve"), model.num_bits)
    check_binarization(binarization)
    if objective.needs_decoder and not has_decoder:
        raise ValueError(f'a {type(model).__name__} has no decoder: give another objective, such as "retrieve"')
    if checkpoint is not None or (epochs > 1 and not model.makes_views):
        _check_repeatable(images)

    model = nnx.clone(model)
    make_data = ViewData if model.makes_views else TrainingData
    data = make_data(model, images, objective, batch_size, seed)
    batch_size = min(batch_size, data.count)
    if optimizer is None:
        optimizer = default_optimizer(data.num_items and epochs * -(-data.num_items // batch_size))
    spec, state = _start(model, data, optimizer, objective, binarization, epochs, batch_size, seed)
    if checkpoint is not None:
        settings = describe_settings(_merge(spec, state), spec, data, state)
        state = load_checkpoint(checkpoint, settings, state)
    while state.epoch < epochs:
        state = _train_epoch(spec, data, state)
        if checkpoint is not None:
            _save(checkpoint, settings, spec, data, state)
        if on_epoch is not None:
            on_epoch(state.epoch, state.history)
    trained = _finish(spec, data, state)
    warn_of_useless_bits(trained.trained_part, data.sample)
    return trained, state.history


def _start(
    model: Encoder,
    data: TrainingData,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    binarization: str,
    epochs: int,
    batch_size: int,
    seed: int,
) -> tuple[TrainSpec, TrainState]:
    """Initializes the model in place and builds the state before the first epoch."""
    part = model.trained_part
    is_new = not part.has_weights
    part.init_from(data.sample)
    if is_new:
        objective.init_weights(part, data.sample, seed)
    graph, *states = nnx.split(part, nnx.Param, ...)
    weights, rest = states
    spec = TrainSpec(model, graph, rest, optimizer, objective, binarization, epochs, batch_size, seed)
    return spec, TrainState(0, weights, optimizer.init(weights), make_batch_statistics(model.num_bits), History())


def _check_repeatable(images: Any) -> None:
    if is_stream(images) and isinstance(images, Iterator):
        raise ValueError(
            "images must be iterable more than once, for several epochs or with a checkpoint, got an iterator "
            f"({type(images).__name__}): give an array, a data loader, or an object whose __iter__ starts again"
        )


def _train_epoch(spec: TrainSpec, data: TrainingData, state: TrainState) -> TrainState:
    """Trains for an epoch. In the last of several, the objective can have the logits' statistics fixed beforehand."""
    epoch = state.epoch + 1
    statistics = state.statistics
    if epoch == spec.epochs > 1 and spec.objective.holds_statistics:
        statistics = _measure_statistics(compute_logits(_merge(spec, state), data.sample))
    noise = jnp.asarray(compute_noise(epoch, spec.epochs), jnp.float32)
    weights, opt_state, losses, codes = run_epoch(spec, data, state, CodeLayer(statistics, noise, spec.binarization))
    finite = np.isfinite(losses)
    if not finite.all():
        step = int(np.argmin(finite))
        raise DivergenceError(
            f"the loss became {losses[step]} in epoch {epoch}, step {step + 1}: try a smaller learning rate",
            _finish(spec, data, state),
            state.history,
        )
    history = _extend(state.history, losses, codes, len(statistics.mean))
    return TrainState(epoch, weights, opt_state, statistics, history)


def _save(path: Path, settings: dict[str, Any], spec: TrainSpec, data: TrainingData, state: TrainState) -> None:
    try:
        save_checkpoint(path, settings, state)
    except OSError as error:
        raise CheckpointError(error, _finish(spec, data, state), state.history) from error


@functools.cache
def default_optimizer(steps: int | None) -> optax.GradientTransformation:
    """Returns Nadam with a warm-up over 5% of the steps and a cosine decay; without `steps`, with half the peak rate.

    Cached: the optimizer is a static argument, and a new object would recompile the epoch.
    """
    if steps is None:
        return optax.nadam(1e-3, b2=0.99)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, warmup_steps=steps // 20, decay_steps=steps)
    return optax.nadam(schedule, b2=0.99)


def _merge(spec: TrainSpec, state: TrainState) -> DenseEncoder:
    """Merges the weights of a state into the trained part of the model."""
    return nnx.merge(spec.graph, state.weights, spec.rest)


def _finish(spec: TrainSpec, data: TrainingData, state: TrainState) -> Any:
    """Returns the model after an epoch, with the mean of its code logits: the held one if any, else measured now."""
    part, statistics = _merge(spec, state), state.statistics
    if not statistics.held:
        statistics = _measure_statistics(compute_logits(part, data.sample))
    # New variables: `rest` still holds those of the given model.
    part.logit_mean = nnx.BatchStat(statistics.mean)
    factors = None if spec.model.makes_views else spec.objective.scale_logits(np.sqrt(statistics.variance))
    if factors is not None:
        part.scale_logits(factors)
    rule = make_trained_rule(part.output_activation, data.sample.dtype, data.low, data.high)
    scaling = jax.device_get((part.input_shift[...], part.input_scale[...]))
    part.input_rule = nnx.BatchStat(jnp.asarray(scale_rule(rule, *scaling)))
    return spec.model.replace_trained_part(part)


def _measure_statistics(logits: np.ndarray) -> LogitStatistics:
    """Computes the mean and variance of code logits `[s, b]`, to be held."""
    mean, variance = (getattr(logits, name)(axis=0, dtype=np.float64).astype(np.float32) for name in ("mean", "var"))
    return LogitStatistics(jnp.asarray(mean), jnp.asarray(variance), jnp.asarray(True))


def compute_logits(model: Encoder, sample: np.ndarray) -> np.ndarray:
    """Computes the code logits of sample items `[s, ...]`: float32 `[s, b]`."""
    items = sample.reshape(len(sample), *model.input_shape)
    return np.asarray(in_batches(lambda batch: _compiled_logits(model, batch), items, ITEMS_PER_CHUNK))


def _logits(model: Encoder, items: jax.Array) -> jax.Array:
    return model.code_logits(to_floats(items))


_compiled_logits = entry_point(in_full_batches(_logits))


def _extend(history: History, losses: np.ndarray, codes: np.ndarray, num_bits: int) -> History:
    statistics = bit_statistics(codes, num_bits)
    return History(
        (*history.loss, float(losses.mean())),
        (*history.entropy, float(statistics.entropy.mean())),
        (*history.num_codes, statistics.num_codes),
        (*history.dead_bits, len(statistics.dead_bits)),
    )
