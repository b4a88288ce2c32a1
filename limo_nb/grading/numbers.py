"""Numbers as they are written: signs, thousands, powers of ten, mixed numbers, units.

Values are exact fractions; nothing is evaluated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from limo_nb.grading.extraction import STYLED

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
UNITS = {  # one name for each unit, and how else it is written
    "m": "meter meters metre metres 米", "cm": "centimeter centimeters centimetres 厘米",
    "dm": "decimeter decimeters decimetres 分米", "mm": "millimeter millimeters 毫米",
    "km": "kilometer kilometers kilometres 千米 公里", "nm": "", "pm": "",
    "in": "inch inches", "ft": "foot feet", "yd": "yard yards", "mi": "mile miles",
    "s": "sec second seconds 秒", "min": "minute minutes mins 分 分钟", "ms": "毫秒", "ns": "",
    "h": "hr hrs hour hours 小时 时", "day": "days 天 日", "week": "weeks 周",
    "month": "months 月 个月", "year": "years yr yrs 年", "g": "gram grams 克",
    "kg": "kilogram kilograms 千克 公斤", "mg": "milligram milligrams 毫克",
    "t": "tons tonnes 吨", "lb": "lbs pound pounds", "L": "liter liters litre litres 升",
    "mL": "ml milliliters 毫升", "dollar": "dollars usd USD", "cent": "cents",
    "元": "yuan RMB", "角": "", "N": "newton newtons", "kN": "", "J": "joule joules",
    "kJ": "", "W": "watt watts", "kW": "", "MW": "", "V": "volt volts", "mV": "", "kV": "",
    "A": "ampere amperes", "mA": "", "K": "kelvin", "Hz": "hertz", "kHz": "", "MHz": "",
    "eV": "", "keV": "", "MeV": "", "GeV": "", "Pa": "pascal pascals", "kPa": "", "MPa": "",
    "mol": "moles mole", "erg": "ergs", "mph": "", "km/h": "kmh kmph kph",
    "公顷": "hectare hectares", "people": "persons person 人", "rad": "radian radians",
    "degree": "degrees deg 度", "°C": "C 摄氏度", "°F": "F",
}  # fmt: skip
UNIT_OF = {name: unit for unit, names in UNITS.items() for name in (unit, *names.split())}
WORDS = {*UNIT_OF, "unit", "units"} - {"C", "F", "°C", "°F"}
PLAIN = "|".join(sorted((re.escape(n) for n in WORDS if len(n) > 1), key=len, reverse=True))
POWER = r"(?:\^\{?-?[234]\}?)"
ONE_UNIT = rf"\\(?:text|mathrm|mbox|textrm|textbf|textnormal|rm)\s*\{{[^{{}}\d]*\}}{POWER}?"
UNIT = re.compile(
    rf"\s*(?:(?P<styled>{ONE_UNIT}(?:(?:/|\\cdot|\s)*{ONE_UNIT})*)"
    rf"|(?<![A-Za-z\\])(?P<plain>(?:(?:square|cubic|sq)?\s?(?:{PLAIN})|[mgLJNWC](?=/)){POWER}?"
    rf"(?:(?:/| per )[A-Za-z]+{POWER}?)?|(?<=\d)\s?m\^\{{?[23]\}}?)"
    r"|\^\\circ\s?(?P<degrees>[CF])"
    r"|(?P<chinese>[\u3400-\u9fff]{1,4}(?:/[\u3400-\u9fff]{1,2})?))$"
)
LONE_UNIT = re.compile(r"(?<=\d)(?:\s+([msghLNJWVAKC])|([msgL]))$")
PREFIX = re.compile(r"^(?:(?P<two>square\b|sq\b|平方)|(?P<three>cubic\b|立方))\s*")
HEDGE = re.compile(r"\b(?:or|and|not|if|for|where|when)\b|[,;=<>不非或和]")


@dataclass(frozen=True)
class Number:
    """A number as it was written."""

    value: Fraction
    exact: bool  # no decimal point: 1/3, not 0.333
    percent: bool
    unit: str
    places: int  # digits after the decimal point
    integer: bool  # written as an integer (27.0 counts, 4e33 does not)


def number(text: str) -> Number | None:
    """The number that `text` writes, None where it is none.

    Decimals, thousands, scientific notation, fractions, mixed numbers; a unit, degrees
    or a percent sign may follow. Exponents have at most three digits.
    """
    if len(text) > 400 or not re.search(r"\d", text):
        return None
    text = text[1:-1] if re.fullmatch(r"\([^()]*\)", text) else text
    bare, name = without_unit(text)
    match = NUMBER.fullmatch(bare)
    value = _value(match) if match else None
    if value is None:
        return None
    value = -value if match["sign"] == "-" else value
    scaled = bool(match["e"] or match["power"])
    exact = "." not in bare and not scaled
    percent = (match["after"] or "").strip().lower().startswith(("%", "p"))
    places = len((match["decimal"] or "").partition(".")[2])
    if (match["after"] or "").endswith("circ"):
        name = name or "degree"
    integer = bool(match["decimal"]) and not scaled and value.denominator == 1
    return Number(value, exact, percent, name, places, integer)


def without_unit(text: str) -> tuple[str, str]:
    """(`text` without the unit at its end, the unit in the name that `UNITS` gives it)."""
    unit = UNIT.search(text)
    if not unit or not re.search(r"[\d})]$|\\circ$|\\pi$", text[: unit.start()]):
        return text, ""
    if unit["degrees"]:
        return text[: unit.start()], "°" + unit["degrees"]
    name = STYLED.sub(r"\1", unit[0]).strip(" .")
    return (text, "") if HEDGE.search(name) else (text[: unit.start()], unit_name(name))


def unit_name(text: str) -> str:
    """One name for all ways to write a unit: "m/s^2" for "metres per second^{2}"."""
    whole = re.sub(r"\s*(?:\bper\b|/|每)\s*", "/", text.strip())
    return UNIT_OF.get(whole) or "/".join(map(_factor_name, whole.split("/")))


def _factor_name(text: str) -> str:
    prefix = PREFIX.match(text)
    text = text[prefix.end() :] if prefix else text
    power = re.search(r"\^\{?(-?[234])\}?$", text)
    name = text[: power.start()].strip() if power else text.strip()
    raised = power[1] if power else ("2" if prefix["two"] else "3") if prefix else ""
    name = UNIT_OF.get(name) or UNIT_OF.get(name.casefold(), name)
    return f"{name}^{raised}" if raised else name


def incompatible(one: str, other: str) -> bool:
    """Whether both names are of known units, and not the same: cm and cm^2, W and kW."""
    if not one or not other or one == other or not (_is_known(one) and _is_known(other)):
        return False
    powers = "^" in one, "^" in other  # one alone may be forgotten: 9 inches for square inches
    if powers[0] != powers[1] and "/" not in one + other:
        return one.partition("^")[0] != other.partition("^")[0]
    return True


def _is_known(name: str) -> bool:
    return name in UNITS or all(part.split("^")[0] in UNITS for part in name.split("/"))


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


def same_number(one: Number, other: Number) -> bool:
    """Whether `other` says the value of `one`, the reference: exactly, as percent, or
    rounded to six places.

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
