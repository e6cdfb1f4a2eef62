"""HTML pages that need no other file: text, tables, and pictures as data URLs."""

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h2 {{ margin-top: 2.5rem; }}
img {{ max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
.row {{ display: flex; flex-wrap: wrap; gap: .8rem; }}
figure {{ margin: 0; width: 8rem; font-size: .8rem; overflow-wrap: anywhere; }}
figure img {{ width: 8rem; height: 8rem; object-fit: contain; }}
figure.query img {{ outline: 3px solid #2f6f9f; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def encode_png(figure: "Figure") -> bytes:
    """Renders a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def render_heading(text: str) -> str:
    """Renders the heading of a section."""
    return f"<h2>{html.escape(text)}</h2>"


def render_paragraph(text: str) -> str:
    """Renders a paragraph."""
    return f"<p>{html.escape(text)}</p>"


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


def _render_image(image: bytes, description: str) -> str:
    data = base64.b64encode(image).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'


def render_table(rows: Sequence[Sequence[str]]) -> str:
    """Renders a table; the first row is its heading."""
    head, *body = ([html.escape(cell) for cell in row] for row in rows)
    lines = ["<table>", "<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    return "\n".join([*lines, "</table>"])


def render_page(title: str, parts: Sequence[str]) -> str:
    """Renders a whole page of rendered parts."""
    return PAGE.format(title=html.escape(title), body="\n".join(parts))
