"""Search results to look at: a page that holds all its thumbnails, or one picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxhash.cli import page
from jaxhash.cli.images import ImageError, careful_pillow, read_image, thumbnail

try:
    from jaxhash import plots
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.split(".")[0] != "matplotlib":
        raise
    plots = None  # type: ignore[assignment]

SIDE = 128  # of a thumbnail, in pixels
MOST_ON_PAGE, MOST_IN_PICTURE = 200, 12


class Found(NamedTuple):
    """The results of one query."""

    query: str
    distances: list[int]
    paths: list[str]


def check_gallery(path: str) -> None:
    """Raises unless a gallery can be written under this name."""
    if not path.lower().endswith((".html", ".png")):
        raise ValueError(f"a gallery must be called .html or .png, got {path}")
    if path.lower().endswith(".png") and plots is None:
        raise ImportError("a gallery in one picture needs matplotlib: pip install 'jaxhash[demo]' (or ask for .html)")


def gallery(path: str, results: Sequence[Found], title: str) -> bytes:
    """The contents of a gallery, of the kind that the ending of `path` asks for."""
    with careful_pillow():
        return _page(results, title).encode() if path.lower().endswith(".html") else _picture(results)


def _page(results: Sequence[Found], title: str) -> str:
    parts = []
    for found in results:
        shown = [_figure(found.query, "", "query")]
        for distance, path in list(zip(found.distances, found.paths, strict=True))[:MOST_ON_PAGE]:
            shown.append(_figure(path, f"distance {distance}", "found"))
        name = page.printable(Path(found.query).name)
        parts += [page.heading(f"{name}: {len(found.paths):,} found"), page.row(shown)]
        if len(found.paths) > MOST_ON_PAGE:
            parts.append(page.paragraph(f"Shown are the nearest {MOST_ON_PAGE}."))
    return page.page(title, parts)


def _figure(path: str, line: str, kind: str) -> str:
    try:
        image = thumbnail(path, SIDE)
    except ImageError:  # gone or changed since it was encoded
        image = None
    return page.captioned(image, [line or "query", page.printable(Path(path).name)], kind)


def _picture(results: Sequence[Found]) -> bytes:
    """Queries on the left, then what was found, in the way of `plots.search_results`."""
    most = min(MOST_IN_PICTURE, max(len(found.paths) for found in results))
    queries = np.stack([_square(found.query) for found in results])
    images: list[np.ndarray] = []
    ids = np.full((len(results), most), -1)
    distances = np.zeros((len(results), most), int)
    for row, found in enumerate(results):
        for column, path in enumerate(found.paths[:most]):
            ids[row, column], distances[row, column] = len(images), found.distances[column]
            images.append(_square(path))
    return page.png(plots.search_results(queries, np.array(images), ids, distances))


def _square(path: str) -> np.ndarray:
    """An image as uint8 `[SIDE, SIDE, 3]`, grey where it can't be read any more."""
    try:
        pixels = read_image(path, SIDE)[1]
    except ImageError:
        pixels = None
    return np.full((SIDE, SIDE, 3), 200, np.uint8) if pixels is None else pixels
