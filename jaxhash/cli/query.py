"""The commands `query` and `info`. Results go to stdout, all else to stderr."""

import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from jaxhash.cli.collection import PURPOSES, Collection, load_collection
from jaxhash.cli.embedder import Embedder, check_embedding
from jaxhash.cli.gallery import QueryResult, check_gallery, render_gallery
from jaxhash.cli.images import ImageError, guard_pillow, read_image
from jaxhash.cli.terminal import escape_name, print_name
from jaxhash.cli.vectors import load_vectors, name_items, read_rows
from jaxhash.codes.weights import weigh_queries
from jaxhash.core.checks import check_integer
from jaxhash.files.archive import read_archive
from jaxhash.files.atomic import replace_file
from jaxhash.index.density import describe
from jaxhash.index.file import load_index
from jaxhash.index.hash_index import HashIndex
from jaxhash.models.encoder import Encoder
from jaxhash.models.encoding import encode_weighted
from jaxhash.models.file import load_model
from jaxhash.query.nearest import find_nearest
from jaxhash.query.plan import LIMITS
from jaxhash.query.radius import radius_search
from jaxhash.retriever import load_retriever
from jaxhash.training.checkpoints import read_progress

NEIGHBORS = 10
# This process makes one search, so each call of a program compiles it.
ONE_SEARCH = LIMITS._replace(program=1e9)


def run_query(
    path: str,
    items: Sequence[str],
    *,
    k: int | None = None,
    radius: int | None = None,
    output: str | None = None,
    embedder: str | None = None,
    null: bool = False,
) -> None:
    """Prints the distances and paths of the items nearest to each query.

    The nearest are those by weighted distance, in that order; printed is the number of bits that differ.

    Args:
        path: the file of a collection.
        items: the queries: paths of images; for vectors, row numbers or `.npy` files.
        k: the number of items to find; by default `NEIGHBORS`.
        radius: if given, all items within it are found instead.
        output: the path of a gallery to write, `.html` or `.png`.
        embedder: the function by which the collection was built, if it was built by one.
        null: whether lines end in NUL characters.
    """
    if output is not None:
        check_gallery(output, [path, *items])
    collection = load_collection(path)
    if output is not None and not collection.holds_images:
        raise ValueError(f"{path} holds vectors, which have no pictures: leave out --gallery")
    check_embedding(path, collection.embedding, embedder)
    labels, codes, weights = _encode_queries(collection, items)
    if radius is None:
        found = _find_nearest(collection, codes, weights, NEIGHBORS if k is None else k)
    else:
        found = _find_within(collection.retriever.index, codes, radius)
    results = [
        QueryResult(label, distances.tolist(), collection.find_paths(ids))
        for label, (distances, ids) in zip(labels, found, strict=True)
    ]
    _print_results(results, null)
    if output is not None:
        with replace_file(output) as file:
            file.write(render_gallery(output, results, f"Found in {escape_name(Path(path).name)}"))


def _encode_queries(collection: Collection, items: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Returns the labels of queries, their codes uint32 `[q, w]`, and the weights of their bits `[q, b]`."""
    if collection.holds_images:
        with guard_pillow():
            pixels = np.stack([_read_pixels(item, collection.side) for item in items])
        if collection.embedding is not None:
            pixels = Embedder(collection.embedding, collection.width)(pixels, items)
        return list(items), *_encode_weighted(collection, pixels, items)
    labels, codes, weights = zip(*(_encode_vectors(collection, item) for item in items), strict=True)
    return [*chain.from_iterable(labels)], np.concatenate(codes), np.concatenate(weights)


def _encode_weighted(
    collection: Collection, values: np.ndarray, labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    with name_items(labels, "ask for others, or build anew with such items by --retrain"):
        codes, weights = encode_weighted(collection.retriever.model, values)
    return np.asarray(codes), np.asarray(weights)


def _read_pixels(path: str, side: int) -> np.ndarray:
    try:
        return np.asarray(read_image(path, side)[1])
    except ImageError as error:
        raise ValueError(f"{path}: {error}") from None


def _encode_vectors(collection: Collection, item: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Returns the labels, codes and weights of a row of the collection, or of the vectors in a file."""
    if item.isascii() and item.isdecimal():
        return [item], *_encode_row(collection, int(item))
    if not item.lower().endswith(".npy"):
        raise ValueError(f"{item}: expected the number of a row, or a .npy file")
    vectors = load_vectors(item)
    if vectors.ndim not in (1, 2) or vectors.shape[-1] != collection.side:
        raise ValueError(f"{item}: expected vectors of {collection.side} values, got shape {vectors.shape}")
    rows = vectors.reshape(-1, collection.side)
    labels = [item] if vectors.ndim == 1 else [f"{item} row {row}" for row in range(len(rows))]
    return labels, *_encode_weighted(collection, rows, labels)


def _encode_row(collection: Collection, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the code and the weights of a row, `[1, w]` and `[1, b]`; all weights are 1 if its vector is gone."""
    codes, source = collection.find_codes([row]), collection.source
    (vector,) = read_rows(source, [(row, collection.find_digests(np.array([row]))[0])])
    if vector is None:
        print(f"row {row} of {escape_name(source)} is gone or changed: all bits count alike", file=sys.stderr)
        return codes, np.ones((1, collection.retriever.model.num_bits), np.uint8)
    return _encode_weighted(collection, vector[None], [f"row {row}"])


def _find_nearest(
    collection: Collection, codes: np.ndarray, weights: np.ndarray, k: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Finds the nearest items by weighted distance: for each query their Hamming distances and ids."""
    index = collection.retriever.index
    k = min(check_integer("k", k, 1), int(index.num_items))
    queries = weigh_queries(codes, weights, index.num_bits)
    ids = find_nearest(index, queries, k=k, limits=ONE_SEARCH).ids
    found = collection.find_codes(ids.reshape(-1).tolist()).reshape(*ids.shape, codes.shape[1])
    distances = np.bitwise_count(codes[:, None] ^ found).sum(2, dtype=np.int32)
    return list(zip(distances, ids, strict=True))


def _find_within(index: HashIndex, codes: np.ndarray, radius: int) -> list[tuple[np.ndarray, np.ndarray]]:
    matches = radius_search(index, codes, radius=radius)
    ends = matches.offsets[1:-1]
    return list(zip(np.split(matches.distances, ends), np.split(matches.ids, ends), strict=True))


def _print_results(results: Sequence[QueryResult], null: bool) -> None:
    """Prints distance, tab and path of each item found, under the name of the query if there are several."""
    for number, result in enumerate(results):
        if len(results) > 1:
            print(end=("\0" if null else "\n") * bool(number))
            print_name(f"{result.query}:", null=null)
        for distance, path in zip(result.distances, result.paths, strict=True):
            print_name(path, f"{distance}\t", null=null)


def run_info(path: str) -> None:
    """Prints what a file holds: a word, a tab and a value on each line."""
    archive = read_archive(path)
    if archive.kind == "training":
        epoch, epochs, loss = read_progress(path, archive)
        print(f"holds\ttraining\nepochs\t{epoch} of {epochs}\nloss\t{loss:.4f}")
        return
    collection, model, index = _load_parts(path, archive.kind)
    print(f"holds\t{archive.kind}")
    if collection is not None:
        print_name(collection.source, f"source\t{'images' if collection.holds_images else 'vectors'} of ")
        if collection.embedding is not None:
            name, side = collection.embedding
            print(f"embedder\t{escape_name(name)} at {side} pixels a side")
        if collection.purpose != PURPOSES[0]:
            print(f"built for\t{collection.purpose}")
    if index is not None:
        stats = describe(index)
        print(f"{'pairs of code and id' if index.multi else 'items'}\t{stats.num_items:,}")
        print(f"codes\t{stats.num_codes:,} distinct ones of {index.num_bits} bits")
        print(f"items on a code\t{stats.mean_density:.2f} on average, {stats.max_density:,} at most")
    if model is not None:
        shape = "x".join(map(str, model.input_shape))
        print(f"model\t{type(model).__name__} of {shape} values to {model.num_bits} bits")


def _load_parts(path: str, kind: str) -> tuple[Collection | None, Encoder | None, HashIndex | None]:
    """Loads the collection, the model and the index that a file of this kind holds."""
    if kind == "collection":
        collection = load_collection(path)
        return collection, collection.retriever.model, collection.retriever.index
    if kind == "retriever":
        retriever = load_retriever(path)
        return None, retriever.model, retriever.index
    return (None, None, load_index(path)) if kind.startswith("index") else (None, load_model(path), None)
