"""The file of a collection: it comes back as it was saved, and what does not belong together is refused."""

import json
import os
from dataclasses import replace

import forgery
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhash as jh
from jaxhash.cli.collection import Collection, load_collection, save_collection, update_collection
from jaxhash.cli.sources import Items
from jaxhash.files.archive import read_archive, write_archive

NAMES = ("a.png", "new\nline.png", os.fsdecode(b"\xff\xfe.png"), "../up.png", "deep/größer.png")


def digests_of(values):
    return np.repeat(np.array(values, np.uint32), 8).reshape(-1, 8)


@pytest.fixture(scope="module")
def images():
    model = jh.ConvAutoencoder((4, 4, 3), 17, channels=(2,), hidden_dims=(3,))
    ids = np.array([0, 2, 3, 7, 9], np.int32)
    index = jh.build_index(np.arange(5, dtype=np.uint32)[:, None] << 15, 17, ids=ids[::-1])
    source = os.fsdecode(b"/photos/\xff")
    return Collection(jh.Retriever(model, index), source, ids, NAMES, digests_of(range(5)))


@pytest.fixture(scope="module")
def vectors():
    model = jh.Autoencoder(3, 9, (4,), output_activation="linear")
    model.input_shift[...], model.input_scale[...] = jnp.float32([1, 2, 3]), jnp.float32(0.5)
    index = jh.build_index(jh.encode(model, np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)), 9)
    ids = np.arange(4, dtype=np.int32)
    return Collection(jh.Retriever(model, index), "/v.npy", ids, ("0", "1", "2", "3"), digests_of(range(4)))


@pytest.mark.parametrize("kind", ["images", "vectors"])
def test_a_collection_comes_back_and_saves_to_the_same_bytes(request, tmp_path, kind):
    collection = request.getfixturevalue(kind)
    save_collection(tmp_path / "a", collection)
    loaded = load_collection(tmp_path / "a")
    assert (loaded.source, loaded.names) == (collection.source, collection.names)
    assert loaded.holds_images == (kind == "images")
    np.testing.assert_array_equal(loaded.ids, collection.ids)
    np.testing.assert_array_equal(loaded.digests, collection.digests)
    save_collection(tmp_path / "b", loaded)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_collections_and_retrievers_are_told_apart(tmp_path, images):
    save_collection(tmp_path / "a", images)
    with pytest.raises(jh.CorruptFileError, match="expected a saved retriever, but it holds: collection"):
        jh.load_retriever(tmp_path / "a")
    jh.save_retriever(tmp_path / "b", images.retriever)
    with pytest.raises(jh.CorruptFileError, match="expected a saved collection, but it holds: retriever"):
        load_collection(tmp_path / "b")


def test_codes_and_paths_are_found_by_id(images):
    assert images.find_codes([7, 0, 9])[:, 0].tolist() == [1 << 15, 4 << 15, 0]
    assert images.find_paths([7, 0]) == [f"{images.source}/../up.png", f"{images.source}/a.png"]
    with pytest.raises(ValueError, match="no item 1: ids go from 0 to 9"):
        images.find_codes([0, 1])


def test_vectors_are_scaled_as_they_were_in_training(vectors):
    unscaled = jh.Autoencoder(3, 9, (4,), output_activation="linear")
    expected = jh.encode(unscaled, np.array([[1, 0, -1]], np.float32))
    np.testing.assert_array_equal(vectors.encode(np.array([[1.5, 2.0, 2.5]], np.float32)), expected)


WRONG_IMAGES = {
    "a path less": {"collection.names": b"a\0b\0c\0d\0"},
    "a path more": {"collection.names": b"a\0b\0c\0d\0e\0f\0"},
    "a path twice": {"collection.names": b"a\0b\0c\0d\0a\0"},
    "an empty path": {"collection.names": b"a\0b\0c\0d\0\0"},
    "no end": {"collection.names": b"a\0b\0c\0d\0e"},
    "paths in numbers": {"collection.names": np.zeros(5, np.int32)},
    "an id less": {"collection.ids": np.array([0, 2, 3, 7], np.int32)},
    "another id": {"collection.ids": np.array([0, 2, 3, 7, 10], np.int32)},
    "ids in another order": {"collection.ids": np.array([2, 0, 3, 7, 9], np.int32)},
    "ids of another dtype": {"collection.ids": np.array([0, 2, 3, 7, 9], np.uint32)},
    "a digest less": {"collection.digests": digests_of(range(4))},
    "digests of another dtype": {"collection.digests": digests_of(range(5)).astype(np.int32)},
}
WRONG_VECTORS = {
    "a shift of another length": {"model.input_shift": np.zeros(2, np.float32)},
    "a shift that is NaN": {"model.input_shift": np.full(3, np.nan, np.float32)},
    "a scale of zero": {"model.input_scale": np.array(0, np.float32)},
    "a scale below": {"model.input_scale": np.array(-1, np.float32)},
    "an infinite scale": {"model.input_scale": np.array(np.inf, np.float32)},
    "two scales": {"model.input_scale": np.ones(2, np.float32)},
    "no scale": {"model.input_scale": None},
    "bytes for a scale": {"model.input_scale": np.array(1, np.uint8)},
}


def forged(path, changes):
    """Saves a file anew with other arrays, all else being right."""
    archive = read_archive(path)
    for name, value in changes.items():
        archive.arrays.pop(name)
        if value is not None:
            archive.arrays[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
    write_archive(path, archive)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [*(("images", change) for change in WRONG_IMAGES.values()), *(("vectors", c) for c in WRONG_VECTORS.values())],
    ids=[*WRONG_IMAGES, *WRONG_VECTORS],
)
def test_wrong_contents_are_refused_despite_a_right_digest(request, tmp_path, kind, changes):
    path = tmp_path / "forged"
    save_collection(path, request.getfixturevalue(kind))
    forged(path, changes)
    with pytest.raises(jh.CorruptFileError, match="forged: "):
        load_collection(path)


HEADER = {"source": "/a", "images": True, "embedding": None, "purpose": "similar"}
EMBEDDING = {"name": "module:function", "side": 8}


def load_with_header(path, images, header):
    """Loads a file of images whose header says something else of the collection."""
    save_collection(path, images)
    meta = json.loads(forgery.parts(path)["header.json"])["meta"] | {"collection": header}
    path.write_bytes(forgery.with_header(path, {"meta": meta}))
    return load_collection(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": 3}, "source must be a path"),
        ({"source": "/a\0b"}, "source must be a path"),
        ({"images": 1}, "images true or false"),
        ({"images": False}, "numbers of their rows"),
        ({"purpose": None}, "purpose must be one of"),
        ({"purpose": "nothing"}, "purpose must be one of"),
        ({"embedding": {}}, "name"),
        ({"embedding": EMBEDDING | {"name": 3}}, "an embedding has a name"),
        ({"embedding": EMBEDDING | {"side": 0}}, "side must lie between"),
        ({"embedding": EMBEDDING | {"more": 0}}, "more"),
        ({"embedding": EMBEDDING}, r"a model of items \(4, 4, 3\) is none for these"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path, images, changes, words):
    with pytest.raises(jh.CorruptFileError, match=f"forged: .*{words}"):
        load_with_header(tmp_path / "forged", images, HEADER | changes)


@pytest.mark.parametrize("missing", HEADER)
def test_a_header_without_one_of_its_fields_is_refused(tmp_path, images, missing):
    assert load_with_header(tmp_path / "whole", images, HEADER).source == "/a"
    with pytest.raises(jh.CorruptFileError, match=rf"forged: collection: KeyError\('{missing}'\)"):
        load_with_header(tmp_path / "forged", images, {name: HEADER[name] for name in HEADER if name != missing})
    with pytest.raises(jh.CorruptFileError, match="forged: "):
        load_with_header(tmp_path / "forged", images, None)


@pytest.mark.parametrize(
    "model", [jh.ConvAutoencoder((4, 6, 3), 17), jh.ConvAutoencoder((4, 4, 1), 17), jh.Autoencoder(48, 17, (2,))]
)
def test_a_model_of_other_items_is_refused(tmp_path, images, model):
    save_collection(tmp_path / "images", images)
    known = read_archive(tmp_path / "images")
    save_collection(tmp_path / "forged", replace(images, retriever=jh.Retriever(model, images.retriever.index)))
    archive = read_archive(tmp_path / "forged")
    names = {"collection.names": known.arrays["collection.names"]}
    meta = archive.meta | {"collection": known.meta["collection"]}
    write_archive(tmp_path / "forged", archive._replace(meta=meta, arrays=archive.arrays | names))
    with pytest.raises(jh.CorruptFileError, match="is none for these"):
        load_collection(tmp_path / "forged")


def test_a_model_of_vectors_without_linear_outputs_is_refused(tmp_path, vectors):
    retriever = jh.Retriever(jh.Autoencoder(3, 9, (4,)), vectors.retriever.index)
    save_collection(tmp_path / "forged", replace(vectors, retriever=retriever))
    with pytest.raises(jh.CorruptFileError, match="a model of vectors has linear outputs, not sigmoid"):
        load_collection(tmp_path / "forged")


def test_a_collection_of_nothing_is_refused(tmp_path, images):
    empty = jh.Retriever(images.retriever.model, jh.build_index(np.zeros((0, 1), np.uint32), 17))
    save_collection(tmp_path / "forged", Collection(empty, "/a", images.ids[:0], (), images.digests[:0]))
    with pytest.raises(jh.CorruptFileError, match=r"forged: .*no items"):
        load_collection(tmp_path / "forged")


@pytest.mark.parametrize("kind", ["images", "vectors"])
def test_damage_is_noticed(request, tmp_path, kind):
    path = tmp_path / "f"
    save_collection(path, request.getfixturevalue(kind))
    content = path.read_bytes()
    for place in range(0, len(content), 97):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(jh.CorruptFileError):
            load_collection(path)
    for length in range(0, len(content), 997):
        path.write_bytes(content[:length])
        with pytest.raises(jh.CorruptFileError):
            load_collection(path)


def items(names, digests, fresh, values):
    return Items(names, digests_of(digests), np.array(fresh), values, [])


def pixels(count):
    return np.random.default_rng(1).integers(0, 256, (count, 4, 4, 3), np.uint8)


def test_an_update_keeps_old_ids_and_appends_new_ones(images):
    values = pixels(2)
    names = ["0.png", "a.png", "deep/größer.png", "new\nline.png"]  # one is new, one changed, two are gone
    new, changes = update_collection(
        images, items(names, [50, 0, 4, 60], [True, False, False, True], values), "/elsewhere"
    )
    assert changes == (1, 1, 2)
    assert dict(zip(new.names, new.ids.tolist(), strict=True)) == {
        "a.png": 0,
        "new\nline.png": 2,
        "deep/größer.png": 9,
        "0.png": 10,
    }
    assert new.digests[:, 0].tolist() == [0, 60, 4, 50]
    fresh = np.asarray(images.encode(values))
    expected = np.stack([images.find_codes([0])[0], fresh[1], images.find_codes([9])[0], fresh[0]])
    np.testing.assert_array_equal(new.find_codes(new.ids), expected)
    assert new.source == "/elsewhere"
    assert new.retriever.model is images.retriever.model


def test_vectors_with_ids_unlike_row_numbers_are_refused(tmp_path, vectors):
    ids = np.array([0, 1, 2, 4], np.int32)
    retriever = jh.Retriever(vectors.retriever.model, jh.build_index(vectors.find_codes(range(4)), 9, ids=ids))
    save_collection(tmp_path / "forged", replace(vectors, retriever=retriever, ids=ids))
    with pytest.raises(jh.CorruptFileError, match="not the numbers of their rows"):
        load_collection(tmp_path / "forged")


def test_an_update_without_changes_keeps_the_collection(images, tmp_path):
    order = sorted(range(5), key=lambda place: NAMES[place])
    same, changes = update_collection(
        images, items([NAMES[place] for place in order], order, [False] * 5, pixels(0)), images.source
    )
    assert changes == (0, 0, 0)
    for name, collection in (("a", images), ("b", same)):
        save_collection(tmp_path / name, collection)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_update_without_any_known_item_is_refused(images):
    with pytest.raises(ValueError, match="--retrain"):
        update_collection(images, items(["a.png", "z.png"], [8, 9], [True, True], pixels(2)), "/elsewhere")
