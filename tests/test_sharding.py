"""Shards on several devices and hosts. How many devices a process has is settled when it starts, so these start others."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "devices"


def test_shards_on_eight_devices_answer_as_the_whole():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", FOLDER / "equality.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
