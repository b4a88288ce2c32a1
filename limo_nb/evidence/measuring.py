"""The quantities of the ledger, measured in the tables that a run left (chapter 10)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd

from limo_nb.core.paper import reported
from limo_nb.core.recorded_runs import AnyRun, RecordedRun, recorded_names
from limo_nb.core.records import load_table
from limo_nb.core.runs import Artifact, MissingArtifact, Run
from limo_nb.evaluation import benchmark_registry, wilson
from limo_nb.evidence.rules import ClaimQuantity, published_number
from limo_nb.experiments.study import GROUPS
from limo_nb.selection import mean_interval

UNTRAINED = ("base", "poor")  # evaluated once: training seeds do not touch them
# Those with a table.json.
STAGES = ("elicitation", "evaluation", "ablations", *(f"study/{name}" for name in GROUPS))


class TableRow(TypedDict):
    """A number of the run with its 95 % interval; accuracies and differences as fractions."""

    name: str  # of a variant; of an elicited model with the prompt format
    group: str
    minus: str | None  # what was subtracted, problem by problem
    value: float
    low: float
    high: float
    items: int | None  # None: does not apply
    seeds: int | None


class Measured(TypedDict):
    """A quantity of the ledger in its unit: points, percent or tokens."""

    value: float
    low: float
    high: float
    items: int | None
    seeds: int | None
    paired: bool
    reference: float | None  # what was subtracted, in the same unit


Tables = Mapping[str, Sequence[TableRow]]


# ---------------------------------------------------------------- the tables of a run
def tables(run: AnyRun) -> dict[str, list[TableRow]]:
    """What the chapters left, by table.

    `elicitation`, `evaluation`, `ablations` and the groups of the study (`study/…`) are
    accuracies and paired differences,
    `lengths` mean tokens of an answer, `sets` numbers of rows. A stage that was not run is
    absent.
    """
    found: dict[str, list[TableRow]] = {}
    for stage in STAGES:
        artefact = _artefact_of(run, stage)
        if artefact:
            found[stage] = _accuracies(artefact)
    sizes = _sizes(run)
    if "ablations" in found:
        found["ablations"] += _half(found["ablations"], sizes.get("limo"))
    evaluated = _artefact_of(run, "evaluation")
    if evaluated:
        found["lengths"] = _lengths(evaluated)
    if sizes:
        found["sets"] = [exact_row(name, size) for name, size in sizes.items()]
    return found


def study_stages(run: Run) -> list[str]:
    """The groups of the study that `run` has made: stages that `tables` reads."""
    return [stage for stage in STAGES if stage.startswith("study/") and run.find(stage)[0]]


def tables_of_records(root: Path | None = None) -> dict[str, Tables]:
    """The same of every recorded run of the book at `root`, by the record's name."""
    return {name: tables(RecordedRun(name, root)) for name in recorded_names(root)}


def _artefact_of(run: AnyRun, stage: str) -> Artifact | None:
    try:
        return run.load(stage)
    except MissingArtifact:
        return None


def _accuracies(artefact: Artifact) -> list[TableRow]:
    files = ("table.json", "differences.json")
    return [
        _table_row(row)
        for file in files
        if (artefact / file).exists()
        for row in artefact.json(file)
    ]


def _table_row(row: Mapping[str, Any]) -> TableRow:
    """A row of a stage's table, or of its paired differences, in the ledger's words."""
    return {
        "name": f"{row['model']} {row['format']}" if "format" in row else row["model"],
        "group": row["group"],
        "minus": row.get("against"),
        "value": row["accuracy"] if "accuracy" in row else row["value"],
        "low": row["low"],
        "high": row["high"],
        "items": row["items"],
        "seeds": row["seeds"],
    }


def _half(rows: Iterable[TableRow], full: int | None) -> list[TableRow]:
    """The variant with the most rows up to half of the training set, as ``rows-half``.

    On either side of its differences.
    """
    rows = list(rows)
    counts = {row["name"]: row["name"].removeprefix("rows-") for row in rows}
    sizes = {name: int(count) for name, count in counts.items() if count.isdigit()}
    fitting = [name for name, size in sizes.items() if full and size <= full / 2]
    if not fitting:
        return []
    largest = max(fitting, key=sizes.__getitem__)
    named = {largest: "rows-half"}
    return [
        {
            **row,
            "name": named.get(row["name"], row["name"]),
            "minus": named.get(row["minus"] or "", row["minus"]),
        }
        for row in rows
        if largest in (row["name"], row["minus"])
    ]


def _sizes(run: AnyRun) -> dict[str, int]:
    """Rows of each training set that was made."""
    made = _artefact_of(run, "models/sets")
    names = [
        name
        for name in ("limo", "random", "bulk")
        if made and (made / f"{name}.parquet").exists()
    ]
    return {name: len(load_table(made, name)) for name in names if made}


def exact_row(name: str, value: float) -> TableRow:
    """A number that is known, such as a count of rows."""
    number = float(value)
    return {"name": name, "group": "all", "minus": None, "value": number, "low": number,
            "high": number, "items": None, "seeds": None}  # fmt: skip


def _lengths(evaluated: Artifact) -> list[TableRow]:
    """Mean tokens of an answer, per model and group, over all its training seeds."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for path in sorted(evaluated.path.glob("results-*-*.parquet")):
        name = path.stem.removeprefix("results-").rpartition("-")[0]
        frame = load_table(evaluated, path.stem).to_pandas()
        parts.setdefault(name, []).append(frame[["id", "in_domain", "tokens"]])
    rows: list[TableRow] = []
    for name, frames in parts.items():
        frame = pd.concat(frames)
        inside = frame["in_domain"]
        groups = {"all": frame, "in domain": frame[inside], "out of domain": frame[~inside]}
        for group, part in groups.items():
            means = part.groupby("id")["tokens"].mean().to_numpy(float)
            value, low, high = mean_interval(means)
            rows.append(
                {"name": name, "group": group, "minus": None, "value": value, "low": low,
                 "high": high, "items": len(means), "seeds": len(frames)}
            )  # fmt: skip
    return rows


# ---------------------------------------------------------------- what was published
EXACT = "exact"  # a group: the number itself, which no sample stands behind
SIDES = ("all", "in domain", "out of domain", "in Chinese")


def published_score(name: str, group: str) -> TableRow:
    """A published accuracy in `group` with the interval that its problems leave.

    `name` is a model of the papers' table, `group` a benchmark or one of SIDES; or `name`
    is a dotted path of `paper.yaml`, to a score in the benchmark `group`, or to a number
    (EXACT). Every problem counts as one answer, also where several were averaged: that is
    wider than need be. Raises ValueError for an unknown name or group.
    """
    if group == EXACT:
        return exact_row(name, published_number(name))
    models, names = reported()["results"]["models"], reported()["results"]["benchmarks"]
    if name in models and group in SIDES:
        chosen = [place for place, own in enumerate(names) if _is_in(own, group)]
        shares = [models[name][place] / 100 for place in chosen]
        counts = [_items(names[place]) for place in chosen]
    else:
        score = models[name][names.index(group)] if name in models else published_number(name)
        shares, counts = [score / 100], [_items(group)]
    value = sum(shares) / len(shares)
    spread = (
        sum(p * (1 - p) / n for p, n in zip(shares, counts, strict=True)) / len(shares) ** 2
    )
    effective = value * (1 - value) / spread if spread else sum(counts)
    low, high = wilson(effective * value, effective)
    return {"name": name, "group": group, "minus": None, "value": value, "low": low,
            "high": high, "items": sum(counts), "seeds": None}  # fmt: skip


def _is_in(benchmark: str, group: str) -> bool:
    facts = benchmark_registry()[benchmark]
    inside = {
        "all": True,
        "in domain": facts["in_domain"],
        "in Chinese": facts["language"] == "zh",
    }
    return not facts["in_domain"] if group == "out of domain" else inside[group]


def _items(benchmark: str) -> int:
    """Problems of a benchmark of the papers; raises ValueError for an unknown one."""
    known = {
        name: facts["rows"] for name, facts in benchmark_registry().items() if "rows" in facts
    }
    known |= reported()["more_benchmarks"]["items"]
    if benchmark not in known:
        raise ValueError(f"no benchmark {benchmark!r} is known to the papers' figures")
    return int(known[benchmark])


# ---------------------------------------------------------------- measuring
def measure_quantity(quantity: ClaimQuantity, tables: Tables) -> Measured | None:
    """The quantity in its unit, with items and seeds; None if unmeasured.

    A paired difference is taken where its stage left one. Otherwise the intervals of
    the two sides are combined as if they were independent (MOVER, Zou and Donner 2008),
    which is wider than need be for answers to the same problems.
    """
    factor = 1.0 if quantity.unit in ("tokens", "number") else 100.0
    other = quantity.minus or quantity.over
    paired = quantity.minus and _find(tables, quantity, quantity.name, quantity.minus)
    if paired:
        subtracted = _find(tables, quantity, quantity.minus or "")
        # What a group of the study is paired with may stand in chapter 8's table alone.
        subtracted = subtracted or _find(
            tables, quantity, quantity.minus or "", table="evaluation"
        )
        return _scaled(
            _ends(paired), factor, paired["items"], paired["seeds"], subtracted, paired=True
        )
    mine = _find(tables, quantity, quantity.name)
    if not mine:
        return None
    if not other:
        return _scaled(_ends(mine), factor, mine["items"], mine["seeds"])
    theirs = _find(tables, quantity, other, table=quantity.minus_table)
    if not theirs:
        return None
    combined = _minus(mine, theirs) if quantity.minus else _over(mine, theirs)
    items = [side["items"] for side in (mine, theirs) if side["items"] is not None]
    trained = [side for side in (mine, theirs) if side["name"].split()[0] not in UNTRAINED]
    seeds = [side["seeds"] for side in trained if side["seeds"] is not None]
    return _scaled(
        combined, factor, min(items, default=None), min(seeds, default=None),
        theirs if quantity.minus else None,
    )  # fmt: skip


def _find(
    tables: Tables, quantity: ClaimQuantity, name: str, minus: str | None = None,
    table: str | None = None,
) -> TableRow | None:  # fmt: skip
    if (table or quantity.table) == "published":
        return None if minus else published_score(name, quantity.group)
    rows = tables.get(table or quantity.table, ())
    wanted = (name, quantity.group, minus)
    return next((r for r in rows if (r["name"], r["group"], r.get("minus")) == wanted), None)


Ends = tuple[float, float, float]  # value, low, high


def _ends(row: TableRow) -> Ends:
    return row["value"], row["low"], row["high"]


def _minus(a: TableRow, b: TableRow) -> Ends:
    value = a["value"] - b["value"]
    down = math.hypot(a["value"] - a["low"], b["high"] - b["value"])
    up = math.hypot(a["high"] - a["value"], b["value"] - b["low"])
    return value, value - down, value + up


def _over(a: TableRow, b: TableRow) -> Ends:
    if not b["low"] > 0:
        raise ValueError(f"a share of {b['name']!r}, which may be zero, is not defined")
    return a["value"] / b["value"], a["low"] / b["high"], a["high"] / b["low"]


def _scaled(
    ends: Ends, factor: float, items: int | None, seeds: int | None,
    subtracted: TableRow | None = None, paired: bool = False,
) -> Measured:  # fmt: skip
    value, low, high = (round(factor * number, 6) for number in ends)
    reference = round(factor * subtracted["value"], 6) if subtracted else None
    return {"value": value, "low": low, "high": high, "items": items, "seeds": seeds,
            "paired": paired, "reference": reference}  # fmt: skip
