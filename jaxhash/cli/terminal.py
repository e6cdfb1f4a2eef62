"""Text on the terminal: printable file names, tables, and a status line for long work."""

import sys
import time
from collections.abc import Sequence

SECONDS_BETWEEN_UPDATES = 0.1


class StatusLine:
    """One line on stderr that is overwritten; silent where stderr is no terminal."""

    def __init__(self) -> None:
        self._is_shown, self._last = sys.stderr.isatty(), 0.0

    def update(self, text: str) -> None:
        """Shows a text, unless the last one is too recent."""
        if time.monotonic() - self._last > SECONDS_BETWEEN_UPDATES:
            self._last = time.monotonic()
            self._overwrite(text)

    def clear(self) -> None:
        """Erases the line."""
        self._overwrite("")

    def _overwrite(self, text: str) -> None:
        if self._is_shown:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligns the cells of a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells))
    return "\n".join(lines)


def escape_name(name: str) -> str:
    r"""Makes a file name printable on one line: other characters become escapes such as `\n` or `\xff`, `\` doubles."""
    return "".join(
        character if character.isprintable() and character != "\\" else _escape(character) for character in name
    )


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as "surrogateescape" decodes it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return "\\\\" if character == "\\" else character.encode("unicode_escape").decode()
