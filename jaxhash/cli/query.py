"""The commands that ask a collection: `query`, `duplicates` and `info`. Answers go to stdout, all else to stderr."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxhash.cli.build import check_target
from jaxhash.cli.collection import Collection, load_collection
from jaxhash.cli.gallery import Found, check_gallery, gallery
from jaxhash.cli.images import ImageError, careful_pillow, read_image
from jaxhash.cli.page import printable
from jaxhash.cli.sources import load_vectors
from jaxhash.core.checks import check_integer
from jaxhash.files.archive import read_archive
from jaxhash.files.atomic import replacing
from jaxhash.index.density import describe
from jaxhash.index.file import load_index
from jaxhash.index.hash_index import HashIndex
from jaxhash.models.autoencoder import Autoencoder
from jaxhash.models.file import load_model
from jaxhash.query.nearest import radius_search, search
from jaxhash.query.pairs import duplicate_groups
from jaxhash.retriever import load_retriever
from jaxhash.training.checkpoints import training_state

NEIGHBOURS = 10


def run_query(
    path: str, items: Sequence[str], *, k: int | None = None, radius: int | None = None, output: str | None = None
) -> None:
    """Prints distance and path of the items nearest to each of some, or of all within a radius.

    Args:
        path: the file of a collection.
        items: paths of images; of vectors, row numbers or .npy files.
        k: how many to find, `NEIGHBOURS` by default.
        radius: if given, all within it are found instead.
        output: where to write a gallery, .html or .png.
    """
    if output is not None:
        check_gallery(output)
        check_target(output)
    collection = load_collection(path)
    if output is not None and not collection.holds_images:
        raise ValueError(f"{path} holds vectors, of which there is nothing to see: leave out --gallery")
    labels, codes = _queries(collection, items)
    index = collection.retriever.index
    answers = (
        _nearest(index, codes, NEIGHBOURS if k is None else k) if radius is None else _within(index, codes, radius)
    )
    results = [
        Found(label, distances.tolist(), collection.paths_of(ids))
        for label, (distances, ids) in zip(labels, answers, strict=True)
    ]
    _print_results(results)
    if output is not None:
        with replacing(output) as file:
            file.write(gallery(output, results, f"Found in {printable(Path(path).name)}"))


def _queries(collection: Collection, items: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Names of queries, and their codes uint32 `[q, w]`."""
    if collection.holds_images:
        with careful_pillow():
            pixels = [_pixels(item, collection.side) for item in items]
        return list(items), np.asarray(collection.encode(np.stack(pixels)))
    parts = [_vector_queries(collection, item) for item in items]
    return [label for labels, _ in parts for label in labels], np.concatenate([codes for _, codes in parts])


def _pixels(path: str, side: int) -> np.ndarray:
    try:
        return np.asarray(read_image(path, side)[1])
    except ImageError as error:
        raise ValueError(f"{path}: {error}") from None


def _vector_queries(collection: Collection, item: str) -> tuple[list[str], np.ndarray]:
    """The codes of a row of the collection, or of the vectors in a file."""
    if item.isascii() and item.isdecimal():
        return [item], collection.codes_of([int(item)])
    if not item.endswith(".npy"):
        raise ValueError(f"{item}: expected the number of a row, or a .npy file")
    vectors = load_vectors(item)
    if vectors.ndim not in (1, 2) or vectors.shape[-1] != collection.side:
        raise ValueError(f"{item}: expected vectors of {collection.side} values, got shape {vectors.shape}")
    rows = vectors.reshape(-1, collection.side)
    labels = [item] if vectors.ndim == 1 else [f"{item} row {row}" for row in range(len(rows))]
    return labels, np.asarray(collection.encode(rows))


def _nearest(index: HashIndex, codes: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    k = min(check_integer("k", k, 1), int(index.num_items))
    return list(zip(*map(np.asarray, search(index, codes, k=k)), strict=True))


def _within(index: HashIndex, codes: np.ndarray, radius: int) -> list[tuple[np.ndarray, np.ndarray]]:
    matches = radius_search(index, codes, radius=radius)
    ends = matches.offsets[1:-1]
    return list(zip(np.split(matches.distances, ends), np.split(matches.ids, ends), strict=True))


def _print_results(results: Sequence[Found]) -> None:
    """Distance, tab, path; where there are several queries, each under its name."""
    for place, found in enumerate(results):
        if len(results) > 1:
            print(("\n" if place else "") + f"{printable(found.query)}:")
        for distance, path in zip(found.distances, found.paths, strict=True):
            print(f"{distance}\t{printable(path)}")


def run_duplicates(path: str, radius: int) -> None:
    """Prints groups of near duplicates, one path a line, an empty line after each; the largest group first."""
    collection = load_collection(path)
    groups = duplicate_groups(collection.retriever.index, radius)
    for members in groups:
        print(*map(printable, collection.paths_of(members)), sep="\n", end="\n\n")
    count = sum(map(len, groups))
    print(f"{len(groups):,} groups, with {count:,} of {len(collection.ids):,} items", file=sys.stderr)


def run_info(path: str) -> None:
    """Prints what a file of ours holds: a word, a tab, and what there is of it."""
    archive = read_archive(path)
    if archive.kind == "training":
        epoch, epochs, loss = training_state(path, archive)
        print(f"holds\ttraining\nepochs\t{epoch} of {epochs}\nloss\t{loss:.4f}")
        return
    collection, model, index = _parts(path, archive.kind)
    print(f"holds\t{archive.kind}")
    if collection is not None:
        print(f"source\t{'images' if collection.holds_images else 'vectors'} of {printable(collection.source)}")
    if index is not None:
        stats = describe(index)
        print(f"{'pairs of code and id' if index.multi else 'items'}\t{stats.num_items:,}")
        print(f"codes\t{stats.num_codes:,} distinct ones of {index.num_bits} bits")
        print(f"items on a code\t{stats.mean_density:.2f} on average, {stats.max_density:,} at most")
    if model is not None:
        shape = "x".join(map(str, model.input_shape))
        print(f"model\t{type(model).__name__} of {shape} values to {model.num_bits} bits")


def _parts(path: str, kind: str) -> tuple[Collection | None, Autoencoder | None, HashIndex | None]:
    if kind == "collection":
        collection = load_collection(path)
        return collection, collection.retriever.model, collection.retriever.index
    if kind == "retriever":
        retriever = load_retriever(path)
        return None, retriever.model, retriever.index
    return (None, None, load_index(path)) if kind.startswith("index") else (None, load_model(path), None)
