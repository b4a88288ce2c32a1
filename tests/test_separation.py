"""Power and numbers of items, against simulations and textbook numbers."""

import numpy as np
import pytest
from graded import greedy, results_of
from scipy import stats

from limo_nb.evaluation import separation
from limo_nb.evaluation.separation import detectable, items_needed, separates


def test_power_is_that_of_simulated_t_tests():
    gap, deviation, items, rng = 0.15, 0.5, 40, np.random.default_rng(1)
    apart = rng.normal(gap, deviation, (6000, items))
    share = (stats.ttest_1samp(apart, 0, axis=1).pvalue < 0.05).mean()
    found = separation.t_test_power(gap, deviation / np.sqrt(items), items - 1)
    assert found == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(("items", "deviation"), [(3, 0.4), (30, 0.7), (500, 0.5)])
def test_detectable_and_items_needed_agree(items, deviation):
    gap = detectable(deviation / np.sqrt(items), items - 1)
    assert separation.t_test_power(gap, deviation / np.sqrt(items), items - 1) == pytest.approx(
        0.8
    )
    assert items_needed(separation.PairedVariance(deviation**2, 0.0), gap * 1.0001) == items


def test_the_textbook_number_of_items():
    # (1.96 + 0.8416)² · 2 · 0.25 / 0.05² = 1,570 for two shares near one half.
    assert items_needed(separation.independent_variance(0.5, 0.5), 0.05) == pytest.approx(
        1570, abs=3
    )
    assert items_needed(separation.PairedVariance(0.0, 0.0), 0.05) == 2


def test_more_samples_remove_the_chance_within_items_only():
    rng = np.random.default_rng(2)
    easy = rng.random(400)
    sides = [
        results_of({"in": [[bool(x) for x in row] for row in rng.random((400, 4)) < p]})
        for p in (easy[:, None], np.minimum(1, easy + 0.2)[:, None])
    ]
    found = separation.paired_variance([sides[0]], [sides[1]])
    truth = np.mean(easy * (1 - easy)) + np.mean(
        np.minimum(1, easy + 0.2) * (1 - np.minimum(1, easy + 0.2))
    )
    assert found.sampling == pytest.approx(truth, rel=0.1)
    assert found.items == pytest.approx(np.var(np.minimum(1, easy + 0.2) - easy), abs=0.01)
    assert found.deviation(1) > found.deviation(4) > np.sqrt(found.items)


def test_thirty_items_separate_little():
    gap = separates([greedy(15, 30)])
    assert 0.3 < gap < 0.45
    assert separates([greedy(250, 500)]) < 0.1
    assert separates([greedy(0, 30)]) > 0.1  # all alike: not certain


@pytest.mark.parametrize("value", [0.0, -0.1])
def test_no_difference_is_never_found(value):
    with pytest.raises(ValueError, match="never found"):
        items_needed(separation.PairedVariance(0.25, 0.0), value)
    with pytest.raises(ValueError, match="two items or more"):
        detectable(0.1, 0)
