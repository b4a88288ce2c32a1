"""Which problems repeat a benchmark item (chapter 3; LIMO v3, section 3).

The rule is that of n-grams: a problem falls that shares n consecutive words with an item,
or that has all words of an item without such n-grams. What is common property is no
evidence: a phrase that several unlike items have, a short item that says too little.

A pool passes a prefilter of hashes first, which holds back every problem that may fall and
few others; what falls is then decided on the texts, so chance has no part in it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from limo_nb.problems.hashing import HashedWords
from limo_nb.problems.information import information
from limo_nb.problems.text import HAN_WORD, WORD, operators, wording

# Bits that a short item must say to be looked for inside of problems: a million problems of
# 64 words have 2**26 places where it could stand by chance.
LEAST_BITS = 26.0
SIGN = 4.0  # bits of a sign, which has to agree: of some sixteen kinds
COMMON = 2  # unlike items from which a phrase that they have is common property
MANY = 10  # items from which it is, however like each other


@dataclass(frozen=True)
class Match:
    """Why a problem falls: the reason, the number of the item, what they share."""

    reason: str
    item: int
    overlap: float  # the share of the problem's n-grams that the item has
    quoted: float  # the share of the item's n-grams that the problem has
    passage: str  # the longest one that they share, in its normal form

    @property
    def share(self) -> float:
        """The larger of both shares: near 1 for a copy, and for a copy inside a problem."""
        return max(self.overlap, self.quoted)


@dataclass(frozen=True)
class SpannedText:
    """A problem in its normal form, and its words with their places there."""

    normal: str
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, normal: str) -> SpannedText:
        """The text whose normal form is `normal`."""
        return cls(normal, tuple(found.span() for found in WORD.finditer(normal)))

    @cached_property
    def words(self) -> list[str]:
        """The words that count."""
        return [self.normal[start:end] for start, end in self.spans]

    def passage(self, first: int, size: int) -> str:
        """From word number `first` on, `size` words with what stands between them."""
        return self.normal[self.spans[first][0] : self.spans[first + size - 1][1]]


@dataclass(frozen=True)
class Decontaminator:
    """The benchmark items that must not be in a pool, ready to be looked for.

    `ngram` counts words; `characters` is used for an item in Chinese, where a word has no
    spaces around it and one or two characters make it. An n-gram is no evidence if three
    quarters of it are a phrase that `common` or more unlike items have, such as "give your
    answer as a fraction in lowest terms" (0: every n-gram is). `threshold` is the least
    share of n-grams that must agree, of the problem's or of the item's, whichever is larger
    (0: one is enough). `bits` is what an item of fewer words than `ngram` must say to be
    looked for inside of problems; as a whole it always is.
    """

    items: tuple[str, ...]  # their questions
    ngram: int = 13
    characters: int = 13
    threshold: float = 0.0
    normal: Callable[[str], str] = wording
    common: int = COMMON
    bits: float = LEAST_BITS

    def prefilter(self) -> Prefilter:
        """What a first look at a pool needs of this."""
        found: dict[int, list[np.ndarray]] = {}
        for size in self._sizes:
            own = [text.words for text in self._texts if self._size(text) == size]
            own = [words for words in own if len(words) >= size]
            evidence = [
                " ".join(words[place : place + size]) not in self._common
                for words in own
                for place in range(len(words) - size + 1)
            ]
            found.setdefault(size, []).append(HashedWords.of(own).ngrams(size)[0][evidence])
        for words in self._short:
            whole = HashedWords.of([words]).ngrams(len(words))[0]
            found.setdefault(len(words), []).append(whole)
        hashes = {size: np.unique(np.concatenate(parts)) for size, parts in found.items()}
        return Prefilter(hashes, frozenset(self._wholes))

    def match(self, question: str) -> Match | None:
        """The item that `question` repeats most, None where it may stay."""
        text = SpannedText.of(self.normal(question))
        whole = self._whole(text)
        if whole is not None:
            return Match("shares the whole question", whole, 1.0, 1.0, text.normal)
        found = [*self._inside(text), *self._in_part(text)]
        found = [match for match in found if match.share >= self.threshold]
        return max(
            found, key=lambda match: (match.share, match.overlap, -match.item), default=None
        )

    # ------------------------------------------------------------ the three ways to fall
    def _whole(self, text: SpannedText) -> int | None:
        """The first item that has the letters of `text`, and if it is short its signs."""
        for item in self._wholes.get("".join(text.words), ()):
            own = self._texts[item]
            long = len(own.words) >= self._size(own)
            if long or operators(own.normal) == operators(text.normal):
                return item
        return None

    def _inside(self, text: SpannedText) -> Iterator[Match]:
        """The items of `_short` that stand inside `text`, with the same signs."""
        words = text.words
        for size in {len(short) for short in self._short if len(short) <= len(words)}:
            for place in range(len(words) - size + 1):
                for item in self._short.get(tuple(words[place : place + size]), ()):
                    passage = text.passage(place, size)
                    if operators(passage) == operators(self._inner(item)):
                        share = size / len(words)
                        yield Match("holds the whole question", item, share, 1.0, passage)

    def _in_part(self, text: SpannedText) -> Iterator[Match]:
        """The items that share an n-gram with `text` which is not common property."""
        for size in self._sizes:
            grams = _sequence(text.words, size)
            mine = set(grams)
            known = self._ngrams[size]
            hits = Counter(item for gram in mine for item in known.get(gram, ()))
            proven = {
                item for gram in (mine & known.keys()) - self._common for item in known[gram]
            }
            for item in proven:
                own = self._texts[item]
                unit = "characters" if _in_chinese(own.words) else "words"
                first, length = _longest([item in known.get(gram, ()) for gram in grams])
                yield Match(
                    f"shares {size} {unit}", item, hits[item] / len(mine),
                    hits[item] / self._count(item),
                    text.passage(first, length + size - 1),
                )  # fmt: skip

    # ------------------------------------------------------------ what the items are
    @cached_property
    def _texts(self) -> list[SpannedText]:
        return [SpannedText.of(self.normal(item)) for item in self.items]

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        """The lengths of n-grams in use."""
        return tuple(sorted({self._size(text) for text in self._texts}))

    def _size(self, text: SpannedText) -> int:
        return self.characters if _in_chinese(text.words) else self.ngram

    @cached_property
    def _ngrams(self) -> dict[int, dict[str, list[int]]]:
        """Length → n-gram → the items that have it."""
        found: dict[int, dict[str, list[int]]] = {size: {} for size in self._sizes}
        for item, text in enumerate(self._texts):
            size = self._size(text)
            for gram in set(_sequence(text.words, size)):
                found[size].setdefault(gram, []).append(item)
        return found

    def _count(self, item: int) -> int:
        """The number of an item's n-grams."""
        text = self._texts[item]
        return len(set(_sequence(text.words, self._size(text))))

    @cached_property
    def _common(self) -> frozenset[str]:
        """The n-grams that hold a phrase which is common property."""
        return frozenset(
            gram
            for size, grams in self._ngrams.items()
            for phrases in [self._phrases(size)]
            for gram in grams
            if phrases and not phrases.isdisjoint(_sequence(gram.split(" "), _phrase(size)))
        )

    def _phrases(self, size: int) -> set[str]:
        """The phrases that `common` or more unlike items have, of those with this size.

        Items of which more than half stands in others may be versions of one problem, or
        parts of it, and what they share is theirs: they are not counted, unless they are so
        many (MANY) that they share a request which is longer than the rest of them.
        """
        if not self.common:
            return set()
        texts = {"".join(text.words): text for text in self._texts if self._size(text) == size}
        own = [set(_sequence(text.words, _phrase(size))) for text in texts.values()]
        often = Counter(phrase for phrases in own for phrase in phrases)
        unlike = Counter(
            phrase
            for phrases in own
            if 2 * sum(often[phrase] >= self.common for phrase in phrases) <= len(phrases)
            for phrase in phrases
        )
        many = max(MANY, self.common)
        return {p for p, count in often.items() if unlike[p] >= self.common or count >= many}

    @cached_property
    def _wholes(self) -> dict[str, list[int]]:
        """An item's letters without any spaces → the items that have them."""
        wholes: dict[str, list[int]] = {}
        for item, text in enumerate(self._texts):
            wholes.setdefault("".join(text.words), []).append(item)
        wholes.pop("", None)
        return wholes

    @cached_property
    def _short(self) -> dict[tuple[str, ...], list[int]]:
        """The words of the items that no n-gram gives away, if they say enough → these.

        They have fewer words than one, or what else they have is a common phrase.
        """
        short: dict[tuple[str, ...], list[int]] = {}
        for item, text in enumerate(self._texts):
            grams = _sequence(text.words, self._size(text))
            if not text.words or not self._common.issuperset(grams):
                continue
            signs = operators(self._inner(item)).total()
            if information(text.words) + SIGN * signs >= self.bits:
                short.setdefault(tuple(text.words), []).append(item)
        return short

    def _inner(self, item: int) -> str:
        """An item from its first word to its last."""
        text = self._texts[item]
        return text.passage(0, len(text.words))


def _phrase(size: int) -> int:
    """The words of a phrase that makes an n-gram of `size` common: three quarters."""
    return math.ceil(0.75 * size)


def _sequence(words: Sequence[str], size: int) -> list[str]:
    """The n-grams of `words` in order; none where there are fewer words."""
    return [" ".join(words[place : place + size]) for place in range(len(words) - size + 1)]


def _longest(marks: Sequence[bool]) -> tuple[int, int]:
    """(place, length) of the first of the longest runs of True in `marks`."""
    best, start = (0, 0), 0
    for place, mark in enumerate(marks):
        if not mark:
            start = place + 1
        elif place + 1 - start > best[1]:
            best = (start, place + 1 - start)
    return best


def _in_chinese(words: Sequence[str]) -> bool:
    return any(HAN_WORD.match(word) for word in words)


@dataclass(frozen=True)
class Prefilter:
    """What holds back every problem that may repeat an item, and few others.

    It is small, so that worker processes can be handed one.
    """

    hashes: dict[int, np.ndarray]  # length → the hashes of so many words in a row, sorted
    wholes: frozenset[str]

    def suspects(self, rows: Sequence[Sequence[str]]) -> np.ndarray:
        """Whether each row of words shares a passage or is an item as a whole (bool)."""
        found = np.array(["".join(row) in self.wholes for row in rows], bool)
        hashed = HashedWords.of(rows)
        for size, runs in hashed.runs(self.hashes):
            places = np.flatnonzero(_among(runs, self.hashes[size]))
            owners = np.searchsorted(hashed.starts, places, "right") - 1
            found[owners[places + size <= hashed.starts[owners + 1]]] = True
        return found


def _among(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether each value is in the sorted array `wanted`; `np.isin` would sort the values."""
    if not len(wanted):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)
    return wanted[places] == values
