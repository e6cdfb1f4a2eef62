"""Saved indexes: what is in the file, and that it comes back."""

import hashlib
import json

import numpy as np
import pytest
from samples import collection, identical

import jaxhash as jh
from jaxhash.files import archive
from jaxhash.index.hash_index import sorted_arrays


@pytest.fixture
def index():
    return collection(40, 200).index


@pytest.mark.parametrize("num_bits", [1, 17, 31, 32, 33, 63, 64, 65, 128, 256, 800, 1024])
@pytest.mark.parametrize("n", [0, 1, 1000])
def test_an_index_comes_back_and_saves_to_the_same_bytes(n, num_bits, tmp_path):
    index = collection(num_bits, n).index
    jh.save_index(tmp_path / "a", index)
    loaded = jh.load_index(tmp_path / "a")
    identical(loaded, index)
    jh.save_index(tmp_path / "b", loaded)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_index_of_several_codes_an_item_comes_back(tmp_path):
    rng = np.random.default_rng(6)
    index = jh.build_index(collection(28, 40).codes, 28, ids=rng.integers(0, 5, 40), multi=True)
    jh.save_index(tmp_path / "index", index)
    loaded = jh.load_index(tmp_path / "index")
    identical(index, loaded)
    jh.save_index(tmp_path / "again", loaded)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "index").read_bytes()


def test_numpy_opens_the_file(index, tmp_path):
    jh.save_index(tmp_path / "index.npz", index)
    table, offsets, ids = sorted_arrays(index)
    with np.load(tmp_path / "index.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["index.codes"], table)
        np.testing.assert_array_equal(file["index.offsets"], offsets)
        np.testing.assert_array_equal(file["index.ids"], ids)
        assert json.loads(file["header.json"])["version"] == 1


def test_the_file_ends_with_the_digest_of_the_rest(index, tmp_path):
    jh.save_index(tmp_path / "i", index)
    content = (tmp_path / "i").read_bytes()
    assert content[-64:].decode() == hashlib.sha256(content[:-64]).hexdigest()


def test_the_error_for_a_file_of_another_kind_names_the_kind(tmp_path):
    jh.save_model(tmp_path / "m", jh.Autoencoder(12, 40, (8,)))
    with pytest.raises(jh.CorruptFileError, match="expected a saved index, but it holds: model"):
        jh.load_index(tmp_path / "m")


def test_errors_for_missing_files_and_folders_name_them(index, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        jh.load_index(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        jh.save_index(tmp_path / "nowhere" / "index", index)


def test_a_file_of_a_newer_version_asks_for_an_upgrade(index, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "VERSION", 2)
    jh.save_index(tmp_path / "i", index)
    monkeypatch.undo()
    with pytest.raises(jh.CorruptFileError, match=r"newer version.*upgrade"):
        jh.load_index(tmp_path / "i")


def test_only_an_index_is_saved_as_one(tmp_path):
    with pytest.raises(TypeError, match="index must be a HashIndex"):
        jh.save_index(tmp_path / "x", jh.Autoencoder(12, 40, (8,)))
