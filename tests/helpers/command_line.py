"""Command lines, run in this process, what they print, and the image files that they read and write."""

import re

import numpy as np
from PIL import Image

from jaxhash import __main__ as command

# The digits that the fixture `original` builds a collection of: their number, and the bits and side of its model.
COUNT, BITS, SIDE = 190, 10, 8


def run(capsys, *arguments, status=0):
    """What a command line prints to stdout and to stderr."""
    capsys.readouterr()
    assert command.main([str(argument) for argument in arguments]) == status
    return capsys.readouterr()


def error_of(capsys, *arguments):
    """The one line of a command line that fails."""
    out, err = run(capsys, *arguments, status=2)
    assert re.fullmatch(r"jaxhash: error: \S[^\n]*\n", err), err
    assert out == ""
    return err


def found_in(out):
    """Distances and paths."""
    lines = [line.split("\t") for line in out.splitlines()]
    return [int(distance) for distance, _ in lines], [path for _, path in lines]


def status_of(*arguments):
    """The exit status of a command line, whichever way it ends."""
    try:
        return command.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


def assert_one_line(capsys, *parts):
    out, err = capsys.readouterr()
    assert re.fullmatch(r"jaxhash: error: \S[^\n]*\n", err), err
    assert "Traceback" not in out + err
    for part in parts:
        assert str(part) in err


def save_image(path, pixels):
    Image.fromarray(pixels).save(path)


def read_pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
