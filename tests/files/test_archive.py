"""Damaged and hostile files: all that are not complete files of ours raise one exception, soon, in little memory."""

import json
import os
import pickle
import socket
import struct
import tracemalloc
import zipfile
from contextlib import contextmanager
from pathlib import Path

import forgery
import numpy as np
import oracle
import pytest

import jaxhash as jh
from jaxhash.files.archive import HEADER_LIMIT

LOADERS = (jh.load_index, jh.load_model, jh.load_retriever)


@pytest.fixture
def path(tmp_path):
    """A small index in a file."""
    codes = oracle.pack(oracle.clustered(np.random.default_rng(0), 5, 17))
    jh.save_index(tmp_path / "small", jh.build_index(codes, 17))
    return tmp_path / "small"


@contextmanager
def refused(path, match=None):
    """Expects an error that names the file, and memory of at most 16 times its size and four megabytes."""
    tracemalloc.start()
    try:
        with pytest.raises(jh.CorruptFileError, match=match) as caught:
            yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ")
    size = path.stat().st_size if path.is_file() else 0
    assert peak < 2**22 + 16 * size


def assert_refused(path, content, match=None):
    path.write_bytes(content)
    with refused(path, match):
        jh.load_index(path)


def test_every_flipped_byte_is_noticed(path):
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(content):
            for mask in (0x01, 0x80, 0xFF):
                os.pwrite(file.fileno(), bytes([byte ^ mask]), place)
                with pytest.raises(jh.CorruptFileError, match="small: "):
                    jh.load_index(path)
            os.pwrite(file.fileno(), bytes([byte]), place)
    assert jh.describe(jh.load_index(path)).num_items == 5


def test_every_truncation_and_anything_appended_is_noticed(path):
    content = path.read_bytes()
    for damaged in (content + b"\0", content + content[-1:], content + bytes(1024), content + content):
        path.write_bytes(damaged)
        with pytest.raises(jh.CorruptFileError, match="small: "):
            jh.load_index(path)
    path.write_bytes(content)
    for length in range(len(content) - 1, -1, -1):
        os.truncate(path, length)
        with pytest.raises(jh.CorruptFileError, match="small: "):
            jh.load_index(path)


def test_damaged_models_and_retrievers_are_noticed(tmp_path):
    model = jh.Autoencoder(6, 17, (4,))
    retriever = jh.Retriever(model, jh.build_index(np.zeros((3, 1), np.uint32), 17))
    for save, load, thing in ((jh.save_model, jh.load_model, model), (jh.save_retriever, jh.load_retriever, retriever)):
        save(tmp_path / "f", thing)
        content = (tmp_path / "f").read_bytes()
        for place in range(0, len(content), 97):
            damaged = bytearray(content)
            damaged[place] ^= 0x20
            for wrong in (damaged, content[:place]):
                (tmp_path / "f").write_bytes(wrong)
                with pytest.raises(jh.CorruptFileError, match="f: "):
                    load(tmp_path / "f")


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def foreign_files(canary):
    """Files of other programs, and noise."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    yield from (b"", b"x", bytes(4096), b"PK\3\4", b"PK\5\6" + bytes(18), b"PK\5\6" + bytes(18) + b"0" * 64)
    yield np.random.default_rng(0).bytes(4096)
    yield b"IBxF" + bytes(100)  # a binary index of FAISS
    yield struct.pack("<Q", len(header)) + header + bytes(8)  # safetensors
    yield struct.pack("<Q", 2**63) + header + bytes(8)
    yield pickle.dumps(Canary(canary))


def test_foreign_files_are_refused_and_not_run(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "f"
    for content in foreign_files(canary):
        for whole in (content, forgery.sealed(content + b"0" * 64)):
            path.write_bytes(whole)
            for load in LOADERS:
                with refused(path):
                    load(path)
    assert not canary.exists()


def test_pickled_archives_of_numpy_are_refused_and_not_run(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "f.npz"
    np.savez(path, codes=np.array([Canary(canary)], dtype=object))
    with refused(path):
        jh.load_index(path)
    members = forgery.parts(path)
    assert_refused(path, forgery.sealed(forgery.archive(members.items())), "header.json")
    assert not canary.exists()


def test_an_array_of_pickles_is_refused_unread(path, tmp_path):
    canary = tmp_path / "canary"
    np.save(tmp_path / "a.npy", np.array([Canary(canary)] * 5, dtype=object))
    members = forgery.parts(path) | {"index.ids.npy": (tmp_path / "a.npy").read_bytes()}
    assert_refused(path, forgery.sealed(forgery.archive(members.items())), r"index\.ids: ")
    assert not canary.exists()


def test_special_files_are_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "fifo")  # opening it would wait for ever
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for path in (*(tmp_path / name for name in ("", "fifo", "link", "socket")), Path("/dev/zero"), Path("/dev/null")):
        for load in LOADERS:
            with refused(path, "not a regular file"):
                load(path)


def test_files_without_permission_are_named(path):
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # root reads every file
            os.seteuid(65534)
        with pytest.raises(PermissionError, match="small"):
            jh.load_index(path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b"", "JSON"),
        (b"\xff\xfe{}", "UnicodeDecodeError"),
        ("{}".encode("utf-16"), "UnicodeDecodeError"),
        (b"{", "JSON"),
        (b"[" * 100_000, "RecursionError"),
        (b'{"a":' * 100_000, "RecursionError"),
        (b"[]", "does not name the format"),
        (b"{}", "does not name the format"),
        (b'{"format": "jaxhash", "format": "jaxhash"}', "names a field twice"),
        (b'{"format": "jaxhash", "version": NaN}', "holds NaN"),
        (b'{"format": "jaxhash", "version": -Infinity}', "holds -Infinity"),
        (b'{"format": "jaxhash", "version": ' + b"1" * 10_000 + b"}", "an integer of 10000 digits"),
        (b" " * (HEADER_LIMIT + 1), "longer than 1048576 bytes"),
        ({"format": "jaxhasher"}, "does not name the format"),
        ({"version": 0}, "version must be a positive integer, got 0"),
        ({"version": True}, "version must be a positive integer, got True"),
        ({"version": 1.0}, r"version must be a positive integer, got 1\.0"),
        ({"version": "1"}, "version must be a positive integer, got '1'"),
        ({"version": 2}, "newer version"),
        ({"kind": None}, "kind must be a str"),
        ({"kind": "model"}, "it holds: model"),
        ({"meta": []}, "meta must be a dict"),
        ({"meta": {"index": None}}, "small: "),
        ({"meta": {"index": {"num_bits": 17.0, "multi": False}}}, "num_bits must be an integer"),
        ({"meta": {"index": {"num_bits": 2**62, "multi": False}}}, "num_bits must lie"),
        ({"arrays": []}, "arrays must be a dict"),
        ({"arrays": {}}, "not those that header.json lists"),
    ],
)
def test_invalid_headers_are_refused(path, header, match):
    assert_refused(path, forgery.with_header(path, header), match)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ([2**40, 2**40], "bytes declared"),
        ([10**12], "4000000000000 bytes declared"),
        ([2**62, 4], "bytes declared"),
        ([4], "16 bytes declared, 20 stored"),
        ([1] * 70 + [5], "small: "),
        ([5, 1], "the array is not"),
        ([0, 10**18], "small: "),
        ([-5], "list of integers"),
        ([5.0], "list of integers"),
        ([True], "list of integers"),
        ([None], "list of integers"),
        (["5"], "list of integers"),
        (5, "list of integers"),
        ("5", "list of integers"),
    ],
)
def test_impossible_shapes_are_refused_without_allocation(path, shape, match):
    assert_refused(path, forgery.with_description(path, "index.ids", shape=shape), match)


@pytest.mark.parametrize("dtype", ["|O", "|V8", ">i4", "<M8[s]", "<i8", "|S4", "i4", "int32", "", 4, None, ["<i4"], {}])
def test_other_dtypes_are_refused(path, dtype):
    assert_refused(path, forgery.with_description(path, "index.ids", dtype=dtype), "index.ids: dtype must be one of")


def test_another_dtype_than_the_arrays_is_refused(path):
    assert_refused(path, forgery.with_description(path, "index.ids", dtype="<u4"), "index.ids: the array is not")


def npy_header(text, version=b"\1\0"):
    """The start of a file of npy version 1.0 whose header is this Python literal."""
    header = text.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header


def with_ids(path, start):
    """A saved file of five ids, `start` in place of the header of their array."""
    members = forgery.parts(path)
    members["index.ids.npy"] = start + members["index.ids.npy"][-20:]
    return forgery.sealed(forgery.archive(members.items()))


IDS = "{'descr': '<i4', 'fortran_order': False, 'shape': (5,)}"


@pytest.mark.parametrize("text", [IDS, IDS + " " * 100, "{'shape': (5,), 'fortran_order': False, 'descr': '<i4'}"])
def test_array_headers_may_be_spaced_and_ordered_otherwise(path, text):
    codes = jh.describe(jh.load_index(path))
    path.write_bytes(with_ids(path, npy_header(text)))
    assert jh.describe(jh.load_index(path)) == codes


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (IDS.replace("False", "True"), "the array is not"),
        (IDS.replace("<i4", ">i4"), "the array is not"),
        (IDS.replace("<i4", "<f4"), "the array is not"),
        (IDS.replace("'<i4'", "[('a', '<i4')]"), "the array is not"),
        (IDS.replace("(5,)", "(5, 1)"), "the array is not"),
        (IDS.replace("(5,)", "(-5,)"), "the array is not"),
        (IDS.replace("(5,)", "[5]"), "shape"),
        (IDS.replace("False", "0"), "fortran_order"),
        (IDS.replace("<i4", "nothing"), "descr"),
        (IDS.replace("'shape'", "'form'"), "keys"),
        ("", ""),
        ("{", ""),
        ("__import__('os')", "Cannot parse|malformed"),
        ("(" * 1400, ""),
        ("-" * 1400 + "1", ""),
        ("[" * 700 + "]" * 700, ""),
        (IDS + " " * 1500, "expected 1556 bytes"),
    ],
)
def test_array_headers_unlike_the_description_are_refused(path, text, match):
    assert_refused(path, with_ids(path, npy_header(text)), f"index.ids: .*{match}")


@pytest.mark.parametrize(
    "start", [b"", b"\x93NUMPY", npy_header(IDS, b"\2\0"), npy_header(IDS)[:40], b"\x93NUMPY\1\0\xff\xff{}"]
)
def test_broken_array_headers_are_refused(path, start):
    assert_refused(path, with_ids(path, start), "index.ids: ")


def test_members_that_the_header_does_not_list_are_refused(path):
    members = list(forgery.parts(path).items())
    for wrong in (
        members[:-1],
        [*members, ("more.npy", b"")],
        [members[0], members[2], members[1], members[3]],
        members[1:],
        [*members[1:], members[0]],
    ):
        assert_refused(path, forgery.sealed(forgery.archive(wrong)), "header.json")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_repeated_members_are_refused(path):
    members = list(forgery.parts(path).items())
    assert_refused(path, forgery.sealed(forgery.archive([*members, members[-1]])), "not contiguous")


def test_compressed_members_are_refused(path):
    bomb = [("header.json", forgery.parts(path)["header.json"]), ("index.ids.npy", bytes(2**24))]
    assert_refused(path, forgery.sealed(forgery.archive(bomb, zipfile.ZIP_DEFLATED)), "compressed")


def change_directory(content, number, **fields):
    """Changes what an archive's directory says about a member."""
    places = {
        "flags": (8, "<H"),
        "method": (10, "<H"),
        "compressed": (20, "<L"),
        "size": (24, "<L"),
        "offset": (42, "<L"),
    }
    content, entry = bytearray(content), -1
    for _ in range(number + 1):
        entry = content.index(b"PK\1\2", entry + 1)
    for name, value in fields.items():
        place, form = places[name]
        struct.pack_into(form, content, entry + place, value)
    return forgery.sealed(content)


@pytest.mark.parametrize(
    "fields",
    [
        {"offset": 0},
        {"offset": 1},
        {"offset": 2**31},
        {"offset": 2**32 - 1},
        {"size": 0, "compressed": 0},
        {"size": 1, "compressed": 1},
        {"size": 2**31, "compressed": 2**31},
        {"size": 2**32 - 1, "compressed": 2**32 - 1},
        {"size": 1},
        {"flags": 1},
        {"method": 8},
        {"method": 99},
    ],
)
def test_a_directory_that_points_elsewhere_is_refused(path, fields):
    content = forgery.sealed(forgery.archive(forgery.parts(path).items()))
    for number in range(1, 4):
        assert_refused(path, change_directory(content, number, **fields))


def test_bytes_outside_the_members_are_refused(path):
    content = path.read_bytes()
    directory = content.index(b"PK\1\2")
    for place in (0, directory):
        assert_refused(path, forgery.sealed(content[:place] + bytes(100) + content[place:]))
    assert_refused(path, forgery.sealed(content + content))


def test_directories_of_very_many_members_are_refused(path):
    members = [(str(number), b"") for number in range(60_000)]
    content = forgery.sealed(forgery.archive(members))
    assert len(content) > 2 * HEADER_LIMIT
    assert_refused(path, content, "directory is longer")


def test_very_large_foreign_files_are_refused_at_once(path):
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no space on the disk
    with pytest.raises(jh.CorruptFileError, match="not a jaxhash file"):
        jh.load_index(path)
