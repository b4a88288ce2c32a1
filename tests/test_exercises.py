"""The checker of exercises: what it calls correct, and what it says otherwise."""

import numpy as np
import pytest

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
