"""The wide study in pictures: from the run at hand, or from the record of one (chapter 9).

In: the stages `study/…` and `ablations` (`experiments.study`). Out: a picture a group and a
sentence that says what it shows. A picture of the record says that it is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from limo_nb.book import plots
from limo_nb.core.recorded_runs import recorded_names
from limo_nb.core.runs import Artifact, Run
from limo_nb.evaluation import compared, relation, told
from limo_nb.evidence.recorded import RecordedResults
from limo_nb.evidence.rules import load_ledger
from limo_nb.experiments.arms import CONTRASTS
from limo_nb.experiments.doses import run_doses
from limo_nb.experiments.pipeline import LEFT_OUT
from limo_nb.experiments.study import groups_of, run_group

RECORD = "study"
WAYS = {"textbook": "known: textbook page", "chat": "before", "limo": "after limo",
        "random": "after random", "bulk": "after bulk"}  # fmt: skip
MAKE = (
    "not recorded yet (limo-nb run --profile study --until 9, then limo-nb record study "
    "--profile study)"
)

# Pictures of stages that are no group of the study.
STAGES = {"parts": "ablations", "dose": "doses"}

Rows = Mapping[tuple[str, str], Mapping[str, Any]]  # (model, group) -> a row of accuracies
Drawn = tuple[Figure, str]


class StudyResults:
    """The groups of the study: made by `run` where its profile has them, else recorded.

    Without a run they are the recorded ones.
    """

    def __init__(self, run: Run | None = None, root: Path | None = None) -> None:
        self.run = run
        self.recorded = RecordedResults(RECORD, root) if _is_recorded(root) else None

    def show(self, group: str) -> str:
        """Put the picture of `group` into the page; what it shows, in a sentence.

        Where it is neither made nor recorded, nothing is drawn and the sentence says so.
        """
        stage, live = STAGES.get(group, f"study/{group}"), self._live(group)
        if live:
            figure, said = FIGURES[group](live)
            plots.show(figure, said)
            return said
        if self.recorded is None or not self.recorded.record.has(stage):
            print(MAKE)
            return MAKE
        figure, said = FIGURES[group](self.recorded.record.load(stage))
        plots.retitled(figure, f"Recorded: {figure.get_suptitle()}")
        self.recorded.show((figure, said))
        return said

    @staticmethod
    def claims(group: str) -> list[str]:
        """The ids of the claims about what `group` records."""
        table = STAGES.get(group, f"study/{group}")
        return [
            claim.id for claim in load_ledger()
            if claim.record == RECORD and next(iter(claim.values.values())).table == table
        ]  # fmt: skip

    def _live(self, group: str) -> Artifact | None:
        """What the run at hand has of `group`, made where need be."""
        if self.run is None:
            return None
        own = self.run.profile.ablations
        if group == "dose":
            return run_doses(self.run) if own.doses else None
        if group == "parts":
            return self.run.load("ablations") if LEFT_OUT.keys() & set(own.arms) else None
        return run_group(self.run, group) if group in groups_of(self.run.profile) else None


def _is_recorded(root: Path | None) -> bool:
    return RECORD in recorded_names(root)


# ---------------------------------------------------------------- reading the tables
def _rows(stage: Artifact) -> Rows:
    return {(row["model"], row["group"]): row for row in stage.json("table.json")}


def _gaps(stage: Artifact) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The differences over all problems."""
    rows = stage.json("differences.json")
    return {(r["model"], r["against"]): r for r in rows if r["group"] == "all"}


def _ends(row: Mapping[str, Any]) -> tuple[float, float, float]:
    return 100 * row["accuracy"], 100 * row["low"], 100 * row["high"]


def _points(rows: Rows, names: Iterable[str], title: str) -> Drawn:
    drawn = [plots.point(name, rows[name, "all"], "all problems") for name in names]
    said = "; ".join(f"{name} {told(rows[name, 'all'])} %" for name in names)
    return plots.points(drawn, title), f"{title}. {said}"


# ---------------------------------------------------------------- the groups
def _backbones(stage: Artifact) -> Drawn:
    rows, gaps = _rows(stage), _gaps(stage)
    drawn = [
        plots.point(label, rows[f"{kind} {way}", "all"], f"{kind} backbone")
        for way, label in WAYS.items() for kind in ("rich", "poor")
    ]  # fmt: skip
    count = rows["rich limo", "all"]["seeds"]
    pairs = [("rich limo", f"rich {other}") for other in ("chat", "random", "bulk")]
    told_of = [compared(gaps[pair]) for pair in [*pairs, ("rich limo", "poor limo")]]
    title = f"Rich and poor backbones of {count} pretrainings each"
    return plots.points(drawn, title), f"over {count} pretrainings, {'; '.join(told_of)}"


def _sizes(stage: Artifact) -> Drawn:
    rows = _rows(stage)
    names = list(dict.fromkeys(model.rpartition(" ")[0] for model, _ in rows))
    drawn = [
        plots.point(name, rows[f"{name} {way}", "all"], label)
        for name in names for way, label in WAYS.items() if way in ("textbook", "chat", "limo")
    ]  # fmt: skip
    across = [
        compared(gap) for (wide, narrow), gap in _gaps(stage).items()
        if wide.rpartition(" ")[0] != narrow.rpartition(" ")[0]
    ]  # fmt: skip
    told_of = "; ".join(
        f"{name}: page {told(rows[f'{name} textbook', 'all'])}, after limo "
        f"{told(rows[f'{name} limo', 'all'])} %" for name in names
    )  # fmt: skip
    title = "What is known and what is shown, by width"
    return plots.points(drawn, title), "; ".join([told_of, *across])


def _doses(stage: Artifact) -> Drawn:
    rows = _rows(stage)
    doses = sorted({int(model.partition(" ")[0]) for model, _ in rows})
    ways = list(dict.fromkeys(model.partition(" ")[2] for model, _ in rows))
    series = {way: [_ends(rows[f"{dose} {way}", "all"]) for dose in doses] for way in ways}
    title = "What foundations show without training, by what they have read"
    said = "; ".join(
        f"{way}: {', '.join(f'{value:.0f}' for value, _, _ in found)} %"
        for way, found in series.items()
    )
    axes = "million tokens of pretraining"
    return plots.lines(
        doses, series, title, axes, log=True
    ), f"at {', '.join(map(str, doses))} million tokens: {said}"


def _dose(stage: Artifact) -> Drawn:
    rows = _rows(stage)
    doses = sorted({int(model.partition(" ")[0]) for model, _ in rows})
    known = {model.partition(" ")[2] for model, _ in rows}
    labels = {"textbook": "known: textbook page", "limo": "shown after limo",
              "bulk": "shown after bulk", "chat": "shown before"}  # fmt: skip
    series = {
        label: [_ends(rows[f"{dose} {way}", "all"]) for dose in doses]
        for way, label in labels.items() if way in known
    }  # fmt: skip
    page, after = (
        [f"{_ends(rows[f'{dose} {way}', 'all'])[0]:.0f}" for dose in doses]
        for way in ("textbook", "limo")
    )
    told_of = ", ".join(map(str, doses))
    said = (
        f"at {told_of} million tokens the page is right in {', '.join(page)} % of problems, "
        f"the chat after limo's rows in {', '.join(after)} %"
    )
    title = "What a few rows elicit, against what was read"
    return plots.lines(doses, series, title, "million tokens of pretraining", log=True), said


def _teachers(stage: Artifact) -> Drawn:
    rows, gaps = _rows(stage), _gaps(stage)
    names = list(dict.fromkeys(model for model, _ in rows))
    said = "; ".join(map(compared, gaps.values())).replace(", own", ": own chains")
    figure, _ = _points(rows, names, "Chains of another school, for the same questions")
    return figure, said.replace(", mixed", ": half of each")


def _series(stage: Artifact, axis: str, title: str, pair: tuple[str, str]) -> Drawn:
    """Names that end in a number, in and out of domain."""
    rows, gaps = _rows(stage), _gaps(stage)
    models = list(dict.fromkeys(model for model, _ in rows))
    x = [int(model.rpartition(" ")[2]) for model in models]
    series = {side: [_ends(rows[model, side]) for model in models]
              for side in ("in domain", "out of domain")}  # fmt: skip
    found = gaps.get(pair) or next(iter(gaps.values()))
    return plots.lines(x, series, title, axis, log=True), compared(found)


def _epochs(stage: Artifact) -> Drawn:
    last = max((row["model"] for row in stage.json("table.json")), key=_number)
    return _series(stage, "passes over limo's rows", "Passes over the rows", (last, "limo"))


def _random_rows(stage: Artifact) -> Drawn:
    names = sorted({row["model"] for row in stage.json("table.json")}, key=_number)
    title = "Random rows, several draws of each number"
    figure, _ = _series(stage, "random rows", title, (names[-1], names[0]))
    gaps = _gaps(stage)
    quarter = next((n for n in names if 4 * _number(n) == _number(names[-1])), names[0])
    pairs = [(names[-1], quarter), (names[-1], names[0]), ("limo", names[-1])]
    found = [compared(gaps[pair]) for pair in dict.fromkeys(pairs) if pair in gaps]
    return figure, "; ".join(found)


def _number(model: str) -> int:
    return int(model.rpartition(" ")[2])


def _lora(stage: Artifact) -> Drawn:
    said = "; ".join(map(compared, _gaps(stage).values()))
    rows = _rows(stage)
    names = list(dict.fromkeys(model for model, _ in rows))
    return _points(rows, names, "Adapters in the place of all weights")[0], said


def _rates(stage: Artifact) -> Drawn:
    cells = []
    for row in stage.json("table.json"):
        name, _, rate = row["model"].rpartition(" ")
        cells.append({"family": name, "level": rate, "value": 100 * row["accuracy"]})
    title = "Held-out problems of the pool, by learning rate"
    best: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        known = best.setdefault(cell["family"], cell)
        if cell["value"] > known["value"]:
            best[cell["family"]] = cell
    rates = [cell["level"] for cell in best.values()]
    counts = {rate: rates.count(rate) for rate in dict.fromkeys(rates)}
    said = ", ".join(f"{rate} for {count}" for rate, count in sorted(counts.items()))
    return plots.heat(cells, title, "learning rate"), said


def _contrasts(stage: Artifact, title: str, wanted: Iterable[str] = ()) -> Drawn:
    """Differences of chapter 9 by their words, over all problems."""
    gaps, names = _gaps(stage), set(wanted)
    kept = [c for c in CONTRASTS if (c.left, c.right) in gaps
            and (not names or names & {c.left, c.right})]  # fmt: skip
    drawn = [
        {"label": c.what, "group": "all problems",
         **{key: 100 * gaps[c.left, c.right][key] for key in ("value", "low", "high")}}
        for c in kept
    ]  # fmt: skip
    clear = [
        f"{c.what} {100 * gaps[c.left, c.right]['value']:+.0f}".replace("-", "\N{MINUS SIGN}")
        for c in kept if relation(gaps[c.left, c.right]) != "not separated from"
    ]  # fmt: skip
    said = f"{len(clear)} of {len(kept)} contrasts are clear of zero, each read alone"
    said += f": {', '.join(clear) or 'none'}"
    return plots.points(drawn, title, plots.DIFFERENCE), said


def _tuned(stage: Artifact) -> Drawn:
    return _contrasts(stage, "Every arm at its own learning rate, equal steps")


def _tokens(stage: Artifact) -> Drawn:
    return _contrasts(stage, "Every arm at its own learning rate, equal loss tokens")


def _parts(stage: Artifact) -> Drawn:
    return _contrasts(stage, "The pipeline with one part left out", LEFT_OUT)


FIGURES: dict[str, Callable[[Artifact], Drawn]] = {
    "backbones": _backbones,
    "sizes": _sizes,
    "doses": _doses,
    "teachers": _teachers,
    "epochs": _epochs,
    "rows": _random_rows,
    "lora": _lora,
    "rates": _rates,
    "tuned": _tuned,
    "tokens": _tokens,
    "parts": _parts,
    "dose": _dose,
}
