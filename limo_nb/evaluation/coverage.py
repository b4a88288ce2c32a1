"""How often the intervals hold the truth: simulated studies (chapter 11).

A world of items and seeds is made up, in which the true accuracy is known; studies are drawn
from it, each gets its interval, and those that hold the truth are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from limo_nb.evaluation.intervals import difference_interval, share_interval

OWN = 0.5  # deviation of an item's difficulty for one model from that for both


@dataclass(frozen=True)
class SimulatedWorld:
    """Chances of a right answer: logits around `mean`, which items and seeds move."""

    mean: float
    items: float  # standard deviation over items
    seeds: float  # over fine-tuning seeds
    gain: float | None = None  # of a second model, for paired differences; None: one model

    @property
    def truth(self) -> float:
        """The accuracy over all items and seeds, or the difference of both models."""
        own = 0.0 if self.gain is None else OWN
        deviation = float(np.sqrt(self.items**2 + self.seeds**2 + own**2))
        if self.gain is None:
            return _mean_share(self.mean, deviation)
        return _mean_share(self.mean + self.gain, deviation) - _mean_share(self.mean, deviation)

    def study(self, rng: np.random.Generator, items: int, seeds: int) -> np.ndarray:
        """One study's outcomes, seeds × items: right or wrong, or their differences."""
        hard = rng.normal(0, self.items, items)
        if self.gain is None:
            return self._answers(rng, self.mean, hard, seeds)
        one, other = (
            self._answers(rng, at, hard + rng.normal(0, OWN, items), seeds)
            for at in (self.mean + self.gain, self.mean)
        )
        return one - other

    def _answers(
        self, rng: np.random.Generator, mean: float, own: np.ndarray, seeds: int
    ) -> np.ndarray:
        of_seed = rng.normal(0, self.seeds, (seeds, 1))
        chance = 1 / (1 + np.exp(-(mean + own + of_seed)))
        return (rng.random(chance.shape) < chance).astype(float)


def simulated_coverage(
    world: SimulatedWorld, studies: int = 400, items: int = 100, seeds: int = 3,
    benchmarks: int = 10, seed: int = 11,
) -> float:  # fmt: skip
    """The share of simulated studies whose 95 % interval holds the truth.

    `items` over `benchmarks` benchmarks, which they must fill evenly (ValueError), answered by
    models of `seeds` fine-tuning seeds.
    """
    if items % benchmarks:
        raise ValueError(f"{items} items do not fill {benchmarks} benchmarks evenly")
    rng, truth, hits = np.random.default_rng(seed), world.truth, 0
    interval = share_interval if world.gain is None else difference_interval
    for _ in range(studies):
        strata = np.split(world.study(rng, items, seeds), benchmarks, axis=1)
        _, low, high = interval(strata)
        hits += low <= truth <= high
    return hits / studies


def _mean_share(mean: float, deviation: float) -> float:
    """The mean chance over logits of this mean and deviation."""
    places, weights = np.polynomial.hermite_e.hermegauss(80)
    shares = 1 / (1 + np.exp(-(mean + deviation * places)))
    return float((weights * shares).sum() / weights.sum())
