"""Saving is all or nothing: errors, kills, Ctrl-C and full disks leave the old file or the new one, and no other."""

import errno
import itertools
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import jaxhash as jh
from jaxhash.files.archive import Archive, read_archive, write_archive
from jaxhash.files.atomic import replace_file


def numbers(value, size=1000):
    return Archive("index", {}, {"index.ids": np.full(size, value, np.int32)})


def value_in(path):
    """The number that fills a file whole."""
    ids = read_archive(path, "index").arrays["index.ids"]
    (value,) = set(ids.tolist())
    return value


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Failing:
    """A file whose n-th write fails."""

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
    """Raises when called for the n-th time, and ever after."""

    def __init__(self, number, error):
        self.left, self.error = number, error

    def __call__(self, *_, **__):
        self.left -= 1
        if self.left <= 0:
            raise self.error


def fail(monkeypatch, what, number, error):
    """Makes the n-th write, fsync or rename fail, and all after it. Returns the countdown."""
    countdown = Countdown(number, error)
    if what == "write":
        real_open = Path.open
        monkeypatch.setattr(Path, "open", lambda *a, **k: Failing(real_open(*a, **k), countdown))
    else:
        name = {"fsync": "fsync", "rename": "replace"}[what]
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a: (countdown(), real(*a)))
    return countdown


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("what", ["write", "fsync", "rename"])
def test_whatever_fails_the_old_file_stays_and_no_other(what, error, tmp_path, monkeypatch):
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
        # Ctrl-C may also come when the new file is in place, and only its folder is still to be synchronised.
        assert value_in(path) == 1 or (what == "fsync" and error.args == ())
    assert value_in(path) == 2
    assert number > (8 if what == "write" else 1)
    assert countdown.left >= 0


@contextmanager
def largest_file(size):
    """No file may grow past this size, as on a disk that fills up."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_fills_up_anywhere_leaves_the_old_file(tmp_path):
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
    import os, signal, sys, time
    import numpy as np
    from pathlib import Path
    from jaxhash.files.archive import Archive, read_archive, write_archive

    folder = Path(sys.argv[1])
    path, moments = folder / "f", int(sys.argv[2])
    contents = [Archive("index", {}, {"index.ids": np.full(10**6, value, np.int32)}) for value in (1, 2)]

    def save(value):
        child = os.fork()  # jax has started nothing here
        if child == 0:
            write_archive(path, contents[value - 1])
            os._exit(0)
        return child

    def value_in():
        (value,) = set(read_archive(path, "index").arrays["index.ids"].tolist())
        return value

    start = time.perf_counter()
    os.waitpid(save(1), 0)
    took = time.perf_counter() - start
    seen, stray = [], 0
    for moment in range(moments):
        old = value_in()
        child = save(3 - old)
        time.sleep(took * moment / (moments - 1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen.append(value_in() == old)
        stray += any(entry.suffix == ".tmp" for entry in folder.iterdir())
    write_archive(path, contents[0])
    print(value_in(), len(seen), any(seen), stray > 0, os.listdir(folder))
"""


def test_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLS), tmp_path, "40"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=4) == ["1", "40", "True", "True", "['f']\n"]


def test_what_a_killed_save_left_is_cleared_up_and_what_a_live_one_writes_is_not(tmp_path):
    left = tmp_path / ".jaxhash-0123456789abcdef.tmp"
    left.write_bytes(b"half a fi")
    with replace_file(tmp_path / "slow") as file:
        file.write(b"first")
        write_archive(tmp_path / "f", numbers(1))
        assert not left.exists()
        file.write(b", then")
    assert (tmp_path / "slow").read_bytes() == b"first, then"
    assert names(tmp_path) == ["f", "slow"]


def test_what_only_looks_left_over_stops_no_save(tmp_path):
    os.mkfifo(tmp_path / ".jaxhash-1.tmp")
    (tmp_path / ".jaxhash-2.tmp").mkdir()
    (tmp_path / ".jaxhash-3.tmp").symlink_to("/dev/zero")
    write_archive(tmp_path / "f", numbers(1))
    assert value_in(tmp_path / "f") == 1


def test_a_file_that_was_cleared_up_before_it_was_locked_is_not_written_to(tmp_path, monkeypatch):
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


def test_readers_beside_writers_see_whole_files_only(tmp_path):
    path, seen, wrong = tmp_path / "f", set(), []
    write_archive(path, numbers(0))

    def write(value):
        for _ in range(60):
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


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it may come between opening a file and the `with` around it
def test_ctrl_c_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "f"
    write_archive(path, numbers(0, 200_000))
    value = interrupted = 0
    for moment in range(40):
        timer = threading.Timer(moment * 2e-4, signal.raise_signal, (signal.SIGINT,))
        try:
            timer.start()
            write_archive(path, numbers(moment + 1, 200_000))
            timer.join()
        except KeyboardInterrupt:
            interrupted += 1
        timer.join()
        assert value_in(path) in (value, moment + 1)
        value = value_in(path)
    assert interrupted > 0
    write_archive(path, numbers(0))
    assert names(tmp_path) == ["f"]


def test_ctrl_c_during_a_build_is_passed_on_and_leaves_nothing_behind(monkeypatch):
    codes = np.random.default_rng(0).integers(0, 2**32, (1000, 2), dtype=np.uint32)
    index = jh.build_index(codes[:500], 64)
    for name in ("argsort", "append", "insert"):
        with monkeypatch.context() as patch:
            patch.setattr(np, name, Countdown(1, KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                jh.add_items(index, codes[500:])
    np.testing.assert_array_equal(jh.add_items(index, codes[500:]).codes, jh.build_index(codes, 64).codes)


def test_saving_keeps_the_permissions_of_the_file_it_replaces(tmp_path):
    write_archive(tmp_path / "f", numbers(1))
    (tmp_path / "f").chmod(0o640)
    write_archive(tmp_path / "f", numbers(2))
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


def test_saving_to_a_link_replaces_what_it_points_to(tmp_path):
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
        if user == 0:  # who may do everything
            os.seteuid(65534)
        with pytest.raises(PermissionError, match="closed"):
            write_archive(folder / "f", numbers(1))
    finally:
        os.seteuid(user)
    assert not list(folder.iterdir())


def test_names_as_long_as_the_system_allows_can_be_saved_to(tmp_path):
    write_archive(tmp_path / ("f" * 255), numbers(1))
    assert value_in(tmp_path / ("f" * 255)) == 1
