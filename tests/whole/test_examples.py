"""The examples in docstrings of public names run and print what they say."""

import doctest
import importlib

import numpy as np
import pytest

import jaxhash as jh

PACKAGES = ["codes", "datasets", "index", "metrics", "models", "query", "training"]
PUBLIC = {name: getattr(jh, name) for name in jh.__all__}
for package in (importlib.import_module(f"jaxhash.{name}") for name in PACKAGES):
    PUBLIC |= {name: getattr(package, name) for name in package.__all__}
EXAMPLES = {name: value for name, value in PUBLIC.items() if ">>> " in (value.__doc__ or "")}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples_of_a_docstring_run(name):
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(verbose=False)
    for example in finder.find(EXAMPLES[name], name, globs={"np": np, "jh": jh}):
        assert runner.run(example).failed == 0


def test_functions_called_first_have_examples():
    first = {
        "build_index",
        "codes_from_bytes",
        "deduplicate",
        "encode",
        "fit",
        "pack_bits",
        "radius_search",
        "retrieve",
    }
    assert first | {"search"} <= EXAMPLES.keys()
