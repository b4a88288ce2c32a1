"""A checker for exercises: it says "correct", or what is still missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class NotYet(AssertionError):
    """An exercise is unanswered or its answer is not right; the message has the hint."""


def check(name: str, condition: bool | Callable[[], Any], hint: str = "") -> None:
    """Print that exercise `name` is correct, or raise NotYet with `hint`.

    A callable is evaluated here, so that a mistake in the answer (an exception, or the
    `...` of an empty cell) becomes a hint instead of a traceback from inside the check.
    """
    advice = f" Hint: {hint}" if hint else ""
    try:
        value = condition() if callable(condition) else condition
        right = value is not ... and bool(value)
    except Exception as error:
        problem = f"{name}: the check met {type(error).__name__}: {error}."
        raise NotYet(problem + advice) from None
    if value is ...:
        raise NotYet(f"{name}: not answered yet, replace the `...`.{advice}")
    if not right:
        raise NotYet(f"{name}: not right yet.{advice}")
    print(f"{name}: correct")
