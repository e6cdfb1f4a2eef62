"""Pages to explore: what stands in them, and what a browser that clicks through them finds."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from command_line import error_of, run
from pages import Page

import jaxhash as jh
from jaxhash.cli import explore
from jaxhash.cli.collection import load_collection, save_collection
from jaxhash.cli.page import PAGE_START, draw_as_ink, read_asset
from jaxhash.cli.sheets import make_sheets

# 40 bits, a second word that is not full; some items on one code, and many at one distance.
COUNT, BITS = 1200, 40


@pytest.fixture(scope="module")
def bits():
    """For each item, one of 60 patterns with up to three bits flipped."""
    rng = np.random.default_rng(0)
    rows = (rng.random((60, BITS)) < 0.5)[rng.integers(0, 60, COUNT)]
    rows[np.arange(COUNT)[:, None], rng.integers(0, 12, (COUNT, 3))] ^= rng.random((COUNT, 3)) < 0.5
    return rows


@pytest.fixture(scope="module")
def index(bits):
    return jh.build_index(jh.pack_bits(bits), BITS)


@pytest.fixture(scope="module")
def digits_page(tmp_path_factory, index):
    """A page of these codes, with digits for pictures: two sheets, the second one not full."""
    folder = tmp_path_factory.mktemp("explore")
    jh.save_index(folder / "index.npz", index)
    explore.run_explore(str(folder / "index.npz"), str(folder / "page.html"), dataset="digits")
    return folder / "page.html"


@pytest.fixture(scope="module")
def opened(browser, digits_page):
    """The browser with that page."""
    browser.show(1280, 900)
    browser.open(digits_page)
    wait = "const wait = () => (document.querySelector('.tile') ? done() : setTimeout(wait));"  # for its pictures
    browser.run(f"new Promise((done) => {{ {wait} wait(); }})")
    assert browser.console == []
    return browser


STEPS = """
const byId = (id) => document.getElementById(id);
const set = (id, value) => {
  byId(id).value = value;
  for (const event of ["input", "change"]) byId(id).dispatchEvent(new Event(event));
};
const choose = (id) => {
  set("name", `${id}, label`);
  document.querySelector(`.tile[data-id="${id}"]`).click();
};
const showAll = () => { for (const more of document.querySelectorAll(".more")) while (!more.hidden) more.click(); };
const idsIn = (element) => Array.from(element.querySelectorAll(".tile"), (tile) => Number(tile.dataset.id));
const notes = () => Array.from(document.querySelectorAll(".tile .note:last-child"), (note) => note.textContent);
"""


def in_page(browser, script, argument=None):
    """What some steps return, for an argument."""
    return browser.run(f"((given) => {{ {STEPS} {script} }})({json.dumps(argument)})")


def read_notes(notes):
    return [0 if note == "itself" else int(note.split()[0]) for note in notes]


def test_the_nearest_in_a_browser_are_those_of_search(opened, index, bits):
    asked = np.arange(0, COUNT, 41).tolist()
    script = "return given.map((id) => { choose(id); set('k', 25); return [idsIn(document), notes()]; })"
    found = in_page(opened, script, asked)
    neighbors = jh.search(index, jh.pack_bits(bits[asked]), k=25)
    assert [ids for ids, _ in found] == neighbors.ids.tolist()
    assert [read_notes(notes) for _, notes in found] == neighbors.distances.tolist()


@pytest.mark.parametrize("radius", [0, 3, BITS])
def test_matches_in_a_browser_are_those_of_radius_search(opened, index, bits, radius):
    asked = [5, 700]
    script = "return given[0].map((id) => { choose(id); set('radius', given[1]); showAll(); return idsIn(document); })"
    matches = jh.radius_search(index, jh.pack_bits(bits[asked]), radius=radius)
    expected = [part.tolist() for part in np.split(matches.ids, matches.offsets[1:-1])]
    assert in_page(opened, script, [asked, radius]) == expected


@pytest.mark.parametrize("radius", [0, 1])
def test_duplicates_in_a_browser_are_those_of_duplicate_groups(opened, index, radius):
    script = """
    document.querySelector("[data-view=duplicates]").click();
    set("reach-radius", given);
    showAll(); showAll();
    return Array.from(document.querySelectorAll(".group"), idsIn);
    """
    assert in_page(opened, script, radius) == [group.tolist() for group in jh.duplicate_groups(index, radius=radius)]


def test_two_codes_are_shown_bit_by_bit(opened, bits):
    script = """
    choose(7);
    document.querySelector("[data-view=all]").click();
    document.querySelector("[value=compare]").click();
    choose(11);
    document.querySelector("[value=search]").click();
    return [byId("compared").innerText, Array.from(document.querySelectorAll(".bit"), (bit) => bit.className)];
    """
    text, classes = in_page(opened, script)
    upper, lower = classes[::2], classes[1::2]
    assert ["one" in name for name in upper] == bits[7].tolist()
    assert ["one" in name for name in lower] == bits[11].tolist()
    assert ["differs" in name for name in upper] == (bits[7] != bits[11]).tolist()
    assert text.split("\n")[-1] == f"{(bits[7] != bits[11]).sum()} bits of {BITS} differ."


def test_each_tile_shows_the_picture_of_its_item(opened):
    script = """
    return given.map((id) => {
      choose(id);
      const picture = document.querySelector(".itself canvas");
      const { data, width, height } = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height);
      return [Array.from(data), width, height];
    });
    """
    asked = list(range(0, COUNT, 100))
    images = jh.load_dataset("digits").train_images
    for number, (values, width, height) in zip(asked, in_page(opened, script, asked), strict=True):
        pixels = np.array(values, np.uint8).reshape(height, width, 4)[..., :3]
        np.testing.assert_array_equal(pixels, draw_as_ink(images[number]))


def test_the_first_item_of_a_name_is_chosen_by_the_enter_key(opened):
    in_page(opened, "byId('name').value = '77'; byId('name').focus(); byId('name').dispatchEvent(new Event('input'));")
    opened.press("Enter", 13)
    assert in_page(opened, "return document.querySelector('.itself').dataset.id") == "77"


def test_the_element_in_focus_is_outlined(opened):
    in_page(opened, "byId('name').focus();")
    for tag in ("BUTTON", "INPUT", "INPUT"):
        opened.press("Tab", 9)
        script = "return [document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
        assert in_page(opened, script) == [tag, "solid"]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_a_phone_and_a_desktop(opened, width):
    opened.show(width, 844)
    views = "['near', 'all', 'duplicates']"
    script = f"return {views}.map((view) => {{ document.querySelector(`[data-view=${{view}}]`).click(); " + (
        "return document.documentElement.scrollWidth; })"
    )
    assert max(in_page(opened, script)) <= width


def test_no_script_but_the_page_s_own_runs(opened):
    script = """
    const added = document.createElement("script");
    added.textContent = "window.added = true";
    document.body.append(added);
    document.body.insertAdjacentHTML("beforeend", "<img src='data:x' onerror='window.added = true'>");
    return new Promise((done) => setTimeout(() => done(window.added === undefined), 50));
    """
    assert in_page(opened, script)


def data_of(path):
    """What a page holds for its script."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text).group(1))


def test_a_page_refers_to_nothing_outside_itself(digits_page):
    page = Page(digits_page.read_text(encoding="utf-8"))
    assert len(page.links) == 2
    assert all(link.startswith("data:image/png") for link in page.links)
    assert not re.search(r"https?:|url\(|@import|<link", digits_page.read_text(encoding="utf-8"))
    assert not re.search(r" on\w+=| style=", read_asset("explore.html"))


def test_vectors_are_shown_by_the_numbers_of_their_rows(embeddings, tmp_path, capsys):
    out = run(capsys, "explore", embeddings / "v", "-o", tmp_path / "page.html").out
    assert "250 items on codes of" in out
    assert "gone" not in out
    data = data_of(tmp_path / "page.html")
    assert sorted(data["names"], key=int) == [str(row) for row in range(250)]
    assert data["cell"] == 0


NASTY = '</script><img src="x" onerror="alert(1)"><!--{0}.png'


def test_names_are_text_and_missing_files_are_named(folder, capsys):
    collection = load_collection(folder / "photos.npz")
    source = str(folder / "photos")
    save_collection(folder / "f", replace(collection, source=source, names=(NASTY, *collection.names[1:])))
    out = run(capsys, "explore", folder / "f", "-o", folder / "page.html").out
    assert "1 pictures are gone" in out
    text = (folder / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 2
    assert page.tags.count("img") == 1
    data = data_of(folder / "page.html")
    assert NASTY in data["names"]
    sizes = np.frombuffer(base64.b64decode(data["sizes"]), np.uint8).reshape(-1, 2)
    place = data["names"].index(NASTY)
    assert np.flatnonzero((sizes == 0).all(1)).tolist() == [place]


def test_a_limit_shows_the_first_ids_and_names_the_rest(digits_page, tmp_path, capsys, monkeypatch):
    file = digits_page.parent / "index.npz"
    monkeypatch.setattr(explore, "MAX_ITEMS", 1000)
    error = error_of(capsys, "explore", file, "-o", tmp_path / "page.html")
    assert "1,200 items" in error
    assert "--limit 1200" in error
    assert not (tmp_path / "page.html").exists()
    out = run(capsys, "explore", file, "-o", tmp_path / "page.html", "--limit", 30).out
    for text in (out, (tmp_path / "page.html").read_text()):
        assert "30 items on codes of 40 bits. They are the first by id; 1,170 of 1,200 are left out." in text
    assert sorted(map(int, data_of(tmp_path / "page.html")["names"])) == list(range(30))
    run(capsys, "explore", file, "-o", tmp_path / "page.html", "--limit", 1200)
    assert len(data_of(tmp_path / "page.html")["names"]) == COUNT


def test_files_without_a_page_are_one_line(original, digits_page, tmp_path, capsys):
    file, page = digits_page.parent / "index.npz", tmp_path / "page.html"
    assert "--dataset" in error_of(capsys, "explore", original / "photos.npz", "-o", page, "--dataset", "digits")
    assert "limit" in error_of(capsys, "explore", file, "-o", page, "--limit", 0)
    assert "no folder" in error_of(capsys, "explore", file, "-o", tmp_path / "none" / "page.html")
    codes = jh.pack_bits(np.zeros((2, 3), bool))
    jh.save_index(tmp_path / "far", jh.build_index(codes, 3, ids=[3, 99999]))
    assert "99999" in error_of(capsys, "explore", tmp_path / "far", "-o", page, "--dataset", "digits")
    jh.save_index(tmp_path / "none", jh.build_index(codes[:0], 3))
    assert "no items" in error_of(capsys, "explore", tmp_path / "none", "-o", page)
    jh.save_index(tmp_path / "multi", jh.build_index(codes[:, None], 3, multi=True))
    assert "several codes" in error_of(capsys, "explore", tmp_path / "multi", "-o", page)
    assert not page.exists()


def test_ctrl_c_leaves_the_old_page(digits_page, tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    (tmp_path / "page.html").write_bytes(PAGE_START + b"old")
    monkeypatch.setattr("os.fsync", interrupt)
    run(capsys, "explore", digits_page.parent / "index.npz", "-o", tmp_path / "page.html", status=130)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_bytes() == PAGE_START + b"old"


def test_a_sheet_of_colored_noise_becomes_a_small_jpeg(rng):
    noise = rng.integers(0, 256, (1000, 64, 64, 3), dtype=np.uint8)
    sheets = make_sheets([*noise])
    assert sheets.cell == 64
    assert (sheets.sizes == 64).all()
    assert [url.partition(",")[0] for url in sheets.urls] == ["data:image/jpeg;base64"]
