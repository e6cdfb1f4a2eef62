"""Text on the terminal and in pipes: names of files, tables, and a status line for long work."""

import re
import sys
import time
import unicodedata
from collections.abc import Sequence

SECONDS_BETWEEN_UPDATES = 0.1
# Characters that change the direction of text: overrides, embeddings and isolates by their class, and three marks.
TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
MARKS = "\u061c\u200e\u200f"


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


def print_name(name: str, before: str = "", *, null: bool = False) -> None:
    r"""Prints the name of a file as a line of results.

    A pipe gets its bytes, so that other programs find the file. A terminal gets what `escape_name` returns. A name with
    a line break would be two lines to a pipe: it is left out, and named on stderr.

    Args:
        name: the name, as `os.fsdecode` gives it.
        before: text before the name on its line.
        null: whether a NUL character ends the line, as `xargs -0` takes it; then all names go out as they are.
    """
    if null:
        print(before + name, end="\0")
    elif sys.stdout.isatty():
        print(before + escape_name(name))
    elif "\n" in name:
        print(f"left out a name with a line break, which --null prints: {escape_name(name)}", file=sys.stderr)
    else:
        print(before + name)


def escape_name(name: str) -> str:
    r"""Escapes what would break a line on a terminal, such as `\n`, `\x1b`, or `\xff` for a byte that is not UTF-8."""
    return "".join(_escape(character) if _breaks(character) else character for character in name)


def describe_error(error: Exception | str) -> str:
    """Returns the message of an error as one line, with file names as they are, escaped as on a terminal."""
    message = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
        message = f"{error.strerror}: {error.filename}"  # Python shows names as in source code
    return escape_name(re.sub(r" *[\t\n\v\f\r]+ *", " ", message.strip()))


def _breaks(character: str) -> bool:
    """Returns whether a character is a control, turns the direction of what follows, or is no character at all."""
    is_control = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    return is_control or unicodedata.bidirectional(character) in TURNING or character in MARKS


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as "surrogateescape" decodes it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
