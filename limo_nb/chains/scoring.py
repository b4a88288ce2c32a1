"""The score of a chain: the words that it counts, and the four published dimensions.

LIMO v3 (section 3.2) scores a chain by length (30 %), self-verification (20 %), exploration
(25 %) and granularity (25 %), and counts keywords relative to the length of the text. Words
and weights stand in `scoring.yaml` with their reasons. Not published, so ours: a dimension
grows linearly up to a reference and is 1 beyond it; the reference of a batch is its 95th
percentile. Chapter 5.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any

import numpy as np
import yaml

DIMENSIONS = ("length", "verification", "exploration", "granularity")
LISTS = ("verification", "exploration", "granularity", "backtracks")  # that have words
CJK = "\u3400-\u9fff"
WORD = re.compile(rf"[{CJK}]|[^\W\d_{CJK}]+(?:['’][^\W\d_{CJK}]+)?|\d+(?:\.\d+)?")
CHARACTER = re.compile(f"[{CJK}]")

Span = tuple[int, int, str]  # start, end, what stands there


# ---------------------------------------------------------------- rules
@cache
def chain_rules() -> dict[str, Any]:
    """The content of `scoring.yaml`."""
    text = (
        resources.files("limo_nb.chains").joinpath("scoring.yaml").read_text(encoding="utf-8")
    )
    return yaml.safe_load(text)


def weights() -> dict[str, float]:
    """The published weight of each dimension; they add up to 1."""
    return {name: chain_rules()["dimensions"][name]["weight"] for name in DIMENSIONS}


def word_list(name: str, languages: Sequence[str] = ("en", "zh")) -> list[str]:
    """The words of a dimension, or of "backtracks", in the order of `scoring.yaml`."""
    groups = _rules_of(name)["words"]
    return [word for group in groups for language in languages for word in group[language]]


def _rules_of(name: str) -> dict[str, Any]:
    rules = chain_rules()
    return rules[name] if name in rules else rules["dimensions"][name]


# ---------------------------------------------------------------- words in a text
@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """List → what matches a word of it, the longest first; a lookalike is in a group."""
    return {name: _pattern(word_list(name), set(_rules_of(name)["not"])) for name in LISTS}


def _pattern(words: list[str], lookalikes: set[str]) -> re.Pattern[str]:
    found = sorted({*words, *lookalikes}, key=lambda word: (-len(word), word))
    chinese = [word for word in found if CHARACTER.search(word)]
    english = [word for word in found if word not in chinese]
    return re.compile(
        rf"(?<![a-z])(?:{_either(english, lookalikes)})(?![a-z])"
        f"|(?:{_either(chinese, lookalikes)})",
        re.IGNORECASE,
    )


def _either(found: list[str], lookalikes: set[str]) -> str:
    return "|".join(f"({_word(w)})" if w in lookalikes else _word(w) for w in found)


def _word(word: str) -> str:
    ending = r"[a-z]*" if word.endswith("*") else ""
    return re.escape(word.rstrip("*")).replace(r"\ ", r"\s+").replace("'", "['’]") + ending


@cache
def _heads() -> dict[str, set[str]]:
    """List → how its entries begin: letters, with * where more may follow; a Chinese sign."""
    heads: dict[str, set[str]] = {}
    for name in LISTS:
        entries = {*word_list(name), *_rules_of(name)["not"]}
        signs = {entry[0] for entry in entries if CHARACTER.search(entry)}
        letters = {head for entry in entries for head in re.findall(r"^[a-z]+\*?", entry)}
        heads[name] = signs | letters
    return heads


@cache
def _beginnings() -> re.Pattern[str]:
    """Matches the beginning of a word of any list, and little else.

    That is in English a run of letters, told by its initial before the rest is read; in
    Chinese, which writes no spaces, the first sign.
    """
    heads = set.union(*_heads().values())
    english: dict[str, list[str]] = {}
    for head in sorted((h for h in heads if h.isascii()), key=lambda h: (-len(h), h)):
        english.setdefault(head[0], []).append(head[1:].replace("*", "[a-z]*"))
    either = "|".join(f"{first}(?:{'|'.join(rest)})" for first, rest in english.items())
    signs = re.escape("".join(sorted(head for head in heads if not head.isascii())))
    return re.compile(
        rf"(?<![a-z])(?=[{''.join(english)}])(?:{either})(?![a-z])|[{signs}]", re.IGNORECASE
    )


@cache
def _lists_by_beginning() -> dict[str, list[str]]:
    """The lists that have an entry with such a beginning; all of them for what is no key."""

    def has(name: str, run: str) -> bool:
        stars = tuple(head[:-1] for head in _heads()[name] if head.endswith("*"))
        return run in _heads()[name] or run.startswith(stars)

    runs = {head for heads in _heads().values() for head in heads if not head.endswith("*")}
    return {run: [name for name in LISTS if has(name, run)] for run in runs}


def occurrences(text: str) -> list[Span]:
    """Where words of LISTS stand, in order, without what only looks like one.

    Words of one list do not overlap; a word of several lists stands once for each. A text
    is searched once for where words may begin, and only there for words of each list.
    """
    patterns, lists = _patterns(), _lists_by_beginning()
    done = dict.fromkeys(LISTS, 0)
    found: list[Span] = []
    for head in _beginnings().finditer(text):
        start = head.start()
        for name in lists.get(head[0].lower(), LISTS):
            match = patterns[name].match(text, start) if done[name] <= start else None
            if match:
                done[name] = match.end()
                if match.lastindex is None:
                    found.append((start, match.end(), name))
    return found


def keywords(text: str) -> list[Span]:
    """Where the scorer sees a word: (start, end, dimension), in order, not overlapping.

    Where words of two dimensions overlap, the earlier and then the longer one counts.
    """
    return without_overlap(occurrences(text))


def without_overlap(found: Iterable[Span]) -> list[Span]:
    """What `keywords` keeps of the `occurrences` in a text."""
    kept: list[Span] = []
    scored = (hit for hit in found if hit[2] in DIMENSIONS)
    for start, end, name in sorted(scored, key=lambda hit: (hit[0], -hit[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end, name))
    return kept


def count_words(text: str) -> float:
    """Words and numbers; `characters_per_word` Chinese characters count as one word."""
    return Reading(text).length


class Reading:
    """A chain as scores and measures see it; each view is made once."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        """Words and numbers; of Chinese, each character."""
        return WORD.findall(self.text)

    @cached_property
    def length(self) -> float:
        """See `count_words`."""
        if self.text.isascii():
            return len(self.words)
        characters = len(CHARACTER.findall(self.text))
        others = len(self.words) - characters
        rate = chain_rules()["characters_per_word"]
        return others + characters / rate if characters else others

    @cached_property
    def occurrences(self) -> list[Span]:
        """See the function of that name."""
        return occurrences(self.text)

    @cached_property
    def rates(self) -> dict[str, float]:
        """Each dimension before it is scaled: words, then keywords per 100 words."""
        if not self.length:
            raise ValueError("an empty chain has no score; drop it before scoring")
        counts = Counter(name for _, _, name in without_overlap(self.occurrences))
        rates = {name: 100 * counts[name] / self.length for name in DIMENSIONS}
        return {**rates, "length": float(self.length)}


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
        return Scale(**chain_rules()["reference"])

    @staticmethod
    def of(texts: Iterable[str]) -> Scale:
        """The scale of a batch: the 95th percentile of what its chains show.

        A dimension that fewer than one chain in twenty shows is measured by the batch's
        largest value, and one that none shows by the default, so that it scores 0.
        """
        return Scale.of_rates([Reading(text).rates for text in texts])

    @staticmethod
    def of_rates(rates: Sequence[Mapping[str, float]]) -> Scale:
        """The same, of chains whose `Reading.rates` are known."""
        if not rates:
            raise ValueError("no chains: a scale needs at least one")
        values = {name: [row[name] for row in rates] for name in DIMENSIONS}
        rules = chain_rules()
        return Scale(
            **{
                name: float(np.quantile(column, rules["quantile"]))
                or float(max(column))
                or float(rules["reference"][name])
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

    @classmethod
    def of_rates(cls, rates: Mapping[str, float], scale: Scale) -> ChainScore:
        """The score of a chain whose `Reading.rates` are known."""
        return cls(**{n: min(1.0, rates[n] / getattr(scale, n)) for n in DIMENSIONS})

    @property
    def total(self) -> float:
        """The weighted sum, between 0 and 1; rounded so that equal chains tie."""
        parts = weights()
        return round(sum(parts[name] * getattr(self, name) for name in DIMENSIONS), 9)


def score(text: str, scale: Scale | None = None) -> ChainScore:
    """The quality of a chain on `scale` (LIMO-sized chains if None); section 3.2 of v3.

    Raises ValueError for a text without words.
    """
    return ChainScore.of_rates(Reading(text).rates, scale or Scale.default())
