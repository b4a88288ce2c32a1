"""Tables of accuracies, paired comparisons, and what they say in words."""

import pytest
from graded import results_of
from scipy import stats

from limo_nb.evaluation import comparisons
from limo_nb.evaluation.comparisons import accuracies


def test_accuracies_have_a_row_for_each_group():
    scores = {"in a": [[True]] * 4, "in b": [[False], [True]], "out c": [[False]] * 3}
    rows = accuracies({"LIMO": [results_of(scores)] * 3})
    values = {row["group"]: row["accuracy"] for row in rows}
    assert values == {
        "in a": 1.0, "in b": 0.5, "out c": 0.0,
        "in domain": 0.75, "out of domain": 0.0, "all": 0.5,
    }  # fmt: skip
    assert set(rows[0]) == {
        "model", "group", "accuracy", "low", "high", "items", "samples", "seeds",
        "right", "wrong", "unverifiable", "truncated", "varies",
        "truncation", "limit_wanted",
    }  # fmt: skip
    single = accuracies({"base": [results_of({"in a": [[True], [False]]})]})
    assert [row["group"] for row in single] == ["in a"]


VARIES = [(1, 1, "items"), (4, 1, "items, samples"), (2, 3, "items, samples, seeds")]


@pytest.mark.parametrize(("samples", "seeds", "what"), VARIES)
def test_a_table_says_what_varies(samples, seeds, what):
    found = results_of({"in": [[True] * samples, [False] * samples]})
    assert accuracies({"m": [found] * seeds})[0]["varies"] == what


def test_comparison_counts_items_and_tests_them():
    scores = {"in": [[n < 12] for n in range(40)]}, {"in": [[n < 3] for n in range(40)]}
    a, b = ([results_of(s)] for s in scores)
    (row,) = comparisons.comparison(a, b, ("a", "b"))
    assert (row["better"], row["worse"], row["value"]) == (9, 0, pytest.approx(9 / 40))
    exact = stats.binomtest(9, 9).pvalue  # McNemar's exact test: 9 of 9 items one way
    assert row["p"] == pytest.approx(exact, abs=0.003)
    assert row["right"] == 15 and row["unverifiable"] == 0 and row["low"] > 0
    assert 0 < row["detectable"] < 1
    same = comparisons.comparison(a, a, ("a", "a"))[0]
    assert (same["p"], same["detectable"], same["value"]) == (1.0, None, 0.0)


def test_comparison_has_a_row_for_each_group():
    scores = {"in a": [[True], [False]], "out b": [[False]]}
    rows = comparisons.comparison([results_of(scores)], [results_of(scores)], ("a", "b"))
    names = [row["group"] for row in rows]
    assert names == ["in a", "out b", "in domain", "out of domain", "all"]


# ---------------------------------------------------------------- in words
@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.1, 0.3, "above"), (-0.3, -0.1, "below"), (-0.1, 0.3, "not separated from"),
     (0.0, 0.3, "not separated from"), (-0.3, 0.0, "not separated from")],
)  # fmt: skip
def test_a_difference_as_a_sentence(low, high, word):
    row = {"model": "a", "against": "b", "value": (low + high) / 2, "low": low, "high": high}
    assert comparisons.relation(row) == word
    sentence = comparisons.compared(row)
    assert sentence.startswith(f"a is {word} b: ")
    assert sentence.endswith(f"({100 * low:+.1f} to {100 * high:+.1f})".replace("-", "−"))


def test_told_reads_tables_and_differences():
    numbers = {"low": 0.25, "high": 0.75}
    assert comparisons.told({"accuracy": 0.5, **numbers}) == "50.0 (25.0 to 75.0)"
    assert comparisons.told({"value": 0.5, **numbers}, signed=True) == "+50.0 (+25.0 to +75.0)"


def test_negative_numbers_have_a_minus_and_names_keep_their_hyphens():
    row = {"model": "poor-limo", "against": "poor", "value": -0.1, "low": -0.2, "high": 0.0}
    told = "\N{MINUS SIGN}10.0 (\N{MINUS SIGN}20.0 to +0.0)"
    assert comparisons.told(row, signed=True) == told
    assert comparisons.compared(row).startswith("poor-limo is not separated from poor: \u2212")
