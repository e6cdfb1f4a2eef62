"""A page that holds everything it shows: text, tables, and pictures as data."""

import base64
import html
import io
from collections.abc import Sequence

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
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def png(figure: Figure) -> bytes:
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
    data = base64.b64encode(image).decode()
    return f'<p><img alt="{html.escape(description)}" src="data:image/png;base64,{data}"></p>'


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
