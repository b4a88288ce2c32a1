"""Reasoning chains: how good they are, what they contain, and which to keep.

LIMO v3 scores a chain by four dimensions (length 30 %, self-verification 20 %,
exploration 25 %, granularity 25 %) and counts keywords relative to the length of the
text. Words and weights stand in `scoring.yaml` with their reasons. Not published, so ours:
a dimension grows linearly up to a reference and is 1 beyond it; the reference of a batch
is its 95th percentile; of equal scores the shorter chain wins. Chapter 5.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import yaml

DIMENSIONS = ("length", "verification", "exploration", "granularity")
CJK = "\u3400-\u9fff"
WORD = re.compile(rf"[{CJK}]|[^\W\d_{CJK}]+(?:['’][^\W\d_{CJK}]+)?|\d+(?:\.\d+)?")


# ---------------------------------------------------------------- words
@cache
def settings() -> dict[str, Any]:
    """The content of `scoring.yaml`."""
    text = (
        resources.files("limo_nb.chains").joinpath("scoring.yaml").read_text(encoding="utf-8")
    )
    return yaml.safe_load(text)


def weights() -> dict[str, float]:
    """The published weight of each dimension; they add up to 1."""
    return {name: settings()["dimensions"][name]["weight"] for name in DIMENSIONS}


def words(name: str, languages: Sequence[str] = ("en", "zh")) -> list[str]:
    """The words of a dimension, or of "backtracks", in the order of `scoring.yaml`."""
    groups = _rules(name)["words"]
    return [word for group in groups for language in languages for word in group[language]]


def _rules(name: str) -> dict[str, Any]:
    rules = settings()
    return rules[name] if name in rules else rules["dimensions"][name]


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Matches the words of `name`, the longest first; what only looks like one, as group.

    English words are tried at the start of a word that has the right first letter, so
    that most places of a text are left at once.
    """
    exceptions = set(_rules(name)["not"])
    found = sorted({*words(name), *exceptions}, key=lambda word: (-len(word), word))
    chinese = [word for word in found if re.search(rf"[{CJK}]", word)]
    english = [word for word in found if word not in chinese]
    parts = [
        rf"(?<![a-z])(?=[{_initials(english)}])(?:{_either(english, exceptions)})(?![a-z])",
        rf"(?=[{_initials(chinese)}])(?:{_either(chinese, exceptions)})",
    ]
    kept = [part for part, some in zip(parts, (english, chinese), strict=True) if some]
    return re.compile("|".join(kept) or "(?!)", re.IGNORECASE)


def _initials(found: list[str]) -> str:
    return "".join(sorted({re.escape(word[0]) for word in found}))


def _either(found: list[str], exceptions: set[str]) -> str:
    return "|".join(f"({_word(w)})" if w in exceptions else _word(w) for w in found)


def _word(word: str) -> str:
    ending = r"[a-z]*" if word.endswith("*") else ""
    return re.escape(word.rstrip("*")).replace(r"\ ", r"\s+").replace("'", "['’]") + ending


def _found(name: str, text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of the words of `name`, without those that only look like one."""
    for match in _pattern(name).finditer(text):
        if match.lastindex is None:
            yield match.span()


def keywords(text: str) -> list[tuple[int, int, str]]:
    """Where the scorer sees a word: (start, end, dimension), in order, not overlapping.

    Where words of two dimensions overlap, the earlier and then the longer one counts.
    """
    found = [(*span, name) for name in DIMENSIONS for span in _found(name, text)]
    kept: list[tuple[int, int, str]] = []
    for start, end, name in sorted(found, key=lambda hit: (hit[0], -hit[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end, name))
    return kept


def count_words(text: str) -> float:
    """Words and numbers; `characters_per_word` Chinese characters count as one word."""
    characters = len(re.findall(f"[{CJK}]", text))
    others = sum(1 for _ in WORD.finditer(text)) - characters
    return others + characters / settings()["characters_per_word"] if characters else others


# ---------------------------------------------------------------- score
@dataclass(frozen=True)
class Scale:
    """Where each dimension reaches 1: `length` in words, the others per 100 words."""

    length: float
    verification: float
    exploration: float
    granularity: float

    @staticmethod
    def default() -> Scale:
        """The scale of LIMO-sized chains, thousands of words long."""
        return Scale(**settings()["reference"])

    @staticmethod
    def of(texts: Iterable[str]) -> Scale:
        """The scale of a batch: the 95th percentile of what its chains show.

        A dimension that fewer than one chain in twenty shows is measured by the batch's
        largest value, and one that none shows by the default, so that it scores 0.
        """
        raw = [_raw(text) for text in texts]
        if not raw:
            raise ValueError("no chains: a scale needs at least one")
        values = {name: [row[name] for row in raw] for name in DIMENSIONS}
        reference = settings()["reference"]
        return Scale(
            **{
                name: float(np.quantile(column, settings()["quantile"]))
                or float(max(column))
                or float(reference[name])
                for name, column in values.items()
            }
        )


@dataclass(frozen=True)
class ChainScore:
    """The four dimensions of a chain, each between 0 and 1."""

    length: float
    verification: float
    exploration: float
    granularity: float

    @property
    def total(self) -> float:
        """The weighted sum, between 0 and 1; rounded so that equal chains tie."""
        parts = weights()
        return round(sum(parts[name] * getattr(self, name) for name in DIMENSIONS), 9)


def _raw(text: str) -> dict[str, float]:
    """Length in words and keyword occurrences per 100 words."""
    length = count_words(text)
    if not length:
        raise ValueError("an empty chain has no score; drop it before scoring")
    counts = Counter(name for _, _, name in keywords(text))
    rates = {name: 100 * counts[name] / length for name in DIMENSIONS}
    return {**rates, "length": float(length)}


def score(text: str, scale: Scale | None = None) -> ChainScore:
    """The quality of a chain on `scale` (LIMO-sized chains if None); section 3.2 of v3.

    Raises ValueError for a text without words.
    """
    scale = scale or Scale.default()
    raw = _raw(text)
    return ChainScore(**{n: min(1.0, raw[n] / getattr(scale, n)) for n in DIMENSIONS})
