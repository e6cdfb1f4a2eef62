"""The command `duplicates`: what it lists are copies that are there, and no file is lost by deleting what it says."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from command_line import COUNT, SIDE, error_of, run

import jaxhash as jh
from jaxhash import __main__ as command
from jaxhash.cli import build
from jaxhash.cli.collection import load_collection, save_collection

COPIES = {"000.png": ["copy of 000.png", "more/000.png"], "001.png": ["other.png"]}


@pytest.fixture(scope="module")
def built(tmp_path_factory, digits):
    """A folder of digits with copies of two of them, and a collection of it that was built for duplicates."""
    root = tmp_path_factory.mktemp("built")
    (root / "photos" / "more").mkdir(parents=True)
    for number in range(20):
        save(root / "photos" / f"{number:03}.png", digits.train_images[number])
    for name, copies in COPIES.items():
        for copy in copies:
            shutil.copy(root / "photos" / name, root / "photos" / copy)
    learn(root)
    return root


def save(path, pixels):
    build_image = pytest.importorskip("PIL.Image")
    with path.open("wb") as file:
        build_image.fromarray(pixels).save(file, "PNG")


def learn(root):
    """Builds a collection without training, which takes seconds to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "fit", lambda model, *_, **__: (model, jh.training.History()))
        arguments = ("build", root / "photos", "-o", root / "f", "--for", "duplicates", "--side", SIDE)
        assert command.main([str(argument) for argument in arguments]) == 0


@pytest.fixture
def photos(built, tmp_path):
    """A copy to change, and its folder of photographs."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    collection = load_collection(tmp_path / "f")
    save_collection(tmp_path / "f", replace(collection, source=str(tmp_path / "photos")))
    return tmp_path / "photos"


def listed(capsys, photos, *options):
    """What `duplicates` prints, as names inside the folder, and what it says on stderr."""
    out, err = run(capsys, "duplicates", photos.parent / "f", "--radius", 0, *options)
    return [line.removeprefix(f"{photos}/") for line in out.splitlines()], err


ALL = ["000.png", "copy of 000.png", "more/000.png", "", "001.png", "other.png", ""]
KEPT = ["copy of 000.png", "more/000.png", "other.png"]


def test_copies_are_listed(photos, capsys):
    assert listed(capsys, photos) == (ALL, "2 groups, with 5 of 23 items\n")
    assert listed(capsys, photos, "--keep") == (KEPT, "3 of 23 items to delete\n")


def test_what_is_listed_is_what_the_library_finds(photos, capsys):
    collection, options = load_collection(photos.parent / "f"), ("--radius", 18)
    found = jh.deduplicate(collection.retriever.index, radius=18)
    assert len(found.removed) > len(KEPT)
    out = run(capsys, "duplicates", photos.parent / "f", *options, "--keep").out
    assert out.splitlines() == collection.find_paths(found.removed)
    groups = jh.duplicate_groups(collection.retriever.index, radius=18)
    out = run(capsys, "duplicates", photos.parent / "f", *options).out
    assert [block.split("\n") for block in out.split("\n\n")[:-1]] == list(map(collection.find_paths, groups))


def replace_by_another(path):
    shutil.copy(path.parent / "015.png", path)


def make_link(path):
    path.unlink()
    path.symlink_to("015.png")


@pytest.mark.parametrize("change", [os.remove, replace_by_another, make_link], ids=["gone", "changed", "link"])
@pytest.mark.parametrize(
    ("name", "groups", "removed"),
    [
        ("000.png", [*ALL[4:], "copy of 000.png", "more/000.png", ""], ["more/000.png", "other.png"]),
        ("copy of 000.png", ["000.png", "more/000.png", "", *ALL[4:]], ["more/000.png", "other.png"]),
        ("001.png", ALL[:4], KEPT[:2]),
        ("other.png", ALL[:4], KEPT[:2]),
    ],
)
def test_changed_files_and_items_without_a_twin_are_left_out(photos, capsys, change, name, groups, removed):
    change(photos / name)
    for options, expected in (((), groups), (("--keep",), removed)):
        found, err = listed(capsys, photos, *options)
        assert found == expected
        assert err.startswith(f"left out {photos / name}: ")


def test_a_hard_link_is_no_copy(photos, capsys):
    (photos / "copy of 000.png").unlink()
    os.link(photos / "000.png", photos / "copy of 000.png")
    found, err = listed(capsys, photos, "--keep")
    assert found == ["more/000.png", "other.png"]
    assert f"left out {photos / 'copy of 000.png'}: another name of {photos / '000.png'}" in err
    (photos / "more" / "000.png").unlink()
    assert listed(capsys, photos)[0] == ALL[4:]


def test_a_link_is_never_an_item(photos, capsys):
    for number in (0, 15):
        (photos / f"a link to {number}.png").symlink_to(f"{number:03}.png")
    run(capsys, "build", photos, "-o", photos.parent / "f")
    assert listed(capsys, photos, "--keep")[0] == KEPT


def test_a_folder_that_became_a_link_to_another_holds_no_copies(photos, capsys):
    shutil.rmtree(photos / "more")
    (photos / "more").symlink_to(photos)
    assert listed(capsys, photos, "--keep")[0] == ["copy of 000.png", "other.png"]


def test_when_the_source_is_gone_nothing_is_listed(photos, embeddings, tmp_path, capsys):
    photos.rename(tmp_path / "elsewhere")
    for options in ((), ("--keep",)):
        err = error_of(capsys, "duplicates", tmp_path / "f", "--radius", 0, *options)
        assert f"{photos} is gone, so its items can't be checked: build again from where they are now" in err


def test_rows_that_have_changed_are_left_out(embeddings, tmp_path, capsys):
    collection, vectors = load_collection(embeddings / "v"), np.load(embeddings / "v.npy")
    save_collection(tmp_path / "v", replace(collection, source=str(tmp_path / "v.npy")))
    np.save(tmp_path / "v.npy", vectors)
    before = set(run(capsys, "duplicates", tmp_path / "v", "--radius", 0).out.split())
    vectors[int(min(before))] += 1
    np.save(tmp_path / "v.npy", vectors)
    out, err = run(capsys, "duplicates", tmp_path / "v", "--radius", 0)
    assert f"left out row {min(before)}: gone or changed" in err
    assert min(before) not in out.split()


def test_codes_for_similar_images_are_no_reason_to_delete(original, capsys):
    """The README's own commands, and pictures that are alike but no copies."""
    file = original / "photos.npz"
    err = error_of(capsys, "duplicates", file, "--radius", 2, "--keep")
    assert "learned for similar images: build with --for duplicates" in err
    out, err = run(capsys, "duplicates", file, "--radius", 2)
    assert len(out.splitlines()) > COUNT // 2
    assert "warning: the codes were learned for similar images: build with --for duplicates" in err


def test_a_radius_that_chance_fills_is_no_reason_to_delete(photos, embeddings, capsys):
    for radius, pairs in ((23, 4), (64, 253)):  # of 253 pairs of 23 items
        message = f"about {pairs} pairs lie within a radius of {radius} by chance: take a smaller radius"
        assert message in error_of(capsys, "duplicates", photos.parent / "f", "--radius", radius, "--keep")
        assert f"warning: of 23 items with codes of 64 bits, {message}" in listed_at(capsys, photos, radius).err
    assert "chance" not in listed_at(capsys, photos, 18).err
    assert "by chance" in error_of(capsys, "duplicates", embeddings / "v", "--radius", 2, "--keep")


def listed_at(capsys, photos, radius):
    return run(capsys, "duplicates", photos.parent / "f", "--radius", radius)


NAMES = [
    "Screenshot 2026-12-01 at 9.41.00\u202fAM.png",
    "no\u00a0break.png",
    "family \U0001f468\u200d\U0001f469\u200d\U0001f467.png",
    "back\\slash.png",
    "tab\there.png",
    'it\'s "quoted".png',
    "größer.png",
    "\x1b[31mred.png",
    " spaces  .png",
    "-rf.png",
    os.fsdecode(b"\xff\xfe.png"),
]


@pytest.fixture(scope="module")
def odd(tmp_path_factory, digits):
    """Copies of one image under odd names, the first of them plain, and their collection."""
    root = tmp_path_factory.mktemp("odd")
    (root / "photos").mkdir()
    for name in ("\x01first.png", *NAMES, "new\nline.png"):
        save(root / "photos" / name, digits.train_images[0])
    learn(root)
    return root


TWICE = """
import sys
from jaxhash.__main__ import main
main(sys.argv[1:])
print("then")
main([*sys.argv[1:], "--null"])
"""


def test_a_pipe_gets_the_bytes_of_names(odd):
    """In one process, as to start one takes seconds."""
    arguments = [sys.executable, "-c", TWICE, "duplicates", str(odd / "f"), "--radius", "0", "--keep"]
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    done = subprocess.run(arguments, capture_output=True, check=True, timeout=100, env=environment)
    lines, _, ended = done.stdout.partition(b"then\n")
    expected = sorted(os.fsencode(odd / "photos" / name) for name in NAMES)
    assert sorted(lines.split(b"\n")[:-1]) == expected
    with_break = os.fsencode(odd / "photos" / "new\nline.png")
    assert sorted(ended.split(b"\0")[:-1]) == sorted([*expected, with_break])
    assert done.stderr.count(b"left out a name with a line break, which --null prints: ") == 1
    assert rb"new\nline.png" in done.stderr


def test_lines_end_in_nul_characters_on_demand(odd, photos, capsys):
    out = run(capsys, "duplicates", photos.parent / "f", "--radius", 0, "--null").out
    assert [name.removeprefix(f"{photos}/") for name in out.split("\0")[:-1]] == ALL
    out = run(capsys, "query", photos.parent / "f", photos / "000.png", "--radius", 0, "--null").out
    assert [line.split("\t")[1] for line in out.split("\0")[:-1]] == [str(photos / name) for name in ALL[:3]]


def test_a_terminal_gets_what_would_break_it_escaped(odd, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = run(capsys, "duplicates", odd / "f", "--radius", 0, "--keep").out.splitlines()
    escaped = {"tab\there.png": r"tab\there.png", "\x1b[31mred.png": r"\x1b[31mred.png"}
    escaped |= {NAMES[-1]: r"\xff\xfe.png"}
    expected = [*(escaped.get(name, name) for name in NAMES), r"new\nline.png"]
    assert sorted(line.removeprefix(f"{odd / 'photos'}/") for line in lines) == sorted(expected)
