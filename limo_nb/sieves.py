"""Texts compared: normal forms, exact copies, near duplicates, shared n-grams (chapter 3).

Everything here works on lists of questions. A pool is read once, in chunks; a question is
reduced to a digest of its normal form, a MinHash signature and one bit, whether it may
repeat a benchmark item. Whatever these propose is then checked on the texts
themselves, so that chance decides what is looked at and never what falls.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import chain

import numpy as np
from joblib import Parallel, cpu_count, delayed
from rensa import RMinHash, RMinHashLSH

from limo_nb.profiles import Normalisation
from limo_nb.progress import progress

SHINGLE = 3  # words; pairs are compared by these
PERMUTATIONS = 128  # numbers of a MinHash signature, at most
CROWD = 256  # a problem that meets so many is compared with them, and met by no other
CHUNK = 8192  # questions read at once
MANY = 50_000  # questions from which a second process is worth its start

# ---------------------------------------------------------------- texts
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
HAN_WORD = re.compile(f"[{HAN}]")
WORD = re.compile(rf"[{HAN}]|\d+|[^\W\d_{HAN}]+")


def normalise(text: str) -> str:
    """`text` without what does not change a problem.

    Case, white space, Unicode form, invisible characters, `$`, LaTeX spacing and size
    commands go; `\\dfrac`, `\\tfrac` and `\\frac12` become `\\frac{1}{2}`.
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


# ---------------------------------------------------------------- one pass over a pool
@dataclass(frozen=True)
class Marks:
    """What is kept of each question after one pass."""

    exact: list[bytes]  # digests of the normal forms, empty where not wanted
    signatures: list[RMinHash]  # for near duplicates, empty where not wanted
    suspects: np.ndarray  # (questions,) bool: may repeat a benchmark item


def mark(
    questions: Iterable[list[str]],
    total: int,
    near: float | None = None,
    exam: Exam | None = None,
    workers: int | None = None,
) -> Marks:
    """The marks of all `questions`, which come in lists of any size, `total` in all.

    Digests and signatures are made where `near`, the threshold of near duplicates, is given;
    suspects where there is an `exam`. From MANY questions on the work is shared by
    `workers` processes (None: one a core, four at most), which come from joblib's loky:
    it needs no guard in a script and no file behind a notebook.
    """
    net = exam.net() if exam else None
    normal = exam.normal if exam else normalise
    if workers is None:
        workers = min(4, cpu_count()) if total >= MANY else 1
    shown = progress(total, "problems", "comparing texts") if total >= MANY else nullcontext()
    parts = []
    with shown as bar:
        for part in _mapped(questions, (near, net, normal), workers):
            parts.append(part)
            if bar is not None:
                bar.update(len(part.suspects))
    return Marks(
        [digest for part in parts for digest in part.exact],
        [signature for part in parts for signature in part.signatures],
        np.concatenate([np.zeros(0, bool)] + [part.suspects for part in parts]),
    )


def _mapped(questions: Iterable[list[str]], arguments: tuple, workers: int) -> Iterator[Marks]:
    if workers == 1:
        for part in questions:
            yield mark_part(part, *arguments)
        return
    pool = Parallel(workers, return_as="generator", pre_dispatch="2*n_jobs", batch_size=1)
    yield from pool(delayed(mark_part)(part, *arguments) for part in questions)


def mark_part(
    questions: list[str],
    near: float | None,
    net: Net | None,
    normal: Callable[[str], str] = normalise,
) -> Marks:
    """The marks of one list of questions."""
    texts = [normal(question) for question in questions]
    rows = [WORD.findall(text) for text in texts]
    suspects = net.holds(rows, Tokens.of(rows)) if net else np.zeros(len(texts), bool)
    if near is None:
        return Marks([], [], suspects)
    if normal is not normalise:  # what a duplicate is does not depend on the exam
        texts = [normalise(question) for question in questions]
        rows = [WORD.findall(text) for text in texts]
    exact = [
        blake2b(text.encode("utf-8", "replace"), digest_size=16).digest() for text in texts
    ]
    return Marks(exact, sketches(rows, near), suspects)


# ---------------------------------------------------------------- near duplicates
def bands(threshold: float) -> int:
    """The fewest LSH bands that find a pair at `threshold` with probability 0.995.

    A band has `PERMUTATIONS // bands` numbers.
    """
    for count in range(1, PERMUTATIONS):
        rows = PERMUTATIONS // count
        if 1 - (1 - threshold**rows) ** count >= 0.995:
            return count
    return PERMUTATIONS


def sketches(rows: Iterable[Sequence[str]], near: float) -> list[RMinHash]:
    """The MinHash signature of each row of words, over its shingles of SHINGLE words.

    A signature has as many numbers as the bands for `near` take. rensa's do not depend on
    the order of a set, so every process makes the same. A row without words is like no
    other: `Shingles.jaccard` says so of all that it meets.
    """
    return RMinHash.from_token_sets([ngrams(row, SHINGLE) for row in rows], _width(near), 0)


def _width(near: float) -> int:
    """Numbers of a signature: the most up to PERMUTATIONS that make equal bands."""
    return PERMUTATIONS // bands(near) * bands(near)


def candidates(
    signatures: Sequence[RMinHash], answers: Sequence[str], near: float
) -> np.ndarray:
    """(pairs, 2) int64, (later, earlier) rows that agree in a whole band, in order.

    Rows whose answers are given and differ are no pair: they are different problems. So
    each answer has an index of its own, and where only some rows have one, an index of
    all finds the pairs of a row with and a row without.
    """
    groups: dict[str, list[int]] = {}
    for row, answer in enumerate(answers):
        groups.setdefault(answer, []).append(row)
    found = [_pairs(rows, signatures, near) for rows in groups.values() if len(rows) > 1]
    if "" in groups and len(groups) > 1:
        anyone = _pairs(range(len(answers)), signatures, near)
        found.append((a, b) for a, b in anyone if bool(answers[a]) != bool(answers[b]))
    pairs = np.fromiter(chain.from_iterable(found), np.dtype((np.int64, 2)))
    return pairs[np.lexsort(pairs.T[::-1])]


def _pairs(
    rows: Sequence[int], signatures: Sequence[RMinHash], near: float
) -> Iterator[tuple[int, int]]:
    """The (later, earlier) pairs of `rows` that rensa's LSH index finds."""
    index = RMinHashLSH(near, _width(near), bands(near))
    for row in rows:
        met = index.query(signatures[row])
        yield from ((row, earlier) for earlier in met)
        if len(met) < CROWD:  # so that no bucket, and no query, grows with the pool
            index.insert(row, signatures[row])


class Shingles:
    """The sets of shingles of some rows, to compare pairs of them."""

    def __init__(self, rows: np.ndarray, questions: Iterable[list[str]]):
        """`questions` are the texts of `rows` (sorted), in lists of any size."""
        self._place = {int(row): place for place, row in enumerate(rows)}
        self._sets: list[np.ndarray] = []
        for part in questions:
            hashes, starts = Tokens.of(map(words, part)).grams(SHINGLE)
            self._sets += [np.unique(own) for own in np.split(hashes, starts[1:-1])]

    def jaccard(self, one: int, other: int) -> float:
        """The Jaccard index of two rows (of 64-bit hashes of their shingles)."""
        first, second = self._sets[self._place[one]], self._sets[self._place[other]]
        both = len(np.intersect1d(first, second, assume_unique=True))
        union = len(first) + len(second) - both
        return both / union if union else 0.0


def repeated(pairs: np.ndarray, likeness: Callable[[int, int], float], near: float) -> dict:
    """Row → (the earlier row that it repeats, their likeness), for the rows that fall.

    `pairs` (later, earlier) are in order; what has fallen is no reason for another fall,
    so every counterpart stays.
    """
    gone: dict[int, tuple[int, float]] = {}
    for later, earlier in pairs.tolist():
        if later in gone or earlier in gone:
            continue
        overlap = likeness(later, earlier)
        if overlap >= near:
            gone[later] = (earlier, overlap)
    return gone
