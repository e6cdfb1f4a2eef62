import io
import runpy
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.image import imread

import jaxhash as jh
from jaxhash import plots

IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3) * 4


def index_of(*codes):
    """An index of 8-bit codes, given as integers."""
    return jh.build_index(np.array(codes, np.uint32).reshape(-1, 1) << 24, 8)


ARGUMENTS = {
    "reconstructions": ((IMAGES, IMAGES / 255), {}),
    "search_results": (
        (IMAGES[:2], IMAGES, [[1, 2], [0, -1]], [[0, 3], [2, 9]]),
        {"query_labels": [1, 1], "labels": [0, 1, 2, 3, 4]},
    ),
    "training_curve": ((jh.training.History((0.3, 0.2, 0.1)),), {}),
    "bucket_histogram": ((index_of(1, 1, 2),), {}),
    "matches_by_radius": (((0, 1), (0.5, 4.0), (1.5, 9.0)), {}),
}
every_function = pytest.mark.parametrize("name", ARGUMENTS)


def grid(figure):
    """The axes of a figure of images, row by row."""
    places = {}
    for axes in figure.axes:
        spec = axes.get_subplotspec()
        places[spec.rowspan.start, spec.colspan.start] = axes
    rows, columns = (max(place[axis] for place in places) + 1 for axis in (0, 1))
    assert len(places) == len(figure.axes) == rows * columns
    return [[places[row, column] for column in range(columns)] for row in range(rows)]


def image_in(axes):
    (shown,) = axes.get_images()
    return np.asarray(shown.get_array())


def title_color(axes):
    return axes.title.get_color()


def pixels(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return imread(io.BytesIO(buffer.getvalue()))


def ink(figure):
    """Where a drawn figure is not white."""
    return (pixels(figure)[..., :3] < 1).any(-1)


def test_every_plot_has_a_case():
    public = {name for name in vars(plots) if callable(getattr(plots, name)) and not name.startswith("_")}
    assert {name for name in public if getattr(plots, name).__module__ == plots.__name__} == ARGUMENTS.keys()


@every_function
def test_every_plot_gives_a_figure_that_is_not_blank(name):
    arguments, options = ARGUMENTS[name]
    figure = getattr(plots, name)(*arguments, **options)
    assert isinstance(figure, Figure)
    assert ink(figure).any()


@every_function
def test_every_plot_leaves_no_figure_open(name):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    arguments, options = ARGUMENTS[name]
    getattr(plots, name)(*arguments, **options)
    assert pyplot.get_fignums() == before


def test_figures_work_without_pyplot(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError):
        import matplotlib.pyplot  # noqa: F401
    fresh = runpy.run_path(plots.__file__)
    for name, (arguments, options) in ARGUMENTS.items():
        assert ink(fresh[name](*arguments, **options)).any()


def test_reconstructions_stand_below_their_images():
    decoded = 1 - IMAGES / 255
    above, below = grid(plots.reconstructions(IMAGES, decoded))
    assert len(above) == len(below) == len(IMAGES)
    for column in range(len(IMAGES)):
        np.testing.assert_array_equal(image_in(above[column]), IMAGES[column])
        np.testing.assert_array_equal(image_in(below[column]), decoded[column])


def test_reconstructions_name_both_rows():
    above, below = grid(plots.reconstructions(IMAGES, IMAGES))
    assert above[0].get_ylabel()
    assert below[0].get_ylabel()
    assert above[0].get_ylabel() != below[0].get_ylabel()


def test_one_image_can_be_reconstructed_alone():
    above, below = grid(plots.reconstructions(IMAGES[:1], jnp.asarray(IMAGES[:1])))
    assert len(above) == len(below) == 1


@pytest.mark.parametrize(("count", "decoded"), [(3, 2), (2, 3)])
def test_reconstructions_of_another_number_are_refused(count, decoded):
    with pytest.raises(ValueError, match=r"shorter|longer"):
        plots.reconstructions(IMAGES[:count], IMAGES[:decoded])


def test_bright_values_are_drawn_as_ink_on_white():
    image = np.zeros((1, 2, 2), np.uint8)
    image[0, 0, 0] = 255
    axes = plots.reconstructions(image, image).axes[0]
    (shown,) = axes.get_images()
    colors = shown.to_rgba(shown.get_array())[..., :3]
    assert (colors[0, 0] == 0).all()
    assert (colors[1, 1] == 1).all()


def test_each_query_stands_before_its_neighbors():
    ids = np.array([[4, 0, 2], [1, 3, 0]])
    rows = grid(plots.search_results(IMAGES[3:], IMAGES, ids, np.zeros((2, 3), int)))
    assert [len(row) for row in rows] == [4, 4]
    for row, (query, *neighbors) in enumerate(rows):
        np.testing.assert_array_equal(image_in(query), IMAGES[3 + row])
        for axes, found in zip(neighbors, ids[row], strict=True):
            np.testing.assert_array_equal(image_in(axes), IMAGES[found])


def test_neighbors_are_titled_with_their_distances():
    rows = grid(plots.search_results(IMAGES[:2], IMAGES, [[4, 0], [1, 3]], [[0, 11], [2, 5]]))
    assert [[axes.get_title() for axes in row[1:]] for row in rows] == [["0", "11"], ["2", "5"]]
    assert [row[0].get_title() for row in rows] == ["query", "query"]


def test_only_neighbors_of_another_label_are_red():
    labels = np.array([0, 1, 1, 2, 0])
    ids = np.array([[0, 1, 4], [1, 2, 3]])
    wrong = [[False, True, False], [False, False, True]]
    rows = grid(plots.search_results(IMAGES[:2], IMAGES, ids, ids, query_labels=[0, 1], labels=labels))
    assert [[same_color(title_color(axes), plots.WRONG) for axes in row[1:]] for row in rows] == wrong
    edges = [[{spine.get_edgecolor() for spine in axes.spines.values()} for axes in row[1:]] for row in rows]
    assert [[any(same_color(c, plots.WRONG) for c in colors) for colors in row] for row in edges] == wrong
    assert not any(same_color(title_color(row[0]), plots.WRONG) for row in rows)
    red, green, blue, _ = np.moveaxis(pixels(rows[0][0].figure), -1, 0)
    assert ((red > 0.6) & (green < 0.4) & (blue < 0.4)).any()


@pytest.mark.parametrize("known", [{}, {"labels": [0, 1, 2, 3, 4]}, {"query_labels": [3]}])
def test_nothing_is_red_where_labels_are_not_known(known):
    (row,) = grid(plots.search_results(IMAGES[:1], IMAGES, [[0, 1, 2]], [[0, 1, 2]], **known))
    assert not any(same_color(title_color(axes), plots.WRONG) for axes in row)


def test_places_without_an_item_stay_empty():
    ids = [[2, -1, -1], [-1, -1, -1], [0, 1, -1]]
    distances = np.where(np.array(ids) < 0, 2**31 - 1, 1)
    labels = [0, 1, 2, 3, 4]
    figure = plots.search_results(IMAGES[:3], IMAGES, ids, distances, query_labels=[0, 1, 2], labels=labels)
    rows = grid(figure)
    assert [[len(axes.get_images()) for axes in row] for row in rows] == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]
    for row, found in zip(rows, ids, strict=True):
        for axes, place in zip(row[1:], found, strict=True):
            assert axes.axison == (place >= 0)
            assert bool(axes.get_title()) == (place >= 0)
    assert sum(len(axes.get_images()) for axes in figure.axes) == 6


def test_jax_arrays_are_shown_as_they_come_from_a_search():
    ids, distances = jnp.array([[2, 0, -1]], jnp.int32), jnp.array([[1, 7, 2**31 - 1]], jnp.int32)
    (row,) = grid(plots.search_results(jnp.asarray(IMAGES[:1]), jnp.asarray(IMAGES), ids, distances))
    assert [axes.get_title() for axes in row] == ["query", "1", "7", ""]
    np.testing.assert_array_equal(image_in(row[1]), IMAGES[2])


def test_the_training_curve_begins_with_epoch_1():
    (axes,) = plots.training_curve(jh.training.History((0.5, 0.25, 0.125))).axes
    (line,) = axes.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(line.get_ydata(), [0.5, 0.25, 0.125])
    assert axes.get_xlabel() == "epoch"
    assert "loss" in axes.get_ylabel()


def test_the_training_curve_shows_codes_and_entropy():
    history = jh.training.History((0.5, 0.25), (0.9, 1.0), (70, 90), (1, 0))
    panels = {axes.get_ylabel(): axes.get_lines()[0].get_ydata() for axes in plots.training_curve(history).axes}
    assert list(panels) == ["loss per value", "distinct codes", "entropy of a bit"]
    np.testing.assert_array_equal(panels["distinct codes"], [70, 90])
    np.testing.assert_array_equal(panels["entropy of a bit"], [0.9, 1.0])


@pytest.mark.parametrize("epochs", [1, 2, 3, 40])
def test_the_training_curve_has_whole_epochs_as_ticks(epochs):
    figure = plots.training_curve(jh.training.History(tuple(1 / epoch for epoch in range(1, epochs + 1))))
    pixels(figure)
    ticks = figure.axes[0].get_xticks()
    np.testing.assert_allclose(ticks, np.round(ticks), atol=1e-9)


def test_the_bucket_histogram_counts_codes_by_their_items():
    (axes,) = plots.bucket_histogram(index_of(7, 9, 7, 200, 7, 31, 31)).axes  # 3, 1, 1 and 2 items
    (line,) = axes.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(line.get_ydata(), [2, 1, 1])
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert "7 items" in axes.get_title()
    assert "4 codes" in axes.get_title()
    assert "8 bits" in axes.get_title()


def test_the_bucket_histogram_counts_every_item_once(rng):
    codes = rng.integers(0, 256, 1500) ** 2 // 256
    (line,) = plots.bucket_histogram(index_of(*codes)).axes[0].get_lines()
    sizes, counts = line.get_xdata(), line.get_ydata()
    assert (sizes > 0).all()
    assert (sizes * counts).sum() == len(codes)
    assert counts.sum() == len(np.unique(codes))


def test_the_bucket_histogram_of_an_empty_index_has_no_points():
    figure = plots.bucket_histogram(index_of())
    (line,) = figure.axes[0].get_lines()
    assert len(line.get_xdata()) == 0
    assert "0 items" in figure.axes[0].get_title()
    assert ink(figure).any()


def test_matches_by_radius_show_expected_and_found():
    (axes,) = plots.matches_by_radius((0, 1, 2), (0.5, 4.0, 14.5), (4.5, 37.0, 171.0)).axes
    lines = {line.get_label().split()[0]: line for line in axes.get_lines()}
    assert lines.keys() == {"expected", "found"}
    for line in lines.values():
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2])
    np.testing.assert_array_equal(lines["expected"].get_ydata(), [0.5, 4.0, 14.5])
    np.testing.assert_array_equal(lines["found"].get_ydata(), [4.5, 37.0, 171.0])
    assert axes.get_yscale() == "log"
    np.testing.assert_array_equal(axes.get_xticks(), [0, 1, 2])
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {line.get_label() for line in lines.values()}
    assert not same_color(lines["expected"].get_color(), lines["found"].get_color())


def test_a_radius_without_matches_can_be_drawn():
    assert ink(plots.matches_by_radius((0, 1), (0.1, 0.9), (0.0, 0.0))).any()
