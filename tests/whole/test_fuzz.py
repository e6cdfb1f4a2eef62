"""Files nobody thought of; `fuzz/loading.py` is the same for as long as one likes."""

import gc
import sys
from pathlib import Path

import damage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
from loading import CASES, complaint

FILES = damage.seeds()
quietly = pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile's, when it writes such an archive


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory):
    """The first model of a kind takes longer, and would be complained of; so would a collection of garbage."""
    for file in FILES:
        complaint(tmp_path_factory.mktemp("warm") / "f", file.read_bytes())
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@quietly
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.randoms(use_true_random=False))
def test_any_file_loads_or_is_refused_in_little_memory(choices, tmp_path):
    assert complaint(tmp_path / "f", damage.mutated(choices, FILES)) is None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused(content, tmp_path):
    assert complaint(tmp_path / "f", content) is None


@pytest.mark.parametrize("case", sorted(CASES.glob("*")), ids=lambda path: path.name)
def test_files_that_once_went_wrong_stay_right(case, tmp_path):
    assert complaint(tmp_path / "f", case.read_bytes()) is None
