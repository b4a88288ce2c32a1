"""Estimates against known values and published formulas."""

from itertools import combinations

import numpy as np
import pytest
from datasets import Dataset
from graded import greedy, results_of

from limo_nb.evaluation import (
    RESULTS,
    accuracy,
    consensus,
    difference,
    majority_vote,
    pass_at_k,
    percent,
)
from limo_nb.evaluation.estimates import Estimate

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


def test_benchmarks_weigh_the_same_whatever_their_size():
    scores = {"in a": [[True]] * 10, "out b": [[False]] * 90 + [[True]] * 10}
    assert accuracy([results_of(scores)]).value == pytest.approx((1.0 + 0.1) / 2)


def test_what_is_not_verified_or_cut_off_is_counted():
    rows = results_of({"in": [[True], [None], [False], [False]]}).to_list()
    rows[3]["finished"] = False
    found = accuracy([Dataset.from_list(rows, features=RESULTS)])
    assert (found.value, found.unverifiable, found.truncated) == (0.25, 1, 1)
    assert (found.right, found.wrong) == (1, 2)


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


def test_estimates_in_percent():
    found = Estimate(0.5, 0.25, 0.75, 4, 1, 1, 2, 2, 0, 0, "items")
    assert percent(found) == (50, 25, 75) and str(found) == "50.0% [25.0%, 75.0%]"
