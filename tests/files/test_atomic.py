"""Saving is atomic: errors, kills, Ctrl-C and full disks leave the old file or the new one, and no other."""

import errno
import itertools
import os
import resource
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path

import moments
import numpy as np
import pytest

import jaxhash as jh
from jaxhash.files.archive import Archive, read_archive, write_archive
from jaxhash.files.atomic import replace_file


def numbers(value, size=1000):
    return Archive("index", {}, {"index.ids": np.full(size, value, np.int32)})


def value_in(path):
    """The number that fills the array of a file."""
    ids = read_archive(path, "index").arrays["index.ids"]
    (value,) = set(ids.tolist())
    return value


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class FailingFile:
    """A file that calls `countdown` before each write."""

    def __init__(self, file, countdown):
        self.file, self.countdown = file, countdown

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def write(self, content):
        self.countdown()
        return self.file.write(content)


class Countdown:
    """Raises from its n-th call on."""

    def __init__(self, number, error):
        self.left, self.error = number, error

    def __call__(self, *_, **__):
        self.left -= 1
        if self.left <= 0:
            raise self.error


def fail(monkeypatch, what, number, error):
    """Makes all writes, fsyncs or renames fail from the n-th on. Returns the countdown."""
    countdown = Countdown(number, error)
    if what == "write":
        real_open = Path.open
        monkeypatch.setattr(Path, "open", lambda *a, **k: FailingFile(real_open(*a, **k), countdown))
    else:
        name = {"fsync": "fsync", "rename": "replace"}[what]
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a: (countdown(), real(*a)))
    return countdown


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("what", ["write", "fsync", "rename"])
def test_a_failing_system_call_leaves_the_old_file_alone(what, error, tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_archive(path, numbers(1))
    for number in itertools.count(1):
        with monkeypatch.context() as patch:
            countdown = fail(patch, what, number, error)
            try:
                write_archive(path, numbers(2))
                failed = False
            except type(error):
                failed = True
        assert names(tmp_path) == ["f"]
        if not failed:
            break
        # The last fsync is the folder's, when the new file is in place: there only Ctrl-C is passed on.
        assert value_in(path) == 1 or (what == "fsync" and error.args == ())
    assert value_in(path) == 2
    assert number > (8 if what == "write" else 1)
    assert countdown.left >= 0


@contextmanager
def largest_file(size):
    """Lets no file grow past this size, as on a disk that fills up."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    write_archive(path, numbers(1))
    old = path.read_bytes()
    for limit in range(0, len(old), 149):
        with largest_file(limit), pytest.raises(OSError, match="File too large"):
            write_archive(path, numbers(2))
        assert path.read_bytes() == old
        assert names(tmp_path) == ["f"]
    with largest_file(len(old)):
        write_archive(path, numbers(2))
    assert value_in(path) == 2


KILLS = """
    import itertools, os, signal, sys
    import moments
    import numpy as np
    from pathlib import Path
    from jaxhash.files.archive import Archive, read_archive, write_archive

    folder = Path(sys.argv[1])
    path = folder / "f"

    def save(value):
        write_archive(path, Archive("index", {}, {"index.ids": np.full(1000, value, np.int32)}))

    def value_in():
        (value,) = set(read_archive(path, "index").arrays["index.ids"].tolist())
        return value

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    def save_and_kill(number, value):
        child = os.fork()  # jax has started nothing here
        if child == 0:
            with moments.stopping_at_line(number, kill):
                save(value)
            os._exit(0)
        return os.waitpid(child, 0)[1]

    save(0)
    found, abandoned = [], 0
    for number in itertools.count(1):
        old = value_in()
        status = save_and_kill(number, old + 1)
        found.append(value_in() - old)
        abandoned += any(entry.suffix == ".tmp" for entry in folder.iterdir())
        if status == 0:
            break
    save(0)
    print(number > 50, set(found), abandoned > 0, value_in(), os.listdir(folder))
"""


def test_a_kill_at_any_line_leaves_the_old_file_or_the_new_one(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(moments.__file__).parent)}
    command = [sys.executable, "-c", textwrap.dedent(KILLS), tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True {0, 1} True 0 ['f']\n"


def test_a_save_removes_only_abandoned_temporary_files(tmp_path):
    left = tmp_path / ".jaxhash-0123456789abcdef.tmp"
    left.write_bytes(b"half a fi")
    with replace_file(tmp_path / "slow") as file:
        file.write(b"first")
        write_archive(tmp_path / "f", numbers(1))
        assert not left.exists()
        file.write(b", then")
    assert (tmp_path / "slow").read_bytes() == b"first, then"
    assert names(tmp_path) == ["f", "slow"]


def test_links_and_folders_named_like_temporary_files_stay(tmp_path):
    os.mkfifo(tmp_path / ".jaxhash-1.tmp")
    (tmp_path / ".jaxhash-2.tmp").mkdir()
    (tmp_path / ".jaxhash-3.tmp").symlink_to("/dev/zero")
    write_archive(tmp_path / "f", numbers(1))
    assert value_in(tmp_path / "f") == 1
    assert names(tmp_path) == [".jaxhash-2.tmp", ".jaxhash-3.tmp", "f"]


def test_a_temporary_file_removed_before_its_lock_is_replaced(tmp_path, monkeypatch):
    real, taken = Path.open, []

    def opened(path, *arguments):
        file = real(path, *arguments)
        if not taken:
            taken.append(path)
            path.unlink()
        return file

    monkeypatch.setattr(Path, "open", opened)
    write_archive(tmp_path / "f", numbers(3))
    monkeypatch.undo()
    assert value_in(tmp_path / "f") == 3
    assert names(tmp_path) == ["f"]


def test_readers_see_complete_files_while_three_threads_write(tmp_path):
    path, seen, wrong = tmp_path / "f", set(), []
    write_archive(path, numbers(0))

    def write(value):
        for turn in itertools.count():
            if wrong or (turn >= 60 and len(seen) > 1):
                return
            write_archive(path, numbers(value, 20_000))

    def read():
        while any(writer.is_alive() for writer in writers):
            try:
                seen.add(value_in(path))
            except Exception as error:
                wrong.append(error)

    writers = [threading.Thread(target=write, args=(value,)) for value in (1, 2, 3)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in (*writers, *readers):
        thread.start()
    for thread in (*writers, *readers):
        thread.join()
    assert not wrong
    assert seen <= {0, 1, 2, 3}
    assert len(seen) > 1
    assert names(tmp_path) == ["f"]


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_line_leaves_the_old_file_or_the_new_one(tmp_path):
    path, found = tmp_path / "f", set()
    write_archive(path, numbers(0))
    for number in itertools.count(1):
        old, error = value_in(path), None
        try:
            with moments.stopping_at_line(number, interrupt):
                write_archive(path, numbers(number))
        except (KeyboardInterrupt, ValueError) as caught:  # a ZipFile with an open member has an error of its own
            error = caught
        if error is None:
            break
        assert KeyboardInterrupt in (type(error), type(error.__context__))
        assert value_in(path) in (old, number)
        found.add(value_in(path) == number)
    assert value_in(path) == number > 50
    assert found == {False, True}
    write_archive(path, numbers(0))
    assert names(tmp_path) == ["f"]


def test_saving_keeps_the_permissions_of_the_file_it_replaces(tmp_path):
    write_archive(tmp_path / "f", numbers(1))
    (tmp_path / "f").chmod(0o640)
    write_archive(tmp_path / "f", numbers(2))
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


def test_saving_to_a_link_replaces_its_target(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "f")
    for value in (1, 2):
        write_archive(tmp_path / "link", numbers(value))
        assert (tmp_path / "link").is_symlink()
        assert value_in(tmp_path / "f") == value


def test_saving_replaces_neither_folders_nor_devices(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(IsADirectoryError, match="not a regular file"):
        write_archive(tmp_path, numbers(1))
    for path in (tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(OSError, match=f"not a regular file: '{path}'"):
            write_archive(path, numbers(1))
    assert Path("/dev/null").is_char_device()
    assert names(tmp_path) == ["fifo"]


def test_a_folder_without_permission_is_named(tmp_path):
    folder, user = tmp_path / "closed", os.geteuid()
    folder.mkdir(mode=0o500)
    try:
        if user == 0:  # permissions don't stop root
            os.seteuid(65534)
        with pytest.raises(PermissionError, match="closed"):
            write_archive(folder / "f", numbers(1))
    finally:
        os.seteuid(user)
    assert not list(folder.iterdir())


def test_names_as_long_as_the_system_allows_can_be_saved_to(tmp_path):
    write_archive(tmp_path / ("f" * 255), numbers(1))
    assert value_in(tmp_path / ("f" * 255)) == 1


def test_an_array_of_another_dtype_is_not_saved(tmp_path):
    for dtype in (np.float64, np.int64, object):
        with pytest.raises(TypeError, match=r"index\.ids must have one of the dtypes"):
            write_archive(tmp_path / "x", Archive("index", {}, {"index.ids": np.zeros(3, dtype)}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("save", [jh.save_index, lambda path, index: jh.save_model(path, jh.Autoencoder(2, 2, ()))])
def test_a_missing_folder_is_said_of_the_path_that_was_asked_for(tmp_path, save):
    with pytest.raises(FileNotFoundError) as caught:
        save(tmp_path / "none" / "f", jh.build_index(np.zeros((1, 1), np.uint32), 1))
    assert caught.value.filename == str(tmp_path / "none" / "f")
    assert ".tmp" not in str(caught.value)


def test_a_full_disk_is_said_of_the_path_that_was_asked_for(tmp_path):
    with largest_file(2000), pytest.raises(OSError, match="File too large") as caught:
        write_archive(tmp_path / "f", numbers(1, size=10000))
    assert caught.value.filename == str(tmp_path / "f")


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, replace_file(tmp_path / "f"):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")
