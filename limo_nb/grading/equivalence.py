"""When a cleaned answer says what a cleaned reference says (chapter 8).

Both are read once into typed values (`answers`); `compare_answers` dispatches on the type of
the reference, and each case matches the type of the answer. Formulas are compared by their
values (`formulas`), which only worker processes do: `quick_match` stops where it would need
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import singledispatch
from typing import Any, TypeVar

from limo_nb.grading.answers import (
    CJK,
    LETTER,
    LITERAL,
    Answer,
    Based,
    Choice,
    Collection,
    Conditioned,
    Congruence,
    Date,
    Equation,
    Expression,
    Inequality,
    Literal,
    Matrix,
    Piecewise,
    Prose,
    Quantity,
    Ratio,
    Reals,
    Text,
    Time,
    folded,
    has_prose,
    letter,
    options,
    read,
    read_inequality,
    without_remarks,
)
from limo_nb.grading.canonical import STYLED, clean, unwrap
from limo_nb.grading.formulas import (
    NOT_EQUAL,
    Finding,
    as_congruence,
    constant,
    same_chain,
    same_equations,
    same_formulas,
    same_ratio,
)
from limo_nb.grading.numbers import AMBIGUOUS, Number, number, same_number, with_lone_unit
from limo_nb.grading.regions import same_regions
from limo_nb.grading.structure import (
    ASSIGNED,
    CURVE,
    brackets,
    components,
    listed,
    one_by_one,
    region,
    split,
)
from limo_nb.grading.units import conversion
from limo_nb.grading.wording import same_words

SAME, DIFFERENT = (True, "same"), (False, "different")


Found = TypeVar("Found")


class NeedsFormulas(Exception):
    """The verdict needs values of formulas, which are worked out in a worker."""


@dataclass(frozen=True)
class Context:
    """How to compare: with which relative tolerance, and whether formulas may be valued."""

    tolerance: float = 0.0
    formulas: bool = True


# ---------------------------------------------------------------- the two entries
def quick_match(reference: str, answer: str, tolerance: float = 0.0) -> bool | None:
    """The verdict on two cleaned texts, None where formulas must be compared.

    `tolerance` is relative; a reference that is written as an integer is exact.
    """
    try:
        return decide(reference, answer, Context(tolerance, formulas=False))[0]
    except (NeedsFormulas, RecursionError):
        return None


def equivalent(reference: str, answer: str, tolerance: float = 0.0) -> Finding:
    """The verdict on two cleaned texts, and its reason; None where it cannot be decided."""
    return decide(reference, answer, Context(tolerance))


def decide(reference: str, answer: str, context: Context) -> Finding:
    """The finding on two cleaned texts."""
    if not answer:
        return DIFFERENT
    if answer == reference:
        return SAME
    wanted = read(reference)
    if isinstance(wanted, Prose | Text):
        return compare_answers(wanted, read(answer), context)
    return compare_answers(wanted, read(without_remarks(answer)), context)


def target(reference: str, answer: str) -> str:
    """Of a reference "C. text" the part that the answer is to be compared with."""
    return counterparts(reference, answer)[0]


OPTION_TEXT = re.compile(r"(?:\((?P<in>[A-H])\)|(?P<plain>[A-H])\)?[.、:])\s*(?P<text>\S.*)")


def counterparts(reference: str, answer: str) -> tuple[str, str]:
    """What is compared where the reference is "C. text": the letters or the texts.

    The texts of two options with one letter count if they are no words: "C. 1+i" is not
    "C. 1-i".
    """
    option = OPTION_TEXT.fullmatch(reference)
    if not option:
        return reference, answer
    named, text = option["in"] or option["plain"], clean(option["text"])
    plain = STYLED.sub(r"\1", answer)
    if letter(plain) is None:
        return (named if LETTER.fullmatch(plain) else text), answer
    other = OPTION_TEXT.fullmatch(plain)
    said = clean(other["text"]) if other else ""
    if not said or letter(plain) != named or has_prose(said + text) or CJK.search(said + text):
        return named, answer
    return text, said


# ---------------------------------------------------------------- one dispatch
@singledispatch
def compare_answers(reference: Answer, answer: Answer, context: Context) -> Finding:
    """Whether `answer` says what `reference` says: by the type of the reference."""
    raise TypeError(type(reference))


@compare_answers.register
def _(reference: Choice, answer: Answer, context: Context) -> Finding:
    named = options(answer.text)
    if named == reference.options:
        return SAME
    single = STYLED.sub(r"\1", answer.text).strip()
    return (True, "same") if letter(single) == "".join(reference.options) else DIFFERENT


@compare_answers.register
def _(reference: Literal, answer: Answer, context: Context) -> Finding:
    parts = [part.strip("'\" ") for part in split(brackets(answer.text)[1])]
    if len(parts) != len(reference.values):
        return None, f"{len(parts)} parts for {len(reference.values)}"
    if reference.keys:
        named = [KEYED.fullmatch(STYLED.sub(r"\1", part)) for part in parts]
        if all(named):
            parts = [m["value"] for m in named if m]
            found = {m["key"].strip("'\" "): m["value"] for m in named if m}
            if found.keys() & set(reference.keys):
                if found.keys() != set(reference.keys):
                    return None, "values could not be matched with keys"
                parts = [found[key] for key in reference.keys]
    return all_of(zip(reference.values, map(clean, parts), strict=True), context)


KEYED = re.compile(r"(?P<key>[^=:]{1,40}?)\s?(?:=|:|->)\s?(?P<value>.+)")


@compare_answers.register
def _(reference: Date, answer: Answer, context: Context) -> Finding:
    match answer:
        case Date():
            years = {reference.year, answer.year} - {0}
            days = (reference.month, reference.day) == (answer.month, answer.day)
            return SAME if days and len(years) < 2 else DIFFERENT
    return False, "no date"


@compare_answers.register
def _(reference: Time, answer: Answer, context: Context) -> Finding:
    match answer:
        case Time():
            halves = {reference.half, answer.half} - {""}
            same = reference.minutes % 720 == answer.minutes % 720
            exact = reference.minutes == answer.minutes
            if len(halves) > 1 or not same:
                return DIFFERENT
            return SAME if exact or halves else DIFFERENT
        case Ratio():
            return DIFFERENT
    return False, "no time"


@compare_answers.register
def _(reference: Ratio, answer: Answer, context: Context) -> Finding:
    match answer:
        case Ratio():
            if reference.names and answer.names and reference.names != answer.names:
                return None, "other names"
            terms, others = reference.terms, answer.terms
        case Time() if len(reference.terms) == 2:
            terms, others = reference.terms, tuple(answer.text.split(":"))
        case Quantity() | Expression() if len(reference.terms) == 2:
            one, other = reference.terms
            return formulas(f"({one})/({other})", answer.text, context)
        case _:
            return False, "no ratio"
    if len(terms) != len(others):
        return False, "another number of terms"
    if terms == others:
        return SAME
    return needing(context, same_ratio, terms, others)


@compare_answers.register
def _(reference: Quantity, answer: Answer, context: Context) -> Finding:
    wanted = reference.number
    match answer:
        case Quantity():
            return worded(*same_number(wanted, answer.number, context.tolerance))
        case Collection(parts=parts):
            if AMBIGUOUS.fullmatch(reference.text) and not re.search(r",0", reference.text):
                return compare_answers(
                    Collection(reference.text, "", tuple(reference.text.split(","))),
                    answer,
                    context,
                )
            decimal = re.fullmatch(r"(-?\d+),(\d{1,2})", answer.text)
            if decimal and not wanted.exact:
                return worded(
                    wanted.value == Fraction(f"{decimal[1]}.{decimal[2]}"), "decimal comma"
                )
            spoken = number(answer.text.replace(" and ", " "))
            if spoken and "," not in answer.text:
                return compare_answers(reference, Quantity(answer.text, spoken), context)
            return False, f"{len(parts)} parts for 1"
        case Equation():
            return against_equation(reference, answer, context)
        case Expression():
            return against_number(reference, answer, context)
        case Ratio(terms=(one, other)):
            return formulas(reference.text, f"({one})/({other})", context)
        case Conditioned(main=main):
            return compare_answers(reference, read(main), context)
        case Prose():
            return None if has_number(answer.text, wanted) else False, "words around a number"
    return False, "no number"


def has_number(text: str, wanted: Number) -> bool:
    """Whether words contain the number that is wanted."""
    found = re.findall(r"-?\d+(?:\.\d+)?", text)
    return any(Fraction(digits) == wanted.value for digits in found)


def against_number(reference: Quantity, answer: Expression, context: Context) -> Finding:
    """A formula as a number: 5 s and 5m are quantities beside one."""
    spoken = with_lone_unit(answer.text) or number(answer.text.replace(" and ", " "))
    if spoken:
        return compare_answers(reference, Quantity(answer.text, spoken), context)
    if r"\pm" in answer.text:
        return False, "two values for one"
    return compare_answers(
        Expression(reference.text, bare_number(reference), reference.number.unit),
        answer,
        context,
    )


def bare_number(reference: Quantity) -> str:
    """A number as a formula, without its unit."""
    value = reference.number.value
    text = read_bare(reference.text)
    if reference.number.percent or text is None:
        return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    return text


def read_bare(text: str) -> str | None:
    """The text of a plain decimal or fraction."""
    found = re.match(r"-?\d+(?:\.\d+)?(?=$|\\text|\^\\circ| )|-?\\frac\{\d+\}\{\d+\}$", text)
    return found[0] if found else None


def against_equation(reference: Answer, answer: Equation, context: Context) -> Finding:
    """The value that an equation states, beside a reference that is none."""
    if answer.name and answer.sides[0] not in reference.text:
        return compare_answers(reference, read(unwrap(answer.value)), context)
    if ASSIGNED.match(answer.sides[-1] + "=") and len(answer.sides) == 2:
        if re.fullmatch(r"[A-Za-z](?:_\{?\w+\}?)?", answer.sides[1]):
            return compare_answers(reference, read(answer.sides[0]), context)
    if not context.formulas:
        raise NeedsFormulas
    if any(
        re.search(r"(?<![\\a-zA-Z])[A-Za-df-hj-z](?![a-zA-Z])", side) for side in answer.sides
    ):
        if isinstance(reference, Expression):  # a = b = c, each of them the value
            found = [compare_answers(reference, read(side), context) for side in answer.sides]
            return (
                (True, "a side")
                if all(verdict for verdict, _ in found)
                else (False, "unsolved")
            )
        return False, "an equation for a value"
    gap = 0.05 if answer.rounded else 0.0
    first = answer.sides[0]
    if any(same_formulas(first, side, gap)[0] is not True for side in answer.sides[1:]):
        return False, "its sides are not equal"
    findings = [compare_answers(reference, read(side), context) for side in answer.sides]
    return (True, "a side") if any(v for v, _ in findings) else findings[-1]


@compare_answers.register
def _(reference: Based, answer: Answer, context: Context) -> Finding:
    """204_5 against 204_5 or its digits alone."""
    match answer:
        case Based():
            same = (reference.digits, reference.base) == (answer.digits, answer.base)
            return SAME if same else DIFFERENT
    bare = brackets(answer.text)[1].strip().upper()
    return SAME if bare == reference.digits else DIFFERENT


@compare_answers.register
def _(reference: Matrix, answer: Answer, context: Context) -> Finding:
    match answer:
        case Matrix():
            if [len(row) for row in reference.rows] != [len(row) for row in answer.rows]:
                return False, "another shape"
            pairs = zip(sum(reference.rows, ()), sum(answer.rows, ()), strict=True)
            return all_of(pairs, context)
        case Equation(name=name) if name:
            return compare_answers(reference, read(answer.value), context)
    return as_vectors(reference, answer, context) or formulas(
        reference.text, answer.text, context
    )


def as_vectors(reference: Answer, answer: Answer, context: Context) -> Finding | None:
    """Vectors component by component, None where one of both is none."""
    if brackets(reference.text)[0] == "[]":
        return None  # square brackets of a reference hold a list or an interval
    one = components(reference.text)
    other = components(re.sub(r"^[A-Za-z\\{}]{1,12}=", "", answer.text))
    if not one or not other:
        return None
    if len(one) != len(other):
        return False, "another shape"
    return all_of(zip(one, other, strict=True), context)


@compare_answers.register
def _(reference: Congruence, answer: Answer, context: Context) -> Finding:
    if isinstance(answer, Equation) and answer.name:
        answer = needing(context, as_congruence, answer.value) or answer
    if not isinstance(answer, Congruence):
        return None, "no congruence"
    if reference.name and answer.name and reference.name != answer.name:
        return False, "another unknown"
    if int(answer.modulus) != int(reference.modulus):
        return False, "another modulus"
    wanted, found = (
        {int(n) % int(reference.modulus) for n in own.residues} for own in (reference, answer)
    )
    return SAME if wanted == found else DIFFERENT


@compare_answers.register
def _(reference: Piecewise, answer: Answer, context: Context) -> Finding:
    if not isinstance(answer, Piecewise):
        return None, "no cases"
    if reference.name and answer.name and reference.name != answer.name:
        return None, "other names"
    if len(reference.cases) != len(answer.cases):
        return None, "another number of cases"
    left, unsure = list(answer.cases), None
    for value, condition in reference.cases:
        for case in left:
            verdict, reason = all_of(((value, case[0]), (condition, case[1])), context)
            if verdict:
                left.remove(case)
                break
            unsure = reason if verdict is None else unsure
        else:
            return (False, "a case is missing") if unsure is None else (None, unsure)
    return True, "case by case"


@compare_answers.register
def _(reference: Reals, answer: Answer, context: Context) -> Finding:
    match answer:
        case Reals():
            return regions(reference, answer, context)
        case Collection(brackets=shape, parts=parts):
            if shape in ("", "{}") and reference.region.is_infinite:
                return False, "an interval is no list"
            found = region(answer.text)
            if found:
                return regions(reference, Reals(answer.text, found), context)
            if len(parts) > 1 and shape == "":
                joined = region(r"\text{or}".join(parts))
                if joined:
                    return regions(reference, Reals(answer.text, joined), context)
        case Text() if not reference.region.parts:
            return same_words("no solution", answer.text)
        case Quantity() | Expression() if (
            reference.region.is_infinite and not reference.region.holes
        ):
            if r"\mathbb" not in answer.text:
                return False, "no set"
        case Inequality():
            own = read_inequality(reference.text)
            if own and own.signs == answer.signs and len(own.signs) == 1:
                return needing(context, same_chain, own.sides, answer.sides)
            return None, "relations that are not solved"
        case Equation():
            return False, "an equation for a set"
    return formulas(reference.text, answer.text, context)


def regions(reference: Reals, answer: Reals, context: Context) -> Finding:
    """Two sets of reals, by their intervals."""
    one, other = reference.region, answer.region
    if one.unknown and other.unknown and one.unknown != other.unknown:
        return False, "another unknown"

    def same(a: str, b: str) -> bool | None:
        return decide(a, b, context)[0]

    def value(text: str) -> object:
        return needing(context, constant, text)

    return same_regions(one, other, same, value)


@compare_answers.register
def _(reference: Collection, answer: Answer, context: Context) -> Finding:
    match answer:
        case Reals():
            found = region(reference.text)
            if found and not (reference.brackets in ("", "{}") and answer.region.is_infinite):
                return regions(Reals(reference.text, found), answer, context)
            return False, "an interval is no list"
        case Matrix():
            vectors = as_vectors(reference, answer, context)
            return vectors or (False, "a matrix for a list")
        case Conditioned(main=main, relations=()):
            return compare_answers(reference, read(main), context)
        case Quantity(text=text) if AMBIGUOUS.fullmatch(text):
            answer = Collection(text, "", tuple(text.split(",")))
        case Quantity() | Choice() | Text():
            if is_listed_text(answer):
                return sequences(reference, answer, context)
            return False, "no list"
        case Expression() if is_vector(answer.text):
            return formulas(reference.text, answer.text, context)
        case Expression() if r"\mathbb" in answer.text or r"\setminus" in answer.text:
            return formulas(reference.text, answer.text, context)
    vectors = as_vectors(reference, answer, context) if r"\langle" in answer.text else None
    return vectors or sequences(reference, answer, context)


def is_listed_text(answer: Answer) -> bool:
    """Whether a text could be a list in words."""
    return isinstance(answer, Text) and len(split(STYLED.sub(r" \1 ", answer.text))) > 1


@compare_answers.register
def _(reference: Conditioned, answer: Answer, context: Context) -> Finding:
    match answer:
        case Conditioned():
            main, relations = answer.main, answer.relations
            for mine, theirs in zip(reference.integers, answer.integers, strict=False):
                main = with_letter(main, theirs, mine)
        case Collection(brackets="", parts=(main, *relations)):
            relations = tuple(relations)
        case _:
            main, relations = answer.text, ()
    if len(relations) != len(reference.relations):
        return False, "without the condition" if reference.relations else "with a condition"
    pairs = [(reference.main, main), *zip(reference.relations, relations, strict=True)]
    return all_of(pairs, context)


@compare_answers.register
def _(reference: Equation, answer: Answer, context: Context) -> Finding:
    match answer:
        case Equation():
            return two_equations(reference, answer, context)
        case Conditioned(main=main, relations=()):
            return compare_answers(reference, read(main), context)
        case Congruence() | Inequality():
            return False, "another relation"
        case Collection(brackets="") if not reference.name:
            return False, "several for one equation"
    if reference.rounded:
        return compare_answers(read(reference.sides[0]), answer, context)
    if reference.name:
        return compare_answers(read(reference.value), answer, context)
    if not re.search(r"[A-Za-z]", re.sub(r"\\[a-z]+", "", reference.text)):
        return False, "not the same sides"  # an identity such as 360 = 2^3 * 3^2 * 5
    return False, "no equation"


def two_equations(reference: Equation, answer: Equation, context: Context) -> Finding:
    """By the values of the same name, side by side for an identity, or by their solutions."""
    if not re.search(r"[A-Za-z]", re.sub(r"\\[a-z]+", "", reference.text)):
        return match_equations(reference, answer, context)
    curves = {reference.name, answer.name} <= CURVE
    argument = renamed_argument(reference, answer)
    if argument is not None:
        return compare_answers(read(reference.value), read(argument), context)
    if reference.name and (reference.name == answer.name or curves):
        finding = compare_answers(read(reference.value), read(answer.value), context)
        own = re.escape(reference.name)
        if finding[0] is not False or not re.search(
            rf"(?<![A-Za-z]){own}(?![A-Za-z])", reference.value + answer.value
        ):
            return finding
    if len(reference.sides) > 2 or len(answer.sides) > 2:
        if len(reference.sides) == 2 and not reference.name:
            return False, "not the same sides"
        return match_equations(reference, answer, context)
    return needing(context, same_equations, reference.sides, answer.sides)


HEAD = re.compile(r"(?P<head>[A-Za-z]+(?:_\{?\w+\}?)?)\((?P<argument>[A-Za-z])\)")


def renamed_argument(reference: Equation, answer: Equation) -> str | None:
    """The value of f(t) with the argument called as in the reference f(x)."""
    one, other = HEAD.fullmatch(reference.name), HEAD.fullmatch(answer.name)
    if not one or not other or one["head"] != other["head"]:
        return None
    mine, theirs = one["argument"], other["argument"]
    if mine == theirs or mine in LETTERS_OF.findall(answer.value):
        return None
    return with_letter(answer.value, theirs, mine)


LETTERS_OF = re.compile(r"\\[A-Za-z]+|[A-Za-z]")


def with_letter(text: str, old: str, new: str) -> str:
    """`text` with the letter `old` called `new`; commands keep their names."""
    return LETTERS_OF.sub(lambda match: new if match[0] == old else match[0], text)


def match_equations(reference: Equation, answer: Equation, context: Context) -> Finding:
    """The sides in order, or from right to left: sympy takes any two truths for one."""
    sides, others = list(reference.sides), list(answer.sides)
    if len(others) == 2 and others[1] == "0" and "0" not in sides:
        others = moved_back(others[0])
    if len(sides) != len(others):
        return False, "not the same sides"
    for order in (others, others[::-1]):
        if all_of(zip(sides, order, strict=True), context)[0]:
            return True, "side by side"
    return False, "not the same sides"


def moved_back(difference: str) -> list[str]:
    """The two sides of an identity that was written as `difference` = 0."""
    depth = 0
    for place, sign in enumerate(difference):
        depth += (sign in "({[") - (sign in ")}]")
        if sign == "-" and depth == 0 and place:
            return [difference[:place], brackets(difference[place + 1 :])[1]]
    return [difference]


@compare_answers.register
def _(reference: Inequality, answer: Answer, context: Context) -> Finding:
    match answer:
        case Inequality() if answer.signs == reference.signs:
            pairs = zip(reference.sides, answer.sides, strict=True)
            finding = all_of(pairs, context)
            if finding[0] or len(reference.signs) > 1:
                return finding
            return needing(context, same_chain, reference.sides, answer.sides)
        case Inequality() if reference.signs == (r"\ne",):
            return False, "another relation"
        case Inequality() | Equation() | Quantity() | Expression():
            return False, "another relation"
    return formulas(reference.text, answer.text, context)


@compare_answers.register
def _(reference: Prose, answer: Answer, context: Context) -> Finding:
    if folded(reference.text) == folded(answer.text):
        return True, "same words"
    words = [
        re.findall(r"[a-z]{2,}|[\u3400-\u9fff]", folded(own.text))
        for own in (reference, answer)
    ]
    if words[0] == words[1]:
        if numbers_of(reference.text) != numbers_of(answer.text):
            return False, "other numbers"
        return False, "other signs"
    if not has_prose(STYLED.sub(r" \1 ", answer.text)):
        return False, "words are missing"
    return None, "words that rules cannot compare"


def numbers_of(text: str) -> list[str]:
    """The numbers of a text, in order."""
    return re.findall(r"\d+(?:\.\d+)?", text)


@compare_answers.register
def _(reference: Text, answer: Answer, context: Context) -> Finding:
    return same_words(reference.text, answer.text)


@compare_answers.register
def _(reference: Expression, answer: Answer, context: Context) -> Finding:
    match answer:
        case Quantity() if (
            reference.unit.factors or answer.number.unit.factors or answer.number.unit.changes
        ):
            spoken = with_lone_unit(reference.text)
            if spoken:
                return compare_answers(Quantity(reference.text, spoken), answer, context)
            if answer.number.unit.changes:
                return False, "words change it"
            bare = Expression(answer.text, bare_number(answer), answer.number.unit)
            return expressions(reference, bare, context)
        case Quantity():
            spoken = with_lone_unit(reference.text) if " " in reference.text else None
            if spoken:
                return compare_answers(Quantity(reference.text, spoken), answer, context)
            return sequences_or_formulas(reference, answer, context)
        case Equation():
            return against_equation(reference, answer, context)
        case Expression():
            return expressions(reference, answer, context)
        case Conditioned(main=main, relations=()):
            return compare_answers(reference, read(main), context)
        case Text(text=text) if re.fullmatch(r"[A-Za-z ]+", reference.text):
            return (
                (True, "same letters")
                if folded(text) == folded(reference.text)
                else letters_of(reference, answer, context)
            )
        case Text():
            return False, "words for a formula"
        case Prose():
            return None, "words around a formula"
    return sequences_or_formulas(reference, answer, context)


def letters_of(reference: Expression, answer: Text, context: Context) -> Finding:
    """A product of letters that an answer writes as a word."""
    plain = STYLED.sub(r"\1", answer.text)
    return formulas(reference.formula, plain, context)


def sequences_or_formulas(reference: Answer, answer: Answer, context: Context) -> Finding:
    """Plus and minus are two values; anything else is a formula."""
    if r"\pm" in reference.text + answer.text or r"\mp" in reference.text + answer.text:
        return sequences(reference, answer, context)
    vectors = as_vectors(reference, answer, context)
    if vectors and vectors[0] is not False:
        return vectors
    if isinstance(answer, Collection | Choice) and not is_vector(reference.text):
        return False, f"{len(split(brackets(answer.text)[1]))} parts for 1"
    if isinstance(answer, Reals | Inequality | Piecewise | Congruence):
        return False, "a relation for a value"
    return formulas(reference.text, answer.text, context)


def is_vector(text: str) -> bool:
    """Whether unit vectors are in a formula."""
    return bool(
        re.search(
            r"\\(?:mathbf|hat|vec|boldsymbol)\s?\{?\\?[ijk]math|\\(?:mathbf|hat|vec|boldsymbol)\s?\{?[ijk]\b",
            text,
        )
    )


def expressions(reference: Expression, answer: Expression, context: Context) -> Finding:
    """Two formulas with units; a lone letter behind the answer may be one."""
    if r"\pm" in reference.text + answer.text or r"\mp" in reference.text + answer.text:
        return sequences(reference, answer, context)
    rate = conversion(reference.unit, answer.unit)
    if rate is None:
        return False, "another unit"
    if len(split(reference.formula)) > 1 or len(split(answer.formula)) > 1:
        return sequences(reference, answer, context)
    wanted, formula = reference.formula, answer.formula
    if (
        reference.unit.factors == DEGREES
        and not answer.unit.factors
        and RADIANS.search(formula)
    ):
        wanted = rf"({wanted})^\circ"
    if answer.unit.factors == DEGREES and not reference.unit.factors and RADIANS.search(wanted):
        formula = rf"({formula})^\circ"
    if not answer.unit.factors and not reference.unit.factors:
        lone = LONE_LETTER.search(formula)
        if lone and not re.search(rf"(?<![a-zA-Z\\]){lone[1]}(?![a-zA-Z])", reference.formula):
            formula = formula[: lone.start()]
    if rate != 1:
        formula = f"\\frac{{{rate.numerator}}}{{{rate.denominator}}}({formula})"
    return formulas(wanted, formula, context)


DEGREES = (("degree", 1),)
RADIANS = re.compile(r"\\(?:pi|arc[a-z]+)(?![a-z])")
LONE_LETTER = re.compile(r"(?<=[\d}])\s?([msghLNJWVAK])$")


# ---------------------------------------------------------------- lists
def sequences(reference: Answer, answer: Answer, context: Context) -> Finding:
    """Lists, tuples, sets and intervals, part by part."""
    one, other = _both_named(listed(reference.text), listed(answer.text))
    named = split(other)
    if brackets(one)[0] == "()" and len(named) > 1 and all(map(ASSIGNED.match, named)):
        other = ",".join(_in_order_of_names(named))
    elif not all(map(ASSIGNED.match, split(one))):
        one, other = _values(one, other)
    (shape, inner), (found_shape, found_inner) = brackets(one), brackets(other)
    wanted, found = expanded(split(inner)), expanded(split(found_inner))
    if len(wanted) == len(found) == 1:
        return formulas(one, other, context)
    if len(wanted) != len(found):
        return False, f"{len(found)} parts for {len(wanted)}"
    rule = ordered(shape, wanted, found_shape)
    if rule is None:
        return False, "other brackets"
    names = {m["name"] for m in map(ASSIGNED.match, wanted) if m}
    if len(names) == len(wanted) and not any(map(ASSIGNED.match, found)):
        rule = True  # a = 1, n = 2002 said as 1, 2002
    if rule:
        return all_of(zip(wanted, found, strict=True), context)
    return matched(*_without_indices(wanted, found), context)


def _values(reference: str, answer: str) -> tuple[str, str]:
    """Both without a leading "x=" that only one has, or that both have alike."""
    one, other = ASSIGNED.match(reference), ASSIGNED.match(answer)
    if one and other and one["name"] != other["name"]:
        if not {one["name"], other["name"]} <= CURVE:
            return reference, answer
    rest = answer[other.end() :] if other else answer
    if other and not one and re.search(r"=", rest):
        return reference, answer
    return reference[one.end() if one else 0 :], rest


def _without_indices(wanted: list[str], found: list[str]) -> tuple[list[str], list[str]]:
    """Solutions x_1 = 1, x_2 = 2 beside x = 1, x = 2."""
    pattern = re.compile(r"([A-Za-z])_\{?\d\}?=(?!=)")
    plain = [re.fullmatch(r"([A-Za-z])=.+", part) for part in wanted]
    indexed = [pattern.match(part) for part in found]
    if all(plain) and all(indexed) and len({m[1] for m in [*plain, *indexed] if m}) == 1:
        return wanted, [pattern.sub(r"\1=", part) for part in found]
    return wanted, found


def ordered(shape: str, wanted: list, found_shape: str) -> bool | None:
    """Whether order counts between a reference and an answer in these brackets.

    None where they cannot be equal, such as (1,2] and [1,2]. Bare lists and sets have no
    order. Square brackets hold an interval if two ascending things are in them, and then
    an answer needs them too: who gives a list as reference gives no text (`verdicts`).
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


def _descending(pair: list[str]) -> bool:
    numbers = [number(part) for part in pair]
    if numbers[0] is None or numbers[1] is None:
        return False
    return numbers[0].value > numbers[1].value


def _both_named(reference: str, answer: str) -> tuple[str, str]:
    """(a,b)=(1,2) beside a=1,b=2 in the same form, so that names are compared."""
    if len(split(reference)) > 1 and all(map(ASSIGNED.match, split(reference))):
        return reference, one_by_one(answer)
    if len(split(answer)) > 1 and all(map(ASSIGNED.match, split(answer))):
        return one_by_one(reference), answer
    return reference, answer


def _in_order_of_names(parts: list[str]) -> list[str]:
    """y=1, x=2 as x=2, y=1: the order in which a tuple without names has them."""
    names = [m["name"] if (m := ASSIGNED.match(part)) else "" for part in parts]
    single = len(set(names)) == len(names) and all(re.fullmatch("[a-z]", n) for n in names)
    return sorted(parts) if single else parts


def expanded(parts: list[str]) -> list[str]:
    r"""Each `a \pm b` as two parts."""
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


def all_of(pairs: Iterable[tuple[str, str]], context: Context) -> Finding:
    """Whether all pairs are equivalent: False beats None beats True."""
    unsure, waiting = None, False
    for one, other in pairs:
        try:
            verdict, reason = decide(one, other, context)
        except NeedsFormulas:
            waiting = True
            continue
        if verdict is False:
            return False, f"a part is {reason}"
        if verdict is None:
            unsure = reason
    if waiting:
        raise NeedsFormulas
    return (True, "part by part") if unsure is None else (None, unsure)


def matched(wanted: list[str], found: list[str], context: Context) -> Finding:
    """Whether the parts of two lists can be matched, in any order."""
    left, unsure = list(found), None
    for part in wanted:
        for candidate in sorted(left, key=lambda text: text != part):
            verdict, reason = decide(part, candidate, context)
            if verdict:
                left.remove(candidate)
                break
            unsure = reason if verdict is None else unsure
        else:
            return (False, "a part is missing") if unsure is None else (None, unsure)
    return True, "part by part"


# ---------------------------------------------------------------- formulas
def needing(context: Context, function: Callable[..., Found], *arguments: Any) -> Found:
    """`function` of `arguments`; raises NeedsFormulas where formulas may not be valued."""
    if not context.formulas:
        raise NeedsFormulas
    return function(*arguments)


def formulas(reference: str, answer: str, context: Context) -> Finding:
    """Two formulas by their values."""
    return needing(context, same_formulas, reference, answer, context.tolerance)


def worded(verdict: bool | None, reason: str) -> Finding:
    """A finding whose reason is the usual one where both are the same."""
    return (
        (True, "same")
        if verdict
        else (verdict, "different" if verdict is False and reason == NOT_EQUAL else reason)
    )


__all__ = [
    "LITERAL",
    "Context",
    "compare_answers",
    "counterparts",
    "decide",
    "equivalent",
    "quick_match",
    "target",
]
