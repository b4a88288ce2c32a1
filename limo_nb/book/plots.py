"""The book's figures: one style, colours for every kind of sight, text for no sight.

Every function returns a matplotlib Figure (without pyplot, so nothing is drawn twice and
nothing leaks); `show` puts it into the page with its alt text. Titles say the finding.
Colours are those of Okabe and Ito; groups differ in marker or dash as well. The ground is
opaque and light, so that a figure stays readable on a dark page.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from html import escape
from typing import Any, NotRequired, TypedDict

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from limo_nb.evaluation import Estimate, percent

INK, PALE = "#262626", "#8a8a8a"
BLUE, ORANGE, GREEN, PINK, RED, SKY, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442",
)  # fmt: skip
# Yellow is left out: too faint as a line on a light ground.
COLOURS = (BLUE, RED, GREEN, PINK, ORANGE, SKY, INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
GROUND = "#fcfcfa"
STYLE: Any = {  # matplotlib types its settings one by one
    "figure.facecolor": GROUND, "axes.facecolor": GROUND, "savefig.facecolor": GROUND,
    "font.size": 10.5, "axes.titlesize": 12, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlepad": 12, "axes.labelcolor": INK,
    "axes.edgecolor": PALE, "xtick.color": INK, "ytick.color": INK, "text.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": "#e2e2dd", "grid.linewidth": 0.8,
    "legend.frameon": False, "text.parse_math": False, "figure.dpi": 100,
    "figure.constrained_layout.use": True, "figure.constrained_layout.w_pad": 0.1,
    "lines.linewidth": 1.8,
}  # fmt: skip
WIDTH = 7.2  # inches
LEGEND, MARK = 84, 6  # letters that a line of a legend holds; a mark is as wide as so many
PAPER = "the paper's figure (32B model, other benchmarks)"

DIFFERENCE = "difference (points)"  # as the label of an axis: it shows where zero is

Interval = tuple[float, float, float]  # value, low, high


class PointRow(TypedDict):
    """A value with its interval, in percent or in points, for `points`."""

    label: str  # its place on the vertical axis
    value: float
    low: float
    high: float
    group: NotRequired[str]  # its colour and marker
    paper: NotRequired[float | None]  # the paper's figure beside it


class HeatRow(TypedDict):
    """A cell of `heat`, in percent."""

    family: str  # its row
    level: int | str  # its column
    value: float


# ---------------------------------------------------------------- showing
def show(fig: Figure, alt: str) -> None:
    """Put a figure into the notebook, and into the rendered page, with its alt text.

    MyST-NB takes the alt text of an image from metadata of the *cell* only, where a
    measured number cannot stand; an HTML output carries it with the picture. The alt text
    is the plain-text form too.
    """
    from IPython.display import display

    display({"text/html": figure_html(fig, alt), "text/plain": alt}, raw=True)


def figure_html(fig: Figure, alt: str) -> str:
    """An `<img>` with the figure inside; raises ValueError without an alt text."""
    if not alt.strip():
        raise ValueError("a figure needs an alt text: say what it shows, in a sentence or two")
    data = base64.b64encode(to_png(fig)).decode()
    width = int(fig.get_figwidth() * 100)
    # "dark-light" tells the site's theme not to dim a picture that has its own ground.
    return (
        f'<img class="dark-light limo-figure" alt="{escape(alt)}" width="{width}" '
        'style="max-width:100%;height:auto;padding:0;border-radius:4px" '
        f'src="data:image/png;base64,{data}">'
    )


def to_png(fig: Figure, dpi: int = 180) -> bytes:
    """The figure as PNG bytes; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


# ---------------------------------------------------------------- helpers
def _styled(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a figure function in the book's style, leaving the reader's untouched."""

    @wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Figure:
        with mpl.rc_context(STYLE):
            return function(*args, **kwargs)

    return inner


def _axes(height: float, title: str, xlabel: str = "", ylabel: str = "") -> tuple[Figure, Axes]:
    fig = Figure(figsize=(WIDTH, height))
    ax = fig.add_subplot()
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    retitled(fig, title)
    return fig, ax


def retitled(fig: Figure, title: str) -> None:
    """Give a figure its title: it starts at the figure's edge, whatever the labels' width."""
    size = STYLE["axes.titlesize"]
    fig.suptitle(_balanced(title, 68), x=0.012, ha="left", weight="bold", size=size)


def _balanced(text: str, width: int) -> str:
    """`text` in as few lines as `width` allows, of about equal length."""
    text = text.replace(" %", "\N{NO-BREAK SPACE}%")  # a number keeps its unit
    count = len(textwrap.wrap(text, width))
    while count > 1 and len(textwrap.wrap(text, width - 1)) == count:
        width -= 1
    return textwrap.fill(text, width)


def _need(values: Any, what: str) -> None:
    if not len(values):
        raise ValueError(f"no {what} to draw")


def row(
    label: str, estimate: Estimate, group: str = "", paper: float | None = None
) -> PointRow:
    """A row for `points` from an Estimate (fractions); `paper` is in percent already."""
    value, low, high = percent(estimate)
    return PointRow(label=label, group=group, value=value, low=low, high=high, paper=paper)


def point(
    label: str, row: Mapping[str, Any], group: str = "", paper: float | None = None
) -> PointRow:
    """A row for `points` from a row of `evaluation.table` (fractions)."""
    value, low, high = (100 * row[name] for name in ("accuracy", "low", "high"))
    return PointRow(label=label, group=group, value=value, low=low, high=high, paper=paper)


def _whole() -> MaxNLocator:
    """Ticks at round whole numbers."""
    return MaxNLocator(integer=True, steps=[1, 2, 5, 10])


def _groups(values: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every group, in order of appearance."""
    names = list(dict.fromkeys(values))
    if len(names) > len(COLOURS):
        raise ValueError(
            f"{len(names)} groups, but only {len(COLOURS)} colours can be told apart"
        )
    return {name: (COLOURS[i], MARKERS[i]) for i, name in enumerate(names)}


def _bottom_legend(fig: Figure, ax: Axes, least: int = 2) -> None:
    """A legend below the axes, if it has something to tell."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) >= least:
        if PAPER in labels:  # matplotlib lists lines before error bars: ours come first
            place = labels.index(PAPER)
            handles.append(handles.pop(place))
            labels.append(labels.pop(place))
        # Columns are as wide as the longest label, its mark included.
        widest = max(map(len, labels)) + MARK
        columns = max(1, min(4, len(labels), LEGEND // widest))
        fig.legend(handles, labels, loc="outside lower center", ncols=columns)


# ---------------------------------------------------------------- chapters 3 and 4
@_styled
def funnel(stages: Sequence[tuple[str, int]], title: str, unit: str = "problems") -> Figure:
    """How many are left after each stage, with the share of the stage before."""
    _need(stages, "stages")
    fig, ax = _axes(0.9 + 0.52 * len(stages), title)
    labels, counts = zip(*stages, strict=True)
    places = np.arange(len(stages))
    shades = [BLUE] * (len(stages) - 1) + [GREEN]
    ax.barh(places, counts, color=shades, height=0.66)
    for place, count in enumerate(counts):
        note = _funnel_note(counts, place, unit)
        ax.text(count, place, f"  {count:,}{note}", va="center", size=9.5)
    ax.set_yticks(places, [textwrap.fill(label, 26) for label in labels])
    ax.set_xlim(0, max(*counts, 1) * 1.02)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return fig


def _funnel_note(counts: Sequence[int], place: int, unit: str) -> str:
    """What stands after a count; the second one says what all percentages are of."""
    if not place:
        return f" {unit}"
    if not counts[place - 1]:
        return ""
    share = f"{100 * counts[place] / counts[place - 1]:.3g} %"
    return f"  ({share} of the stage before)" if place == 1 else f"  ({share})"


@_styled
def rates(counts: Any, title: str, keep: tuple[int, int] | None = None) -> Figure:
    """How many questions were solved how often; the kept band is coloured.

    `counts` is the table of `selection.solve_counts`.
    """
    _need(counts, "counts")
    n = max(counts["n"])
    solved = np.bincount(np.asarray(counts["correct"]), minlength=n + 1)
    fig, ax = _axes(3.4, title, f"correct attempts of {n}", "questions")
    places = np.arange(n + 1)
    inside = (places >= keep[0]) & (places <= keep[1]) if keep else np.ones(n + 1, bool)
    for mask, colour, hatch, label in (
        (inside, GREEN, "", "kept"), (~inside, PALE, "//", "dropped"),
    ):  # fmt: skip
        ax.bar(
            places[mask], solved[mask], color=colour, hatch=hatch, edgecolor=GROUND,
            label=f"{label}: {solved[mask].sum():,}",
        )  # fmt: skip
    for place in places[solved > 0] if n <= 16 else ():
        ax.annotate(
            f"{solved[place]:,}", (place, solved[place]), ha="center", va="bottom", size=9
        )
    ax.xaxis.set_major_locator(_whole())
    ax.yaxis.set_major_locator(_whole())
    ax.grid(visible=False, axis="x")
    if keep:
        ax.legend(loc="upper right")
    return fig


# ---------------------------------------------------------------- distributions
@_styled
def histogram(
    values: Sequence[float] | Mapping[str, Sequence[float]],
    title: str,
    xlabel: str,
    ylabel: str = "count",
    bins: int = 24,
) -> Figure:
    """The distribution of one list of values, or of several that share their bins."""
    groups = values if isinstance(values, Mapping) else {"": values}
    _need(groups, "values")
    for name, group in groups.items():
        _need(group, f"values of {name!r}" if name else "values")
    together = np.concatenate([np.asarray(group, float) for group in groups.values()])
    edges = np.histogram_bin_edges(together, bins)
    fig, ax = _axes(3.4, title, xlabel, ylabel)
    _steps(ax, groups, edges)
    ax.yaxis.set_major_locator(_whole())
    _bottom_legend(fig, ax, least=1)
    return fig


def _steps(
    ax: Axes, groups: Mapping[str, Sequence[float] | np.ndarray], edges: np.ndarray
) -> None:
    """Outlined, lightly filled histograms with a line at each median."""
    looks = _groups(groups)
    for i, (name, group) in enumerate(groups.items()):
        colour, _ = looks[name]
        heights, _ = np.histogram(group, edges)
        used = np.flatnonzero(heights)
        ends = slice(used[0], used[-1] + 1)  # no line along zero beside the values
        shape = (heights[ends], edges[used[0] : used[-1] + 2])
        ax.stairs(*shape, fill=True, color=colour, alpha=0.25 if len(groups) > 1 else 0.6)
        median = f"median {np.median(group):.3g}"
        label = f"{name} ({median})" if name else median
        ax.stairs(*shape, color=colour, linewidth=1.8, linestyle=DASHES[i], label=label)
        ax.axvline(np.median(group), color=colour, linewidth=1.2, linestyle=DASHES[i])


@_styled
def lengths(
    before: Sequence[float],
    after: Sequence[float],
    title: str,
    labels: tuple[str, str] = ("before", "after"),
    xlabel: str = "length of the answer (tokens, log scale)",
) -> Figure:
    """Lengths of answers before and after, on one logarithmic axis with medians."""
    groups = dict(zip(labels, (before, after), strict=True))
    for name, group in groups.items():
        _need(group, f"lengths of {name!r}")
    together = np.maximum(np.concatenate([np.asarray(g, float) for g in groups.values()]), 1)
    low, high = together.min(), max(together.max(), together.min() * 2)
    # Lengths are whole numbers: an edge between two of them keeps bins from being empty.
    edges = np.unique(np.round(np.geomspace(low, high + 1, 20))) - 0.5
    edges = np.append(edges, high + 0.5) if edges[-1] < high else edges
    fig, ax = _axes(3.4, title, xlabel, "answers")
    _steps(ax, {name: np.maximum(group, 1) for name, group in groups.items()}, edges)
    ax.set_xscale("log")
    _plain_log(ax, low, high)
    ax.yaxis.set_major_locator(_whole())
    _bottom_legend(fig, ax)
    return fig


def _plain_log(ax: Axes, low: float, high: float) -> None:
    """Ticks such as 5, 10, 20, 50 on a logarithmic x axis, written as plain numbers."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = [t * d for d in decades for t in (1, 2, 5) if low * 0.9 <= t * d <= high * 1.1]
    ax.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    ax.minorticks_off()


# ---------------------------------------------------------------- accuracies
@_styled
def points(
    rows: Sequence[Mapping[str, Any]], title: str, xlabel: str = "accuracy (%)"
) -> Figure:
    """Accuracies with their intervals, one line per label, one colour per group.

    Rows have label, value, low, high in percent, and may have group and paper (the
    paper's figure, drawn as an open diamond). See `row` and `point`. The axis is that of
    percentages, or with `DIFFERENCE` as its label that of points around zero.
    """
    _need(rows, "rows")
    labels = list(dict.fromkeys(r["label"] for r in rows))
    looks = _groups(r.get("group") or "" for r in rows)
    fig, ax = _axes(1.5 + len(labels) * max(0.36, 0.2 * len(looks)), title, xlabel)
    offsets = np.linspace(-0.26, 0.26, len(looks)) if len(looks) > 1 else [0.0]
    for offset, (group, (colour, marker)) in zip(offsets, looks.items(), strict=True):
        mine = [r for r in rows if (r.get("group") or "") == group]
        places = [labels.index(r["label"]) + offset for r in mine]
        _intervals(ax, mine, places, colour, marker, group)
    _paper_marks(ax, rows, labels)
    ax.set_yticks(range(len(labels)), [textwrap.fill(label, 34) for label in labels])
    ax.set_ylim(len(labels) - 0.4, -0.6)
    if xlabel == DIFFERENCE:
        ax.axvline(0, color=INK, linewidth=1.2)
    else:
        ax.set_xlim(-2, 102)
    ax.tick_params(axis="y", length=0)
    _bottom_legend(fig, ax, least=2 if any(r.get("paper") is None for r in rows) else 1)
    return fig


def _intervals(
    ax: Axes,
    rows: Sequence[Mapping],
    places: Sequence[float],
    colour: str,
    marker: str,
    label: str,
) -> None:
    value, low, high = (
        np.array([r[name] for r in rows], float) for name in ("value", "low", "high")
    )
    errors = np.maximum(np.stack([value - low, high - value]), 0)
    ax.errorbar(
        value, places, xerr=errors, fmt=marker, color=colour, markersize=6.5,
        elinewidth=1.8, capsize=3, label=label or "measured here",
    )  # fmt: skip


def _paper_marks(ax: Axes, rows: Sequence[Mapping], labels: list[str]) -> None:
    known = [r for r in rows if r.get("paper") is not None]
    if known:
        ax.plot(
            [r["paper"] for r in known], [labels.index(r["label"]) for r in known], "D",
            color=INK, markerfacecolor="none", markersize=7, linestyle="none",
            label=PAPER,
        )  # fmt: skip


@_styled
def lines(
    x: Sequence[float],
    series: Mapping[str, Sequence[float | Interval]],
    title: str,
    xlabel: str,
    ylabel: str = "accuracy (%)",
    log: bool = False,
) -> Figure:
    """Series over `x`; a point may be a number or (value, low, high), drawn as a band.

    `log` spreads x logarithmically, for numbers of rows or samples.
    """
    _need(series, "series")
    looks = _groups(series)
    fig, ax = _axes(3.8, title, xlabel, ylabel)
    for i, (name, values) in enumerate(series.items()):
        if len(values) != len(x):
            raise ValueError(f"{name!r} has {len(values)} points for {len(x)} places")
        colour, marker = looks[name]
        table = np.array([v if isinstance(v, Sequence) else (v, v, v) for v in values], float)
        ax.fill_between(x, table[:, 1], table[:, 2], color=colour, alpha=0.16, linewidth=0)
        if len(x) > 25:  # a curve, not measurements
            marker = ""
        ax.plot(x, table[:, 0], color=colour, marker=marker, linestyle=DASHES[i], label=name)
    if log:
        ax.set_xscale("log")
    if len(x) <= 25:  # a curve has too many places to name each
        ax.set_xticks(list(x), [f"{value:,g}" for value in x])
    ax.minorticks_off()
    _bottom_legend(fig, ax)
    return fig


# ---------------------------------------------------------------- training
@_styled
def losses(
    logs: Mapping[str, Sequence[Mapping[str, Any]]],
    title: str,
    xlabel: str = "optimiser step",
    ylabel: str = "loss (nats per token)",
) -> Figure:
    """Training losses; `logs` maps a label to rows with `step` and `loss`.

    Raw values are faint, a running mean over a twentieth of the run is strong. The axis is
    logarithmic where the losses span more than a factor of ten.
    """
    _need(logs, "logs")
    looks = _groups(logs)
    fig, ax = _axes(3.6, title, xlabel, ylabel)
    for i, (name, log) in enumerate(logs.items()):
        table = np.array(
            [(r["step"], r["loss"]) for r in log if r.get("loss") is not None], float
        )
        _need(table, f"losses of {name!r}")
        colour, _ = looks[name]
        ax.plot(*table.T, color=colour, alpha=0.25, linewidth=1)
        smooth = _running_mean(table[:, 1], max(1, len(table) // 20))
        ax.plot(table[:, 0], smooth, color=colour, linestyle=DASHES[i], label=name)
    shown = np.concatenate([line.get_ydata() for line in ax.lines])
    if shown.min() > 0 and shown.max() > 10 * shown.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(_whole())
    _bottom_legend(fig, ax)
    return fig


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of each value and the `width` - 1 before it (fewer at the start)."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


# ---------------------------------------------------------------- tables as pictures
@_styled
def heat(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    xlabel: str = "level (steps of the problem)",
    legend: str = "accuracy (%)",
) -> Figure:
    """Values in percent by family and level, written into the cells; gaps stay empty.

    Rows have family, level, value. Levels that are names keep their order.
    """
    _need(rows, "rows")
    families = list(dict.fromkeys(r["family"] for r in rows))
    steps = list(dict.fromkeys(r["level"] for r in rows))
    if not any(isinstance(step, str) for step in steps):
        steps.sort()
    table = np.full((len(families), len(steps)), np.nan)
    for r in rows:
        table[families.index(r["family"]), steps.index(r["level"])] = r["value"]
    fig, ax = _axes(1.3 + 0.36 * len(families), title, xlabel)
    image = ax.imshow(table, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (y, x), value in np.ndenumerate(table):
        if np.isfinite(value):
            shade = INK if value > 55 else "white"
            ax.text(x, y, f"{value:.0f}", ha="center", va="center", color=shade, size=9.5)
    ax.set_xticks(range(len(steps)), steps)
    ax.set_yticks(range(len(families)), families)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    fig.colorbar(image, ax=ax, label=legend, shrink=0.9, pad=0.02)
    return fig


# ---------------------------------------------------------------- chapter 6
HATCHES = ("", "//", "..", "xx", "\\\\", "--", "++")


@_styled
def stacked(
    bars: Sequence[tuple[str, Mapping[str, float]]],
    title: str,
    xlabel: str,
    limit: tuple[float, str] | None = None,
) -> Figure:
    """Bars from left to right, each of the same parts; `limit` is a line and its label."""
    _need(bars, "bars")
    fig, ax = _axes(1.5 + 0.4 * len(bars), title, xlabel)
    places, left = np.arange(len(bars))[::-1], np.zeros(len(bars))
    for number, part in enumerate(bars[0][1]):
        values = np.array([parts[part] for _, parts in bars])
        if not values.any():  # the legend names what is seen
            continue
        ax.barh(
            places, values, left=left, height=0.7, label=part, edgecolor=GROUND,
            color=COLOURS[number % len(COLOURS)], hatch=HATCHES[number % len(HATCHES)],
        )  # fmt: skip
        left += values
    if limit:
        ax.axvline(limit[0], color=INK, linestyle="--", label=limit[1])
    ax.set_yticks(places, [name for name, _ in bars])
    ax.grid(visible=False, axis="y")
    _bottom_legend(fig, ax)
    return fig
