"""HTML pages that need no other file: text, tables, and pictures as data URLs."""

import base64
import hashlib
import html
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="jaxhash">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
# Files that begin so were written by this module. A command replaces no others.
PAGE_START = PAGE.partition("<meta http-equiv")[0].encode()
PNG_START, PNG_TEXT, NEAR_START = b"\x89PNG\r\n\x1a\n", {"Software": "jaxhash"}, 1000

# What a page may load: pictures inside it, and the one style and the one script that it is written with.
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src {style}; script-src {script}"
)


class Thumbnail(NamedTuple):
    """A small picture in a comparison."""

    image: bytes  # a PNG
    description: str
    wrong: bool = False


def draw_as_ink(image: np.ndarray) -> np.ndarray:
    """Converts uint8 `[h, w]`, whose 0 is paper, or `[h, w, 1]` or `[h, w, 3]` to colors, uint8 `[h, w, 3]`."""
    if image.ndim == 3 and image.shape[2] == 3:
        return image
    return np.repeat(255 - image.reshape(*image.shape[:2], 1), 3, axis=2)


def encode_png(figure: "Figure") -> bytes:
    """Renders a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata=PNG_TEXT)
    return buffer.getvalue()


def is_our_page(path: Path) -> bool:
    """Returns whether a file is a page of this module."""
    return _read_start(path).startswith(PAGE_START)


def is_our_picture(path: Path) -> bool:
    """Returns whether a file is a PNG of `encode_png`."""
    start = _read_start(path)
    return start.startswith(PNG_START) and b"tEXtSoftware\0jaxhash" in start


def _read_start(path: Path) -> bytes:
    if not path.is_file():  # opening a FIFO would wait for a writer
        return b""
    with path.open("rb") as file:
        return file.read(NEAR_START)


def render_heading(text: str) -> str:
    """Renders the heading of a section."""
    return f"<h2>{html.escape(text)}</h2>"


def render_paragraph(text: str) -> str:
    """Renders a paragraph."""
    return f"<p>{html.escape(text)}</p>"


def render_command(text: str) -> str:
    """Renders a command line."""
    return f"<pre>{html.escape(text)}</pre>"


def render_picture(image: bytes, description: str) -> str:
    """Renders a PNG, with a description as its alternative text."""
    return f"<p>{_render_image(image, description)}</p>"


def render_thumbnail(image: bytes | None, lines: Sequence[str], kind: str) -> str:
    """Renders a small PNG, or its absence, above lines of text; `kind` is its class, "query" or "found"."""
    shown = "<p>can't be shown</p>" if image is None else _render_image(image, lines[-1])
    caption = "<br>".join(html.escape(line) for line in lines)
    return f'<figure class="{kind}">{shown}<figcaption>{caption}</figcaption></figure>'


def render_row(parts: Sequence[str]) -> str:
    """Renders parts side by side, wrapped at the width of the page."""
    return "\n".join(['<div class="row">', *parts, "</div>"])


def render_comparison(query: Thumbnail, strips: Sequence[tuple[str, Sequence[Thumbnail]]]) -> str:
    """Renders a query beside strips of pictures, each under its heading; wrong ones are marked."""
    lines = ['<div class="comparison">', _render_image(query.image, query.description)]
    for heading, thumbnails in strips:
        lines += ['<div class="strip">', f"<p>{html.escape(heading)}</p>"]
        for image, description, wrong in thumbnails:
            shown = _render_image(image, description + (", wrong" if wrong else ""))
            kind = "wrong" if wrong else "right"
            lines.append(f'<span class="{kind}" title="{html.escape(description)}">{shown}</span>')
        lines.append("</div>")
    return "\n".join([*lines, "</div>"])


def _render_image(image: bytes, description: str) -> str:
    data = base64.b64encode(image).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'


def render_table(rows: Sequence[Sequence[str]]) -> str:
    """Renders a table; the first row is its heading."""
    head, *body = ([html.escape(cell) for cell in row] for row in rows)
    lines = ["<table>", "<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    return "\n".join(['<div class="scroll">', *lines, "</table>", "</div>"])


def render_page(title: str, parts: Sequence[str], *, style: str = "", script: str = "") -> str:
    """Renders a whole page of rendered parts.

    Args:
        title: the text of the title and of the first heading.
        parts: HTML, in order.
        style: CSS that comes after `page.css`.
        script: JavaScript that runs at the end; no other script runs, whatever the parts hold.
    """
    style = read_asset("page.css") + style
    if script:
        parts = [*parts, f"<script>{script}</script>"]
    policy = POLICY.format(style=_hash_source(style), script=_hash_source(script) if script else "'none'")
    return PAGE.format(title=html.escape(title), policy=policy, style=style, body="\n".join(parts))


def read_asset(name: str) -> str:
    """Reads a text file that is installed beside this module."""
    return (resources.files("jaxhash.cli") / name).read_text(encoding="utf-8")


def _hash_source(text: str) -> str:
    """Names an inline style or script in a policy by its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
