"""Files of every format version load for good, and give the answers that they gave when they were written.

The files in `golden/v1` are kept from now on: a format that can't read them is another version, with its own folder.
"""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxhash as jh
from jaxhash.cli.collection import load_collection, save_collection

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.iterdir())


def answers(version):
    return json.loads((GOLDEN / version / "answers.json").read_text())


def assert_equal(found, expected):
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(found, name), values)


@pytest.mark.parametrize("version", VERSIONS)
def test_old_indexes_load_and_answer_as_ever(version):
    index, expected = jh.load_index(GOLDEN / version / "index.npz"), answers(version)["index"]
    ids, integers = np.array(expected["items"], np.uint64).T
    built = jh.build_index(jh.codes.codes_from_integers(integers, 40), 40, ids=ids)
    jax.tree.map(np.testing.assert_array_equal, index, built)
    queries = np.array(expected["queries"], np.uint32)
    assert_equal(jh.search(index, queries, k=5), expected["nearest 5"])
    assert_equal(jh.radius_search(index, queries, radius=6), expected["radius 6"])


@pytest.mark.parametrize("version", VERSIONS)
def test_old_models_load_and_encode_as_ever(version):
    model, expected = jh.load_model(GOLDEN / version / "model.npz"), answers(version)["model"]
    images = np.array(expected["images"], np.uint8)  # their code logits lie far from the threshold
    np.testing.assert_array_equal(jh.encode(model, images), expected["codes"])
    np.testing.assert_allclose(jh.reconstruct(model, images), expected["reconstructed"], atol=1e-4)


@pytest.mark.parametrize("version", VERSIONS)
def test_old_retrievers_load_and_find_what_they_found(version):
    retriever, expected = jh.load_retriever(GOLDEN / version / "retriever.npz"), answers(version)
    images = np.array(expected["model"]["images"], np.uint8)
    assert_equal(jh.retrieve(retriever, images, k=3), expected["retriever"]["nearest 3"])


@pytest.mark.parametrize("version", VERSIONS)
def test_old_collections_load_with_every_name_and_code(version):
    images, vectors = (load_collection(GOLDEN / version / f"{kind}.npz") for kind in ("images", "vectors"))
    assert images.source == os.fsdecode(b"/photos/\xff")
    assert images.names == ("a.png", "new\nline.png", os.fsdecode(b"b/\xfe.png"))
    assert images.ids.tolist() == [0, 2, 5]
    assert images.find_codes([0, 2, 5]).tolist() == [[1937506304], [3677421568], [1937309696]]
    assert vectors.names == ("0", "1", "2")
    assert vectors.find_codes([0, 1, 2]).tolist() == [[2936012800], [2399141888], [2399141888]]
    model = vectors.retriever.model
    assert (model.input_shift[...].tolist(), model.input_scale[...].item()) == ([1, 2, 3], 0.5)


def test_the_current_version_writes_the_same_bytes(tmp_path):
    for kind in ("index", "model", "retriever"):
        golden = GOLDEN / VERSIONS[-1] / f"{kind}.npz"
        getattr(jh, f"save_{kind}")(tmp_path / kind, getattr(jh, f"load_{kind}")(golden))
        assert (tmp_path / kind).read_bytes() == golden.read_bytes()
    for kind in ("images", "vectors"):
        golden = GOLDEN / VERSIONS[-1] / f"{kind}.npz"
        save_collection(tmp_path / kind, load_collection(golden))
        assert (tmp_path / kind).read_bytes() == golden.read_bytes()
