"""What training is fed with: an array, or a stream of batches that is gone through anew in each epoch.

Either way items come in runs, each of which is shuffled, and searched for neighbours, by itself. An array is one run,
however large: it may be mapped from a file. A stream, which may be larger than any memory, comes in runs of about
`BYTES_IN_RUN`; one that is no longer than that trains as an array does.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np
from jax.typing import ArrayLike

from jaxhash.core.checks import is_stream, is_traced
from jaxhash.models.autoencoder import Autoencoder
from jaxhash.models.inputs import check_training_items
from jaxhash.training.objectives import Company, Objective

BYTES_IN_RUN = 2**27

# So many images, chosen at random, fix the mean of the code logits in the end. (Evenly spaced ones would not do:
# in MNIST the odd and the even rows come from different writers, and means differ by half a standard deviation.)
ITEMS_FOR_STATISTICS = 2**16

ROWS_IN_FINGERPRINT = 256


class Run(NamedTuple):
    """Items that are shuffled together. Those of a stream are in memory that the next run is written to."""

    items: np.ndarray  # [m, h, w, c] or [m, d]
    company: Company | None  # what stands beside the items in a batch


class Survey:
    """What is remembered of the items that have come by.

    Attributes:
        count: how many there were.
        low: the least of their values; of bytes, infinity.
        high: the greatest of their values; of bytes, minus infinity.
    """

    def __init__(self, seed: int):
        self.count, self.low, self.high = 0, math.inf, -math.inf
        self._rng = np.random.default_rng(seed)
        self._kept = np.zeros((0, 0), np.uint8)

    @property
    def sample(self) -> np.ndarray:
        """All items, or a random sample of them: `[s, ...]`."""
        return self._kept[: self.count]

    def whole(self, items: np.ndarray) -> None:
        """Takes note of an array that holds all items."""
        self.count = len(items)
        self._extend(items)
        few = len(items) <= ITEMS_FOR_STATISTICS
        self._kept = items if few else items[self._rng.choice(len(items), ITEMS_FOR_STATISTICS, replace=False)]

    def add(self, items: np.ndarray) -> None:
        """Takes note of more items; each has the same chance to stay in the sample, which fills a run at most.

        Algorithm R of Vitter 1985, "Random sampling with a reservoir".
        """
        if not self.count:
            room = min(ITEMS_FOR_STATISTICS, max(1, BYTES_IN_RUN // max(1, items[:1].nbytes)))
            self._kept = np.empty((room, *items.shape[1:]), items.dtype)
        number = np.arange(self.count, self.count + len(items))
        drawn = (self._rng.random(len(items)) * (number + 1)).astype(np.int64)
        place = np.where(number < len(self._kept), number, drawn)
        chosen = place < len(self._kept)
        self._kept[place[chosen]] = items[chosen]  # of two in one place, the later one stays
        self.count += len(items)
        self._extend(items)

    def _extend(self, items: np.ndarray) -> None:
        if len(items) and items.dtype not in (np.uint8, np.bool_):
            self.low, self.high = min(self.low, float(items.min())), max(self.high, float(items.max()))


class Feed(NamedTuple):
    """What training goes through."""

    runs: Callable[[], Iterator[Run]]  # those of one epoch
    survey: Survey  # of all items, but of an iterator only of those that have been taken from it
    num_items: int | None  # `None` of an iterator
    few: np.ndarray  # [f, ...], items to know the collection by


def feed_of(
    model: Autoencoder, images: ArrayLike | Iterable[ArrayLike], objective: Objective, batch_size: int, seed: int
) -> Feed:
    """The feed of what `fit` was given. A stream is gone through for this; of an iterator, the first run is taken."""
    survey = Survey(seed)
    if is_stream(images):
        feed = _iterator_feed if isinstance(images, Iterator) else _stream_feed
        return feed(_Batches(model, images, survey), objective, batch_size, seed)
    items = _checked(model, cast(ArrayLike, images))
    if not len(items):
        raise ValueError(f"images must hold at least one image, got shape {np.shape(cast(ArrayLike, images))}")
    survey.whole(items)
    run = Run(items, objective.company(items, seed))
    return Feed(lambda: iter([run]), survey, len(items), _few(items))


def _stream_feed(batches: "_Batches", objective: Objective, batch_size: int, seed: int) -> Feed:
    """The feed of what can be gone through again and again."""
    survey = batches.survey
    for items in batches:
        survey.add(items)
    _check_count(survey)

    def runs() -> Iterator[Run]:
        count = 0
        for items in joined(batches, batch_size):
            count += len(items)
            yield Run(items, objective.company(items, seed))
        if count != survey.count:
            raise ValueError(f"images brought {survey.count} items when first gone through, but {count} in an epoch")

    return Feed(runs, survey, survey.count, _few(survey.sample))


def _iterator_feed(batches: "_Batches", objective: Objective, batch_size: int, seed: int) -> Feed:
    """The feed of what can be gone through once; its survey grows as it is."""
    survey = batches.survey

    def noted(items: np.ndarray) -> np.ndarray:
        survey.add(items)
        return items

    runs = joined(map(noted, batches), batch_size)
    first = next(runs, survey.sample)
    _check_count(survey)
    return Feed(
        lambda: (Run(items, objective.company(items, seed)) for items in chain([first], runs)),
        survey,
        None,
        _few(survey.sample),
    )


@dataclass(frozen=True)
class _Batches:
    """A stream whose batches are checked as they come."""

    model: Autoencoder
    images: Iterable[Any]
    survey: Survey  # of what has come before

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self.images:
            items = _checked(self.model, batch)
            known = self.survey.sample if self.survey.count else items
            if (items.dtype, items.shape[1:]) != (known.dtype, known.shape[1:]):
                raise ValueError(
                    f"images must be of one dtype and shape in all batches, but {items.dtype}{items.shape[1:]} came "
                    f"after {known.dtype}{known.shape[1:]}"
                )
            yield items


def joined(batches: Iterable[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    """Joins batches `[m, ...]` of any m to runs that are multiples of `batch_size`, and a last one that is not.

    The last run has at least `batch_size` items if there are so many, since a step on fewer would be a poor one.
    """
    held, filled, length = np.zeros(0), 0, 0
    for batch in batches:
        if not length and len(batch):
            length = batch_size * max(1, BYTES_IN_RUN // (batch_size * max(1, batch[:1].nbytes)))
            held = np.empty((length + batch_size, *batch.shape[1:]), batch.dtype)
        start = 0
        while start < len(batch):
            more = batch[start : start + len(held) - filled]
            held[filled : filled + len(more)] = more
            start, filled = start + len(more), filled + len(more)
            if filled == len(held):
                yield held[:length]
                held[:batch_size] = held[length:]
                filled = batch_size
    if filled:
        yield held[:filled]


def _checked(model: Autoencoder, images: ArrayLike) -> np.ndarray:
    """Items as `[n, h, w, c]` if they are images, or `[n, d]`."""
    if is_traced(images):
        raise TypeError("fit compiles its own epochs and can't be traced: call it outside jit")
    items, item_shape = check_training_items(model, images)
    return items.reshape(len(items), *_image_shape(model.input_shape if len(model.input_shape) > 1 else item_shape))


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, 1) if len(shape) == 2 else shape if len(shape) == 3 else (math.prod(shape),)


def _check_count(survey: Survey) -> None:
    if not survey.count:
        raise ValueError("images must come in at least one batch; an iterator can only be gone through once")


def _few(items: np.ndarray) -> np.ndarray:
    return items[:: -(-len(items) // ROWS_IN_FINGERPRINT)]
