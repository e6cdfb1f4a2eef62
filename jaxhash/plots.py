"""Plots of images, training and indexes. Each function returns a matplotlib figure.

They don't use pyplot: figures need no display, and none stays open.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxhash.index.density import count_densities
from jaxhash.index.hash_index import HashIndex
from jaxhash.index.sharding import ShardedIndex

INK, ACCENT, WRONG = "#333333", "#2f6f9f", "#c0392b"


def reconstructions(images: ArrayLike, reconstructed: ArrayLike) -> Figure:
    """Plots images `[n, height, width]`, or color images `[n, height, width, 3]`, above their reconstructions."""
    rows = (np.asarray(images), np.asarray(reconstructed))
    figure = Figure(figsize=(len(rows[0]) * 0.9, 2.1), layout="constrained")
    grid = figure.subplots(2, len(rows[0]), squeeze=False)
    for axes_row, row, title in zip(grid, rows, ("image", "from its code"), strict=True):
        for axes, image in zip(axes_row, row, strict=True):
            _show(axes, image)
        axes_row[0].set_ylabel(title, fontsize=8, color=INK)
    return figure


def search_results(
    queries: ArrayLike,
    images: ArrayLike,
    ids: ArrayLike,
    distances: ArrayLike,
    *,
    query_labels: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> Figure:
    """Plots each query followed by its neighbors with their distances, in red if the label differs.

    Args:
        queries: the query images `[q, height, width]`, or color images `[q, height, width, 3]`.
        images: the indexed images, of the same shape, by id.
        ids: int `[q, k]`; -1 leaves a slot empty.
        distances: int `[q, k]`.
        query_labels: `[q]`, optional.
        labels: `[n]`, optional.
    """
    queries, images, ids, distances = (np.asarray(array) for array in (queries, images, ids, distances))
    figure = Figure(figsize=((ids.shape[1] + 1) * 0.9, len(ids) * 1.1), layout="constrained")
    grid = figure.subplots(len(ids), ids.shape[1] + 1, squeeze=False)
    for row, axes_row in enumerate(grid):
        _show(axes_row[0], queries[row], "query")
        for column, axes in enumerate(axes_row[1:]):
            item = ids[row, column]
            if item < 0:
                axes.axis("off")
                continue
            same = labels is None or query_labels is None or np.asarray(labels)[item] == np.asarray(query_labels)[row]
            _show(axes, images[item], str(distances[row, column]), INK if same else WRONG)
    return figure


def _show(axes: Axes, image: np.ndarray, title: str = "", color: str = INK) -> None:
    axes.imshow(image, cmap="gray_r")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8, color=color)
    for spine in axes.spines.values():
        spine.set_edgecolor(color if color != INK else "#cccccc")


def training_curve(history: Any) -> Figure:
    """Plots the loss of each epoch of a `History`, and the distinct codes and bit entropy if recorded."""
    panels = {
        "loss per value": history.loss,
        "distinct codes": history.num_codes,
        "entropy of a bit": history.entropy,
    }
    shown = {name: values for name, values in panels.items() if values}
    figure = Figure(figsize=(6 if len(shown) == 1 else 9, 3.2), layout="constrained")
    for axes, (name, values) in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown.items(), strict=True):
        axes.plot(range(1, len(values) + 1), values, marker="o", markersize=3, color=ACCENT)
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    figure.suptitle("Training", fontsize=11)
    return figure


def bucket_histogram(index: HashIndex | ShardedIndex) -> Figure:
    """Plots the number of codes by the number of items that share them, on logarithmic axes."""
    sizes, counts = count_densities(index)
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.loglog(sizes, counts, "o", markersize=4, color=ACCENT)
    axes.set(
        xlabel="items that share a code",
        ylabel="number of codes",
        title=f"{sizes @ counts:,} items on {counts.sum():,} codes of {index.num_bits} bits",
    )
    axes.grid(alpha=0.3, which="both")
    return figure


def matches_by_radius(radii: Sequence[int], expected: Sequence[float], found: Sequence[float]) -> Figure:
    """Plots the matches per query by radius: expected for evenly distributed codes, and found."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(radii, expected, "o--", color=INK, label="expected for evenly distributed codes")
    axes.semilogy(radii, found, "o-", color=ACCENT, label="found")
    axes.set(xlabel="radius", ylabel="matches per query", xticks=list(radii), title="Matches by radius")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return figure
