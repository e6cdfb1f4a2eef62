"""What the demo reports first: the images that codes find, by objective and ranking, and how good they are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxhash.cli import page
from jaxhash.cli.demo_learning import Learned
from jaxhash.cli.report import Report
from jaxhash.cli.sheets import encode_picture
from jaxhash.datasets import Dataset
from jaxhash.metrics.neighbors import precision_at_k, vote_accuracy
from jaxhash.retriever import retrieve

NEIGHBORS = 10
SHOWN_QUERIES = 8
RANKINGS = {"Hamming": False, "weighted": True}


class Answers(NamedTuple):
    """The nearest images of all queries; -1 where there are too few."""

    distances: np.ndarray  # int32 [q, k]
    ids: np.ndarray  # int32 [q, k]


def report_answers(report: Report, data: Dataset, models: Sequence[Learned]) -> None:
    """Reports how good the answers are, and shows the answers to a few queries."""
    found = {
        (model.objective, ranking): _find(data, model, weighted)
        for model in models
        for ranking, weighted in RANKINGS.items()
    }
    report.add_heading("What is found")
    report.add_text(
        f"The {NEIGHBORS} nearest of {len(data.train_images):,} images to each of {len(data.test_images):,}: how many "
        "have the label of the query, and for how many queries the majority names the right one. Codes of both kinds "
        "have the same length; how each was learned is told below. Ranked by weighted distance, a bit counts the more "
        "the surer the query is of it."
    )
    labels = (data.train_labels, data.test_labels)
    rows = [
        (
            f"{objective}, {ranking}",
            f"{precision_at_k(near.ids, *labels):.1%}",
            f"{vote_accuracy(near.ids, *labels):.1%}",
        )
        for (objective, ranking), near in found.items()
    ]
    report.add_table([("trained to, ranked by", "same label", "vote right"), *rows])
    shown = {model.objective: found[model.objective, "Hamming"] for model in models}
    _show_queries(report, data, shown)


def _find(data: Dataset, model: Learned, weighted: bool) -> Answers:
    return Answers(*retrieve(model.retriever, data.test_images, k=NEIGHBORS, weighted=weighted))


def _show_queries(report: Report, data: Dataset, found: dict[str, Answers]) -> None:
    """Shows the first queries, each with what every objective finds for it."""
    count = min(SHOWN_QUERIES, len(data.test_images))
    report.add_text(
        f"The first {count} queries, each with its {NEIGHBORS} nearest by Hamming distance, the nearest first. Those "
        "of another label have a red frame with a cross."
    )
    for row in range(count):
        label = data.test_labels[row]
        print(
            f"  query {row}, label {label}: "
            + ", ".join(_count_right(data, near, row) + f" by {name}" for name, near in found.items())
        )
        query = page.Thumbnail(encode_picture(page.draw_as_ink(data.test_images[row])), f"query {row}, label {label}")
        strips = [
            (f"{name}: {_count_right(data, near, row)}", _make_thumbnails(data, near, row))
            for name, near in found.items()
        ]
        report.add_html(page.render_comparison(query, strips))


def _count_right(data: Dataset, near: Answers, row: int) -> str:
    filled = near.ids[row][near.ids[row] >= 0]
    return f"{(data.train_labels[filled] == data.test_labels[row]).sum()} of {len(filled)}"


def _make_thumbnails(data: Dataset, near: Answers, row: int) -> list[page.Thumbnail]:
    return [
        page.Thumbnail(
            encode_picture(page.draw_as_ink(data.train_images[number])),
            f"distance {distance}, label {data.train_labels[number]}",
            bool(data.train_labels[number] != data.test_labels[row]),
        )
        for distance, number in zip(near.distances[row].tolist(), near.ids[row].tolist(), strict=True)
        if number >= 0
    ]
