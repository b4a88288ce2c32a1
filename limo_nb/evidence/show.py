"""The ledger as a table and as a picture (chapters 1, 10)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from limo_nb.book import plots
from limo_nb.book.contents import chapters, find_root
from limo_nb.book.templates import macros
from limo_nb.evidence.judging import (
    CONTRADICTED,
    EQUIVALENT,
    NO_ROOM,
    REPRODUCED,
    SHOWN,
    UNDECIDED,
    UNTESTED,
    measured_told,
)
from limo_nb.evidence.rules import Claim, Condition

TEMPLATE = "evidence/show.jinja"
VERDICTS = (SHOWN, REPRODUCED, CONTRADICTED, EQUIVALENT, UNDECIDED, NO_ROOM, UNTESTED)
EXPLAINED = (CONTRADICTED, UNDECIDED, NO_ROOM, UNTESTED)  # shown with their reason
Row = Mapping[str, Any]  # of `judging.ClaimVerdict`, perhaps read from a file


def ledger_html(claims: Sequence[Claim], rows: Sequence[Row] = ()) -> str:
    """The ledger as an HTML table: rules, or what was measured where there are `rows`.

    `rows` are those of `judge`; a claim without a row is shown by its rule. A claim links to
    the section with its figure.
    """
    found = {row["id"]: row for row in rows}
    told = [
        (claim, row, [*measured_told(row), *_prediction(claim, row)] if row else _rule(claim))
        for claim in claims
        for row in [found.get(claim.id)]
    ]
    pages = {chapter.number: f"{chapter.name}.html" for chapter in chapters(find_root())}
    return str(macros(TEMPLATE).ledger(told, list(tally(rows)), EXPLAINED, pages))


def _rule(claim: Claim) -> list[str]:
    if claim.untested:
        return [f"{UNTESTED}: {claim.untested}"]
    rule = "; ".join(f"{c.value} {c.says}" for c in claim.rule)
    rule += "".join(f", given {c.value} {c.says} %" for c in claim.requires)
    return [rule, *_prediction(claim)]


def _prediction(claim: Claim, row: Row | None = None) -> list[str]:
    if not claim.prediction:
        return []
    came = {True: " As predicted.", False: " The prediction failed."}
    said = came.get(row["held"], "") if row else ""
    return [f"predicted ({claim.predicted}): {claim.prediction}{said}"]


def margins(claims: Sequence[Claim], rows: Sequence[Row], title: str) -> Figure | None:
    """Every measured difference in points, with its interval and the rule's bound.

    None where nothing was measured. `rows` are those of `judge`.
    """
    verdicts = {row["id"]: row for row in rows}
    drawn = [
        (f"{claim.title}: {condition.value}", condition, verdicts[claim.id])
        for claim in claims
        for condition in claim.rule
        if claim.values[condition.value].unit == "points"
        and verdicts[claim.id]["measured"].get(condition.value)
    ]
    if not drawn:
        return None
    with mpl.rc_context(plots.STYLE):
        fig = Figure(figsize=(plots.WIDTH, 1.6 + 0.42 * len(drawn)))
        ax = fig.add_subplot()
        for place, (_, condition, row) in enumerate(drawn):
            _margin(ax, place, condition, row)
        ax.set_yticks(range(len(drawn)), [textwrap.fill(label, 34) for label, _, _ in drawn])
        ax.set_ylim(len(drawn) - 0.4, -0.6)
        ax.axvline(0, color=plots.PALE, linewidth=1)
        ax.set_xlabel("difference (points of accuracy); the bar is the rule's bound")
        fig.suptitle(textwrap.fill(title, 66), x=0.012, ha="left", weight="bold", size=12)
        handles, labels = ax.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        fig.legend(unique.values(), unique, loc="outside lower center", ncols=3)
    return fig


LOOKS = {
    SHOWN: (plots.GREEN, "o"), REPRODUCED: (plots.BLUE, "P"), CONTRADICTED: (plots.RED, "X"),
    UNDECIDED: (plots.ORANGE, "s"), UNTESTED: (plots.PALE, "D"), NO_ROOM: (plots.PALE, "v"),
    EQUIVALENT: (plots.INK, "|"),
}  # fmt: skip


def _margin(ax: Any, place: int, condition: Condition, row: Row) -> None:
    colour, marker = LOOKS[row["verdict"]]
    numbers = row["measured"][condition.value]
    errors = [[numbers["value"] - numbers["low"]], [numbers["high"] - numbers["value"]]]
    ax.errorbar(
        numbers["value"], place, xerr=np.maximum(errors, 0), fmt=marker, color=colour,
        markersize=6.5, elinewidth=1.8, capsize=3, label=row["verdict"],
    )  # fmt: skip
    ax.plot([condition.bound] * 2, [place - 0.3, place + 0.3], color=plots.INK, linewidth=2.4)


def tally(rows: Sequence[Row]) -> dict[str, int]:
    """How many claims got each verdict; verdicts that none got are left out."""
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    return {verdict: count for verdict, count in counts.items() if count}
