"""Verdicts: what a claim's rule says of what was measured (chapter 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from limo_nb.core.settings import Profile
from limo_nb.evidence.measuring import Measured, Tables, measure_quantity
from limo_nb.evidence.rules import Claim, Condition

SHOWN, REPRODUCED = "shown in miniature", "reproduced"
CONTRADICTED, UNDECIDED, UNTESTED = "contradicted", "undecided", "not tested here"

NO_RECORDS: Mapping[str, Tables] = {}


class ClaimVerdict(TypedDict):
    """A row of claims.json: a claim, what was measured, and the verdict by its rule."""

    id: str
    title: str
    chapter: int
    paper: str  # the published figure, in words
    measured: dict[str, Measured | None]  # by quantity; None: not measured in this run
    units: dict[str, str]
    rule: list[str]
    miniature: bool
    verdict: str  # SHOWN, REPRODUCED, CONTRADICTED, UNDECIDED or UNTESTED
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
        small_here = small and not claim.record
        measured = {name: measure_quantity(q, own) for name, q in claim.values.items()}
        verdict, reason = verdict_on(claim, measured, small_here)
        rows.append(
            ClaimVerdict(
                id=claim.id,
                title=claim.title,
                chapter=claim.chapter,
                paper=claim.published,
                measured=measured,
                units={name: q.unit for name, q in claim.values.items()},
                rule=[f"{c.value} {c.says}" for c in claim.rule],
                miniature=small_here,
                verdict=verdict,
                reason=reason,
            )
        )
    return rows


def verdict_on(
    claim: Claim, measured: Mapping[str, Measured | None], small: bool = True
) -> tuple[str, str]:
    """(verdict, reason) by the claim's rule; `small` says that the world is the lab's."""
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
    return _by_rule(claim, known, small)


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


def _by_rule(claim: Claim, measured: Mapping[str, Measured], small: bool) -> tuple[str, str]:
    results = []
    for condition in claim.rule:
        row = measured[condition.value]
        results.append((condition.test(row["low"], row["high"]), _said(condition, row)))
    refuted = [said for outcome, said in results if outcome is False]
    if refuted:
        return CONTRADICTED, "; ".join(refuted)
    open_ones = [said for outcome, said in results if outcome is None]
    if open_ones:
        return UNDECIDED, "; ".join(open_ones)
    return (SHOWN if small else REPRODUCED), "; ".join(said for _, said in results)


def _said(condition: Condition, row: Measured) -> str:
    return f"{condition.value} {condition.says}: {interval_told(row)}"


def interval_told(row: Mapping[str, Any]) -> str:
    """Value and interval with a typographic minus; an exact number stands alone."""
    value, low, high = (f"{row[name]:.1f}" for name in ("value", "low", "high"))
    said = value if row["low"] == row["high"] else f"{value} ({low} to {high})"
    return said.replace("-", "\N{MINUS SIGN}")


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
        verdict, _ = verdict_on(claim, row["measured"], row["miniature"])
        if verdict != row["verdict"]:
            found.append(f"{claim.id}: stored {row['verdict']!r}, its numbers say {verdict!r}")
    return found
