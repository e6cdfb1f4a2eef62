import errno
import os
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import jaxhash as jh
from jaxhash.files import atomic
from jaxhash.files.archive import read_archive, write_archive

SMALL = {"input_dim": 64, "num_bits": 16, "hidden_dims": (24,)}
EPOCHS = 4


@pytest.fixture(scope="module")
def images(digits):
    """As vectors, which are not warped: that would take long to compile."""
    return digits.train_images[:300].reshape(300, 64)


class KilledError(Exception):
    pass


def fit(images, checkpoint=None, *, die_after=None, **options):
    def on_epoch(epoch, _):
        if epoch == die_after:
            raise KilledError

    options = {"epochs": EPOCHS, "batch_size": 64, "objective": "retrieve"} | options
    return jh.fit(jh.Autoencoder(**SMALL), images, checkpoint=checkpoint, on_epoch=on_epoch, **options)


def equal(a, b):
    leaves = [jax.tree.leaves(nnx.state(model)) for model in (a, b)]
    return all(np.array_equal(x, y) for x, y in zip(*leaves, strict=True))


@pytest.fixture(scope="module")
def undisturbed(images):
    return fit(images)


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_a_resumed_training_equals_an_undisturbed_one(epoch, images, undisturbed, tmp_path):
    path = tmp_path / "checkpoint"
    with pytest.raises(KilledError):
        fit(images, path, die_after=epoch)
    seen = []
    model, history = jh.fit(
        jh.Autoencoder(**SMALL, rngs=nnx.Rngs(9)),  # its weights are not used
        images,
        epochs=EPOCHS,
        batch_size=64,
        objective="retrieve",
        checkpoint=path,
        on_epoch=lambda number, _: seen.append(number),
    )
    assert seen == list(range(epoch + 1, EPOCHS + 1))
    assert equal(model, undisturbed[0])
    assert history == undisturbed[1]


@pytest.mark.parametrize("binarization", ["gaussian_noise", pytest.param("stochastic", marks=pytest.mark.slow)])
def test_noise_and_samples_go_on_after_a_resume(binarization, images, tmp_path):
    path, options = tmp_path / "checkpoint", {"objective": "reconstruct", "binarization": binarization}
    with pytest.raises(KilledError):
        fit(images, path, die_after=2, **options)
    resumed, whole = fit(images, path, **options), fit(images, **options)
    assert equal(resumed[0], whole[0])
    assert resumed[1] == whole[1]


def test_a_checkpoint_changes_nothing(images, undisturbed, tmp_path):
    model, history = fit(images, tmp_path / "checkpoint")
    assert equal(model, undisturbed[0])
    assert history == undisturbed[1]


@pytest.mark.slow  # nothing else resumes what another process began
def test_a_process_killed_at_any_moment_resumes(images, undisturbed, tmp_path):
    path, data = tmp_path / "checkpoint", tmp_path / "images.npy"
    np.save(data, images)
    script = textwrap.dedent(f"""
        import numpy as np, jaxhash as jh
        model, _ = jh.fit(jh.Autoencoder(**{SMALL}), np.load({str(data)!r}), epochs={EPOCHS}, batch_size=64,
            objective="retrieve", checkpoint={str(path)!r}, on_epoch=lambda epoch, _: print(epoch, flush=True))
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    model, history = fit(images, path)
    assert equal(model, undisturbed[0])
    assert history == undisturbed[1]


def test_other_settings_are_refused_and_listed(images, tmp_path):
    path = tmp_path / "checkpoint"
    fit(images, path, epochs=1)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"training: batch_size was 64, now 32; seed was 0, now 5\. Give"):
        fit(images, path, epochs=1, seed=5, batch_size=32)
    with pytest.raises(ValueError, match=r"objective was .*num_neighbors': 10.*now .*num_neighbors': 3"):
        fit(images, path, epochs=1, objective=jh.training.Retrieve(num_neighbors=3))
    with pytest.raises(ValueError, match="optimizer was"):
        fit(images, path, epochs=1, optimizer=optax.sgd(0.1))
    with pytest.raises(ValueError, match="binarization was 'rounding', now 'stochastic'"):
        fit(images, path, epochs=1, binarization="stochastic")
    with pytest.raises(ValueError, match="image values was"):
        fit(images[::-1], path, epochs=1)
    with pytest.raises(ValueError, match="hidden_dims was"):
        jh.fit(jh.Autoencoder(64, 16, (25,)), images, epochs=1, batch_size=64, objective="retrieve", checkpoint=path)
    assert path.read_bytes() == before


def test_a_damaged_checkpoint_is_refused(images, tmp_path):
    path = tmp_path / "checkpoint"
    fit(images, path, epochs=1)
    content = path.read_bytes()
    for damaged in (content[:-1], content[:500] + b"?" + content[501:], b""):
        path.write_bytes(damaged)
        with pytest.raises(jh.CorruptFileError, match="checkpoint"):
            fit(images, path, epochs=1)
        assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    "change",
    [
        lambda meta, arrays: meta.update(epoch=2),
        lambda meta, arrays: meta.update(epoch=True),
        lambda meta, arrays: meta.pop("history"),
        lambda meta, arrays: meta.pop("settings"),
        lambda meta, arrays: meta["settings"].pop("model"),
        lambda meta, arrays: meta["settings"].pop("image_shape"),
        lambda meta, arrays: meta["settings"].pop("input scale"),
        lambda meta, arrays: arrays.popitem(),
        lambda meta, arrays: arrays.update({"0000": np.zeros(3, np.float32)}),
    ],
)
def test_a_checkpoint_of_wrong_content_is_refused(change, images, tmp_path):
    path = tmp_path / "checkpoint"
    fit(images, path, epochs=1)
    archive = read_archive(path, "training")
    change(archive.meta, archive.arrays)
    write_archive(path, archive)
    with pytest.raises(jh.CorruptFileError, match="checkpoint"):
        fit(images, path, epochs=1)


def test_another_kind_of_file_is_refused_and_left_as_it_is(images, tmp_path):
    path = tmp_path / "index"
    jh.save_index(path, jh.build_index(np.zeros((3, 1), np.uint32), 16))
    before = path.read_bytes()
    with pytest.raises(jh.CorruptFileError):
        fit(images, path)
    assert path.read_bytes() == before


def test_a_full_disk_keeps_the_model_and_the_last_checkpoint(images, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    with pytest.raises(KilledError):
        fit(images, path, die_after=1)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(jh.training.CheckpointError, match="No space") as caught:
        fit(images, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert len(caught.value.history.loss) == 2
    assert jh.encode(caught.value.model, images).shape == (300, 1)


def test_divergence_leaves_the_last_good_checkpoint(images, tmp_path):
    path = tmp_path / "checkpoint"
    optimizer = optax.sgd(lambda step: jax.numpy.where(step < 5, 0.1, 1e30))
    with pytest.raises(jh.training.DivergenceError, match="epoch 2"):
        fit(images, path, optimizer=optimizer, objective="reconstruct")
    assert read_archive(path, "training").meta["epoch"] == 1
