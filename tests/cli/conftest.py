"""Collections that are built once: of digits as image files, and of vectors."""

import shutil

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from command_line import BITS, COUNT, SIDE, save_image

import jaxhash as jh
from jaxhash import __main__ as command
from jaxhash.cli import build


@pytest.fixture(scope="session")
def original(tmp_path_factory, digits):
    """A folder of digits, some in a sub-folder and one of them twice, and the file that was built of it."""
    root = tmp_path_factory.mktemp("original")
    (root / "photos" / "more").mkdir(parents=True)
    for number, image in enumerate(digits.train_images[: COUNT - 1]):
        save_image(root / "photos" / ("more" if number % 10 == 0 else "") / f"{number:03}.png", image)
    shutil.copy(root / "photos" / "003.png", root / "photos" / "same.png")
    (root / "photos" / "notes.txt").write_text("hello")
    (root / "photos" / "broken.png").write_bytes((root / "photos" / "001.png").read_bytes()[:60])
    options = ("--bits", BITS, "--side", SIDE, "--epochs", 3)
    arguments = ("build", root / "photos", "-o", root / "photos.npz", *options)
    assert command.main([str(argument) for argument in arguments]) == 0
    return root


@pytest.fixture
def untrained(monkeypatch):
    """Leaves new models as they are: training takes seconds to compile."""
    monkeypatch.setattr(build, "fit", lambda model, *_, **__: (model, jh.training.History()))


@pytest.fixture
def folder(original, tmp_path):
    """A copy to change."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="session")
def embeddings(tmp_path_factory):
    """A file of vectors in five heaps, far from zero, and what was built of it."""
    root = tmp_path_factory.mktemp("vectors")
    rng = np.random.default_rng(0)
    heaps = 1000 + 50 * rng.normal(size=(5, 20))
    np.save(root / "v.npy", np.repeat(heaps, 50, axis=0) + rng.normal(size=(250, 20)))
    assert command.main(["build", str(root / "v.npy"), "-o", str(root / "v"), "--epochs", "60"]) == 0
    return root


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """The one browser of all tests: starting it takes a second."""
    if CHROMIUM is None:
        pytest.skip("needs chromium: apt install chromium")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()
