"""Galleries of search results: an HTML page with thumbnails, or one PNG."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxhash.cli import page
from jaxhash.cli.images import ImageError, guard_pillow, make_thumbnail, read_image
from jaxhash.cli.outputs import check_output
from jaxhash.cli.terminal import escape_name

SIDE = 128  # pixels of a thumbnail
MAX_ON_PAGE, MAX_IN_PICTURE = 200, 12


class QueryResult(NamedTuple):
    """The results of one query."""

    query: str  # the path of an image, or a row
    distances: list[int]
    paths: list[str]


def check_gallery(path: str, inputs: Sequence[str]) -> None:
    """Raises unless a gallery can be rendered and written at this path; `inputs` are the files that are read for it."""
    if not path.lower().endswith((".html", ".png")):
        raise ValueError(f"a gallery must be called .html or .png, got {path}")
    if path.lower().endswith(".png") and not find_spec("matplotlib"):
        raise ImportError("a gallery in one picture needs matplotlib: pip install 'jaxhash[demo]' (or ask for .html)")
    check_output(path, "page" if path.lower().endswith(".html") else "picture", inputs)


def render_gallery(path: str, results: Sequence[QueryResult], title: str) -> bytes:
    """Renders a gallery as HTML or PNG, by the extension of `path`."""
    with guard_pillow():
        return _render_page(results, title).encode() if path.lower().endswith(".html") else _draw_picture(results)


def _render_page(results: Sequence[QueryResult], title: str) -> str:
    parts = []
    for result in results:
        shown = [_render_thumbnail(result.query, "", "query")]
        for distance, path in list(zip(result.distances, result.paths, strict=True))[:MAX_ON_PAGE]:
            shown.append(_render_thumbnail(path, f"distance {distance}", "found"))
        name = escape_name(Path(result.query).name)
        parts += [page.render_heading(f"{name}: {len(result.paths):,} found"), page.render_row(shown)]
        if len(result.paths) > MAX_ON_PAGE:
            parts.append(page.render_paragraph(f"Shown are the nearest {MAX_ON_PAGE}."))
    return page.render_page(title, parts)


def _render_thumbnail(path: str, line: str, kind: str) -> str:
    try:
        image = make_thumbnail(path, SIDE)
    except ImageError:  # deleted or changed since it was encoded
        image = None
    return page.render_thumbnail(image, [line or "query", escape_name(Path(path).name)], kind)


def _draw_picture(results: Sequence[QueryResult]) -> bytes:
    """Draws each query and its results by `plots.search_results`."""
    from jaxhash import plots  # matplotlib takes half a second to import

    most = min(MAX_IN_PICTURE, max(len(result.paths) for result in results))
    queries = np.stack([_read_square(result.query) for result in results])
    images: list[np.ndarray] = []
    ids = np.full((len(results), most), -1)
    distances = np.zeros((len(results), most), int)
    for row, result in enumerate(results):
        for column, path in enumerate(result.paths[:most]):
            ids[row, column], distances[row, column] = len(images), result.distances[column]
            images.append(_read_square(path))
    return page.encode_png(plots.search_results(queries, np.array(images), ids, distances))


def _read_square(path: str) -> np.ndarray:
    """Reads an image as uint8 `[SIDE, SIDE, 3]`; gray if it can no longer be read."""
    try:
        pixels = read_image(path, SIDE)[1]
    except ImageError:
        pixels = None
    return np.full((SIDE, SIDE, 3), 200, np.uint8) if pixels is None else pixels
