import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = ["README.md", "notebooks/reference.md", "tests/benchmarks/README.md"]


def test_every_example_of_the_readme_runs():
    failed, tried = doctest.testfile(str(README), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried >= 15
    assert failed == 0


@pytest.mark.parametrize("folder", ["codes", "index", "query", "metrics"])
def test_every_example_of_a_package_runs(folder):
    failed, tried = doctest.testmod(importlib.import_module(f"jaxhash.{folder}"))
    assert tried >= 4
    assert failed == 0


def test_both_commands_stand_in_the_first_screen():
    first = README.read_text().splitlines()[:12]
    assert "pip install '.[demo]' && python -m jaxhash demo" in first
    assert "pip install -e '.[test]' && pytest" in first


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_repository_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_each_benchmark_is_listed():
    listed = (ROOT / "tests/benchmarks/README.md").read_text()
    for path in (ROOT / "tests/benchmarks").glob("*.py"):
        assert f"`{path.name}`" in listed or "__main__" not in path.read_text(), path.name


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 220


def test_no_line_names_a_path_of_some_machine():
    assert not re.search(r"/(home|root|work|tmp)/", README.read_text())
