"""Texts compared: normal forms, exact copies, near duplicates, shared n-grams (chapter 3).

Everything here works on lists of questions. A pool is read once, in chunks; a question is
reduced to a digest of its normal form, a MinHash signature and one bit, whether it may
repeat a benchmark item. Whatever these propose is then checked on the texts
themselves, so that chance decides what is looked at and never what falls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
from joblib import Parallel, cpu_count, delayed
from rensa import RMinHash, RMinHashLSH

from limo_nb.core.progress import progress
from limo_nb.problems.contamination import Exam, Net, Tokens
from limo_nb.problems.text import WORD, ngrams, normalise, words

SHINGLE = 3  # words; pairs are compared by these
PERMUTATIONS = 128  # numbers of a MinHash signature, at most
CROWD = 256  # a problem that meets so many is compared with them, and met by no other
MANY = 50_000  # questions from which a second process is worth its start


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
