"""How the codes of the demo came about: training, the codes that came of it, and how many matches a radius has."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxhash import plots
from jaxhash.cli.report import Report
from jaxhash.codes.statistics import bit_statistics
from jaxhash.datasets import Dataset
from jaxhash.index.density import describe, expected_matches
from jaxhash.index.hash_index import HashIndex
from jaxhash.models.encoding import encode, reconstruct
from jaxhash.query.radius import radius_search
from jaxhash.retriever import Retriever
from jaxhash.training.epoch import History
from jaxhash.training.losses import reconstruction_loss

RADII = (0, 1, 2, 3)
COUNTED_QUERIES = 1000
SHOWN_IMAGES = 10


class Learned(NamedTuple):
    """A trained model with the index of the training images, and the seconds that it took."""

    objective: str
    retriever: Retriever[HashIndex]
    codes: np.ndarray  # uint32 [n, w], of the training images
    history: History
    training_time: float
    encoding_time: float
    building_time: float


def report_learning(report: Report, data: Dataset, models: Sequence[Learned], batch_size: int) -> None:
    """Reports on models that were trained for one number of epochs, the first of them to reconstruct."""
    report.add_heading("How the codes were learned")
    report.add_text(f"{_explain_models(models)} {len(models[0].history.loss)} epochs each, in batches of {batch_size}.")
    _report_times(report, models)
    for model in models:
        caption = f"Trained to {model.objective}: loss, distinct codes and entropy of the bits by epoch:"
        report.add_figure(f"training-{model.objective}.png", plots.training_curve(model.history), caption)
    _report_reconstructions(report, data, models[0])
    _report_codes(report, models)
    _report_matches(report, data, models)


def _explain_models(models: Sequence[Learned]) -> str:
    codes = "codes that differ less from each other than from others of the batch."
    finder = models[-1].retriever.model
    if finder.makes_views:
        return (
            "One model is the post's autoencoder, with a layer of bits in its middle, and learns to rebuild each image "
            "from its bits. The other sees what the patches of an image have in common with "
            f"{finder.config['num_atoms']:,} learned ones, and learns to give an image and one of its nearest images, "
            "both cropped, mirrored and recolored a little, " + codes
        )
    return (
        "Both models are the post's autoencoder, with a layer of bits in its middle: to reconstruct is to rebuild each "
        "image from its bits, as in the post. To retrieve is also to give an image and one of its nearest images, both "
        "turned, scaled and shifted a little, " + codes
    )


def _report_times(report: Report, models: Sequence[Learned]) -> None:
    rows = [
        (model.objective, *(f"{seconds:.{digits}f} s" for seconds, digits in zip(model[4:], (0, 2, 3), strict=True)))
        for model in models
    ]
    report.add_table([("trained to", "training", "encoding", "indexing"), *rows])


def _report_reconstructions(report: Report, data: Dataset, model: Learned) -> None:
    autoencoder, shown = model.retriever.model, data.test_images[:SHOWN_IMAGES]
    report.add_text(
        f"Cross-entropy per pixel of the model that reconstructs: {model.history.loss[-1]:.4f} in training; afterwards "
        f"{reconstruction_loss(autoencoder, data.train_images):.4f} on the same images, "
        f"{reconstruction_loss(autoencoder, data.test_images):.4f} on test images. "
        "(The post reached 0.1444 in training on all of MNIST, after 300 epochs.)"
    )
    caption = "Test images, and below them what its decoder makes of their codes:"
    report.add_figure("reconstructions.png", plots.reconstructions(shown, reconstruct(autoencoder, shown)), caption)


def _report_codes(report: Report, models: Sequence[Learned]) -> None:
    report.add_heading("How images share codes")
    rows = []
    for model in models:
        stats, num_bits = describe(model.retriever.index), model.retriever.index.num_bits
        dead = len(bit_statistics(model.codes, num_bits).dead_bits)
        density = (f"{stats.median_density:g}", f"{stats.mean_density:.2f}", f"{stats.max_density:,}")
        rows.append((model.objective, f"{stats.num_codes:,}", str(dead), *density))
    report.add_text(
        "Distinct codes, bits that are the same in all of them, and how many images share a code: fewer codes are no "
        "fault where images of one kind are meant to be together."
    )
    report.add_table([("trained to", "codes", "dead bits", "median", "mean", "max"), *rows])
    caption = f"Trained to {models[0].objective}: number of codes by the number of images that share them:"
    report.add_figure("buckets.png", plots.bucket_histogram(models[0].retriever.index), caption)


def _report_matches(report: Report, data: Dataset, models: Sequence[Learned]) -> None:
    report.add_heading("How many matches a radius has")
    images = data.test_images[:COUNTED_QUERIES]
    num_items, num_bits = len(data.train_images), models[0].retriever.index.num_bits
    expected = [expected_matches(num_items, num_bits, radius=radius) for radius in RADII]
    found = {model.objective: _count_matches(model.retriever, images) for model in models}
    report.add_text(
        f"Matches of a query, mean of {len(images):,} test images. The post's rule n / 2^b * sum C(b, i) supposes "
        "codes that spread evenly; learned codes are denser where the queries are."
    )
    rows = [
        (str(radius), *(f"{counts[place]:,.1f}" for counts in (expected, *found.values())))
        for place, radius in enumerate(RADII)
    ]
    report.add_table([("radius", "rule", *found), *rows])
    objective, counts = next(iter(found.items()))
    caption = f"Trained to {objective}: expected and found matches by radius:"
    report.add_figure("matches.png", plots.matches_by_radius(RADII, expected, counts), caption)


def _count_matches(retriever: Retriever[HashIndex], images: np.ndarray) -> list[float]:
    queries = encode(retriever.model, images)
    return [len(radius_search(retriever.index, queries, radius=radius).ids) / len(images) for radius in RADII]
