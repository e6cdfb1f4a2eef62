"""Folders of untrusted files: what is found in them, in which order, and what is skipped."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxhash.cli import sources
from jaxhash.cli.sources import list_files, read_folder


def save(path, value):
    """A gray image of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.new("L", (3, 3), value).save(file, "PNG")


def values_of(items):
    """Which gray each image is, by name."""
    return dict(zip(items.names, items.values[:, 0, 0, 0].tolist(), strict=True))


@pytest.fixture
def mess(tmp_path):
    """A folder of two images and much else."""
    folder = tmp_path / "photos"
    save(folder / "b.png", 1)
    save(folder / "deep" / "er" / "a.png", 2)
    save(folder / ".hidden" / "c.png", 3)
    save(folder / ".c.png", 4)
    (folder / "notes.txt").write_text("hello")
    (folder / "empty.jpg").touch()
    (folder / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "none").mkdir()
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "deep" / "self.png").symlink_to("self.png")
    (folder / "a.png").symlink_to("b.png")
    (folder / "deep" / "z.png").symlink_to(folder / "b.png")
    os.mkfifo(folder / "fifo.png")
    return folder


def test_other_files_than_images_are_reported(mess):
    items = read_folder(str(mess), 4, {})
    assert values_of(items) == {"b.png": 1, "deep/er/a.png": 2}
    reasons = dict(items.skipped)
    assert list(reasons) == sorted(
        [
            *(".c.png", ".hidden", "a.png", "deep/self.png", "deep/z.png"),
            *("drawing.svg", "empty.jpg", "fifo.png", "loop", "notes.txt"),
        ]
    )
    assert reasons[".hidden"] == reasons[".c.png"] == "hidden"
    assert reasons["loop"] == "links to folders are not followed"
    assert {reasons[name] for name in ("a.png", "deep/self.png", "deep/z.png")} == {"links to files are not followed"}
    assert reasons["fifo.png"] == "not a regular file"
    assert all("not an image" in reasons[name] for name in ("drawing.svg", "empty.jpg", "notes.txt"))


def test_strict_raises_with_path_and_reason(mess, tmp_path):
    with pytest.raises(ValueError, match=r"photos/a\.png: links to files are not followed"):
        read_folder(str(mess), 4, {}, strict=True)
    save(tmp_path / "clean" / "a.png", 0)
    assert read_folder(str(tmp_path / "clean"), 4, {}, strict=True).names == ["a.png"]
    (tmp_path / "clean" / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"clean/b\.png: not an image"):
        read_folder(str(tmp_path / "clean"), 4, {}, strict=True)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "more").symlink_to(mess)
    with pytest.raises(ValueError, match="links/more: links to folders are not followed"):
        read_folder(str(tmp_path / "links"), 4, {}, strict=True)


def test_strict_passes_over_hidden_files_and_the_output(tmp_path):
    save(tmp_path / "a.png", 1)
    (tmp_path / ".DS_Store").write_bytes(b"hidden")
    (tmp_path / "f.npz").write_bytes(b"output")
    (tmp_path / "f.npz.embeddings").mkdir()
    (tmp_path / "f.npz.embeddings" / "000001.npz").write_bytes(b"cache")
    (tmp_path / "to").symlink_to(tmp_path)
    items = read_folder(str(tmp_path / "to"), 4, {}, output=str(tmp_path / "f.npz"))
    assert (items.names, items.skipped) == (
        ["a.png"],
        [(".DS_Store", "hidden"), ("to", "links to folders are not followed")],
    )
    (tmp_path / "to").unlink()
    assert read_folder(str(tmp_path), 4, {}, strict=True, output=str(tmp_path / "f.npz")).names == ["a.png"]
    with pytest.raises(ValueError, match=r"f\.npz: not an image"):
        read_folder(str(tmp_path), 4, {}, strict=True, output=str(tmp_path / "g.npz"))


def test_an_unreadable_subfolder_is_skipped(tmp_path, monkeypatch):
    save(tmp_path / "a.png", 1)
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(sources.os, "scandir", scandir)
    names, skipped = list_files(str(tmp_path))
    assert names == ["a.png"]
    assert skipped == [("closed", "PermissionError: Permission denied")]
    with pytest.raises(FileNotFoundError):
        list_files(str(tmp_path / "nothing"))


@pytest.mark.parametrize("place", [0, 250, 499])
def test_images_after_a_bad_one_keep_their_names(tmp_path, place):
    for number in range(500):
        save(tmp_path / f"{number:03}.png", number % 251)
    (tmp_path / f"{place:03}.png").write_bytes((tmp_path / f"{place:03}.png").read_bytes()[:40])
    items = read_folder(str(tmp_path), 1, {})
    assert values_of(items) == {f"{number:03}.png": number % 251 for number in range(500) if number != place}
    assert [skipped.name for skipped in items.skipped] == [f"{place:03}.png"]


NASTY = ["new\nline.png", "tab\t.png", os.fsdecode(b"\xff\xfe.png"), "\x1b[31mred.png", "größer.png", "a b.png", "~"]


def test_odd_names_are_kept_exactly(tmp_path):
    for value, name in enumerate(NASTY):
        save(tmp_path / name, value)
    items = read_folder(str(tmp_path), 2, {})
    assert values_of(items) == {name: value for value, name in enumerate(NASTY)}
    assert [os.fsencode(name) for name in items.names] == sorted(os.fsencode(path.name) for path in tmp_path.iterdir())


@pytest.mark.parametrize("backwards", [False, True])
def test_the_order_of_listing_does_not_matter(tmp_path, monkeypatch, backwards):
    for value, name in enumerate(["b/a.png", "a.png", "b.png", "a/c.png"]):
        save(tmp_path / name, value)
    real = os.scandir

    def listed(path):
        return sorted(real(path), key=lambda entry: entry.name, reverse=backwards)

    monkeypatch.setattr(sources.os, "scandir", listed)
    items = read_folder(str(tmp_path), 2, {})
    assert values_of(items) == {"a.png": 1, "a/c.png": 3, "b.png": 2, "b/a.png": 0}
    assert items.names == sorted(items.names)


def test_only_files_that_changed_are_decoded(tmp_path, monkeypatch):
    for value in range(4):
        save(tmp_path / f"{value}.png", value)
    first = read_folder(str(tmp_path), 2, {})
    assert first.fresh.all()
    assert first.digests[0].tobytes() == hashlib.sha256((tmp_path / "0.png").read_bytes()).digest()
    save(tmp_path / "1.png", 9)
    save(tmp_path / "4.png", 4)
    (tmp_path / "3.png").rename(tmp_path / "moved.png")
    os.utime(tmp_path / "2.png", (0, 0))  # the same bytes, so the same image
    known = {name: digest.tobytes() for name, digest in zip(first.names, first.digests, strict=True)}
    again = read_folder(str(tmp_path), 2, known)
    assert again.names == ["0.png", "1.png", "2.png", "4.png", "moved.png"]
    assert again.fresh.tolist() == [False, True, False, True, False]
    assert again.values[:, 0, 0, 0].tolist() == [9, 4]


def test_progress_counts_every_file(tmp_path):
    for value in range(3):
        save(tmp_path / f"{value}.png", value)
    (tmp_path / "x").touch()
    seen = []
    read_folder(str(tmp_path), 2, {}, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_after_ctrl_c_the_files_that_wait_are_not_read(tmp_path, monkeypatch):
    for value in range(200):
        save(tmp_path / f"{value}.png", value)
    read, real = [], sources.read_image
    monkeypatch.setattr(sources, "read_image", lambda path, *rest: (read.append(path), real(path, *rest))[1])

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_folder(str(tmp_path), 2, {}, on_progress=interrupt)
    assert len(read) < 200


def test_an_empty_folder_holds_nothing(tmp_path):
    items = read_folder(str(tmp_path), 5, {})
    assert items.names == items.skipped == []
    assert items.values.shape == (0, 5, 5, 3)
    assert items.digests.shape == (0, 8)


def test_reading_a_folder_loads_no_flax(tmp_path):
    save(tmp_path / "a.png", 1)
    code = f"""
import sys
from jaxhash.cli.sources import read_folder
print(len(read_folder({str(tmp_path)!r}, 2, {{}}).names), "flax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


def test_pixels_are_one_block_of_bytes(tmp_path):
    save(tmp_path / "a.png", 200)
    values = read_folder(str(tmp_path), 6, {}).values
    assert values.dtype == np.uint8
    assert values.shape == (1, 6, 6, 3)
