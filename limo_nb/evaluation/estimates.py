"""What a table of graded answers says, with intervals (chapter 8; paper, section 4).

An accuracy is a mean over benchmarks of the mean over items of the share of samples that
are right, as the papers average. Answers that were cut off or could not be verified count
as not right, and every table says how many there were. A table of results has the columns
of `evaluation.RESULTS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from scipy import stats
from scipy.optimize import brentq

from limo_nb.grading.numbers import number

DRAWS = 4000  # resamples of a bootstrap or a permutation test
LEVEL = 0.95
POWER = 0.8  # chance that a difference which is there is found


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval (fractions), and what it rests on."""

    value: float
    low: float
    high: float
    items: int
    samples: int  # per item and seed
    seeds: int
    right: int  # answers, over all seeds
    wrong: int  # answers, over all seeds, those that were cut off among them
    unverifiable: int  # answers, over all seeds
    truncated: int  # answers, over all seeds
    varies: str  # what the interval accounts for: items, samples, training seeds

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The unbiased estimate of P(at least one of k samples is right), from `samples`.

    1 − C(n−c, k) / C(n, k) (Chen et al. 2021, section 2.1). Raises ValueError unless
    1 ≤ k ≤ n and 0 ≤ c ≤ n.
    """
    if not (1 <= k <= samples and 0 <= correct <= samples):
        raise ValueError(f"pass@{k} of {correct} right among {samples} samples is undefined")
    return 1 - comb(samples - correct, k) / comb(samples, k)


def accuracy(results_by_seed: Sequence[Dataset], k: int = 1, seed: int = 0) -> Estimate:
    """pass@k of a model, from one table of results per fine-tuning seed.

    The value is the mean over benchmarks of the mean over items. The interval is a
    cluster bootstrap: items are drawn with replacement within their benchmark (all
    samples of an item together, the same items for all seeds), fine-tuning seeds
    are drawn with replacement, and the 2.5 and 97.5 percentiles of 4,000 draws are
    taken. Deviations are widened by √(n / (n − 1)), because the bootstrap variance of
    few clusters is too small by (n − 1) / n.

    Where items show nothing of how much they differ, resampling would call the mean
    certain. Benchmarks of one item each are therefore drawn as if they were one (collapsed
    strata; Cochran 1977, section 5A.12, who notes that this is on the safe side). Items
    that are all alike, or a single one, add Wilson's bound: with n alike, a share of up to
    `wilson(0, n)[1]` may be otherwise, and those may be anything. Its reach is added in
    squares, as limits of independent means are (MOVER; Zou and Donner 2008, Statistics in
    Medicine 27).

    What to expect of a 95 % interval: with three seeds whose differences outweigh all
    else it held the truth in 82 % of 150 simulations, because percentiles of three
    values lack the long tails of so few draws; where items and single answers dominate,
    in 98 %, because drawing seeds and items both counts the noise of single answers more
    than once (Owen 2007). With one seed the interval says nothing about other seeds. One
    benchmark, one seed, one sample: Wilson's interval.
    """
    tables = [_table_of(results) for results in results_by_seed]
    strata = _strata(tables, k)
    value, low, high = _interval(strata, (0.0, 1.0), seed)
    return Estimate(value, low, high, **_counts(tables))


def difference(
    a: Sequence[Dataset], b: Sequence[Dataset], k: int = 1, seed: int = 0
) -> Estimate:
    """pass@k of `a` minus that of `b`, paired over items, with the bootstrap of `accuracy`.

    Equally many seeds are paired in order; where one side has a single table (a model
    that was not fine-tuned), it is compared with every seed of the other. Counts of
    answers are those of both sides. Raises ValueError for other numbers of seeds or
    different items.
    """
    tables_a, tables_b = _both(a, b)
    pairs = zip(_strata(tables_a, k), _strata(tables_b, k), strict=True)
    value, low, high = _interval([one - other for one, other in pairs], (-1.0, 1.0), seed)
    one, other = _counts(tables_a), _counts(tables_b)
    largest = {name: max(one[name], other[name]) for name in ("items", "samples", "seeds")}
    added = {name: one[name] + other[name] for name in VERDICTS}
    varies = _varies(largest["samples"], largest["seeds"])
    return Estimate(value, low, high, **largest, **added, varies=varies)


def _both(
    a: Sequence[Dataset], b: Sequence[Dataset]
) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """The tables of two sides that can be paired."""
    tables_a, tables_b = ([_table_of(results) for results in side] for side in (a, b))
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise ValueError(f"{len(a)} and {len(b)} seeds cannot be paired: give equally many")
    _same_items(tables_a + tables_b)
    return tables_a, tables_b


def _table_of(results: Dataset) -> pd.DataFrame:
    columns = ["benchmark", "id", "sample", "correct", "finished"]
    return results.select_columns(columns).to_pandas()


def _same_items(tables: Sequence[pd.DataFrame]) -> None:
    sets = [set(zip(t["benchmark"], t["id"], strict=True)) for t in tables]
    if not sets or not sets[0]:
        raise ValueError("no results to estimate from")
    for items in sets[1:]:
        if items != sets[0]:
            odd = sorted(items ^ sets[0])[0]
            raise ValueError(f"results are not over the same items: {'/'.join(odd)} differs")


def _strata(tables: Sequence[pd.DataFrame], k: int) -> list[np.ndarray]:
    """For each benchmark, in order of name, pass@k as an array of seeds × items."""
    _same_items(tables)
    scored = []
    for table in tables:
        right = table["correct"].eq(True).groupby([table["benchmark"], table["id"]])
        grouped = right.agg(["size", "sum"]).sort_index()
        scores = [
            pass_at_k(int(n), int(c), k)
            for n, c in zip(grouped["size"], grouped["sum"], strict=True)
        ]
        scored.append(pd.Series(scores, index=grouped.index))
    wide = pd.DataFrame(scored)  # seeds × (benchmark, id)
    names = wide.columns.get_level_values(0)
    return [wide.loc[:, names == name].to_numpy() for name in names.unique()]


def _interval(
    strata: Sequence[np.ndarray], bounds: tuple[float, float], seed: int
) -> tuple[float, float, float]:
    """Value and 95 % interval of the mean of stratum means; see `accuracy`."""
    value = float(np.mean([scores.mean() for scores in strata]))
    first = strata[0]
    if len(strata) == len(first) == 1 and bounds == (0.0, 1.0) and set(first[0]) <= {0.0, 1.0}:
        return value, *wilson(int(first.sum()), first.size)  # one benchmark, right or wrong
    parts, tail = _collapsed(strata), 100 * (1 - LEVEL) / 2
    low, high = np.percentile(_draws(parts, value, seed), [tail, 100 - tail])
    below, above = _unseen(parts, bounds)
    low, high = value - np.hypot(value - low, below), value + np.hypot(high - value, above)
    return value, max(bounds[0], float(low)), min(bounds[1], float(high))


Part = tuple[float, np.ndarray]  # its weight in the mean, scores as seeds × items


def _collapsed(strata: Sequence[np.ndarray]) -> list[Part]:
    """Strata with their weights; those of a single item are put into one."""
    singles = [scores for scores in strata if scores.shape[1] == 1]
    parts = [(1 / len(strata), scores) for scores in strata if scores.shape[1] > 1]
    if singles:
        parts.append((len(singles) / len(strata), np.concatenate(singles, axis=1)))
    return parts


def _unseen(parts: Sequence[Part], bounds: tuple[float, float]) -> tuple[float, float]:
    """How far below and above the mean may be for parts whose items show no spread."""
    below = above = 0.0
    for weight, scores in parts:
        items, mean = scores.shape[1], scores.mean()
        if items == 1 or np.ptp(scores) == 0:
            reach = weight * wilson(0, items)[1]
            below += (reach * (mean - bounds[0])) ** 2
            above += (reach * (bounds[1] - mean)) ** 2
    return sqrt(below), sqrt(above)


def _draws(parts: Sequence[Part], value: float, seed: int) -> np.ndarray:
    """Bootstrap draws of the weighted mean of the parts' means: DRAWS numbers."""
    rng = np.random.default_rng(seed)
    seeds = len(parts[0][1])
    by_seed, effects = np.zeros((DRAWS, seeds)), np.full(seeds, -value)
    for weight, scores in parts:
        count, means = scores.shape[1], scores.mean(axis=1)
        chosen = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS) / count
        by_seed += weight * (means + (chosen @ scores.T - means) * _widening(count))
        effects += weight * means
    chosen = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS) / seeds
    return (by_seed * chosen).sum(axis=1) + (_widening(seeds) - 1) * (chosen @ effects)


def _widening(count: int) -> float:
    return sqrt(count / (count - 1)) if count > 1 else 1.0


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    found = stats.binomtest(right, count).proportion_ci(LEVEL, method="wilson")
    return found.low, found.high


VERDICTS = ("right", "wrong", "unverifiable", "truncated")


def _counts(tables: Sequence[pd.DataFrame]) -> dict[str, Any]:
    first = tables[0].groupby(["benchmark", "id"]).size()
    samples = int(first.max())
    return {
        "items": len(first),
        "samples": samples,
        "seeds": len(tables),
        "right": sum(int(t["correct"].eq(True).sum()) for t in tables),
        "wrong": sum(int(t["correct"].eq(False).sum()) for t in tables),
        "unverifiable": sum(int(t["correct"].isna().sum()) for t in tables),
        "truncated": sum(int((~t["finished"].astype(bool)).sum()) for t in tables),
        "varies": _varies(samples, len(tables)),
    }


def _varies(samples: int, seeds: int) -> str:
    more = [name for name, count in (("samples", samples), ("seeds", seeds)) if count > 1]
    return ", ".join(["items", *more])


# ---------------------------------------------------------------- voting
def majority_vote(results: Dataset, votes: int) -> Dataset:
    """One row per item: the most frequent answer of its first `votes` samples.

    Samples without an answer do not vote; of equally frequent answers the one that came
    first wins, and so does the first way to write it. Numbers of one value are one answer,
    `0.5` and `1/2`; other answers that are equal as mathematics but not as cleaned text
    count as two. The paper reports pass@1 only; chapter 7 compares.
    """
    chosen = []
    for _, rows in results.to_pandas().groupby(["benchmark", "id"], sort=False):
        first = rows.sort_values("sample").head(votes)
        ballots = first["answer"].dropna().map(_ballot)
        counts = Counter(ballots)
        winner = counts.most_common(1)[0][0] if counts else None
        voted = ballots[ballots == winner] if counts else first
        chosen.append(int(voted.index[0]))
    return results.select(chosen)


def _ballot(answer: str) -> str:
    """What an answer counts as in a vote: a number's value with its unit, or the text."""
    found = number(answer)
    if found is None:
        return f"text {answer}"
    return f"number {found.value}{'%' if found.percent else ''} {found.unit}"


def consensus(results_by_seed: Sequence[Dataset], k: int, seed: int = 0) -> Estimate:
    """cons@k: the accuracy of the majority answer of each item's first k samples."""
    voted = [majority_vote(results, k) for results in results_by_seed]
    return accuracy(voted, seed=seed)


# ---------------------------------------------------------------- what can be separated
@dataclass(frozen=True)
class Spread:
    """How much the paired difference of two models varies, in one benchmark.

    `items` is the variance between items, `sampling` that of one sample of each model
    within an item; the difference of an item over n samples varies by items + sampling/n.
    With a single sample the two cannot be told apart and `sampling` is 0.
    """

    items: float
    sampling: float

    def at(self, samples: int = 1) -> float:
        """The standard deviation of an item's difference with `samples` samples each."""
        return sqrt(self.items + self.sampling / samples)


def spread(a: Sequence[Dataset], b: Sequence[Dataset]) -> Spread:
    """The spread of `a` minus `b` over the items of one benchmark, from a trial.

    Variances of a mean of n samples are estimated by p(1 − p)/(n − 1). Raises ValueError
    for several benchmarks, fewer than two items, or different items.
    """
    tables_a, tables_b = _both(a, b)
    one, other = _strata(tables_a, 1), _strata(tables_b, 1)
    if len(one) > 1 or one[0].shape[1] < 2:
        raise ValueError("a spread is that of one benchmark of two items or more")
    apart = one[0].mean(axis=0) - other[0].mean(axis=0)
    within = [_within(table) for table in (tables_a, tables_b)]
    sampling = sum(variance for variance, _ in within)
    of_means = sum(variance / samples for variance, samples in within)
    total = float(apart.var(ddof=1))
    return Spread(max(0.0, total - of_means), sampling)


def _within(tables: Sequence[pd.DataFrame]) -> tuple[float, int]:
    """(mean variance of one sample within an item, samples behind an item's score)."""
    variances, samples = [], 0
    for table in tables:
        grouped = table["correct"].eq(True).groupby([table["benchmark"], table["id"]])
        count = int(grouped.size().max())
        samples += count
        if count > 1:
            variances.append(float(grouped.var(ddof=1).mean()))
    return (float(np.mean(variances)) if variances else 0.0), samples


def independent_spread(share: float, other: float) -> Spread:
    """The spread of two models with these accuracies whose errors have nothing in common.

    The worst case for greedy answers: models that fail on the same items need fewer.
    """
    return Spread(share * (1 - share) + other * (1 - other), 0.0)


def power(gap: float, error: float, freedom: float) -> float:
    """The chance that a two-sided 5 % t-test finds a true difference of `gap`.

    `error` is the standard error of the measured difference, `freedom` its degrees of
    freedom (items − 1 in one benchmark).
    """
    limit = stats.t.ppf((1 + LEVEL) / 2, freedom)
    shift = gap / error
    wrong_way = stats.nct.cdf(-limit, freedom, shift)
    # NaN where it is too small to compute.
    return float(stats.nct.sf(limit, freedom, shift) + np.nan_to_num(wrong_way))


def detectable(error: float, freedom: float, chance: float = POWER) -> float:
    """The smallest true difference that is found with probability `chance`; see `power`.

    A difference of accuracies above 1 does not exist: such a benchmark separates nothing.
    0 where `error` is 0. Raises ValueError for less than one degree of freedom.
    """
    if freedom < 1:
        raise ValueError("two items or more are needed to tell models apart")
    if error == 0:
        return 0.0
    top = error * 2 * (stats.t.ppf((1 + LEVEL) / 2, freedom) + stats.t.ppf(chance, freedom))
    while power(top, error, freedom) < chance:
        top *= 2
    return float(brentq(lambda gap: power(gap, error, freedom) - chance, 0.0, top))


def items_needed(of: Spread, gap: float, samples: int = 1, chance: float = POWER) -> int:
    """How many items tell a true difference of `gap` with probability `chance`."""
    deviation = of.at(samples)
    if gap <= 0:
        raise ValueError(f"a difference of {gap} is never found: give a positive one")

    def enough(items: int) -> bool:
        return deviation == 0 or power(gap, deviation / sqrt(items), items - 1) >= chance

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def separates(results_by_seed: Sequence[Dataset], chance: float = POWER) -> float | None:
    """By how much another model must be better for these items to show it.

    The smallest difference that is found with probability `chance`, for a model of the
    same spread that answers the same items in the same way and whose errors have nothing
    in common with this one's: the worst case. `spread` and `detectable` give the figure
    for two models that were run. None where no benchmark has two items. Where all items
    are alike, the spread is that of the end of Wilson's interval.
    """
    strata = [scores.mean(axis=0) for scores in _strata(_tables(results_by_seed), 1)]
    freedom = sum(len(scores) - 1 for scores in strata)
    if freedom < 1 or any(len(scores) < 2 for scores in strata):
        return None
    variance = sum(_variance(scores) / len(scores) for scores in strata) / len(strata) ** 2
    return detectable(sqrt(2 * variance), freedom, chance)


def _tables(results_by_seed: Sequence[Dataset]) -> list[pd.DataFrame]:
    return [_table_of(results) for results in results_by_seed]


def _variance(scores: np.ndarray) -> float:
    if np.ptp(scores) > 0:
        return float(scores.var(ddof=1))
    share = wilson(0, len(scores))[1]
    return share * (1 - share)


# ---------------------------------------------------------------- two models
def comparison(
    a: Sequence[Dataset], b: Sequence[Dataset], names: tuple[str, str]
) -> list[dict[str, Any]]:
    """A row per group: `a` against `b` on the same items, paired.

    Besides the fields of `difference`: `better` and `worse`, the numbers of items on
    which `a` scores higher or lower; `p`, two-sided, of a permutation test that swaps the
    two models item by item; `detectable`, the difference that this many items with the
    spread found would show 8 times in 10 (None where items do not differ).
    """
    rows = []
    for group in groups(a[0]):
        one, other = (_part(side, group) for side in (a, b))
        facts = {"model": names[0], "against": names[1], "group": group}
        rows.append({**facts, **vars(difference(one, other)), **_paired(one, other)})
    return rows


def _part(tables: Sequence[Dataset], group: str) -> list[Dataset]:
    return [table.select(groups(table)[group]) for table in tables]


def _paired(a: Sequence[Dataset], b: Sequence[Dataset]) -> dict[str, Any]:
    """`better`, `worse`, `p` and `detectable` of `comparison`."""
    both = zip(*(_strata(tables, 1) for tables in _both(a, b)), strict=True)
    sides = [(one.mean(axis=0), other.mean(axis=0)) for one, other in both]
    # Each item's part in the mean of the benchmarks' means.
    parts = [(one / len(one), other / len(one)) for one, other in sides]
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


def table(results: Mapping[str, Sequence[Dataset]]) -> list[dict[str, Any]]:
    """A row per model and group with its estimate: what `limo-nb results` prints.

    `results` maps each model to its tables, one per fine-tuning seed.
    """
    rows = []
    for model, by_seed in results.items():
        for group in groups(by_seed[0]):
            parts = [part.select(groups(part)[group]) for part in by_seed]
            facts = dict(vars(accuracy(parts)))
            rows.append(
                {"model": model, "group": group, "accuracy": facts.pop("value"), **facts}
            )
    return rows


def told(row: Mapping[str, Any], signed: bool = False) -> str:
    """A row of `table`, or a difference, in percent or points: "63.4 (58.1 to 68.0)".

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
