"""Which problems repeat a benchmark item (chapter 3; LIMO v3, section 3).

The rule is that of n-grams: a problem falls that shares n consecutive words with an item.
A pool passes a prefilter of hashes first, which holds back every problem that may fall and
few others; what falls is then decided on the texts, so chance has no part in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from limo_nb.problems.hashing import HashedWords
from limo_nb.problems.text import HAN, WORD, ngrams, normalise

HAN_WORD = re.compile(f"[{HAN}]")


@dataclass(frozen=True)
class Match:
    """Why a problem falls: the reason, the number of the item, the share of n-grams."""

    reason: str
    item: int
    overlap: float


@dataclass(frozen=True)
class Decontaminator:
    """The benchmark items that must not be in a pool, ready to be looked for.

    `ngram` counts words; `characters` is used for an item in Chinese, where a word has no
    spaces around it and one or two characters make it. `threshold` is the least share of
    a problem's own n-grams that must be found in one item for it to fall; 0: one n-gram.
    """

    items: tuple[str, ...]  # their questions
    ngram: int = 13
    characters: int = 13
    threshold: float = 0.0
    normal: Callable[[str], str] = normalise

    def words(self, text: str) -> list[str]:
        """The words that count, in this normal form."""
        return WORD.findall(self.normal(text))

    def prefilter(self) -> Prefilter:
        """What a first look at a pool needs of this."""
        hashes = {}
        for size in self.sizes:
            own = HashedWords.of(t for t in self._words if self._size(t) == size)
            hashes[size] = np.unique(own.ngrams(size)[0])
        return Prefilter(hashes, frozenset(self._wholes))

    def match(self, question: str) -> Match | None:
        """The item that `question` repeats most, None where it may stay."""
        words = self.words(question)
        whole = self._wholes.get("".join(words))
        if whole is not None:
            return Match("shares the whole question", whole, 1.0)
        best = None
        for size in self.sizes:
            mine = ngrams(words, size)
            hits = Counter(i for gram in mine for i in self._ngrams[size].get(gram, ()))
            for item, count in hits.items():
                share = count / len(mine)
                if best is None or (-share, item) < (-best.overlap, best.item):
                    unit = "characters" if _in_chinese(self._words[item]) else "words"
                    best = Match(f"shares {size} {unit}", item, share)
        return best if best and best.overlap >= self.threshold else None

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The lengths of n-grams in use."""
        return tuple(sorted({self._size(words) for words in self._words}))

    @cached_property
    def _words(self) -> list[list[str]]:
        return [self.words(item) for item in self.items]

    def _size(self, words: Sequence[str]) -> int:
        return self.characters if _in_chinese(words) else self.ngram

    @cached_property
    def _ngrams(self) -> dict[int, dict[str, list[int]]]:
        """Length → n-gram → the items that have it."""
        found: dict[int, dict[str, list[int]]] = {size: {} for size in self.sizes}
        for item, words in enumerate(self._words):
            size = self._size(words)
            for gram in ngrams(words, size):
                found[size].setdefault(gram, []).append(item)
        return found

    @cached_property
    def _wholes(self) -> dict[str, int]:
        """An item's letters without any spaces → the first item that has them."""
        wholes: dict[str, int] = {}
        for item, words in enumerate(self._words):
            wholes.setdefault("".join(words), item)
        wholes.pop("", None)
        return wholes


def _in_chinese(words: Sequence[str]) -> bool:
    return any(HAN_WORD.match(word) for word in words)


@dataclass(frozen=True)
class Prefilter:
    """What holds back every problem that may repeat an item, and few others.

    It is small, so that worker processes can be handed one.
    """

    hashes: dict[int, np.ndarray]  # length of n-grams → their hashes, sorted
    wholes: frozenset[str]

    def suspects(self, rows: Sequence[Sequence[str]]) -> np.ndarray:
        """Whether each row of words shares an n-gram or is an item as a whole (bool)."""
        found = np.array(["".join(row) in self.wholes for row in rows], bool)
        hashed = HashedWords.of(rows)
        for size, wanted in self.hashes.items():
            hashes, starts = hashed.ngrams(size)
            owner = np.repeat(np.arange(len(rows)), np.diff(starts))
            found[owner[_among(hashes, wanted)]] = True
        return found


def _among(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether each value is in the sorted array `wanted`; `np.isin` would sort the values."""
    if not len(wanted):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    return wanted[places] == values
