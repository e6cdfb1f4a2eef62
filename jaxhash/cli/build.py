"""The command `build`: learns a collection from images or vectors, or updates one."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxhash.cli.build_checks import (
    BuildOptions,
    check_matches,
    check_moved,
    check_options,
    check_source,
    is_moved,
)
from jaxhash.cli.collection import PURPOSES, Changes, Collection, load_collection, save_collection, update_collection
from jaxhash.cli.embedder import SIDE as EMBEDDED_SIDE
from jaxhash.cli.embedder import Embedder, Embedding
from jaxhash.cli.embedding_cache import EmbeddingCache
from jaxhash.cli.outputs import check_output
from jaxhash.cli.settings import choose_settings
from jaxhash.cli.sources import Items, read_folder
from jaxhash.cli.terminal import StatusLine, escape_name
from jaxhash.cli.vectors import find_odd_rows, read_vectors
from jaxhash.index.building import build_index
from jaxhash.index.density import suggest_num_bits
from jaxhash.models.encoding import encode
from jaxhash.retriever import Retriever
from jaxhash.training.advice import CodeWarning
from jaxhash.training.epoch import History
from jaxhash.training.fitting import fit

SIDE = 32
ODD_ROWS_NAMED = 5
DUPLICATE_BITS = 64  # shorter codes make images equal that are only alike


def run_build(source: str, output: str, options: BuildOptions) -> None:
    """Builds the collection of a folder of images or a file of vectors, or updates it if `output` exists."""
    check_options(options)
    check_output(output, "collection", [source])
    old = load_collection(output) if Path(output).exists() and not options.retrain else None
    holds_images = check_source(source, options)
    if old is not None:
        check_matches(old, holds_images, options, output)
    if options.embedder is None:
        _build(source, output, old, options)
        return
    embedding = Embedding(options.embedder, options.side or (EMBEDDED_SIDE if old is None else old.side))
    embedder = Embedder(embedding, None if old is None else old.width)
    with _open_cache(output, embedding) as cache:
        _build(source, output, old, options, embedder, cache)
        cache.remove()


def _build(
    source: str,
    output: str,
    old: Collection | None,
    options: BuildOptions,
    embedder: Embedder | None = None,
    cache: EmbeddingCache | None = None,
) -> None:
    status = StatusLine()
    if Path(source).is_dir():
        items = _read_images(source, output, old, options, status, embedder, cache)
    else:
        items = _read_vectors(source, old)
    if old is None:
        new, changes = learn_collection(items, source, options, status), None
        new = replace(new, embedding=None if embedder is None else embedder.embedding)
    else:
        check_moved(old, items, source, output)
        new, changes = update_collection(old, items, source)
    status.clear()
    save_collection(output, new)
    _report(output, new, items, changes)
    if old is not None and is_moved(old, source):
        print(f"the source was {escape_name(old.source)}, and is now {escape_name(new.source)}")


def _open_cache(output: str, embedding: Embedding) -> EmbeddingCache:
    """Opens the cache beside the output, and prints how many images it holds and what is wrong with it."""
    cache = EmbeddingCache(output, embedding)
    for note in cache.notes:
        print(f"jaxhash: warning: {escape_name(note)}", file=sys.stderr)
    if len(cache):
        print(f"{len(cache):,} images were embedded before", file=sys.stderr)
    return cache


def _read_vectors(source: str, old: Collection | None) -> Items:
    items = read_vectors(source, {} if old is None else old.known_digests)
    if old is not None and items.values.shape[1] != old.width:
        raise ValueError(f"{source}: vectors of {items.values.shape[1]} values, where there were {old.width}")
    if old is None:
        _warn_of_odd_rows(source, items.values)
    return items


def _warn_of_odd_rows(source: str, vectors: np.ndarray) -> None:
    rows = find_odd_rows(vectors)
    if rows.size:
        named = ", ".join(map(str, rows[:ODD_ROWS_NAMED])) + ", ..." * (len(rows) > ODD_ROWS_NAMED)
        print(
            f"jaxhash: warning: {escape_name(source)}: {len(rows):,} of {len(vectors):,} rows are of one value or far "
            f"from all others, as fill values are: row {named}. Codes are better without them",
            file=sys.stderr,
        )


def _read_images(
    source: str,
    output: str,
    old: Collection | None,
    options: BuildOptions,
    status: StatusLine,
    embedder: Embedder | None,
    cache: EmbeddingCache | None,
) -> Items:
    """Reads a folder, and names the files that are skipped."""
    side = (options.side or SIDE) if old is None else old.side
    doing = "reading" if embedder is None else "embedding"
    items = read_folder(
        source,
        side if embedder is None else embedder.embedding.side,
        {} if old is None else old.known_digests,
        embedder=embedder,
        cache=cache,
        strict=options.strict,
        output=output,
        on_progress=lambda done, total: status.update(f"{doing} {done:,} of {total:,} files"),
    )
    status.clear()
    for skipped in items.skipped:
        print(f"skipped {escape_name(skipped.name)}: {escape_name(skipped.reason)}", file=sys.stderr)
    if not items.names:
        raise ValueError(f"{source}: no image in it that can be read")
    return items


def learn_collection(items: Items, source: str, options: BuildOptions, status: StatusLine) -> Collection:
    """Trains a model on all items of a source and encodes them.

    Raises:
        DivergenceError: as `fit` does.
    """
    values, source = items.values, str(Path(source).absolute())
    purpose = options.purpose or PURPOSES[0]
    finds_duplicates = purpose == "duplicates"
    num_bits = options.num_bits or (DUPLICATE_BITS if finds_duplicates else suggest_num_bits(len(values)))
    settings = choose_settings(values, num_bits, finds_duplicates=finds_duplicates)
    epochs = options.epochs or settings.epochs
    status.update("learning: views of all images first, half of the work" if settings.model.makes_views else "learning")
    with _print_code_warnings("images" if values.ndim == 4 else "vectors"):
        model, _ = fit(
            settings.model,
            values,
            epochs=epochs,
            batch_size=settings.batch_size,
            objective=settings.objective,
            on_epoch=_make_epoch_callback(epochs, status),
        )
    retriever = Retriever(model, build_index(encode(model, values), num_bits))
    ids = np.arange(len(values), dtype=np.int32)
    return Collection(retriever, source, ids, tuple(items.names), items.digests, purpose=purpose)


def _make_epoch_callback(epochs: int, status: StatusLine) -> Callable[[int, History], None]:
    """Makes a callback that shows each epoch in the status line."""
    return lambda epoch, history: status.update(f"learning: epoch {epoch:,} of {epochs:,}, loss {history.loss[-1]:.4f}")


@contextmanager
def _print_code_warnings(kind: str) -> Iterator[None]:
    """Prints each `CodeWarning` of `fit` as one line, with the items called by their kind: `fit` says images."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CodeWarning)
        yield
    for warning in caught:
        print(f"jaxhash: warning: {str(warning.message).replace('images', kind)}", file=sys.stderr)


def _report(output: str, new: Collection, items: Items, changes: Changes | None) -> None:
    """Prints what the collection holds now, what changed, and how many files were skipped."""
    kind, index = ("images" if new.holds_images else "vectors"), new.retriever.index
    print(
        f"{escape_name(output)}: {int(index.num_items):,} {kind} on {int(index.num_codes):,} codes of "
        f"{index.num_bits} bits"
    )
    if changes is not None:
        print(f"{changes.added:,} new, {changes.changed:,} changed, {changes.removed:,} gone; the rest as it was")
    if items.skipped:
        print(f"{len(items.skipped):,} skipped")
