import tracemalloc

import numpy as np
import pytest
from loaders import Loader
from samples import same

import jaxhash as jh


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (1000, 12), dtype=np.uint8)


@pytest.fixture
def model():
    return jh.Autoencoder(12, 20, (16,))


@pytest.mark.parametrize("size", [1, 300, 1000, 4000])
def test_an_index_of_encoded_batches_is_that_of_all_images(model, images, size):
    found = jh.build_index(jh.encode(model, Loader(images, size)), 20)
    same(found, jh.build_index(jh.encode(model, images), 20))


def test_batches_are_taken_as_they_are_asked_for(model, images):
    taken = []

    def batches():
        for start in range(0, 1000, 100):
            taken.append(start)
            yield images[start : start + 100]

    codes = jh.encode(model, batches())
    assert taken == []
    np.testing.assert_array_equal(next(codes), jh.encode(model, images[:100]))
    assert taken == [0]


def test_batches_may_bring_ids(model, images, rng):
    codes, ids = np.asarray(jh.encode(model, images)), rng.permutation(5000)[:1000]
    pairs = ((codes[part], ids[part]) for part in np.array_split(np.arange(1000), 7))
    same(jh.build_index(pairs, 20), jh.build_index(codes, 20, ids=ids))


def test_codes_in_the_same_memory_are_copied(model, images):
    codes = np.asarray(jh.encode(model, images))
    same(jh.build_index(Loader(codes, 128), 20), jh.build_index(codes, 20))


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ([], {}, "at least one batch"),
        ([np.zeros((3, 2), np.uint32)], {}, "must have 1 words"),
        ([np.zeros((3, 1), np.uint32)], {"ids": [1, 2, 3]}, "ids must be None for batches"),
        ([np.zeros((3, 1), np.uint32), (np.zeros((1, 1), np.uint32), [7])], {}, "all batches must have ids or none"),
        ([(np.zeros((1, 1), np.uint32), [7]), (np.zeros((1, 1), np.uint32), [7])], {}, "7 occurs more than once"),
        ([(np.zeros((2, 1), np.uint32), [7])], {}, "ids must have shape"),
    ],
)
def test_wrong_batches_are_refused(batches, options, message):
    with pytest.raises(ValueError, match=message):
        jh.build_index(iter(batches), 20, **options)


def test_wrong_images_in_a_batch_are_refused(model):
    with pytest.raises(TypeError, match="images must be uint8"):
        next(jh.encode(model, iter([np.zeros((3, 12), int)])))
    with pytest.raises(ValueError, match="row 1 holds NaN"):
        next(jh.encode(model, iter([np.float32([[0] * 12, [np.nan] * 12])])))
    with pytest.raises(TypeError, match="model must be an Encoder"):
        jh.encode(None, iter([]))


def test_lists_are_arrays_still(model):
    assert jh.encode(model, [[0.5] * 12] * 3).shape == (3, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_a_mapped_file_is_never_copied_whole(model, images, dtype, tmp_path):
    rows = np.tile(images, (60, 1))
    np.save(tmp_path / "images.npy", rows if dtype == np.uint8 else (rows / 255).astype(dtype))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    jh.encode(model, mapped[:3000])
    tracemalloc.start()
    codes = jh.encode(model, mapped)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < mapped.nbytes / 2
    np.testing.assert_array_equal(codes, jh.encode(model, np.array(mapped)))


def test_the_row_of_a_bad_value_is_counted_from_the_first():
    rows = np.zeros((5000, 12), np.float32)
    rows[4321, 3] = 2
    with pytest.raises(ValueError, match="row 4321 spans"):
        jh.encode(jh.Autoencoder(12, 20, (16,)), rows)
