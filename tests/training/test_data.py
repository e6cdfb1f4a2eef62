"""Training on arrays that are too large for the device, and on streams of batches."""

import functools
import tracemalloc

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from loaders import Loader

import jaxhash as jh
from jaxhash.models.input_rule import unscale_rule
from jaxhash.training import data, epoch
from jaxhash.training.data import TrainingData, merge_batches

RUN = 300 * 12  # bytes of 300 images
SGD = optax.sgd(0.1)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (1000, 12), dtype=np.uint8)


@pytest.fixture
def short_runs(monkeypatch):
    monkeypatch.setattr(data, "BYTES_IN_RUN", RUN)


def fit(images, **options):
    return jh.fit(jh.Autoencoder(12, 8, (16,)), images, **({"epochs": 2, "batch_size": 32} | options))


@functools.cache
def make_model():
    return jh.Autoencoder(12, 8, ())


def summarize(images, seed):
    return TrainingData(make_model(), images, jh.training.Reconstruct(), 32, seed)


def equal(a, b):
    leaves = [jax.tree.leaves(nnx.state(model)) for model in (a, b)]
    return all(np.array_equal(x, y) for x, y in zip(*leaves, strict=True))


@pytest.mark.parametrize("objective", ["reconstruct", "retrieve"])
def test_a_stream_of_one_run_trains_as_an_array(images, objective):
    expected, history = fit(images, objective=objective)
    for size in (7, 1000):
        model, found = fit(Loader(images, size), objective=objective)
        assert equal(model, expected)
        assert found == history


def test_images_of_a_stream_keep_their_sides(rng):
    images = rng.integers(0, 256, (40, 3, 4), dtype=np.uint8)
    objective = jh.training.Retrieve(warp=None)  # features depend on the sides, too; warps would take long to compile
    assert equal(fit(Loader(images, 9), objective=objective)[0], fit(images, objective=objective)[0])


@pytest.mark.parametrize("count", [1, 31, 32, 331, 332, 333, 1000])
@pytest.mark.parametrize("size", [1, 100, 2000])
def test_runs_are_of_one_length_but_for_the_last(short_runs, images, count, size):
    runs = [run.copy() for run in merge_batches(Loader(images[:count], size), batch_size=32)]
    np.testing.assert_array_equal(np.concatenate(runs), images[:count])
    *full, last = map(len, runs)
    assert set(full) <= {288}
    assert min(32, count) <= last <= 288 + 32


@pytest.mark.filterwarnings("ignore::jaxhash.training.CodeWarning")
@pytest.mark.parametrize("repeatable", [True, False])
def test_every_image_of_every_run_is_trained_on(monkeypatch, repeatable):
    # Each image has a pixel of its own; with plain SGD only the images trained on move that pixel's weights.
    monkeypatch.setattr(data, "BYTES_IN_RUN", 8 * 27 * 4)
    loader = Loader(np.eye(27, dtype=np.float32), 5)
    model = jh.Autoencoder(27, 4, ())
    trained, history = jh.fit(
        model, loader if repeatable else iter(loader), epochs=1, batch_size=4, optimizer=SGD, objective="retrieve"
    )
    before, after = (np.asarray(m.encoder.layers[0].kernel[...]) for m in (model, trained))
    assert (before != after).any(axis=1).all()
    assert history.num_codes[0] <= 16


def test_many_runs_learn_as_well_as_one(short_runs, images):
    faint = images // 8  # all are dark, which is learned fast
    loss = jh.training.reconstruction_loss(fit(faint, epochs=10)[0], faint)
    model, history = fit(Loader(faint, 50), epochs=10)
    assert jh.training.reconstruction_loss(model, faint) == pytest.approx(loss, rel=0.02)
    assert history.loss[-1] < history.loss[0]


def test_all_runs_and_epochs_share_their_programs(short_runs, images, compilations):
    fit(Loader(images, 50))
    with compilations:
        fit(Loader(images, 70))
    assert compilations.count == 0


def test_an_iterator_is_for_one_epoch_without_a_checkpoint(images, tmp_path):
    model, history = fit(iter(Loader(images, 64)), epochs=1)
    assert len(history.loss) == 1
    assert jh.encode(model, images).shape == (1000, 1)
    for options in ({"epochs": 2}, {"epochs": 1, "checkpoint": tmp_path / "checkpoint"}):
        taken = iter(Loader(images, 64))
        with pytest.raises(ValueError, match=r"more than once, .* got an iterator \(generator\): give an array"):
            fit(taken, **options)
        assert next(taken).shape == (64, 12)


def test_an_iterator_with_an_optimizer_trains_as_an_array(images):
    options = {"epochs": 1, "optimizer": SGD}
    assert equal(fit(iter(Loader(images, 64)), **options)[0], fit(images, **options)[0])


def test_a_stream_that_ends_sooner_the_second_time_is_refused(images):
    class Exhausted:
        def __init__(self):
            self.batches = iter(Loader(images, 64))

        def __iter__(self):
            return self.batches

    with pytest.raises(ValueError, match="held 1000 items when first iterated, but 0 in an epoch"):
        fit(Exhausted())


def test_the_input_rule_covers_all_items(short_runs, rng, monkeypatch):
    monkeypatch.setattr(data, "ITEMS_IN_SAMPLE", 50)
    vectors = rng.uniform(-1, 1, (500, 12)).astype(np.float32)
    vectors[-1, 3] = 40
    rules = []
    for given in (vectors, Loader(vectors, 64), iter(Loader(vectors, 64))):
        model, _ = jh.fit(jh.Autoencoder(12, 8, (), output_activation="linear"), given, epochs=1)
        # The scale comes from the sample, which differs; the range in units of the vectors does not.
        rules.append(
            unscale_rule(*(np.asarray(part[...]) for part in (model.input_rule, model.input_shift, model.input_scale)))
        )
    assert rules[0][1] > 80
    np.testing.assert_allclose(rules, [rules[0]] * 3, rtol=1e-5)


@pytest.mark.parametrize("most", [40, 5000])
def test_the_sample_of_a_stream_depends_on_the_seed_alone(images, most, monkeypatch):
    monkeypatch.setattr(data, "ITEMS_IN_SAMPLE", most)

    def sample(size, seed):
        found = summarize(Loader(images, size), seed)
        assert found.count == found.num_items == 1000
        return found.sample

    assert sample(7, seed=0).shape == (min(most, 1000), 12)
    np.testing.assert_array_equal(sample(7, seed=0), sample(300, seed=0))
    assert np.array_equal(sample(7, seed=0), sample(7, seed=1)) == (most > 1000)


def test_each_item_of_a_stream_has_the_same_chance(monkeypatch):
    monkeypatch.setattr(data, "ITEMS_IN_SAMPLE", 5)
    numbers, counts = np.repeat(np.arange(20, dtype=np.uint8)[:, None], 12, axis=1), np.zeros(20)
    for seed in range(2000):
        sample = summarize(Loader(numbers, 6), seed).sample
        assert len(np.unique(sample)) == 5
        counts[sample[:, 0].astype(int)] += 1
    # 500 times each, with a deviation of 19.
    assert (np.abs(counts - 500) < 5 * 19).all()


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], ValueError, "at least one batch"),
        ([np.zeros((0, 12), np.uint8)], ValueError, "at least one batch"),
        ([np.zeros((2, 12), np.uint8), np.zeros((2, 12), np.float32)], ValueError, "one dtype and shape in all batch"),
        ([np.zeros((2, 3, 4), np.uint8), np.zeros((2, 12), np.uint8)], ValueError, "one dtype and shape in all batch"),
        ([np.zeros((2, 13), np.uint8)], ValueError, "images must have shape"),
        ([np.float32([[0] * 12, [np.nan] * 12])], ValueError, "row 1 holds NaN"),
        ([np.zeros((2, 12), int)], TypeError, "images must be uint8"),
    ],
)
def test_wrong_batches_are_refused(batches, error, message):
    class Batches:
        def __iter__(self):
            return iter(batches)

    for stream in (Batches(), iter(batches)):
        with pytest.raises(error, match=message):
            fit(stream, epochs=1)


def test_training_on_a_stream_resumes(short_runs, images, tmp_path):
    class KilledError(Exception):
        pass

    def die(epoch, history):
        raise KilledError

    path, options = tmp_path / "checkpoint", {"epochs": 3, "objective": "retrieve"}
    expected, history = fit(Loader(images, 64), **options)
    with pytest.raises(KilledError):
        fit(Loader(images, 64), **options, checkpoint=path, on_epoch=die)
    with pytest.raises(ValueError, match="image values was"):
        fit(Loader(images[::-1], 64), **options, checkpoint=path)
    model, found = fit(Loader(images, 50), **options, checkpoint=path)
    assert equal(model, expected)
    assert found == history


@pytest.mark.parametrize(
    ("dtype", "as_stream"),
    [(np.uint8, False), pytest.param(np.float32, False, marks=pytest.mark.slow), (np.float32, True)],
)
def test_a_mapped_file_is_never_copied_whole(images, dtype, as_stream, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "BYTES_IN_RUN", 100_000)
    monkeypatch.setattr(data, "BYTES_PER_CHUNK", 100_000)
    monkeypatch.setattr(data, "ITEMS_IN_SAMPLE", 100)
    rows = np.tile(images, (1, 60))[np.arange(3000) % 1000]
    np.save(tmp_path / "images.npy", rows if dtype == np.uint8 else (rows / 255).astype(dtype))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")

    def train():
        jh.fit(jh.Autoencoder(720, 8, ()), Loader(mapped, 100) if as_stream else mapped, epochs=1, batch_size=32)

    train()  # compiling takes memory too
    tracemalloc.start()
    train()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < mapped.nbytes / 2


@pytest.mark.parametrize(
    ("objective", "bytes_at_once"), [("reconstruct", 5000), ("retrieve", 5000), ("reconstruct", 2**28)]
)
def test_arrays_train_the_same_from_the_device_and_the_host(images, objective, bytes_at_once, monkeypatch):
    monkeypatch.setattr(data, "BYTES_PER_CHUNK", bytes_at_once)
    expected, history = fit(images, objective=objective)
    monkeypatch.setattr(data, "BYTES_ON_DEVICE", 1)
    model, found = fit(images, objective=objective)
    assert equal(model, expected)
    assert found == history


@pytest.fixture
def scans(monkeypatch):
    """The tables and rows of each compiled scan."""
    run_steps, seen = epoch._run_steps, []

    def record(*arguments):
        seen.append(arguments[7:9])
        return run_steps(*arguments)

    monkeypatch.setattr(epoch, "_run_steps", record)
    return seen


@pytest.mark.parametrize("objective", ["reconstruct", "retrieve"])
def test_an_array_is_sent_to_the_device_once(images, objective, scans):
    fit(images, objective=objective)
    assert len(scans) == 2
    for tables, rows in scans:
        assert all(table is first for table, first in zip(tables, scans[0][0], strict=True))
        assert isinstance(tables[0], jax.Array)
        assert all(part.dtype == np.int32 for part in rows)


@pytest.mark.parametrize("objective", ["reconstruct", "retrieve"])
def test_a_part_holds_no_more_than_so_many_bytes(images, objective, scans, monkeypatch):
    monkeypatch.setattr(data, "BYTES_ON_DEVICE", 1)
    monkeypatch.setattr(data, "BYTES_PER_CHUNK", 5000)
    fit(images, epochs=1, batch_size=10, objective=objective)
    sizes = [sum(table.nbytes for table in tables if table is not None) for tables, _ in scans]
    row_size = 12 if objective == "reconstruct" else 12 + 12 + 12 * 4
    assert max(sizes) < 5000 + 10 * row_size  # a step more, as steps are not divided
    assert sum(sizes) >= 1000 * row_size


def test_the_host_is_no_more_than_two_parts_ahead(images, monkeypatch):
    monkeypatch.setattr(data, "BYTES_ON_DEVICE", 1)
    monkeypatch.setattr(data, "BYTES_PER_CHUNK", 100 * 12)
    run_steps, split_run, losses, ready = epoch._run_steps, epoch.split_run, [], []

    def record(*arguments):
        results = run_steps(*arguments)
        losses.append(results[2])
        return results

    def watch(*arguments):
        for part in split_run(*arguments):
            ready.extend(loss.is_ready() for loss in losses[:-1])
            yield part

    monkeypatch.setattr(epoch, "_run_steps", record)
    monkeypatch.setattr(epoch, "split_run", watch)
    jh.fit(jh.Autoencoder(12, 8, (1000, 1000)), images, epochs=1, batch_size=100)
    assert len(losses) == 10
    assert all(ready)
