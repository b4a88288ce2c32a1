"""The claim ledger: rules that were fixed first, numbers that came later (chapters 1, 10).

`book/claims.yml` holds the claims and their rules; this module measures the quantities
that a rule names in the tables of a run, and computes the verdicts. A rule is data (a
quantity, an operator, a number): nothing is evaluated as code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from limo_nb.core.runs import (
    Artifact,
    MissingArtifact,
    Run,
)
from limo_nb.core.settings import (
    Profile,
)
from limo_nb.evidence.rules import Claim, Condition, Quantity

SHOWN, REPRODUCED = "shown in miniature", "reproduced"
CONTRADICTED, UNDECIDED, UNTESTED = "contradicted", "undecided", "not tested here"
Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]
UNTRAINED = ("base", "poor")  # evaluated once: fine-tuning seeds do not touch them
DRAWS = 2000  # bootstrap samples of a mean length


# ---------------------------------------------------------------- the tables of a run
def tables(run: Run) -> dict[str, list[dict]]:
    """What the chapters left, as rows (name, group, value, low, high, items, seeds).

    `probe`, `evaluation` and `ablations` are accuracies, `lengths` mean tokens of an
    answer, `sets` numbers of rows. A stage that was not run is absent. Paired
    differences, where a stage has them, carry `minus`, the name that was subtracted.
    """
    found: dict[str, list[dict]] = {}
    for stage in ("probe", "evaluation", "ablations"):
        artefact = artefact_of(run, stage)
        if artefact:
            found[stage] = _accuracies(artefact)
    if "ablations" in found:
        found["ablations"] += _half(found["ablations"], _size(run, "limo"))
    evaluated = artefact_of(run, "evaluation")
    if evaluated:
        found["lengths"] = _lengths(evaluated)
    sizes = {arm: _size(run, arm) for arm in ("limo", "random", "bulk")}
    known = {arm: size for arm, size in sizes.items() if size}
    if known:
        found["sets"] = [_exact(arm, size) for arm, size in known.items()]
    return found


def artefact_of(run: Run, stage: str) -> Artifact | None:
    """The artefact of `stage`, or None where it was not run."""
    try:
        return run.load(stage)
    except MissingArtifact:
        return None


def _accuracies(artefact: Artifact) -> list[dict]:
    rows = [_plain_row(row) for row in artefact.json("table.json")]
    differences = artefact / "differences.json"
    if differences.exists():
        rows += [_plain_row(row) for row in json.loads(differences.read_text())]
    return rows


def _plain_row(row: Row) -> dict:
    """A row of a stage's table, or of its paired differences, in the ledger's words."""
    name = f"{row['model']} {row['way']}" if "way" in row else row["model"]
    value = row["accuracy"] if "accuracy" in row else row["value"]
    numbers = {"value": value, "low": row["low"], "high": row["high"]}
    counts = {"items": row["items"], "seeds": row["seeds"]}
    minus = row.get("against")
    return {"name": name, "group": row["group"], "minus": minus, **numbers, **counts}


def _half(rows: Sequence[Row], full: int | None) -> list[dict]:
    """The arm with the most rows up to half of the training set, named ``rows-half``."""
    sizes = {
        int(row["name"].removeprefix("rows-"))
        for row in rows
        if row["name"].removeprefix("rows-").isdigit()
    }
    fitting = [size for size in sizes if full and size <= full / 2]
    if not fitting:
        return []
    return [
        {**row, "name": "rows-half"} for row in rows if row["name"] == f"rows-{max(fitting)}"
    ]


def _size(run: Run, arm: str) -> int | None:
    """Rows of a training set, or None where it was not made."""
    artefact = artefact_of(run, "models/sets")
    path = artefact / f"{arm}.parquet" if artefact else None
    return len(Dataset.from_parquet(str(path))) if path and path.exists() else None


def _exact(name: str, value: float) -> dict:
    numbers = dict.fromkeys(("value", "low", "high"), float(value))
    return {"name": name, "group": "all", **numbers, "items": None, "seeds": None}


def _lengths(evaluated: Artifact) -> list[dict]:
    """Mean tokens of an answer, per model and group, over all its fine-tuning seeds."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for path in sorted(evaluated.path.glob("results-*-*.parquet")):
        name = path.stem.removeprefix("results-").rpartition("-")[0]
        frame = Dataset.from_parquet(str(path)).to_pandas()
        parts.setdefault(name, []).append(frame[["id", "in_domain", "tokens"]])
    rows = []
    for name, frames in parts.items():
        frame = pd.concat(frames)
        inside = frame["in_domain"]
        groups = {"all": frame, "in domain": frame[inside], "out of domain": frame[~inside]}
        for group, part in groups.items():
            means = part.groupby("id")["tokens"].mean().to_numpy(float)
            numbers = dict(zip(("value", "low", "high"), mean_interval(means), strict=True))
            counts = {"items": len(means), "seeds": len(frames)}
            rows.append({"name": name, "group": group, **numbers, **counts})
    return rows


def mean_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high): the 95 % percentile bootstrap over `values`, one per item."""
    if not len(values):
        raise ValueError("no values to average")
    places = np.random.default_rng(seed).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.quantile(values[places].mean(axis=1), (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


# ---------------------------------------------------------------- measuring
def measure(quantity: Quantity, tables: Tables) -> dict | None:
    """value, low, high in the quantity's unit, with items and seeds; None if unmeasured.

    A paired difference is taken where its stage left one. Otherwise the intervals of
    the two sides are combined as if they were independent (MOVER, Zou and Donner 2008),
    which is wider than need be for answers to the same problems.
    """
    factor = 1.0 if quantity.unit == "tokens" else 100.0
    other = quantity.minus or quantity.over
    paired = quantity.minus and _find(tables, quantity, quantity.name, quantity.minus)
    if paired:
        return _scaled(paired, factor, paired["items"], paired["seeds"], paired=True)
    mine = _find(tables, quantity, quantity.name)
    if not other:
        return mine and _scaled(mine, factor, mine["items"], mine["seeds"])
    theirs = _find(tables, quantity, other, table=quantity.minus_table)
    if not mine or not theirs:
        return None
    combined = _minus(mine, theirs) if quantity.minus else _over(mine, theirs)
    items = [side["items"] for side in (mine, theirs) if side["items"] is not None]
    trained = [side for side in (mine, theirs) if side["name"].split()[0] not in UNTRAINED]
    seeds = [side["seeds"] for side in trained if side["seeds"] is not None]
    return _scaled(combined, factor, min(items, default=None), min(seeds, default=None))


def _find(
    tables: Tables, quantity: Quantity, name: str, minus: str | None = None,
    table: str | None = None,
) -> Row | None:  # fmt: skip
    rows = tables.get(table or quantity.table, ())
    wanted = (name, quantity.group, minus)
    return next((r for r in rows if (r["name"], r["group"], r.get("minus")) == wanted), None)


def _minus(a: Row, b: Row) -> dict[str, float]:
    value = a["value"] - b["value"]
    down = math.hypot(a["value"] - a["low"], b["high"] - b["value"])
    up = math.hypot(a["high"] - a["value"], b["value"] - b["low"])
    return {"value": value, "low": value - down, "high": value + up}


def _over(a: Row, b: Row) -> dict[str, float]:
    if not b["low"] > 0:
        raise ValueError(f"a share of {b['name']!r}, which may be zero, is not defined")
    low, high = a["low"] / b["high"], a["high"] / b["low"]
    return {"value": a["value"] / b["value"], "low": low, "high": high}


def _scaled(
    row: Row, factor: float, items: int | None, seeds: int | None, paired: bool = False
) -> dict:
    numbers = {name: round(factor * row[name], 6) for name in ("value", "low", "high")}
    return {**numbers, "items": items, "seeds": seeds, "paired": paired}


# ---------------------------------------------------------------- verdicts
def miniature(profile: Profile) -> bool:
    """Whether a run used the lab's models or benchmarks."""
    models = profile.models.model_dump().values()
    return "lab" in profile.evaluation.benchmarks or any(m.startswith("lab:") for m in models)


def decide(
    claim: Claim, measured: Mapping[str, Row | None], small: bool = True
) -> tuple[str, str]:
    """(verdict, reason) by the claim's rule; `small` says that the world is the lab's."""
    if claim.untested:
        return UNTESTED, claim.untested
    missing = [name for name in claim.values if not measured.get(name)]
    if missing:
        return UNTESTED, f"not measured in this run: {', '.join(missing)}"
    thin = _thin(claim, measured)
    if thin:
        return UNTESTED, thin
    for condition in claim.requires:
        row = measured[condition.value]
        if not condition.test(row["low"], row["high"]):
            return UNTESTED, f"it presupposes {_said(condition, row)}"
    return _by_rule(claim, measured, small)


def _thin(claim: Claim, measured: Mapping[str, Row | None]) -> str:
    """Why the numbers rest on too little, or an empty text."""
    for name, row in measured.items():
        for what in ("items", "seeds"):
            count, wanted = row[what], getattr(claim.least, what)
            if count is not None and count < wanted:
                noun = "problems" if what == "items" else "fine-tuning seeds"
                return f"{name} rests on {count} {noun}, {wanted} are the least"
    return ""


def _by_rule(claim: Claim, measured: Mapping[str, Row], small: bool) -> tuple[str, str]:
    results = []
    for condition in claim.rule:
        row = measured[condition.value]
        results.append((condition.test(row["low"], row["high"]), _said(condition, row)))
    refuted = [said for outcome, said in results if outcome is False]
    if refuted:
        return CONTRADICTED, "; ".join(refuted)
    verdict = SHOWN if small else REPRODUCED
    open_ones = [said for outcome, said in results if outcome is None]
    if open_ones:
        return UNDECIDED, "; ".join(open_ones)
    return verdict, "; ".join(said for _, said in results)


def _said(condition: Condition, row: Row) -> str:
    return f"{condition.value} {condition.says}: {_interval(row)}"


def _interval(row: Row) -> str:
    """Value and interval with a typographic minus; an exact number stands alone."""
    value, low, high = (f"{row[name]:.1f}" for name in ("value", "low", "high"))
    said = value if row["low"] == row["high"] else f"{value} ({low} to {high})"
    return said.replace("-", "\N{MINUS SIGN}")


def judge(claims: Sequence[Claim], tables: Tables, small: bool = True) -> list[dict]:
    """One row per claim: its words, what was measured, verdict and reason."""
    rows = []
    for claim in claims:
        measured = {name: measure(q, tables) for name, q in claim.values.items()}
        verdict, reason = decide(claim, measured, small)
        rows.append(
            {
                "id": claim.id,
                "title": claim.title,
                "chapter": claim.chapter,
                "paper": claim.published,
                "measured": measured,
                "units": {name: q.unit for name, q in claim.values.items()},
                "rule": [f"{c.value} {c.says}" for c in claim.rule],
                "miniature": small,
                "verdict": verdict,
                "reason": reason,
            }
        )
    return rows


def disagreements(claims: Sequence[Claim], rows: Sequence[Row]) -> list[str]:
    """Where a stored verdict is not what the rule says of the numbers stored with it."""
    stored = {row["id"]: row for row in rows}
    known = {claim.id for claim in claims}
    found = [f"{name}: no such claim in the ledger" for name in stored if name not in known]
    for claim in claims:
        row = stored.get(claim.id)
        if row is None:
            found.append(f"{claim.id}: no verdict was stored")
            continue
        verdict, _ = decide(claim, row["measured"], row["miniature"])
        if verdict != row["verdict"]:
            found.append(f"{claim.id}: stored {row['verdict']!r}, its numbers say {verdict!r}")
    return found
