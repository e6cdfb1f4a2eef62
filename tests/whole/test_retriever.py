from functools import partial

import jax
import numpy as np
import pytest
from samples import same

import jaxhash as jh
from jaxhash.files.archive import read_archive, write_archive
from jaxhash.index.hash_index import sorted_arrays


@pytest.fixture(scope="module")
def retriever():
    model = jh.Autoencoder(12, 20, (16,))
    images = np.random.default_rng(0).integers(0, 256, (500, 12), dtype=np.uint8)
    return jh.Retriever(model, jh.build_index(jh.encode(model, images), 20))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (37, 12), dtype=np.uint8)


def test_retrieving_is_encoding_and_searching(retriever, images):
    found = jh.retrieve(retriever, images, k=5)
    same(found, jh.search(retriever.index, jh.encode(retriever.model, images), k=5))
    assert isinstance(found, jh.query.Neighbors)


def test_retrieving_inside_the_callers_jit_and_vmap(retriever, images):
    found = jh.retrieve(retriever, images, k=5)
    same(jax.jit(partial(jh.retrieve, k=5))(retriever, images), found)
    same(jax.jit(lambda x: jh.retrieve(retriever, x, k=5))(images), found)
    same(jax.jit(lambda: jh.retrieve(retriever, images, k=5))(), found)
    same(jax.vmap(lambda x: jh.retrieve(retriever, x, k=5))(images), found)


@pytest.mark.parametrize("long", [False, True])
def test_retrieval_among_allowed_items_equals_search(retriever, images, long):
    allowed = np.random.default_rng(0).random(500) < 0.5
    codes = jh.encode(retriever.model, images)
    if long:
        table, offsets, ids = sorted_arrays(retriever.index)
        rows = np.zeros((500, 1), np.uint32)
        rows[ids] = np.repeat(table, np.diff(offsets), axis=0)
        retriever = jh.Retriever(retriever.model, jh.build_index(jh.codes.first_bits(rows, 9), 9), rows)
        shortlist = jh.search(retriever.index, jh.codes.first_bits(codes, 9), k=30, allowed=allowed).ids
        expected = jh.rerank(rows, codes, shortlist, k=5)
        find = partial(jh.retrieve, k=5, num_candidates=30)
    else:
        expected = jh.search(retriever.index, codes, k=5, allowed=allowed)
        find = partial(jh.retrieve, k=5)
    same(find(retriever, images, allowed=allowed), expected)
    same(jax.jit(find)(retriever, images, allowed=allowed), expected)
    with pytest.raises(ValueError, match="allowed has 499 entries, but the index holds the id 499"):
        find(retriever, images, allowed=allowed[:499])


def test_a_program_around_retrieval_is_one_program(retriever, images, compilations):
    @jax.jit
    def doubled_ids(retriever, images):
        return 2 * jh.retrieve(retriever, images, k=5).ids

    with compilations:
        doubled = doubled_ids(retriever, images)
    assert compilations.count == 1
    np.testing.assert_array_equal(doubled, 2 * np.asarray(jh.retrieve(retriever, images, k=5).ids))


def test_images_keep_their_leading_shape(retriever, images):
    found = jh.retrieve(retriever, images, k=5)
    assert jh.retrieve(retriever, images[0].reshape(3, 4), k=5).ids.shape == (5,)
    cube = jh.retrieve(retriever, images[:30].reshape(2, 15, 3, 4), k=5)
    np.testing.assert_array_equal(cube.ids, found.ids[:30].reshape(2, 15, 5))
    assert jh.retrieve(retriever, images[:0], k=5).ids.shape == (0, 5)


def test_a_retriever_is_a_pytree(retriever, images):
    copied = jax.tree.map(lambda leaf: leaf + 0, retriever)
    same(jh.retrieve(copied, images, k=5), jh.retrieve(retriever, images, k=5))


def test_one_shape_is_compiled_once(retriever, images, compilations):
    for _ in range(2):
        with compilations:
            jh.retrieve(retriever, images, k=5)
    assert compilations.count == 0


def test_model_and_index_of_different_bits_are_refused(images):
    mixed = jh.Retriever(jh.Autoencoder(12, 20, ()), jh.build_index(np.zeros((3, 1), np.uint32), 17))
    with pytest.raises(ValueError, match="codes of 20 bits, but the index holds codes of 17 bits"):
        jh.retrieve(mixed, images, k=1)


def test_wrong_input_is_refused(retriever, images):
    with pytest.raises(TypeError, match="retriever must be a Retriever"):
        jh.retrieve(retriever.index, images, k=1)
    with pytest.raises(ValueError, match="k must lie"):
        jh.retrieve(retriever, images, k=0)
    with pytest.raises(ValueError, match="images must have shape"):
        jh.retrieve(retriever, images[:, :5], k=1)
    with pytest.raises(ValueError, match="row 1"):
        jh.retrieve(retriever, np.array([[0.0] * 12, [np.nan] * 12]), k=1)


# Long codes that rank what short ones shortlist.


@pytest.fixture(scope="module")
def two_codes():
    model = jh.Autoencoder(12, 70, (16,))
    images = np.random.default_rng(0).integers(0, 256, (500, 12), dtype=np.uint8)
    codes = jh.encode(model, images)
    ids = np.random.default_rng(2).permutation(500)
    long_codes = np.empty_like(codes)
    long_codes[ids] = codes
    return jh.Retriever(model, jh.build_index(jh.codes.first_bits(codes, 9), 9, ids=ids), jax.device_put(long_codes))


def test_long_codes_rank_the_shortlist(two_codes, images):
    codes = jh.encode(two_codes.model, images)
    shortlist = jh.search(two_codes.index, jh.codes.first_bits(codes, 9), k=40).ids
    expected = jh.rerank(two_codes.long_codes, codes, shortlist, k=5)
    found = jh.retrieve(two_codes, images, k=5, num_candidates=40)
    same(found, expected)
    same(jax.jit(partial(jh.retrieve, k=5, num_candidates=40))(two_codes, images), found)
    same(jax.vmap(lambda x: jh.retrieve(two_codes, x, k=5, num_candidates=40))(images), found)


def test_long_codes_of_all_items_rank_as_a_search(two_codes, images):
    whole = jh.build_index(two_codes.long_codes, 70)
    expected = jh.search(whole, jh.encode(two_codes.model, images), k=7)
    same(jh.retrieve(two_codes, images, k=7), expected)  # 500 candidates by default
    same(jh.retrieve(two_codes, images[:2], k=1200), jh.search(whole, jh.encode(two_codes.model, images[:2]), k=1200))


def test_long_codes_must_fit_model_and_index(retriever, two_codes, images):
    model, index, long_codes = two_codes.model, two_codes.index, two_codes.long_codes
    for wrong, error, message in [
        (jh.Retriever(model, index, long_codes[:499]), ValueError, "499 rows, but the index holds the id 499"),
        (jh.Retriever(model, index, long_codes[:, :2]), ValueError, "long_codes must have 3 words"),
        (jh.Retriever(model, index, long_codes[0]), ValueError, "shape"),
        (jh.Retriever(model, index, long_codes.astype(np.int32)), TypeError, "uint32"),
        (jh.Retriever(retriever.model, jh.build_index(long_codes, 70), long_codes), ValueError, "codes of 20 bits"),
    ]:
        with pytest.raises(error, match=message):
            jh.retrieve(wrong, images, k=1)
    with pytest.raises(ValueError, match="num_candidates must lie between 3"):
        jh.retrieve(two_codes, images, k=3, num_candidates=2)
    with pytest.raises(ValueError, match="num_candidates is for a retriever with long codes"):
        jh.retrieve(retriever, images, k=3, num_candidates=5)
    mesh = jax.make_mesh((1,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(TypeError, match="long codes go with a HashIndex"):
        jh.retrieve(jh.Retriever(model, jh.shard_index(index, mesh), long_codes), images, k=1)


def test_files_keep_long_codes(two_codes, images, tmp_path):
    jh.save_retriever(tmp_path / "r", two_codes)
    loaded = jh.load_retriever(tmp_path / "r")
    np.testing.assert_array_equal(loaded.long_codes, two_codes.long_codes)
    same(jh.retrieve(loaded, images, k=7), jh.retrieve(two_codes, images, k=7))
    whole = read_archive(tmp_path / "r", "retriever")
    stray = np.asarray(two_codes.long_codes) | np.uint32(1)
    for wrong in (whole.arrays["long_codes"][:9], stray, stray.astype(np.int32)):
        write_archive(tmp_path / "r", whole._replace(arrays=whole.arrays | {"long_codes": wrong}))
        with pytest.raises(jh.CorruptFileError, match="long_codes"):
            jh.load_retriever(tmp_path / "r")


def test_a_saved_retriever_comes_back_whole(retriever, images, tmp_path):
    jh.save_retriever(tmp_path / "r.npz", retriever)
    loaded = jh.load_retriever(tmp_path / "r.npz")
    same(jax.tree.leaves(loaded), jax.tree.leaves(retriever))
    same(jh.retrieve(loaded, images, k=5), jh.retrieve(retriever, images, k=5))


def test_only_a_retriever_is_saved_as_one(retriever, tmp_path):
    with pytest.raises(TypeError, match="must be a"):
        jh.save_retriever(tmp_path / "x", retriever.index)


def test_a_retriever_of_unequal_bits_is_not_saved_or_loaded(retriever, tmp_path):
    other = jh.build_index(np.zeros((3, 1), np.uint32), 17)
    with pytest.raises(ValueError, match="20 bits, but the index holds codes of 17"):
        jh.save_retriever(tmp_path / "r", jh.Retriever(retriever.model, other))
    jh.save_retriever(tmp_path / "r", retriever)
    whole = read_archive(tmp_path / "r", "retriever")
    table, offsets, ids = sorted_arrays(other)
    arrays = whole.arrays | {"index.codes": table, "index.offsets": offsets, "index.ids": ids}
    meta = whole.meta | {"index": {"num_bits": 17, "multi": False}}
    write_archive(tmp_path / "r", whole._replace(meta=meta, arrays=arrays))
    with pytest.raises(jh.CorruptFileError, match="20 bits"):
        jh.load_retriever(tmp_path / "r")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_on_a_device_are_not_sent_again(retriever, dtype):
    # On CPU the guard sees what is sent to the device; what is fetched from there costs nothing and passes unseen.
    images = np.random.default_rng(2).integers(0, 2, (64, 12)).astype(dtype)
    expected = jh.retrieve(retriever, images, k=5)
    images = jax.device_put(images)
    with jax.transfer_guard("disallow"):
        pair = jh.search(retriever.index, jh.encode(retriever.model, images), k=5)
        whole = jh.retrieve(retriever, images, k=5)
    same(pair, expected)
    same(whole, expected)


# Weights of the queries' bits.


def test_weighted_retrieving_is_a_search_with_weights(retriever, images):
    found = jh.retrieve(retriever, images, k=5, weighted=True)
    codes, weights = jh.encode_weighted(retriever.model, images)
    same(found, jh.search(retriever.index, codes, weights=weights, k=5))
    assert isinstance(found, jh.query.Neighbors)
    same(jax.jit(partial(jh.retrieve, k=5, weighted=True))(retriever, images), found)
    same(jax.vmap(lambda x: jh.retrieve(retriever, x, k=5, weighted=True))(images), found)
    mesh = jax.make_mesh((1,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jh.Retriever(retriever.model, jh.shard_index(retriever.index, mesh))
    same(jh.retrieve(sharded, images, k=5, weighted=True), found)


def test_long_codes_rank_a_weighted_shortlist_by_weights(two_codes, images):
    codes, weights = (np.asarray(array) for array in jh.encode_weighted(two_codes.model, images))
    shortlist = jh.search(two_codes.index, jh.codes.first_bits(codes, 9), weights=weights[:, :9], k=40).ids
    found = jh.retrieve(two_codes, images, k=5, num_candidates=40, weighted=True)
    same(found, jh.rerank(two_codes.long_codes, codes, shortlist, k=5, weights=weights))
    same(jax.jit(partial(jh.retrieve, k=5, num_candidates=40, weighted=True))(two_codes, images), found)


# Vectors that rank what codes shortlist.


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(4).random((500, 12), np.float32)


@pytest.fixture(scope="module")
def with_vectors(vectors):
    model = jh.Autoencoder(12, 20, (16,))
    return jh.Retriever(model, jh.build_index(jh.encode(model, vectors), 20), vectors=jax.device_put(vectors))


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "euclidean"])
def test_vectors_rank_the_shortlist(with_vectors, vectors, images, metric):
    by_codes = jh.Retriever(with_vectors.model, with_vectors.index)
    shortlist = jh.retrieve(by_codes, images, k=40, weighted=True).ids
    expected = jh.rerank_vectors(vectors, images / np.float32(255), shortlist, k=5, metric=metric)
    options = {"k": 5, "num_candidates": 40, "weighted": True, "metric": metric}
    results = [jh.retrieve(with_vectors, images, **options)]
    if metric == "cosine":  # the others differ in the last step alone
        results.append(jax.jit(partial(jh.retrieve, **options))(with_vectors, images))
        results.append(jax.vmap(lambda x: jh.retrieve(with_vectors, x, **options))(images))
    for found in results:
        assert isinstance(found, jh.query.ScoredNeighbors)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


def test_vectors_of_all_items_rank_as_an_exact_search(with_vectors, vectors):
    found = jh.retrieve(with_vectors, vectors[:30].reshape(5, 6, 3, 4), k=3)  # 500 candidates, cosine
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = units[:30] @ units.T
    np.testing.assert_array_equal(found.ids, np.argsort(-cosines, axis=1)[:, :3].reshape(5, 6, 3))


def test_vectors_must_fit_model_and_index(with_vectors, two_codes, retriever, vectors, images):
    model, index = with_vectors.model, with_vectors.index
    images_model = jh.ConvAutoencoder((4, 4, 1), 20, (4,))
    mesh = jax.make_mesh((1,), ("shards",), axis_types=(jax.sharding.AxisType.Auto,))
    for wrong, error, message in [
        (jh.Retriever(model, index, vectors=vectors[:499]), ValueError, "499 rows, but the index holds the id 499"),
        (jh.Retriever(model, index, vectors=vectors[:, :7]), ValueError, r"vectors must have shape \[n, 12\]"),
        (jh.Retriever(model, index, vectors=vectors[0]), ValueError, r"shape \[n, d\]"),
        (jh.Retriever(model, index, vectors=vectors.astype(int)), TypeError, "vectors must be floating"),
        (jh.Retriever(model, two_codes.index, vectors=vectors), ValueError, "the index holds codes of 9 bits"),
        (
            jh.Retriever(images_model, index, vectors=vectors),
            ValueError,
            r"for a model of vectors \[d\]",
        ),
        (jh.Retriever(model, jh.shard_index(index, mesh), vectors=vectors), TypeError, "vectors go with a HashIndex"),
        (
            jh.Retriever(two_codes.model, two_codes.index, two_codes.long_codes, vectors),
            ValueError,
            "long codes or vectors, not both",
        ),
    ]:
        with pytest.raises(error, match=message):
            jh.retrieve(wrong, images if wrong.model is not images_model else np.zeros((4, 4, 1), np.uint8), k=1)
    with pytest.raises(ValueError, match="metric must be one of cosine"):
        jh.retrieve(with_vectors, images, k=1, metric="hamming")
    with pytest.raises(ValueError, match="metric is for a retriever with vectors"):
        jh.retrieve(retriever, images, k=1, metric="cosine")


def test_files_keep_vectors_as_single_precision(with_vectors, vectors, images, tmp_path):
    halves = jax.device_put(vectors.astype(jax.numpy.bfloat16))
    jh.save_retriever(tmp_path / "r", jh.Retriever(with_vectors.model, with_vectors.index, vectors=halves))
    loaded = jh.load_retriever(tmp_path / "r")
    assert loaded.vectors.dtype == np.float32
    np.testing.assert_array_equal(loaded.vectors, halves.astype(np.float32))
    assert jh.retrieve(loaded, images, k=4).ids.shape == (37, 4)
    whole = read_archive(tmp_path / "r", "retriever")
    table = whole.arrays["vectors"]
    for wrong in (table[:9], table[:, :9], np.full_like(table, np.nan), table.astype(np.int32)):
        write_archive(tmp_path / "r", whole._replace(arrays=whole.arrays | {"vectors": wrong}))
        with pytest.raises(jh.CorruptFileError, match="vectors"):
            jh.load_retriever(tmp_path / "r")
