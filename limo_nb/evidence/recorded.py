"""What a recorded run of a real model came to, drawn beside the live miniature.

In: a `core.recorded_runs.RecordedRun`. Out: the figures and tables of chapters 1, 2, 4, 5, 6,
8 and 10, each with a title that says that it is recorded and, below it, what ran, where and
how it is made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from limo_nb import chains, evaluation
from limo_nb.book import funnel_report, plots, sft_report
from limo_nb.book.templates import macros
from limo_nb.core.recorded_runs import RecordedRun
from limo_nb.core.records import load_table
from limo_nb.evidence.judging import measured_told
from limo_nb.evidence.rules import load_ledger
from limo_nb.experiments.headline import trained
from limo_nb.experiments.variants import HEADLINE

TEMPLATE = "evidence/recorded.jinja"
REAL = "small"  # the record that the chapters show, and the profile it is of
SIDES = ("in domain", "out of domain")
MEASURED = ("score", "tokens", "steps", "checks", "backtracks", "repetition", "after_answer")
Drawn = tuple[Figure, str]  # a picture, and what it shows in a sentence


class RecordedResults:
    """The pictures and tables of the record `name`; by default that of a real model."""

    def __init__(self, name: str = REAL, root: Path | None = None) -> None:
        """Raises FileNotFoundError where the book at `root` has no such record."""
        self.record = RecordedRun(name, root)

    def show(self, drawn: Drawn) -> None:
        """Put a picture of `record` into the page, and below it where its numbers come from."""
        from IPython.display import display

        figure, said = drawn
        picture, told = plots.figure_html(figure, said), self.source()
        html = str(macros(TEMPLATE).recorded(picture, told, self.record.facts["command"]))
        display({"text/html": html, "text/plain": f"{said} ({told})"}, raw=True)

    def source(self) -> str:
        """What ran, where, when and for how long, without its command."""
        facts = self.record.facts
        models = facts["profile"]["models"]
        named = f"{_short(models['base'])} (base), {_short(models['strong'])} (teacher)"
        return (
            f"{named}; {facts['hours']:.1f} hours on {facts['hardware']}, "
            f"{facts['finished'][:10]}, commit {facts['commit']}"
        )

    def elicited(self) -> Drawn:
        """Chapter 2: the lab's problems in a chat and as textbook pages."""
        rows = self.record.load("elicitation").json("table.json")
        wanted = [row for row in rows if row["group"] == "many steps"]
        drawn = [plots.point(row["model"], row, row["format"]) for row in wanted]
        told = "; ".join(f"{r['label']}, {r['group']} {r['value']:.0f} %" for r in drawn)
        finding = f"the lab's problems of five to eight steps: {told}"
        return plots.points(drawn, _title(finding)), finding

    def funnel(self) -> Drawn:
        """Chapter 4: how many problems each stage left."""
        path = funnel_report.path_of(self.record, self.record.facts["profile"]["pool"]["size"])
        finding = f"{path[-1][1]} of {path[0][1]:,} problems became training rows"
        return plots.funnel(path, _title(finding)), "; ".join(f"{n}: {c:,}" for n, c in path)

    def measures(self) -> pd.DataFrame:
        """Chapter 5: what the teacher's right chains are like, all and the chosen ones."""
        found = load_table(self.record.load("chains"), "chains")
        kinds = {
            "all right chains": found,
            "best of each question": chains.best_per_question(found),
        }
        tables = {name: rows.to_pandas()[list(MEASURED)] for name, rows in kinds.items()}
        return pd.DataFrame({name: own.mean() for name, own in tables.items()}).round(2)

    def losses(self) -> Drawn:
        """Chapter 6: the loss of every arm."""
        done, series = sft_report.loss_curves(self._logs())
        finding = "first and last losses: " + ", ".join(
            f"{arm} {points[0][0]:.2f} to {points[-1][0]:.2f}" for arm, points in series.items()
        )
        axes = ("share of training done (%)", "loss (nats per token)")
        return plots.lines(done, series, _title(finding), *axes), finding

    def training(self) -> pd.DataFrame:
        """Chapter 6: what training took, a row an arm."""
        return sft_report.over_seeds(self._folders())

    def _folders(self) -> dict[tuple[str, int], Any]:
        seeds = self.record.facts["profile"]["sft"]["seeds"]
        return {(arm, n): trained(self.record, arm, n) for arm in HEADLINE for n in seeds}

    def _logs(self) -> dict[tuple[str, int], list[sft_report.LogRow]]:
        return {key: sft_report.log_of(folder) for key, folder in self._folders().items()}

    def accuracies(self) -> Drawn:
        """Chapters 1, 8: every model, in and out of domain."""
        table = self.record.load("evaluation").json("table.json")
        known = {(row["model"], row["group"]): row for row in table}
        names = list(dict.fromkeys(row["model"] for row in table))
        drawn = [plots.point(name, known[name, side], side) for name in names for side in SIDES]
        base, limo = (
            [100 * known[name, side]["accuracy"] for side in SIDES] for name in ("base", "limo")
        )
        finding = (
            f"limo has {limo[0]:.0f} % in domain where base has {base[0]:.0f} %, "
            f"and {limo[1]:.0f} % out of domain where base has {base[1]:.0f} %"
        )
        told = "; ".join(f"{r['label']} {r['group']} {r['value']:.0f} %" for r in drawn)
        return plots.points(drawn, _title(finding)), f"{finding}. {told}"

    def differences(self) -> pd.DataFrame:
        """Chapter 8: the paired differences in points, with their 95 % intervals."""
        gaps = self.record.load("evaluation").json("differences.json")
        rows: dict[str, dict[str, Any]] = {}
        for gap in gaps:
            if gap["group"] in (*SIDES, "all"):
                row = rows.setdefault(f"{gap['model']} − {gap['against']}", {})
                row[gap["group"]] = evaluation.told(gap, True)
                row["items"] = max(gap["items"], row.get("items", 0))
        return pd.DataFrame(rows).T[[*SIDES, "all", "items"]]

    def benchmarks(self) -> pd.DataFrame:
        """Chapter 8: every model on every benchmark, with what was cut off at the limit."""
        rows: dict[str, dict[str, str]] = {}
        for row in self.record.load("evaluation").json("table.json"):
            if row["group"] not in (*SIDES, "all"):
                rows.setdefault(row["model"], {})[row["group"]] = evaluation.told(row)
            elif row["group"] == "all":
                cut = f"{100 * evaluation.cut_share(row):.0f}"
                rows.setdefault(row["model"], {})["cut off (%)"] = cut
        return pd.DataFrame(rows).T

    def verdicts(self, rows: list[Mapping[str, Any]]) -> pd.DataFrame:
        """Chapter 10: the claims about `record`, what was predicted, measured and decided."""
        own = {claim.id: claim for claim in load_ledger() if claim.record == self.record.name}
        told = {
            row["title"]: {
                "predicted": own[row["id"]].prediction,
                "measured": "; ".join(measured_told(row)) or "–",
                "verdict": row["verdict"],
                "prediction": {True: "held", False: "failed", None: "–"}[row["held"]],
            }
            for row in rows if row["id"] in own
        }  # fmt: skip
        return pd.DataFrame(told).T


def _short(model: str) -> str:
    """The last part of a model's name, without the ending of its file."""
    return model.rpartition("#")[2].rpartition("/")[2].removesuffix(".gguf")


def _title(finding: str) -> str:
    return f"Recorded: {finding}"
