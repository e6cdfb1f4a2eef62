"""The commands `query` and `info` on files that were built, beside searches in Python."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import BITS, COUNT, SIDE, error_of, found_in, run, save_image

import jaxhash as jh
from jaxhash.cli.collection import load_collection, save_collection
from jaxhash.files.archive import read_archive, write_archive


def test_a_query_prints_bits_in_the_order_of_weighted_distance(original, capsys, digits):
    collection = load_collection(original / "photos.npz")
    save_image(original / "outside.png", digits.train_images[-1])
    pixels = np.repeat(digits.train_images[-1][..., None], 3, axis=2)
    ids = jh.retrieve(collection.retriever, pixels, k=7, weighted=True).ids
    code = collection.encode(pixels)
    distances, paths = found_in(run(capsys, "query", original / "photos.npz", original / "outside.png", "-k", 7).out)
    assert distances == jh.hamming_distance(code, collection.find_codes(ids)).tolist()
    assert paths == collection.find_paths(ids)
    assert all(Path(path).is_file() for path in paths)


def test_an_image_finds_itself_and_its_copy_at_radius_0(original, capsys):
    photo = original / "photos" / "003.png"
    distances, paths = found_in(run(capsys, "query", original / "photos.npz", photo, "--radius", 0).out)
    assert set(distances) == {0}
    assert {str(photo), str(original / "photos" / "same.png")} <= set(paths)
    everything = found_in(run(capsys, "query", original / "photos.npz", photo, "--radius", BITS).out)[1]
    assert len(set(everything)) == COUNT
    by_weights = found_in(run(capsys, "query", original / "photos.npz", photo, "-k", 1000).out)[1]
    assert sorted(by_weights) == sorted(everything)
    assert len(found_in(run(capsys, "query", original / "photos.npz", photo).out)[1]) == 10


def test_several_queries_stand_under_their_names(original, capsys):
    items = [str(original / "photos" / name) for name in ("003.png", "004.png")]
    out = run(capsys, "query", original / "photos.npz", *items, "-k", 2).out
    blocks = [block.splitlines() for block in out.split("\n\n")]
    assert [block[0] for block in blocks] == [f"{item}:" for item in items]
    assert [len(block) for block in blocks] == [3, 3]


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


def test_a_row_without_its_vector_is_searched_by_its_code(embeddings, tmp_path, capsys):
    np.save(tmp_path / "v.npy", np.load(embeddings / "v.npy"))
    collection = load_collection(embeddings / "v")
    save_collection(tmp_path / "v", replace(collection, source=str(tmp_path / "v.npy")))
    by_weights = run(capsys, "query", embeddings / "v", 60, "-k", 40)
    assert run(capsys, "query", tmp_path / "v", 60, "-k", 40) == by_weights
    expected = jh.search(collection.retriever.index, collection.find_codes([60])[0], k=40)
    for other in (np.zeros((250, 20)), np.zeros(()), np.array("words"), None):
        (tmp_path / "v.npy").unlink() if other is None else np.save(tmp_path / "v.npy", other)
        out, err = run(capsys, "query", tmp_path / "v", 60, "-k", 40)
        assert found_in(out) == (expected.distances.tolist(), collection.find_paths(expected.ids))
        assert err == f"row 60 of {tmp_path / 'v.npy'} is gone or changed: all bits count alike\n"


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
