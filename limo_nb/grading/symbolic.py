"""A second opinion on formulas: math-verify's grammar and its comparison by sympy.

For what `latex` does not read: limits, indefinite sums, sets of sets. Runs in worker
processes, which import sympy. No text is evaluated: the grammar builds sympy objects, and
numbers are made of their digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from limo_nb.grading.canonical import closing

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
    r"""`text` with braces around a denominator that TeX takes without: \frac{a}2."""
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


def verified(reference: str, answer: str) -> bool | None:
    """math-verify's verdict, None where it does not read one of them."""
    from math_verify import verify

    wanted, found = to_sympy(reference), to_sympy(answer)
    if wanted is None or found is None:
        return None
    wanted, found = _told_apart(wanted, found)
    if re.search(r"(?<![a-z])or(?![a-z])|或|\\lor", reference + answer):
        wanted, found = _joined(wanted), _joined(found)
    if type(wanted).__name__ == type(found).__name__ == "NaN":
        return None
    # The worker's limit stands in for math-verify's alarm: it also ends C code.
    return verify([wanted], [found], timeout_seconds=None, allow_set_relation_comp=True)


def to_sympy(text: str) -> Any:
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
        except Exception:  # noqa: S112 # the grammar raises bare exceptions; the next may do
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
    inner: set = getattr(left, "free_symbols", set())
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
