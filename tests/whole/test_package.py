"""The shape of the package: who imports whom, what an import costs, what is public."""

import ast
import graphlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxhash as jh

PACKAGE = Path(jh.__file__).parent
PACKAGES = ["codes", "datasets", "index", "metrics", "models", "query", "training"]

# The folders and files of the package and what each imports from the package: only from those above it.
IMPORTS = {
    "core": set(),
    "files": set(),
    "codes": {"core"},
    "index": {"codes", "core", "files"},
    "query": {"codes", "core", "index"},
    "metrics": {"codes", "core"},
    "models": {"codes", "core", "files"},
    "training": {"codes", "core", "files", "models"},
    "retriever": {"codes", "core", "files", "index", "models", "query"},
    "datasets": set(),
    "plots": {"index"},
    "cli": {
        "codes",
        "core",
        "datasets",
        "files",
        "index",
        "metrics",
        "models",
        "plots",
        "query",
        "retriever",
        "training",
    },
    "__main__": {"cli"},
}


def imports_of(path):
    """All imports of a file, as `(module, inside a function)`."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "jaxhash":
            yield from ((f"jaxhash.{alias.name}", id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, id(node) in inside
        elif isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)


def files_of(part):
    """The modules of a folder and the folders in it, or the one of a file."""
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def name_of(path):
    """The name of a module, such as "jaxhash.query.scan.host"; for an `__init__`, the name of its folder."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("part", IMPORTS)
def test_a_folder_imports_what_the_table_says(part):
    names = [name for path in files_of(part) for name, _ in imports_of(path) if name.startswith("jaxhash.")]
    assert {name.split(".")[1] for name in names} - {part} == IMPORTS[part]


def test_imports_go_up_the_table_only():
    for place, (part, imported) in enumerate(IMPORTS.items()):
        assert imported <= set(list(IMPORTS)[:place]), part


def test_the_table_holds_all_folders_and_files():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__pycache__", "__init__"} == IMPORTS.keys()


def test_modules_import_each_other_in_one_direction():
    """Within a folder, too, where all go past its `__init__`, which imports them."""
    modules = {name_of(path): path for part in IMPORTS for path in files_of(part)}
    graph = {name: {other for other, _ in imports_of(path)} for name, path in modules.items()}
    known = {other for imported in graph.values() for other in imported if other.startswith("jaxhash.")}
    assert known <= modules.keys()
    list(graphlib.TopologicalSorter(graph).static_order())


def test_only_commands_and_plots_are_imported_in_functions():
    for path in PACKAGE.rglob("*.py"):
        nested = [name for name, inside in imports_of(path) if inside and name.startswith("jaxhash")]
        assert not nested or path.stem == "__main__" or (path.stem, nested) == ("gallery", ["jaxhash.plots"]), path


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def loaded_by(code):
    """The top-level packages that some code loads in a new process."""
    done = run(f"import sys\n{code}\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("code", ["import jaxhash", "import jaxhash.__main__"])
def test_importing_loads_no_package_of_others(code):
    assert not loaded_by(code) & {"jax", "jaxlib", "flax", "optax", "numpy"}


def test_help_loads_no_package_of_others():
    code = """
import sys, jaxhash.__main__
try:
    jaxhash.__main__.main(["--help"])
except SystemExit as end:
    assert end.code == 0
raise SystemExit(bool({"jax", "flax", "numpy"} & set(sys.modules)))
"""
    assert run(code).returncode == 0


def test_searching_loads_neither_flax_nor_matplotlib(tmp_path):
    jh.save_index(tmp_path / "index.npz", jh.build_index(np.zeros((2, 1), np.uint32), 8))
    code = f"""
import numpy as np
import jaxhash as jh, jaxhash.index, jaxhash.query
assert jh.index.build_index is jh.build_index
index = jh.load_index({str(tmp_path / "index.npz")!r})
assert jh.search(index, np.zeros(1, np.uint32), k=2).ids.tolist() == [0, 1]
assert jh.radius_search(index, np.zeros(1, np.uint32), radius=0).ids.tolist() == [0, 1]
assert jh.metrics.recall([[1]], [[1]]) == 1
"""
    loaded = loaded_by(code)
    assert "jax" in loaded
    assert not loaded & {"flax", "optax", "matplotlib", "sklearn", "mlxtend"}


def test_import_starts_no_device_and_changes_no_setting():
    code = """
import sys, threading
events = []
sys.addaudithook(lambda event, _: events.append(event))
import warnings, numpy, jax
before = (jax.config.jax_enable_x64, list(warnings.filters), numpy.random.get_state()[1].tolist())
import jaxhash, jaxhash.models, jaxhash.training, jaxhash.retriever
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
assert before == (jax.config.jax_enable_x64, list(warnings.filters), numpy.random.get_state()[1].tolist())
assert not [event for event in events if event.startswith("socket.")], events
assert threading.active_count() == 1
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_public_names_are_listed():
    assert sorted(jh.__all__) == jh.__all__
    assert dir(jh) == sorted([*jh.__all__, *PACKAGES, "plots"])
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        jh.nothing  # noqa: B018


def test_the_overview_names_what_is_public():
    named = set(re.findall(r"`(\w+)`", jh.__doc__))
    assert {name for name in dir(jh) if name.islower()} <= named
    assert named - {"jit", "multiprocessing"} <= set(dir(jh))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("recall", "jaxhash.metrics.recall"),
        ("Retrieve", "jaxhash.training.Retrieve"),
        ("first_bits", "jaxhash.codes.first_bits"),
        ("IndexStats", "jaxhash.index.IndexStats"),
        ("BagMatches", "jaxhash.query.ScoredNeighbors"),
        ("weighted_search", "jaxhash.search(..., weights=...)"),
    ],
)
def test_the_error_of_an_old_name_says_the_new_one(old, new):
    with pytest.raises(AttributeError, match=re.escape(f"module 'jaxhash' has no attribute '{old}': it is {new}")):
        getattr(jh, old)


def test_an_unknown_name_is_an_error_without_matplotlib_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "jaxhash.plots", raising=False)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        jh.nothing  # noqa: B018


def test_a_package_without_source_imports_all_names():
    code = """
import linecache
linecache.getlines = lambda *_: []
import jaxhash
assert {"fit", "search", "metrics"} <= vars(jaxhash).keys()
"""
    assert run(code).returncode == 0


@pytest.mark.slow  # reads the types of JAX, numpy and flax
def test_type_checkers_see_the_public_names_alone(tmp_path):
    pytest.importorskip("mypy")
    names = [*jh.__all__, *(f"{package}.__all__" for package in PACKAGES)]
    (tmp_path / "names.py").write_text(
        "import jaxhash as jh\n\n" + "\n".join(f"jh.{name}" for name in [*names, "recall"])
    )
    command = [sys.executable, "-m", "mypy", "--strict", "names.py"]
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}  # as if installed, so that py.typed counts
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert re.findall(r"error: (.*)  \[", done.stdout) == ['Module has no attribute "recall"']
