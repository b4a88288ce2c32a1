"""Tables of accuracies and paired comparisons, and what they say in words (chapter 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, cast

import numpy as np
from datasets import Dataset
from scipy import stats

from limo_nb.evaluation.estimates import accuracy, difference, paired_strata
from limo_nb.evaluation.separation import detectable
from limo_nb.evaluation.tables import AccuracyRow, ComparisonRow
from limo_nb.evaluation.truncation import cut_share, truncation_of

DRAWS = 4000  # permutations of a permutation test


# ---------------------------------------------------------------- tables
def groups(results: Dataset) -> dict[str, list[int]]:
    """Row numbers of each benchmark and of "in domain", "out of domain" and "all"."""
    names, inside = list(results["benchmark"]), list(results["in_domain"])
    found: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        found.setdefault(name, []).append(index)
    if len(found) > 1:
        found["in domain"] = [index for index, own in enumerate(inside) if own]
        found["out of domain"] = [index for index, own in enumerate(inside) if not own]
        found["all"] = list(range(len(names)))
    return {name: rows for name, rows in found.items() if rows}


def accuracies(results: Mapping[str, Sequence[Dataset]]) -> list[AccuracyRow]:
    """A row per model and group with its estimate: what `limo-nb results` prints.

    `results` maps each model to its tables, one per training seed.
    """
    rows = []
    for model, by_seed in results.items():
        for group in groups(by_seed[0]):
            part = _part(by_seed, group)
            facts = dict(vars(accuracy(part)))
            named = {"model": model, "group": group, "accuracy": facts.pop("value")}
            rows.append(cast(AccuracyRow, named | facts | truncation_of(part, facts)))
    return rows


def comparison(
    a: Sequence[Dataset], b: Sequence[Dataset], names: tuple[str, str]
) -> list[ComparisonRow]:
    """A row per group: `a` against `b` on the same items, paired.

    Besides the fields of `difference`: `better` and `worse`, the numbers of items on
    which `a` scores higher or lower; `p`, two-sided, of a permutation test that swaps the
    two models item by item; `detectable`, the difference that this many items with the
    variance found would show 8 times in 10 (None where items do not differ); `accuracies` of
    both, and `truncations`, the shares of their answers that were cut off.
    """
    rows = []
    for group in groups(a[0]):
        one, other = _part(a, group), _part(b, group)
        named = {"model": names[0], "against": names[1], "group": group}
        facts = {**named, **vars(difference(one, other)), **_by_item(one, other)}
        sides = [vars(accuracy(side)) for side in (one, other)]
        facts["accuracies"] = tuple(side["value"] for side in sides)
        facts["truncations"] = tuple(map(cut_share, sides))
        rows.append(cast(ComparisonRow, facts))
    return rows


def _part(tables: Sequence[Dataset], group: str) -> list[Dataset]:
    return [table.select(groups(table)[group]) for table in tables]


def _by_item(a: Sequence[Dataset], b: Sequence[Dataset]) -> dict[str, Any]:
    """`better`, `worse`, `p` and `detectable` of `comparison`."""
    sides = [
        (x.mean(axis=0), y.mean(axis=0)) for x, y in zip(*paired_strata(a, b), strict=True)
    ]
    # Each item's part in the mean of the benchmarks' means.
    parts = [(one / len(one), other / len(other)) for one, other in sides]
    left, right = (np.concatenate(side) / len(sides) for side in zip(*parts, strict=True))
    apart = [one - other for one, other in sides]
    gaps = np.concatenate(apart)
    return {
        "better": int((gaps > 0).sum()),
        "worse": int((gaps < 0).sum()),
        "p": _swapped(left, right),
        "detectable": _detected(apart),
    }


def _swapped(left: np.ndarray, right: np.ndarray) -> float:
    """The p-value of the summed difference when each pair may be swapped."""
    if np.array_equal(left, right):
        return 1.0
    found = stats.permutation_test(
        (left, right), lambda x, y, axis: (x - y).sum(axis=axis), vectorized=True,
        permutation_type="samples", n_resamples=DRAWS, batch=200, rng=0,
    )  # fmt: skip
    return float(found.pvalue)


def _detected(apart: Sequence[np.ndarray]) -> float | None:
    if any(len(gaps) < 2 for gaps in apart) or all(np.ptp(gaps) == 0 for gaps in apart):
        return None
    variance = sum(gaps.var(ddof=1) / len(gaps) for gaps in apart) / len(apart) ** 2
    return detectable(sqrt(variance), sum(len(gaps) - 1 for gaps in apart))


# ---------------------------------------------------------------- in words
def told(row: Mapping[str, Any], signed: bool = False) -> str:
    """A row of `accuracies`, or a difference, in percent or points: "63.4 (58.1 to 68.0)".

    Negative numbers have a true minus sign, U+2212.
    """
    name, shape = "accuracy" if "accuracy" in row else "value", "+.1f" if signed else ".1f"
    value, low, high = (f"{100 * row[key]:{shape}}" for key in (name, "low", "high"))
    return f"{value} ({low} to {high})".replace("-", "\N{MINUS SIGN}")


def relation(row: Mapping[str, Any]) -> str:
    """What a difference shows: "above", "below" or, if its interval holds 0, neither."""
    if row["low"] > 0:
        return "above"
    return "below" if row["high"] < 0 else "not separated from"


def compared(row: Mapping[str, Any]) -> str:
    """A difference as a sentence: "limo is above base: +31.2 points (+27.0 to +35.4)"."""
    value, _, interval = told(row, signed=True).partition(" ")
    return f"{row['model']} is {relation(row)} {row['against']}: {value} points {interval}"
