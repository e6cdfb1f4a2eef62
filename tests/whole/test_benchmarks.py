import itertools

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


@pytest.fixture(scope="module")
def digits():
    return jh.load_dataset("digits")


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
def test_baselines_give_codes_that_use_their_bits_and_depend_on_the_seed_alone(baselines, digits, name):
    learner = getattr(baselines, name)
    codes, again = (learner(digits.train_images, 12, 3)(digits.test_images) for _ in range(2))
    np.testing.assert_array_equal(codes, again)
    stats = jh.bit_statistics(codes, 12)
    assert codes.shape == (len(digits.test_images), 1)
    assert not stats.dead_bits.size
    assert stats.num_codes > 50


def test_pixels_are_ranked_by_euclidean_distance(baselines, digits):
    from sklearn.neighbors import NearestNeighbors

    precision, ids = baselines.pixel_ranking(*digits[1:], k=5, at_once=50)
    train, test = (images.reshape(len(images), -1).astype(float) for images in (digits[1], digits[3]))
    distances, peer = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(train).kneighbors(test)
    assert jh.recall(ids, peer, np.linalg.norm(train[ids] - test[:, None], axis=2).round(6), distances.round(6)) == 1
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


def test_large_collections_on_paper(scale, capsys):
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
def test_the_benchmark_of_scale_measures_small_sizes_too(scale, capsys, monkeypatch):
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
    data = jh.Dataset("", None, np.array([0, 1, 0]), None, np.array([0, 2]))
    # Relevant in the first and the last of three places; and in none.
    assert benchmark_named("papers").average_precision(np.array([[0, 1, 2]] * 2), data) == (1 + 2 / 3) / 2 / 2


def test_the_benchmark_of_search_measures_small_sizes_and_needs_no_peer(benchmark_named, capsys, monkeypatch):
    search, comparing = benchmark_named("search"), benchmark_named("comparing")
    for name, value in (("ROUNDS", 1), ("SECONDS", 0), ("PAUSE", 0)):
        monkeypatch.setattr(comparing, name, value)
    monkeypatch.setattr(comparing.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(search, "SCALE", 2000)
    table = comparing.Table("both", {"radius 12, 500 codes of 64 bits: FAISS Flat": 7.0}, on_device=True)
    table.head()
    for case in (search.overhead, search.threads, search.radius, search.growth):
        case(table)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["case:", "peer", "ours", "peer", "ratio", "mark", "alone", "first", "s"]
    assert any("radius 12" in row and " 7.0" in row for row in rows)
    assert "8 threads over 1" in rows[2]
    assert float(rows[-1].split()[-2]) > 0


def test_the_peers_of_search_are_timed_without_ours(benchmark_named, capsys, monkeypatch):
    comparing = benchmark_named("comparing")
    monkeypatch.setattr(comparing, "ROUNDS", 1)
    table = comparing.Table("peers")
    table.head()
    table.compare("a: b", None, lambda: 1, per=2)
    table.compare("a: c", None, None)
    assert list(table.peers) == ["a: b"]
    assert not capsys.readouterr().out


@pytest.mark.slow  # measures; nothing in the package depends on it
def test_calibration_gives_a_row_for_the_table_of_costs(benchmark_named, capsys, monkeypatch):
    calibrate = benchmark_named("calibrate")
    for name, value in (("SECONDS", 0), ("QUERIES", 16), ("FAR", 24)):
        monkeypatch.setattr(calibrate, name, value)
    calibrate.main(3000)
    first, *rows, last = capsys.readouterr().out.splitlines()
    assert first.endswith(": Costs(")
    figures = dict(row.strip(" ,").split("=") for row in rows)
    assert list(figures) == list(calibrate.Costs._fields)
    assert all(float(figure) >= 0 for name, figure in figures.items() if name != "counts_in_vectors")
    assert last == "    ),"
