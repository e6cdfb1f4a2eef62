"""Updates of a collection: of which source, what is known again under another name, and what can't be encoded."""

import shutil

import numpy as np
import pytest
from command_line import error_of, found_in, run, save_image

import jaxhash as jh
from jaxhash.cli import build
from jaxhash.cli.collection import load_collection
from jaxhash.cli.vectors import find_odd_rows


@pytest.fixture(autouse=True)
def learned_once(monkeypatch):
    monkeypatch.setattr(build, "fit", lambda *_, **__: pytest.fail("learned again"))


def test_another_source_with_common_items_is_refused(folder, capsys, digits):
    (folder / "other").mkdir()
    for number in range(40):
        save_image(folder / "other" / f"{number:03}.png", digits.train_images[900 + number])
    shutil.copy(folder / "photos" / "003.png", folder / "other" / "003.png")
    content = (folder / "photos.npz").read_bytes()
    err = error_of(capsys, "build", folder / "other", "-o", folder / "photos.npz")
    assert f"was built of {load_collection(folder / 'photos.npz').source}, and {folder / 'other'} holds 2 of its" in err
    assert "--retrain" in err
    assert (folder / "photos.npz").read_bytes() == content


def test_a_renamed_folder_goes_on_and_is_named(folder, capsys):
    run(capsys, "build", folder / "photos", "-o", folder / "photos.npz")
    (folder / "photos").rename(folder / "renamed")
    (folder / "renamed" / "005.png").unlink()
    out = run(capsys, "build", folder / "renamed", "-o", folder / "photos.npz").out
    assert "0 new, 0 changed, 1 gone" in out
    assert f"the source was {folder / 'photos'}, and is now {folder / 'renamed'}\n" in out
    assert load_collection(folder / "photos.npz").source == str(folder / "renamed")


def test_images_that_moved_keep_their_codes(folder, capsys, monkeypatch):
    before = load_collection(folder / "photos.npz")
    (folder / "photos" / "more").rename(folder / "photos" / "elsewhere")
    encoded, real = [], type(before).encode
    monkeypatch.setattr(type(before), "encode", lambda self, rows: (encoded.append(len(rows)), real(self, rows))[1])
    assert "19 new, 0 changed, 19 gone" in run(capsys, "build", folder / "photos", "-o", folder / "photos.npz").out
    assert sum(encoded) == 0
    after = load_collection(folder / "photos.npz")
    codes = [
        {
            name.replace("elsewhere", "more"): int(code[0])
            for name, code in zip(c.names, c.find_codes(c.ids), strict=True)
        }
        for c in (before, after)
    ]
    assert codes[0] == codes[1]


@pytest.fixture
def rows(embeddings, tmp_path):
    """The vectors of a collection, which is copied beside where they are saved."""
    shutil.copy(embeddings / "v", tmp_path / "v")
    return np.load(embeddings / "v.npy")


@pytest.mark.parametrize(
    ("order", "report"),
    [
        (lambda rows: rows[::-1], "0 new, 0 changed, 0 gone"),
        (lambda rows: np.concatenate([rows[:1] + 1, rows]), "1 new, 0 changed, 0 gone"),
        (lambda rows: np.delete(rows, 3, axis=0), "0 new, 0 changed, 1 gone"),
        (lambda rows: np.concatenate([rows[:3], rows[:1] + 1, rows[4:]]), "0 new, 1 changed, 0 gone"),
    ],
    ids=["reversed", "one in front", "one less", "one changed"],
)
def test_rows_that_moved_keep_their_codes(rows, tmp_path, capsys, order, report):
    before = load_collection(tmp_path / "v")
    moved = order(rows)
    np.save(tmp_path / "v.npy", moved)
    assert report in run(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v").out
    after = load_collection(tmp_path / "v")
    places = [(new, old) for new, row in enumerate(moved) for old in np.flatnonzero((rows == row).all(axis=1))]
    assert len(places) >= len(rows) - 1
    new, old = zip(*places, strict=True)
    np.testing.assert_array_equal(after.find_codes(new), before.find_codes(old))
    (fresh,) = after.encode(moved[3:4].astype(np.float32))
    np.testing.assert_array_equal(after.find_codes([3])[0], fresh)


def test_a_row_out_of_range_is_named_with_its_file_and_the_cure(rows, tmp_path, capsys):
    rows[200] = 1e6
    np.save(tmp_path / "v.npy", rows)
    err = error_of(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v")
    assert f"{tmp_path / 'v.npy'}: row 200 holds values outside" in err
    assert "--retrain" in err
    assert "image" not in err
    assert f"{tmp_path / 'v.npy'} row 200" in error_of(capsys, "query", tmp_path / "v", tmp_path / "v.npy")


def test_npy_in_capitals_is_taken(rows, tmp_path, capsys):
    np.save(tmp_path / "v.npy", rows)
    (tmp_path / "v.npy").rename(tmp_path / "V.NPY")
    run(capsys, "build", tmp_path / "V.NPY", "-o", tmp_path / "v")
    np.save(tmp_path / "one.npy", rows[60])
    (tmp_path / "one.npy").rename(tmp_path / "ONE.NPY")
    by_file = run(capsys, "query", tmp_path / "v", tmp_path / "ONE.NPY").out
    assert found_in(by_file) == found_in(run(capsys, "query", tmp_path / "v", 60).out)


@pytest.mark.parametrize("value", [-9999, 0, 1e6])
def test_fill_values_are_found(rng, value):
    vectors = rng.normal(size=(300, 16)).astype(np.float32)
    vectors[[7, 250]] = value
    assert find_odd_rows(vectors).tolist() == [7, 250]


def test_rows_that_are_far_apart_or_alike_are_no_fill_values(rng):
    assert not find_odd_rows(rng.standard_cauchy(size=(300, 1)).clip(-50, 50).astype(np.float32)).size
    assert not find_odd_rows(np.ones((300, 4), np.float32)).size
    assert not find_odd_rows(np.array([[1, 2]], np.float32)).size
    assert not find_odd_rows((1000 + rng.normal(size=(300, 4))).astype(np.float32)).size


def test_fill_values_are_told_before_training(tmp_path, capsys, monkeypatch):
    def fit(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "fit", fit)
    vectors = np.random.default_rng(0).normal(size=(300, 16))
    vectors[41] = -9999
    np.save(tmp_path / "v.npy", vectors)
    err = run(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v", status=130).err
    assert "1 of 300 rows are of one value or far from all others, as fill values are: row 41" in err


def test_idle_bits_of_vectors_are_not_said_of_images(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(build, "fit", jh.fit)
    np.save(tmp_path / "v.npy", np.ones((3, 2)))
    err = run(capsys, "build", tmp_path / "v.npy", "-o", tmp_path / "v", "--epochs", 1).err
    assert "the same for all vectors" in err
