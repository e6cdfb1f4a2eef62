"""The demo: what it prints and writes is held against the model and the codes that it saves."""

import contextlib
import io
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import status_of
from demo_model import make_small_model
from matplotlib.image import imread
from pages import PNG, Page, png_of

import jaxhash as jh
from jaxhash.cli import demo, demo_answers, demo_learning, demo_times

PICTURES = {
    f"{name}.png" for name in ("training-reconstruct", "training-retrieve", "reconstructions", "buckets", "matches")
}
OBJECTIVES = ("reconstruct", "retrieve")
EPOCHS, BITS = 2, 8
SHOWN = 4


def lines_after(text, first):
    """The lines of a table in the terminal, split at wide gaps, from the one with the given first cells."""
    lines = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    start = next(i for i, cells in enumerate(lines) if cells[: len(first)] == first)
    return lines[start:]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The one run of the demo that these tests share: what it printed, and its folder."""
    output = tmp_path_factory.mktemp("demo") / "new" / "folder"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_learning, "SHOWN_IMAGES", SHOWN)
        patch.setattr(demo_answers, "SHOWN_QUERIES", SHOWN)
        patch.setattr(demo, "_make_model", make_small_model)
        status = status_of("demo", "--dataset", "digits", "--epochs", EPOCHS, "--bits", BITS, "--output", output)
    return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue(), output=output)


@pytest.fixture(scope="module")
def page(told):
    return Page((told.output / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data():
    return jh.load_dataset("digits")


@pytest.fixture(scope="module")
def retrievers(told):
    return [jh.load_retriever(told.output / f"{objective}.npz") for objective in OBJECTIVES]


@pytest.fixture(scope="module")
def codes(retrievers, data):
    """For each model, the codes of the images indexed and of those searched with."""
    return [
        [np.asarray(jh.encode(retriever.model, images)) for images in (data.train_images, data.test_images)]
        for retriever in retrievers
    ]


@pytest.fixture(scope="module")
def distances(codes):
    """For each model, of each query to each item."""
    return [np.bitwise_count(queries[:, None] ^ items).sum(-1) for items, queries in codes]


def rank(distances, items):
    """The ids of the ten nearest items of each query, by (distance, code, id)."""
    keys = distances.astype(np.int64) << 32 | items[:, 0]
    return np.argsort(keys, axis=1, kind="stable")[:, :10]


@pytest.fixture(scope="module")
def nearest(codes, distances):
    """For each model, the ids of the ten nearest of each query."""
    return [rank(gaps, items) for gaps, (items, _) in zip(distances, codes, strict=True)]


def test_the_demo_succeeds_without_warnings(told):
    assert told.status == 0
    assert told.err == ""


def test_the_demo_writes_a_page_charts_and_retrievers_alone(told):
    assert {path.name for path in told.output.iterdir()} == set(demo.FILES)
    assert set(PICTURES) < set(demo.FILES)


def test_the_demo_says_what_it_learns_from(told, page, data):
    for text in (" ".join(told.out.split()), str(page.texts)):
        assert f"{len(data.train_images):,} images of digits, of 8x8 pixels" in text
        assert f"{BITS} bits" in text


def test_the_demo_prints_the_layers_of_its_model(told):
    total = next(line for line in told.out.splitlines() if line.startswith("total"))
    both_ways = [*itertools.pairwise([64, 32, BITS]), *itertools.pairwise([BITS, 32, 64])]
    assert total.split()[1] == f"{sum((a + 1) * b for a, b in both_ways):,}"


def test_the_demo_prints_a_falling_loss_for_both_models(told):
    found = re.findall(r"epoch +(\d+) of (\d+) +loss (\d+\.\d{4}) ", told.out)
    assert [(int(epoch), int(of)) for epoch, of, _ in found] == [(1, EPOCHS), (2, EPOCHS)] * 2
    losses = [float(loss) for *_, loss in found]
    assert 0 < losses[1] < losses[0]
    assert 0 < losses[3] < losses[2]


def test_the_demo_prints_the_losses_of_the_saved_model(told, page, retrievers, data):
    for images in (data.train_images, data.test_images):
        loss = f"{jh.training.reconstruction_loss(retrievers[0].model, images):.4f}"
        assert loss in told.out
        assert any(loss in text for _, text in page.texts)


def test_the_table_of_answers_equals_comparing_all_codes(told, nearest, retrievers, data):
    rows = lines_after(told.out, ["trained to, ranked by"])[1:5]
    assert [row[0] for row in rows] == [
        f"{name}, {ranking}" for name in OBJECTIVES for ranking in ("Hamming", "weighted")
    ]
    for near, retriever, *both in zip(nearest, retrievers, rows[::2], rows[1::2], strict=True):
        weighted = jh.retrieve(retriever, data.test_images, k=10, weighted=True).ids
        for ids, row in zip((near, weighted), both, strict=True):
            judged = (ids, data.train_labels, data.test_labels)
            assert row[1:] == [f"{jh.metrics.precision_at_k(*judged):.1%}", f"{jh.metrics.vote_accuracy(*judged):.1%}"]


def test_votes_of_codes_beat_chance(nearest, data):
    assert jh.metrics.precision_at_k(nearest[1], data.train_labels, data.test_labels) > 0.2  # ten labels: chance is 0.1


def test_the_page_shows_for_each_query_what_both_models_find(page, nearest, distances, data):
    shown = [image["alt"] for image in page.images[: SHOWN * 21]]
    expected = []
    for row in range(SHOWN):
        expected.append(f"query {row}, label {data.test_labels[row]}")
        for near, gaps in zip(nearest, distances, strict=True):
            for number in near[row]:
                label = data.train_labels[number]
                wrong = "" if label == data.test_labels[row] else ", wrong"
                expected.append(f"distance {gaps[row, number]}, label {label}{wrong}")
    assert shown == expected
    assert any(alt.endswith("wrong") for alt in shown)


def test_the_page_shows_the_pictures_of_what_was_found(page, nearest, data):
    for place, number in enumerate(nearest[0][0], start=1):
        pixels = imread(io.BytesIO(png_of(page.images[place])))
        np.testing.assert_array_equal(np.round(pixels * 255), 255 - data.train_images[number])


def test_the_table_of_codes_counts_the_items_on_each(told, codes):
    rows = lines_after(told.out, ["trained to", "codes"])[1:3]
    for (items, _), row in zip(codes, rows, strict=True):
        _, density = np.unique(items[:, 0], return_counts=True)
        ones = np.bitwise_or.reduce(items[:, 0]) & ~np.bitwise_and.reduce(items[:, 0])
        assert int(row[1]) == len(density)
        assert int(row[2]) == BITS - int(ones).bit_count()
        shape = [np.median(density), density.mean(), density.max()]
        assert [float(cell) for cell in row[3:]] == pytest.approx(shape, abs=0.005)


def test_the_table_of_matches_equals_the_rule_and_all_distances(told, data, distances):
    rows = lines_after(told.out, ["radius", "rule"])[1:5]
    balls = [1, 1 + 8, 1 + 8 + 28, 1 + 8 + 28 + 56]
    for radius, (row, ball) in enumerate(zip(rows, balls, strict=True)):
        means = [(gaps <= radius).sum(1).mean() for gaps in distances]
        expected = [radius, len(data.train_images) * ball / 256, *means]
        assert [float(cell.replace(",", "")) for cell in row] == pytest.approx(expected, abs=0.051)


def test_the_demo_times_the_post_s_ways_beside_the_index(told):
    rows = lines_after(told.out, ["radius", "look-ups"])[1:5]
    assert [row[:2] for row in rows] == [["0", "1"], ["1", "9"], ["2", "37"], ["3", "93"]]
    rows += lines_after(told.out, ["10 nearest"])[1:5]
    for row in rows:
        assert all(0 < float(cell.replace(",", "")) < 60e6 for cell in row[2:])


def test_the_dictionary_finds_what_the_index_finds(codes):
    for items, queries in codes:
        for radius in (0, 2):
            find = demo_times.make_dictionary_search(items, queries, BITS, radius)
            matches = jh.radius_search(jh.build_index(items, BITS), queries, radius=radius)
            for row, ids in enumerate(np.split(matches.ids, matches.offsets[1:-1])):
                assert sorted(find(row)) == sorted(ids)


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_each_picture_is_a_named_png_that_is_not_blank(told, name):
    content = (told.output / name).read_bytes()
    assert content.startswith(PNG)
    assert content.endswith(b"IEND\xaeB\x60\x82")
    pixels = imread(io.BytesIO(content))
    assert min(pixels.shape[:2]) > 100
    assert np.unique(pixels[..., :3]).size > 10
    assert str(told.output / name) in told.out


def test_the_page_shows_the_charts_that_were_saved(told, page):
    saved = {name: (told.output / name).read_bytes() for name in PICTURES}
    shown = [png_of(image) for image in page.images[SHOWN * 21 :]]
    assert sorted(shown) == sorted(saved.values())
    assert all(image["alt"].strip() for image in page.images)


def test_the_page_needs_nothing_but_itself(told, page):
    assert page.links
    assert all(link.startswith("data:") for link in page.links)
    text = (told.output / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|<script|<link", text, re.IGNORECASE)


def test_the_page_has_the_tables_of_the_terminal(told, page):
    assert [len(table) for table in page.tables] == [5, 5, 5, 3, 3, 5]
    printed = [line.split() for line in told.out.splitlines()]
    for table in page.tables:
        assert len(table) > 1
        for row in table:
            assert " ".join(row).split() in printed


def test_the_page_has_the_order_of_the_terminal(told, page):
    sections = [text for tag, text in page.texts if tag == "h2"]
    assert sections[:3] == ["What is found", "How fast", "How the codes were learned"]
    places = [told.out.index(f"\n{section}\n") for section in sections]
    assert places == sorted(places)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_a_phone_and_a_desktop(browser, told, width):
    browser.show(width, 844)
    browser.open(told.output / "report.html")
    assert browser.console == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("Array.from(document.images).every((image) => image.naturalWidth > 0)")


def test_the_command_for_more_names_the_retriever(told, page):
    assert ("pre", f"jaxhash explore {told.output / 'retrieve.npz'} --dataset digits -o explore.html") in page.texts


def test_the_retrievers_hold_the_codes_of_all_images(retrievers, codes):
    for retriever, (items, _) in zip(retrievers, codes, strict=True):
        assert retriever.index.num_bits == retriever.model.num_bits == BITS
        rebuilt = jh.build_index(items, BITS)
        for name in ("codes", "offsets", "ids", "num_codes", "num_items"):
            np.testing.assert_array_equal(getattr(retriever.index, name), getattr(rebuilt, name))
