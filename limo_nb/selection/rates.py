"""Solve rates of questions with their intervals, and the filters that use them (chapter 4).

A rate comes from a few attempts, so it is an estimate, and a verdict on a question is partly
luck. LIMO v3, section 3.1, keeps what is solved 1 to 3 times of 32.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import TypedDict

import numpy as np
from datasets import Dataset
from scipy.stats import beta

from limo_nb.problems import Cause, Filtered

CONFIDENCE = 0.95


class SolveCount(TypedDict):
    """What the attempts at one question came to."""

    id: str
    correct: int
    wrong: int
    unverifiable: int
    n: int  # all attempts
    rate: float  # correct / n: an unverifiable attempt is in n and earns nothing
    low: float  # the 95 % interval of the rate
    high: float


# ---------------------------------------------------------------- counting
def jeffreys(correct: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of a rate from `correct` of `n` (Jeffreys' prior).

    With none or all correct the open end is 0 or 1 (Brown, Cai and DasGupta 2001).
    """
    tail = (1 - CONFIDENCE) / 2
    low = beta.ppf(tail, correct + 0.5, n - correct + 0.5)
    high = beta.ppf(1 - tail, correct + 0.5, n - correct + 0.5)
    return np.where(correct == 0, 0.0, low), np.where(correct == n, 1.0, high)


def solve_counts(attempts: Dataset) -> Dataset:
    """A `SolveCount` for every question; ValueError without attempts."""
    if not len(attempts):
        raise ValueError("no attempts to count")
    tally: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for name, correct in zip(attempts["id"], attempts["correct"], strict=True):
        tally[name][2 if correct is None else 0 if correct else 1] += 1
    counts = np.array(list(tally.values()))
    n = counts.sum(axis=1)
    low, high = jeffreys(counts[:, 0], n)
    return Dataset.from_dict(
        {
            "id": list(tally),
            "correct": counts[:, 0],
            "wrong": counts[:, 1],
            "unverifiable": counts[:, 2],
            "n": n,
            "rate": counts[:, 0] / n,
            "low": low,
            "high": high,
        }
    )


def outcomes(attempts: Dataset) -> dict[str, np.ndarray]:
    """Per question, whether each attempt was right (bool), in the order of sampling.

    An attempt that cannot be verified is not right.
    """
    found: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    columns = (attempts[name] for name in ("id", "sample", "correct"))
    for name, sample, correct in zip(*columns, strict=True):
        found[name].append((sample, bool(correct)))
    return {
        name: np.array([right for _, right in sorted(rows)]) for name, rows in found.items()
    }


def mean_interval(values: Iterable[float], seed: int = 0) -> tuple[float, float, float]:
    """The mean of one value per question and its 95 % interval: (mean, low, high).

    Bootstrap over questions, since the attempts at one question belong together. Of one
    question the ends are not known (nan).
    """
    values = np.asarray(list(values), float)
    if not len(values):
        raise ValueError("no values: there is no mean of nothing")
    if len(values) == 1:
        return float(values[0]), math.nan, math.nan
    picks = np.random.default_rng(seed).integers(len(values), size=(2000, len(values)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values[picks].mean(axis=1), (tail, 1 - tail))
    return float(values.mean()), float(low), float(high)


# ---------------------------------------------------------------- filtering
def keep_by_rate(problems: Dataset, counts: Dataset, keep: tuple[int, int]) -> Filtered:
    """Problems solved between `keep[0]` and `keep[1]` times (inclusive), and the others.

    An unverifiable attempt might have been right: a problem stays only if it would stay
    either way. Raises ValueError if a problem has no count, or fewer attempts than the
    rest although more could change its verdict.
    """
    low, high = keep
    if low > high:
        raise ValueError(f"keep is {keep}: its first number may not exceed the second")
    by_id = {row["id"]: row for row in counts}
    missing = [name for name in problems["id"] if name not in by_id]
    if missing:
        raise ValueError(f"{len(missing)} problems were never attempted, e.g. {missing[0]!r}")
    most = max((by_id[name]["n"] for name in problems["id"]), default=0)
    tried = {
        row["n"]
        for row in map(by_id.__getitem__, problems["id"])
        if row["n"] < most and row["correct"] <= high
    }
    if tried:
        raise ValueError(
            f"problems that may stay were attempted {sorted(tried | {most})} times: "
            "finish the sampling first"
        )
    reasons = [_why_dropped(by_id[name], low, high) for name in problems["id"]]
    drops = {place: Cause(reason) for place, reason in enumerate(reasons) if reason}
    return Filtered.without(problems, drops)


def _why_dropped(count: SolveCount, low: int, high: int) -> str:
    """Why a question leaves, as one of three reasons that can be counted; empty if not.

    Without the number of attempts, which differs where sampling stops early.
    """
    correct, unsure = count["correct"], count["unverifiable"]
    if correct > high:
        return f"too easy: more than {high} correct"
    if correct + unsure < low:
        return f"too hard: fewer than {low} correct"
    if correct < low or correct + unsure > high:
        return "undecided: attempts that cannot be verified"
    return ""
