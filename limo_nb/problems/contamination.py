"""Texts compared: normal forms, exact copies, near duplicates, shared n-grams (chapter 3).

Everything here works on lists of questions. A pool is read once, in chunks; a question is
reduced to a digest of its normal form, a MinHash signature and one bit, whether it may
repeat a benchmark item. Whatever these propose is then checked on the texts
themselves, so that chance decides what is looked at and never what falls.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np

from limo_nb.problems.text import HAN, WORD, ngrams, normalise

HAN_WORD = re.compile(f"[{HAN}]")


# ---------------------------------------------------------------- n-grams as numbers
class _Numbers(dict):
    """Word → 64 bits, the same in every process; filled on demand."""

    def __missing__(self, word: str) -> int:
        if len(self) > 2**20:  # pools of millions have endless numbers
            self.clear()
        number = self[word] = _digest(word)
        return number


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())


_NUMBERS = _Numbers()
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))


@dataclass(frozen=True)
class Tokens:
    """The words of many texts as numbers, one row after the other."""

    numbers: np.ndarray  # uint64
    starts: np.ndarray  # int64, one more than there are rows

    @classmethod
    def of(cls, rows: Iterable[Sequence[str]]) -> Tokens:
        """The numbers of `rows` of words."""
        flat: list[int] = []
        starts = [0]
        for row in rows:
            flat += map(_NUMBERS.__getitem__, row)
            starts.append(len(flat))
        return cls(np.array(flat, np.uint64), np.array(starts))

    @cached_property
    def _sums(self) -> np.ndarray:
        """Sums of number × base^place before each place: every n-gram is a difference."""
        sums = np.zeros(len(self.numbers) + 1, np.uint64)
        np.cumsum(self.numbers * _powers(_BASE, len(self.numbers)), out=sums[1:])
        return sums

    def grams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(hashes of all n-grams, starts of the rows); a short row is one gram as a whole.

        Hashes of grams of different lengths differ, so a whole question of few words
        meets no part of a longer one.
        """
        lengths = np.diff(self.starts)
        counts = np.where(lengths < n, np.minimum(lengths, 1), lengths - n + 1)
        starts = np.concatenate([[0], np.cumsum(counts)])
        first = np.repeat(self.starts[:-1] - starts[:-1], counts) + np.arange(starts[-1])
        size = np.repeat(np.minimum(lengths, n), counts)
        difference = self._sums[first + size] - self._sums[first]
        shift = _powers(_INVERSE, len(self.numbers) + 1)[first]
        return _mixed(difference * shift + size.astype(np.uint64)), starts


def _powers(base: np.uint64, count: int) -> np.ndarray:
    """1, base, base², … modulo 2**64."""
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, out=powers)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Every bit of a value spread over all bits (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


# ---------------------------------------------------------------- benchmarks
@dataclass(frozen=True)
class Exam:
    """What must not be in a pool, ready to be looked for.

    `ngram` counts words; `characters` is used for an item in Chinese, where a word has no
    spaces around it and one or two characters make it. `threshold` is the least share of
    a question's own n-grams that must be found in one item for it to fall; 0: one n-gram.
    """

    questions: tuple[str, ...]
    ngram: int = 13
    characters: int = 13
    threshold: float = 0.0
    normal: Callable[[str], str] = normalise

    def words(self, text: str) -> list[str]:
        """The words that count, by this exam's normalisation."""
        return WORD.findall(self.normal(text))

    @cached_property
    def _tokens(self) -> list[list[str]]:
        return [self.words(question) for question in self.questions]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The lengths of n-grams in use."""
        return tuple(sorted({self._size(tokens) for tokens in self._tokens}))

    def _size(self, tokens: Sequence[str]) -> int:
        return self.characters if _in_chinese(tokens) else self.ngram

    @cached_property
    def _items(self) -> dict[int, dict[str, list[int]]]:
        """Length → n-gram → the items that have it."""
        found: dict[int, dict[str, list[int]]] = {size: {} for size in self.sizes}
        for item, tokens in enumerate(self._tokens):
            size = self._size(tokens)
            for gram in ngrams(tokens, size):
                found[size].setdefault(gram, []).append(item)
        return found

    @cached_property
    def _wholes(self) -> dict[str, int]:
        """A question's letters without any spaces → the first item that has them."""
        wholes: dict[str, int] = {}
        for item, tokens in enumerate(self._tokens):
            wholes.setdefault("".join(tokens), item)
        wholes.pop("", None)
        return wholes

    def net(self) -> Net:
        """The part of this that a first look needs."""
        hashes = {}
        for size in self.sizes:
            own = Tokens.of(t for t in self._tokens if self._size(t) == size)
            hashes[size] = np.unique(own.grams(size)[0])
        return Net(hashes, frozenset(self._wholes))

    def match(self, question: str) -> Match | None:
        """The item that `question` repeats most, None where it may stay."""
        tokens = self.words(question)
        whole = self._wholes.get("".join(tokens))
        if whole is not None:
            return Match("shares the whole question", whole, 1.0)
        best = None
        for size in self.sizes:
            mine = ngrams(tokens, size)
            hits = Counter(i for gram in mine for i in self._items[size].get(gram, ()))
            for item, count in hits.items():
                share = count / len(mine)
                if best is None or (-share, item) < (-best.overlap, best.item):
                    unit = "characters" if _in_chinese(self._tokens[item]) else "words"
                    best = Match(f"shares {size} {unit}", item, share)
        return best if best and best.overlap >= self.threshold else None


def _in_chinese(tokens: Sequence[str]) -> bool:
    return any(HAN_WORD.match(word) for word in tokens)


@dataclass(frozen=True)
class Match:
    """Why a question falls: the reason, the number of the item, the share of n-grams."""

    reason: str
    item: int
    overlap: float


@dataclass(frozen=True)
class Net:
    """What holds back every question that may repeat an item, and few others."""

    hashes: dict[int, np.ndarray]  # length of n-grams → their hashes, sorted
    wholes: frozenset[str]

    def holds(self, rows: Sequence[Sequence[str]], tokens: Tokens) -> np.ndarray:
        """Whether each row of words shares an n-gram or is an item as a whole (bool)."""
        held = np.array(["".join(row) in self.wholes for row in rows], bool)
        for size, wanted in self.hashes.items():
            grams, starts = tokens.grams(size)
            held[np.repeat(np.arange(len(rows)), np.diff(starts))[_among(grams, wanted)]] = True
        return held


def _among(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether each value is in the sorted array `wanted`."""
    if not len(wanted):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    return wanted[places] == values
