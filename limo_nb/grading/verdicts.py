"""Verdicts: whether the final answer of a response is the reference.

Chapter 8; paper, section 4.

`extraction` finds the span, `canonical` writes it one way, `equivalence` compares; here is
what stands around them: three-valued verdicts and batches. Most answers are settled by text
and exact numbers in the caller's process. Formulas are valued only in worker processes with
a hard time and memory limit (`isolation`), and no text reaches `eval` or sympy's
`parse_expr`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from limo_nb.grading.answers import literal
from limo_nb.grading.canonical import clean
from limo_nb.grading.equivalence import (
    counterparts,
    equivalent,
    quick_match,
)
from limo_nb.grading.extraction import final_answer
from limo_nb.grading.formulas import Finding
from limo_nb.grading.isolation import in_workers
from limo_nb.grading.units import registry

__all__ = ["Verdict", "agreement", "clean", "final_answer", "grade", "grade_many"]

LONGEST = 2000  # characters of an answer that is compared
WARM, WARM_UNITS = "limo_nb.grading.warm", "limo_nb.grading.warm_units"

Reference = str | float | list | tuple | dict  # text, or what a reader of JSON gives
Comparison = tuple[str, str, float]  # a cleaned reference, a cleaned answer, the tolerance


@dataclass(frozen=True)
class Verdict:
    """True, False, or None where it could not be decided; with the answer that was read."""

    correct: bool | None
    answer: str | None  # cleaned; None where the response has no answer
    reason: str


# ---------------------------------------------------------------- the interface
def grade(
    reference: Reference, response: str, tolerance: float = 0.0, boxed_only: bool = False
) -> Verdict:
    """The verdict on one response; see `grade_many`."""
    return grade_many([reference], [response], 1, tolerance=tolerance, boxed_only=boxed_only)[0]


def grade_many(
    references: Sequence[Reference],
    responses: Sequence[str],
    workers: int = 2,
    seconds: float = 5.0,
    tolerance: float | Sequence[float] = 0.0,
    boxed_only: bool = False,
) -> list[Verdict]:
    """The verdicts on `responses`, in order; none takes more than `seconds` to compare.

    A reference is text, or what a reader of JSON made of it: a number, a list, whose order
    does not count, a list of lists, which is a matrix, or a mapping. The text "[1, 2]" is
    an interval; the list [1, 2] is two answers.

    `tolerance` is relative, one for all or one for each, and belongs to the benchmark; a
    reference written as an integer is exact whatever it is. `boxed_only` switches off the
    reading of answers without a box. What rules cannot settle goes to `workers` processes;
    a comparison that needs more than `seconds` of processor time is ended, and its verdict
    is None. Works from scripts, notebook cells, threads and event loops (which it blocks:
    use `asyncio.to_thread`). Raises ValueError where the lengths differ.
    """
    if len(references) != len(responses):
        raise ValueError(f"{len(references)} references for {len(responses)} responses")
    if isinstance(tolerance, int | float):
        tolerance = [tolerance] * len(references)
    verdicts: list[Verdict] = []
    waiting: dict[int, Comparison] = {}
    rows = zip(references, responses, tolerance, strict=True)
    for index, (reference, response, allowed) in enumerate(rows):
        verdict, comparison = _first_look(reference, response, allowed, boxed_only)
        verdicts.append(verdict or Verdict(None, None, "waiting"))
        if comparison:
            waiting[index] = comparison
    if waiting:
        comparisons = list(dict.fromkeys(waiting.values()))  # each is made once
        made = _compare(comparisons, workers, seconds)
        found = dict(zip(comparisons, made, strict=True))
        for index, comparison in waiting.items():
            correct, reason = found[comparison]
            verdicts[index] = Verdict(correct, comparison[1], reason)
    return verdicts


def _as_text(reference: Reference) -> str:
    """A reference as text, also where a reader of JSON made it a number, list or mapping."""
    if isinstance(reference, str):
        return reference
    if isinstance(reference, dict):
        return json.dumps(reference, ensure_ascii=False, default=str)
    if isinstance(reference, list | tuple):
        inner = [
            f"[{_as_text(part)}]" if isinstance(part, list | tuple) else _as_text(part)
            for part in reference
        ]
        nested = any(isinstance(part, list | tuple) for part in reference)
        return f"[{', '.join(inner)}]" if nested else ", ".join(inner)
    return "" if reference is None else str(reference)


def _first_look(
    reference: Reference, response: str, tolerance: float, boxed_only: bool
) -> tuple[Verdict | None, Comparison | None]:
    """A verdict, or the comparison that a worker must make."""
    reference = _as_text(reference)
    if not reference.strip():
        return Verdict(None, None, "no reference"), None
    span = final_answer(response, boxed_only)
    if span is None:
        return Verdict(False, None, "no answer"), None
    if len(span) > LONGEST and len(span) > 2 * len(reference):
        return Verdict(None, span[:LONGEST], f"answer of {len(span)} characters"), None
    answer = clean(span)
    wanted, said = counterparts(literal(reference) or clean(reference), answer)
    settled = quick_match(wanted, said, tolerance)
    if settled is None:
        return None, (wanted, said, float(tolerance))
    return Verdict(settled, answer, "same" if settled else "different"), None


def agreement(
    verdicts: Sequence[Verdict], labels: Sequence[bool | None]
) -> dict[str, int | float]:
    """The counts of verdicts and, where any row has a label, how they agree with it.

    `accuracy` is the share of labelled rows whose verdict is the label, so an unverifiable
    one counts against it. `false_positives` is the share of the rows labelled wrong that
    are taken for correct, `false_negatives` of those labelled correct taken for wrong.
    """
    decided = [verdict.correct for verdict in verdicts]
    found: dict[str, int | float] = {"items": len(decided), "correct": decided.count(True)}
    found |= {"wrong": decided.count(False), "unverifiable": decided.count(None)}
    known = [(v, bool(x)) for v, x in zip(decided, labels, strict=True) if x is not None]
    if known:
        found |= {
            "labelled": len(known),
            "accuracy": _share([v is x for v, x in known]),
            "false_positives": _share([v is True for v, x in known if not x]),
            "false_negatives": _share([v is False for v, x in known if x]),
        }
    return found


def _share(hits: list[bool]) -> float:
    return round(sum(hits) / len(hits), 6) if hits else 0.0


# ---------------------------------------------------------------- isolation
def _compare(comparisons: list[Comparison], workers: int, seconds: float) -> list[Finding]:
    """The findings on `comparisons`, in order, made in workers; see `grade_many`."""
    load = [WARM, *([WARM_UNITS] if registry.cache_info().currsize else [])]
    return in_workers(equivalent, comparisons, workers, seconds, load)
