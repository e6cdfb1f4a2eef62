"""The command `build` from end to end: digits as image files, and vectors; built, changed, and built again."""

import os
import re
import shutil
import sys

import numpy as np
import pytest
from command_line import BITS, COUNT, SIDE, error_of, found_in, read_pixels, run, save_image
from pages import Page
from PIL import Image

import jaxhash as jh
from jaxhash.cli import build, images
from jaxhash.cli.collection import load_collection


def test_each_item_is_the_code_of_the_image_at_its_path(original):
    collection = load_collection(original / "photos.npz")
    assert len(collection.ids) == COUNT
    paths = collection.find_paths(collection.ids)
    assert paths == sorted(map(str, original.glob("photos/**/[0-9s]*.png")))
    pixels = np.stack([read_pixels(path) for path in paths])
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


def test_a_second_build_encodes_only_what_is_new_or_changed(folder, capsys, monkeypatch, digits):
    before = load_collection(folder / "photos.npz")
    save_image(folder / "photos" / "new.png", digits.train_images[500])
    save_image(folder / "photos" / "more" / "newer.png", digits.train_images[501])
    save_image(folder / "photos" / "005.png", digits.train_images[502])
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


def test_a_build_of_an_unchanged_folder_keeps_the_bytes(folder, capsys):
    run(capsys, "build", folder / "photos", "-o", folder / "photos.npz")
    content = (folder / "photos.npz").read_bytes()
    (folder / "photos").rename(folder / "moved")
    out = run(capsys, "build", folder / "moved", "-o", folder / "photos.npz").out
    assert "0 new, 0 changed, 0 gone" in out
    assert load_collection(folder / "photos.npz").source == str(folder / "moved")
    (folder / "moved").rename(folder / "photos")
    run(capsys, "build", folder / "photos", "-o", folder / "photos.npz")
    assert (folder / "photos.npz").read_bytes() == content


def test_retrain_starts_anew_with_other_settings(folder, capsys, untrained):
    options = ("build", folder / "photos", "-o", folder / "photos.npz", "--bits", 5, "--side", 4, "--epochs", 1)
    assert f"codes of {BITS} bits, not 5; try --retrain" in error_of(capsys, *options)
    assert f"{SIDE} pixels a side, not 4; try --retrain" in error_of(capsys, *options[:4], "--side", 4)
    run(capsys, *options, "--retrain")
    collection = load_collection(folder / "photos.npz")
    assert (collection.retriever.index.num_bits, collection.side) == (5, 4)


def test_another_folder_does_not_replace_a_collection(folder, capsys, digits):
    (folder / "other").mkdir()
    save_image(folder / "other" / "x.png", digits.train_images[900])
    content = (folder / "photos.npz").read_bytes()
    assert "--retrain" in error_of(capsys, "build", folder / "other", "-o", folder / "photos.npz")
    assert (folder / "photos.npz").read_bytes() == content


def test_odd_names_are_printed_on_one_line(tmp_path, capsys, digits, untrained, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    names = ["new\nline.png", os.fsdecode(b"\xff.png"), "\x1b[31m.png", "back\\slash.png"]
    (tmp_path / "in").mkdir()
    for name, image in zip(names, digits.train_images, strict=False):
        with (tmp_path / "in" / name).open("wb") as file:
            Image.fromarray(image).save(file, "PNG")
    run(capsys, "build", tmp_path / "in", "-o", tmp_path / "f", "--side", 4, "--epochs", 1)
    assert load_collection(tmp_path / "f").names == tuple(sorted(names))
    out = run(capsys, "query", tmp_path / "f", tmp_path / "in" / names[0], "--gallery", tmp_path / "g.html").out
    assert {path.split("/")[-1] for path in found_in(out)[1]} == {
        r"new\nline.png",
        r"\xff.png",
        r"\x1b[31m.png",
        r"back\slash.png",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "g.html", "in"]
    assert len(Page((tmp_path / "g.html").read_text(encoding="utf-8")).images) == 5


def test_a_single_image_is_enough(tmp_path, capsys, digits):
    (tmp_path / "in").mkdir()
    save_image(tmp_path / "in" / "0.png", digits.train_images[0])
    run(capsys, "build", tmp_path / "in", "-o", tmp_path / "f", "--side", 8, "--epochs", 1)
    assert load_collection(tmp_path / "f").retriever.index.num_bits == jh.suggest_num_bits(1)
    assert len(found_in(run(capsys, "query", tmp_path / "f", tmp_path / "in" / "0.png").out)[1]) == 1


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
def test_invalid_vectors_are_one_line_that_names_the_file(tmp_path, capsys, array, part):
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    err = error_of(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v")
    assert "v.npy" in err
    assert part in err
    assert not (tmp_path / "v").exists()


HUGE = b"\x93NUMPY\1\0\x76\0{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 8), }".ljust(127) + b"\n"


@pytest.mark.parametrize(
    "content", [b"", b"hello", HUGE, b"\x93NUMPY\1\0\xff\xff{"], ids=["empty", "text", "huge", "cut"]
)
def test_a_damaged_npy_is_one_line(tmp_path, capsys, content):
    (tmp_path / "v.npy").write_bytes(content)
    assert "v.npy: not a .npy file" in error_of(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v")


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
        (("build", original / "photos", "-o", tmp_path / "text"), "is no collection"),
        (("build", original / "photos", "-o", vectors), "holds vectors, not images"),
        (("build", embeddings / "v.npy", "-o", photos), "holds images, not vectors"),
        (("build", original / "photos", "-o", tmp_path / "f", "--bits", 0), "num_bits"),
        (("build", original / "photos", "-o", tmp_path / "f", "--side", 0), "side"),
        (("build", original / "photos", "-o", tmp_path / "f", "--epochs", 0), "epochs"),
        (("query", tmp_path / "no", photo), "No such file"),
        (("query", tmp_path / "text", photo), "not a jaxhash file"),
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
        (("info", tmp_path / "text"), "not a jaxhash file"),
        (("info", tmp_path), "not a regular file"),
    ]:
        err = error_of(capsys, *arguments)
        assert part in err, arguments
        assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "text"]


def test_idle_bits_are_told_in_one_line(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number in range(3):
        save_image(tmp_path / "in" / f"{number}.png", np.zeros((2, 2), np.uint8))
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
def test_ctrl_c_gives_130_and_leaves_the_old_file(folder, capsys, monkeypatch, untrained, place):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    owner, name = {"reading": (build, "read_folder"), "learning": (build, "fit"), "writing": (os, "fsync")}[place]
    content = (folder / "photos.npz").read_bytes()
    before = sorted(folder.iterdir())
    monkeypatch.setattr(owner, name, interrupt)
    arguments = ("build", folder / "photos", "-o", folder / "photos.npz", "--retrain", "--bits", BITS, "--side", SIDE)
    assert run(capsys, *arguments, status=130).err.splitlines()[-1] == "jaxhash: interrupted"
    assert (folder / "photos.npz").read_bytes() == content
    assert sorted(folder.iterdir()) == before


def test_without_pillow_vectors_work_and_images_name_the_extra(original, embeddings, capsys, monkeypatch):
    monkeypatch.setattr(images, "Image", None)
    assert "pip install 'jaxhash[images]'" in error_of(capsys, "build", original / "photos", "-o", original / "new")
    photo = original / "photos" / "003.png"
    assert "pip install 'jaxhash[images]'" in error_of(capsys, "query", original / "photos.npz", photo)
    assert run(capsys, "query", embeddings / "v", 0).out


def test_codes_for_duplicates_have_64_bits_and_their_objective(original, tmp_path, capsys, monkeypatch):
    asked, output = {}, tmp_path / "f"

    def pretend_to_fit(model, values, **options):
        asked.update(options)
        return model, None

    monkeypatch.setattr(build, "fit", pretend_to_fit)
    run(capsys, "build", original / "photos", "-o", output, "--side", SIDE, "--for", "duplicates")
    collection = load_collection(output)
    assert asked["objective"] == jh.training.FindDuplicates()
    assert (collection.purpose, collection.retriever.index.num_bits) == ("duplicates", 64)
    assert "built for\tduplicates" in run(capsys, "info", output).out
    again = ("build", original / "photos", "-o", output)
    assert "0 new, 0 changed, 0 gone" in run(capsys, *again).out
    assert load_collection(output).purpose == "duplicates"
    assert "built for duplicates, not for similar images" in error_of(capsys, *again, "--for", "similar")
    embedded = (*again, "--for", "duplicates", "--embedder", "a:b", "--retrain")
    assert "choose --embedder or --for" in error_of(capsys, *embedded)
