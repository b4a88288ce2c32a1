"""An answer as a typed value: which kind of thing a cleaned text writes.

`read` makes the value once (it is cached): the first reader that knows the form wins.
Parts of lists, intervals and matrices stay texts and are read when they are compared, so
that nothing recurses over what a model wrote. Chapter 8.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from limo_nb.grading.canonical import FUNCTIONS, STYLED, clean
from limo_nb.grading.numbers import AMBIGUOUS, SPELLED, Number, number, without_unit
from limo_nb.grading.rewriting import Rewrite, rewritten
from limo_nb.grading.structure import (
    ASSIGNED,
    MEMBER,
    NAME,
    Region,
    brackets,
    cells,
    is_told,
    listed,
    region,
    split,
)
from limo_nb.grading.units import NONE, Unit, unit_of


@dataclass(frozen=True)
class Answer:
    """Any answer: the text that was read."""

    text: str


@dataclass(frozen=True)
class Literal(Answer):
    """A mapping or a list with words, as Python or JSON writes it; keys of a mapping."""

    values: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Choice(Answer):
    """Options: "C", "ABD", "A, C", or the statements (1)(3)."""

    options: tuple[str, ...]


@dataclass(frozen=True)
class Time(Answer):
    """A time of day; `half` is "am", "pm" or "" where it is not said."""

    minutes: float
    half: str


@dataclass(frozen=True)
class Date(Answer):
    """A date; 0 for a year that is not said."""

    year: int
    month: int
    day: int


@dataclass(frozen=True)
class Ratio(Answer):
    """Terms with colons between them, and the names that stand before an equals sign."""

    terms: tuple[str, ...]
    names: str


@dataclass(frozen=True)
class Quantity(Answer):
    """A number with its unit."""

    number: Number


@dataclass(frozen=True)
class Based(Answer):
    """Digits in a base."""

    digits: str
    base: int


@dataclass(frozen=True)
class Matrix(Answer):
    """Rows of cells."""

    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Congruence(Answer):
    """Residues and a modulus."""

    name: str
    residues: tuple[str, ...]
    modulus: str


@dataclass(frozen=True)
class Piecewise(Answer):
    """Values and the conditions under which they hold."""

    cases: tuple[tuple[str, str], ...]
    name: str = ""  # f(x) of f(x) = ...


@dataclass(frozen=True)
class Reals(Answer):
    """A set of reals: intervals, points, relations about one unknown."""

    region: Region


@dataclass(frozen=True)
class Collection(Answer):
    """A list ("" for no brackets), a set, a tuple, or an interval that could be a tuple."""

    brackets: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Conditioned(Answer):
    """A formula, the relations that it is given under, and letters that are integers."""

    main: str
    relations: tuple[str, ...]
    integers: tuple[str, ...]


@dataclass(frozen=True)
class Equation(Answer):
    """Sides with = between them; `name` where the first side is a name for the rest."""

    sides: tuple[str, ...]
    name: str
    rounded: bool  # an approximation is among the signs

    @property
    def value(self) -> str:
        """What a name stands for."""
        return "=".join(self.sides[1:])


@dataclass(frozen=True)
class Inequality(Answer):
    """Sides with relations between them, read from left to right in rising order."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Prose(Answer):
    """A formula with words around it."""


@dataclass(frozen=True)
class Text(Answer):
    """Words."""


@dataclass(frozen=True)
class Expression(Answer):
    """A formula, and the unit behind it."""

    formula: str
    unit: Unit


# ---------------------------------------------------------------- remarks
STYLE = r"(?:\\(?:text|mathrm|mbox|textrm)\s*\{)?"
REMARKS = (
    Rewrite(
        "reasons",
        rf",?\s*\(?{STYLE}[\s(]*(?:because|since"
        r"|as (?:required|desired|claimed|wanted|expected))\b.*$",
        "",
        r"2 \text{because it is prime}",
        "2",
    ),
    Rewrite(
        "quantifiers",
        rf",?\s*\(?{STYLE}\s*(?:for (?:all|any|every|each|some)|where [a-zA-Z] (?:is|denotes)"
        r" (?:an? )?(?:arbitrary|any|some|real|constant))\b.*$",
        "",
        r"f(x)=cx \text{for any real constant}c",
        "f(x)=cx",
    ),
    Rewrite(
        "sentences",
        rf"(?i:^{STYLE}(?:the|an?|its|their|so the) [a-z ]{{2,40}}? "
        r"(?:is|are|equals|was)\s*\}?\s*)"
        r"(?=[-\d\\$(])",
        "",
        r"The area is 12",
        "12",
    ),
    Rewrite(
        "approximations",
        rf"^{STYLE}(?:approximately|about|roughly|around|nearly|exactly|约|大约)\s*\}}?\s*(?=[-\d\\$])",
        "",
        r"\text{approximately}12",
        "12",
    ),
)


def without_remarks(text: str) -> str:
    """`text` without reasons, quantifiers and the words of a sentence around its value."""
    found = (
        rewritten(text, REMARKS) if re.search(r"[A-Za-z]{3}|[\u3400-\u9fff]", text) else text
    )
    return found.rstrip(" ,.").lstrip(" ,") or text


# ---------------------------------------------------------------- letters
LETTER = re.compile(r"\(?([A-Z])\)?[.:]?")
LEAD = (
    "the|so|correct|final|option|choice|answer|is"
    "|综上|因此|所以|故|应|本题|正确|的|答案|选项|选择|选|为|是"
)
OPTION = re.compile(
    rf"(?:(?:{LEAD})[\s:,]*)*"
    r"[(\[【「]?(?P<letter>[A-Z])(?P<closed>[)\]】」])?"
    r"(?:\s?(?:选?项|正确|is (?:correct|right|true))"
    r"|(?:[.:,)}\]】」]|\s+(?=[$\d-]|\\(?:frac|sqrt|pi)))(?P<rest>.*)|)",
    re.IGNORECASE,
)
# Another option in what follows the first: "(B)", "B.", "or B" at the end, "B" alone.
OTHER = re.compile(
    r"(?<![A-Za-z\\])[(\[【「]\s?([A-J])\s?[)\]】」]"
    r"|(?<![A-Za-z\\(\[])([A-J])\s?[.:)\]】」]"
    r"|(?:^|[,;&/]|\bor\b|\band\b|[和或与])\s?[(\[]?([A-J])[)\]]?(?=$|[,;&/.])"
)
LETTERS = re.compile(r"\(?[A-J]\)?(?:(?:[ ,;&]|\\text|\band\b|[{}和与])*\(?[A-J]\)?)+")
STATEMENTS = re.compile(r"\(\d{1,2}\)(?:(?:[ ,;]|\band\b|[和与])*\(\d{1,2}\))+")


def letter(text: str) -> str | None:
    """The one option that `text` names, None where it names none or several."""
    named = OPTION.fullmatch(text)
    if not named:
        return None
    if re.match(r"\s*[+*/^=<>]", named["rest"] or ""):
        return None
    others = {next(filter(None, found)) for found in OTHER.findall(named["rest"] or "")}
    one = named["letter"]
    if others - {one} or not (one.isupper() or re.fullmatch(r"\([a-z]\)", text)):
        return None
    return one.upper()


def options(text: str) -> tuple[str, ...]:
    """All options or statements that `text` names and nothing else; () for none."""
    text = STYLED.sub(r" \1 ", text).strip()
    text = re.sub(r"^(?:options?|choices?|statements?|故?选)\s*", "", text, flags=re.IGNORECASE)
    if STATEMENTS.fullmatch(text):
        return tuple(sorted(set(re.findall(r"\d+", text)), key=int))
    text = brackets(text)[1] if not re.match(r"\([A-J]\)", text) else text
    one = letter(text)
    if LETTERS.fullmatch(text):
        return tuple(sorted(re.findall("[A-J]", text)))
    return (one,) if one else ()


def read_choice(text: str) -> Choice | None:
    """A single letter, letters in rising order, or numbered statements."""
    plain = STYLED.sub(r"\1", text).strip()
    if text.count(r"\mathbf") > 1:  # a product of matrices
        return None
    if LETTER.fullmatch(plain):
        return Choice(text, (plain.strip("().:"),))
    rising = re.fullmatch(r"(?=[A-H]{2,5}$)A?B?C?D?E?F?G?H?", plain)
    if rising or STATEMENTS.fullmatch(plain):
        return Choice(text, options(plain))
    parted = re.fullmatch(r"[A-J](?:[,;]\s?[A-J])+", plain)
    if parted:
        named = re.findall("[A-J]", plain)
        return Choice(text, tuple(named)) if named == sorted(set(named)) else None
    return None


# ---------------------------------------------------------------- words
CJK = re.compile("[\u3400-\u9fff]")
WORDS = re.compile(r"[A-Za-z][A-Za-z .,'-]*")
PROSE = re.compile(
    rf"(?<![\\a-zA-Z])(?!(?:{FUNCTIONS}|mod|max|min|lim|cis|arg|gcd|lcm)(?![a-z]))[a-z]{{3,}}"
)
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def is_word(text: str) -> bool:
    """Whether letters are a word and no product: mgh, abc and nRT are products."""
    low = text.casefold()
    if len(low) < 3 or not re.search("[aeiou]", low) and not re.search("^[^y]+y", low):
        return False
    if low in ALPHABET or low in ("xyz", "abcd"):
        return False
    return not re.search("[a-z][A-Z]", text) or text.isupper()


def has_prose(text: str) -> bool:
    """Whether unstyled words stand in a formula."""
    text = re.sub(
        r"\\(?:begin|end|mathbb|mathcal|mathrm|text|mod)\s*\{[^{}]*\}|_\{[^{}]*\}|\\[a-zA-Z]+|_[a-z]+",
        " ",
        text,
    )
    return any(is_word(word) and word != "and" for word in PROSE.findall(text))


def is_text(text: str) -> bool:
    """Chinese, words of three letters or more, or letters with spaces between them."""
    plain = STYLED.sub(r"\1", text)
    if CJK.search(plain):
        return not re.fullmatch(r"[^\u3400-\u9fff]*(?:[,;]?[和或][^\u3400-\u9fff]*)+", plain)
    if not WORDS.fullmatch(plain):
        return False
    if re.search(r"^(?:[Nn]o|NO)$|^[A-Z](?:[ ,]+[A-Z])+$", plain):
        return True
    words = re.findall("[A-Za-z]{3,}", plain)
    return any(map(is_word, words)) or (bool(words) and "\\" in text and " " in plain)


def folded(text: str) -> str:
    """`text` without styles, case, and the signs that end or separate words."""
    text = STYLED.sub(r" \1 ", text)
    if CJK.search(text):
        return re.sub(r"[\s,;.。]", "", text)
    return " ".join(re.findall(r"[^\W_]+|[^\w\s,.]", text.casefold()))


# ---------------------------------------------------------------- dates, times, ratios
MONTHS = "january february march april may june july august september october november december"
MONTH = {name: n for n, name in enumerate(MONTHS.split(), 1)}
MONTH |= {name[:3]: n for name, n in MONTH.items()} | {"sept": 9}
DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
NAMED = r"(?P<month>[A-Za-z]{3,9})\.?"
DATES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{NAMED} ?{DAY}(?:,? ?(?P<year>\d{{4}}))?",
        rf"{DAY} ?(?:of )?{NAMED}(?:,? ?(?P<year>\d{{4}}))?",
        r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})",
        r"(?P<year>\d{4})年(?P<month>\d{1,2})月(?P<day>\d{1,2})[日号]",
        r"(?P<month>\d{1,2})月(?P<day>\d{1,2})[日号](?P<year>x)?",
        r"(?P<year>\d{4})/(?P<month>\d{1,2})/(?P<day>\d{1,2})",
    )
)  # fmt: skip
CLOCK = re.compile(
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2}))?)?"
    r"\s?(?P<half>[ap]\.?\s?m\.?|noon|midnight)?(?:\s*sharp)?",
    re.IGNORECASE,
)


def read_date(text: str) -> Date | None:
    """A date with a named month, or with the year first."""
    plain = STYLED.sub(r" \1 ", text)
    plain = re.sub(r"\s+", " ", re.sub(r"\^\{?(st|nd|rd|th)\}?", r"\1", plain)).strip(" .")
    for pattern in DATES:
        match = pattern.fullmatch(plain)
        if match:
            month = match["month"]
            number_ = int(month) if month.isdigit() else MONTH.get(month.casefold(), 0)
            year = match["year"] or "0"
            if 1 <= number_ <= 12 and 1 <= int(match["day"]) <= 31:
                return Date(
                    text, int(year) if year.isdigit() else 0, number_, int(match["day"])
                )
    return None


def read_time(text: str) -> Time | None:
    """A time with two digits of minutes, or with am or pm."""
    plain = re.sub(r"\s+", " ", STYLED.sub(r" \1 ", text)).replace(" :", ":").strip(" ")
    plain = re.sub(r"(?<=\d)\s?:\s?(?=\d)", ":", plain)
    match = CLOCK.fullmatch(plain)
    if not match or not (match["minute"] or match["half"]):
        return None
    hour, minute = int(match["hour"]), int(match["minute"] or 0)
    if hour > 24 or minute > 59:
        return None
    half = re.sub(r"[.\s]", "", (match["half"] or "").lower())
    if half in ("noon", "midnight"):
        half = {"noon": "pm", "midnight": "am"}[half]
    return Time(text, hour * 60 + minute + int(match["second"] or 0) / 60, half)


def read_ratio(text: str) -> Ratio | None:
    """a:b:c, also "3 to 2", and "x:y=3:2"."""
    plain = re.sub(r"(?<=[\d}])\s?(?:\\text\s*\{\s*to\s*\}|\bto\b)\s?(?=[\d\\])", ":", text)
    if ":" not in plain or re.search(r"[<>|?]|\\(?:mid|in|to|begin)(?![a-z])|\\\{|->", plain):
        return None
    names, sign, rest = plain.rpartition("=")
    if sign and ":" not in names:
        return None
    terms = tuple(part.strip() for part in rest.split(":"))
    if not all(terms) or CJK.search(plain) or len(terms) > 6:
        return None
    if any(re.search(r"[,;]|[A-Za-z]{3,}", re.sub(r"\\[a-z]+", "", term)) for term in terms):
        return None
    return Ratio(text, terms, names)


# ---------------------------------------------------------------- structure
LITERAL = ('{"', '["')
MODULO = re.compile(
    r"(?:(?P<name>[A-Za-z])\s?\\equiv\s?)?(?P<residues>-?\d+(?:\s?(?:,|\\text\{(?:or|and|,or)\}|or|或)\s?-?\d+)*)"
    r"\s?\(?\\mod\{(?P<modulus>\d+)\}\)?"
)
CASES = re.compile(
    rf"(?:(?P<name>{NAME})=)?"
    r"\\?\{?\s?\\begin\{(?:cases|array)\}(?:\{[lcr]+\})?(?P<inner>.*)\\end\{(?:cases|array)\}\\?\}?\.?"
)
MEMBERSHIP = re.compile(
    r"(?P<main>.*[^\s,(;])[\s,;]*\(?(?P<names>[A-Za-z](?:_\{?\w\}?)?(?:,[A-Za-z](?:_\{?\w\}?)?)*)\s?\\in\s?"
    r"(?:\\(?:mathbb|mathbf|mathrm|Bbb|bf)\s?\{?\s?(?P<set>[ZNRQ])\}?|(?P<plain>[ZNR]))(?:\^?[+*]|_\+|\^\{[+*]\})?\)?"
    r"|(?P<words>.*[^\s,(;])[\s,;]*\(?\\text\{[^{}]*\b(?:integer|整数)[^{}]*\}\)?",
    re.DOTALL,
)
CONDITION = re.compile(
    r"(?P<main>.*[^\s,(=<>])[\s,]*\((?P<rest>[^()]*(?:[<>]|\\[lgn]e )[^()]*)\)"
)
SIGN = re.compile(r"=|\\approx(?![a-z])|\\simeq(?![a-z])")
RISING = re.compile(r"<|>|\\[lg]e(?![a-z])|\\ne(?![a-z])")
TURNED = {">": "<", r"\ge": r"\le"}
# A name before an equals sign may also be words, or a measured thing: Area, m∠A, f_max.
LONG_NAME = re.compile(
    rf"{NAME}|(?:\\text|\\mathrm)\s*\{{[^{{}}]*\}}(?:_\{{?\w+\}}?)?|m\s?\\angle\s?[A-Z]+"
    r"|\\(?:boldsymbol|mathbf|bm)\s*\{[^{}]*\}"
    r"|\\(?:max|min|angle|triangle)(?:_\{[^{}]*\})?\s?[A-Z]*|[A-Za-z ]{3,30}|[A-Z]{2,3}"
)


def literal(reference: str) -> str | None:
    """A dict, or a list with words, that Python or JSON writes, as JSON; else None.

    Its values are cleaned texts. The reference is of the benchmark, not of a model.
    """
    text = reference.strip()
    if not re.match(r"[\[{]", text) or not re.search("['\"]", text) or len(text) > 2000:
        return None
    found: Any = None
    for parse in (ast.literal_eval, json.loads):
        try:
            found = parse(text)
            break
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    if isinstance(found, dict):
        found = {clean(str(key)): clean(str(value)) for key, value in found.items()}
    elif isinstance(found, list) and any(isinstance(value, str) for value in found):
        found = [clean(str(value)) for value in found]
    else:
        return None
    return json.dumps(found, ensure_ascii=False)


def read_literal(text: str) -> Literal | None:
    """What `literal` wrote."""
    if not text.startswith(LITERAL):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if isinstance(found, dict):
        return Literal(text, tuple(found.values()), tuple(found))
    return Literal(text, tuple(found), ())


BASED = re.compile(
    r"\(?(?P<digits>[0-9A-Fa-f]+)\)?_\{?(?:(?P<base>\d{1,2})|(?P<word>[a-z]+))\}?"
)


def read_based(text: str) -> Based | None:
    """204_5, (1010)_2, FF_{16}, 2413_{five}."""
    match = BASED.fullmatch(STYLED.sub(r"\1", text))
    base = int(match["base"] or SPELLED.get(match["word"], 0)) if match else 0
    if not match or not 2 <= base <= 36 or not re.search(r"\d|^[A-Fa-f]{2,}$", match["digits"]):
        return None
    digits = match["digits"].upper()
    return Based(text, digits, base) if all(int(d, 16) < base for d in digits) else None


def read_number(text: str) -> Quantity | None:
    """A number, with what stands behind it."""
    found = number(text)
    return Quantity(text, found) if found else None


def read_matrix(text: str) -> Matrix | None:
    """The rows of a matrix in LaTeX or as nested lists."""
    rows = cells(text)
    return Matrix(text, tuple(map(tuple, rows))) if rows else None


def read_congruence(text: str) -> Congruence | None:
    """N ≡ 1, 2 (mod 4)."""
    match = MODULO.fullmatch(text)
    if not match:
        return None
    return Congruence(text, match["name"] or "", tuple(re.findall(r"-?\d+", match["residues"])),
                      match["modulus"])  # fmt: skip


def read_piecewise(text: str) -> Piecewise | None:
    r"""\begin{cases} with a condition behind every value."""
    match = CASES.fullmatch(text)
    if (
        not match
        or "&" not in match["inner"]
        and not re.search(r"[,]\s?[a-z]\s?(?:[<>=]|\\)", match["inner"])
    ):
        return None
    found = []
    for row in match["inner"].split(r"\\"):
        value, sign, condition = row.partition("&") if "&" in row else row.rpartition(",")
        if not value.strip() and not sign:
            continue
        condition = re.sub(r"^\s*(?:\\text\s*\{\s*)?(?:if|for|when|若|当)\s*\}?", "", condition)
        found.append((value.strip(" ,"), condition.strip(" ,.;")))
    if len(found) < 2 or not all(condition for _, condition in found):
        return None
    return Piecewise(text, tuple(found), match["name"] or "")


def read_reals(text: str) -> Reals | None:
    """Intervals that relations tell, or unions of them."""
    signs = (r"\cup", r"\setminus", r"\emptyset")
    if not (is_told(text) or MEMBER.fullmatch(text) or any(sign in text for sign in signs)):
        return None
    found = region(text)
    return Reals(text, found) if found else None


def read_conditioned(text: str) -> Conditioned | None:
    """A formula with "k ∈ Z" or a relation in brackets behind it."""
    main = text
    integers: list[str] = []
    while True:
        member = (
            MEMBERSHIP.fullmatch(main)
            if (r"\in" in main or "整数" in main or "integer" in main)
            else None
        )
        if not member or brackets(main)[0]:
            break
        main = (member["main"] or member["words"]).strip()
        integers += (member["names"] or "").split(",") if member["names"] else []
    condition = CONDITION.fullmatch(main)
    relations: tuple[str, ...] = ()
    if condition:
        main, relations = condition["main"], (condition["rest"],)
    if main == text:
        return None
    return Conditioned(text, main, relations, tuple(integers))


def read_collection(text: str) -> Collection | None:
    """A list, set, tuple or interval with two parts or more, or a set of one."""
    shape, inner = brackets(listed(text))
    parts = tuple(split(inner))
    if AMBIGUOUS.fullmatch(text):
        return None
    if len(parts) > 1 or (shape == "{}" and parts):
        return Collection(listed(text), shape, parts)
    return None


def masked(text: str) -> str:
    """`text` with what stands in braces blanked, so that k=1 below a sum is no equation."""
    previous = ""
    while previous != text:
        previous = text
        text = INNERMOST.sub(lambda match: "\x00" * len(match[0]), text)
    return text


INNERMOST = re.compile(r"(?<!\\)\{[^{}\x00]*(?:\x00[^{}\x00]*)*(?<!\\)\}")


def _split_at(text: str, marks: Iterable[re.Match]) -> list[str]:
    """The pieces of `text` between marks that were found in a text of the same length."""
    pieces, start = [], 0
    for mark in marks:
        pieces.append(text[start : mark.start()].strip())
        start = mark.end()
    return [*pieces, text[start:].strip()]


def read_equation(text: str) -> Equation | None:
    """Sides with equals signs between them, and no other relation."""
    outer = masked(text)
    if not SIGN.search(outer) or RISING.search(outer) or "\\equiv" in text:
        return None
    sides = tuple(_split_at(text, SIGN.finditer(outer)))
    if not all(sides) or brackets(text)[0]:
        return None
    assigned = ASSIGNED.match(text)
    name = assigned["name"] if assigned else sides[0] if LONG_NAME.fullmatch(sides[0]) else ""
    return Equation(text, sides, name.strip(), bool(re.search(r"\\(?:approx|simeq)", text)))


def read_inequality(text: str) -> Inequality | None:
    """A chain of relations that all point in one direction, turned to rise."""
    outer = masked(text)
    signs = RISING.findall(outer)
    if not signs or "=" in outer:
        return None
    sides = _split_at(text, RISING.finditer(outer))
    if not all(sides):
        return None
    falling = {sign in TURNED for sign in signs if sign != r"\ne"}
    if falling == {True}:
        sides, signs = sides[::-1], [TURNED.get(sign, sign) for sign in signs[::-1]]
    return Inequality(text, tuple(sides), tuple(signs)) if len(falling) < 2 else None


def read_text(text: str) -> Text | None:
    """Words alone."""
    return Text(text) if is_text(text) else None


def read_prose(text: str) -> Prose | None:
    """A formula with unstyled words."""
    bare = without_unit(STYLED.sub(" ", text))[0]
    return Prose(text) if has_prose(bare) else None


def read_expression(text: str) -> Expression:
    """Whatever is left: a formula with the unit behind it."""
    bare, behind = without_unit(text)
    unit = unit_of(behind)
    if unit.changes:
        return Expression(text, text, NONE)
    return Expression(text, bare, unit)


Reader = Callable[[str], Answer | None]
READERS: tuple[tuple[Reader, str], ...] = (  # with an example of each
    (read_literal, '{"a": "1", "b": "2"}'),
    (read_choice, "ABD"),
    (read_date, "May 6, 2024"),
    (read_time, r"3:30 \text{p.m}"),
    (read_ratio, "1:2:3"),
    (read_based, "204_5"),
    (read_number, r"15 \text{cm}"),
    (read_congruence, r"n\equiv 1\mod{3}"),
    (read_piecewise, r"\begin{cases}x&x>0\\-x&x<0\end{cases}"),
    (read_matrix, r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (read_text, r"\text{an ellipse}"),
    (read_conditioned, r"x=k\pi,k\in\mathbb{Z}"),
    (read_reals, r"1<x\le 2"),
    (read_prose, "f(x)=kx, where k is odd"),
    (read_collection, "(1,2)"),
    (read_equation, "y=2x+1"),
    (read_inequality, "a+b<c+d"),
    (read_expression, r"2\sqrt{3}\text{cm}"),
)


@lru_cache(8192)
def read(text: str) -> Answer:
    """The typed value of a cleaned text."""
    for reader, _ in READERS:
        found = reader(text)
        if found is not None:
            return found
    return Expression(text, text, NONE)
