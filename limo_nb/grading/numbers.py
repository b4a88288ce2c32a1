"""Numbers as they are written: signs, thousands, powers of ten, mixed numbers, units.

Values are exact fractions; nothing is evaluated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from limo_nb.grading.units import (
    NONE,
    SCALE,
    SCALES,
    UNIT_OF,
    WORDS,
    Unit,
    agree,
    conversion,
    plain,
    unit_of,
)

NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<decimal>(?:\d{1,3}(?:[ ,]\d{3})+|\d+)?(?:\.\d*)?)"
    r"(?:e(?P<e>[+-]?\d{1,3})"
    r"|\s*(?:\\times|\\cdot|\*)\s*10\^[{(]?(?P<power>[+-]?\d{1,3})[})]?)?"
    r"|10\^\{?(?P<ten>[+-]?\d{1,3})\}?"
    r"|(?:(?P<whole>\d+)(?:\s+|\+|(?=\\)))?"
    r"(?:\\frac\s*(?:\{(?P<top>[+-]?\d+)\}\s*\{(?P<bottom>\d+)\}|(?P<t>\d)\s*(?P<b>\d))"
    r"|(?P<n>\d+)/(?P<m>\d+)))"
    r"(?P<after>%|\s*(?:percent(?:age)?|pct)|\^\\circ)?",
    re.IGNORECASE,
)
AMBIGUOUS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+")  # thousands, or a list
NAMES = "|".join(sorted((re.escape(n) for n in WORDS if len(n) > 1), key=len, reverse=True))
POWER = r"(?:\s?\^\{?-?[1-4]\}?)"
STYLE = r"\\(?:text|mathrm|mbox|textrm|textbf|textnormal|rm)"
STYLED_UNIT = rf"{STYLE}\s*\{{(?:[^{{}}\d]|\^\{{?-?\d\}}?|\{{[^{{}}]*\}})*\}}{POWER}?"
PIECE = (
    rf"(?:\\mu\s?)?{STYLED_UNIT}|\\frac\s*\{{\s*{STYLED_UNIT}\s*\}}\s*\{{\s*{STYLED_UNIT}\s*\}}"
    r"|[kMm]?\\Omega(?![a-z])|[MLR]_\{?\\odot\}?"
)
UNIT = re.compile(
    rf"\s*(?:(?P<styled>(?:{PIECE})(?:(?:/|\\cdot|\\times|[\s()])*(?:{PIECE}))*\)?)"
    rf"|(?<![A-Za-z\\])(?P<plain>(?:(?:square|cubic|sq)?\s?(?:{NAMES})|[mgLJNWC](?=/)){POWER}?"
    rf"(?:(?:/| per )[A-Za-z]+{POWER}?)?|(?<=\d)\s?m\^\{{?[23]\}}?)"
    r"|\^\\circ\s?(?:\\(?:mathrm|text)\{)?(?P<degrees>[CF])\}?"
    r"|(?<=[\d}])\s(?P<words>(?!percent|pct|degrees?$)[a-z]{3,}(?:[ -][a-z]+){0,3})"
    r"|(?P<chinese>[\u3400-\u9fff]{1,4}(?:/[\u3400-\u9fff]{1,2})?))$"
)
LONE_UNIT = re.compile(r"(?<=[\d}])(?:\s+([msghLNJWVAKC])|([msgL]))$")
FUNCTION = re.compile(r"(?:sin|cos|tan|log|ln|exp|sqrt|pi|mod|frac|infty|max|min)\b")
ANGLE = re.compile(
    r"(?P<sign>-?)(?P<d>\d+(?:\.\d+)?)\^\\circ\s?(?P<m>\d+(?:\.\d+)?)'\s?"
    r"(?:(?P<s>\d+(?:\.\d+)?)(?:''|\"))?"
)
SUM_OF_UNITS = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:\\text\s*\{)?\s*([A-Za-z]+|[\u3400-\u9fff]{1,2})\s*\}?\s*"
)
SPELLED = {
    word: n
    for n, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
        " fifteen sixteen seventeen eighteen nineteen twenty".split()
    )
} | {f"{a}ty": 10 * n for n, a in enumerate("thir for fif six seven eigh nine".split(), 3)}


@dataclass(frozen=True)
class Number:
    """A number as it was written."""

    value: Fraction
    exact: bool  # no decimal point: 1/3, not 0.333
    percent: bool
    unit: Unit
    places: int  # digits after the decimal point
    integer: bool  # written as an integer (27.0 counts, 4e33 does not)


def number(text: str) -> Number | None:
    """The number that `text` writes, None where it is none.

    Decimals, thousands, scientific notation, fractions, mixed numbers, a number word; a
    unit, other words, degrees or a percent sign may follow. Exponents have at most three
    digits.
    """
    if len(text) > 400:
        return None
    if not re.search(r"\d", text):
        spelled = SPELLED.get(plain(text).casefold()) if len(text) < 40 else None
        return (
            None if spelled is None else Number(Fraction(spelled), True, False, NONE, 0, True)
        )
    if re.fullmatch(r"\([^()]*\)", text) and not AMBIGUOUS.fullmatch(text[1:-1]):
        text = text[1:-1]
    compound = _compound(text)
    if compound:
        return compound
    bare, behind = without_unit(text)
    match = NUMBER.fullmatch(bare)
    size = _value(match) if match else None
    if match is None or size is None:
        return None
    value = -size if match["sign"] == "-" else size
    scaled = bool(match["e"] or match["power"])
    exact = "." not in bare and not scaled
    after = (match["after"] or "").strip().lower()
    places = len((match["decimal"] or "").partition(".")[2])
    unit = unit_of(behind)
    if after.endswith("circ"):
        unit = Unit((("degree", 1),), unit.words) if not unit.factors else unit
    integer = bool(match["decimal"]) and not scaled and value.denominator == 1
    found = Number(value, exact, after.startswith(("%", "p")), unit, places, integer)
    return _scaled(found, behind)


def _scaled(found: Number, behind: str) -> Number:
    """5 million, 5万 and "5 below zero" as the numbers that they are."""
    scale = SCALE.match(behind)
    if scale:
        times = SCALES[scale["scale"] or scale["chinese"]]
        rest = unit_of(re.sub(r"^of\b", "", behind[scale.end() :]))
        return replace(found, value=found.value * times, unit=rest)
    if re.fullmatch(r"(?:degrees? )?below zero", behind):
        return replace(found, value=-found.value, unit=NONE)
    return found


def _compound(text: str) -> Number | None:
    """22°30' and "2 h 30 min": the sum, in the unit of its first part."""
    angle = ANGLE.fullmatch(text)
    if angle:
        minutes, seconds = Fraction(angle["m"]), Fraction(angle["s"] or 0)
        value = Fraction(angle["d"]) + minutes / 60 + seconds / 3600
        value = -value if angle["sign"] else value
        return Number(value, True, False, Unit((("degree", 1),)), 0, value.denominator == 1)
    if not re.match(r"\d+(?:\.\d+)?\s*(?:\\text|[A-Za-z\u3400-\u9fff])", text):
        return None
    parts = SUM_OF_UNITS.findall(text)
    if len(parts) < 2 or SUM_OF_UNITS.sub(
        "", re.sub(r"\}?\s*(?:,|\band\b)\s*", " ", text)
    ).strip(" }"):
        return None
    first, total = unit_of(parts[0][1]), Fraction(0)
    for digits, name in parts:
        own = unit_of(name)
        rate = conversion(first, own) if own.factors and first.factors else None
        if rate is None:
            return None
        total += Fraction(digits) * rate
    return Number(total, True, False, first, 0, total.denominator == 1)


def without_unit(text: str) -> tuple[str, str]:
    """(`text` without the unit or words at its end, these in plain text)."""
    unit = UNIT.search(text)
    if not unit or not re.search(r"[\d})%!]$|\\circ$|\\pi$", text[: unit.start()]):
        return text, ""
    if unit["degrees"]:
        return text[: unit.start()], "°" + unit["degrees"]
    behind = plain(unit[0])
    if unit["words"] and FUNCTION.match(behind):
        return text, ""
    return text[: unit.start()], behind


def _value(match: re.Match) -> Fraction | None:
    if match["decimal"]:
        digits = re.sub("[ ,]", "", match["decimal"])
        if digits == ".":
            return None
        return Fraction(digits) * Fraction(10) ** int(match["e"] or match["power"] or 0)
    if match["ten"]:
        return Fraction(10) ** int(match["ten"])
    top, bottom = next(
        (
            (match[a], match[b])
            for a, b in (("top", "bottom"), ("t", "b"), ("n", "m"))
            if match[a]
        ),
        ("", ""),
    )
    if not top or int(bottom) == 0:
        return None
    return int(match["whole"] or 0) + Fraction(int(top), int(bottom))


def with_lone_unit(text: str) -> Number | None:
    """5 s and 5m as numbers: beside another number they are no products."""
    lone = LONE_UNIT.search(text)
    found = number(text[: lone.start()]) if lone else None
    if not lone or not found or found.unit != NONE:
        return None
    return replace(found, unit=Unit(((UNIT_OF[lone[1] or lone[2]], 1),)))


# ---------------------------------------------------------------- comparison
def same_number(one: Number, other: Number, tolerance: float = 0.0) -> tuple[bool | None, str]:
    """Whether `other` says `one`, the reference: value, unit, and the words behind it."""
    rate = conversion(one.unit, other.unit)
    if rate is None or (one.percent and ("degree", 1) in other.unit.factors):
        return False, "another unit"
    if rate != 1:
        other = replace(other, value=other.value * rate)
    if not same_value(one, other):
        allowed = Fraction(tolerance) * abs(one.value)
        if not (tolerance and not one.integer and abs(one.value - other.value) <= allowed):
            return False, "other values"
    return agree(one.unit, other.unit)


def same_value(one: Number, other: Number) -> bool:
    """Whether `other` says the value of `one`: exactly, as percent, or rounded.

    Both 10 and 0.1 are said for 10%. A reference of 0.5 is said as 50%; as for 50%, a
    question that asks for percent may have the reference 50, an integer from 2 to 100.
    """
    if one.percent and not other.percent:
        return other.value in (one.value, one.value / 100)
    if other.percent and not one.percent:
        asked = one.integer and 2 <= one.value <= 100
        return one.value == other.value / 100 or (asked and one.value == other.value)
    if one.value == other.value:
        return True
    if one.exact == other.exact:
        return False
    return rounds_to(*((other, one.value) if one.exact else (one, other.value)))


def rounds_to(decimal: Number, value: Any) -> bool:
    """Whether `decimal` is `value` rounded, to six places at least."""
    if decimal.places < 6 or decimal.percent:
        return False
    return abs(decimal.value - Fraction(value)) <= Fraction(1, 2 * 10**decimal.places)
