"""The command `demo`: retells the source post on real images, and reports the results on one page.

Two models are trained: the post's network to reconstruct images, as in the post, and another to retrieve them. For
colored images this is a `PatchEncoder`, for others the post's network again. The report begins with their results and
times; then it explains how they were trained.
"""

import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxhash.cli.demo_answers import report_answers
from jaxhash.cli.demo_learning import Learned, report_learning
from jaxhash.cli.demo_times import report_times
from jaxhash.cli.report import Report
from jaxhash.core.checks import check_integer, check_num_bits
from jaxhash.datasets import Dataset, load_dataset
from jaxhash.index.building import build_index
from jaxhash.index.density import suggest_num_bits
from jaxhash.models.autoencoder import Autoencoder, summary
from jaxhash.models.encoder import Encoder
from jaxhash.models.encoding import encode
from jaxhash.models.patch_encoder import PatchEncoder
from jaxhash.retriever import Retriever, save_retriever
from jaxhash.training.epoch import History
from jaxhash.training.fitting import fit

DATASET = "mnist-5k"
OBJECTIVES = ("reconstruct", "retrieve")
CHARTS = ("reconstructions.png", "buckets.png", "matches.png")
FILES = (
    "report.html",
    *CHARTS,
    *(f"training-{name}.png" for name in OBJECTIVES),
    *(f"{name}.npz" for name in OBJECTIVES),
)
BATCH_SIZE = 256
STEPS, MIN_EPOCHS = 500, 5  # of each model
LOSS_LINES = 5


def run_demo(
    dataset: str = DATASET,
    data_dir: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    num_bits: int | None = None,
    output: str | os.PathLike[str] = "jaxhash-demo",
) -> None:
    """Runs the demo and writes `report.html`, its charts, and both retrievers to a folder.

    Args:
        dataset: a name for `load_dataset`.
        data_dir: the folder of the data set's files.
        epochs: the number of training epochs of each model; by default as many as make about 500 steps.
        num_bits: the length of the codes; by default that of `suggest_num_bits`.
        output: the folder for the results, created if needed.
    """
    if epochs is not None:
        check_integer("epochs", epochs, 1)
    if num_bits is not None:
        check_num_bits(num_bits)
    report = Report(Path(output), FILES)
    data = load_dataset(dataset, data_dir)
    count = len(data.train_images)
    num_bits = suggest_num_bits(count) if num_bits is None else num_bits
    epochs = max(MIN_EPOCHS, round(STEPS * BATCH_SIZE / count)) if epochs is None else epochs
    _report_data(report, data, num_bits)
    print(summary(_make_model(data, num_bits, OBJECTIVES[0])))
    models = [_learn(data, num_bits, epochs, objective) for objective in OBJECTIVES]

    report_answers(report, data, models)
    report_times(report, data, models[0].retriever)
    report_learning(report, data, models, BATCH_SIZE)
    for model in models:
        save_retriever(report.output / f"{model.objective}.npz", model.retriever)
    _report_next(report, data)
    report.save("report.html", f"jaxhash: semantic hashing of {data.name}")
    print(f"\nSaved report.html, its charts and both retrievers in {report.output}")


def _report_next(report: Report, data: Dataset) -> None:
    report.add_heading("Look further")
    report.add_text("This writes a page on which the codes that were trained to retrieve are searched by clicks:")
    file = shlex.quote(str(report.output / f"{OBJECTIVES[1]}.npz"))
    report.add_command(f"jaxhash explore {file} --dataset {data.name} -o explore.html")


def _report_data(report: Report, data: Dataset, num_bits: int) -> None:
    height, width, *colors = data.train_images.shape[1:]
    pixels = f"{height}x{width} {'colored ' if colors else ''}pixels"
    report.add_text(
        f"An autoencoder learns to put an image into {num_bits} bits. Images whose codes differ in few bits are alike, "
        f"so that search compares bits. Here are {len(data.train_images):,} images of {data.name}, of {pixels}, to "
        f"learn from and to search among, and {len(data.test_images):,} others to search with. Labels only judge the "
        "results; no model has seen them."
    )


def _make_model(data: Dataset, num_bits: int, objective: str) -> Encoder:
    """Makes the post's network, but a `PatchEncoder` to retrieve colored images: their pixels tell too little."""
    shape = data.train_images.shape[1:]
    if objective == "retrieve" and shape[2:] == (3,):
        return PatchEncoder(shape, num_bits)
    return Autoencoder(int(np.prod(shape)), num_bits)


def _learn(data: Dataset, num_bits: int, epochs: int, objective: str) -> Learned:
    """Trains a model, encodes the training images and indexes their codes."""
    print(f"\nLearning to {objective}: {epochs} epochs, batches of {BATCH_SIZE}")
    model = _make_model(data, num_bits, objective)
    if model.makes_views:
        print("  views of all images first, most of the work")
    times = [time.perf_counter()]
    model, history = fit(
        model,
        data.train_images,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        objective=objective,
        on_epoch=_make_epoch_printer(epochs, times[0]),
    )
    times.append(time.perf_counter())
    codes = np.asarray(jax.block_until_ready(encode(model, data.train_images)))
    times.append(time.perf_counter())
    retriever = Retriever(model, build_index(codes, num_bits))
    times.append(time.perf_counter())
    return Learned(objective, retriever, codes, history, *np.diff(times).tolist())


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
