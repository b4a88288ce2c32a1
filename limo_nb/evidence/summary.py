"""The page "The book in one page": what a run decided, for people who will run nothing.

Made by `limo-nb render` from the verdicts of chapter 10, so that no number is typed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limo_nb.book.templates import macros
from limo_nb.core.runs import MissingArtifact, Run
from limo_nb.evidence.judging import UNTESTED, ClaimVerdict, measured_told
from limo_nb.evidence.rules import Claim, load_ledger
from limo_nb.evidence.show import tally

PAGE = "book/summary"  # in the table of contents
TEMPLATE = "evidence/summary.jinja"
# The claims that tell the story, in its order.
OF_RUN = (
    "elicitation-gap", "in-domain", "out-of-domain", "less-is-more", "less-is-more-tokens",
    "chains-not-answers", "full-beats-short", "few-match-many-chains", "chosen-beats-random",
    "chain-quality", "checks-can-go", "steps-must-stay", "structure-matters",
    "content-hardly-matters", "question-difficulty", "backbone",
)  # fmt: skip
OF_PAPERS = ("published-gain", "bulk-hurts", "over-openthoughts", "over-o1-aime",
             "generalisation-headline", "more-is-more", "published-sizes-math")  # fmt: skip


def summary_page(root: Path, profile: str, overrides: Mapping[str, Any] | None = None) -> str:
    """The page in Markdown, from the last run of `profile`; it says where there is none."""
    claims = {claim.id: claim for claim in load_ledger(root / "book" / "claims.yml")}
    try:
        rows = {
            row["id"]: row for row in Run(profile, overrides).load("claims").json("claims.json")
        }
    except MissingArtifact:
        rows = {}
    if set(rows) != set(claims):  # none, or those of an older ledger
        return str(macros(TEMPLATE).without(profile))
    untested = [row for row in rows.values() if row["verdict"] == UNTESTED]
    return str(
        macros(TEMPLATE).page(
            [_told(rows[name], claims[name]) for name in OF_RUN],
            [_told(rows[name], claims[name]) for name in OF_PAPERS],
            _tally([row for row in rows.values() if row["rests_on"] == "a run"]),
            len(claims), len(untested), profile,
        )
    )  # fmt: skip


def _told(row: ClaimVerdict, claim: Claim) -> tuple[str, str, str, str]:
    """(title, claim, verdict, what was measured)."""
    return row["title"], claim.claim.strip(), row["verdict"], "; ".join(measured_told(row))


def _tally(rows: Sequence[ClaimVerdict]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in tally(rows).items())
