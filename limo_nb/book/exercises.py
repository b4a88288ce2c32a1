"""The checkers of exercises: they say "correct", or what is still missing.

A function that a reader writes is compared with a reference on many cases, so that it has
to be right and may be written in any way; the cases are in `exercise_cases`.
"""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isclose
from typing import Any

import numpy as np
import pandas as pd


class NotYet(AssertionError):
    """An exercise is unanswered or its answer is not right; the message has the hint."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback: the message alone."""
        return [str(self)]


def check(name: str, condition: bool | Callable[[], Any], hint: str = "") -> None:
    """Print that exercise `name` is correct, or raise NotYet with `hint`.

    A callable is evaluated here, so that a mistake in the answer (an exception, or the
    `...` of an empty cell) becomes a hint instead of a traceback from inside the check.
    """
    advice = _advice(hint)
    try:
        value = condition() if callable(condition) else condition
        right = value is not ... and bool(value)
    except Exception as error:
        raise NotYet(f"{name}: the check met {_told_error(error)}.{advice}") from None
    if value is ...:
        raise NotYet(f"{name}: not answered yet, replace the `...`.{advice}")
    if not right:
        raise NotYet(f"{name}: not right yet.{advice}")
    print(f"{name}: correct")


def check_function(
    name: str,
    function: Any,
    references: Callable | Sequence[Callable],
    cases: Iterable[tuple],
    hint: str = "",
) -> None:
    """Print that `function` is correct, or raise NotYet with the first case that it fails.

    It has to return what the reference returns for every tuple of arguments (`answer_matches`).
    Where a task may be read in more than one way there are several references, and it has
    to agree with one of them throughout; the first is the one that is told. Each call gets
    copies, so that a function which changes its arguments spoils nothing.
    """
    if not callable(function):
        unanswered = "not answered yet" if function is ... else "a function is wanted"
        raise NotYet(f"{name}: {unanswered}.{_advice(hint)}")
    ways = [references] if callable(references) else list(references)
    cases = list(cases)
    failed = [_first_failure(function, way, cases) for way in ways]
    if all(failed):
        raise NotYet(f"{name}: not right yet, {failed[0]}.{_advice(hint)}")
    print(f"{name}: correct")


def _first_failure(function: Callable, reference: Callable, cases: list[tuple]) -> str:
    """What `function` does otherwise than `reference`, an empty text if nothing."""
    for case in cases:
        given = ", ".join(map(_told, case))
        try:
            found = function(*copy.deepcopy(case))
        except Exception as error:
            return f"for ({given}) your function raises {_told_error(error)}"
        wanted = reference(*copy.deepcopy(case))
        if not answer_matches(found, wanted):
            return f"for ({given}) it returns {_told(found)} and not {_told(wanted)}"
    return ""


def _advice(hint: str) -> str:
    return f" Hint: {hint}" if hint else ""


def _told_error(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _told(value: Any) -> str:
    """A value in a few words: tables have no short spelling."""
    if _is_table(value):
        return f"a table of {len(value)} rows"
    value = _plain(value)
    if isinstance(value, (list, tuple)) and any(map(_is_table, value)):
        return f"[{', '.join(map(_told, value))}]"
    return reprlib.repr(value)


def _is_table(value: Any) -> bool:
    return hasattr(value, "column_names") or isinstance(value, pd.DataFrame)


# ---------------------------------------------------------------- values
def answer_matches(found: Any, wanted: Any, tolerance: float = 1e-9) -> bool:
    """Whether an answer is the wanted one, be it of Python's types or of numpy's or pandas'.

    Numbers may differ by rounding (`tolerance`, relative and absolute); a truth value is no
    number, a text that spells a number is none either, and None is nothing but None.
    Sequences and mappings are compared part by part.
    """
    found, wanted = _plain(found), _plain(wanted)
    if wanted is None or isinstance(wanted, (bool, str)):
        return type(found) is type(wanted) and found == wanted
    if isinstance(wanted, Mapping):
        return (
            isinstance(found, Mapping)
            and found.keys() == wanted.keys()
            and all(answer_matches(found[key], wanted[key], tolerance) for key in wanted)
        )
    if isinstance(wanted, (list, tuple)):
        return (
            isinstance(found, (list, tuple))
            and len(found) == len(wanted)
            and all(
                answer_matches(*pair, tolerance) for pair in zip(found, wanted, strict=True)
            )
        )
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return False
    return isclose(found, wanted, rel_tol=tolerance, abs_tol=tolerance)


def _plain(value: Any) -> Any:
    """numpy, torch and pandas values as those of Python."""
    if isinstance(value, pd.Series):
        return value.to_dict()
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "detach"):
        return value.tolist()
    return value


def whole_number(value: Any) -> int:
    """`value` as an int, 13.0 as well as 13; raises ValueError for what is no whole number."""
    plain = _plain(value)
    if plain is ...:
        raise ValueError("replace the `...` by a number")
    if isinstance(plain, bool) or not isinstance(plain, (int, float)) or plain != plain // 1:
        raise ValueError(f"a whole number is wanted, not {plain!r}")
    return int(plain)
