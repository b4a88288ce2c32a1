"""Texts as they are compared: normal forms, words, n-grams, the Jaccard index (chapter 3).

LIMO publishes neither the normal form nor the n of its decontamination (v3, section 3);
what counts as a difference between two problems is decided here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from limo_nb.core.settings import Normalisation

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
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
WORD = re.compile(rf"[{HAN}]|\d+|[^\W\d_{HAN}]+")


def normalise(text: str) -> str:
    r"""`text` without what does not change a problem.

    Case, white space, Unicode form, invisible characters, `$`, LaTeX spacing and size
    commands go; `\dfrac`, `\tfrac` and `\frac12` become `\frac{1}{2}`.
    """
    if not text.isascii():
        text = INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    text = " ".join(text.casefold().split())
    if "frac" in text:
        text = FRACTION.sub(r"\\frac", text)
        text = DENOMINATOR.sub(r"\1{\2}", NUMERATOR.sub(r"\\frac{\1}", text))
    if "\\" in text or "$" in text or "~" in text or "_" in text:
        text = " ".join(SPACING.sub(" ", text).split())
    return BESIDE_SIGNS.sub("", text)


# The forms in which problems and benchmark items may be searched for common n-grams, by
# the names that profiles and the command line use. In each, only words count (WORD): white
# space and signs never do.
FORMS: dict[Normalisation, Callable[[str], str]] = {
    "full": normalise,  # without all that changes no problem, LaTeX spacing too
    "case": str.casefold,  # capitals do not count either, LaTeX commands are words
    "none": str,  # as it stands: a word with a capital is another word
}


def words(text: str) -> list[str]:
    """Words and numbers of the normalised text; each Chinese character is a word.

    A number beside a letter stands alone, since `2x` and `2 x` are the same in a formula.
    """
    return WORD.findall(normalise(text))


def ngrams(tokens: Sequence[str], n: int) -> set[str]:
    """The n-grams of `tokens` joined by spaces; all of them as one where fewer than n."""
    if len(tokens) < n:
        return {" ".join(tokens)} if tokens else set()
    return {" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}


def jaccard(one: set[str], other: set[str]) -> float:
    """The size of the intersection over that of the union; 0 for two empty sets."""
    union = len(one | other)
    return len(one & other) / union if union else 0.0
