"""Which differences a benchmark can show: power, and numbers of items (chapter 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from datasets import Dataset
from scipy import stats
from scipy.optimize import brentq

from limo_nb.evaluation.estimates import paired_strata, strata
from limo_nb.evaluation.intervals import LEVEL, wilson

POWER = 0.8  # chance that a difference which is there is found


@dataclass(frozen=True)
class PairedVariance:
    """How much the paired difference of two models varies, in one benchmark.

    `items` is the variance between items, `sampling` that of one sample of each model
    within an item; the difference of an item over n samples varies by items + sampling/n.
    With a single sample the two cannot be told apart and `sampling` is 0.
    """

    items: float
    sampling: float

    def deviation(self, samples: int = 1) -> float:
        """The standard deviation of an item's difference with `samples` samples each."""
        return sqrt(self.items + self.sampling / samples)


def paired_variance(a: Sequence[Dataset], b: Sequence[Dataset]) -> PairedVariance:
    """The variance of `a` minus `b` over the items of one benchmark, from a trial.

    Variances of a mean of n samples are estimated by p(1 − p)/(n − 1). Raises ValueError
    for several benchmarks, fewer than two items, or different items.
    """
    one, other = paired_strata(a, b)
    if len(one) > 1 or one[0].shape[1] < 2:
        raise ValueError("a paired variance is that of one benchmark of two items or more")
    apart = one[0].mean(axis=0) - other[0].mean(axis=0)
    within = [_within(side) for side in (a, b)]
    sampling = sum(variance for variance, _ in within)
    of_means = sum(variance / samples for variance, samples in within)
    return PairedVariance(max(0.0, float(apart.var(ddof=1)) - of_means), sampling)


def _within(results_by_seed: Sequence[Dataset]) -> tuple[float, int]:
    """(mean variance of one sample within an item, samples behind an item's score)."""
    variances, samples = [], 0
    for results in results_by_seed:
        table = results.select_columns(["benchmark", "id", "correct"]).to_pandas()
        grouped = table["correct"].eq(True).groupby([table["benchmark"], table["id"]])
        count = int(grouped.size().max())
        samples += count
        if count > 1:
            variances.append(float(grouped.var(ddof=1).mean()))
    return (float(np.mean(variances)) if variances else 0.0), samples


def independent_variance(share: float, other: float) -> PairedVariance:
    """That of two models with these accuracies whose errors have nothing in common.

    The worst case for greedy answers: models that fail on the same items need fewer.
    """
    return PairedVariance(share * (1 - share) + other * (1 - other), 0.0)


def t_test_power(gap: float, error: float, freedom: float) -> float:
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
    """The smallest true difference that is found with probability `chance`; see `t_test_power`.

    A difference of accuracies above 1 does not exist: such a benchmark separates nothing.
    0 where `error` is 0. Raises ValueError for less than one degree of freedom.
    """
    if freedom < 1:
        raise ValueError("two items or more are needed to tell models apart")
    if error == 0:
        return 0.0
    top = error * 2 * (stats.t.ppf((1 + LEVEL) / 2, freedom) + stats.t.ppf(chance, freedom))
    while t_test_power(top, error, freedom) < chance:
        top *= 2
    return float(brentq(lambda gap: t_test_power(gap, error, freedom) - chance, 0.0, top))


def items_needed(
    of: PairedVariance, gap: float, samples: int = 1, chance: float = POWER
) -> int:
    """How many items tell a true difference of `gap` with probability `chance`."""
    deviation = of.deviation(samples)
    if gap <= 0:
        raise ValueError(f"a difference of {gap} is never found: give a positive one")

    def enough(items: int) -> bool:
        return deviation == 0 or t_test_power(gap, deviation / sqrt(items), items - 1) >= chance

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
    same variance that answers the same items in the same way and whose errors have nothing
    in common with this one's: the worst case. `paired_variance` and `detectable` give the
    figure for two models that were run. None where no benchmark has two items. Where all
    items are alike, the variance is that of the end of Wilson's interval.
    """
    scores = [by_seed.mean(axis=0) for by_seed in strata(results_by_seed)]
    freedom = sum(len(own) - 1 for own in scores)
    if freedom < 1 or any(len(own) < 2 for own in scores):
        return None
    variance = sum(_variance(own) / len(own) for own in scores) / len(scores) ** 2
    return detectable(sqrt(2 * variance), freedom, chance)


def _variance(scores: np.ndarray) -> float:
    if np.ptp(scores) > 0:
        return float(scores.var(ddof=1))
    share = wilson(0, len(scores))[1]
    return share * (1 - share)
