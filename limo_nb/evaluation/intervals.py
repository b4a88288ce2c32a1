"""Intervals of means over items that are crossed with training seeds (chapter 8).

Every seed's model answers every item, so a mean varies in two ways that do not add up
answer by answer: other items might have been set, and other seeds might have been trained.
Both are clusters of answers. Their variances are estimated apart, from the means of the
items and from the means of the seeds, as in the analysis of variance of a crossed design
(Searle, Casella and McCulloch 1992, *Variance Components*, chapter 4; for clusters in two
directions, Cameron, Gelbach and Miller 2011, J. Business & Economic Statistics 29).

Scores come as strata: an array of seeds × items for each benchmark, of the same seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from scipy import stats

LEVEL = 0.95

Interval = tuple[float, float, float]  # value, low, high
Strata = Sequence[np.ndarray]  # for each benchmark: seeds × items


def normal(level: float = LEVEL) -> float:
    """How many standard errors an interval of `level` reaches to either side."""
    return float(stats.norm.ppf((1 + level) / 2))


def wilson(right: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; neither number need be whole."""
    reach = normal()
    share, squared = right / count, reach**2 / count
    middle = (share + squared / 2) / (1 + squared)
    half = reach / (1 + squared) * sqrt(share * (1 - share) / count + squared / count / 4)
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def share_interval(strata: Strata) -> Interval:
    """The mean over strata of scores in 0..1, with its 95 % interval.

    Wilson's interval for as many independent items as would vary as much: the effective
    sample size (Korn and Graubard 1998, Survey Methodology 24). One stratum of right and
    wrong answers of one seed: Wilson's interval of the items themselves.
    """
    value, (middle, items) = _mean(strata), _of_items(strata, (0.0, 1.0))
    count = sum(scores.shape[1] for scores in strata)
    of_one = middle * (1 - middle) * (count + 1) / count  # were there one stratum, unbiased
    effective = of_one / (items + _widened(strata))
    return value, *wilson(effective * value, effective)


def difference_interval(strata: Strata, level: float = LEVEL) -> Interval:
    """The mean over strata of paired differences in −1..1, with its interval.

    As far up as down, within −1..1.
    """
    value, (_, items) = _mean(strata), _of_items(strata, (-1.0, 1.0))
    half = normal(level) * sqrt(items + _widened(strata, level))
    return value, max(-1.0, value - half), min(1.0, value + half)


def _mean(strata: Strata) -> float:
    return float(np.mean([scores.mean() for scores in strata]))


def _of_items(strata: Strata, bounds: tuple[float, float]) -> tuple[float, float]:
    """The mean of stratum means, and its variance over draws of other items.

    To each stratum half an item at either of the `bounds` is added first: items that all
    came out alike do not show that none differs. For shares that is Jeffreys' prior, for
    paired differences the advice of Agresti and Min (2005, Statistics in Medicine 24).
    """
    middles, variances = [], []
    for scores in strata:
        count = scores.shape[1]
        means = np.append(scores.mean(axis=0), bounds)
        weights = np.append(np.ones(count), [0.5, 0.5])
        middle = np.average(means, weights=weights)
        middles.append(middle)
        # Of count + 1 items, around their own mean: one degree of freedom less.
        variances.append(weights @ (means - middle) ** 2 / count / count)
    return float(np.mean(middles)), float(np.sum(variances)) / len(strata) ** 2


def _widened(strata: Strata, level: float = LEVEL) -> float:
    """What seeds add to the variance, times the square of Student's t over the normal's.

    Three seeds have two degrees of freedom: their share of the interval reaches 4.3
    standard errors instead of 1.96. Each component of variance gets the quantile of its
    own degrees of freedom (after Cochran 1964, Biometrics 20), and items, which are many,
    that of the normal distribution.
    """
    seeds = len(strata[0])
    if seeds == 1:
        return 0.0
    student = stats.t.ppf((1 + level) / 2, seeds - 1)
    return of_seeds(strata) * float(student / normal(level)) ** 2


def of_seeds(strata: Strata) -> float:
    """The variance of the mean over draws of other seeds; 0 with one seed.

    From the means of the seeds, less what the noise of single answers does to them, which
    the variance over items has already. Less than nothing counts as nothing.
    """
    seeds = len(strata[0])
    if seeds == 1:
        return 0.0
    means = np.mean([scores.mean(axis=1) for scores in strata], axis=0)
    noise = sum(map(_noise, strata)) / len(strata) ** 2
    return max(0.0, float(means.var(ddof=1)) - noise) / seeds


def _noise(scores: np.ndarray) -> float:
    """The variance that a seed's mean over the items has from single answers.

    From what remains of each answer without its item's and its seed's mean; of one item
    nothing remains, and 0 is on the safe side.
    """
    seeds, items = scores.shape
    if items == 1:
        return 0.0
    by_item, by_seed = scores.mean(axis=0), scores.mean(axis=1, keepdims=True)
    remains = scores - by_item - by_seed + scores.mean()
    return float((remains**2).sum()) / ((seeds - 1) * (items - 1) * items)
