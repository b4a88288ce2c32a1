"""Formulas: read by `latex`, compared by `algebra`, with math-verify for what that leaves.

Runs in worker processes; no text is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from mpmath import mp

from limo_nb.grading.algebra import (
    DIGITS,
    POSITIVE,
    Evaluation,
    Grid,
    Pair,
    TooLarge,
    close,
    equal,
    is_zero,
    renamings,
    same_equation,
    sample_points,
    value_of,
)
from limo_nb.grading.answers import Congruence
from limo_nb.grading.latex import (
    Node,
    NotUnderstood,
    function_letters,
    has_matrices,
    is_decorated,
    operations,
    parse,
    renamed,
    symbols,
)
from limo_nb.grading.numbers import number, rounds_to

Finding = tuple[bool | None, str]  # a verdict and its reason

EQUAL, NOT_EQUAL = "equal values", "other values"
UNITS = re.compile(r"\\(?:mathbf|hat|vec|boldsymbol)\s?\{?\\?(?:imath|jmath|[ijk]\b)")
BOLD = re.compile(r"\\(?:mathbf|boldsymbol|bm)\s*\{?[A-Z]")
SMALL = re.compile(r"\\(?:vec|mathbf|boldsymbol|bm|hat)\s*\{?[a-z]|\\times")
ARRAY = re.compile(r"\\begin\{|\\langle|^[(\[].*,.*[)\]](?:\^.*)?$")


def trees(*texts: str) -> list[Node]:
    """The trees of several texts, read alike.

    Functions, vectors and matrices in any of them count for all. Raises NotUnderstood.
    """
    functions = function_letters(*texts)
    decorated = [is_decorated(text) for text in texts]
    vectors = all(decorated) or any(map(UNITS.search, texts)) and any(map(ARRAY.search, texts))
    bold = all(map(BOLD.search, texts)) and not any(map(SMALL.search, texts))
    matrices = any(map(has_matrices, texts)) or bold
    found = [parse(text, functions, bool(vectors), matrices) for text in texts]
    return _derivatives_alike(found)


def _derivatives_alike(found: list[Node]) -> list[Node]:
    """Dots and primes named after the one variable by which the other side derives."""
    names = [{name for name in symbols(node) if re.match(r"D\d ", name)} for node in found]
    by = {name.rpartition("/")[2] for own in names for name in own}
    if "0" not in by or len(by) != 2:
        return found
    (variable,) = by - {"0"}
    return [
        renamed(
            node, {n: n.rpartition("/")[0] + "/" + variable for n in own if n.endswith("/0")}
        )
        for node, own in zip(found, names, strict=True)
    ]


def same_formulas(reference: str, answer: str, tolerance: float = 0.0) -> Finding:
    """Whether two formulas have equal values."""
    try:
        one, other = trees(reference, answer)
    except NotUnderstood as problem:
        if not re.search(r"[A-Za-z\\]", answer):
            return False, "no formula"
        return second_opinion(reference, answer, str(problem))
    exact = number(reference)
    allowed = 0.0 if exact and exact.integer else tolerance
    try:
        verdict = equal(Pair(one, other, allowed))
        if verdict is not True and (symbols(one) or symbols(other)):
            if any(
                equal(Pair(one, renamed(other, names)))
                for names in renamings(one, other, free_constants(reference))
            ):
                return True, "equal but for the names of constants"
        if verdict is False and not (symbols(one) or symbols(other)):
            verdict = _is_rounded(answer, one) or _is_rounded(reference, other)
    except TooLarge as problem:
        return second_opinion(reference, answer, f"too large: {problem}")
    except RecursionError:
        return None, "too deeply nested"
    if verdict is None:
        if (
            symbols(one) != symbols(other)
            and not ({"vector", "matrix"} & (operations(one) | operations(other)))
            and "infinity" not in operations(one)
        ):
            return False, NOT_EQUAL
        return second_opinion(reference, answer, "no values")
    return verdict, EQUAL if verdict else NOT_EQUAL


def free_constants(reference: str) -> frozenset[str]:
    """Letters that stand alone for a constant: the whole of a value, or c added to it."""
    alone = re.fullmatch(r"\s*([ckCK])\s*", reference)
    return frozenset(alone[1] if alone else "")


def _is_rounded(text: str, node: Node) -> bool:
    """Whether `text` is the value of a tree rounded to six places or more."""
    decimal = number(text)
    if decimal is None or decimal.exact:
        return False
    with mp.workdps(DIGITS):
        value = value_of(node, Evaluation({}))
        if (
            value is None
            or isinstance(value, Grid)
            or (not isinstance(value, Fraction) and mp.im(value))
        ):
            return False
        return rounds_to(decimal, str(value))


def constant(text: str) -> Any | None:
    """The real value of a formula without unknowns, None for another."""
    try:
        (node,) = trees(text)
        if symbols(node):
            return None
        with mp.workdps(DIGITS):
            value = value_of(node, Evaluation({}))
    except (NotUnderstood, TooLarge):
        return None
    if value is None or isinstance(value, Grid):
        return None
    return value if isinstance(value, Fraction) or not mp.im(value) else None


def same_equations(one: Sequence[str], other: Sequence[str]) -> Finding:
    """Two equations with two sides each."""
    try:
        found = trees(*one, *other)
        first, second = (found[0], found[1]), (found[2], found[3])
        verdict = same_equation(first, second)
        if not verdict:
            wanted = Node("sum", (first[0], Node("minus", (first[1],))))
            said = Node("sum", (second[0], Node("minus", (second[1],))))
            for names in renamings(wanted, said, frozenset()):
                again = tuple(renamed(node, names) for node in second)
                if same_equation(first, (again[0], again[1])):
                    return True, "equal but for the names of constants"
    except NotUnderstood as problem:
        return second_opinion("=".join(one), "=".join(other), str(problem))
    except TooLarge as problem:
        return None, f"too large: {problem}"
    if verdict is None:
        return second_opinion("=".join(one), "=".join(other), "no values")
    return verdict, EQUAL if verdict else NOT_EQUAL


def same_chain(one: Sequence[str], other: Sequence[str]) -> Finding:
    """Two relations with two sides each: their differences are in a positive proportion."""
    try:
        found = trees(*one, *other)
    except NotUnderstood as problem:
        return None, f"not understood: {problem}"
    first, second = (
        Node("sum", (a, Node("minus", (b,))))
        for a, b in ((found[0], found[1]), (found[2], found[3]))
    )
    pair = Pair(first, second)
    with mp.workdps(DIGITS):
        values = (
            [pair.at(at) for at in sample_points(pair.names, {}, POSITIVE)]
            if pair.names
            else [pair.at({})]
        )
        known = [
            (a, b) for a, b in values if a is not None and b is not None and not is_zero(b)
        ]
        ratios = [a / b for a, b in known]
        if not ratios or any(isinstance(r, Grid) or mp.im(r) for r in ratios):
            return None, "no values"
        if not pair.names:  # two numbers: the same ones were told above
            return False, NOT_EQUAL
        same = all(close(r / ratios[0], Fraction(1)) for r in ratios) and ratios[0] > 0
    return bool(same), EQUAL if same else NOT_EQUAL


def same_ratio(one: Sequence[str], other: Sequence[str]) -> Finding:
    """Whether the terms of two ratios are in proportion."""
    for n in range(1, len(one)):
        finding = same_formulas(f"({one[0]})*({other[n]})", f"({one[n]})*({other[0]})")
        if finding[0] is not True:
            return finding
    return True, "in proportion"


def as_congruence(formula: str) -> Congruence | None:
    """3k + 1 as what is 1 modulo 3, None for what is not linear in one unknown."""
    try:
        (node,) = trees(formula)
        names = symbols(node)
        if len(names) != 1:
            return None
        (name,) = names
        at = [value_of(node, Evaluation({name: Fraction(n)})) for n in range(3)]
    except (NotUnderstood, TooLarge):
        return None
    whole = [value for value in at if isinstance(value, Fraction) and value.denominator == 1]
    if len(whole) != 3 or whole[1] - whole[0] != whole[2] - whole[1] or whole[1] == whole[0]:
        return None
    return Congruence(formula, "", (str(whole[0]),), str(abs(whole[1] - whole[0])))


def second_opinion(reference: str, answer: str, problem: str) -> Finding:
    """math-verify's verdict, where it reads both; else none, with the reason."""
    from limo_nb.grading.symbolic import verified

    if is_decorated(reference + answer) or has_matrices(reference + answer):
        return None, f"not understood: {problem}"
    bare = [
        re.sub(r"\s+|\\(?:text|mathrm)(?![a-z])|[{}]", "", text) for text in (reference, answer)
    ]
    if bare[0] == bare[1]:
        return True, "the same but for braces"
    verdict = verified(reference, answer)
    if verdict is None:
        return None, f"not understood: {problem}"
    return verdict, "equivalent" if verdict else "not equivalent"
