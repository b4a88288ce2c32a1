"""Solve rates: counts with three values, intervals, filters that keep a band."""

import numpy as np
import pytest
from datasets import Dataset
from test_selection_choice import problems

from limo_nb.problems import DROPPED
from limo_nb.selection import rates


def attempts(**verdicts):
    """Attempts from `name="++-?"`: right, right, wrong, unverifiable."""
    value = {"+": True, "-": False, "?": None}
    return Dataset.from_list(
        [
            {"id": name, "sample": place, "correct": value[mark]}
            for name, marks in verdicts.items()
            for place, mark in enumerate(marks)
        ]
    )


# ---------------------------------------------------------------- counting
def test_counts_have_three_values():
    counts = rates.solve_counts(attempts(a="++-?", b="----"))
    assert counts.to_list()[0] | {"low": 0, "high": 0} == {
        "id": "a", "correct": 2, "wrong": 1, "unverifiable": 1, "n": 4, "rate": 0.5,
        "low": 0, "high": 0,
    }  # fmt: skip
    assert counts[1]["correct"] == 0 and counts[1]["wrong"] == 4
    assert counts.column_names == list(rates.SolveCount.__annotations__)


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [  # Jeffreys intervals, as in Brown, Cai and DasGupta (2001), table 5, to three digits
        (0, 7, 0.0, 0.292),
        (1, 7, 0.016, 0.501),
        (2, 7, 0.065, 0.648),
        (3, 7, 0.139, 0.766),
        (7, 7, 0.708, 1.0),
    ],
)
def test_jeffreys_interval(correct, n, low, high):
    found = rates.jeffreys(np.array([correct]), np.array([n]))
    assert [float(bound[0]) for bound in found] == pytest.approx([low, high], abs=6e-4)


def test_intervals_narrow_with_attempts():
    few, many = (rates.solve_counts(attempts(a="+-" * n))[0] for n in (2, 16))
    assert few["rate"] == many["rate"] == 0.5
    assert many["high"] - many["low"] < few["high"] - few["low"]


def test_no_attempts_cannot_be_counted():
    with pytest.raises(ValueError, match="no attempts"):
        rates.solve_counts(attempts(a="+").select([]))


def test_outcomes_follow_the_order_of_sampling_and_unverifiable_is_not_right():
    shuffled = attempts(a="+-?+", b="--").select([3, 1, 5, 0, 4, 2])
    found = rates.outcomes(shuffled)
    assert {name: tries.tolist() for name, tries in found.items()} == {
        "a": [True, False, False, True], "b": [False, False],
    }  # fmt: skip


def test_mean_interval_holds_the_mean_and_narrows_with_questions():
    rng = np.random.default_rng(1)
    few, many = rng.random(20), rng.random(500)
    widths = []
    for values in (few, many):
        mean, low, high = rates.mean_interval(values)
        assert mean == pytest.approx(values.mean()) and low < mean < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3
    assert rates.mean_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    mean, low, high = rates.mean_interval([0.3])
    assert mean == 0.3 and np.isnan([low, high]).all()
    with pytest.raises(ValueError, match="no values"):
        rates.mean_interval([])


# ---------------------------------------------------------------- filtering
@pytest.mark.parametrize(
    ("marks", "keep", "reason"),
    [
        ("----", (0, 0), ""),
        ("+---", (0, 0), "too easy"),
        ("?---", (0, 0), "undecided"),  # it might have been solved
        ("+---", (1, 3), ""),
        ("+++-", (1, 3), ""),
        ("++++", (1, 3), "too easy"),
        ("----", (1, 3), "too hard"),
        ("?---", (1, 3), "undecided"),
        ("?+--", (1, 3), ""),  # stays either way
        ("?+++", (1, 3), "undecided"),
        ("?---", (2, 3), "too hard"),  # falls either way
    ],
)
def test_keep_by_rate(marks, keep, reason):
    counts = rates.solve_counts(attempts(a=marks))
    result = rates.keep_by_rate(problems("a"), counts, keep)
    assert (len(result.kept), len(result.dropped)) == ((0, 1) if reason else (1, 0))
    assert result.dropped.features == DROPPED
    assert [row["reason"].startswith(reason) for row in result.dropped] == [True] * bool(reason)


def test_filter_keeps_order_and_accounts_for_all():
    counts = rates.solve_counts(attempts(a="+-", b="--", c="++", d="-+", e="++"))
    result = rates.keep_by_rate(problems(*"dcbae"), counts, (1, 1))
    assert result.kept["id"] == ["d", "a"]
    assert result.dropped["id"] == ["c", "b", "e"]
    assert result.reasons() == {
        "too easy: more than 1 correct": 2,
        "too hard: fewer than 1 correct": 1,
    }


@pytest.mark.parametrize(
    ("counts", "keep", "message"),
    [
        (attempts(a="+-"), (0, 1), "never attempted, e.g. 'b'"),
        (attempts(a="+-", b="+"), (0, 1), "finish the sampling"),
        (attempts(a="++-", b="+-"), (0, 1), "finish the sampling"),
        (attempts(a="+-", b="--"), (2, 1), "may not exceed"),
    ],
)
def test_filter_says_what_is_wrong(counts, keep, message):
    with pytest.raises(ValueError, match=message):
        rates.keep_by_rate(problems("a", "b"), rates.solve_counts(counts), keep)


def test_reasons_can_be_counted_where_sampling_stopped_early():
    counts = rates.solve_counts(attempts(a="+", b="-+", c="--+", d="----"))
    result = rates.keep_by_rate(problems(*"abcd"), counts, (0, 0))
    assert result.reasons() == {"too easy: more than 0 correct": 3}


def test_a_question_that_is_settled_needs_no_more_attempts():
    counts = rates.solve_counts(attempts(a="+---", b="++", c="++++"))
    result = rates.keep_by_rate(problems("a", "b", "c"), counts, (0, 1))
    assert result.kept["id"] == ["a"]
