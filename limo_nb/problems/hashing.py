"""Words and n-grams as numbers of 64 bits, to be compared by the million (chapter 3).

A word's number is a digest of it. An n-gram's is multilinear in its words: their numbers,
each times an odd number that belongs to its place, added up modulo 2**64 (Lemire and Kaser
2014, "Strongly universal string hashing is fast"). The digests look random, so two
different n-grams have the same number once in about 2**64 pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np

SEED = 13  # of the odd numbers: every process must draw the same


@dataclass(frozen=True)
class HashedWords:
    """The words of many texts as numbers, one text after the other."""

    numbers: np.ndarray  # (words,) uint64
    starts: np.ndarray  # (texts + 1,) int64: where each text begins, then the end

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]]) -> HashedWords:
        """The numbers of `texts`, each of which is a list of words."""
        texts = list(texts)
        starts = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        words = chain.from_iterable(texts)
        numbers = np.fromiter(map(_Digests().__getitem__, words), np.uint64, starts[-1])
        return cls(numbers, starts)

    def ngrams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of all n-grams, where those of each text begin and the end).

        A text of fewer than `n` words is one n-gram as a whole. Its length is hashed too,
        so that it meets no part of a longer text.
        """
        lengths = np.diff(self.starts)
        counts = np.where(lengths < n, np.minimum(lengths, 1), lengths - n + 1)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        first = np.repeat(self.starts[:-1] - starts[:-1], counts) + np.arange(starts[-1])
        sizes = np.repeat(np.minimum(lengths, n), counts).astype(np.uint64)
        hashes = sizes * _of_size(n)
        for size, sums in self._sums(n):
            complete = sizes == size
            hashes[complete] += sums[first[complete]]
        return hashes, starts

    def runs(self, sizes: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(size, the number of the run of so many words from every place) for `sizes`.

        As `ngrams` counts them. A run may reach into the next text; places whose run would
        reach beyond the last are left out. Each array is valid until the next is taken.
        """
        wanted = set(sizes)
        for size, sums in self._sums(max(wanted, default=0)):
            if size in wanted:
                of_size = np.uint64(size * int(_of_size(size)) % 2**64)
                yield size, sums[: len(sums) - size + 1] + of_size

    def _sums(self, longest: int) -> Iterator[tuple[int, np.ndarray]]:
        """(size, sums of so many words from every place) from 1 to `longest`."""
        sums = np.zeros_like(self.numbers)
        for size, number in enumerate(_odd_numbers(longest)[: len(sums)], 1):
            sums[: len(sums) - size + 1] += number * self.numbers[size - 1 :]
            yield size, sums


class _Digests(dict[str, int]):
    """Word → 64 bits; most words come many times."""

    def __missing__(self, word: str) -> int:
        digest = blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
        return self.setdefault(word, int.from_bytes(digest))


def _of_size(n: int) -> np.uint64:
    """What the length of an n-gram is multiplied with, another number for each `n`."""
    return _odd_numbers(n + 1)[-1]


def _odd_numbers(count: int) -> np.ndarray:
    """The first `count`. Odd, since a factor of 2 would lose the highest bit of a word."""
    drawn = np.random.default_rng(SEED).integers(2**64, size=count, dtype=np.uint64)
    return drawn | np.uint64(1)
