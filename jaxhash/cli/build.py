"""The command `build`: checks before long work, progress while it goes on, and a report of what was done."""

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jaxhash.cli.collection import Collection, load_collection, save_collection
from jaxhash.cli.images import check_pillow
from jaxhash.cli.learn import Changes, new_collection, updated
from jaxhash.cli.page import printable
from jaxhash.cli.sources import Items, read_folder, read_vectors
from jaxhash.core.checks import check_integer, check_num_bits
from jaxhash.index.density import describe
from jaxhash.training.epoch import History
from jaxhash.training.fitting import CodeWarning

SIDE = 32


class Learning(NamedTuple):
    """How a new collection is to be made; `None` stands for a choice by the number of items."""

    num_bits: int | None = None
    side: int | None = None
    epochs: int | None = None


class Progress:
    """A line on the terminal that is written over; silent where stderr is no terminal."""

    def __init__(self) -> None:
        self.shown, self.last = sys.stderr.isatty(), 0.0

    def __call__(self, text: str, *, now: bool = False) -> None:
        """Shows a text, unless one was shown a moment ago."""
        if self.shown and (now or time.monotonic() - self.last > 0.1):
            self.last = time.monotonic()
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def run_build(source: str, output: str, learning: Learning, *, retrain: bool = False, strict: bool = False) -> None:
    """Makes a collection of a folder of images or a file of vectors; or, of one that is there, brings it up to date."""
    _check_learning(learning)
    check_target(output)
    old = load_collection(output) if Path(output).exists() and not retrain else None
    images = _is_folder(source)
    if old is not None:
        _check_same(old, images, learning, output)
    progress = Progress()
    items = _read(source, images, old, learning, strict, progress)
    if old is not None:
        new, changes = updated(old, items, source)
    else:
        with _told_of_idle_bits():
            new = new_collection(items, source, learning.num_bits, learning.epochs, _on_epoch(progress))
        changes = None
    progress("", now=True)
    save_collection(output, new)
    _report_build(output, new, items, changes)


def _check_learning(learning: Learning) -> None:
    if learning.num_bits is not None:
        check_num_bits(learning.num_bits)
    if learning.side is not None:
        check_integer("side", learning.side, 1, 1024)
    if learning.epochs is not None:
        check_integer("epochs", learning.epochs, 1)


def check_target(path: str) -> None:
    """Raises now what would else come to light after minutes of learning."""
    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {folder}")
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path}: is a folder, expected the name of a file")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path}: no permission to write in {folder}")


def _is_folder(source: str) -> bool:
    if Path(source).is_dir():
        check_pillow()
        return True
    if not Path(source).exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if not source.endswith(".npy"):
        raise ValueError(f"{source}: expected a folder of images, or vectors in a .npy file")
    return False


def _check_same(old: Collection, images: bool, learning: Learning, output: str) -> None:
    """Raises unless an old collection is of the kind that is asked for."""
    kinds = {True: "images", False: "vectors"}
    model = old.retriever.model
    if old.holds_images != images:
        raise ValueError(f"{output} holds {kinds[old.holds_images]}, not {kinds[images]}; --retrain makes it anew")
    if learning.num_bits not in (None, model.num_bits):
        raise ValueError(f"{output} has codes of {model.num_bits} bits, not {learning.num_bits}; try --retrain")
    if images and learning.side not in (None, old.side):
        raise ValueError(f"{output} takes images at {old.side} pixels a side, not {learning.side}; try --retrain")


def _read(
    source: str, images: bool, old: Collection | None, learning: Learning, strict: bool, progress: Progress
) -> Items:
    known = {} if old is None else old.known
    if not images:
        items = read_vectors(source, known)
        if old is not None and items.values.shape[1] != old.side:
            raise ValueError(f"{source}: vectors of {items.values.shape[1]} values, where there were {old.side}")
        return items
    side = (learning.side or SIDE) if old is None else old.side
    items = read_folder(
        source,
        side,
        known,
        strict=strict,
        on_progress=lambda done, total: progress(f"reading {done:,} of {total:,} files"),
    )
    progress("", now=True)
    for skipped in items.skipped:
        print(f"skipped {printable(skipped.name)}: {printable(skipped.reason)}", file=sys.stderr)
    if not items.names:
        raise ValueError(f"{source}: no image in it that can be read")
    return items


def _on_epoch(progress: Progress) -> Callable[[int, int, History], None]:
    def show(epoch: int, epochs: int, history: History) -> None:
        progress(f"learning: epoch {epoch:,} of {epochs:,}, loss {history.loss[-1]:.4f}")

    return show


@contextmanager
def _told_of_idle_bits() -> Iterator[None]:
    """Says in one line what `fit` warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CodeWarning)
        yield
    for warning in caught:
        print(f"jaxhash: warning: {warning.message}", file=sys.stderr)


def _report_build(output: str, new: Collection, items: Items, changes: Changes | None) -> None:
    kind, skipped = ("images" if new.holds_images else "vectors"), len(items.skipped)
    stats = describe(new.retriever.index)
    print(
        f"{printable(output)}: {stats.num_items:,} {kind} on {stats.num_codes:,} codes of "
        f"{new.retriever.index.num_bits} bits"
    )
    if changes is not None:
        print(f"{changes.added:,} new, {changes.changed:,} changed, {changes.removed:,} gone; the rest as it was")
    if skipped:
        print(f"{skipped:,} skipped")
