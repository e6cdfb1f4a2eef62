"""The benchmark of codes for float vectors: where its sentences come from, and what it measures."""

import numpy as np
import pytest


@pytest.fixture
def embeddings(benchmark_named):
    return benchmark_named("embeddings")


@pytest.fixture
def sentences(benchmark_named):
    return benchmark_named("sentences")


def test_sentences_are_prose_of_a_moderate_length(sentences):
    text = """Returns the nearest of all the items\nthat were ever stored. Too short.

    x (int): is no sentence of prose, though it is long enough to be one.

    >>> this("is code, and long enough to be taken for a sentence if it were prose.")
    """
    assert list(sentences.sentences_in(text)) == ["Returns the nearest of all the items that were ever stored."]


def test_sentences_of_docstrings_come_once_and_in_one_order(sentences, tmp_path):
    wanted = [f"Number {n} of the sentences that this test wants to be found." for n in range(3)]
    (tmp_path / "a.py").write_text(f'"""{wanted[0]}"""\ndef f():\n    """{wanted[1]} {wanted[0]}"""\n')
    (tmp_path / "b.py").write_text(
        f'class C:\n    """{wanted[2]}"""\n    x = "No docstring, so that it should not be found."'
    )
    (tmp_path / "c.py").write_text("print 'of another Python'")
    found = sentences.sentences([tmp_path], 10)
    assert sorted(found) == wanted
    assert sentences.sentences([tmp_path], 2) == found[:2]


def test_the_nearest_vectors_have_the_largest_products(embeddings):
    database = np.float32([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]])
    queries = np.float32([[1, 0], [0, 1]])
    np.testing.assert_array_equal(embeddings.nearest(database, queries, 2), [[0, 2], [1, 2]])
    shortlists = np.array([[3, 2, 1], [0, 3, 2]])
    np.testing.assert_array_equal(embeddings.nearest(database, queries, 2, shortlists), [[2, 1], [2, 0]])


@pytest.mark.slow  # trains and measures; nothing in the package depends on it
def test_each_method_has_a_row_and_reranking_all_finds_all(embeddings, tmp_path, capsys):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((150, 4)) @ rng.standard_normal((4, 16)) + 0.1 * rng.standard_normal((150, 16))
    np.save(tmp_path / "vectors.npy", vectors)
    options = [
        "--bits",
        "8",
        "--queries",
        "30",
        "--k",
        "5",
        "--shortlists",
        "20",
        "120",
        "--seeds",
        "1",
        "--epochs",
        "5",
    ]
    embeddings.main([str(tmp_path / "vectors.npy"), *options])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    faiss = {embeddings.FAISS_LSH, embeddings.FAISS_RABITQ}
    methods = [method for method in embeddings.METHODS if method not in faiss]
    assert [row[0] for row in rows[2:] if row[0] not in faiss] == methods
    for row in rows[2:]:
        assert 0 < float(row[3]) <= float(row[4]) <= float(row[5]) == 1
        assert (float(row[6]) > 0) == (row[0] in (embeddings.START, *embeddings.OBJECTIVES))
