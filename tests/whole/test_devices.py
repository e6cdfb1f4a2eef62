"""Shards on several devices and hosts; each in new processes, which settle how many devices they have as they start."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "devices"


def hosts(case, folder, count=2, limit=480):
    """Exit status and output of some processes that play a case together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, FOLDER / "hosts.py", case, str(number), str(count), str(port), folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=limit)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]


def test_shards_on_eight_devices_answer_as_the_whole():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", FOLDER / "equality.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shards_on_two_hosts_answer_as_the_whole(tmp_path):
    for status, output in hosts("equal", tmp_path):
        assert status == 0, output


def test_hosts_save_and_load_their_own_parts(tmp_path):
    for status, output in hosts("saving", tmp_path):
        assert status == 0, output


def test_hosts_build_an_index_from_items_of_their_own(tmp_path):
    for status, output in hosts("building", tmp_path):
        assert status == 0, output


@pytest.mark.slow
def test_four_hosts_build_an_index_from_items_of_their_own(tmp_path):
    for status, output in hosts("many_building", tmp_path, count=4):
        assert status == 0, output


def test_an_error_on_one_host_reaches_all(tmp_path):
    for status, output in hosts("failing", tmp_path):
        assert status == 0, output


def test_a_host_that_dies_is_an_error_on_the_others_and_not_a_hang(tmp_path):
    (left, output), (gone, _) = hosts("dying", tmp_path)
    assert gone == 9
    assert left not in (0, None), output
    assert "done" not in output
