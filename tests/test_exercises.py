"""The checker of exercises: what it calls correct, and what it says otherwise."""

import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from limo_nb.book import exercises


@pytest.mark.parametrize("condition", [True, np.bool_(True), 3, lambda: 1 < 2])
def test_a_right_answer_is_called_correct(condition, capsys):
    exercises.check("exercise 4.1", condition, "count again")
    assert capsys.readouterr().out == "exercise 4.1: correct\n"


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (False, "not right yet. Hint: count again"),
        (None, "not right yet"),
        (..., "not answered yet"),
        (lambda: ..., "not answered yet"),
        (lambda: ... + 1, "met TypeError"),
        (np.array([True, False]), "met ValueError"),
    ],
)
def test_a_wrong_answer_raises_with_the_hint(condition, message, capsys):
    with pytest.raises(exercises.NotYet, match=message):
        exercises.check("exercise 4.1", condition, "count again")
    assert "correct" not in capsys.readouterr().out


# ---------------------------------------------------------------- functions of readers
@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        (np.int64(3), 3, True),
        (3.0, 3, True),
        (torch.tensor(0.5), 0.5, True),
        (1 - 1 / 3, 2 / 3, True),
        (0.1 + 0.2, 0.3, True),
        (0.3001, 0.3, False),
        (float("nan"), 0.3, False),
        ("3", 3, False),
        (True, 1, False),
        (1, True, False),
        (np.bool_(True), True, True),
        (None, False, False),
        (None, None, True),
        (0, None, False),
        ([1, 2], (1, 2), True),
        (np.array([1.0, 2.0]), (1, 2), True),
        ((1, 2, 3), (1, 2), False),
        (1, (1,), False),
        (pd.Series({"a": 1}), {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ("twelve", "twelve", True),
        (..., 1, False),
    ],
)
def test_values_are_the_same_by_value_and_not_by_library(found, wanted, same) -> None:
    assert exercises.answer_matches(found, wanted) is same


@pytest.mark.parametrize("value", [7, 7.0, np.int64(7), np.float64(7), torch.tensor(7)])
def test_a_whole_number_of_any_library(value) -> None:
    assert exercises.whole_number(value) == 7


@pytest.mark.parametrize("value", [6.65, "7", None, True, ..., float("nan"), float("inf"), [7]])
def test_what_is_no_whole_number(value) -> None:
    with pytest.raises(ValueError, match="whole number|replace"):
        exercises.whole_number(value)


def double_and_clear(numbers: list[int]) -> int:
    total = 2 * sum(numbers)
    numbers.clear()
    return total


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (..., "not answered yet. Hint: add"),
        (6, "a function is wanted"),
        (lambda numbers: 6, r"for \(\[2\]\) it returns 6 and not 4"),
        (lambda numbers: 1 / 0, r"for \(\[1, 2\]\) your function raises ZeroDivisionError"),
        (lambda: 6, "your function raises TypeError"),
    ],
)
def test_a_function_is_told_the_first_case_that_it_fails(function, message) -> None:
    cases = [([1, 2],), ([2],)]
    with pytest.raises(exercises.NotYet, match=message):
        exercises.check_function("exercise 1", function, double_and_clear, cases, "add")


def test_a_function_has_to_agree_with_one_reference_throughout(capsys) -> None:
    cases, ways = [(1,), (2,)], [lambda n: n, lambda n: n + 1]
    for function in ways:
        exercises.check_function("exercise 1", function, ways, cases)
    assert capsys.readouterr().out == "exercise 1: correct\n" * 2
    with pytest.raises(exercises.NotYet, match="it returns 3 and not 2"):
        exercises.check_function("exercise 1", lambda n: n if n == 1 else 3, ways, cases)


def test_a_notebook_shows_the_hint_and_no_traceback() -> None:
    shell = InteractiveShell()
    with pytest.raises(exercises.NotYet) as caught:
        exercises.check("exercise 1", False, "count again")
    with capture_output() as shown:
        shell.showtraceback((caught.type, caught.value, caught.tb))
    assert shown.stdout.strip() == "exercise 1: not right yet. Hint: count again"
