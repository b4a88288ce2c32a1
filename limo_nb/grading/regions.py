"""Sets of reals: intervals and points brought into one order, with holes cut out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpmath import mp

from limo_nb.grading.structure import ENDLESS, Interval, Region

Finding = tuple[bool | None, str]
Span = tuple[Any, bool, Any, bool]  # low, whether it belongs, high, whether it belongs


def same_regions(
    one: Region,
    other: Region,
    same: Callable[[str, str], bool | None],
    value: Callable[[str], Any],
) -> Finding:
    """Whether two regions are one set.

    Interval by interval where ends are formulas, which `same` compares; by their values
    where every end has one, by `value`.
    """
    paired = _paired(one, other, same)
    if paired:
        return True, "the same intervals"
    mine, theirs = _spans(one, value), _spans(other, value)
    if mine is None or theirs is None:
        return (False, "another interval") if paired is False else (None, "ends without value")
    agree = len(mine) == len(theirs) and all(map(_same_span, mine, theirs))
    return (True, "the same set") if agree else (False, "another set")


def _paired(one: Region, other: Region, same: Callable[[str, str], bool | None]) -> bool | None:
    """Whether intervals match one by one, False for single ones that differ, else None."""
    if len(one.parts) != len(other.parts) or one.holes or other.holes:
        return None
    left = list(other.parts)
    for part in one.parts:
        verdicts = [_same_interval(part, own, same) for own in left]
        if True not in verdicts:
            return False if len(one.parts) == 1 and verdicts == [False] else None
        left.pop(verdicts.index(True))
    return True


def _same_interval(
    one: Interval, other: Interval, same: Callable[[str, str], bool | None]
) -> bool | None:
    if one.closed != other.closed:
        return False
    verdicts = [same(one.low, other.low), same(one.high, other.high)]
    return False if False in verdicts else None if None in verdicts else True


def _spans(own: Region, value: Callable[[str], Any]) -> list[Span] | None:
    """The intervals in rising order, those that touch joined and holes cut out."""
    spans: list[Span] = []
    for part in own.parts:
        low, high = (_end(end, value) for end in (part.low, part.high))
        if low is None or high is None:
            return None
        if low < high or (low == high and part.closed == (True, True)):
            spans.append((low, part.closed[0], high, part.closed[1]))
    holes = [_end(hole, value) for hole in own.holes]
    if None in holes:
        return None
    joined: list[Span] = []
    for span in sorted(spans, key=lambda s: (s[0], not s[1])):
        if joined and _touch(joined[-1], span):
            last = joined.pop()
            high, closed = max((last[2], last[3]), (span[2], span[3]))
            joined.append((last[0], last[1] or (span[0] == last[0] and span[1]), high, closed))
        else:
            joined.append(span)
    for hole in holes:
        joined = [piece for span in joined for piece in _cut(span, hole)]
    return joined


def _touch(one: Span, other: Span) -> bool:
    return other[0] < one[2] or (other[0] == one[2] and (one[3] or other[1]))


def _cut(span: Span, hole: Any) -> list[Span]:
    low, low_in, high, high_in = span
    if not low <= hole <= high:
        return [span]
    pieces = [(low, low_in, hole, False), (hole, False, high, high_in)]
    return [p for p in pieces if p[0] < p[2]]


def _same_span(one: Span, other: Span) -> bool:
    if (one[1], one[3]) != (other[1], other[3]):
        return False
    return all(
        a == b or abs(a - b) < mp.mpf(10) ** -15
        for a, b in ((one[0], other[0]), (one[2], other[2]))
    )


def _end(text: str, value: Callable[[str], Any]) -> Any:
    if text in ENDLESS:
        return mp.inf if text == ENDLESS[1] else -mp.inf
    found = value(text)
    if found is None:
        return None
    return mp.mpf(found.numerator) / found.denominator if hasattr(found, "numerator") else found
