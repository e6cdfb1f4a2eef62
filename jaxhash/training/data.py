"""Training data: an array, or a stream of batches that is iterated once per epoch.

Items are grouped into runs, each shuffled and searched for positives separately. An array is one run of any size, and
can be memory-mapped. A stream can be larger than memory and is split into runs of about `BYTES_IN_RUN`. A stream of a
single run trains like an array.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxhash.core.checks import is_stream, is_traced
from jaxhash.models.encoder import Encoder
from jaxhash.models.inputs import check_training_items
from jaxhash.training.advice import warn_if_sorted, warn_of_lost_quality
from jaxhash.training.objectives import Objective
from jaxhash.training.positives import Positives

BYTES_IN_RUN = 2**27

# A smaller array, features included, is sent to the device once and stays there while `fit` runs.
BYTES_ON_DEVICE = 2**30
# Other items are sent in parts of at most this size. So is a larger memory-mapped array, which bounds how much of it is
# in memory at a time.
BYTES_PER_CHUNK = 2**28

# Size of the random sample that fixes the final mean of the code logits. Evenly spaced items would not do: odd and even
# rows of MNIST come from different writers, and their means differ by half a standard deviation.
ITEMS_IN_SAMPLE = 2**16

ROWS_IN_FINGERPRINT = 256


class Run(NamedTuple):
    """Items that are shuffled together.

    Items and features are JAX arrays if they stay on the device, else numpy arrays. The next run of a stream overwrites
    the items.
    """

    items: Any  # [m, ...]; with several views [m * num_views, ...], the views of an item in consecutive rows
    positives: Positives | None
    num_views: int = 1  # each step draws one for an item and one for its positive

    @property
    def num_items(self) -> int:
        """The number of items, `m`."""
        return len(self.items) // self.num_views


class TrainingData:
    """Training items, in runs, with summary statistics.

    Attributes:
        count: number of items; of an iterator, of those consumed so far.
        low: minimum of these items; infinity for bytes.
        high: maximum of these items; minus infinity for bytes.
        num_items: number of items in an epoch; `None` for an iterator.
        sample_rows: `[s, ...]`, items that identify the data in a checkpoint.
    """

    def __init__(
        self,
        model: Encoder,
        images: ArrayLike | Iterable[ArrayLike],
        objective: Objective,
        batch_size: int,
        seed: int,
    ):
        self.count, self.low, self.high = 0, math.inf, -math.inf
        self._model, self._objective, self._seed = model, objective, seed
        self._rng = np.random.default_rng(seed)
        self._kept: np.ndarray = np.zeros((0, 0), np.uint8)
        self._start_epoch: Callable[[], Iterator[Run]]
        if is_stream(images):
            self._init_stream(images, batch_size)
        else:
            self._init_array(cast(ArrayLike, images))
        self.num_items = None if isinstance(images, Iterator) else self.count
        warn_of_lost_quality(self.sample, objective.warp is not None, stacklevel=3)

    @property
    def sample(self) -> np.ndarray:
        """All items consumed so far, or a random sample of them: `[s, ...]`."""
        return self._kept[: self.count]

    def runs(self) -> Iterator[Run]:
        """Iterates over the runs of one epoch."""
        count = 0
        for run in self._start_epoch():
            count += run.num_items
            yield run
        if count != self.count:
            raise ValueError(f"images held {self.count} items when first iterated, but {count} in an epoch")

    def _init_array(self, images: ArrayLike) -> None:
        items = _check_images(self._model, images)
        if not len(items):
            raise ValueError(f"images must hold at least one image, got shape {np.shape(images)}")
        self.count = len(items)
        self._extend_range(items)
        all_fit = len(items) <= ITEMS_IN_SAMPLE
        self._kept = items if all_fit else items[self._rng.choice(len(items), ITEMS_IN_SAMPLE, replace=False)]
        self.sample_rows = choose_rows(items)
        limit = BYTES_PER_CHUNK if isinstance(images, np.memmap) else BYTES_ON_DEVICE
        run = send_if_small(Run(items, self._find_positives(items)), limit)
        self._start_epoch = lambda: iter([run])

    def _init_stream(self, images: Iterable[Any], batch_size: int) -> None:
        """Summarizes a stream by iterating it once; of an iterator, consumes the first run."""
        if isinstance(images, Iterator):
            runs = merge_batches(map(self._add, self._check_batches(images)), batch_size)
            first = next(runs, self.sample)
            epoch = chain([first], runs)
            start: Callable[[], Iterator[np.ndarray]] = lambda: epoch  # noqa: E731
        else:
            for items in self._check_batches(images):
                self._add(items)
            if self.count * self._kept[:1].nbytes > BYTES_IN_RUN and self.count > len(self._kept):
                warn_if_sorted(self._first_mean, len(self._kept), self.sample, stacklevel=4)
            start = lambda: merge_batches(self._check_batches(images), batch_size)  # noqa: E731
        if not self.count:
            raise ValueError("images must contain at least one batch; an iterator can be iterated only once")
        self.sample_rows = choose_rows(self.sample)
        self._start_epoch = lambda: (Run(items, self._find_positives(items)) for items in start())

    def _check_batches(self, images: Iterable[Any]) -> Iterator[np.ndarray]:
        for batch in images:
            items = _check_images(self._model, batch)
            known = self.sample if self.count else items
            if (items.dtype, items.shape[1:]) != (known.dtype, known.shape[1:]):
                raise ValueError(
                    f"images must have one dtype and shape in all batches, but {items.dtype}{items.shape[1:]} came "
                    f"after {known.dtype}{known.shape[1:]}"
                )
            yield items

    def _add(self, items: np.ndarray) -> np.ndarray:
        """Adds items to the statistics and to a uniform random sample, and returns them.

        Algorithm R of Vitter 1985, "Random sampling with a reservoir". The sample takes no more memory than a run.
        """
        if not self.count:
            capacity = min(ITEMS_IN_SAMPLE, max(1, BYTES_IN_RUN // max(1, items[:1].nbytes)))
            self._kept = np.empty((capacity, *items.shape[1:]), items.dtype)
        free = len(self._kept) - self.count
        if 0 <= free < len(items):  # later items replace earlier ones
            self._first_mean = np.concatenate([self.sample, items[:free]]).mean(axis=0, dtype=np.float64)
        number = np.arange(self.count, self.count + len(items))
        drawn = (self._rng.random(len(items)) * (number + 1)).astype(np.int64)
        slot = np.where(number < len(self._kept), number, drawn)
        kept = slot < len(self._kept)
        self._kept[slot[kept]] = items[kept]  # of two items in one slot, the later one stays
        self.count += len(items)
        self._extend_range(items)
        return items

    def _extend_range(self, items: np.ndarray) -> None:
        if len(items) and items.dtype not in (np.uint8, np.bool_):
            self.low, self.high = min(self.low, float(items.min())), max(self.high, float(items.max()))

    def _find_positives(self, items: np.ndarray) -> Positives | None:
        return check_positives(self._objective.find_positives(items, self._seed), len(items))


def split_run(
    run: Run, batch_size: int, rng: np.random.Generator
) -> Iterator[tuple[tuple[Any, Any], tuple[np.ndarray, ...], int]]:
    """Shuffles a run and splits it into parts of equal length, each at most `BYTES_PER_CHUNK`.

    The last batches are filled up by repeating the first items of the order.

    Yields:
        Tables of items `[t, ...]` and of features `[t, p]` or `None`, on the device if they stay there; table rows of
        the items of each batch, and of their positives if any, int32 `[steps, batch_size]`; and the number of items
        that are not repetitions.
    """
    num_items, positives = run.num_items, run.positives
    steps = -(-num_items // batch_size)
    parts = -(-steps * batch_size * max(1, _bytes_of_row(run)) // BYTES_PER_CHUNK)
    fresh = num_items
    for order in np.resize(rng.permutation(num_items), (parts, -(-steps // parts), batch_size)):
        rows = [order]
        if positives is not None:
            drawn = rng.integers(positives.indices.shape[1], size=order.shape)
            rows.append(positives.indices[order, drawn])
        if run.num_views > 1:
            rows = [part * run.num_views + rng.integers(run.num_views, size=part.shape) for part in rows]
        yield *_gather_unless_sent(run, rows), min(fresh, order.size)
        fresh -= min(fresh, order.size)


def _gather_unless_sent(run: Run, rows: list[np.ndarray]) -> tuple[tuple[Any, Any], tuple[np.ndarray, ...]]:
    """Returns tables of the given rows, and their positions in these; the whole run if it is on the device."""
    items, positives, _ = run
    features = None if positives is None else positives.features
    if isinstance(items, jax.Array):
        return (items, features), tuple(part.astype(np.int32) for part in rows)
    tables = items[np.concatenate(rows, axis=None)], None if features is None else features[rows[0].ravel()]
    return tables, tuple(np.arange(len(tables[0]), dtype=np.int32).reshape(-1, *rows[0].shape))


def _bytes_of_row(run: Run) -> int:
    """Computes the bytes of an item in a part, including its positive and features."""
    items, positives, _ = run
    if positives is None:
        return items.nbytes // len(items)
    features = 0 if positives.features is None else positives.features.nbytes
    return (2 * items.nbytes + features) // len(items)


def send_if_small(run: Run, limit: int = BYTES_ON_DEVICE) -> Run:
    """Sends items and features to the device if they take at most `limit` bytes."""
    items, positives, num_views = run
    features = None if positives is None else positives.features
    if items.nbytes + (0 if features is None else features.nbytes) > limit:
        return run
    sent = positives and positives._replace(features=jax.device_put(features))
    return Run(jax.device_put(items), sent, num_views)


def merge_batches(batches: Iterable[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    """Merges batches `[m, ...]` of any m into runs of a multiple of `batch_size` items, except the last.

    The last run has at least `batch_size` items, if available: a step on a smaller batch has a noisy gradient.
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


def _check_images(model: Encoder, images: ArrayLike) -> np.ndarray:
    """Checks items and returns them as `[n, h, w, c]` if they are images, else as `[n, d]`."""
    if is_traced(images):
        raise TypeError("fit compiles its own epochs and cannot be traced: call it outside jit")
    items, item_shape = check_training_items(model, images)
    shape = model.image_shape or item_shape
    if len(shape) == 2:
        shape = (*shape, 1)
    return items.reshape(len(items), *(shape if len(shape) == 3 else (math.prod(shape),)))


def check_positives(positives: Positives | None, num_items: int) -> Positives | None:
    """Checks the positives that an objective returned for `num_items` items."""
    if positives is None:
        return None
    if not isinstance(positives, Positives):
        raise TypeError(f"find_positives must return a Positives or None, got {type(positives).__name__}")
    indices, features = positives
    if indices.dtype.kind not in "iu" or indices.ndim != 2 or len(indices) != num_items or not indices.size:
        raise ValueError(
            f"indices of positives must be integers [{num_items}, k], got {indices.dtype}{list(indices.shape)}"
        )
    if indices.min() < 0 or indices.max() >= num_items:
        raise ValueError(f"indices of positives must lie in [0, {num_items}), got {indices.min()} to {indices.max()}")
    if features is not None and (features.ndim != 2 or len(features) != num_items):
        raise ValueError(f"features must have shape [{num_items}, p], got {list(features.shape)}")
    return positives


def choose_rows(items: np.ndarray) -> np.ndarray:
    """Selects evenly spaced items that identify the data in a checkpoint."""
    return items[:: -(-len(items) // ROWS_IN_FINGERPRINT)]
