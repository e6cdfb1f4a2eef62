"""Every item of a collection finds itself, by itself and among all others, in Python and by the command."""

import numpy as np
import pytest
from command_line import found_in, run

import jaxhash as jh
from jaxhash.cli.collection import load_collection

WIDTH, ASKED = 32, 12


def make_vectors(count):
    """Vectors of which some are zero and some are equal, if there are enough."""
    vectors = np.random.default_rng(count).normal(size=(count, WIDTH)).astype(np.float32)
    if count >= 10:
        vectors[[3, 5]], vectors[[-1, -2]] = 0, vectors[1]
    return vectors


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
@pytest.mark.parametrize(
    ("count", "options"),
    [
        (1, ("--epochs", 3)),
        (2, ("--epochs", 3)),
        (10, ()),  # trained to the end, logits of few items gather about their means
        (199, ()),
        (200, ("--epochs", 3)),
        pytest.param(1000, (), marks=pytest.mark.slow),
    ],
)
def test_every_item_finds_itself_first(count, options, tmp_path, capsys):
    vectors, path = make_vectors(count), tmp_path / "v.npz"
    np.save(tmp_path / "v.npy", vectors)
    run(capsys, "build", tmp_path / "v.npy", "-o", path, *options)
    retriever = load_collection(path).retriever
    for queries in (vectors[:, None], [vectors]):
        for batch in queries:
            assert not np.any(jh.retrieve(retriever, batch, k=1).distances)
            assert not np.any(jh.search(retriever.index, jh.encode(retriever.model, batch), k=1).distances)

    expected = _find_equal(jh.encode(retriever.model, vectors))
    for row in range(0, count, -(-count // ASKED)):
        assert found_in(run(capsys, "query", path, row, "--radius", 0).out) == ([0] * len(expected[row]), expected[row])
    together = run(capsys, "query", path, tmp_path / "v.npy", "--radius", 0).out.split("\n\n")
    found = [found_in(block.split("\n", 1)[1] if count > 1 else block)[1] for block in together]
    assert found == expected
    assert all(str(row) in rows for row, rows in enumerate(found))


def _find_equal(codes):
    """The rows of the same code, as the command prints them, for each row."""
    codes = np.asarray(codes)
    return [[str(row) for row in np.flatnonzero((codes == code).all(1))] for code in codes]
