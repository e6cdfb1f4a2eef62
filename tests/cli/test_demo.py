"""The demo: what it prints and writes is held against the model and the codes that it saves."""

import contextlib
import io
import itertools
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import assert_one_line, status_of
from matplotlib.figure import Figure
from matplotlib.image import imread
from pages import PNG, Page, png_of

import jaxhash as jh
from jaxhash import datasets
from jaxhash.cli import demo

PICTURES = {f"{name}.png" for name in ("training", "reconstructions", "buckets", "matches", "search", "linear")}


EPOCHS, BITS = 2, 8


SHOWN = 4  # images and queries; drawing is slow


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.delenv("JAXHASH_DATA", raising=False)
    monkeypatch.setattr(datasets, "_network_answers", lambda: False)


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
        patch.setattr(demo, "SHOWN_IMAGES", SHOWN)
        patch.setattr(demo, "SHOWN_QUERIES", SHOWN)
        status = status_of("demo", "--dataset", "digits", "--epochs", EPOCHS, "--bits", BITS, "--output", output)
    return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue(), output=output)


@pytest.fixture(scope="module")
def page(told):
    return Page((told.output / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data():
    return jh.load_dataset("digits")


@pytest.fixture(scope="module")
def retriever(told):
    return jh.load_retriever(told.output / "retriever.npz")


@pytest.fixture(scope="module")
def codes(retriever, data):
    """Codes of the images indexed and of those searched with."""
    return tuple(np.asarray(jh.encode(retriever.model, images)) for images in (data.train_images, data.test_images))


@pytest.fixture(scope="module")
def distances(codes):
    """Of each query to each item."""
    return np.bitwise_count(codes[1][:, None] ^ codes[0]).sum(-1)


@pytest.fixture(scope="module")
def nearest(codes, distances):
    """Distances and ids of the ten nearest items of each query, by (distance, code, id)."""
    keys = distances.astype(np.int64) << 32 | codes[0][:, 0]
    ids = np.argsort(keys, axis=1, kind="stable")[:, :10]
    return np.take_along_axis(distances, ids, 1), ids


def test_the_demo_ends_well_and_complains_of_nothing(told):
    assert told.status == 0
    assert told.err == ""


def test_the_demo_leaves_its_pictures_page_and_retriever_and_nothing_else(told):
    assert {path.name for path in told.output.iterdir()} == {*PICTURES, "retriever.npz", "report.html"}


def test_the_demo_says_what_it_learns_from(told, page, data):
    for text in (told.out, str(page.texts)):
        assert "digits" in text
        assert f"{len(data.train_images):,} images of 8x8" in text
        assert f"{BITS} bits" in text


def test_the_demo_prints_the_layers_of_its_model(told, retriever):
    total = next(line for line in told.out.splitlines() if line.startswith("total"))
    sizes = [64, *retriever.model.config["hidden_dims"], BITS]
    both_ways = [*itertools.pairwise(sizes), *itertools.pairwise(sizes[::-1])]
    assert total.split()[1] == f"{sum((a + 1) * b for a, b in both_ways):,}"


def test_the_demo_prints_a_falling_loss_for_each_epoch(told):
    found = re.findall(r"epoch +(\d+) of (\d+) +loss (\d+\.\d{4}) ", told.out)
    assert [(int(epoch), int(of)) for epoch, of, _ in found] == [(1, EPOCHS), (2, EPOCHS)]
    first, last = (float(loss) for *_, loss in found)
    assert 0 < last < first < 2 * np.log(2)


def test_the_demo_prints_the_losses_of_the_model_that_it_saves(told, page, retriever, data):
    for images in (data.train_images, data.test_images):
        loss = f"{jh.reconstruction_loss(retriever.model, images):.4f}"
        assert loss in told.out
        assert any(loss in text for _, text in page.texts)


def test_the_density_table_counts_the_items_on_each_code(told, codes):
    _, density = np.unique(codes[0], axis=0, return_counts=True)
    head, row = lines_after(told.out, ["min"])[:2]
    assert head == ["min", "median", "mean", "max"]
    name, *cells = row
    assert name == "density"
    assert [float(cell) for cell in cells] == pytest.approx(
        [density.min(), np.median(density), density.mean(), density.max()], abs=0.005
    )
    assert f"{len(density):,} distinct codes" in told.out


def test_the_expected_matches_are_those_of_the_rule_by_hand(told, data):
    items = len(data.train_images)
    rows = lines_after(told.out, ["radius", "expected", "found"])[1:5]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    balls = [1, 1 + 8, 1 + 8 + 28, 1 + 8 + 28 + 56]
    assert [float(row[1]) for row in rows] == pytest.approx([items * ball / 256 for ball in balls], abs=0.051)


def test_the_found_matches_are_those_of_comparing_all_codes(told, distances):
    rows = lines_after(told.out, ["radius", "expected", "found"])[1:5]
    means = [(distances <= radius).sum(1).mean() for radius in range(4)]
    assert [float(row[2]) for row in rows] == pytest.approx(means, abs=0.051)


def test_the_demo_prints_how_well_labels_agree(told, nearest, data):
    labels = (nearest[1], data.train_labels, data.test_labels)
    assert f"{jh.precision_at_k(*labels):.1%}" in told.out
    assert f"{jh.vote_accuracy(*labels):.1%}" in told.out


def test_the_demo_times_linear_search_beside_the_index(told):
    rows = lines_after(told.out, ["method", "time", "same label"])[1:4]
    assert [row[0].split(",")[0] for row in rows] == ["linear", "index", "index"]
    for row in rows:
        number, unit = row[1].split()
        assert unit == "ms"
        assert 0 < float(number) < 60_000
    shares = [float(row[2].removesuffix("%")) for row in rows[:2]]
    assert all(0 <= share <= 100 for share in shares)


def test_the_share_of_the_index_is_that_of_comparing_all_codes(told, nearest, data):
    share = jh.precision_at_k(nearest[1][:20], data.train_labels, data.test_labels[:20])
    row = next(row for row in lines_after(told.out, ["method"]) if row[0] == "index, 10 nearest")
    assert float(row[2].removesuffix("%")) == pytest.approx(100 * share, abs=0.51)


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_each_picture_is_a_png_with_something_on_it_and_is_named(told, name):
    content = (told.output / name).read_bytes()
    assert content.startswith(PNG)
    assert content.endswith(b"IEND\xaeB\x60\x82")
    pixels = imread(io.BytesIO(content))
    assert min(pixels.shape[:2]) > 100
    assert np.unique(pixels[..., :3]).size > 10
    assert str(told.output / name) in told.out


def test_the_picture_of_the_search_has_red_where_a_label_is_wrong(told, nearest, data):
    wrong = data.train_labels[nearest[1][:SHOWN]] != data.test_labels[:SHOWN, None]
    red, green, blue = np.moveaxis(imread(told.output / "search.png")[..., :3], -1, 0)
    assert ((red > 0.6) & (green < 0.4) & (blue < 0.4)).any() == wrong.any()


def test_the_page_shows_the_pictures_that_were_saved(told, page):
    saved = {name: (told.output / name).read_bytes() for name in PICTURES}
    shown = [png_of(image) for image in page.images]
    assert sorted(shown) == sorted(saved.values())
    assert all(image["alt"].strip() for image in page.images)


def test_the_page_needs_nothing_but_itself(told, page):
    assert page.links
    assert all(link.startswith("data:") for link in page.links)
    text = (told.output / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|<script|<link", text, re.IGNORECASE)


def test_the_page_has_the_tables_of_the_terminal(told, page):
    assert [table[0][-1] for table in page.tables] == ["max", "found", "same label"]
    printed = [line.split() for line in told.out.splitlines()]
    for table in page.tables:
        assert len(table) > 1
        for row in table:
            assert " ".join(row).split() in printed


def test_the_page_tells_its_story_in_the_order_of_the_terminal(told, page):
    sections = [text for tag, text in page.texts if tag == "h2"]
    assert len(sections) >= 4
    places = [told.out.index(f"\n{section}\n") for section in sections]
    assert places == sorted(places)


def test_the_retriever_holds_the_codes_of_all_images(retriever, codes):
    assert retriever.index.num_bits == retriever.model.num_bits == BITS
    rebuilt = jh.build_index(codes[0], BITS)
    for name in ("codes", "offsets", "ids", "num_codes", "num_items"):
        np.testing.assert_array_equal(getattr(retriever.index, name), getattr(rebuilt, name))


def test_the_codes_know_more_than_chance(nearest, data):
    assert jh.precision_at_k(nearest[1], data.train_labels, data.test_labels) > 0.2  # ten labels: chance is 0.1


@pytest.fixture
def only_words(monkeypatch):
    """Leaves out what takes long: training and drawing."""
    monkeypatch.setattr(demo, "fit", lambda model, images, **_: (model, jh.History((0.5,))))
    for name in ("bucket_histogram", "matches_by_radius", "reconstructions", "search_results", "training_curve"):
        monkeypatch.setattr(demo.plots, name, lambda *_, **__: Figure(figsize=(1, 1)))


def test_without_mnist_the_demo_falls_back_to_mnist_5k_and_says_so(monkeypatch, tmp_path, capsys, only_words, data):
    asked = []

    def load(name, data_dir=None):
        asked.append(name)
        return data._replace(name=name) if name == "mnist-5k" else jh.load_dataset(name, data_dir)

    monkeypatch.setattr(demo, "load_dataset", load)
    assert status_of("demo", "--epochs", EPOCHS, "--bits", BITS, "--output", tmp_path) == 0
    assert asked == ["mnist", "mnist-5k"]
    out = capsys.readouterr().out
    assert "network" in out  # why there is no MNIST
    assert "JAXHASH_DATA" in out  # and what to do about it
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert any("mnist-5k" in line and "in place of full MNIST" in line for line in out.splitlines())
    assert any("mnist-5k" in text and "in place of full MNIST" in text for _, text in page.texts)
    assert all("mnist-5k" in text for tag, text in page.texts if tag in ("title", "h1"))


def test_by_default_bits_and_epochs_follow_from_the_number_of_images(monkeypatch, tmp_path, capsys):
    asked = {}

    def fit(model, images, *, epochs, batch_size, **_):
        asked.update(bits=model.num_bits, steps=epochs * len(images) / batch_size)
        raise ValueError("enough")

    images, labels = np.zeros((102, 8, 8), np.uint8), np.zeros(102, np.int32)
    monkeypatch.setattr(demo, "fit", fit)
    monkeypatch.setattr(demo, "load_dataset", lambda name, _: jh.Dataset(name, images, labels, images, labels))
    assert status_of("demo", "--output", tmp_path) == 2
    assert asked["bits"] == 8  # 102 images, 0.4 on each of 256 codes
    assert asked["steps"] == pytest.approx(2000, rel=0.01)
    assert capsys.readouterr().err == "jaxhash: error: enough\n"


def test_missing_data_files_are_one_line_that_names_files_and_folders(tmp_path, capsys):
    options = ("--dataset", "mnist", "--data-dir", tmp_path / "data", "--output", tmp_path / "out")
    assert status_of("demo", *options) == 2
    assert_one_line(capsys, *datasets.IDX_FILES, tmp_path / "data", tmp_path / "data" / "mnist")


def test_a_data_set_that_was_asked_for_by_name_is_not_replaced(tmp_path, capsys):
    assert status_of("demo", "--dataset", "fashion-mnist", "--output", tmp_path) == 2
    assert_one_line(capsys, "fashion-mnist", "network")


def test_a_damaged_data_file_is_one_line_that_names_it(tmp_path, capsys):
    for file in datasets.IDX_FILES:
        (tmp_path / file).write_bytes(b"<html>\nnot found\n</html>")
    assert status_of("demo", "--dataset", "mnist", "--data-dir", tmp_path, "--output", tmp_path / "out") == 2
    assert_one_line(capsys, tmp_path / datasets.IDX_FILES[0])


@pytest.mark.parametrize("option", ["--bits", "--epochs"])
@pytest.mark.parametrize("value", [0, -1, 10**12])
def test_a_number_out_of_range_is_one_line_and_leaves_no_folder(tmp_path, capsys, option, value):
    assert status_of("demo", "--dataset", "digits", option, value, "--output", tmp_path / "out") == 2
    assert_one_line(capsys, option.strip("-"), value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["file", "file/folder"])
def test_an_output_path_that_is_a_file_is_one_line_and_stays_as_it_was(tmp_path, capsys, output):
    (tmp_path / "file").write_text("precious")
    assert status_of("demo", "--dataset", "digits", "--output", tmp_path / output) == 2
    assert_one_line(capsys, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("place", ["loading", "training", "writing"])
def test_ctrl_c_gives_130_and_leaves_no_half_written_file(monkeypatch, tmp_path, capsys, only_words, place):
    def interrupt(*_, **__):
        seen.update(path.name for path in tmp_path.iterdir())
        raise KeyboardInterrupt

    seen = set()
    (tmp_path / "training.png").write_bytes(b"old")
    owner, name = {"loading": (demo, "load_dataset"), "training": (demo, "fit"), "writing": (os, "fsync")}[place]
    monkeypatch.setattr(owner, name, interrupt)
    options = ("--dataset", "digits", "--epochs", EPOCHS, "--bits", BITS, "--output", tmp_path)
    assert status_of("demo", *options) == 130
    assert capsys.readouterr().err == "jaxhash: interrupted\n"
    assert len(seen) == (2 if place == "writing" else 1)  # a new file was indeed begun
    assert [path.name for path in tmp_path.iterdir()] == ["training.png"]
    assert (tmp_path / "training.png").read_bytes() == b"old"


def test_a_handful_of_images_is_enough(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (11, 8, 8), dtype=np.uint8)
    labels = np.arange(11, dtype=np.int32) % 3
    few = datasets.Dataset("few", images[:6], labels[:6], images[6:], labels[6:])
    monkeypatch.setattr(demo, "load_dataset", lambda *_: few)
    for name, picture in (("SHOWN_IMAGES", 2), ("SHOWN_QUERIES", 1)):
        monkeypatch.setattr(demo, name, picture)
    demo.run_demo("digits", epochs=1, num_bits=4, output=tmp_path / "out")
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_download_that_fails_falls_back_as_a_missing_network_does(monkeypatch, tmp_path, capsys):
    asked = []

    def load(name, *_):
        asked.append(name)
        if name == "mnist":
            raise OSError("the connection was reset")
        raise KeyboardInterrupt  # far enough

    monkeypatch.setattr(demo, "load_dataset", load)
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(output=tmp_path / "out")
    assert asked == ["mnist", "mnist-5k"]
    assert "the connection was reset" in capsys.readouterr().out
