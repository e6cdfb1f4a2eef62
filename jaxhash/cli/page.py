"""A page that holds everything it shows: text, tables, and pictures as data."""

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


def png(figure: "Figure") -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def heading(text: str) -> str:
    """A section's heading as HTML."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A paragraph as HTML."""
    return f"<p>{html.escape(text)}</p>"


def picture(image: bytes, description: str) -> str:
    """A PNG as HTML, with a description for those who can't see it."""
    return f"<p>{_img(image, description)}</p>"


def captioned(image: bytes | None, lines: Sequence[str], kind: str) -> str:
    """A small PNG, or none, above lines of text; `kind` is its class: "query" or "found"."""
    shown = "<p>can't be shown</p>" if image is None else _img(image, lines[-1])
    caption = "<br>".join(html.escape(line) for line in lines)
    return f'<figure class="{kind}">{shown}<figcaption>{caption}</figcaption></figure>'


def row(parts: Sequence[str]) -> str:
    """Parts side by side, as many as there is room for."""
    return "\n".join(['<div class="row">', *parts, "</div>"])


def _img(image: bytes, description: str) -> str:
    data = base64.b64encode(image).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table as HTML; the first row is its heading."""
    head, *body = ([html.escape(cell) for cell in row] for row in rows)
    lines = ["<table>", "<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    return "\n".join([*lines, "</table>"])


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page of the given parts."""
    return PAGE.format(title=html.escape(title), body="\n".join(parts))


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """The same table for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def printable(path: str) -> str:
    r"""A file name on one line: what can't be seen or is no text as escapes such as `\n` or `\xff`, `\` doubled."""
    return "".join(
        character if character.isprintable() and character != "\\" else _escaped(character) for character in path
    )


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8, as "surrogateescape" keeps it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return "\\\\" if character == "\\" else character.encode("unicode_escape").decode()
