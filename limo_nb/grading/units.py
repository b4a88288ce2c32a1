r"""Units and words behind a number: which unit they name, and what else they say.

`pint` knows what units measure and how they are converted; it is loaded when two units
differ. Its own parser is never given text: factors are read here, and pint is asked for
single names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache

from limo_nb.grading.canonical import STYLED

NAMES = {  # pint's name of each unit, and how it is written
    "meter": "m meters metre metres 米",
    "centimeter": "cm centimeters centimetre centimetres 厘米",
    "decimeter": "dm decimeters decimetres 分米",
    "millimeter": "mm millimeters millimetre millimetres 毫米",
    "kilometer": "km kilometers kilometre kilometres 千米 公里",
    "nanometer": "nm",
    "picometer": "pm",
    "micrometer": "µm um micron microns micrometers",
    "angstrom": "Å angstroms",
    "inch": "in inches",
    "foot": "ft feet",
    "yard": "yd yards",
    "mile": "mi miles",
    "second": "s sec secs seconds 秒",
    "minute": "min minutes mins 分 分钟",
    "millisecond": "ms 毫秒",
    "nanosecond": "ns",
    "microsecond": "µs us",
    "hour": "h hr hrs hours 小时 时",
    "day": "days 天 日",
    "week": "weeks 周",
    "month": "months 月 个月",
    "year": "years yr yrs 年",
    "gram": "g grams 克",
    "kilogram": "kg kilograms 千克 公斤",
    "milligram": "mg milligrams 毫克",
    "metric_ton": "t ton tons tonne tonnes 吨",
    "pound": "lb lbs pounds",
    "ounce": "oz ounces",
    "liter": "L l liters litre litres 升",
    "milliliter": "mL ml milliliters 毫升",
    "dollar": "dollars usd USD",
    "cent": "cents",
    "yuan": "元 RMB",
    "jiao": "角",
    "euro": "euros EUR",
    "newton": "N newtons",
    "kilonewton": "kN",
    "joule": "J joules",
    "kilojoule": "kJ",
    "watt": "W watts",
    "kilowatt": "kW kilowatts",
    "megawatt": "MW",
    "milliwatt": "mW",
    "volt": "V volts",
    "millivolt": "mV",
    "kilovolt": "kV",
    "ampere": "A amperes amp amps",
    "milliampere": "mA",
    "kelvin": "K kelvins",
    "hertz": "Hz",
    "kilohertz": "kHz",
    "megahertz": "MHz",
    "gigahertz": "GHz",
    "electron_volt": "eV",
    "kiloelectron_volt": "keV",
    "megaelectron_volt": "MeV",
    "gigaelectron_volt": "GeV",
    "pascal": "Pa pascals",
    "kilopascal": "kPa",
    "megapascal": "MPa",
    "mole": "mol moles",
    "erg": "ergs",
    "mile_per_hour": "mph",
    "kilometer_per_hour": "kmh kmph kph",
    "hectare": "公顷 hectares",
    "person": "people persons 人",
    "radian": "rad radians",
    "degree": "degrees deg 度",
    "degree_Celsius": "°C C 摄氏度",
    "degree_Fahrenheit": "°F F",
    "ohm": r"Ω \Omega ohms",
    "kiloohm": r"kΩ k\Omega",
    "megaohm": r"MΩ M\Omega",
    "tesla": "T teslas",
    "farad": "farads",
    "microfarad": "µF",
    "henry": "H henrys",
    "coulomb": "coulombs",
    "weber": "Wb",
    "atmosphere": "atm",
    "bar": "bars",
    "torr": "Torr",
    "calorie": "cal calories",
    "kilocalorie": "kcal",
    "parsec": "pc parsecs",
    "kiloparsec": "kpc",
    "megaparsec": "Mpc",
    "astronomical_unit": "AU au",
    "light_year": "ly lightyears",
    "solar_mass": r"M_{\odot} M_\odot",
    "solar_luminosity": r"L_{\odot} L_\odot",
    "solar_radius": r"R_{\odot} R_\odot",
    "dyne": "dyn dynes",
    "gauss": "G",
    "acre": "acres",
    "gallon": "gal gallons",
    "quart": "quarts",
    "pint": "pints",
    "byte": "bytes",
    "bit": "bits",
}
UNIT_OF = {alias: name for name, text in NAMES.items() for alias in (name, *text.split())}
NOT_IN_PINT = {"dollar", "cent", "yuan", "jiao", "euro", "person", "solar_mass",
               "solar_luminosity", "solar_radius"}  # fmt: skip
WORDS = {*UNIT_OF, "unit", "units"} - {"C", "F", "°C", "°F"}
PREFIX = re.compile(r"^(?:(?P<two>square\b|sq\b\.?|平方)|(?P<three>cubic\b|cu\b|立方))\s*")
FACTOR = re.compile(r"(?P<name>[^\s^/·*().{}\d-]+)(?:\^?\{?(?P<power>-?[1-4])\}?)?")
# Words behind a number that are no unit: what they say is compared too.
OPPOSITES = (
    ("north N 北", "south S 南"), ("east E 东", "west W 西"),
    ("profit gain 盈利", "loss lost 亏损"),
    ("more greater extra", "fewer less"), ("above over", "below under"), ("AD CE", "BC BCE"),
    ("clockwise 顺时针", "counterclockwise anticlockwise counter-clockwise 逆时针"),
    ("increase increased 增加 上升", "decrease decreased 减少 下降"),
    ("up upward", "down downward"),
    ("higher taller older faster", "lower shorter younger slower"), ("right", "left"),
    ("after later 后", "before earlier 前"), ("ahead", "behind"), ("heads", "tails"),
)  # fmt: skip
SIDE_OF = {
    word: (axis, side)
    for axis, sides in enumerate(OPPOSITES)
    for side, words in enumerate(sides)
    for word in words.split()
}
TURNING = {word for sides in OPPOSITES[2:] for word in sides[1].split()} - {"BC", "BCE"}
CHANGING = {  # words that make another statement of a number
    "or", "and", "not", "if", "for", "where", "when", "at", "least", "most", "than", "exactly",
    "factorial", "squared", "cubed", "times", "half", "third", "thirds", "quarter", "quarters",
    "plus", "minus", "is", "are", "was", "were", "wrong", "incorrect", "false", "remainder",
    "R",
    "mod", "modulo", "to", "choose", "none", "nor", "but", "only", "almost", "nearly", "twice",
    "per", "percent", "th", "st", "nd", "rd",
} - {"per", "only", "at", "exactly"}  # fmt: skip
BOUNDS = re.compile(
    r"\bat (?:least|most)\b|\b(?:more|less|fewer|greater) than\b", re.IGNORECASE
)
CHINESE_CHANGING = re.compile(r"[不非或和]|以上|以下|左右|至少|至多|倍|分之|多于|少于|错")
SCALES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "dozen": 12, "dozens": 12, "百": 100, "千": 1000, "万": 10**4, "百万": 10**6, "千万": 10**7,
    "亿": 10**8,
}  # fmt: skip
SCALE = re.compile(
    r"^(?P<scale>hundred|thousand|million|billion|trillion|dozens?)\b\s*|"
    r"^(?P<chinese>千万|百万|万|亿|千(?!米|克|瓦|帕)|百(?!分))"
)


@dataclass(frozen=True)
class Unit:
    """A product of powers of units, by pint's names; none for plain words."""

    factors: tuple[tuple[str, int], ...] = ()
    words: tuple[str, ...] = ()  # what is behind the number and no unit

    @property
    def sides(self) -> dict[int, int]:
        """Of north and south, profit and loss and so on, which is said."""
        return dict(SIDE_OF[word] for word in self.words if word in SIDE_OF)

    @property
    def changes(self) -> frozenset[str]:
        """The words that make another statement of the number."""
        return frozenset(w for w in self.words if w in CHANGING or CHINESE_CHANGING.search(w))

    @property
    def dimension(self) -> str:
        """A name of the unit without its powers, for what may be forgotten: cm for cm^2."""
        return " ".join(sorted(name for name, _ in self.factors))


NONE = Unit()


@lru_cache(8192)
def unit_of(text: str) -> Unit:
    """The unit that a text without styles names, or its words."""
    text = text.strip(" .()")
    if not text:
        return NONE
    factors = _factors(text)
    if factors is not None:
        return Unit(factors)
    if BOUNDS.search(text):
        return Unit((), (*re.findall(r"[A-Za-z]+", text), "than"))
    words = re.findall(r"[A-Za-z]+(?:-[a-z]+)?|[\u3400-\u9fff]+", text)
    if len(words) > 1:  # "km north"
        factors = _factors(words[0])
        if factors is not None and not words[0].startswith(("in", "at", "a")):
            return Unit(factors, tuple(words[1:]))
    return Unit((), tuple(words))


def _factors(text: str) -> tuple[tuple[str, int], ...] | None:
    """The factors of "m/s^2", "square feet", "J/(mol K)"; None with an unknown name."""
    if text in ("unit", "units", "square units", "sq units", "cubic units", "个"):
        return ()
    found: dict[str, int] = {}
    text = re.sub(r"\s*(?:\bper\b|每)\s*", "/", text)
    text = re.sub(r"(?<=[\u3400-\u9fff])/?(?:平方|立方)(?=秒)", "/", text)
    above, *below = text.split("/")
    for part, sign in [(above, 1), *((part, -1) for part in below)]:
        for name, power in _powers(part.replace("(", " ").replace(")", " ")):
            if name not in UNIT_OF:
                return None
            known = UNIT_OF[name]
            found[known] = found.get(known, 0) + sign * power
    return tuple(sorted((name, power) for name, power in found.items() if power))


def _powers(text: str) -> list[tuple[str, int]]:
    """The names and powers of a product of units."""
    found = []
    rest = text.strip()
    while rest:
        prefix = PREFIX.match(rest)
        rest = rest[prefix.end() :] if prefix else rest
        match = FACTOR.match(rest)
        if not match:
            return [(text, 1)]
        power = int(match["power"] or (2 if prefix and prefix["two"] else 3 if prefix else 1))
        name = match["name"]
        if name not in UNIT_OF:
            name = name if name.casefold() not in UNIT_OF else name.casefold()
        found.append((name, power))
        rest = rest[match.end() :].lstrip(" ·*.-")
    return found


# ---------------------------------------------------------------- comparison
def conversion(one: Unit, other: Unit) -> Fraction | None:
    """How many of `one` an `other` is; None where they measure different things.

    1 where a unit is missing or unknown. A power alone may be forgotten: 9 inches for
    9 square inches.
    """
    if not one.factors or not other.factors or one.factors == other.factors:
        return Fraction(1)
    if len(one.factors) == len(other.factors) == 1:
        (name, power), (found, raised) = one.factors[0], other.factors[0]
        if name == found and 1 in (power, raised) and power > 0 and raised > 0:
            return Fraction(1)
    names = {name for name, _ in one.factors + other.factors}
    if names & NOT_IN_PINT:
        return None
    if "degree_Celsius" in names or "degree_Fahrenheit" in names:
        return None
    return _by_pint(one.factors, other.factors)


@lru_cache(4096)
def _by_pint(
    one: tuple[tuple[str, int], ...], other: tuple[tuple[str, int], ...]
) -> Fraction | None:
    sizes = []
    for factors in (one, other):
        size = Fraction(1)
        dimension: dict[str, int] = {}
        for name, power in factors:
            own, measured = _size(name)
            size *= own**power
            for what, times in measured.items():
                dimension[what] = dimension.get(what, 0) + times * power
        sizes.append((size, {what: times for what, times in dimension.items() if times}))
    if sizes[0][1] != sizes[1][1]:
        return None
    return sizes[1][0] / sizes[0][0]


@cache
def _size(name: str) -> tuple[Fraction, dict[str, int]]:
    """A unit in base units, and its dimension."""
    quantity = registry().Quantity(1, registry().Unit(name)).to_base_units()
    size = (
        Fraction(quantity.magnitude).limit_denominator(10**12)
        if (quantity.magnitude > 1e-6)
        else Fraction(quantity.magnitude)
    )
    measured = {str(what): int(times) for what, times in quantity.dimensionality.items()}
    if name in ("degree", "radian"):
        measured["angle"] = 1
    return size, measured


@cache
def registry():  # noqa: ANN201 # pint's registry class is made at run time
    """Pint's units; loading them takes a second, so it waits until two units differ."""
    import pint

    return pint.UnitRegistry(cache_folder=None)


def agree(wanted: Unit, found: Unit) -> tuple[bool | None, str]:
    """Whether the words behind two equal numbers say the same."""
    if wanted.changes != found.changes:
        return False, f"words change it: {', '.join(sorted(wanted.changes ^ found.changes))}"
    ours, theirs = wanted.sides, found.sides
    if any(ours[axis] != theirs[axis] for axis in ours.keys() & theirs.keys()):
        return False, "the opposite"
    for measured, spoken in ((wanted, found), (found, wanted)):
        if measured.factors and not measured.words and spoken.words and not spoken.factors:
            if not {name for name, _ in measured.factors} & NOT_IN_PINT and not spoken.sides:
                return None, f"{spoken.words[0]} may be another unit"
    turning = [w for w in found.words if w in TURNING and SIDE_OF[w][0] not in ours]
    if turning:
        return None, f"{turning[0]} may turn the sign"
    return True, "same"


def plain(text: str) -> str:
    """Units as they are read, without styles and TeX."""
    text = re.sub(
        r"\\frac\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r"\1/(\2)", text
    )
    text = re.sub(r"\\mu\s*", "µ", text)
    previous = ""
    while previous != text:
        previous, text = text, STYLED.sub(r"\1", text)
    text = re.sub(
        r"\\(?:text|mathrm|mbox|textrm|rm)\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r"\1", text
    )
    text = re.sub(r"\\(?:cdot|times)(?![a-z])|·", " ", text)
    text = re.sub(r"([A-Za-z])\^\{?(-?\d)\}?", r"\1^\2 ", text)
    return re.sub(r"\s+", " ", text).strip(" ~")
