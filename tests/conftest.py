import importlib
import os
from importlib.metadata import version
from pathlib import Path

# Before jax: its warnings about the platform would be errors here.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time goes into compiling: half of it is spared this way. `tests/stacks.sh` and what is marked slow in
# `.ci/run` are compiled as users have it. Threads to compile parts of a program would only take cores from other tests.
# Processes of tests inherit all of it. XLA ends the process at a flag that it doesn't know: jaxlib 0.10 knows these,
# 0.12 only the second.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and [*map(int, version("jaxlib").split(".")[:2])] < [0, 11]:
    flags = (
        os.environ.get("XLA_FLAGS"),
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )
    os.environ["XLA_FLAGS"] = " ".join(filter(None, flags))

import hypothesis
import jax
import numpy as np
import pytest

import jaxhash as jh

# A busy machine is no failure, and the first example compiles.
hypothesis.settings.register_profile("jaxhash", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("jaxhash")

MAX_PROGRAMS = 4000

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


class CompilationCounter:
    """Counts programs compiled while it is on."""

    EVENT = "/jax/core/compile/backend_compile_duration"

    def __init__(self):
        self.count = 0
        self.on = False
        self.kept = 0  # since caches were last cleared, on or off
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event, duration, **_):
        self.count += self.on and event == self.EVENT
        self.kept += event == self.EVENT

    def __enter__(self):
        self.count, self.on = 0, True
        return self

    def __exit__(self, *_):
        self.on = False


@pytest.fixture(scope="session")
def _counter():
    return CompilationCounter()


@pytest.fixture(scope="module", autouse=True)
def clear_programs(_counter):
    """Frees compiled programs from time to time.

    Each is mapped into memory in nine parts, and Linux ends a process at the 65,530th.
    """
    yield
    if _counter.kept > MAX_PROGRAMS:
        jax.clear_caches()
        _counter.kept = 0


@pytest.fixture
def compilations(_counter):
    """A context in which `.count` is the number of compilations so far."""
    return _counter


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def digits():
    return jh.load_dataset("digits")


@pytest.fixture
def benchmark_named(monkeypatch):
    """Imports a benchmark, which is a script beside its helpers and no part of a package."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "benchmarks")
    return importlib.import_module
