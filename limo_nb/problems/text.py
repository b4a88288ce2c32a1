"""Texts as they are compared: normal forms, words, n-grams, the Jaccard index (chapter 3).

LIMO publishes neither the normal form nor the n of its decontamination (v3, section 3);
what counts as a difference between two problems is decided here.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from html.entities import name2codepoint

from limo_nb.core.settings import Normalisation

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
HAN_WORD = re.compile(f"[{HAN}]")
INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\u00ad]")
LENGTH = r"\s*[+-]?\s*(?:\d+\.?\d*|\.\d+)\s*(?:mm|cm|in|pt|pc|bp|dd|cc|sp|em|ex|mu)"
SPACING = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|limits|nolimits|[bB]ig{1,2}[lrm]?|relax"
    r"|q?quad|enspace|enskip|space|nobreakspace|(?:neg)?(?:thin|med|thick)space"
    r"|[hv](?:fill?|ss)|(?:no)?indent|par|newline|linebreak|nobreak|allowbreak"
    r"|(?:small|med|big)skip)(?![a-zA-Z])"
    rf"|\\(?:[hvm]skip|m?kern){LENGTH}|\\(?:text|mbox)\s*\{{\s*\}}"
    # Not after a backslash: there the two are a line break.
    r"|\\[hmv]space\*?\s*\{[^{}]*\}|(?<!\\)\\[,;:!>\s()\[\]]|\\?\$|~|_\{\}|\\(?=[%#&])"
)
FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
NUMERATOR = re.compile(r"\\frac\s*(\d)")
DENOMINATOR = re.compile(r"(\\frac\{[^{}]*\})\s*(\d)")
BESIDE_SIGNS = re.compile(r"\s+(?=[^\w\s])|(?<=[^\w\s])\s+")
ONE_IN_BRACES = re.compile(r"([_^])\{(\w)\}(?!\w)")
RAISED = re.compile("[²³¹⁰ⁱ⁴-ⁿ]+")
LOWERED = re.compile("[₀-ₜ]+")
WITH_A_FRACTION = re.compile("[¼-¾⅐-⅞]")
ACCENTS = re.compile("[\u0300-\u036f\u20d0-\u20f0]")  # those that are part of no letter
# A Greek letter is a word: `\alpha\beta` and αβ are two, and sinθ is as much as sin θ.
GREEK = "\u0370-\u03ff"
WORD = re.compile(rf"[{HAN}{GREEK}]|\d+|[^\W\d_{HAN}{GREEK}]+")

# LaTeX commands that stand for letters, for words or for signs of OPERATOR, as Unicode
# has them; all others stand for what is no word in Unicode either, or for nothing.
FUNCTIONS = """sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln lg exp
lim max min sup inf gcd lcm det dim ker deg arg mod""".split()
SIGNS = {
    "/": "frac div", "·": "cdot times ast", "√": "sqrt", "±": "pm", "∑": "sum", "∏": "prod",
    "∫": "int", "⌊": "lfloor", "⌈": "lceil", "<": "lt", ">": "gt", "≠": "ne neq",
    "≤": "le leq leqslant", "≥": "ge geq geqslant",
}  # fmt: skip
COMMANDS = (
    {name: chr(code) for name, code in name2codepoint.items() if 0x3B1 <= code <= 0x3C9}
    | {name: name for name in FUNCTIONS}
    | {"pmod": "mod", "bmod": "mod", "ell": "l", "hbar": "ħ"}
    | {name: sign for sign, names in SIGNS.items() for name in names.split()}
)
COMMAND = re.compile(
    r"\\+(?:begin|end)\s*\{[^{}]*\}(?:\s*\{[clr|\s]*\})?|(\\+)((?:var)?([a-z]+))"
)
# Signs that make a formula another one; a hyphen between words does not.
OPERATOR = re.compile(r"[+·/=<>≤≥≠±√∑∏∫⌊⌈]|(?<![^\W\d_]{2})-|-(?![^\W\d_]{2})")
SAME_OPERATOR = str.maketrans("−×⋅∙*÷∕⁄", "-····///")


def normalise(text: str) -> str:
    r"""`text` without what does not change a problem.

    Case, white space, Unicode form, invisible characters, `$`, LaTeX spacing and size
    commands go; `\dfrac`, `\tfrac` and `\frac12` become `\frac{1}{2}`, as ½ does, and x²
    and `x^{2}` become `x^2`.
    """
    if not text.isascii():
        text = INVISIBLE.sub("", unicodedata.normalize("NFKC", _in_latex(text)))
        text = ACCENTS.sub("", text)
    text = " ".join(text.casefold().split())
    if "frac" in text:
        text = FRACTION.sub(r"\\frac", text)
        text = DENOMINATOR.sub(r"\1{\2}", NUMERATOR.sub(r"\\frac{\1}", text))
    if "\\" in text or "$" in text or "~" in text or "_" in text:
        text = " ".join(SPACING.sub(" ", text).split())
    if "{" in text:
        text = ONE_IN_BRACES.sub(r"\1\2", text)
    return BESIDE_SIGNS.sub("", text)


def _in_latex(text: str) -> str:
    r"""`text` with `^{2}` for ², `_{2}` for ₂, `\frac{1}{2}` for ½, which NFKC would flatten.

    10² would be 102.
    """
    for sign, latex in (("º", "°"), ("∛", r"\sqrt[3]"), ("∜", r"\sqrt[4]")):
        text = text.replace(sign, latex)
    text = RAISED.sub(lambda found: f"^{{{found[0]}}}", text)
    text = LOWERED.sub(lambda found: f"_{{{found[0]}}}", text)
    return WITH_A_FRACTION.sub(
        lambda found: "\\frac{{{}}}{{{}}}".format(
            *unicodedata.normalize("NFKC", found[0]).split("\u2044")
        ),
        text,
    )


def wording(text: str) -> str:
    r"""The normalised `text` with characters for LaTeX commands: α for `\alpha`.

    Commands that stand for no letter, word or operator are spaces. So a problem has the
    same words whether its formulas are written in LaTeX or in Unicode.
    """
    return _without_commands(normalise(text))


def _without_commands(normal: str) -> str:
    return COMMAND.sub(_character, normal) if "\\" in normal else normal


def _character(found: re.Match[str]) -> str:
    if found[3] in COMMANDS:
        return f" {COMMANDS[found[3]]} "
    # After two backslashes, a line break, stands a word.
    return f" {found[2]}" if found[1] == r"\\" else " "


# The forms in which problems and benchmark items may be searched for common n-grams, by
# the names that profiles and the command line use. In each, only words count (WORD): white
# space and signs never do.
FORMS: dict[Normalisation, Callable[[str], str]] = {
    "full": wording,  # without all that changes no problem, LaTeX or Unicode
    "case": str.casefold,  # capitals do not count either, LaTeX commands are words
    "none": str,  # as it stands: a word with a capital is another word
}


def words(text: str) -> list[str]:
    """Words and numbers of the `wording`; each Chinese character and Greek letter is a word.

    A number beside a letter stands alone, since `2x` and `2 x` are the same in a formula.
    """
    return words_of(normalise(text))


def words_of(normal: str) -> list[str]:
    """The `words` of a text that is normalised."""
    return WORD.findall(_without_commands(normal))


def operators(wording: str) -> Counter[str]:
    """How often each sign of OPERATOR stands in a text that has its final form."""
    return Counter(OPERATOR.findall(wording.translate(SAME_OPERATOR)))


def ngrams(tokens: Sequence[str], n: int) -> set[str]:
    """The n-grams of `tokens` joined by spaces; all of them as one where fewer than n."""
    if len(tokens) < n:
        return {" ".join(tokens)} if tokens else set()
    return {" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}


def jaccard(one: set[str], other: set[str]) -> float:
    """The size of the intersection over that of the union; 0 for two empty sets."""
    union = len(one | other)
    return len(one & other) / union if union else 0.0
