"""Outputs: a command replaces nothing that it reads and nothing that jaxhash has not written."""

import os
import shutil

import numpy as np
import pytest
from command_line import SIDE, error_of, run, status_of
from PIL import Image

import jaxhash as jh
from jaxhash.cli import build, demo
from jaxhash.cli.collection import load_collection
from jaxhash.cli.embedder import Embedding
from jaxhash.cli.embedding_cache import EmbeddingCache

# Each command line that writes, by the output that it writes; `{}` is the folder.
COMMANDS = {
    "build vectors": ("build", "{}/v.npy", "-o"),
    "build vectors anew": ("build", "{}/v.npy", "--retrain", "-o"),
    "build images": ("build", "{}/photos", "-o"),
    "build images anew": ("build", "{}/photos", "--retrain", "-o"),
    "explore": ("explore", "{}/photos.npz", "-o"),
    "query": ("query", "{}/photos.npz", "{}/photos/003.png", "--gallery"),
}
VICTIMS = ["v.npy", "photos/003.png", "photos/004.png", "text.html", "notes.png", "index", "model.npz"]


@pytest.fixture
def victims(folder):
    """A folder of files that no command may replace, in which `photos.npz` was built of `photos`."""
    np.save(folder / "v.npy", np.random.default_rng(0).normal(size=(5, 2)))
    (folder / "text.html").write_text("<!doctype html>\n<html>mine</html>")
    Image.new("L", (3, 3)).save(folder / "notes.png")
    retriever = load_collection(folder / "photos.npz").retriever
    jh.save_index(folder / "index", retriever.index)
    jh.save_model(folder / "model.npz", retriever.model)
    return folder


def read_all(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(command, folder):
    return [part.format(folder) for part in COMMANDS[command]]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_replaces_a_file_of_the_user(victims, capsys, monkeypatch, command):
    monkeypatch.setattr(build, "learn_collection", lambda *_: pytest.fail("work was done"))
    monkeypatch.setattr(build, "read_folder", lambda *_, **__: pytest.fail("work was done"))
    suffix = ".html" if command == "query" else ""
    before = read_all(victims)
    for name in VICTIMS:
        if command != "query" or name.endswith((".html", ".png")):
            err = error_of(capsys, *fill(command, victims), victims / name)
            assert "choose another name" in err, name
        for link, make in (("soft", os.symlink), ("hard", os.link)):
            path = victims / f"{link}{suffix}"
            make(victims / name, path)
            assert "choose another name" in error_of(capsys, *fill(command, victims), path), name
            path.unlink()
    assert read_all(victims) == before


def test_an_output_that_is_also_an_input_is_named(folder, capsys):
    photos = folder / "photos.npz"
    content = photos.read_bytes()
    for arguments in (
        ("explore", photos, "-o", photos),
        ("explore", photos, "-o", folder / "photos" / ".." / "photos.npz"),
    ):
        assert "which the command reads" in error_of(capsys, *arguments)
    run(capsys, "query", photos, folder / "photos" / "003.png", "--gallery", folder / "g.png")
    err = error_of(capsys, "query", photos, folder / "g.png", "--gallery", folder / "g.png")
    assert f"would replace {folder / 'g.png'}, which the command reads" in err
    assert photos.read_bytes() == content


def test_pages_pictures_and_collections_of_ours_are_replaced(folder, capsys, untrained):
    photos, photo = folder / "photos.npz", folder / "photos" / "003.png"
    for _ in range(2):
        run(capsys, "explore", photos, "-o", folder / "page.html")
        run(capsys, "query", photos, photo, "--gallery", folder / "page.html")
        run(capsys, "query", photos, photo, "--gallery", folder / "g.png")
    photos.write_bytes(photos.read_bytes()[:-9])  # damaged, but of ours
    assert "not a jaxhash file" in error_of(capsys, "build", folder / "photos", "-o", photos)
    run(capsys, "build", folder / "photos", "-o", photos, "--retrain", "--side", SIDE)
    assert load_collection(photos).side == SIDE


@pytest.mark.parametrize("name", ["a.npz", "a/c.npz"])
def test_a_link_to_nowhere_is_an_output_where_it_leads(folder, capsys, untrained, name):
    (folder / "link").symlink_to(folder / name)
    arguments = ("build", folder / "photos", "-o", folder / "link", "--side", SIDE)
    if name == "a.npz":
        run(capsys, *arguments)
        assert load_collection(folder / "a.npz").side == SIDE
    else:
        assert "there is no folder" in error_of(capsys, *arguments)


@pytest.mark.parametrize("name", demo.FILES)
def test_the_demo_replaces_only_files_of_ours(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(demo, "load_dataset", lambda *_: pytest.fail("work was done"))
    (tmp_path / name).write_text("mine")
    assert "is not replaced" in error_of(capsys, "demo", "--output", tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_beside_the_output_keeps_its_files(tmp_path):
    """The cache of an embedder is a folder, and its name may be that of a folder of the user."""
    folder = tmp_path / "f.npz.embeddings"
    folder.mkdir()
    for name in ("mine.npz", "000001.npz"):
        np.savez(folder / name, np.zeros(3))
    before = read_all(tmp_path)
    embedding = Embedding("a:b", 4)
    with EmbeddingCache(tmp_path / "f.npz", embedding) as cache:
        cache.add("a.png", (1, 2), bytes(32), np.zeros(3, np.float32))
    assert sorted(path.name for path in folder.iterdir()) == ["000001.npz", "000002.npz", "mine.npz"]
    EmbeddingCache(tmp_path / "f.npz", embedding).remove()
    assert read_all(tmp_path) == before


def test_an_output_that_is_a_fifo_or_a_folder_is_refused(folder, capsys):
    os.mkfifo(folder / "fifo")
    shutil.copytree(folder / "photos", folder / "more")
    for name in ("fifo", "more"):
        assert status_of("build", folder / "photos", "-o", folder / name, "--retrain") == 2
    assert "is a folder" in capsys.readouterr().err
