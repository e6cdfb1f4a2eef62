"""The commands on collections from end to end: digits as image files, and vectors; built, asked, changed, and again."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pages import Page, png_of
from PIL import Image

import jaxhash as jh
from jaxhash import __main__ as command
from jaxhash.cli import build, images
from jaxhash.cli.collection import load_collection
from jaxhash.files.archive import read_archive, write_archive

COUNT, BITS, SIDE = 190, 10, 8


def run(capsys, *arguments, status=0):
    """What a command line prints to stdout and to stderr."""
    capsys.readouterr()
    assert command.main([str(argument) for argument in arguments]) == status
    return capsys.readouterr()


def error_of(capsys, *arguments):
    """The one line of a command line that fails."""
    out, err = run(capsys, *arguments, status=2)
    assert re.fullmatch(r"jaxhash: error: \S[^\n]*\n", err), err
    assert out == ""
    return err


def found_in(out):
    """Distances and paths."""
    lines = [line.split("\t") for line in out.splitlines()]
    return [int(distance) for distance, _ in lines], [path for _, path in lines]


def save(path, pixels):
    Image.fromarray(pixels).save(path)


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def digits():
    return jh.load_dataset("digits").train_images


@pytest.fixture(scope="module")
def original(tmp_path_factory, digits):
    """A folder of digits, some in a sub-folder and one of them twice, and the file that was built of it."""
    root = tmp_path_factory.mktemp("original")
    (root / "photos" / "more").mkdir(parents=True)
    for number, image in enumerate(digits[: COUNT - 1]):
        save(root / "photos" / ("more" if number % 10 == 0 else "") / f"{number:03}.png", image)
    shutil.copy(root / "photos" / "003.png", root / "photos" / "same.png")
    (root / "photos" / "notes.txt").write_text("hello")
    (root / "photos" / "broken.png").write_bytes((root / "photos" / "001.png").read_bytes()[:60])
    options = ("--bits", BITS, "--side", SIDE, "--epochs", 3)
    arguments = ("build", root / "photos", "-o", root / "photos.npz", *options)
    assert command.main([str(argument) for argument in arguments]) == 0
    return root


@pytest.fixture
def folder(original, tmp_path):
    """A copy to change."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_each_item_is_the_code_of_the_image_at_its_path(original):
    collection = load_collection(original / "photos.npz")
    assert len(collection.ids) == COUNT
    paths = collection.find_paths(collection.ids)
    assert paths == sorted(map(str, original.glob("photos/**/[0-9s]*.png")))
    pixels = np.stack([pixels_of(path) for path in paths])
    codes = jh.encode(collection.retriever.model, pixels)
    np.testing.assert_array_equal(collection.find_codes(collection.ids), codes)
    assert collection.retriever.index.num_bits == BITS


def test_what_is_skipped_is_reported_and_strict_raises(folder, capsys):
    out, err = run(capsys, "build", folder / "photos", "-o", folder / "photos.npz")
    assert err.splitlines() == [
        "skipped broken.png: OSError: image file is truncated",
        "skipped notes.txt: not an image of a format that is taken in (PNG, JPEG, WEBP, GIF, BMP, TIFF)",
    ]
    assert "2 skipped" in out
    err = error_of(capsys, "build", folder / "photos", "-o", folder / "photos.npz", "--strict")
    assert "photos/broken.png: OSError" in err


def test_a_query_prints_distance_and_path_as_a_search_gives_them(original, capsys, digits):
    collection = load_collection(original / "photos.npz")
    save(original / "outside.png", digits[-1])
    pixels = np.repeat(digits[-1][..., None], 3, axis=2)
    expected = jh.retrieve(collection.retriever, pixels, k=7)
    distances, paths = found_in(run(capsys, "query", original / "photos.npz", original / "outside.png", "-k", 7).out)
    assert distances == expected.distances.tolist()
    assert paths == collection.find_paths(expected.ids)
    assert all(Path(path).is_file() for path in paths)


def test_a_query_within_a_radius_finds_all_and_an_image_finds_itself_and_its_copy(original, capsys):
    photo = original / "photos" / "003.png"
    distances, paths = found_in(run(capsys, "query", original / "photos.npz", photo, "--radius", 0).out)
    assert set(distances) == {0}
    assert {str(photo), str(original / "photos" / "same.png")} <= set(paths)
    everything = found_in(run(capsys, "query", original / "photos.npz", photo, "--radius", BITS).out)[1]
    assert len(set(everything)) == COUNT
    assert found_in(run(capsys, "query", original / "photos.npz", photo, "-k", 1000).out)[1] == everything
    assert len(found_in(run(capsys, "query", original / "photos.npz", photo).out)[1]) == 10


def test_several_queries_stand_under_their_names(original, capsys):
    items = [str(original / "photos" / name) for name in ("003.png", "004.png")]
    out = run(capsys, "query", original / "photos.npz", *items, "-k", 2).out
    blocks = [block.splitlines() for block in out.split("\n\n")]
    assert [block[0] for block in blocks] == [f"{item}:" for item in items]
    assert [len(block) for block in blocks] == [3, 3]


def test_a_second_build_encodes_only_what_is_new_or_changed(folder, capsys, monkeypatch, digits):
    before = load_collection(folder / "photos.npz")
    save(folder / "photos" / "new.png", digits[500])
    save(folder / "photos" / "more" / "newer.png", digits[501])
    save(folder / "photos" / "005.png", digits[502])
    (folder / "photos" / "007.png").unlink()
    os.utime(folder / "photos" / "008.png", (0, 0))
    encoded, real = [], type(before).encode
    monkeypatch.setattr(
        type(before), "encode", lambda self, values: (encoded.append(len(values)), real(self, values))[1]
    )
    monkeypatch.setattr(build, "fit", lambda *_, **__: pytest.fail("learned again"))
    out = run(capsys, "build", folder / "photos", "-o", folder / "photos.npz").out
    assert encoded == [3]
    assert "2 new, 1 changed, 1 gone" in out
    after = load_collection(folder / "photos.npz")
    ids = [dict(zip(c.names, c.ids.tolist(), strict=True)) for c in (before, after)]
    assert {name: ids[1][name] for name in ids[1] if name in ids[0]} == {
        name: number for name, number in ids[0].items() if name != "007.png"
    }
    assert {ids[1]["new.png"], ids[1]["more/newer.png"]} == {COUNT, COUNT + 1}
    again = run(capsys, "query", folder / "photos.npz", folder / "photos" / "new.png", "-k", COUNT).out
    assert str(folder / "photos" / "new.png") in again


def test_a_build_of_the_same_folder_leaves_the_same_bytes_even_if_it_was_moved_and_back(folder, capsys):
    run(capsys, "build", folder / "photos", "-o", folder / "photos.npz")
    content = (folder / "photos.npz").read_bytes()
    (folder / "photos").rename(folder / "moved")
    out = run(capsys, "build", folder / "moved", "-o", folder / "photos.npz").out
    assert "0 new, 0 changed, 0 gone" in out
    assert load_collection(folder / "photos.npz").source == str(folder / "moved")
    (folder / "moved").rename(folder / "photos")
    run(capsys, "build", folder / "photos", "-o", folder / "photos.npz")
    assert (folder / "photos.npz").read_bytes() == content


def test_retrain_starts_anew_with_other_settings(folder, capsys):
    options = ("build", folder / "photos", "-o", folder / "photos.npz", "--bits", 5, "--side", 4, "--epochs", 1)
    assert f"codes of {BITS} bits, not 5; try --retrain" in error_of(capsys, *options)
    assert f"{SIDE} pixels a side, not 4; try --retrain" in error_of(capsys, *options[:4], "--side", 4)
    run(capsys, *options, "--retrain")
    collection = load_collection(folder / "photos.npz")
    assert (collection.retriever.index.num_bits, collection.side) == (5, 4)


def test_another_folder_by_mistake_does_not_replace_a_collection(folder, capsys, digits):
    (folder / "other").mkdir()
    save(folder / "other" / "x.png", digits[900])
    content = (folder / "photos.npz").read_bytes()
    assert "--retrain" in error_of(capsys, "build", folder / "other", "-o", folder / "photos.npz")
    assert (folder / "photos.npz").read_bytes() == content


def test_duplicates_are_printed_in_groups_and_counted(original, capsys):
    collection = load_collection(original / "photos.npz")
    groups = jh.duplicate_groups(collection.retriever.index, 1)
    out, err = run(capsys, "duplicates", original / "photos.npz", "--radius", 1)
    printed = [block.split("\n") for block in out.split("\n\n") if block]
    assert printed == [collection.find_paths(members) for members in groups]
    assert err == f"{len(groups)} groups, with {sum(map(len, groups))} of {COUNT} items\n"
    equal = run(capsys, "duplicates", original / "photos.npz", "--radius", 0).out
    copies = {str(original / "photos" / name) for name in ("003.png", "same.png")}
    assert any(copies <= set(block.split("\n")) for block in equal.split("\n\n"))


def test_info_says_what_every_kind_of_file_holds(original, tmp_path, capsys):
    out = run(capsys, "info", original / "photos.npz").out
    assert out.splitlines()[:3] == ["holds\tcollection", f"source\timages of {original / 'photos'}", f"items\t{COUNT}"]
    retriever = load_collection(original / "photos.npz").retriever
    model = f"model\tConvAutoencoder of {SIDE}x{SIDE}x3 values to {BITS} bits"
    jh.save_retriever(tmp_path / "r", retriever)
    jh.save_index(tmp_path / "i", retriever.index)
    jh.save_model(tmp_path / "m", retriever.model)
    for name, kind in (("r", "retriever"), ("i", "index"), ("m", "model")):
        lines = run(capsys, "info", tmp_path / name).out.splitlines()
        assert lines[0] == f"holds\t{kind}"
        assert (f"items\t{COUNT}" in lines) == (kind != "model")
        assert (model in lines) == (kind != "index")


def test_odd_names_are_printed_on_one_line_and_never_written_to(tmp_path, capsys, digits):
    names = ["new\nline.png", os.fsdecode(b"\xff.png"), "\x1b[31m.png", "back\\slash.png"]
    (tmp_path / "in").mkdir()
    for name, image in zip(names, digits, strict=False):
        with (tmp_path / "in" / name).open("wb") as file:
            Image.fromarray(image).save(file, "PNG")
    run(capsys, "build", tmp_path / "in", "-o", tmp_path / "f", "--side", 4, "--epochs", 1)
    assert load_collection(tmp_path / "f").names == tuple(sorted(names))
    out = run(capsys, "query", tmp_path / "f", tmp_path / "in" / names[0], "--gallery", tmp_path / "g.html").out
    assert {path.split("/")[-1] for path in found_in(out)[1]} == {
        r"new\nline.png",
        r"\xff.png",
        r"\x1b[31m.png",
        r"back\\slash.png",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "g.html", "in"]
    assert len(Page((tmp_path / "g.html").read_text(encoding="utf-8")).images) == 5


@pytest.mark.parametrize("count", [1, 10])
def test_a_handful_of_images_is_enough(tmp_path, capsys, digits, count):
    (tmp_path / "in").mkdir()
    for number in range(count):
        save(tmp_path / "in" / f"{number}.png", digits[number])
    run(capsys, "build", tmp_path / "in", "-o", tmp_path / "f", "--side", 8, "--epochs", 2)
    assert load_collection(tmp_path / "f").retriever.index.num_bits == jh.suggest_num_bits(count)
    assert len(found_in(run(capsys, "query", tmp_path / "f", tmp_path / "in" / "0.png").out)[1]) == count


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    """A file of vectors in five heaps, far from zero, and what was built of it."""
    root = tmp_path_factory.mktemp("vectors")
    rng = np.random.default_rng(0)
    heaps = 1000 + 50 * rng.normal(size=(5, 20))
    np.save(root / "v.npy", np.repeat(heaps, 50, axis=0) + rng.normal(size=(250, 20)))
    assert command.main(["build", str(root / "v.npy"), "-o", str(root / "v"), "--epochs", "60"]) == 0
    return root


def test_vectors_of_one_heap_are_found_by_row_and_by_file(embeddings, tmp_path, capsys):
    by_row = run(capsys, "query", embeddings / "v", 60, "-k", 40).out
    rows = [int(row) for row in found_in(by_row)[1]]
    assert np.mean([50 <= row < 100 for row in rows]) > 0.9
    vectors = np.load(embeddings / "v.npy")
    np.save(tmp_path / "one.npy", vectors[60])
    assert run(capsys, "query", embeddings / "v", tmp_path / "one.npy", "-k", 40).out == by_row
    np.save(tmp_path / "two.npy", vectors[[3, 60]])
    blocks = run(capsys, "query", embeddings / "v", tmp_path / "two.npy", "-k", 40).out.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [f"{tmp_path / 'two.npy'} row {row}:" for row in (0, 1)]
    assert blocks[1].split("\n", 1)[1] == by_row


def test_a_second_build_encodes_only_new_and_changed_rows(embeddings, tmp_path, capsys, monkeypatch):
    shutil.copy(embeddings / "v", tmp_path / "v")
    vectors = np.load(embeddings / "v.npy")
    vectors[7] += 1
    np.save(tmp_path / "v.npy", np.concatenate([vectors, vectors[:3]]))
    monkeypatch.setattr(build, "fit", lambda *_, **__: pytest.fail("learned again"))
    assert "3 new, 1 changed, 0 gone" in run(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v").out
    collection = load_collection(tmp_path / "v")
    assert collection.ids.tolist() == list(range(253))
    np.testing.assert_array_equal(collection.find_codes([250, 251]), collection.find_codes([0, 1]))
    np.save(tmp_path / "v.npy", vectors[:100])
    assert "0 new, 0 changed, 153 gone" in run(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v").out
    np.save(tmp_path / "v.npy", vectors[:101])
    run(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v")
    assert load_collection(tmp_path / "v").ids.tolist() == list(range(101))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 1), float), ((3, 1), float), ((3, 1), np.float16), ((3, 1), ">i8"), ((3, 1), bool)]
)
def test_vectors_of_any_width_and_kind_of_number_will_do(tmp_path, capsys, shape, dtype):
    np.save(tmp_path / "v.npy", np.arange(np.prod(shape)).reshape(shape).astype(dtype))
    run(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v", "--epochs", 1)
    assert len(found_in(run(capsys, "query", tmp_path / "v", 0).out)[1]) == min(10, shape[0])


def test_the_objective_and_the_epochs_follow_from_the_items():
    images, vectors = np.empty((200, 4, 4, 3), np.uint8), np.empty((200, 16), np.float32)
    assert [build.choose_objective(v) for v in (images, vectors)] == [jh.Retrieve(), build.VECTOR_OBJECTIVE]
    few = [images[:199], vectors[:199], vectors[:, :15]]
    assert [build.choose_objective(v) for v in few] == [jh.Reconstruct()] * 3
    assert build.choose_epochs(images) == build.IMAGE_STEPS
    assert build.choose_epochs(np.empty((2000, 1, 1, 3), np.uint8)) == build.IMAGE_STEPS / 8
    assert build.choose_epochs(np.empty((10**6, 1, 1, 3), np.uint8)) == build.MIN_EPOCHS


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros(3), "shape (3,)"),
        (np.zeros((0, 3)), "(0, 3)"),
        (np.zeros((3, 0)), "at least one vector, got shape (3, 0)"),
        (np.array(3.0), "got shape ()"),
        (np.array([[1.0], [np.nan]]), "row 1"),
        (np.array([[1e300]]), "row 0"),
        (np.zeros((2, 2), complex), "complex"),
        (np.array([["a"]]), "real numbers"),
        (np.array([[None]]), "not a .npy file of numbers"),
    ],
    ids=str,
)
def test_vectors_that_are_none_are_one_line_that_names_the_file(tmp_path, capsys, array, part):
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    err = error_of(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v")
    assert "v.npy" in err
    assert part in err
    assert not (tmp_path / "v").exists()


HUGE = b"\x93NUMPY\1\0\x76\0{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 8), }".ljust(127) + b"\n"


@pytest.mark.parametrize(
    "content", [b"", b"hello", HUGE, b"\x93NUMPY\1\0\xff\xff{"], ids=["empty", "text", "huge", "cut"]
)
def test_a_damaged_npy_is_one_line_at_once(tmp_path, capsys, content):
    (tmp_path / "v.npy").write_bytes(content)
    start = time.monotonic()
    assert "v.npy: not a .npy file" in error_of(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v")
    assert time.monotonic() - start < 5


def test_a_fifo_called_npy_is_not_opened(tmp_path, capsys):
    os.mkfifo(tmp_path / "v.npy")
    assert "not a regular file" in error_of(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v")


def test_what_is_wrong_is_one_line_that_says_what_to_do(original, embeddings, tmp_path, capsys, digits):
    photos, vectors, photo = original / "photos.npz", embeddings / "v", original / "photos" / "003.png"
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    for arguments, part in [
        (("build", tmp_path / "no", "-o", tmp_path / "f"), "no such file or folder"),
        (("build", tmp_path / "text", "-o", tmp_path / "f"), "expected a folder of images, or vectors in a .npy file"),
        (("build", tmp_path / "empty", "-o", tmp_path / "f"), "no image in it"),
        (("build", original / "photos", "-o", tmp_path / "no" / "f"), "there is no folder"),
        (("build", original / "photos", "-o", tmp_path), "is a folder"),
        (("build", original / "photos", "-o", tmp_path / "text"), "no jaxhash file"),
        (("build", original / "photos", "-o", vectors), "holds vectors, not images"),
        (("build", embeddings / "v.npy", "-o", photos), "holds images, not vectors"),
        (("build", original / "photos", "-o", tmp_path / "f", "--bits", 0), "num_bits"),
        (("build", original / "photos", "-o", tmp_path / "f", "--side", 0), "side"),
        (("build", original / "photos", "-o", tmp_path / "f", "--epochs", 0), "epochs"),
        (("query", tmp_path / "no", photo), "No such file"),
        (("query", tmp_path / "text", photo), "no jaxhash file"),
        (("query", photos, tmp_path / "no.png"), "no.png: FileNotFoundError"),
        (("query", photos, tmp_path / "text"), "not an image"),
        (("query", photos, photo, "-k", 0), "k must"),
        (("query", photos, photo, "--radius", -1), "radius must"),
        (("query", photos, photo, "--gallery", tmp_path / "g.pdf"), ".html or .png"),
        (("query", vectors, 1, "--gallery", tmp_path / "g.html"), "holds vectors"),
        (("query", vectors, 250), "no item 250: ids go from 0 to 249"),
        (("query", vectors, 10**30), "no item"),
        (("query", vectors, photo), "expected the number of a row"),
        (("duplicates", photos, "--radius", -1), "radius must"),
        (("info", tmp_path / "text"), "no jaxhash file"),
        (("info", tmp_path), "not a regular file"),
    ]:
        err = error_of(capsys, *arguments)
        assert part in err, arguments
        assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "text"]


def test_idle_bits_are_told_in_one_line(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number in range(3):
        save(tmp_path / "in" / f"{number}.png", np.zeros((2, 2), np.uint8))
    err = run(capsys, "build", tmp_path / "in", "-o", tmp_path / "f", "--side", 4, "--epochs", 1).err
    assert re.fullmatch(r"jaxhash: warning: of 3 bits 3 are the same for all images [^\n]*\n", err)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_alone(folder, capsys, monkeypatch, terminal):
    for name in ("notes.txt", "broken.png"):
        (folder / "photos" / name).unlink()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    err = run(capsys, "build", folder / "photos", "-o", folder / "photos.npz").err
    assert (f"\r\033[Kreading 1 of {COUNT} files" in err) == terminal
    assert err.endswith("\r\033[K" if terminal else "")
    assert terminal or not err


@pytest.mark.parametrize("place", ["reading", "learning", "writing"])
def test_ctrl_c_gives_130_and_leaves_the_old_file(folder, capsys, monkeypatch, place):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    owner, name = {"reading": (build, "read_folder"), "learning": (build, "fit"), "writing": (os, "fsync")}[place]
    content = (folder / "photos.npz").read_bytes()
    before = sorted(folder.iterdir())
    monkeypatch.setattr(owner, name, interrupt)
    arguments = ("build", folder / "photos", "-o", folder / "photos.npz", "--retrain", "--epochs", 1, "--side", 4)
    assert run(capsys, *arguments, status=130).err.splitlines()[-1] == "jaxhash: interrupted"
    assert (folder / "photos.npz").read_bytes() == content
    assert sorted(folder.iterdir()) == before


def test_without_pillow_vectors_work_and_images_name_the_extra(original, embeddings, capsys, monkeypatch):
    monkeypatch.setattr(images, "Image", None)
    assert "pip install 'jaxhash[images]'" in error_of(capsys, "build", original / "photos", "-o", original / "new")
    photo = original / "photos" / "003.png"
    assert "pip install 'jaxhash[images]'" in error_of(capsys, "query", original / "photos.npz", photo)
    assert run(capsys, "query", embeddings / "v", 0).out


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
    height, width = pixels_of(tmp_path / "g.png").shape[:2]
    assert width > 4 * height > 100


def test_a_gallery_says_where_an_image_is_gone(folder, capsys):
    photo = folder / "outside.png"
    shutil.copy(folder / "photos" / "003.png", photo)
    paths = found_in(run(capsys, "query", folder / "photos.npz", photo, "-k", 3).out)[1]
    Path(paths[1]).unlink()
    for kind in ("html", "png"):
        run(capsys, "query", folder / "photos.npz", photo, "-k", 3, "--gallery", folder / f"g.{kind}")
    page = Page((folder / "g.html").read_text(encoding="utf-8"))
    assert len(page.images) == 3
    assert ("p", "can't be shown") in page.texts


CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt install chromium")
def test_a_browser_shows_the_gallery_with_its_thumbnails(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    shades = {"red.png": (250, 10, 10), "green.png": (10, 250, 10), "blue.png": (10, 10, 250)}
    for name, shade in shades.items():
        Image.new("RGB", (40, 40), shade).save(tmp_path / "in" / name)
    run(capsys, "build", tmp_path / "in", "-o", tmp_path / "f", "--side", 8, "--epochs", 1)
    run(capsys, "query", tmp_path / "f", tmp_path / "in" / "red.png", "--gallery", tmp_path / "g.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--window-size=1000,2000"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'shot.png'}"]
    subprocess.run(
        [CHROMIUM, *flags, (tmp_path / "g.html").as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    shot = pixels_of(tmp_path / "shot.png")
    assert shot.shape == (2000, 1000, 3)
    for shade, times in zip(shades.values(), (2, 1, 1), strict=True):  # red is the query, and found
        assert (shot == shade).all(2).sum() == pytest.approx(times * 128**2, rel=0.1)


def test_info_says_how_far_a_training_is(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (64, 9), dtype=np.uint8)
    with pytest.raises(KeyboardInterrupt):
        jh.fit(jh.Autoencoder(9, 4, ()), images, epochs=5, checkpoint=tmp_path / "c", on_epoch=interrupted_after(2))
    lines = run(capsys, "info", tmp_path / "c").out.splitlines()
    assert lines[:2] == ["holds\ttraining", "epochs\t2 of 5"]
    assert re.fullmatch(r"loss\t0\.\d{4}", lines[2])
    write_archive(tmp_path / "c", read_archive(tmp_path / "c")._replace(meta={"epoch": 3}))
    assert "checkpoint: KeyError('settings')" in error_of(capsys, "info", tmp_path / "c")


def interrupted_after(last):
    def stop(epoch, history):
        if epoch == last:
            raise KeyboardInterrupt

    return stop


def test_info_counts_pairs_where_items_have_several_codes(tmp_path, capsys):
    codes = np.array([[[0], [0]], [[0], [1 << 24]]], np.uint32)
    jh.save_index(tmp_path / "i", jh.build_index(codes, 8, multi=True))
    assert "pairs of code and id\t3" in run(capsys, "info", tmp_path / "i").out.splitlines()
