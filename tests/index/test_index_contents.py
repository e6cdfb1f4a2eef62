import json

import jax
import numpy as np
import oracle
import pytest

import jaxhash as jh
from jaxhash.files import archive
from jaxhash.files.archive import Archive, read_archive, write_archive
from jaxhash.index.hash_index import sorted_arrays


def make_index(n=200, num_bits=40):
    rng = np.random.default_rng(n)
    return jh.build_index(oracle.pack(oracle.clustered(rng, n, num_bits)), num_bits, ids=rng.permutation(3 * n)[:n])


@pytest.fixture
def index():
    return make_index()


@pytest.fixture(scope="module")
def model():
    images = np.random.default_rng(0).integers(0, 256, (64, 12), dtype=np.uint8)
    return jh.fit(jh.Autoencoder(12, 40, (8,)), images, epochs=1)[0]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)


@pytest.mark.parametrize("num_bits", [1, 17, 31, 32, 33, 63, 64, 65, 128, 256, 800, 1024])
@pytest.mark.parametrize("n", [0, 1, 1000])
def test_an_index_comes_back_bit_for_bit_and_saves_to_the_same_bytes(n, num_bits, tmp_path):
    index = make_index(n, num_bits)
    jh.save_index(tmp_path / "a", index)
    loaded = jh.load_index(tmp_path / "a")
    same(loaded, index)
    jh.save_index(tmp_path / "b", loaded)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_model_comes_back_bit_for_bit(model, tmp_path):
    jh.save_model(tmp_path / "model.npz", model)
    loaded = jh.load_model(tmp_path / "model.npz")
    same(jax.tree.leaves(loaded), jax.tree.leaves(model))
    assert loaded.config == model.config
    images = np.random.default_rng(1).integers(0, 256, (20, 12), dtype=np.uint8)
    np.testing.assert_array_equal(jh.encode(loaded, images), jh.encode(model, images))
    again, _ = jh.fit(loaded, images, epochs=1)
    assert jh.encode(again, images).shape == (20, 2)


def test_a_retriever_comes_back_whole(model, index, tmp_path):
    retriever = jh.Retriever(model, index)
    jh.save_retriever(tmp_path / "r.npz", retriever)
    loaded = jh.load_retriever(tmp_path / "r.npz")
    same(jax.tree.leaves(loaded), jax.tree.leaves(retriever))
    images = np.random.default_rng(1).random((5, 12), np.float32)
    same(jh.retrieve(loaded, images, k=3), jh.retrieve(retriever, images, k=3))


def test_numpy_opens_the_file(index, tmp_path):
    jh.save_index(tmp_path / "index.npz", index)
    table, offsets, ids = sorted_arrays(index)
    with np.load(tmp_path / "index.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["index.codes"], table)
        np.testing.assert_array_equal(file["index.offsets"], offsets)
        np.testing.assert_array_equal(file["index.ids"], ids)
        assert json.loads(file["header.json"])["version"] == 1


def test_the_end_of_the_file_is_the_digest_of_the_rest(index, tmp_path):
    import hashlib

    jh.save_index(tmp_path / "i", index)
    content = (tmp_path / "i").read_bytes()
    assert content[-64:].decode() == hashlib.sha256(content[:-64]).hexdigest()


def test_a_file_of_another_kind_is_named_as_such(model, index, tmp_path):
    jh.save_model(tmp_path / "m", model)
    with pytest.raises(jh.CorruptFileError, match="expected a saved index, but it holds: model"):
        jh.load_index(tmp_path / "m")


def test_missing_files_and_folders_are_named(index, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        jh.load_index(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        jh.save_index(tmp_path / "nowhere" / "index", index)


def forged(tmp_path, **changes):
    """A file with a right digest and changed arrays, which `load_index` must refuse."""
    table, offsets, ids = sorted_arrays(make_index(20, 17))
    arrays = {"index.codes": table, "index.offsets": offsets, "index.ids": ids}
    meta = changes.pop("meta", {"index": {"num_bits": 17}})
    write_archive(tmp_path / "forged", Archive("index", meta, arrays | changes))
    with pytest.raises(jh.CorruptFileError) as caught:
        jh.load_index(tmp_path / "forged")
    return str(caught.value)


def test_a_right_digest_does_not_excuse_a_wrong_meaning(tmp_path):
    table, offsets, ids = sorted_arrays(make_index(20, 17))
    swapped, doubled, padded = table[::-1].copy(), table.copy(), table.copy()
    doubled[1] = doubled[0]
    padded[0, 0] |= 1
    late, short = offsets.copy(), offsets.copy()
    late[0], short[-1] = 1, 19
    falling = offsets.copy()
    falling[1] = falling[2] + 1
    assert "ascending" in forged(tmp_path, **{"index.codes": swapped})
    assert "ascending" in forged(tmp_path, **{"index.codes": doubled})
    assert "padding bits" in forged(tmp_path, **{"index.codes": padded})
    assert "offsets must rise" in forged(tmp_path, **{"index.offsets": late})
    assert "offsets must rise" in forged(tmp_path, **{"index.offsets": short})
    assert "offsets must rise" in forged(tmp_path, **{"index.offsets": falling})
    assert "belong together" in forged(tmp_path, **{"index.offsets": offsets[:-1]})
    assert "more than once" in forged(tmp_path, **{"index.ids": np.zeros(20, np.int32)})
    assert "between 0" in forged(tmp_path, **{"index.ids": ids - 30_000})
    assert "belong together" in forged(tmp_path, **{"index.ids": ids.astype(np.uint32)})
    assert "num_bits" in forged(tmp_path, meta={"index": {"num_bits": 0}})
    assert "num_bits" in forged(tmp_path, meta={"index": {}})
    assert "words" in forged(tmp_path, meta={"index": {"num_bits": 40}})


def test_ids_that_do_not_ascend_within_a_code_are_refused(tmp_path):
    arrays = {
        "index.codes": np.array([[0], [1 << 31]], np.uint32),
        "index.offsets": np.array([0, 2, 4], np.int32),
        "index.ids": np.array([5, 7, 1, 2], np.int32),
    }
    write_archive(tmp_path / "f", Archive("index", {"index": {"num_bits": 1}}, arrays))
    assert jh.describe(jh.load_index(tmp_path / "f")).num_items == 4
    arrays["index.ids"] = np.array([7, 5, 1, 2], np.int32)
    write_archive(tmp_path / "f", Archive("index", {"index": {"num_bits": 1}}, arrays))
    with pytest.raises(jh.CorruptFileError, match="ascend within"):
        jh.load_index(tmp_path / "f")


def test_a_model_whose_arrays_do_not_fit_its_config_is_refused(model, tmp_path):
    jh.save_model(tmp_path / "m", model)
    whole = read_archive(tmp_path / "m", "model")
    name = "model.encoder.layers.0.kernel"
    for arrays, message in [
        ({key: value for key, value in whole.arrays.items() if key != name}, "the model has"),
        (whole.arrays | {name: whole.arrays[name].T.copy()}, "must be float32"),
        (whole.arrays | {name: whole.arrays[name] * np.float32(np.nan)}, "NaN"),
    ]:
        write_archive(tmp_path / "m", whole._replace(arrays=arrays))
        with pytest.raises(jh.CorruptFileError, match=message):
            jh.load_model(tmp_path / "m")

    def changed(**arguments):
        return {"model": {"class": "Autoencoder", "config": whole.meta["model"]["config"] | arguments}}

    for meta, message in [
        ({"model": {"class": "Trojan", "config": {}}}, "Trojan"),
        (changed(hidden_dims=[8] * 100), "hidden_dims has more entries"),
        (changed(hidden_dims=[2**30]), "hidden_dims must lie between 1"),
        (changed(hidden_dims="8"), "hidden_dims must be an integer"),
        (changed(input_dim=-1), "input_dim must lie between 1"),
        (changed(num_bits=True), "num_bits must be an integer"),
        (changed(output_activation="magic"), "output_activation must be"),
        (changed(rngs=5), "config must hold"),
        ({}, "model"),
    ]:
        write_archive(tmp_path / "m", whole._replace(meta=meta))
        with pytest.raises(jh.CorruptFileError, match=message):
            jh.load_model(tmp_path / "m")


def test_a_retriever_of_unequal_bits_is_neither_saved_nor_loaded(model, tmp_path):
    unequal = jh.Retriever(model, make_index(20, 17))
    with pytest.raises(ValueError, match="40 bits, but the index holds codes of 17"):
        jh.save_retriever(tmp_path / "r", unequal)
    jh.save_retriever(tmp_path / "r", jh.Retriever(model, make_index(20, 40)))
    whole = read_archive(tmp_path / "r", "retriever")
    table, offsets, ids = sorted_arrays(unequal.index)
    arrays = whole.arrays | {"index.codes": table, "index.offsets": offsets, "index.ids": ids}
    write_archive(tmp_path / "r", whole._replace(meta=whole.meta | {"index": {"num_bits": 17}}, arrays=arrays))
    with pytest.raises(jh.CorruptFileError, match="40 bits"):
        jh.load_retriever(tmp_path / "r")


def test_a_newer_version_asks_for_an_upgrade(index, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "VERSION", 2)
    jh.save_index(tmp_path / "i", index)
    monkeypatch.undo()
    with pytest.raises(jh.CorruptFileError, match=r"newer version.*upgrade"):
        jh.load_index(tmp_path / "i")


def test_a_model_with_a_function_for_an_activation_is_not_saved(tmp_path):
    model = jh.Autoencoder(12, 3, (), output_activation=jax.nn.gelu)
    with pytest.raises(ValueError, match="output_activation"):
        jh.save_model(tmp_path / "m", model)
    assert not list(tmp_path.iterdir())


def test_only_what_belongs_is_saved(index, model, tmp_path):
    for save, thing in ((jh.save_index, model), (jh.save_model, index), (jh.save_retriever, index)):
        with pytest.raises(TypeError, match="must be a"):
            save(tmp_path / "x", thing)


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    for dtype in (np.float64, np.int64, object):
        with pytest.raises(TypeError, match=r"index\.ids must have one of the dtypes"):
            write_archive(tmp_path / "x", Archive("index", {}, {"index.ids": np.zeros(3, dtype)}))
    assert not list(tmp_path.iterdir())
