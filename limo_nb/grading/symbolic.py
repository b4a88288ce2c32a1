"""Formulas: parsed by math-verify's LaTeX grammar, compared by values and by math-verify.

Runs in worker processes, which import sympy. No text is evaluated: the grammar builds
sympy objects, and numbers are made of their digits.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

from limo_nb.grading.extraction import closing
from limo_nb.grading.numbers import (
    Number,
    number,
    rounds_to,
)

Finding = tuple[bool | None, str]  # a verdict and its reason

DIGITS = 30  # of precision where formulas are compared by their values
# Values given to the unknowns, in turn: below 1, above 1, of both signs.
POINTS = (("0.731", "0.417", "0.873", "0.559"), ("1.618", "2.236", "1.259", "3.307"),
          ("-0.577", "1.414", "-1.202", "2.665"))  # fmt: skip
WHOLE_POINTS = (("5", "3", "7", "4"), ("12", "5", "9", "7"), ("8", "6", "11", "3"))
KEPT = {"log", "sum", "prod", "int", "lim", "max", "min", "oint", "bigcup", "bigcap"}
SUBSCRIPT = r"(?:\\(?P<command>[A-Za-z]+)|[A-Za-z])\s?_\{(?P<inner>[^{}]*)\}"
THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
GREEK = r"\\(?:pi|alpha|beta|theta|lambda|mu|phi|omega)(?![a-z])"
PARSING: tuple[tuple[re.Pattern, str | Callable], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # A derivative would be worked out, and that of a letter by another is 0.
        (
            r"\\frac\{(?:d|\\partial)\s?(?:\^\{?(\d)\}?)?\s?([A-Za-z\\{}_]{1,12}?)\}"
            r"\{(?:d|\\partial)\s?([a-z])(?:\^\{?\d\}?)?\}",
            lambda m: f"D_{{{m[1] or ''}{re.sub('[^A-Za-z]', '', m[2])}{m[3]}}}",
        ),
        (r"\\(?:mathrm|mathbf|mathit|text|textbf|rm)\s*\{([A-Za-z])\}", r" \1 "),
        (r"_\{\\(?:text|mathrm|rm)\s*\{([^{}]*)\}\}", r"_{\1}"),
        (r"([A-Za-z])('+)", lambda m: f"{m[1]}_{{{'prime' * len(m[2])}}}"),
        (r"\\(?:hbar|ell)(?![a-z])", "h_{bar}"),
        (SUBSCRIPT, lambda m: _subscript(m)),
        # The grammar keeps e and E for the base and I for sympy's unit, which is i here.
        (r"(?<![A-Za-z\\])([eE])_(?:\{(\w+)\}|(\w))", r"Q_{\1\2\3}"),
        (r"(?<![A-Za-z\\{_])I(?![A-Za-z(_])", "I_{cap}"),
        (rf"\\sqrt\s*(\w|{GREEK})", r"\\sqrt{\1}"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\frac\s*(\w)\s*(\w)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\w)\s*\{", r"\\frac{\1}{"),
        (r"\^\(([^()]*)\)", r"^{\1}"),
        (r"(?<![_^\d.])(\d+)\s?(?=\()", r"\1\\cdot "),  # 2(1/3) is no mixed number
    )
)


def _whole_fractions(text: str) -> str:
    """`text` with braces around a denominator that TeX takes without: \\frac{a}2."""
    for match in [*re.finditer(r"\\frac\s*\{", text)][::-1]:
        end = closing(text, match.end() - 1)
        bare = re.compile(r"\s*(\w)").match(text, end + 1) if end > 0 else None
        if bare:
            text = f"{text[: end + 1]}{{{bare[1]}}}{text[bare.end() :]}"
    return text


def _subscript(match: re.Match) -> str:
    if match["command"] in KEPT:
        return match[0]
    head = match[0][: match[0].index("_")].rstrip()
    return f"{head}_{{{re.sub(r'[^A-Za-z0-9]', '', match['inner']) or '0'}}}"


def as_formula(reference: str, answer: str, tolerance: float) -> Finding:
    """Values at fixed points, and math-verify where those do not decide."""
    from math_verify import verify

    wanted = parse(reference)
    if wanted is None:
        bare = [re.sub(r"[\d\s]+", "", text) for text in (reference, answer)]
        return (False, "other numbers") if bare[0] == bare[1] else (None, "not understood")
    found = parse(answer)
    if found is None:
        alike = _bare(reference) == _bare(answer)
        return None if alike else False, "answer not understood"
    wanted, found = _told_apart(wanted, found)
    if re.search(r"(?<![a-z])or(?![a-z])|或|\\lor", reference + answer):
        wanted, found = _joined(wanted), _joined(found)
    same = _by_value(wanted, found, reference, answer, tolerance)
    if same is None:
        same = _equations(wanted, found)
    if same is not None:
        return same, "equal values" if same else "other values"
    # The worker's limit stands in for math-verify's alarm: it also ends C code.
    same = verify([wanted], [found], timeout_seconds=None, allow_set_relation_comp=True)
    return same, "equivalent" if same else "not equivalent"


def _bare(text: str) -> str:
    """The digits and letters of `text`, without commands."""
    return re.sub(r"\\[A-Za-z]+|[^A-Za-z0-9]", "", text)


def parse(text: str) -> Any:
    """The sympy object of one LaTeX formula, None where it is not understood.

    Units are not removed and case counts, unlike in math-verify's own extraction.
    """
    from math_verify.parser import NormalizationConfig, get_last_eq, normalize_latex

    for pattern, replacement in PARSING:
        text = pattern.sub(replacement, text)
    text = _whole_fractions(text)
    if closing(f"{{{text}}}", 0) != len(text) + 1:  # unbalanced
        return None
    text = text.replace(",", "") if THOUSANDS.fullmatch(text) else text
    text = normalize_latex(text, NormalizationConfig(nits=True, boxed="none"))
    for version in dict.fromkeys((text, get_last_eq(text))):
        try:
            return _plain(_converter().parse(version))
        except MemoryError:
            raise
        except Exception:  # the grammar raises bare exceptions
            continue
    return None


def _converter() -> Any:
    """math-verify's converter, but for numbers: it hands their text to `sympify`."""
    from latex2sympy2_extended import latex2sympy2
    from sympy import Float, Integer

    class Converter(latex2sympy2._Latex2Sympy):
        def parse_number(self, text: str) -> Any:
            text = text.replace(",", "")
            return Integer(int(text)) if text.isdigit() else Float(text)

    config = latex2sympy2.ConversionConfig(lowercase_symbols=False)
    return Converter(is_real=True, config=config)


def _plain(found: Any) -> Any:
    """`found` with the imaginary unit for i, and unknowns for functions such as f(x)."""
    from sympy import I, Symbol
    from sympy.core.function import AppliedUndef

    if not hasattr(found, "free_symbols"):
        return found
    i = Symbol("i", real=True)
    found = found.subs(i, I) if i in found.free_symbols else found
    unknown = {f: Symbol(str(f), real=True) for f in found.atoms(AppliedUndef)}
    return found.xreplace(unknown) if unknown else found


def _told_apart(wanted: Any, found: Any) -> tuple[Any, Any]:
    """An equation for an answer that is none: 5 = x is 5, and x^2 = 42 is not 42."""
    from sympy import Eq

    if not isinstance(found, Eq) or isinstance(wanted, Eq):
        return wanted, found
    left, right = found.args
    if getattr(right, "is_Symbol", False) and not left.is_Symbol:
        return wanted, left
    inner = getattr(left, "free_symbols", set())
    unsolved = len(inner) == 1 and not left.is_Symbol and left.is_polynomial(*inner)
    return wanted, (found if not unsolved else left)


def _joined(found: Any) -> Any:
    """The union of what several relations that "or" joins describe."""
    from sympy import FiniteSet, Union
    from sympy.core.relational import Relational

    if not isinstance(found, FiniteSet) or not found.args:
        return found
    if not all(isinstance(part, Relational) for part in found.args):
        return found
    return Union(*(part.as_set() for part in found.args))


def _by_value(
    wanted: Any, found: Any, reference: str, answer: str, tolerance: float
) -> bool | None:
    """Whether two expressions have equal values, None where that cannot be told."""
    from sympy import Expr

    if not (isinstance(wanted, Expr) and isinstance(found, Expr)):
        return None
    decimal, exact = number(answer), number(reference)
    verdicts = []
    for one, other in zip(*_sampled(wanted, found), strict=True):
        if one is None or other is None:
            return None
        scale = max(abs(one), abs(other))
        near = abs(one - other) <= scale * 10 ** -(DIGITS - 10)
        if not near and tolerance and not (exact and exact.integer):
            near = abs(one - other) <= tolerance * abs(one)
        verdicts.append(bool(near))
    if not verdicts or len(set(verdicts[:2])) > 1:
        return None
    if not wanted.free_symbols | found.free_symbols:
        if verdicts[0]:  # of greater numbers DIGITS do not show the end
            return True if scale < 10 ** (DIGITS - 20) else None
        return _is_rounded(decimal, wanted) or _is_rounded(exact, found)
    return verdicts[0] if verdicts[-1] or not verdicts[0] else None


def _is_rounded(decimal: Number | None, value: Any) -> bool:
    if decimal is None or decimal.exact or not value.is_real:
        return False
    return rounds_to(decimal, str(value.evalf(DIGITS)))


def _sampled(*formulas: Any) -> tuple[list, ...]:
    """The values of expressions at POINTS; None where one has no finite value."""
    from sympy import binomial, ceiling, factorial, floor

    symbols = sorted(set().union(*(f.free_symbols for f in formulas)), key=str)
    whole = any(f.has(floor, ceiling, factorial, binomial) for f in formulas)
    points = (WHOLE_POINTS if whole else POINTS) if symbols else ((),)
    return tuple([_at(f, symbols, point) for point in points] for f in formulas)


def _at(formula: Any, symbols: list, point: tuple) -> Any:
    from sympy import Float, I

    # Beyond the given values, each unknown has another power of the first ones.
    given = {
        symbol: Float(point[n % len(point)], DIGITS + 10) ** (1 + n // len(point))
        for n, symbol in enumerate(symbols)
    }
    try:
        value = formula.subs(given).evalf(DIGITS)
        real, imaginary = value.as_real_imag()
        if not (real.is_Number and imaginary.is_Number and real.is_finite):
            return None
        return real + imaginary * I
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return None


def _equations(wanted: Any, found: Any) -> bool | None:
    """Whether two equations have the same solutions, None where that cannot be told.

    They have if the differences of their sides are proportional. Where one is linear in
    an unknown, the other must be solved by what solves it.
    """
    from sympy import Eq, Expr

    if not (isinstance(wanted, Eq) and isinstance(found, Eq)):
        return None
    sides = (*wanted.args, *found.args)
    if not all(isinstance(side, Expr) for side in sides):
        return None
    one, other = sides[0] - sides[1], sides[2] - sides[3]
    ones, others = _sampled(one, other)
    if None in ones + others or not all(ones) or not all(others):
        return None
    if _constant([a / b for a, b in zip(ones, others, strict=True)]):
        return True
    if _constant([a - b for a, b in zip(ones, others, strict=True)]):
        return False
    return _solved_alike(one, other)


def _constant(values: list) -> bool:
    spread = max(abs(value - values[0]) for value in values)
    return bool(spread <= abs(values[0]) * 10 ** -(DIGITS - 10))


def _solved_alike(one: Any, other: Any) -> bool | None:
    """Whether two equations that are linear in one unknown give it the same values.

    None where only one of them is linear: x^2 = 4 holds where x = 2 does, and elsewhere.
    """
    unknowns = sorted(one.free_symbols | other.free_symbols, key=str)
    for unknown in unknowns:
        roots, others = _roots(one, unknown, unknowns), _roots(other, unknown, unknowns)
        if roots and others:
            return all(
                abs(a - b) <= max(abs(a), abs(b), 1) * 10 ** -(DIGITS // 2)
                for a, b in zip(roots, others, strict=True)
            )
        if roots and _at_root(other, unknown, unknowns, roots) is False:
            return False
    return None


def _roots(formula: Any, unknown: Any, unknowns: list) -> list | None:
    """Where `formula` vanishes at each of POINTS, None unless it is linear in `unknown`."""
    rest = [symbol for symbol in unknowns if symbol != unknown]
    roots = []
    for point in POINTS:
        at = [_at(formula.subs(unknown, n), rest, point) for n in range(4)]
        if None in at:
            return None
        steps = [b - a for a, b in itertools.pairwise(at)]
        if not steps[0] or not _constant(steps):
            return None
        roots.append(-at[0] / steps[0])
    return roots


def _at_root(formula: Any, unknown: Any, unknowns: list, roots: list) -> bool | None:
    """Whether `formula` vanishes where `unknown` is the first of `roots`."""
    rest = [symbol for symbol in unknowns if symbol != unknown]
    left = _at(formula.subs(unknown, roots[0]), rest, POINTS[0])
    return None if left is None else bool(abs(left) < 10 ** -(DIGITS // 2))
