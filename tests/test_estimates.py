"""Estimates against known values, published formulas and simulations."""

from itertools import combinations

import numpy as np
import pytest
from datasets import Dataset
from scipy import stats

from limo_nb.evaluation import estimates
from limo_nb.evaluation.attempts import RESULTS
from limo_nb.evaluation.estimates import (
    accuracy,
    consensus,
    detectable,
    difference,
    items_needed,
    majority_vote,
    pass_at_k,
    separates,
    table,
    wilson,
)


def results_of(scores: dict[str, list[list[bool | None]]]) -> Dataset:
    """Rows of results: benchmark → items → samples."""
    rows = [
        {"benchmark": name, "in_domain": name.startswith("in"), "level": 5,
         "id": f"{name}-{item}", "sample": sample, "correct": correct,
         "answer": str(correct), "reason": "", "text": "", "tokens": 3, "finished": True}
        for name, items in scores.items()
        for item, samples in enumerate(items)
        for sample, correct in enumerate(samples)
    ]  # fmt: skip
    return Dataset.from_list(rows, features=RESULTS)


def greedy(right: int, count: int, name: str = "in") -> Dataset:
    """One sample for each of `count` items, the first `right` of them correct."""
    return results_of({name: [[item < right] for item in range(count)]})


PASS_AT_K = [  # n, c, k, value
    (1, 0, 1, 0.0), (1, 1, 1, 1.0), (4, 1, 1, 0.25), (4, 1, 4, 1.0), (4, 2, 2, 5 / 6),
    (10, 3, 5, 1 - 21 / 252), (10, 0, 7, 0.0), (10, 6, 5, 1.0), (200, 13, 1, 13 / 200),
]  # fmt: skip


@pytest.mark.parametrize(("n", "c", "k", "value"), PASS_AT_K)
def test_pass_at_k(n, c, k, value):
    assert pass_at_k(n, c, k) == pytest.approx(value)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 3), (6, 1, 2), (7, 4, 4)])
def test_pass_at_k_is_the_mean_over_all_choices(n, c, k):
    chosen = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(np.mean([any(part) for part in chosen]))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 4, 1), (3, 1, 0), (3, -1, 1)])
def test_undefined_pass_at_k(n, c, k):
    with pytest.raises(ValueError, match="undefined"):
        pass_at_k(n, c, k)


WILSON = [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (20, 40, 0.3520, 0.6480)]


@pytest.mark.parametrize(("right", "count", "low", "high"), WILSON)
def test_wilson_by_the_published_formula(right, count, low, high):
    assert wilson(right, count) == pytest.approx((low, high), abs=1e-4)
    found = accuracy([greedy(right, count)])
    assert found.value == right / count
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_the_bootstrap_has_the_variance_of_the_mean():
    rng = np.random.default_rng(1)
    samples = [[bool(x) for x in row] for row in rng.random((60, 4)) < rng.random((60, 1))]
    found = accuracy([results_of({"in": samples})])
    means = np.mean(samples, axis=1)
    half = 1.96 * means.std(ddof=1) / np.sqrt(60)
    assert found.value == pytest.approx(means.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert found.samples == 4 and found.items == 60


def test_benchmarks_weigh_the_same_whatever_their_size():
    scores = {"in a": [[True]] * 10, "out b": [[False]] * 90 + [[True]] * 10}
    assert accuracy([results_of(scores)]).value == pytest.approx((1.0 + 0.1) / 2)


@pytest.mark.parametrize("right", [0, 30])
def test_equal_outcomes_do_not_give_a_point(right):
    found = accuracy([greedy(right, 30)] * 3)
    assert found.high - found.low == pytest.approx(wilson(0, 30)[1])


def test_what_is_not_verified_or_cut_off_is_counted():
    rows = results_of({"in": [[True], [None], [False], [False]]}).to_list()
    rows[3]["finished"] = False
    found = accuracy([Dataset.from_list(rows, features=RESULTS)])
    assert (found.value, found.unverifiable, found.truncated) == (0.25, 1, 1)
    assert (found.right, found.wrong) == (1, 2)


def simulated(rng: np.random.Generator, seeds: int, items: int) -> list[Dataset]:
    """Items of random difficulty, answered by models whose seeds differ; mean 1/2."""
    hard = rng.normal(0, 1, items)
    skill = rng.normal(0, 0.3, seeds)
    return [
        results_of({"in": [[bool(x)] for x in rng.normal(s, 1, items) > hard]}) for s in skill
    ]


def test_coverage_with_three_seeds():
    rng, hits, runs = np.random.default_rng(7), 0, 60
    for _ in range(runs):
        found = accuracy(simulated(rng, 3, 30))
        hits += found.low <= 0.5 <= found.high
    assert hits / runs >= 0.88  # 0.98 in 150 runs with 40 items; one seed alone has 0.86


def test_paired_differences_are_narrower_than_unpaired():
    rng = np.random.default_rng(3)
    base = [[bool(x)] for x in rng.random(80) < 0.5]
    better = [[was or bool(more)] for (was,), more in zip(base, rng.random(80) < 0.2)]  # noqa: B905
    a, b = [results_of({"in": better})], [results_of({"in": base})]
    found, one, other = difference(a, b), accuracy(a), accuracy(b)
    assert found.value == pytest.approx(one.value - other.value)
    assert found.low > 0
    assert found.high - found.low < np.hypot(one.high - one.low, other.high - other.low)
    assert difference(b, a).value == pytest.approx(-found.value)


def test_no_difference_is_not_certain():
    found = difference([greedy(10, 30)], [greedy(10, 30)])
    assert found.value == 0 and found.low == pytest.approx(-found.high) and found.high > 0.05


def test_an_untuned_model_is_paired_with_every_seed():
    found = difference([greedy(20, 30), greedy(25, 30), greedy(22, 30)], [greedy(5, 30)])
    assert found.value == pytest.approx((20 + 25 + 22) / 90 - 5 / 30)
    assert found.seeds == 3 and found.low < found.value < found.high


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="3 and 2 seeds cannot be paired"):
        difference([greedy(1, 3)] * 3, [greedy(1, 3)] * 2)
    with pytest.raises(ValueError, match="not over the same items: in/in-3 differs"):
        difference([greedy(1, 3)], [greedy(1, 4)])
    with pytest.raises(ValueError, match="no results"):
        accuracy([])


def test_estimates_repeat_and_do_not_depend_on_row_order():
    rows = results_of({"in a": [[True], [False]] * 9, "out b": [[True], [False]] * 5})
    turned = rows.select(range(len(rows) - 1, -1, -1))
    assert accuracy([rows, rows]) == accuracy([turned, turned])


def test_table_has_a_row_for_each_group():
    scores = {"in a": [[True]] * 4, "in b": [[False], [True]], "out c": [[False]] * 3}
    rows = table({"LIMO": [results_of(scores)] * 3})
    values = {row["group"]: row["accuracy"] for row in rows}
    assert values == {
        "in a": 1.0, "in b": 0.5, "out c": 0.0,
        "in domain": 0.75, "out of domain": 0.0, "all": 0.5,
    }  # fmt: skip
    assert set(rows[0]) == {
        "model", "group", "accuracy", "low", "high", "items", "samples", "seeds",
        "right", "wrong", "unverifiable", "truncated", "varies",
    }  # fmt: skip
    single = table({"base": [results_of({"in a": [[True], [False]]})]})
    assert [row["group"] for row in single] == ["in a"]


VOTES = [  # answers with their verdicts, votes, the winner's verdict
    ("3+ 3+ 7-", 3, True), ("3+ 7- 7-", 3, False), ("7- 3+ 3+", 2, False),
    ("7- 3+", 2, False), ("", 1, False), ("0 3+ 0", 3, True),
]  # fmt: skip


@pytest.mark.parametrize(("spelled", "votes", "correct"), VOTES)
def test_majority_vote(spelled, votes, correct):
    rows = results_of({"in": [[False] * max(1, len(spelled.split()))]}).to_list()
    for row in rows:
        row["answer"] = None
    for row, word in zip(rows, spelled.split(), strict=False):
        row["answer"], row["correct"] = (
            (None, False) if word == "0" else (word[0], word[1] == "+")
        )
    voted = majority_vote(Dataset.from_list(rows, features=RESULTS), votes)
    assert len(voted) == 1 and voted[0]["correct"] is correct


MERGED = [  # answers of which the first loses to the others, or does not
    (["7", "0.5", r"\frac12"], "0.5"), (["7", "1/2", "0.50", "7", "0.5"], "1/2"),
    (["7", "1,000", "1000"], "1,000"), (["7", "x+1", "1+x"], "7"),
    (["7", "5 cm", "5"], "7"), (["7", "50%", "50"], "7"),
]  # fmt: skip


@pytest.mark.parametrize(("answers", "winner"), MERGED)
def test_numbers_of_one_value_vote_together(answers, winner):
    rows = results_of({"in": [[False] * len(answers)]}).to_list()
    for row, answer in zip(rows, answers, strict=True):
        row["answer"] = answer
    voted = majority_vote(Dataset.from_list(rows, features=RESULTS), len(answers))
    assert voted["answer"][0] == winner


def test_cons_at_k_is_the_accuracy_of_the_majority():
    answers = {"in": [[True, True, False, False, False], [True, False, True, True, False]]}
    assert [consensus([results_of(answers)], k).value for k in (1, 3, 5)] == [1.0, 1.0, 0.5]


# ------------------------------------------------------- items that show no spread
SINGLE = [  # samples of one item, bounds of its interval
    ([[True]], wilson(1, 1)),
    ([[False]], wilson(0, 1)),
    ([[True, True, True, True]], (1 - 0.793, 1.0)),
    ([[True, False]], (0.5 - 0.793 / 2, 0.5 + 0.793 / 2)),
]


@pytest.mark.parametrize(("items", "bounds"), SINGLE)
def test_one_item_says_little(items, bounds):
    found = accuracy([results_of({"in": items})])
    assert (found.low, found.high) == pytest.approx(bounds, abs=1e-3)


def test_seeds_and_one_item_do_not_make_a_point():
    found = accuracy([results_of({"in": [[right]]}) for right in (True, False, True)])
    assert found.low < 0.2 and found.high == 1.0 and found.varies == "items, seeds"


def test_benchmarks_of_one_item_each_are_as_one_benchmark():
    found = accuracy([results_of({f"in {n}": [[n % 2 == 0]] for n in range(10)})])
    low, high = wilson(5, 10)
    assert found.value == 0.5 and found.low < low and high < found.high < 0.9
    alike = accuracy([results_of({f"in {n}": [[True]] for n in range(10)})])
    assert (alike.low, alike.high) == pytest.approx(wilson(10, 10))


def test_benchmarks_whose_items_are_alike_are_not_certain():
    found = accuracy([results_of({"in a": [[True]] * 6, "in b": [[False]] * 6})])
    reach = wilson(0, 6)[1] / 2
    assert (found.low, found.high) == pytest.approx((0.5 - reach, 0.5 + reach))


@pytest.mark.parametrize(("gap", "low", "high"), [(0, -0.793, 0.793), (1, 1 - 2 * 0.793, 1)])
def test_one_item_separates_nothing(gap, low, high):
    found = difference([results_of({"in": [[True]]})], [results_of({"in": [[not gap]]})])
    assert (found.value, found.low, found.high) == pytest.approx((gap, low, high), abs=1e-3)
    assert separates([results_of({"in": [[True]]})]) is None


FEW = [(4, 3, 0.05), (4, 3, 0.4), (10, 1, 0.4), (10, 2, 0.4)]  # benchmarks, items, share


@pytest.mark.parametrize(("benchmarks", "items", "share"), FEW)
def test_coverage_where_benchmarks_have_few_items(benchmarks, items, share):
    rng, hits, runs = np.random.default_rng(5), 0, 60
    for _ in range(runs):
        right = rng.random((benchmarks, items)) < share
        drawn = {f"in {n}": [[bool(x)] for x in row] for n, row in enumerate(right)}
        found = accuracy([results_of(drawn)])
        hits += found.low <= share <= found.high
    assert hits / runs >= 0.93


VARIES = [(1, 1, "items"), (4, 1, "items, samples"), (2, 3, "items, samples, seeds")]


@pytest.mark.parametrize(("samples", "seeds", "what"), VARIES)
def test_a_table_says_what_varies(samples, seeds, what):
    found = results_of({"in": [[True] * samples, [False] * samples]})
    assert table({"m": [found] * seeds})[0]["varies"] == what


# ------------------------------------------------------- what can be separated
def test_power_is_that_of_simulated_t_tests():
    gap, deviation, items, rng = 0.15, 0.5, 40, np.random.default_rng(1)
    apart = rng.normal(gap, deviation, (6000, items))
    share = (stats.ttest_1samp(apart, 0, axis=1).pvalue < 0.05).mean()
    found = estimates.power(gap, deviation / np.sqrt(items), items - 1)
    assert found == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(("items", "deviation"), [(3, 0.4), (30, 0.7), (500, 0.5)])
def test_detectable_and_items_needed_agree(items, deviation):
    gap = detectable(deviation / np.sqrt(items), items - 1)
    assert estimates.power(gap, deviation / np.sqrt(items), items - 1) == pytest.approx(0.8)
    assert items_needed(estimates.Spread(deviation**2, 0.0), gap * 1.0001) == items


def test_the_textbook_number_of_items():
    # (1.96 + 0.8416)² · 2 · 0.25 / 0.05² = 1,570 for two shares near one half.
    assert items_needed(estimates.independent_spread(0.5, 0.5), 0.05) == pytest.approx(
        1570, abs=3
    )
    assert items_needed(estimates.Spread(0.0, 0.0), 0.05) == 2


def test_more_samples_remove_the_chance_within_items_only():
    rng = np.random.default_rng(2)
    easy = rng.random(400)
    sides = [
        results_of({"in": [[bool(x) for x in row] for row in rng.random((400, 4)) < p]})
        for p in (easy[:, None], np.minimum(1, easy + 0.2)[:, None])
    ]
    found = estimates.spread([sides[0]], [sides[1]])
    truth = np.mean(easy * (1 - easy)) + np.mean(
        np.minimum(1, easy + 0.2) * (1 - np.minimum(1, easy + 0.2))
    )
    assert found.sampling == pytest.approx(truth, rel=0.1)
    assert found.items == pytest.approx(np.var(np.minimum(1, easy + 0.2) - easy), abs=0.01)
    assert found.at(1) > found.at(4) > np.sqrt(found.items)


def test_thirty_items_separate_little():
    gap = separates([greedy(15, 30)])
    assert 0.3 < gap < 0.45
    assert separates([greedy(250, 500)]) < 0.1
    assert separates([greedy(0, 30)]) > 0.1  # all alike: not certain


@pytest.mark.parametrize("value", [0.0, -0.1])
def test_no_difference_is_never_found(value):
    with pytest.raises(ValueError, match="never found"):
        items_needed(estimates.Spread(0.25, 0.0), value)
    with pytest.raises(ValueError, match="two items or more"):
        detectable(0.1, 0)


# ------------------------------------------------------- two models
def test_comparison_counts_items_and_tests_them():
    scores = {"in": [[n < 12] for n in range(40)]}, {"in": [[n < 3] for n in range(40)]}
    a, b = ([results_of(s)] for s in scores)
    (row,) = estimates.comparison(a, b, ("a", "b"))
    assert (row["better"], row["worse"], row["value"]) == (9, 0, pytest.approx(9 / 40))
    exact = stats.binomtest(9, 9).pvalue  # McNemar's exact test: 9 of 9 items one way
    assert row["p"] == pytest.approx(exact, abs=0.003)
    assert row["right"] == 15 and row["unverifiable"] == 0 and row["low"] > 0
    assert 0 < row["detectable"] < 1
    same = estimates.comparison(a, a, ("a", "a"))[0]
    assert (same["p"], same["detectable"], same["value"]) == (1.0, None, 0.0)


def test_comparison_has_a_row_for_each_group():
    scores = {"in a": [[True], [False]], "out b": [[False]]}
    rows = estimates.comparison([results_of(scores)], [results_of(scores)], ("a", "b"))
    names = [row["group"] for row in rows]
    assert names == ["in a", "out b", "in domain", "out of domain", "all"]
