"""The notebooks run from top to bottom, at toy size; each ends by checking its results against a reference."""

import os
import re
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="the notebooks need nbclient: pip install '.[notebooks]'")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel", reason="the notebooks need ipykernel: pip install '.[notebooks]'")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture
def kernel_environment(monkeypatch, tmp_path):
    """Small data, this checkout's package, two devices, and no settings of the user's."""
    places = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
    monkeypatch.setenv("JAXHASH_SMALL", "1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))


def cells_of(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


@pytest.mark.slow  # a process for each, which begins with nothing compiled
@each
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's client, not of ours
def test_a_notebook_runs_from_top_to_bottom(path, kernel_environment, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    last = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    assert "agree" in last


@each
def test_a_notebook_holds_no_results(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in cells_of(path, "code"):
        assert cell.outputs == []
        assert cell.execution_count is None


@each
def test_the_first_cells_install_without_upgrading(path):
    assert cells_of(path, "code")[0].source == cells_of(NOTEBOOKS[0], "code")[0].source
    for cell in cells_of(path, "code"):
        assert not re.search(r"pip install.*(-U|--upgrade|\bjax\b)", cell.source)
