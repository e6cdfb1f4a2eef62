import itertools
import time

import numpy as np
import pytest

import jaxhash as jh


@pytest.fixture
def baselines(benchmark_named):
    return benchmark_named("baselines")


@pytest.fixture
def quality(benchmark_named):
    return benchmark_named("quality")


@pytest.fixture
def scale(benchmark_named):
    return benchmark_named("scale")


def test_itq_finds_a_rotation_and_never_raises_the_loss(baselines, rng):
    components = rng.standard_normal((500, 6)).astype(np.float32) * np.float32([5, 3, 2, 1, 1, 0.5])
    start = np.linalg.qr(rng.standard_normal((6, 6)))[0].astype(np.float32)
    rotation, losses = baselines.itq_rotation(components, start)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(6), atol=1e-5)
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < losses[0]


def test_itq_turns_a_square_onto_its_corners(baselines):
    corners = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32) * np.float32(2**0.5)
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]], np.float32)
    _, losses = baselines.itq_rotation(corners, turn)
    assert losses[-1] < 1e-6 < losses[0]


def test_principal_axes_are_those_of_scikit_learn(baselines, digits):
    from sklearn.decomposition import PCA

    data = baselines.vectors(digits.train_images)
    mean, axes = baselines.principal_axes(data, 8)
    peer = PCA(8, svd_solver="full").fit(data.astype(float))
    np.testing.assert_allclose(mean, peer.mean_, atol=1e-6)
    np.testing.assert_allclose(np.abs(axes.T @ peer.components_.T), np.eye(8), atol=1e-3)
    with pytest.raises(ValueError, match="no 65 principal axes"):
        baselines.principal_axes(data, 65)


@pytest.mark.parametrize("name", ["lsh", "pca_sign", "itq"])
def test_baselines_give_codes_that_depend_on_the_seed_alone(baselines, digits, name):
    learner = getattr(baselines, name)
    codes, again = (learner(digits.train_images, 12, 3)(digits.test_images) for _ in range(2))
    np.testing.assert_array_equal(codes, again)
    stats = jh.codes.bit_statistics(codes, 12)
    assert codes.shape == (len(digits.test_images), 1)
    assert not stats.dead_bits.size
    assert stats.num_codes > 50


def test_pixels_are_ranked_by_euclidean_distance(baselines, digits):
    from sklearn.neighbors import NearestNeighbors

    precision, ids = baselines.pixel_ranking(*digits[1:], k=5, at_once=50)
    train, test = (images.reshape(len(images), -1).astype(float) for images in (digits[1], digits[3]))
    distances, peer = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(train).kneighbors(test)
    assert (
        jh.metrics.recall(
            peer,
            ids,
            true_distances=distances.round(6),
            found_distances=np.linalg.norm(train[ids] - test[:, None], axis=2).round(6),
        )
        == 1
    )
    assert 0.4 < precision < 1


@pytest.mark.slow  # trains and measures; nothing in the package depends on it
def test_the_quality_tables_hold_a_row_for_each_method(quality, capsys):
    quality.main(
        [
            "--datasets",
            "digits",
            "--bits",
            "6",
            "--seeds",
            "1",
            "--epochs",
            "1",
            "--hidden-dims",
            "16",
            "--queries",
            "50",
        ]
    )
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == quality.METHODS
    assert {len(row) for row in rows[3:-1]} == {len(rows[3])}
    assert all(float(number.replace(",", "")) >= 0 for number in rows[-1][1:])


def test_memory_of_large_collections_by_hand(scale, capsys):
    scale.paper(per_code_word=0.01, per_build=100)
    head, *rows = capsys.readouterr().out.splitlines()
    table = [dict(zip(head.split(), row.replace(",", "").split(), strict=True)) for row in rows]
    first = table[0]
    assert (first["items"], first["bits"], first["bytes/item"], first["GB"]) == ("1000000000", "64", "16", "16")
    # 16 GiB over 20 bytes, 858,993,459 items; but 2^31 words, less a fifth for spare room, are 858,993,458.
    assert first["devices"] == "2"
    assert float(first["ms/query"]) == pytest.approx(5e8 * 2 * 0.01 * 1e-6)
    assert first["bytes/query"] == str(2 * 10 * 8)
    assert table[-1]["indexes"] == "47"


@pytest.mark.slow  # trains and measures; nothing in the package depends on it
def test_the_benchmark_of_scale_runs_at_toy_size(scale, capsys, monkeypatch):
    monkeypatch.setattr(scale, "ROUNDS", 1)
    scale.items(2000)
    scale.billion(2000)
    scale.stream(3000)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines[0].split()) == 8
    assert lines[-1].endswith("MiB")


def test_a_cell_holds_mean_and_standard_deviation(quality):
    assert quality.cell([0.25, 0.75], ".2f") == "0.50 ± 0.35"
    assert quality.cell([1234], ",.0f") == "1,234"
    assert quality.cell([], ".3f") == ""


def test_the_loop_over_a_dictionary_scores_as_bag_search_does(benchmark_named, rng):
    papers = benchmark_named("papers")
    codes = np.asarray(jh.pack_bits(rng.random((40, 6, papers.PATCH_BITS)) < 0.1))
    index = jh.build_index(codes, papers.PATCH_BITS, multi=True)
    found = jh.bag_search(index, codes[:2], radius=3, k=5)
    papers.loop_seconds(papers.dictionary(codes), codes[:2], found, radius=3)  # raises where they differ
    with pytest.raises(RuntimeError, match="query 0, radius 3"):
        papers.loop_seconds(papers.dictionary(codes), codes[:2], found._replace(scores=found.scores + 1), radius=3)


def test_average_precision_of_two_rankings_by_hand(benchmark_named):
    data = jh.datasets.Dataset("", None, np.array([0, 1, 0]), None, np.array([0, 2]))
    # Relevant in the first and the last of three places; and in none.
    assert benchmark_named("papers").average_precision(np.array([[0, 1, 2]] * 2), data) == (1 + 2 / 3) / 2 / 2


@pytest.fixture
def in_a_hurry(benchmark_named, monkeypatch):
    """Benchmarks of searches that time calls once, of few items, and find no peer."""
    comparing = benchmark_named("comparing")
    for name, value in (("TURNS", 1), ("REST", 0)):
        monkeypatch.setattr(comparing, name, value)
    monkeypatch.setattr(comparing.importlib.util, "find_spec", lambda name: None)

    def import_small(name):
        module = benchmark_named(name)
        monkeypatch.setattr(module, "SCALE", 1000)
        return module, comparing.Table()

    return import_small


def rows_of(capsys):
    return [line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()]


def test_the_benchmark_of_search_runs_at_toy_size(in_a_hurry, capsys):
    search, table = in_a_hurry("search")
    for case in (search.overhead, search.threads, search.options):
        case(table)
    assert len(rows_of(capsys)) == 1 + 2 + 2


def test_the_benchmark_of_radii_runs_at_toy_size(in_a_hurry, capsys):
    radius, table = in_a_hurry("radius")
    for case in (radius.small, radius.scan, radius.short_codes, radius.growth, radius.in_jit):
        case(table)
    assert len(rows_of(capsys)) == 1 + 1 + 4 + 6 + 2


def test_tables_are_waited_for_until_they_are_there(in_a_hurry, monkeypatch):
    radius, _ = in_a_hurry("radius")
    case = radius.Case(*radius.uniform(30_000, 256, 24))
    calls = radius.calls_until_tables(case, 256)
    index = radius.fresh(case.index)
    for _ in range(calls):
        assert not jh.describe(index).tables
        jh.radius_search(index, case.queries, radius=2)
    assert jh.describe(index).tables
    monkeypatch.setattr(radius, "CALLS", calls - 1)
    assert radius.calls_until_tables(case, 256) == f"> {calls - 1}"


def test_a_row_compares_ours_with_a_peer(in_a_hurry, benchmark_named, capsys):
    table = benchmark_named("comparing").Table()
    table.head()
    table.compare("a row", lambda: time.sleep(0.001), lambda: time.sleep(0.05), 2, "mark")
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["case:", "peer", "ours", "peer", "ratio", "mark", "first", "s"]
    ours, theirs, ratio, mark, _ = row.removeprefix("a row").split()
    assert (float(ours) < float(theirs), float(ratio) > 1, mark) == (True, True, "mark")
