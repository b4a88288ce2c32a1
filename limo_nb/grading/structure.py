"""How compound answers are written: brackets, lists, names, matrices, sets of reals.

Syntax only: parts stay texts, and what they are worth `equivalence` decides (chapter 8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from limo_nb.grading.canonical import unwrap

# ---------------------------------------------------------------- names, lists, brackets
NAME = (
    r"(?:\\?[A-Za-z]+'*(?:_(?:\{(?:[^{}=]|\{[^{}]*\})*\}|\w|\\[a-z]+\s?\{[^{}]*\}))?'*(?:\([A-Za-z](?:,[A-Za-z])*\))?"
    r"|\([A-Za-z](?:,[A-Za-z])+\)|\|[A-Z]{2}\||\\(?:angle|triangle)\s?[A-Z_{}\d ]+)"
)
ASSIGNED = re.compile(rf"(?:let |so )?(?P<name>{NAME})\s?(?:=|\\in(?![a-z])\s?)(?!=)")
TUPLE_OF_NAMES = re.compile(r"\((?P<names>[A-Za-z](?:,[A-Za-z])+)\)=(?P<values>.+)")
CASES = re.compile(r"\\begin\{cases\}([^&]*)\\end\{cases\}")
CURVE = {"y", "f(x)", "y(x)", "g(x)"}
TOKEN = re.compile(
    r"(?P<open>\\\{|[(\[{])|(?P<close>\\\}|[)\]}])"
    r"|(?P<comma>(?:[,;]|\\(?:lor|land|vee|wedge)(?![a-z])"
    r"|\\text\{,?(?:and|or)\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|[和或])+)"
    r"|(?P<cup>\\cup(?![a-z]))"
)


def split(text: str, kind: str = "comma") -> list[str]:
    """The parts of `text` between the commas (or unions) that no bracket encloses."""
    parts, depth, start = [], 0, 0
    for token in TOKEN.finditer(text):
        depth += bool(token["open"]) - bool(token["close"])
        if token[kind] and depth == 0:
            parts.append(text[start : token.start()].strip())
            start = token.end()
    return [part for part in (*parts, text[start:].strip()) if part]


def brackets(text: str) -> tuple[str, str]:
    """(the two brackets around the whole, "" for none, what is inside)."""
    tokens = [t for t in TOKEN.finditer(text) if t["open"] or t["close"]]
    if not tokens or tokens[0].start() or tokens[-1].end() != len(text):
        return "", text
    depth = 0
    for token in tokens[:-1]:
        depth += 1 if token["open"] else -1
        if depth <= 0:
            return "", text
    opening, end = tokens[0][0], tokens[-1][0]
    shape = "{}" if opening in (r"\{", "{") else opening + end
    known = shape in ("()", "[]", "(]", "[)", "{}") and tokens[-1]["close"]
    return (shape, text[len(opening) : -len(end)]) if known else ("", text)


def one_by_one(text: str) -> str:
    """(a,b)=(1,2) as a=1,b=2; any other text as it is."""
    named = TUPLE_OF_NAMES.fullmatch(text)
    shape, inner = brackets(named["values"]) if named else ("", "")
    names, parts = named["names"].split(",") if named else [], split(inner)
    if shape != "()" or len(names) != len(parts):
        return text
    return ",".join(f"{name}={part}" for name, part in zip(names, parts, strict=True))


def listed(text: str) -> str:
    """A system of equations in LaTeX's cases as the list of them; another text as it is."""
    found = CASES.fullmatch(text)
    return ",".join(split(found[1].replace(r"\\", ","))) if found else text


# ---------------------------------------------------------------- matrices
MATRIX = re.compile(
    r"(?P<open>[(\[]?)\\begin\{(?P<kind>(?:[pb]|small)?matrix|array)\}(?:\{[^{}]*\})?"
    r"(?P<cells>(?:(?!\\begin).)*)\\end\{(?P=kind)\}[)\]]?",
    re.DOTALL,
)


def cells(text: str) -> list[list[str]] | None:
    """The rows of a matrix, in LaTeX or as nested lists, None for another text."""
    text = re.sub(rf"^{NAME}=", "", text)
    match = MATRIX.fullmatch(text)
    if not match:
        return _nested(text)
    if match["kind"] in ("array", "matrix", "smallmatrix") and not match["open"]:
        return None
    rows = [row for row in match["cells"].split(r"\\") if row.strip()]
    return [[unwrap(cell.strip()) for cell in row.split("&")] for row in rows]


def _nested(text: str) -> list[list[str]] | None:
    """The rows of [[1,2],[3,4]], a list of lists of one length."""
    shape, inner = brackets(text)
    rows = [brackets(part) for part in split(inner)]
    if shape != "[]" or not rows or {shape for shape, _ in rows} != {"[]"}:
        return None
    parts = [split(row) for _, row in rows]
    return parts if len(set(map(len, parts))) == 1 else None


def components(text: str) -> list[str] | None:
    """The components of a vector: a tuple, or a matrix of one row or one column."""
    shape, inner = brackets(re.sub(r"^\\langle\s?(.*)\\rangle$", r"(\1)", text))
    if shape == "()" or (shape == "[]" and not _nested(text)):
        return split(inner)
    rows = cells(text)
    return sum(rows, []) if rows and 1 in (len(rows), len(rows[0])) else None


# ---------------------------------------------------------------- sets of reals
UNKNOWN = r"[A-Za-z](?:_\{?\w\}?)?|\\[a-z]+"
REALS = r"\\(?:mathbb|mathbf|Bbb)\s?\{?R\}?|\\R(?![a-z])"
POSITIVE = re.compile(rf"(?:{REALS})(?:\^\{{?(?P<strict>\+)\}}?|_\{{(?P<sign>>|\\ge)\s?0\}})")
SIZE = re.compile(rf"\|(?P<unknown>{UNKNOWN})\|")
OUTSIDE = re.compile(
    rf"\|(?P<unknown>{UNKNOWN})\|\s?(?P<sign>>|\\ge(?![a-z]))\s?(?P<far>[^<>=|]+)"
)
MEMBER = re.compile(rf"(?P<unknown>{UNKNOWN})\s?\\in(?![a-z])\s?(?P<set>.+)")
BUILDER = re.compile(
    rf"(?P<unknown>{UNKNOWN})\s?(?:\\in\s?(?:{REALS})\s?)?(?:\\mid(?![a-z])|[|:])\s?(?P<rest>.+)"
)
TOLD = re.compile(rf"[<>]|\\[lgn]e(?![a-z])|\\mid(?![a-z])|{REALS}")
OR = re.compile(r"\\text\{,?or\}|(?<![A-Za-z\\])or(?![A-Za-z])|或|\\(?:lor|vee|cup)(?![a-z])")
AND = re.compile(
    r"\\text\{,?(?:and|且)\}|(?<![A-Za-z\\])and(?![A-Za-z])|且|\\(?:land|wedge)(?![a-z])"
)
COMPARED = re.compile(r"(<|>|=|\\[lgn]e(?![a-z]))\s?")
TURNED = {">": "<", r"\ge": r"\le"}  # as they are read from right to left
ENDLESS = ("-\\infty", "\\infty")


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, with or without its ends."""

    low: str
    high: str
    closed: tuple[bool, bool]


@dataclass(frozen=True)
class Region:
    """A union of intervals, and the unknown of the relations that describe it.

    Bound unknowns, as in a set-builder, and intervals have none: "".
    """

    parts: tuple[Interval, ...]
    unknown: str
    holes: tuple[str, ...] = ()  # points that do not belong

    @property
    def is_infinite(self) -> bool:
        """Whether it is more than single points."""
        return any(part.low != part.high for part in self.parts)


def is_told(text: str) -> bool:
    """Whether `text` describes a set otherwise than by intervals alone."""
    return bool(TOLD.search(text))


def region(text: str) -> Region | None:
    r"""The set of reals that `text` describes, None where it is not understood.

    Intervals, \mathbb{R}, {x | condition}, x \in set, and chains of relations about one
    unknown, which "and", "or" and \cup join. Only a conjunction of one lower and one upper
    bound is read, because others need their bounds compared.
    """
    member = MEMBER.fullmatch(text)
    if member:
        told = region(member["set"])
        return Region(told.parts, member["unknown"], told.holes) if told else None
    if text == r"\emptyset":
        return Region((), "")
    whole, sign, without = text.rpartition(r"\setminus")
    if sign:
        around, holes = brackets(without.strip())
        outer = region(whole.strip()) if around == "{}" else None
        return Region(outer.parts, outer.unknown, tuple(split(holes))) if outer else None
    shape, inner = brackets(text)
    built = BUILDER.fullmatch(inner) if shape == "{}" else None
    if built:
        inside = region(built["rest"].replace(",", r"\land "))
        if inside is None or inside.unknown not in (built["unknown"], ""):
            return None
        return Region(inside.parts, "")
    found = []
    for alternative in OR.split(text):
        part = _part(alternative.strip(" ,"))
        if part is None:
            return None
        found.append(part)
    unknowns = {own.unknown for own in found}
    if len(unknowns) > 1:
        return None
    return Region(sum((own.parts for own in found), ()), unknowns.pop())


def _part(text: str) -> Region | None:
    """A region without "or": an interval, points, a set-builder, or relations."""
    if re.fullmatch(REALS, text):
        return Region((Interval(*ENDLESS, (False, False)),), "")
    positive = POSITIVE.fullmatch(text)
    if positive:
        closed = positive["sign"] == r"\ge"
        return Region((Interval("0", ENDLESS[1], (closed, False)),), "")
    outside = OUTSIDE.fullmatch(text)
    if outside:
        closed, far = outside["sign"] == r"\ge", outside["far"]
        below = Interval(ENDLESS[0], f"-({far})", (False, closed))
        above = Interval(far, ENDLESS[1], (closed, False))
        return Region((below, above), outside["unknown"])
    shape, inner = brackets(text)
    if shape == "{}":
        points = None if BUILDER.fullmatch(inner) else split(inner)
        if points is None:
            return region(text)
        return Region(tuple(Interval(p, p, (True, True)) for p in points), "")
    ends = split(inner)
    if shape and len(ends) == 2:
        both = shape[0] == "[", shape[1] == "]"
        return Region((Interval(_end(ends[0]), _end(ends[1]), both),), "")
    return None if shape else _bounded(AND.split(text))


def _end(text: str) -> str:
    """An end of an interval; infinity in one spelling."""
    bare = text.replace(" ", "").removeprefix("+")
    return bare if bare in ENDLESS else text


def _bounded(relations: list[str]) -> Region | None:
    """What several relations say of one unknown together."""
    bounds: dict[str, tuple[str, bool]] = {}
    unknowns = set()
    for relation in relations:
        found = _bounds(relation.strip(" ,"))
        if not found or bounds.keys() & found[1].keys():
            return None
        unknowns.add(found[0])
        bounds |= found[1]
    if len(unknowns) != 1 or (len(bounds) > 1 and bounds.keys() & {"=", r"\ne"}):
        return None
    return Region(_between(bounds), unknowns.pop())


def _bounds(relation: str) -> tuple[str, dict[str, tuple[str, bool]]] | None:
    r"""(the unknown, its bounds) of "1<x<2" or "x>1": "low" and "high", "=" or "\ne"."""
    sides = COMPARED.split(relation)
    terms, signs = [side.strip() for side in sides[0::2]], sides[1::2]
    if not all(terms) or len(terms) not in (2, 3):
        return None
    if len({sign in TURNED for sign in signs}) > 1:
        return None
    if signs[0] in TURNED:
        terms, signs = terms[::-1], [TURNED[sign] for sign in signs[::-1]]
    if len(terms) == 3:
        first, second = (sign == r"\le" for sign in signs)
        ordered = set(signs) <= {"<", r"\le"} and re.fullmatch(UNKNOWN, terms[1])
        found = {"low": (terms[0], first), "high": (terms[2], second)}
        return (terms[1], found) if ordered else None
    size = SIZE.fullmatch(terms[0])
    if size and signs[0] in ("<", r"\le"):
        closed = signs[0] == r"\le"
        return size["unknown"], {"low": (f"-({terms[1]})", closed), "high": (terms[1], closed)}
    names = [place for place, term in enumerate(terms) if re.fullmatch(UNKNOWN, term)]
    if not names:
        return None
    place = names[0]
    kind = signs[0] if signs[0] in ("=", r"\ne") else ("high", "low")[place]
    return terms[place], {kind: (terms[1 - place], signs[0] == r"\le")}


def _between(bounds: dict[str, tuple[str, bool]]) -> tuple[Interval, ...]:
    """The intervals that bounds leave."""
    if "=" in bounds:
        point = bounds["="][0]
        return (Interval(point, point, (True, True)),)
    if r"\ne" in bounds:
        hole = bounds[r"\ne"][0]
        ends = ((ENDLESS[0], hole), (hole, ENDLESS[1]))
        return tuple(Interval(low, high, (False, False)) for low, high in ends)
    low, high = bounds.get("low", (ENDLESS[0], False)), bounds.get("high", (ENDLESS[1], False))
    return (Interval(_end(low[0]), _end(high[0]), (low[1], high[1])),)
