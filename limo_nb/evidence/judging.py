"""Verdicts: what a claim's rule says of what was measured (chapter 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from limo_nb.core.settings import Profile
from limo_nb.evidence.measuring import Measured, Tables, measure_quantity
from limo_nb.evidence.rules import Basis, Claim, Condition

SHOWN, REPRODUCED = "shown", "reproduced"  # in the lab, or by published numbers; by a model
CONTRADICTED, EQUIVALENT = "contradicted", "no effect of size"
UNDECIDED, NO_ROOM, UNTESTED = "undecided", "no room", "not tested here"

# What a verdict rests on.
MINIATURE, REAL, PUBLISHED, NOTHING = "the lab", "a real model", "published numbers", ""

NO_RECORDS: Mapping[str, Tables] = {}
LAB_RECORDS = ("study",)  # of the lab's models; the others are of real ones


class ClaimVerdict(TypedDict):
    """A row of claims.json: a claim, what was measured, and the verdict by its rule."""

    id: str
    title: str
    source: str  # who claims it, and where
    chapter: int
    paper: str  # the published figure, in words
    measured: dict[str, Measured | None]  # by quantity; None: not measured in this run
    units: dict[str, str]
    rule: list[str]
    prediction: str
    held: bool | None  # whether the prediction came true; None: none, or not tested
    rests_on: Basis
    by: str  # MINIATURE, REAL, PUBLISHED or NOTHING
    verdict: str  # one of the seven words above
    reason: str


def miniature(profile: Profile) -> bool:
    """Whether a run used the lab's models or benchmarks."""
    models = profile.models.model_dump().values()
    return "lab" in profile.evaluation.benchmarks or any(m.startswith("lab:") for m in models)


def judge(
    claims: Sequence[Claim], tables: Tables, small: bool = True,
    records: Mapping[str, Tables] = NO_RECORDS,
) -> list[ClaimVerdict]:  # fmt: skip
    """One row per claim: its words, what was measured, verdict and reason.

    `tables` are those of `measuring.tables` for the run at hand, and `small` says that its
    world is the lab's; `records` are the tables of the recorded runs of real models by name.
    """
    rows = []
    for claim in claims:
        own = records.get(claim.record, {}) if claim.record else tables
        measured = {name: measure_quantity(q, own) for name, q in claim.values.items()}
        by = _rests_on(claim, small)
        verdict, reason = verdict_on(claim, measured, by)
        rows.append(
            ClaimVerdict(
                id=claim.id,
                title=claim.title,
                source=claim.source,
                chapter=claim.chapter,
                paper=claim.published,
                measured=measured,
                units={name: q.unit.replace("number", "") for name, q in claim.values.items()},
                rule=[f"{c.value} {c.says}" for c in claim.rule],
                prediction=claim.prediction,
                held=_held(claim, measured, verdict),
                rests_on=claim.rests_on,
                by=by,
                verdict=verdict,
                reason=reason,
            )
        )
    return rows


def _held(claim: Claim, measured: Mapping[str, Measured | None], verdict: str) -> bool | None:
    """Whether verdict and value are as predicted; the value's interval is not asked."""
    if claim.expects is None or verdict == UNTESTED:
        return None
    found = measured[claim.expects.value or claim.rule[0].value]
    within = found and claim.expects.low <= found["value"] <= claim.expects.high
    return bool(within) and verdict == claim.expects.verdict


def _rests_on(claim: Claim, small: bool) -> str:
    own_run = MINIATURE if small else REAL
    record = MINIATURE if claim.record in LAB_RECORDS else REAL
    found = {"a run": own_run, "a record": record, "published numbers": PUBLISHED}
    return found.get(claim.rests_on, NOTHING)


def verdict_on(
    claim: Claim, measured: Mapping[str, Measured | None], by: str = MINIATURE
) -> tuple[str, str]:
    """(verdict, reason) by the claim's rule; `by` is what the numbers rest on."""
    if claim.untested:
        return UNTESTED, claim.untested
    known = {name: row for name, row in measured.items() if row}
    missing = [name for name in claim.values if name not in known]
    if missing:
        where = f"the record {claim.record}" if claim.record else "this run"
        return UNTESTED, f"not measured in {where}: {', '.join(missing)}"
    thin = _thin(claim, known)
    if thin:
        return UNTESTED, thin
    for condition in claim.requires:
        row = known[condition.value]
        if not condition.test(row["low"], row["high"]):
            return UNTESTED, f"it presupposes {_said(condition, row)}"
    return _by_rule(claim, known, by)


def _thin(claim: Claim, measured: Mapping[str, Measured]) -> str:
    """Why the numbers rest on too little, or an empty text."""
    for name, row in measured.items():
        counts = (
            ("problems", row["items"], claim.least.items),
            ("fine-tuning seeds", row["seeds"], claim.least.seeds),
        )
        for noun, count, wanted in counts:
            if count is not None and count < wanted:
                return f"{name} rests on {count} {noun}, {wanted} are the least"
    return ""


def _by_rule(claim: Claim, measured: Mapping[str, Measured], by: str) -> tuple[str, str]:
    """The first of these that one of the rule's conditions comes to, else that all are met."""
    found: dict[str, list[str]] = {}
    for condition in claim.rule:
        row, points = measured[condition.value], claim.values[condition.value].unit == "points"
        outcome = _outcome(condition, row, claim.effect if points else None)
        found.setdefault(outcome, []).append(_said(condition, row, outcome))
    for verdict in (CONTRADICTED, NO_ROOM, EQUIVALENT, UNDECIDED):
        if verdict in found:
            return verdict, "; ".join(found[verdict])
    return (REPRODUCED if by == REAL else SHOWN), "; ".join(found[SHOWN])


def _outcome(condition: Condition, row: Measured, effect: float | None) -> str:
    """What one condition comes to; `effect` is in points, None for other units."""
    if effect is not None and (
        -effect < row["low"] and row["high"] < effect and abs(condition.bound) < effect
    ):
        return EQUIVALENT
    met = condition.test(row["low"], row["high"])
    if effect is not None and row["reference"] is not None:
        left = 100 - row["reference"]  # by how much anything can be above it
        upwards = condition.at_most is None
        if upwards and met is not True and left < max(effect, condition.bound):
            return NO_ROOM
        if not upwards and met is True and left <= condition.bound:
            return NO_ROOM
    return {True: SHOWN, False: CONTRADICTED, None: UNDECIDED}[met]


def _said(condition: Condition, row: Measured, outcome: str = "") -> str:
    room = f", above {row['reference']:.1f}" if outcome == NO_ROOM else ""
    return f"{condition.value} {condition.says}: {interval_told(row)}{room}"


def interval_told(row: Mapping[str, Any]) -> str:
    """Value and interval with a typographic minus; an exact number stands alone."""
    value, low, high = (f"{row[name]:.1f}" for name in ("value", "low", "high"))
    said = value if row["low"] == row["high"] else f"{value} ({low} to {high})"
    return said.replace("-", "\N{MINUS SIGN}")


def measured_told(row: Mapping[str, Any]) -> list[str]:
    """Every quantity of a verdict's row that was measured: name, interval, unit."""
    return [
        f"{name} {interval_told(found)} {row['units'][name].replace('percent', '%')}".strip()
        for name, found in row["measured"].items()
        if found
    ]


def disagreements(claims: Sequence[Claim], rows: Sequence[ClaimVerdict]) -> list[str]:
    """Where a stored verdict is not what the rule says of the numbers stored with it."""
    stored = {row["id"]: row for row in rows}
    known = {claim.id for claim in claims}
    found = [f"{name}: no such claim in the ledger" for name in stored if name not in known]
    for claim in claims:
        row = stored.get(claim.id)
        if row is None:
            found.append(f"{claim.id}: no verdict was stored")
            continue
        verdict, _ = verdict_on(claim, row["measured"], row["by"])
        if verdict != row["verdict"]:
            found.append(f"{claim.id}: stored {row['verdict']!r}, its numbers say {verdict!r}")
    return found
