"""The option `--embedder`: a function of the user's makes vectors of images, and its work is kept while it goes on."""

import sys
import textwrap

import numpy as np
import pytest
from command_line import error_of, found_in, run, save_image

from jaxhash.cli.collection import load_collection
from jaxhash.cli.embedder import Embedder, Embedding, import_function
from jaxhash.cli.embedding_cache import EmbeddingCache
from jaxhash.cli.sources import read_folder
from jaxhash.files.archive import read_archive, write_archive

SIDE, COUNT, WIDTH = 6, 130, 12
EMBEDDING = Embedding("networks:embed", SIDE)
MODULE = """
    import numpy as np
    calls, stop_after = [], None
    def embed(images):
        if stop_after is not None and sum(calls) >= stop_after:
            raise KeyboardInterrupt
        calls.append(len(images))
        assert images.dtype == np.uint8 and images.shape[1:] == (6, 6, 3), images.shape
        return images.reshape(len(images), 6, 6, 3)[:, ::3, ::3].reshape(len(images), 12) / 255
    def other(images):
        return embed(images)
    def wider(images):
        return np.zeros((len(images), 24))
    def half(images):
        return embed(images).astype(np.float16)
    def broken(images):
        raise RuntimeError("out of\\nmemory")
    def whole_numbers(images):
        return images.reshape(len(images), -1)
    def too_few(images):
        return embed(images)[:-1]
    def not_a_number(images):
        return np.full((len(images), 12), np.nan)
    def one_infinite(images):
        return np.where((np.arange(len(images)) == 3)[:, None], np.inf, embed(images))
    seven = 7
"""


@pytest.fixture(autouse=True)
def networks(tmp_path, monkeypatch):
    """A module of functions in the working folder, imported anew for each test."""
    (tmp_path / "networks.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "networks", raising=False)
    yield
    sys.modules.pop("networks", None)


def counted():
    """How many images the functions were given since the last time."""
    calls = sys.modules["networks"].calls
    count = sum(calls)
    calls.clear()
    return count


@pytest.fixture
def photos(tmp_path):
    """A folder of small images, all different."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        save_image(tmp_path / "photos" / f"{number:03}.png", rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    return tmp_path / "photos"


def options(photos, function="embed", output="f.npz"):
    place = photos.parent / output
    return ("build", photos, "-o", place, "--embedder", f"networks:{function}", "--side", SIDE, "--epochs", 1)


def test_an_embedder_builds_updates_and_queries(photos, capsys):
    output, photo = photos.parent / "f.npz", photos / "003.png"
    assert f"{COUNT} images" in run(capsys, *options(photos)).out
    assert counted() == COUNT
    assert sorted(path.name for path in photos.parent.glob("f.npz*")) == ["f.npz"]  # the cache is gone
    collection = load_collection(output)
    assert collection.embedding == EMBEDDING
    assert (collection.side, collection.width) == (SIDE, WIDTH)
    asked = ("query", output, photo, "-k", 5, "--embedder", "networks:embed")
    distances, paths = found_in(run(capsys, *asked).out)
    assert (distances[0], len(paths)) == (0, 5)
    assert str(photo) in paths
    assert counted() == 1
    assert f"embedder\tnetworks:embed at {SIDE} pixels a side" in run(capsys, "info", output).out
    save_image(photos / "new.png", np.full((SIDE, SIDE, 3), 9, np.uint8))
    again = ("build", photos, "-o", output, "--embedder", "networks:embed")
    assert "1 new, 0 changed, 0 gone" in run(capsys, *again).out
    assert counted() == 1


def test_the_embedder_must_be_given_again_and_be_the_same(photos, capsys):
    output, photo = photos.parent / "f.npz", photos / "003.png"
    run(capsys, *options(photos))
    content = output.read_bytes()
    for arguments, part in [
        (("query", output, photo), "built by --embedder networks:embed: give it again, as a file never makes code run"),
        (("query", output, photo, "--embedder", "networks:other"), "built by --embedder networks:embed: not by"),
        (("build", photos, "-o", output), "give it again"),
        (("build", photos, "-o", output, "--embedder", "networks:other"), "not by networks:other"),
        (("build", photos, "-o", output, "--embedder", "networks:embed", "--side", 7), "6 pixels a side, not 7"),
    ]:
        assert part in error_of(capsys, *arguments), arguments
    save_image(photos / "new.png", np.full((SIDE, SIDE, 3), 9, np.uint8))
    sys.modules["networks"].embed = sys.modules["networks"].wider  # the same name, another function
    width = "vectors of 24 values, not of 12"
    assert width in error_of(capsys, "query", output, photo, "--embedder", "networks:embed")
    assert width in error_of(capsys, "build", photos, "-o", output, "--embedder", "networks:embed")
    assert output.read_bytes() == content


def test_a_file_built_from_pixels_takes_no_embedder(original, capsys):
    photo = original / "photos" / "003.png"
    asked = ("query", original / "photos.npz", photo, "--embedder", "networks:embed")
    assert "was built without --embedder" in error_of(capsys, *asked)
    assert "networks" not in sys.modules


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("networks", "must be package.module:function"),
        (":embed", "must be package.module:function"),
        ("nothing.at.all:embed", "can't be imported: ModuleNotFoundError: No module named 'nothing'"),
        ("networks:nothing", "can't be imported: AttributeError"),
        ("networks:seven", "must be a function, got int"),
        ("networks:broken", "failed on uint8 images of shape (64, 6, 6, 3): RuntimeError: out of memory"),
        ("networks:whole_numbers", "must return floats of shape [64, d], got uint8 of shape (64, 108)"),
        ("networks:too_few", "must return floats of shape [64, d], got float64 of shape (63, 12)"),
        ("networks:not_a_number", "returned NaN or a number too large for float32 for 000.png"),
        ("networks:one_infinite", "for 003.png"),
    ],
)
def test_what_is_wrong_with_an_embedder_is_one_line(photos, capsys, name, part):
    err = error_of(capsys, "build", photos, "-o", photos.parent / "f", "--embedder", name, "--side", SIDE)
    assert part in err
    assert name in err
    assert not (photos.parent / "f").exists()


def test_vectors_need_no_embedder(tmp_path, capsys):
    np.save(tmp_path / "v.npy", np.zeros((3, 2)))
    arguments = ("build", tmp_path / "v.npy", "-o", tmp_path / "f")
    assert "is for a folder of images" in error_of(capsys, *arguments, "--embedder", "networks:embed")
    assert "is for a folder of images" in error_of(capsys, *arguments, "--for", "duplicates")


def test_a_second_build_goes_on_after_ctrl_c(photos, capsys, monkeypatch):
    import_function("networks:embed")
    monkeypatch.setattr(sys.modules["networks"], "stop_after", 128)
    run(capsys, *options(photos), status=130)
    assert counted() == 128
    assert not (photos.parent / "f.npz").exists()
    (photos / "005.png").unlink()
    save_image(photos / "006.png", np.full((SIDE, SIDE, 3), 6, np.uint8))  # changed since
    monkeypatch.setattr(sys.modules["networks"], "stop_after", None)
    assert "128 images were embedded before" in run(capsys, *options(photos)).err
    assert counted() == 1 + 2
    run(capsys, *options(photos, output="g.npz"))
    assert counted() == COUNT - 1
    assert (photos.parent / "f.npz").read_bytes() == (photos.parent / "g.npz").read_bytes()
    assert sorted(path.name for path in photos.parent.glob("f.npz*")) == ["f.npz"]


def read(photos, embedding=EMBEDDING):
    """Reads a folder with a cache that stays; returns the values, and what the cache said of the last time."""
    with EmbeddingCache(photos.parent / "f", embedding) as cache:
        items = read_folder(str(photos), SIDE, {}, embedder=Embedder(embedding), cache=cache)
    return items.values, cache.notes


def test_a_cache_of_another_embedder_or_side_is_not_used(photos):
    values, notes = read(photos)
    assert (counted(), notes) == (COUNT, [])
    assert values.dtype == np.float32
    np.testing.assert_array_equal(read(photos)[0], values)
    assert counted() == 0
    for other in (Embedding("networks:other", SIDE), Embedding("networks:other", SIDE + 1)):
        _, (note,) = read(photos, other)
        assert "of another embedder or side" in note
        assert counted() == COUNT


def test_a_damaged_part_of_a_cache_is_noticed_and_made_again(photos, monkeypatch):
    monkeypatch.setattr("jaxhash.cli.embedding_cache.SECONDS_IN_PART", 0)  # each vector is a part
    values, _ = read(photos)
    assert counted() == COUNT
    first, second, third, *_ = sorted((photos.parent / "f.embeddings").iterdir())
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:100])
    archive = read_archive(third)
    write_archive(third, archive._replace(arrays=archive.arrays | {"vectors": np.zeros((2, WIDTH), np.float32)}))
    again, notes = read(photos)
    np.testing.assert_array_equal(again, values)
    assert counted() == 3
    assert [path.name in note for path, note in zip((first, second, third), notes, strict=True)] == [True] * 3


def test_a_cache_removes_only_what_it_has_written(photos):
    read(photos)
    (photos.parent / "f.embeddings" / "notes.txt").write_text("mine")
    EmbeddingCache(photos.parent / "f", EMBEDDING).remove()
    assert [path.name for path in (photos.parent / "f.embeddings").iterdir()] == ["notes.txt"]


def test_floats_of_any_kind_become_float32():
    embedder, half = (Embedder(Embedding(f"networks:{name}", SIDE)) for name in ("embed", "half"))
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    assert half(images).dtype == np.float32
    np.testing.assert_allclose(half(images), embedder(images), atol=1e-3)
