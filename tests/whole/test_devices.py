"""Shards on several devices and hosts; each in new processes, which settle how many devices they have as they start."""

import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "devices"


def find_free_port():
    """A free port below those that the system hands out, so that it stays free."""
    for port in random.sample(range(20_000, 32_768), 100):
        with socket.socket() as free:
            if free.connect_ex(("127.0.0.1", port)):
                return port
    raise RuntimeError("no port is free")


def hosts(cases, folder, count=2, limit=480):
    """Exit status and output of some processes that play cases together, one after the other."""
    port = find_free_port()
    started = [
        subprocess.Popen(
            [sys.executable, FOLDER / "hosts.py", cases, str(number), str(count), str(port), folder],
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


@pytest.mark.slow  # a minute; two hosts of two devices search and save in any run
def test_shards_on_eight_devices_answer_as_one_index():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", FOLDER / "equality.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_hosts_search_their_own_parts_and_share_errors(tmp_path):
    for status, output in hosts("saving,failing", tmp_path):
        assert status == 0, output


@pytest.mark.slow
def test_two_hosts_answer_and_build_as_one(tmp_path):
    for status, output in hosts("equal,building", tmp_path):
        assert status == 0, output


@pytest.mark.slow
def test_four_hosts_build_as_one(tmp_path):
    for status, output in hosts("many_building", tmp_path, count=4):
        assert status == 0, output


@pytest.mark.slow  # waits ten seconds for JAX to notice
def test_a_host_that_dies_is_an_error_on_the_others(tmp_path):
    (left, output), (gone, _) = hosts("dying", tmp_path)
    assert gone == 9
    assert left not in (0, None), output
    assert "is done" not in output
