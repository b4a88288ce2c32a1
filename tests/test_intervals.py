"""Intervals against published formulas, and their coverage in simulated studies."""

import numpy as np
import pytest
from graded import greedy, results_of
from scipy import stats

from limo_nb.evaluation import (
    SimulatedWorld,
    accuracy,
    difference,
    separates,
    simulated_coverage,
)
from limo_nb.evaluation.intervals import (
    difference_interval,
    of_seeds,
    share_interval,
    wilson,
)

STUDIES, SEEDS, ITEMS = 400, 3, 100

# ---------------------------------------------------------------- known values
WILSON = [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (20, 40, 0.3520, 0.6480)]


@pytest.mark.parametrize(("right", "count", "low", "high"), WILSON)
def test_wilson_by_the_published_formula(right, count, low, high):
    assert wilson(right, count) == pytest.approx((low, high), abs=1e-4)
    exact = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right, count) == pytest.approx((exact.low, exact.high))
    found = accuracy([greedy(right, count)])
    assert found.value == right / count
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_samples_of_an_item_are_one_cluster():
    rng = np.random.default_rng(1)
    samples = [[bool(x) for x in row] for row in rng.random((60, 4)) < rng.random((60, 1))]
    found = accuracy([results_of({"in": samples})])
    means = np.mean(samples, axis=1)
    half = 1.96 * means.std(ddof=1) / np.sqrt(60)
    assert found.value == pytest.approx(means.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert found.samples == 4 and found.items == 60


def test_where_seeds_differ_and_nothing_else_the_interval_is_student_s():
    seeds = np.array([0.45, 0.5, 0.6])
    scores = np.repeat(seeds[:, None], 10_000, axis=1)
    exact = stats.t.interval(0.95, 2, seeds.mean(), seeds.std(ddof=1) / np.sqrt(3))
    found = difference_interval([scores])
    assert found == pytest.approx((seeds.mean(), *exact), abs=2e-4)


def test_seeds_that_differ_by_chance_alone_add_nothing_on_average():
    rng = np.random.default_rng(2)
    found = [of_seeds([rng.random((3, 200)) < 0.5]) for _ in range(300)]
    chance = 0.25 / 200 / 3
    assert min(found) == 0 and np.mean(found) < chance / 2
    apart = rng.random((3, 200)) < np.array([[0.2], [0.5], [0.8]])
    assert of_seeds([apart]) == pytest.approx(0.03, abs=0.01)
    assert of_seeds([apart[:1]]) == 0


# ---------------------------------------------------------------- coverage
# Mean logit and deviations between items and between seeds: about 0.5 and about 0.95 right.
WORLDS = [(0.0, 1.0, 0.0), (0.0, 2.0, 0.15), (0.0, 1.0, 0.3), (0.0, 1.0, 1.0),
          (3.6, 1.0, 0.0), (4.6, 2.0, 0.15), (3.6, 1.0, 0.3), (3.8, 1.0, 1.0)]  # fmt: skip


@pytest.mark.parametrize("benchmarks", [1, 10])
@pytest.mark.parametrize(("mean", "items", "seeds"), WORLDS)
def test_accuracies_are_covered(mean, items, seeds, benchmarks):
    world = SimulatedWorld(mean, items, seeds)
    share = simulated_coverage(world, STUDIES, ITEMS, SEEDS, benchmarks)
    told = f"accuracy {world.truth:.2f}, {benchmarks} benchmarks, seeds' deviation {seeds}"
    print(f"{told}: {share:.3f} covered")
    assert share >= 0.90


@pytest.mark.parametrize("benchmarks", [1, 10])
@pytest.mark.parametrize("gain", [0.0, 0.8])
@pytest.mark.parametrize(("mean", "items", "seeds"), WORLDS)
def test_paired_differences_are_covered(mean, items, seeds, gain, benchmarks):
    """Two models that find the same items hard, and each item a little otherwise."""
    world = SimulatedWorld(mean, items, seeds, gain)
    share = simulated_coverage(world, STUDIES, ITEMS, SEEDS, benchmarks, seed=12)
    told = f"difference {world.truth:.2f}, {benchmarks} benchmarks, seeds' deviation {seeds}"
    print(f"{told}: {share:.3f} covered")
    assert share >= 0.90


def test_a_simulated_world_knows_its_truth():
    assert SimulatedWorld(0.0, 1.0, 0.5).truth == pytest.approx(0.5)
    assert SimulatedWorld(0.0, 1.0, 0.5, gain=0.0).truth == 0
    large = SimulatedWorld(1.0, 1.0, 0.5).study(np.random.default_rng(3), 4000, 400)
    assert large.mean() == pytest.approx(SimulatedWorld(1.0, 1.0, 0.5).truth, abs=0.01)
    with pytest.raises(ValueError, match="100 items do not fill 3 benchmarks"):
        simulated_coverage(SimulatedWorld(0.0, 1.0, 0.0), benchmarks=3)


# Benchmarks, items, share right; one seed.
FEW = [(4, 3, 0.05), (4, 3, 0.4), (10, 1, 0.4), (10, 2, 0.4), (1, 40, 0.5), (1, 40, 0.9)]


@pytest.mark.parametrize(("benchmarks", "items", "share"), FEW)
def test_coverage_where_there_are_few_items(benchmarks, items, share):
    rng, hits = np.random.default_rng(5), 0
    for _ in range(STUDIES):
        right = (rng.random((benchmarks, 1, items)) < share).astype(float)
        _, low, high = share_interval(list(right))
        hits += low <= share <= high
    assert hits / STUDIES >= 0.93


# ---------------------------------------------------------------- items that are alike
@pytest.mark.parametrize("right", [0, 30])
def test_equal_outcomes_do_not_give_a_point(right):
    found = accuracy([greedy(right, 30)] * 3)
    assert (found.low, found.high) == pytest.approx(wilson(right, 30))


SINGLE = [  # samples of one item, bounds of its interval
    ([[True]], wilson(1, 1)),
    ([[False]], wilson(0, 1)),
    ([[True, True, True, True]], wilson(1, 1)),
]


@pytest.mark.parametrize(("items", "bounds"), SINGLE)
def test_one_item_says_little(items, bounds):
    found = accuracy([results_of({"in": items})])
    assert (found.low, found.high) == pytest.approx(bounds)


def test_seeds_and_one_item_do_not_make_a_point():
    found = accuracy([results_of({"in": [[right]]}) for right in (True, False, True)])
    assert found.low < 0.2 and found.high > 0.95 and found.varies == "items, seeds"


def test_benchmarks_of_one_item_each_are_no_surer_than_one_benchmark():
    found = accuracy([results_of({f"in {n}": [[n % 2 == 0]] for n in range(10)})])
    low, high = wilson(5, 10)
    assert found.value == 0.5 and found.low < low and high < found.high < 0.9
    alike = accuracy([results_of({f"in {n}": [[True]] for n in range(10)})])
    assert 0.5 < alike.low < wilson(10, 10)[0] and alike.high == 1


def test_benchmarks_whose_items_are_alike_are_not_certain():
    found = accuracy([results_of({"in a": [[True]] * 6, "in b": [[False]] * 6})])
    assert found.low == pytest.approx(1 - found.high) and 0.3 < found.low < 0.4


@pytest.mark.parametrize("gap", [0, 1])
def test_one_item_separates_nothing(gap):
    found = difference([results_of({"in": [[True]]})], [results_of({"in": [[not gap]]})])
    assert found.value == gap and found.low < 0 and found.high == 1
    assert separates([results_of({"in": [[True]]})]) is None
