"""Figures: what they show, their alt text, their errors, and no side effects."""

import base64
import io
import re

import matplotlib as mpl
import numpy as np
import pytest
from datasets import Dataset
from matplotlib.figure import Figure
from PIL import Image

from limo_nb.book import plots
from limo_nb.evaluation import Estimate

COUNTS = Dataset.from_dict({"correct": [0, 0, 1, 3, 4], "n": [4] * 5})
LOG = [{"step": i, "loss": 2.0 / (i + 1)} for i in range(40)] + [{"step": 40, "loss": None}]
ROWS = [
    {"label": "base", "group": "in domain", "value": 30, "low": 25, "high": 36, "paper": 50.0},
    {"label": "base", "group": "out of domain", "value": 20, "low": 15, "high": 26},
    {"label": "LIMO", "group": "in domain", "value": 80, "low": 74, "high": 85, "paper": 78.1},
]
STAGES = [("pool", 2000), ("kept", 500), ("none", 0), ("end", 0)]
SERIES = {"a": [(60, 55, 66), (70, 64, 75)], "b": [1, 2]}
CELLS = [
    {"family": "dial", "level": 2, "value": 90.0},
    {"family": "cups", "level": 1, "value": 12.0},
]
CALLS = {
    "funnel": lambda t: plots.funnel(STAGES, t),
    "rates": lambda t: plots.rates(COUNTS, t, keep=(1, 3)),
    "histogram": lambda t: plots.histogram([0.1, 0.4, 0.5, 0.5], t, "score"),
    "groups": lambda t: plots.histogram({"a": [1, 2, 3], "b": [5, 5]}, t, "tokens"),
    "lengths": lambda t: plots.lengths([3, 4, 4, 5], [90, 200, 260], t),
    "equal": lambda t: plots.lengths([7, 7], [7], t),
    "points": lambda t: plots.points(ROWS, t),
    "lines": lambda t: plots.lines([6, 12], SERIES, t, "rows", log=True),
    "losses": lambda t: plots.losses({"LIMO": LOG, "random": LOG}, t),
    "heat": lambda t: plots.heat(CELLS, t),
}


def texts(fig: Figure) -> list[str]:
    """Every text that a figure draws."""
    return [t.get_text() for t in fig.findobj(mpl.text.Text) if t.get_text().strip()]


@pytest.mark.parametrize("name", CALLS)
def test_figure_has_a_title_and_labelled_axes(name):
    fig = CALLS[name]("What was found, with $100 in it")
    assert isinstance(fig, Figure)
    assert "What was found, with $100 in it" in texts(fig)
    if name != "funnel":  # its bars carry their numbers
        assert fig.axes[0].get_xlabel()
    assert plots.to_png(fig, dpi=40).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", CALLS)
def test_figure_is_deterministic_and_leaves_the_style_alone(name):
    before = dict(mpl.rcParams)
    one, other = (plots.to_png(CALLS[name]("same"), dpi=40) for _ in range(2))
    assert one == other
    assert dict(mpl.rcParams) == before


def test_ground_is_opaque_and_light():
    image = Image.open(io.BytesIO(plots.to_png(CALLS["points"]("t"), dpi=40))).convert("RGBA")
    corner = image.getpixel((1, 1))
    assert corner[3] == 255 and min(corner[:3]) > 240


def test_long_titles_are_wrapped_inside_the_figure():
    fig = CALLS["points"]("A finding that needs many words " * 4)
    fig.draw_without_rendering()
    assert fig._suptitle.get_window_extent().x1 <= fig.bbox.x1


def test_funnel_names_counts_and_shares():
    found = " ".join(texts(CALLS["funnel"]("t")))
    assert "2,000 problems" in found and "500  (25 % of the stage before)" in found


def test_rates_count_questions_and_mark_the_band():
    ax = CALLS["rates"]("t").axes[0]
    assert {t.get_text() for t in ax.get_legend().get_texts()} == {"kept: 2", "dropped: 3"}
    heights = {round(p.get_x() + p.get_width() / 2): p.get_height() for p in ax.patches}
    assert heights == {0: 2, 1: 1, 2: 0, 3: 1, 4: 1}


def test_points_draw_values_intervals_and_the_paper():
    ax = CALLS["points"]("t").axes[0]
    assert [c.get_label() for c in ax.containers] == ["in domain", "out of domain"]
    line, _, bars = ax.containers[0]
    assert list(line.get_xdata()) == [30, 80]
    assert [tuple(s[:, 0]) for s in bars[0].get_segments()] == [(25, 36), (74, 85)]
    marks = [line for line in ax.lines if line.get_label() == plots.PAPER]
    assert list(marks[0].get_xdata()) == [50.0, 78.1]


def test_groups_differ_in_colour_and_in_marker():
    looks = plots._groups("abcdefg")
    assert len({c for c, _ in looks.values()}) == len({m for _, m in looks.values()}) == 7
    with pytest.raises(ValueError, match="colours"):
        plots._groups("abcdefgh")


def test_running_mean():
    assert plots._running_mean(np.array([2.0, 4.0, 6.0, 8.0]), 2).tolist() == [2, 3, 5, 7]


def test_length_bins_hold_every_answer():
    ax = plots.lengths([3, 4, 260], [1, 5, 9], "t").axes[0]
    outlines = [p for p in ax.patches if not p.get_fill()]
    assert [p.get_data().values.sum() for p in outlines] == [3, 3]


def test_estimates_become_percent():
    found = Estimate(0.5, 0.25, 0.75, 4, 1, 1, 2, 2, 0, 0, "items")
    row = plots.row("LIMO", found, "in domain", paper=78.1)
    assert (row["value"], row["low"], row["high"], row["paper"]) == (50, 25, 75, 78.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.funnel([], "t"), "no stages"),
        (lambda: plots.points([], "t"), "no rows"),
        (lambda: plots.histogram([], "t", "x"), "no values"),
        (lambda: plots.histogram({"a": []}, "t", "x"), "no values of 'a'"),
        (lambda: plots.rates(COUNTS.select([]), "t"), "no counts"),
        (lambda: plots.lengths([1], [], "t"), "no lengths of 'after'"),
        (lambda: plots.losses({"a": []}, "t"), "no losses of 'a'"),
        (lambda: plots.lines([1, 2], {"a": [1]}, "t", "x"), "1 points for 2"),
        (lambda: plots.heat([], "t"), "no rows"),
        (lambda: plots.figure_html(Figure(), "  "), "alt text"),
    ],
)
def test_errors_name_what_is_missing(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_html_carries_the_picture_and_an_escaped_alt_text():
    html = plots.figure_html(CALLS["histogram"]("t"), 'Scores < 1 & "high"')
    assert 'alt="Scores &lt; 1 &amp; &quot;high&quot;"' in html
    assert base64.b64decode(re.search(r"base64,([^\"]+)", html)[1]).startswith(b"\x89PNG")
    assert html.count("<") == 1 and "dark-light" in html


def test_show_reaches_the_rendered_page_with_its_alt_text(tmp_path):
    """The output as MyST-NB renders it: the page's `<img>` has the alt text."""
    import nbformat
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output
    from sphinx.application import Sphinx

    InteractiveShell.instance()
    try:
        with capture_output() as shown:
            plots.show(CALLS["histogram"]("t"), "Half of the scores are above 0.4.")
    finally:
        InteractiveShell.clear_instance()
    data = shown.outputs[0].data
    output = nbformat.v4.new_output("display_data", data=data)
    cell = nbformat.v4.new_code_cell("plots.show(…)", outputs=[output], execution_count=1)
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Page"), cell])
    nbformat.write(page, tmp_path / "index.ipynb")
    config = {"extensions": ["myst_nb"], "nb_execution_mode": "off", "project": "t"}
    app = Sphinx(
        tmp_path, None, tmp_path / "out", tmp_path / "doctrees", "html", config, status=None,
        warning=None,
    )  # fmt: skip
    app.build()
    assert app.statuscode == 0
    html = (tmp_path / "out" / "index.html").read_text()
    assert 'alt="Half of the scores are above 0.4."' in html
    assert data["text/plain"] == "Half of the scores are above 0.4."


def test_a_legend_of_long_labels_stays_within_its_figure():
    series = {f"a label of a series, number {n}": [1.0, 2.0] for n in range(4)}
    figure = plots.lines([1, 2], series, "Four series", "x")
    figure.canvas.draw()
    (legend,) = figure.legends
    inside = legend.get_window_extent()
    assert 0 <= inside.x0 and inside.x1 <= figure.bbox.x1
