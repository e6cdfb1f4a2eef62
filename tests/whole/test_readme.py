import doctest
import importlib
import re
import shlex
from pathlib import Path

import pytest

from jaxhash.__main__ import _make_parser

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = ["README.md", "notebooks/reference.md", "tests/benchmarks/README.md"]


def test_every_example_of_the_readme_runs():
    failed, tried = doctest.testfile(str(README), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried >= 15
    assert failed == 0


@pytest.mark.parametrize("folder", ["codes", "index", "metrics"])
def test_every_example_of_a_package_runs(folder):
    failed, tried = doctest.testmod(importlib.import_module(f"jaxhash.{folder}"))
    assert tried >= 4
    assert failed == 0


def test_every_command_of_the_readme_parses():
    commands = re.findall(r"^jaxhash (.+)$", README.read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        assert callable(_make_parser().parse_args(shlex.split(command, comments=True)).run)


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_repository_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
