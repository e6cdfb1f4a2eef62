import os

import pytest

from jaxhash.cli.terminal import StatusLine, escape_name, format_table


def test_the_cells_of_a_table_are_aligned():
    rows = [("method", "time"), ("linear", "1.25 ms"), ("hash", "9 ms")]
    assert format_table(rows).split("\n") == [
        "  method     time",
        "  linear  1.25 ms",
        "  hash       9 ms",
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("größer 1.png", "größer 1.png"),
        ("a\nb\t\x1b[31m", r"a\nb\t\x1b[31m"),
        (os.fsdecode(b"\xff\x80.png"), r"\xff\x80.png"),
        ("a\\nb", r"a\nb"),
        ("9.41\u202fAM\u00a0\U0001f468\u200d\U0001f469.png", "9.41\u202fAM\u00a0\U0001f468\u200d\U0001f469.png"),
        ("\u05d0\u200f\u2028\x9b", "\u05d0" r"\u200f\u2028\x9b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),  # would turn the direction of what follows
    ],
)
def test_a_name_is_escaped_to_one_line(name, shown):
    assert escape_name(name) == shown


def test_the_status_line_shows_its_first_text_and_then_waits(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    status = StatusLine()
    status.update("one")
    status.update("too soon")
    status.clear()
    assert capsys.readouterr().err == "\r\033[Kone\r\033[K"
