import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from pages import PNG, Page, png_of

from jaxhash.cli.page import (
    Thumbnail,
    draw_as_ink,
    encode_png,
    render_command,
    render_comparison,
    render_heading,
    render_page,
    render_paragraph,
    render_picture,
    render_row,
    render_table,
    render_thumbnail,
)
from jaxhash.cli.terminal import format_table

NASTY = "<b>&\"'</b> {braces} {0} 100% größer"


def test_a_heading_and_a_paragraph_by_hand():
    assert render_heading("Searching") == "<h2>Searching</h2>"
    assert render_paragraph("1 < 2") == "<p>1 &lt; 2</p>"


def test_a_table_by_hand():
    assert render_table([("radius", "found"), ("0", "4.6")]).split("\n") == [
        '<div class="scroll">',
        "<table>",
        "<tr><th>radius</th><th>found</th></tr>",
        "<tr><td>0</td><td>4.6</td></tr>",
        "</table>",
        "</div>",
    ]


def test_both_tables_hold_every_cell_in_its_place():
    rows = [("", "min", "max"), ("density", "1", "12,345"), ("a longer name", "", "3")]
    (table,) = Page(render_table(rows)).tables
    assert [tuple(row) for row in table] == rows
    lines = format_table(rows).split("\n")
    assert len({len(line) for line in lines}) == 1
    assert [line.split() for line in lines] == [" ".join(row).split() for row in rows]


@pytest.mark.parametrize(
    ("make", "tag"),
    [
        (render_heading, "h2"),
        (render_paragraph, "p"),
        (render_command, "pre"),
        (lambda text: render_page(text, []), "h1"),
    ],
)
def test_text_is_shown_as_it_is_and_never_becomes_markup(make, tag):
    page = Page(make(NASTY))
    assert (tag, NASTY) in page.texts
    assert "b" not in page.tags


def test_cells_are_shown_as_they_are_in_head_and_body():
    assert Page(render_table([(NASTY, "x"), ("y", NASTY)])).tables == [[[NASTY, "x"], ["y", NASTY]]]


def test_a_picture_keeps_its_bytes_and_its_description():
    content = bytes(range(256))
    (image,) = Page(render_picture(content, NASTY)).images
    assert image["alt"] == NASTY
    assert png_of(image) == content


def test_a_figure_becomes_a_png_of_its_size():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    content = encode_png(figure)
    assert content.startswith(PNG)
    height, width = imread(io.BytesIO(content)).shape[:2]
    assert width == 2 * height > 100


def test_different_figures_become_different_pictures():
    figures = [Figure(figsize=(1, 1)) for _ in range(2)]
    figures[1].text(0.2, 0.5, "text")
    blank, written = (imread(io.BytesIO(encode_png(figure))) for figure in figures)
    assert np.unique(blank[..., :3]).size == 1
    assert (blank != written).any()


def test_a_page_holds_its_title_and_its_parts_in_order():
    page = Page(render_page("The title", [render_paragraph("one"), render_heading("two"), render_paragraph("three")]))
    assert page.declaration.lower() == "doctype html"
    shown = [(tag, text) for tag, text in page.texts if tag != "style"]
    assert shown == [("title", "The title"), ("h1", "The title"), ("p", "one"), ("h2", "two"), ("p", "three")]


def test_a_page_says_that_it_is_utf_8_before_any_other_text():
    text = render_page("größer", [])
    assert text.index('<meta charset="utf-8">') < text.index("<title>")
    assert Page(text.encode().decode("utf-8")).texts[-1] == ("h1", "größer")


def test_a_page_refers_to_nothing_outside_itself():
    text = render_page("title", [render_paragraph("text"), render_picture(b"bytes", "picture"), render_table([("a",)])])
    page = Page(text)
    assert len(page.links) == 1
    assert page.links[0].startswith("data:")
    assert not {"script", "link", "iframe", "object", "embed"} & {*page.tags}
    assert "url(" not in text
    assert "@import" not in text


def test_thumbnails_stand_in_a_row_above_their_captions():
    shown = render_row(
        [render_thumbnail(b"bytes", ["distance 1", NASTY], "found"), render_thumbnail(None, ["x"], "query")]
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


def test_a_comparison_marks_what_is_wrong():
    found = [Thumbnail(b"1", "near"), Thumbnail(b"2", NASTY, wrong=True)]
    page = Page(render_comparison(Thumbnail(b"0", "query"), [("one: 1 of 2", found), ("other", found[:1])]))
    assert [image["alt"] for image in page.images] == ["query", "near", f"{NASTY}, wrong", "near"]
    assert [png_of(image) for image in page.images] == [b"0", b"1", b"2", b"1"]
    assert page.texts == [("p", "one: 1 of 2"), ("p", "other")]


def test_gray_values_are_drawn_as_ink_and_colors_kept(rng):
    image = rng.integers(0, 256, (2, 3, 3), dtype=np.uint8)
    assert draw_as_ink(image) is image
    gray = np.array([[0, 255], [10, 20]], np.uint8)
    for shape in ((2, 2), (2, 2, 1)):
        drawn = draw_as_ink(gray.reshape(shape))
        assert drawn.dtype == np.uint8
        assert drawn.tolist() == [[[255] * 3, [0] * 3], [[245] * 3, [235] * 3]]


def test_a_page_has_its_own_script_and_style_alone(browser, tmp_path):
    parts = ["<script>window.injected = 1</script>", "<style>body { margin: 77px }</style>"]
    page = render_page("page", parts, style="h1 { margin: 12px }", script="window.own = '</p>';")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    browser.open(tmp_path / "page.html")
    assert browser.run("[window.own, window.injected]") == ["</p>", None]
    assert (
        browser.run("[document.body, document.querySelector('h1')].map((e) => getComputedStyle(e).marginLeft)")[1]
        == "12px"
    )
    assert browser.run("getComputedStyle(document.body).marginLeft") != "77px"
    assert len(browser.console) == 2  # what was refused


def test_a_page_without_a_script_lets_none_run():
    assert "script-src 'none'" in render_page("page", [])
