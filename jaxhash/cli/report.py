"""A report that is printed on the terminal and written as a page of the same contents, with its pictures."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from jaxhash.cli import page
from jaxhash.cli.outputs import check_output
from jaxhash.cli.terminal import format_table
from jaxhash.files.atomic import replace_file

WIDTH = 100  # of paragraphs on the terminal
KINDS = {".html": "page", ".png": "picture", ".npz": "retriever"}


class Report:
    """Prints each part at once, and collects all for the page."""

    def __init__(self, output: Path, files: Sequence[str]):
        """Creates the folder `output` if needed, and raises unless these files can be written in it."""
        output.mkdir(parents=True, exist_ok=True)
        for name in files:
            check_output(output / name, KINDS[Path(name).suffix])
        self.output = output
        self._parts: list[str] = []

    def add_heading(self, text: str) -> None:
        """Begins a section."""
        print(f"\n{text}")
        self._parts.append(page.render_heading(text))

    def add_text(self, text: str) -> None:
        """Adds a paragraph."""
        print(textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False))
        self._parts.append(page.render_paragraph(text))

    def add_command(self, text: str) -> None:
        """Adds a command line."""
        print(f"  {text}")
        self._parts.append(page.render_command(text))

    def add_table(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Adds a table; the first row is its heading."""
        print(format_table(rows))
        self._parts.append(page.render_table(rows))

    def add_html(self, part: str) -> None:
        """Adds to the page what page.py has rendered; the terminal shows nothing of it."""
        self._parts.append(part)

    def add_figure(self, name: str, figure: Figure, caption: str) -> None:
        """Saves a figure under a name in the folder, and adds it with a caption."""
        image = page.encode_png(figure)
        self._write(name, image)
        print(f"Picture: {self.output / name}")
        self._parts += [page.render_paragraph(caption), page.render_picture(image, caption)]

    def save(self, name: str, title: str) -> None:
        """Writes the page under a name in the folder."""
        self._write(name, page.render_page(title, self._parts).encode())

    def _write(self, name: str, content: bytes) -> None:
        with replace_file(self.output / name) as file:
            file.write(content)
