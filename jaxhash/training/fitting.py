"""Training: from images to a model whose bits say what they show."""

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

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
from jaxhash.models.encoding import compute_bits, encode
from jaxhash.models.input_rule import make_trained_rule
from jaxhash.models.inputs import ITEMS_AT_ONCE, check_items, check_model, narrow_floats, to_floats
from jaxhash.models.word_counts import mean_length
from jaxhash.training.checkpoints import Progress, load_progress, save_progress, settings_of
from jaxhash.training.epoch import Course, History, Seen, State, run_epoch
from jaxhash.training.feed import Feed, feed_of
from jaxhash.training.objectives import Objective, item_losses, objective_named

Path = str | os.PathLike[str]

# Of fewer images, different bits may agree by chance.
ITEMS_TO_TELL_COPIES = 100


class DivergenceError(FloatingPointError):
    """The training loss became infinite or not a number.

    Attributes:
        model: as it was after the last good epoch; `None` if unknown.
        history: of the good epochs.
    """

    def __init__(self, message: str, model: Autoencoder | None = None, history: History | None = None):
        super().__init__(message)
        self.model = model
        self.history = History() if history is None else history


class CheckpointError(OSError):
    """A checkpoint could not be written; what was learned is not lost.

    Attributes:
        model: as it was at the end of the epoch that should have been saved.
        history: up to then.
    """

    def __init__(self, error: OSError, model: Autoencoder, history: History):
        super().__init__(error.errno, error.strerror, error.filename)
        self.model, self.history = model, history


class CodeWarning(UserWarning):
    """A trained model's bits are not all of use."""


def fit(
    model: Autoencoder,
    images: ArrayLike | Iterable[ArrayLike],
    *,
    epochs: int,
    batch_size: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    seed: int = 0,
    on_epoch: Callable[[int, History], None] | None = None,
    objective: str | Objective = "reconstruct",
    binarization: str = "rounding",
    checkpoint: Path | None = None,
) -> tuple[Autoencoder, History]:
    """Trains a model so that its bits say what an image shows.

    Each epoch goes through the images in a new random order. If their number is no multiple of the batch size, the
    last batch is filled up with the first images of that order, so that none is left out. In the last of several epochs
    of "reconstruct" the code logits are standardised by a mean and spread that stay, as they do after training.

    A collection that is larger than memory can be an array that is mapped from a file, of which some steps' images are
    read at a time (but float16 and float64 are copied whole, and "retrieve" keeps some 400 bytes for each image). Or it
    can be a stream: an iterable of batches, such as a data loader. It is gone through once to count the images and to
    choose some for statistics, and then once in each epoch, in runs of 128 MiB. Images are shuffled within a run, and
    their neighbours found there, so a stream should not come sorted. One of a single run and up to 2^16 images that
    comes in the same order each time trains as an array does. What an epoch keeps beside a run are the codes.

    Args:
        model: an autoencoder; it stays as it is.
        images: `[n, ...]`, as for `encode`. Items of two or three axes are images, `[h, w]` or `[h, w, c]`. Or an
            iterable of such arrays, all of one dtype. An iterator, such as a generator, can be gone through only once,
            so that it is for a single epoch without a checkpoint.
        epochs: how often to go through the images.
        batch_size: images in a step; at most n are used.
        optimizer: any Optax optimiser; by default `default_optimizer` for as many steps as there will be. How many an
            iterator makes is not known, and its learning rate stays as it is.
        seed: decides the order of the images and all that is random in the objective. One seed gives the same weights
            on the same machine.
        on_epoch: called after each epoch with its number, from 1, and the history so far.
        objective: "reconstruct", or "retrieve" for codes that are near where images are alike; or a `Reconstruct` or
            `Retrieve` with settings of your own.
        binarization: how the code layer comes to speak in bits while it is trained: by "rounding", by "gaussian_noise"
            that grows from epoch to epoch, or by "stochastic" bits (see `jaxhash.binarize`). `encode` always rounds.
        checkpoint: a file to write at the end of each epoch. If it is there already, training goes on from it, with
            the file's weights in place of the model's, and ends as if it had not been interrupted; with a stream, if
            that brings the same images in the same order each time.

    Returns:
        A trained model, and the `History`.

    Raises:
        ValueError: there are no images, an image is not fit for the model, or an argument is out of range; an iterator
            would have to be gone through again, or a stream brings more or fewer images in an epoch than at first.
        TypeError: an argument is of the wrong kind.
        DivergenceError: the loss stopped being finite; the error holds the model as it was before that epoch.
        CheckpointError: the checkpoint can't be written; the old one is untouched, and the error holds the model.
        CorruptFileError: the checkpoint is damaged; with other settings than these, it is a `ValueError`.

    Warns:
        CodeWarning: bits are the same for all images, or copies of one another.
    """
    check_model(model)
    epochs = check_integer("epochs", epochs, 1)
    batch_size = check_integer("batch_size", batch_size, 1)
    check_integer("seed", seed, 0, maximum=2**32 - 1)
    objective = objective_named(objective, model.num_bits)
    check_binarization(binarization)
    if epochs > 1 or checkpoint is not None:
        _check_repeatable(images)

    feed = feed_of(model, images, objective, batch_size, seed)
    batch_size = min(batch_size, feed.survey.count)
    if optimizer is None:
        optimizer = default_optimizer(feed.num_items and epochs * -(-feed.num_items // batch_size))
    course, state = _started(nnx.clone(model), optimizer, objective, feed, batch_size, seed, binarization)
    start = Progress(0, state, make_batch_statistics(model.num_bits), History())
    settings = settings_of(model, course, state, epochs)
    progress = start if checkpoint is None else load_progress(checkpoint, settings, start)
    while progress.epoch < epochs:
        progress = _next(course, progress, epochs)
        if checkpoint is not None:
            _save(checkpoint, settings, course, progress)
        if on_epoch is not None:
            on_epoch(progress.epoch, progress.history)
    trained = _finished(course, progress)
    _warn_of_idle_bits(trained, feed.survey.sample)
    return trained, progress.history


def _started(
    model: Autoencoder,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    feed: Feed,
    batch_size: int,
    seed: int,
    binarization: str,
) -> tuple[Course, State]:
    """Makes a model ready to learn, and changes it."""
    mean = feed.survey.sample.mean(axis=0, dtype=np.float64)
    model.init_output_bias(mean / (255 if feed.survey.sample.dtype == np.uint8 else 1))
    graph, *parts = nnx.split(model, nnx.Param, ...)
    weights, rest = parts
    course = Course(graph, rest, optimizer, objective, feed, batch_size, seed, binarization)
    return course, State(weights, optimizer.init(weights))


def _check_repeatable(images: Any) -> None:
    if is_stream(images) and isinstance(images, Iterator):
        raise ValueError(
            "images must be something that can be gone through again, for several epochs or with a checkpoint; got an "
            f"iterator ({type(images).__name__}): give an array, a data loader, or an object whose __iter__ starts anew"
        )


def _next(course: Course, progress: Progress, epochs: int) -> Progress:
    """Trains for an epoch; the last of several may hold to the statistics that the code logits have before it."""
    epoch = progress.epoch + 1
    hold = course.objective.holds_statistics and epoch == epochs > 1
    statistics = (
        _statistics(_merged(course, progress.state), course.feed.survey.sample) if hold else progress.statistics
    )
    noise = jnp.asarray(compute_noise(epoch, epochs), jnp.float32)
    state, seen = run_epoch(course, progress.state, CodeLayer(statistics, noise, course.binarization), epoch)
    finite = np.isfinite(seen.losses)
    if not finite.all():
        step = int(np.argmin(finite))
        raise DivergenceError(
            f"the loss became {seen.losses[step]} in epoch {epoch}, step {step + 1}: try a smaller learning rate",
            _finished(course, progress),
            progress.history,
        )
    return Progress(epoch, state, statistics, _extended(progress.history, seen, len(statistics.mean)))


def _save(path: Path, settings: dict[str, Any], course: Course, progress: Progress) -> None:
    try:
        save_progress(path, settings, progress)
    except OSError as error:
        raise CheckpointError(error, _finished(course, progress), progress.history) from error


@functools.cache
def default_optimizer(steps: int | None) -> optax.GradientTransformation:
    """Nadam with 5 % of the steps to warm up, then a cosine down to zero. One object for each number of steps.

    If their number is not known, it takes steps of half the greatest rate. A new optimiser is a new static argument,
    for which the epoch would be compiled again.
    """
    if steps is None:
        return optax.nadam(1e-3, b2=0.99)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, warmup_steps=steps // 20, decay_steps=steps)
    return optax.nadam(schedule, b2=0.99)


def _merged(course: Course, state: State) -> Autoencoder:
    return nnx.merge(course.graph, state.weights, course.rest)


def _finished(course: Course, progress: Progress) -> Autoencoder:
    """The model of an epoch's end, with the mean of the code logits that it was trained to or has now."""
    trained, survey = _merged(course, progress.state), course.feed.survey
    mean = (progress.statistics if progress.statistics.held else _statistics(trained, survey.sample)).mean
    # New variables, since `rest` still holds those of the given model.
    trained.logit_mean = nnx.BatchStat(mean)
    rule = make_trained_rule(trained.output_activation, survey.sample.dtype, survey.low, survey.high)
    trained.input_rule = nnx.BatchStat(jnp.asarray(rule))
    return trained


def _statistics(model: Autoencoder, sample: np.ndarray) -> LogitStatistics:
    """The mean and variance of the code logits over a sample, to be held to."""
    items = sample.reshape(len(sample), *model.input_shape)
    logits = np.asarray(in_batches(lambda batch: _compiled_logits(model, batch), items, ITEMS_AT_ONCE))
    mean, variance = (getattr(logits, name)(axis=0, dtype=np.float64).astype(np.float32) for name in ("mean", "var"))
    return LogitStatistics(jnp.asarray(mean), jnp.asarray(variance), jnp.asarray(True))


def _logits(model: Autoencoder, items: jax.Array) -> jax.Array:
    return model.code_logits(to_floats(items))


def _extended(history: History, seen: Seen, num_bits: int) -> History:
    statistics = bit_statistics(seen.codes, num_bits)
    return History(
        (*history.loss, float(seen.losses.mean())),
        (*history.entropy, float(statistics.entropy.mean())),
        (*history.num_codes, statistics.num_codes),
        (*history.dead_bits, len(statistics.dead_bits)),
    )


def _warn_of_idle_bits(model: Autoencoder, sample: np.ndarray) -> None:
    statistics = bit_statistics(encode(model, sample), model.num_bits)
    dead = len(statistics.dead_bits)
    copied = len(statistics.duplicated_bits) if len(sample) >= ITEMS_TO_TELL_COPIES else 0
    if dead or copied:
        warnings.warn(
            f"of {model.num_bits} bits {dead} are the same for all images and {copied} pairs are copies of each other "
            f"({statistics.num_codes} distinct codes for {len(sample)} images): try fewer bits, more or more varied "
            "images, more epochs or a smaller learning rate",
            CodeWarning,
            stacklevel=3,
        )


def reconstruction_loss(model: Autoencoder, images: ArrayLike) -> float:
    """The mean loss over all values of all images, with the codes that `encode` gives.

    Binary cross-entropy (natural logarithm) for sigmoid outputs, squared error for others; for softmax outputs the
    cross-entropy of all words, averaged over these.
    """
    items, _, _ = check_items(model, images)
    losses = in_batches(lambda batch: _compiled_losses(model, narrow_floats(batch)), items, ITEMS_AT_ONCE)
    loss = float(np.asarray(losses).mean(dtype=np.float64))
    return loss / float(mean_length(items)) if model.output_activation == "softmax" else loss


def _losses(model: Autoencoder, items: jax.Array) -> jax.Array:
    inputs = to_floats(items)
    return item_losses(model, model.output_logits(compute_bits(model, inputs).astype(jnp.float32)), inputs)


_compiled_logits = entry_point(_logits)
_compiled_losses = entry_point(_losses)
