"""Near duplicates, found without comparing every pair (chapter 3).

MinHash signatures and locality-sensitive hashing (Broder 1997) propose pairs; the Jaccard
index of each is then computed, so that chance decides what is looked at and never what
falls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
from rensa import RMinHash, RMinHashLSH

from limo_nb.problems.hashing import HashedWords
from limo_nb.problems.text import ngrams, words

SHINGLE = 3  # words; pairs are compared by these
PERMUTATIONS = 128  # numbers of a MinHash signature, at most
RECALL = 0.995  # of pairs at the threshold, by hashing
MOST_MET = 256  # a problem that meets so many is compared with them, and met by no other


# ---------------------------------------------------------------- proposals
def bands(threshold: float) -> int:
    """The fewest LSH bands that find a pair at `threshold` with probability RECALL.

    A band has `PERMUTATIONS // bands` numbers.
    """
    for count in range(1, PERMUTATIONS):
        rows = PERMUTATIONS // count
        if 1 - (1 - threshold**rows) ** count >= RECALL:
            return count
    return PERMUTATIONS


def signatures(rows: Iterable[Sequence[str]], near: float) -> list[RMinHash]:
    """The MinHash signature of each row of words, over its shingles of SHINGLE words.

    A signature has as many numbers as the bands for `near` take. rensa's do not depend on
    the order of a set, so every process makes the same. A row without words is like no
    other: `Shingles.jaccard` says so of all that it meets.
    """
    return RMinHash.from_token_sets([ngrams(row, SHINGLE) for row in rows], _width(near), 0)


def _width(near: float) -> int:
    """Numbers of a signature: the most up to PERMUTATIONS that make equal bands."""
    return PERMUTATIONS // bands(near) * bands(near)


def candidates(signed: Sequence[RMinHash], answers: Sequence[str], near: float) -> np.ndarray:
    """(pairs, 2) int64, (later, earlier) rows that agree in a whole band, in order.

    Rows whose answers are given and differ are no pair: they are different problems. So
    each answer has an index of its own, and where only some rows have one, an index of
    all finds the pairs of a row with and a row without.
    """
    groups: dict[str, list[int]] = {}
    for row, answer in enumerate(answers):
        groups.setdefault(answer, []).append(row)
    found = [_pairs(rows, signed, near) for rows in groups.values() if len(rows) > 1]
    if "" in groups and len(groups) > 1:
        anyone = _pairs(range(len(answers)), signed, near)
        found.append((a, b) for a, b in anyone if bool(answers[a]) != bool(answers[b]))
    pairs = np.fromiter(chain.from_iterable(found), np.dtype((np.int64, 2)))
    return pairs[np.lexsort(pairs.T[::-1])]


def _pairs(
    rows: Sequence[int], signed: Sequence[RMinHash], near: float
) -> Iterator[tuple[int, int]]:
    """The (later, earlier) pairs of `rows` that rensa's LSH index finds."""
    index = RMinHashLSH(near, _width(near), bands(near))
    for row in rows:
        met = index.query(signed[row])
        yield from ((row, earlier) for earlier in met)
        if len(met) < MOST_MET:  # so that no bucket, and no query, grows with the pool
            index.insert(row, signed[row])


# ---------------------------------------------------------------- verdicts
class Shingles:
    """The sets of shingles of some rows, to compare pairs of them."""

    def __init__(self, rows: np.ndarray, questions: Iterable[list[str]]) -> None:
        """`questions` are the texts of `rows` (sorted), in lists of any size."""
        self._place = {int(row): place for place, row in enumerate(rows)}
        self._sets: list[np.ndarray] = []
        for part in questions:
            hashes, starts = HashedWords.of(map(words, part)).ngrams(SHINGLE)
            self._sets += [np.unique(own) for own in np.split(hashes, starts[1:-1])]

    def jaccard(self, one: int, other: int) -> float:
        """The Jaccard index of two rows (of 64-bit hashes of their shingles)."""
        first, second = self._sets[self._place[one]], self._sets[self._place[other]]
        both = len(np.intersect1d(first, second, assume_unique=True))
        union = len(first) + len(second) - both
        return both / union if union else 0.0


def repetitions(
    pairs: np.ndarray, likeness: Callable[[int, int], float], near: float
) -> dict[int, tuple[int, float]]:
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
