"""How much a passage says, in bits: a common phrase is no evidence of a copy (chapter 3).

"Solve for x" stands in many problems, "Evaluate log 2 64" in few. The measure is the
information of the passage, the negative logarithm of its probability in a bigram model of
mathematical problems (Shannon 1948). The model's counts, of words and of pairs of words in
MATH, GSM8K and AIME before 2024, come with the package (`benchmarks/contamination.py` makes
them): so what a passage says depends neither on the pool at hand nor on the benchmarks, and
a pool that is cleaned in parts is cleaned as a whole.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from itertools import pairwise

from limo_nb.problems.text import HAN_WORD

DIGIT = math.log2(10)
CHARACTER = 5.0  # bits of one in Chinese, of which there are no counts here


def information(words: Sequence[str]) -> float:
    """The bits that `words`, in their normal form, say one after the other."""
    counts, total, least = _reference()
    bits = 0.0
    for before, word in pairwise(["", *words]):
        alone = _alone(word, counts.get(word, least), total)
        both = counts.get(f"{before} {word}")
        bits += min(alone, math.log2(counts[before] / both)) if both else alone
    return bits


def _alone(word: str, count: int, total: int) -> float:
    """The bits of a word wherever it stands; one without a count is as rare as the rarest."""
    rare = math.log2(total / count)
    if word.isdigit():
        return min(rare, 1 + DIGIT * len(word))
    return CHARACTER if HAN_WORD.match(word) else rare


@cache
def _reference() -> tuple[dict[str, int], int, int]:
    """(word or pair of words → its count, the number of all words, the least count)."""
    made = json.loads(resources.files("limo_nb.problems").joinpath("common.json").read_text())
    return made["counts"], made["words"], made["least"]


def reference_of(rows: Iterable[Sequence[str]], least: int) -> dict:
    """What `common.json` holds of the texts `rows`, as words: counts from `least` on.

    No numbers: which of them are frequent belongs to the texts and not to the language.
    """
    counts: Counter[str] = Counter()
    total = 0
    for row in rows:
        total += len(row)
        counts.update(word for word in row if not word.isdigit())
        counts.update(f"{a} {b}" for a, b in pairwise(row) if not (a.isdigit() or b.isdigit()))
    kept = {text: count for text, count in sorted(counts.items()) if count >= least}
    return {"words": total, "least": least, "counts": kept}
