import io
import os

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from pages import PNG, Page, png_of

from jaxhash.cli import page as report

NASTY = "<b>&\"'</b> {braces} {0} 100% größer"


def test_a_heading_and_a_paragraph_by_hand():
    assert report.heading("Searching") == "<h2>Searching</h2>"
    assert report.paragraph("1 < 2") == "<p>1 &lt; 2</p>"


def test_a_table_by_hand():
    assert report.table([("radius", "found"), ("0", "4.6")]).split("\n") == [
        "<table>",
        "<tr><th>radius</th><th>found</th></tr>",
        "<tr><td>0</td><td>4.6</td></tr>",
        "</table>",
    ]


def test_a_text_table_by_hand_has_its_numbers_flush_right():
    rows = [("method", "time"), ("linear", "1.25 ms"), ("hash", "9 ms")]
    assert report.text_table(rows).split("\n") == [
        "  method     time",
        "  linear  1.25 ms",
        "  hash       9 ms",
    ]


def test_both_tables_hold_every_cell_in_its_place():
    rows = [("", "min", "max"), ("density", "1", "12,345"), ("a longer name", "", "3")]
    (table,) = Page(report.table(rows)).tables
    assert [tuple(row) for row in table] == rows
    lines = report.text_table(rows).split("\n")
    assert len({len(line) for line in lines}) == 1
    assert [line.split() for line in lines] == [" ".join(row).split() for row in rows]


@pytest.mark.parametrize(
    ("make", "tag"), [(report.heading, "h2"), (report.paragraph, "p"), (lambda text: report.page(text, []), "h1")]
)
def test_text_is_shown_as_it_is_and_never_becomes_markup(make, tag):
    page = Page(make(NASTY))
    assert (tag, NASTY) in page.texts
    assert "b" not in page.tags


def test_cells_are_shown_as_they_are_in_head_and_body():
    assert Page(report.table([(NASTY, "x"), ("y", NASTY)])).tables == [[[NASTY, "x"], ["y", NASTY]]]


def test_a_picture_keeps_its_bytes_and_its_description():
    content = bytes(range(256))
    (image,) = Page(report.picture(content, NASTY)).images
    assert image["alt"] == NASTY
    assert png_of(image) == content


def test_a_figure_becomes_a_png_of_its_size():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    content = report.png(figure)
    assert content.startswith(PNG)
    height, width = imread(io.BytesIO(content)).shape[:2]
    assert width == 2 * height > 100


def test_different_figures_become_different_pictures():
    figures = [Figure(figsize=(1, 1)) for _ in range(2)]
    figures[1].text(0.2, 0.5, "text")
    blank, written = (imread(io.BytesIO(report.png(figure))) for figure in figures)
    assert np.unique(blank[..., :3]).size == 1
    assert (blank != written).any()


def test_a_page_holds_its_title_and_its_parts_in_order():
    page = Page(report.page("The title", [report.paragraph("one"), report.heading("two"), report.paragraph("three")]))
    assert page.declaration.lower() == "doctype html"
    shown = [(tag, text) for tag, text in page.texts if tag != "style"]
    assert shown == [("title", "The title"), ("h1", "The title"), ("p", "one"), ("h2", "two"), ("p", "three")]


def test_a_page_says_that_it_is_utf_8_before_any_other_text():
    text = report.page("größer", [])
    assert text.index('<meta charset="utf-8">') < text.index("<title>")
    assert Page(text.encode().decode("utf-8")).texts[-1] == ("h1", "größer")


def test_a_page_refers_to_nothing_outside_itself():
    text = report.page("title", [report.paragraph("text"), report.picture(b"bytes", "picture"), report.table([("a",)])])
    page = Page(text)
    assert len(page.links) == 1
    assert page.links[0].startswith("data:")
    assert not {"script", "link", "iframe", "object", "embed"} & {*page.tags}
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("größer 1.png", "größer 1.png"),
        ("a\nb\t\x1b[31m", r"a\nb\t\x1b[31m"),
        (os.fsdecode(b"\xff\x80.png"), r"\xff\x80.png"),
        ("a\\nb", r"a\\nb"),
        ("\u202egnp.exe", r"\u202egnp.exe"),  # would turn the direction of what follows
    ],
)
def test_names_are_shown_on_one_line_and_no_two_alike(name, shown):
    assert report.printable(name) == shown


def test_captioned_pictures_stand_in_a_row():
    shown = report.row(
        [report.captioned(b"bytes", ["distance 1", NASTY], "found"), report.captioned(None, ["x"], "query")]
    )
    page = Page(shown)
    (image,) = page.images
    assert (image["alt"], png_of(image)) == (NASTY, b"bytes")
    assert page.texts == [
        ("figcaption", "distance 1"),
        ("figcaption", NASTY),
        ("p", "can't be shown"),
        ("figcaption", "x"),
    ]
    assert page.tags.count("figure") == 2
