"""Galleries: what they show, to a parser and to a browser."""

import re
import shutil
from pathlib import Path

import pytest
from command_line import found_in, read_pixels, run
from pages import Page, png_of
from PIL import Image


def test_a_gallery_shows_the_query_and_what_was_found(original, tmp_path, capsys):
    photo = original / "photos" / "003.png"
    arguments = ("query", original / "photos.npz", photo, "-k", 4, "--gallery")
    _, paths = found_in(run(capsys, *arguments, tmp_path / "g.html").out)
    text = (tmp_path / "g.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [image["alt"] for image in page.images] == ["003.png", *(Path(path).name for path in paths)]
    assert all(png_of(image).startswith(b"\x89PNG") for image in page.images)
    assert all(link.startswith("data:") for link in page.links)
    assert not re.search(r"https?:|url\(|@import|<script|<link", text, re.IGNORECASE)
    run(capsys, *arguments, tmp_path / "g.png")
    height, width = read_pixels(tmp_path / "g.png").shape[:2]
    assert width > 4 * height > 100


def test_a_gallery_says_where_an_image_is_gone(folder, capsys):
    photo = folder / "outside.png"
    shutil.copy(folder / "photos" / "003.png", photo)
    paths = found_in(run(capsys, "query", folder / "photos.npz", photo, "-k", 3).out)[1]
    gone = Path(paths[1])
    kept = gone.rename(folder / "kept.png")  # paths lead to the photos of all tests, not to a copy of them
    try:
        for kind in ("html", "png"):
            run(capsys, "query", folder / "photos.npz", photo, "-k", 3, "--gallery", folder / f"g.{kind}")
    finally:
        kept.rename(gone)
    page = Page((folder / "g.html").read_text(encoding="utf-8"))
    assert len(page.images) == 3
    assert ("p", "can't be shown") in page.texts


def test_a_browser_shows_the_gallery_with_its_thumbnails(browser, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    shades = {"red.png": (250, 10, 10), "green.png": (10, 250, 10), "blue.png": (10, 10, 250)}
    for name, shade in shades.items():
        Image.new("RGB", (40, 40), shade).save(tmp_path / "in" / name)
    run(capsys, "build", tmp_path / "in", "-o", tmp_path / "f", "--side", 8, "--epochs", 1)
    run(capsys, "query", tmp_path / "f", tmp_path / "in" / "red.png", "--gallery", tmp_path / "g.html")
    browser.show(1000, 2000)
    browser.open(tmp_path / "g.html")
    assert browser.console == []
    (tmp_path / "shot.png").write_bytes(browser.take_screenshot())
    shot = read_pixels(tmp_path / "shot.png")
    assert shot.shape == (2000, 1000, 3)
    for shade, times in zip(shades.values(), (2, 1, 1), strict=True):  # red is the query, and found
        assert (shot == shade).all(2).sum() == pytest.approx(times * 128**2, rel=0.1)
