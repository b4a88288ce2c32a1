"""When a cleaned answer says what a cleaned reference says (chapter 8).

`settle` holds the rules that need no algebra: letters, text, numbers, lists of numbers.
`equivalent` adds structure (lists, tuples, intervals, matrices, conditions), and leaves
formulas to `formulas`. It runs in worker processes, `settle` anywhere.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

from limo_nb.grading.extraction import (
    FUNCTIONS,
    STYLED,
    clean,
)
from limo_nb.grading.numbers import (
    LONE_UNIT,
    Number,
    incompatible,
    number,
    same_number,
    unit_name,
    without_unit,
)
from limo_nb.grading.structure import (
    ASSIGNED,
    NAME,
    Interval,
    brackets,
    cells,
    components,
    is_told,
    listed,
    one_by_one,
    region,
    split,
    values,
)
from limo_nb.grading.symbolic import (
    Finding,
    as_formula,
)

# ---------------------------------------------------------------- letters and text
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
OPTION_TEXT = re.compile(r"(?:\((?P<in>[A-H])\)|(?P<plain>[A-H])\)?[.、:])\s*(?P<text>\S.*)")
LETTERS = re.compile(r"[A-H](?:[ ,]*(?:and ?)?[A-H])+")
CJK = re.compile("[\u3400-\u9fff]")
WORDS = re.compile(r"[A-Za-z][A-Za-z .,'-]*")
PROSE = re.compile(rf"(?<![\\a-zA-Z])(?!(?:{FUNCTIONS})(?![a-z]))[a-z]{{3,}}")


def settle(reference: str, answer: str, tolerance: float = 0.0) -> bool | None:
    """The verdict of rules that need no algebra, None where formulas must be compared.

    Both arguments are cleaned. The kind of the reference decides how it is compared.
    `tolerance` is relative; a reference that is written as an integer is exact.
    """
    if not answer:
        return False
    if answer == reference:
        return True
    if reference.startswith(LITERAL):
        return None
    for rule in (_as_choice, _as_text):
        verdict = rule(reference, answer)
        if verdict is not None:
            return verdict
    reference, answer = values(reference, answer)
    verdict = _as_number(reference, answer, tolerance)
    if verdict is None:
        verdict = _as_list(reference, answer)
        return None if tolerance and verdict is False else verdict  # then part by part
    return verdict


def target(reference: str, answer: str) -> str:
    """Of a reference "C. text" the part that the answer is to be compared with."""
    return counterparts(reference, answer)[0]


def counterparts(reference: str, answer: str) -> tuple[str, str]:
    """What is compared where the reference is "C. text": the letters or the texts.

    The texts of two options with one letter count if they are no words: "C. 1+i" is not
    "C. 1-i".
    """
    option = OPTION_TEXT.fullmatch(reference)
    if not option:
        return reference, answer
    letter, text = option["in"] or option["plain"], clean(option["text"])
    plain = STYLED.sub(r"\1", answer)
    if _letter(plain) is None:
        return (letter if LETTER.fullmatch(plain) else text), answer
    other = OPTION_TEXT.fullmatch(plain)
    said = clean(other["text"]) if other else ""
    if (
        not said
        or _letter(plain) != letter
        or PROSE.search(said + text)
        or CJK.search(said + text)
    ):
        return letter, answer
    return text, said


def _letter(text: str) -> str | None:
    """The one option that `text` names, None where it names none or several."""
    named = OPTION.fullmatch(text)
    if not named:
        return None
    others = {next(filter(None, found)) for found in OTHER.findall(named["rest"] or "")}
    letter = named["letter"]
    if others - {letter} or not (letter.isupper() or re.fullmatch(r"\([a-z]\)", text)):
        return None
    return letter.upper()


def _as_choice(reference: str, answer: str) -> bool | None:
    """A reference such as "C" or "ABD": the letters that the answer names."""
    wanted = LETTER.fullmatch(reference)
    text = STYLED.sub(r"\1", answer).strip()
    if wanted:
        return _letter(text) == wanted[1]
    if re.fullmatch(r"(?=[A-H]{2,5}$)A?B?C?D?E?F?G?H?", reference):
        text = brackets(re.sub(r"^(?:options?|choices?|故?选)\s*", "", text, flags=2))[1]
        named = LETTERS.fullmatch(text)
        return bool(named) and sorted(re.findall("[A-H]", text)) == list(reference)
    return None


def _as_text(reference: str, answer: str) -> bool | None:
    """Words, and sequences such as "B A C D", as text in order; case does not count.

    math-verify would read them as products, which commute.
    """
    if not is_text(reference):
        return None
    if number(reference):
        return None  # a number with a Chinese unit
    return folded(reference) == folded(answer)


def is_text(reference: str) -> bool:
    """Chinese, words of three letters or more, or letters with spaces between them."""
    plain = STYLED.sub(r"\1", reference)
    if CJK.search(plain):
        return not re.fullmatch(r"[^\u3400-\u9fff]*(?:[,;]?[和或][^\u3400-\u9fff]*)+", plain)
    if not WORDS.fullmatch(plain):
        return False
    return bool(re.search(r"[A-Za-z]{3}|^(?:[Nn]o|NO)$|^[A-Z](?:[ ,]+[A-Z])+$", plain))


def folded(text: str) -> str:
    """`text` without styles, case, and the signs that end or separate words."""
    text = STYLED.sub(r"\1", text)
    if CJK.search(text):
        return re.sub(r"[\s,;.。]", "", text)
    return " ".join(re.findall(r"[^\W_]+|[^\w\s,.]", text.casefold()))


def _with_words(reference: str, answer: str, tolerance: float) -> Finding | None:
    """As prose if it has words that are not in a style, as units and "or" are."""
    plain = PROSE.search(STYLED.sub("", reference))
    return _as_prose(reference, answer, tolerance) if plain else None


def _as_prose(reference: str, answer: str, tolerance: float) -> Finding | None:
    """A formula with words around it: equal words and signs, else not for rules to say."""
    if not PROSE.search(re.sub(r"\\begin\{\w+\}|\\end\{\w+\}|_\{[^{}]*\}", "", reference)):
        return None
    if folded(reference) == folded(answer):
        return True, "same words"
    words = [re.findall(r"[a-z]{2,}|[\u3400-\u9fff]", folded(t)) for t in (reference, answer)]
    if words[0] == words[1] or not PROSE.search(answer):
        return False, "other signs" if words[0] == words[1] else "words are missing"
    return None, "words that rules cannot compare"


# ---------------------------------------------------------------- numbers
BASED = re.compile(r"([0-9A-Fa-f]+)_\{?(\d{1,2})\}?")


def _as_number(reference: str, answer: str, tolerance: float) -> bool | None:
    """Two numbers, compared exactly or within the tolerance; 1/3 may be said 0.333333."""
    if BASED.fullmatch(reference):
        return _in_base(reference, answer)
    one, other = number(reference), number(answer)
    if not one and (other or _with_lone_unit(answer)):
        one = _with_lone_unit(reference)
    if one and not other:
        other = _with_lone_unit(answer) or number(answer.replace(" and ", " "))
    if one and not other:
        return False if is_text(answer) or _elements(answer) else None
    if not one or not other:
        return None
    if incompatible(one.unit, other.unit) or (one.percent and other.unit == "degree"):
        return False
    if same_number(one, other):
        return True
    if tolerance and not one.integer:
        return abs(one.value - other.value) <= Fraction(tolerance) * abs(one.value)
    return None if "," in reference + answer else False


def _with_lone_unit(text: str) -> Number | None:
    """5 s and 5m as numbers: beside another number they are no products."""
    lone = LONE_UNIT.search(text)
    found = number(text[: lone.start()]) if lone else None
    return replace(found, unit=unit_name(lone[1] or lone[2])) if found else None


def _in_base(reference: str, answer: str) -> bool:
    """204_5 against 204_5 or its digits alone; math-verify ignores the base."""
    answer = brackets(answer)[1]
    wanted, found = BASED.fullmatch(reference), BASED.fullmatch(answer)
    digits = found[1] if found else answer
    return digits == wanted[1] and (not found or found[2] == wanted[2])


# ---------------------------------------------------------------- lists
def _elements(text: str) -> tuple[str, list[Fraction]] | None:
    """The brackets ("" for none, "{}" for a set) and numbers of a list of two or more."""
    shape, inner = brackets(text)
    numbers = [number(part) for part in split(inner)]
    if len(numbers) < 2 or not all(numbers):
        return None
    return shape, [n.value for n in numbers]


def _as_list(reference: str, answer: str) -> bool | None:
    """Lists of numbers; see `ordered` for what keeps its order."""
    one, other = _elements(reference), _elements(answer)
    if one and not other:
        return False if number(answer) or is_text(answer) else None
    if not one or not other:
        return None
    (shape, wanted), (found_shape, found) = one, other
    rule = ordered(shape, wanted, found_shape)
    if rule is None:
        return False
    return wanted == found if rule else sorted(wanted) == sorted(found)


def ordered(shape: str, wanted: list, found_shape: str) -> bool | None:
    """Whether order counts between a reference and an answer in these brackets.

    None where they cannot be equal, such as (1,2] and [1,2]. Bare lists and sets have no
    order. Square brackets hold an interval if two ascending things are in them, and then
    an answer needs them too: who gives a list as reference gives no text (`grading`).
    """
    if shape in ("(]", "[)") or found_shape in ("(]", "[)"):
        return True if shape == found_shape else None
    interval = shape == "[]" and len(wanted) == 2 and not _descending(wanted)
    if shape == "[]":
        if not interval:
            return False
        return True if found_shape == "[]" else None
    if shape == "()":
        square = found_shape == "[]" and len(wanted) > 2
        return True if found_shape in ("()", "") or square else None
    if shape == "{}":
        return False if found_shape in ("{}", "") else None
    return found_shape == "()"


def _descending(pair: list) -> bool:
    numbers = [number(x).value if isinstance(x, str) and number(x) else x for x in pair]
    if any(isinstance(x, str) for x in numbers):
        return False
    return numbers[0] > numbers[1]


# ---------------------------------------------------------------- structure
LITERAL = ('{"', '["')
KEYED = re.compile(r"(?P<key>[^=:]{1,40}?)\s?(?:=|:|->)\s?(?P<value>.+)")
CONDITION = re.compile(
    r"(?P<main>.*[^\s,(=<>])[\s,]*\((?P<rest>[^()]*(?:[<>]|\\[lgn]e )[^()]*)\)"
)


def equivalent(reference: str, answer: str, tolerance: float = 0.0) -> Finding:
    """The verdict on two cleaned texts, and its reason; None where it cannot be decided."""
    settled = settle(reference, answer, tolerance)
    if settled is not None:
        return settled, "same" if settled else "different"
    for rule in STRUCTURES:
        finding = rule(reference, answer, tolerance)
        if finding:
            return finding
    one, other = values(reference, answer)
    (one, unit), (other, found) = without_unit(one), without_unit(other)
    if incompatible(unit, found):
        return False, f"{found} for {unit}"
    return _as_prose(one, other, tolerance) or as_formula(one, other, tolerance)


def literal(reference: str) -> str | None:
    """A dict, or a list with words, that Python or JSON writes, as JSON; else None.

    Its values are cleaned texts. The reference is of the benchmark, not of a model.
    """
    text = reference.strip()
    if not re.match(r"[\[{]", text) or not re.search("['\"]", text) or len(text) > 2000:
        return None
    found: Any = None
    for read in (ast.literal_eval, json.loads):
        try:
            found = read(text)
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


def _as_literal(reference: str, answer: str, tolerance: float) -> Finding | None:
    """What `literal` wrote: a mapping by its keys, or values in order where none is named."""
    if not reference.startswith(LITERAL):
        return None
    try:
        wanted = json.loads(reference)
    except ValueError:
        return None
    parts = [part.strip("'\" ") for part in split(brackets(answer)[1])]
    if len(parts) != len(wanted):
        return None, f"{len(parts)} parts for {len(wanted)}"
    if isinstance(wanted, dict):
        named = [KEYED.fullmatch(STYLED.sub(r"\1", part)) for part in parts]
        if all(named):
            parts = [m["value"] for m in named]
            found = {m["key"].strip("'\" "): m["value"] for m in named}
            if found.keys() & wanted.keys():
                if found.keys() != wanted.keys():
                    return None, "values could not be matched with keys"
                parts = [found[key] for key in wanted]
        wanted = list(wanted.values())
    return _all(zip(wanted, map(clean, parts), strict=True), tolerance)


def _in_order_of_names(parts: list[str]) -> list[str]:
    """y=1, x=2 as x=2, y=1: the order in which a tuple without names has them."""
    names = [m["name"] if (m := ASSIGNED.match(part)) else "" for part in parts]
    single = len(set(names)) == len(names) and all(re.fullmatch("[a-z]", n) for n in names)
    return sorted(parts) if single else parts


def _with_condition(reference: str, answer: str, tolerance: float) -> Finding | None:
    """A formula with a condition in brackets at its end: both must be the same."""
    wanted = CONDITION.fullmatch(reference)
    if not wanted:
        return None
    found = CONDITION.fullmatch(answer)
    parts = [found["main"], found["rest"]] if found else split(answer)
    if len(parts) != 2:
        return False, "without the condition"
    return _all(zip((wanted["main"], wanted["rest"]), parts, strict=True), tolerance)


def _as_identity(reference: str, answer: str, tolerance: float) -> Finding | None:
    """An equation without unknowns, such as 360 = 2^3 * 3^2 * 5, side by side.

    sympy would take any two of them for the same truth.
    """
    if "=" not in reference or re.search(r"[A-Za-z<>!]", re.sub(r"\\[a-z]+", "", reference)):
        return None
    sides, others = reference.split("="), answer.split("=")
    if len(others) == 2 and others[1] == "0" and "0" not in sides:
        others = _moved_back(others[0])
    if len(sides) != len(others) or "\\ne" in answer:
        return False, "not the same sides"
    for order in (others, others[::-1]):
        finding = _all(zip(sides, order, strict=True), tolerance)
        if finding[0]:
            return True, "side by side"
    return False, "not the same sides"


def _moved_back(difference: str) -> list[str]:
    """The two sides of an identity that was written as `difference` = 0."""
    depth = 0
    for place, sign in enumerate(difference):
        depth += (sign in "({[") - (sign in ")}]")
        if sign == "-" and depth == 0 and place:
            return [difference[:place], brackets(difference[place + 1 :])[1]]
    return [difference]


def _as_matrix(reference: str, answer: str, tolerance: float) -> Finding | None:
    """Matrices cell by cell, whatever brackets they have; vectors also as tuples."""
    wanted, found = cells(reference), cells(answer)
    if wanted and found:
        if [len(row) for row in wanted] != [len(row) for row in found]:
            return False, "another shape"
        return _all(zip(sum(wanted, []), sum(found, []), strict=True), tolerance)
    if not wanted and not found:
        return None
    one, other = components(reference), components(re.sub(rf"^{NAME}=", "", answer))
    if not one or not other or brackets(reference)[0] == "[]":
        return None  # square brackets of a reference hold a list or an interval
    if len(one) != len(other):
        return False, "another shape"
    return _all(zip(one, other, strict=True), tolerance)


def _as_region(reference: str, answer: str, tolerance: float) -> Finding | None:
    """Sets of reals of which one is told in relations, by their intervals.

    Where these do not match one by one, both may still be the same union.
    """
    if not (is_told(reference) or is_told(answer)):
        return None
    wanted, found = region(reference), region(answer)
    for own, other in ((wanted, answer), (found, reference)):
        if own and own.is_infinite and (_elements(other) or ("[]",))[0] in ("", "{}"):
            return False, "an interval is no list"
    if not wanted or not found:
        return None
    if wanted.unknown and found.unknown and wanted.unknown != found.unknown:
        return None
    if len(wanted.parts) != len(found.parts):
        return None
    left = list(found.parts)
    for part in wanted.parts:
        verdicts = [_same_interval(part, own, tolerance) for own in left]
        if True not in verdicts:
            alone = len(wanted.parts) == 1 and verdicts == [False]
            return (False, "another interval") if alone else None
        left.pop(verdicts.index(True))
    return True, "the same intervals"


def _same_interval(wanted: Interval, found: Interval, tolerance: float) -> bool | None:
    if wanted.closed != found.closed:
        return False
    pairs = ((wanted.low, found.low), (wanted.high, found.high))
    return _all(pairs, tolerance)[0]


def _as_sequence(reference: str, answer: str, tolerance: float) -> Finding | None:
    """Lists, tuples, sets, intervals and their unions, part by part."""
    reference, answer = _both_named(listed(reference), listed(answer))
    named = split(answer)
    if brackets(reference)[0] == "()" and len(named) > 1 and all(map(ASSIGNED.match, named)):
        answer = ",".join(_in_order_of_names(named))
    elif not all(map(ASSIGNED.match, split(reference))):
        reference, answer = values(reference, answer)
    unions = split(reference, "cup"), split(answer, "cup")
    if min(map(len, unions)) > 1:
        finding = _matched(*unions, tolerance)
        return finding if finding[0] else None  # the sets may still be equal
    if max(map(len, unions)) > 1:
        return None
    (shape, one), (found_shape, other) = brackets(reference), brackets(answer)
    wanted, found = _expanded(split(one)), _expanded(split(other))
    if len(wanted) == len(found) == 1:
        return None
    if len(wanted) != len(found):
        return _unequal(reference, answer, wanted, found)
    rule = ordered(shape, wanted, found_shape)
    if rule is None:
        return False, "other brackets"
    names = {m["name"] for m in map(ASSIGNED.match, wanted) if m}
    if len(names) == len(wanted) and not any(map(ASSIGNED.match, found)):
        rule = True  # a = 1, n = 2002 said as 1, 2002
    if rule:
        return _all(zip(wanted, found, strict=True), tolerance)
    return _matched(wanted, found, tolerance)


def _both_named(reference: str, answer: str) -> tuple[str, str]:
    """(a,b)=(1,2) beside a=1,b=2 in the same form, so that names are compared."""
    if len(split(reference)) > 1 and all(map(ASSIGNED.match, split(reference))):
        return reference, one_by_one(answer)
    if len(split(answer)) > 1 and all(map(ASSIGNED.match, split(answer))):
        return one_by_one(reference), answer
    return reference, answer


def _unequal(reference: str, answer: str, wanted: list, found: list) -> Finding | None:
    """Lists of unequal length; a relation may still describe an interval or a union."""
    related = re.compile(r"[<>]|\\[lgn]e ")
    if related.search(answer if len(found) == 1 else reference if len(wanted) == 1 else ""):
        return None
    return False, f"{len(found)} parts for {len(wanted)}"


def _expanded(parts: list[str]) -> list[str]:
    """Each `a \\pm b` as two parts."""
    found = []
    for part in parts:
        if part.count(r"\mp") == 1 and r"\pm" not in part:
            part = part.replace(r"\mp", r"\pm")
        if part.count(r"\pm") == 1:
            for plus, minus in (("+", "-"), ("-", "+")):
                text = re.sub(r"\\pm\s?", plus, part)
                found.append(re.sub(r"\\mp\s?", minus, text))
        else:
            found.append(part)
    return found


def _all(pairs: Any, tolerance: float) -> Finding:
    """Whether all pairs are equivalent: False beats None beats True."""
    unsure = None
    for one, other in pairs:
        verdict, reason = equivalent(one, other, tolerance)
        if verdict is False:
            return False, f"a part is {reason}"
        if verdict is None:
            unsure = reason
    return (True, "part by part") if unsure is None else (None, unsure)


def _matched(wanted: list[str], found: list[str], tolerance: float) -> Finding:
    """Whether the parts of two lists can be matched, in any order."""
    if len(wanted) != len(found):
        return False, f"{len(found)} parts for {len(wanted)}"
    left, unsure = list(found), None
    for part in wanted:
        for candidate in sorted(left, key=lambda text: text != part):
            verdict, reason = equivalent(part, candidate, tolerance)
            if verdict:
                left.remove(candidate)
                break
            unsure = reason if verdict is None else unsure
        else:
            return (False, "a part is missing") if unsure is None else (None, unsure)
    return True, "part by part"


STRUCTURES = (
    _as_literal, _as_region, _with_words, _with_condition, _as_identity, _as_matrix,
    _as_sequence,
)  # fmt: skip
