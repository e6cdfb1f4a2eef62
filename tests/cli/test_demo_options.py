"""The options of the demo, and how it fails."""

import io
import os
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import assert_one_line, status_of
from demo_model import make_small_model
from matplotlib.figure import Figure
from matplotlib.image import imread
from pages import Page, png_of

import jaxhash as jh
from jaxhash import datasets
from jaxhash.cli import demo, demo_learning, page

EPOCHS, BITS = 2, 8


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.delenv("JAXHASH_DATA", raising=False)
    monkeypatch.setattr(datasets, "_network_answers", lambda: False)


@pytest.fixture
def only_words(monkeypatch):
    """Leaves out what takes long: training and drawing."""
    monkeypatch.setattr(demo, "fit", lambda model, images, **_: (model, jh.training.History((0.5,))))
    monkeypatch.setattr(demo, "_make_model", make_small_model)
    for name in ("bucket_histogram", "matches_by_radius", "reconstructions", "training_curve"):
        monkeypatch.setattr(demo_learning.plots, name, lambda *_, **__: Figure(figsize=(1, 1)))


def test_the_default_needs_no_network(monkeypatch, tmp_path):
    asked = []

    def load(name, data_dir):
        asked.append((name, data_dir))
        raise KeyboardInterrupt  # far enough

    monkeypatch.setattr(demo, "load_dataset", load)
    assert status_of("demo", "--output", tmp_path) == 130
    assert asked == [("mnist-5k", None)]


def test_bits_and_epochs_follow_from_the_number_of_images(monkeypatch, tmp_path, capsys):
    asked = {}

    def fit(model, images, *, epochs, batch_size, **_):
        asked.update(bits=model.num_bits, steps=epochs * len(images) / batch_size)
        raise ValueError("enough")

    images, labels = np.zeros((102, 8, 8), np.uint8), np.zeros(102, np.int32)
    monkeypatch.setattr(demo, "_make_model", make_small_model)
    monkeypatch.setattr(demo, "fit", fit)
    monkeypatch.setattr(demo, "load_dataset", lambda name, _: jh.datasets.Dataset(name, images, labels, images, labels))
    assert status_of("demo", "--output", tmp_path) == 2
    assert asked["bits"] == 8  # 102 images, 0.4 on each of 256 codes
    assert asked["steps"] == pytest.approx(500, rel=0.01)
    assert capsys.readouterr().err == "jaxhash: error: enough\n"


def test_missing_data_files_are_named_on_one_line(tmp_path, capsys):
    options = ("--dataset", "mnist", "--data-dir", tmp_path / "data", "--output", tmp_path / "out")
    assert status_of("demo", *options) == 2
    assert_one_line(capsys, *datasets.IDX_FILES, tmp_path / "data", tmp_path / "data" / "mnist")


def test_a_data_set_asked_for_by_name_is_not_replaced(tmp_path, capsys):
    assert status_of("demo", "--dataset", "fashion-mnist", "--output", tmp_path) == 2
    assert_one_line(capsys, "fashion-mnist", "network")


def test_a_damaged_data_file_is_one_line_that_names_it(tmp_path, capsys):
    for file in datasets.IDX_FILES:
        (tmp_path / file).write_bytes(b"<html>\nnot found\n</html>")
    assert status_of("demo", "--dataset", "mnist", "--data-dir", tmp_path, "--output", tmp_path / "out") == 2
    assert_one_line(capsys, tmp_path / datasets.IDX_FILES[0])


@pytest.mark.parametrize("option", ["--bits", "--epochs"])
@pytest.mark.parametrize("value", [0, -1, 10**12])
def test_a_number_out_of_range_leaves_no_folder(tmp_path, capsys, option, value):
    assert status_of("demo", "--dataset", "digits", option, value, "--output", tmp_path / "out") == 2
    assert_one_line(capsys, option.strip("-"), value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["file", "file/folder"])
def test_an_output_path_that_is_a_file_is_refused(tmp_path, capsys, output):
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
    old = page.encode_png(Figure(figsize=(1, 1)))
    (tmp_path / "training-retrieve.png").write_bytes(old)
    owner, name = {"loading": (demo, "load_dataset"), "training": (demo, "fit"), "writing": (os, "fsync")}[place]
    monkeypatch.setattr(owner, name, interrupt)
    options = ("--dataset", "digits", "--epochs", EPOCHS, "--bits", BITS, "--output", tmp_path)
    assert status_of("demo", *options) == 130
    assert capsys.readouterr().err == "jaxhash: interrupted\n"
    assert len(seen) == (2 if place == "writing" else 1)  # a new file was indeed begun
    assert [path.name for path in tmp_path.iterdir()] == ["training-retrieve.png"]
    assert (tmp_path / "training-retrieve.png").read_bytes() == old


@pytest.mark.parametrize(("shape", "words"), [((8, 8), "Both models are the post's"), ((8, 8, 3), "400 learned ones")])
def test_the_model_of_colored_images_sees_patches(shape, words):
    images, labels = np.zeros((2, *shape), np.uint8), np.zeros(2, np.int32)
    data = jh.datasets.Dataset("two", images, labels, images, labels)
    models = [demo._make_model(data, 8, objective) for objective in demo.OBJECTIVES]
    assert type(models[0]) is jh.Autoencoder
    assert isinstance(models[1], jh.PatchEncoder) == (len(shape) == 3)
    learned = [SimpleNamespace(retriever=SimpleNamespace(model=model)) for model in models]
    assert words in demo_learning._explain_models(learned)


@pytest.mark.slow  # all programs of the demo once more, for one small shape
def test_a_handful_of_colored_images_is_enough(tmp_path, monkeypatch, capsys):
    images = np.random.default_rng(0).integers(0, 256, (11, 6, 6, 3), dtype=np.uint8)
    labels = np.arange(11, dtype=np.int32) % 3
    few = jh.datasets.Dataset("few", images[:6], labels[:6], images[6:], labels[6:])
    monkeypatch.setattr(demo, "load_dataset", lambda *_: few)
    monkeypatch.setattr(demo, "_make_model", make_small_model)
    demo.run_demo("few", epochs=1, num_bits=2, output=tmp_path)
    assert "6x6 colored pixels" in " ".join(capsys.readouterr().out.split())
    report = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    pixels = imread(io.BytesIO(png_of(report.images[0])))
    np.testing.assert_array_equal(np.round(pixels * 255), images[6])
