"""Filters of the problem pool: what must not be in it (chapter 3; LIMO v3, section 3).

Nothing leaves the pool silently: each filter returns what it kept and, for what it
dropped, why and because of which counterpart. Of equal problems the first stays.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from datasets import Dataset, concatenate_datasets

from limo_nb.core.settings import PoolSettings
from limo_nb.problems.contamination import COMMON, Decontaminator
from limo_nb.problems.duplicates import Shingles, candidates, repetitions
from limo_nb.problems.fingerprints import Fingerprints, fingerprint
from limo_nb.problems.schema import DROPPED, Drop
from limo_nb.problems.text import FORMS, normalise, wording


class Cause(NamedTuple):
    """Why a row falls, as the columns of `Drop` say it."""

    reason: str
    counterpart: str = ""
    overlap: float = 0.0
    quoted: float = 0.0
    passage: str = ""


Drops = Mapping[int, Cause]  # row → why it falls
CHUNK = 8192  # questions read at once


# ---------------------------------------------------------------- what a filter returns
@dataclass(frozen=True)
class Filtered:
    """A table of `Problem` rows after a filter: what stayed, and what fell and why."""

    kept: Dataset
    dropped: Dataset  # rows of `Drop`

    @classmethod
    def without(cls, pool: Dataset, *stages: Drops) -> Filtered:
        """`pool` without the rows of `stages`, which are reported one after the other."""
        drops = [(row, stage[row]) for stage in stages for row in sorted(stage)]
        rows = [row for row, _ in drops]
        gone = np.zeros(len(pool), bool)
        gone[rows] = True
        columns = {"id": _column(pool.select(rows), "id")}
        for name in Cause._fields:
            columns[name] = [getattr(cause, name) for _, cause in drops]
        dropped = Dataset.from_dict(columns, features=DROPPED)
        return cls(pool.select(np.flatnonzero(~gone)), dropped)

    def then(self, next_filter: Callable[[Dataset], Filtered]) -> Filtered:
        """The result of this filter and then another; the drops of both."""
        after = next_filter(self.kept)
        return Filtered(after.kept, concatenate_datasets([self.dropped, after.dropped]))

    def doubtful_first(self) -> list[Drop]:
        """What fell, in the order in which to look at it: the smallest shares first.

        By the larger of both sides' shares, then by the smaller: a copy is near 1, and so
        is a copy inside a longer problem; a common turn of speech is small on both sides.
        """
        return sorted(
            self.dropped.to_list(),
            key=lambda row: sorted((row["overlap"], row["quoted"]), reverse=True),
        )

    def reasons(self) -> dict[str, int]:
        """How many fell for which reason, most frequent first."""
        return dict(Counter(self.dropped["reason"]).most_common())

    def left(self) -> list[tuple[str, int]]:
        """How many problems are left after each reason, in the order of appearance."""
        steps = [("all problems", len(self.kept) + len(self.dropped))]
        for reason, count in Counter(self.dropped["reason"]).items():
            steps.append((f"without “{reason}”", steps[-1][1] - count))
        return steps

    def table(self, pool: Dataset, column: str = "subject") -> pd.DataFrame:
        """What fell of `pool`: values of `column` against reasons, with the share lost."""
        value = dict(zip(pool["id"][:], pool[column][:], strict=True))
        fallen = [value[name] for name in self.dropped["id"]]
        counts = pd.crosstab(fallen, list(self.dropped["reason"]))
        total = pd.Series(pool[column][:]).value_counts().sort_index()
        counts = counts.reindex(total.index, fill_value=0)
        counts["lost (%)"] = (100 * counts.sum(axis=1) / total).round(1)
        counts["problems"] = total
        return counts.rename_axis(column).rename_axis("reason", axis=1)

    def crossed(self, reason: str, labels: Mapping[str, str]) -> pd.DataFrame:
        """Of what fell for reasons that match `reason`: its label against its counterpart's.

        `reason` is a regular expression; `labels` says for every id where it is from.
        """
        fell = [row for row in self.dropped if re.search(reason, row["reason"])]
        table = pd.crosstab(
            [labels[row["id"]] for row in fell],
            [labels[row["counterpart"]] for row in fell],
        )
        return table.rename_axis("dropped from").rename_axis("counterpart in", axis=1)


# ---------------------------------------------------------------- filters
def drop_unanswered(pool: Dataset) -> Filtered:
    """Without the problems that have no reference answer: they cannot be graded."""
    drops = {
        index: Cause("no answer")
        for index, answer in enumerate(_column(pool, "answer"))
        if not answer.strip()
    }
    return Filtered.without(pool, drops)


def drop_duplicates(pool: Dataset, near: float = 0.9) -> Filtered:
    """Without repetitions: of equal or nearly equal problems the first stays.

    Equal: the same normalised text. Nearly equal: word 3-shingles with a Jaccard index of
    `near` or more, found by MinHash-LSH and then computed, *and* the same answer – one
    changed number leaves most shingles as they were and makes another problem.
    """
    found = fingerprint(_chunks(pool), len(pool), near=near)
    return Filtered.without(pool, _duplicates(pool, found, near))


def decontaminate(
    pool: Dataset,
    benchmark_rows: Dataset,
    ngram: int = 13,
    characters: int = 13,
    threshold: float = 0.0,
    normal: Callable[[str], str] = wording,
    common: int = COMMON,
) -> Filtered:
    """Without the problems that share `ngram` consecutive words with a benchmark item.

    For an item in Chinese it is `characters` consecutive characters. A problem that is an
    item as a whole falls whatever its length, even where all spaces differ. An item of
    fewer words than that is looked for inside of problems too, with the same signs, unless
    it says too little (`contamination.LEAST_BITS`). An n-gram of which three quarters are a
    phrase that `common` or more unlike items have, such as a request for the form of the
    answer, is no evidence (0: every one is). `threshold` is the least share that must
    agree, of the problem's n-grams or of the item's, whichever is larger (0: one n-gram is
    enough), `normal` the form in which texts are compared (`text.FORMS`). LIMO does not say
    which n it took: s1 and open-r1 use 8 words, GPT-3 used 13. `overlap` and `quoted`, the
    shares of both sides, tell a copy from a chance match; `passage` is what they share.
    """
    items = tuple(_column(benchmark_rows, "question"))
    decontaminator = Decontaminator(items, ngram, characters, threshold, normal, common)
    found = fingerprint(_chunks(pool), len(pool), decontaminator=decontaminator)
    suspects, names = np.flatnonzero(found.suspects).tolist(), _column(benchmark_rows, "id")
    return Filtered.without(pool, _contaminated(pool, suspects, decontaminator, names))


def clean_pool(pool: Dataset, benchmark_rows: Dataset, settings: PoolSettings) -> Filtered:
    """All filters in order: answers, duplicates, contamination; the texts are read once."""
    decontaminator = Decontaminator(
        tuple(_column(benchmark_rows, "question")), settings.ngram, settings.characters,
        settings.threshold, FORMS[settings.normalisation], settings.common,
    )  # fmt: skip
    answered = drop_unanswered(pool)
    names, near = _column(benchmark_rows, "id"), settings.near_duplicate
    return answered.then(lambda left: _in_one_pass(left, decontaminator, names, near))


def _in_one_pass(
    pool: Dataset, decontaminator: Decontaminator, names: list[str], near: float
) -> Filtered:
    """`drop_duplicates` and then `decontaminate`."""
    found = fingerprint(_chunks(pool), len(pool), near, decontaminator)
    twice = _duplicates(pool, found, near)
    suspects = [row for row in np.flatnonzero(found.suspects).tolist() if row not in twice]
    return Filtered.without(pool, twice, _contaminated(pool, suspects, decontaminator, names))


def _duplicates(pool: Dataset, found: Fingerprints, near: float) -> Drops:
    """The exact duplicates, and the near ones among what these leave."""
    first: dict[bytes, int] = {}
    fallen: dict[int, tuple[str, int, float]] = {}
    for row, text in enumerate(found.exact):
        original = first.setdefault(text, row)
        if original != row:
            fallen[row] = ("exact duplicate", original, 1.0)
    left = np.array(list(first.values()), np.int64)
    answers = [normalise(answer) for answer in _column(pool.select(left), "answer")]
    pairs = left[candidates([found.signatures[row] for row in left], answers, near)]
    texts = np.unique(pairs)
    shingles = Shingles(texts, _chunks(pool.select(texts)))
    for row, (earlier, overlap) in repetitions(pairs, shingles.jaccard, near).items():
        fallen[row] = ("near duplicate", earlier, overlap)
    names = _column(pool.select([earlier for _, earlier, _ in fallen.values()]), "id")
    return {
        row: Cause(reason, name, overlap, overlap)
        for (row, (reason, _, overlap)), name in zip(fallen.items(), names, strict=True)
    }


def _contaminated(
    pool: Dataset, suspects: list[int], decontaminator: Decontaminator, names: list[str]
) -> Drops:
    """What repeats an item among the rows `suspects`; `names` are the items' ids."""
    found = {}
    for row, question in zip(suspects, _column(pool.select(suspects), "question"), strict=True):
        match = decontaminator.match(question)
        if match:
            found[row] = Cause(
                match.reason, names[match.item], match.overlap, match.quoted, match.passage
            )
    return found


def _chunks(pool: Dataset) -> Iterator[list[str]]:
    """The questions of `pool`, CHUNK at a time."""
    for batch in pool.select_columns(["question"]).iter(CHUNK):
        yield batch["question"]


def _column(pool: Dataset, name: str) -> list[Any]:
    """One column as a list; iterating over it would fetch row by row."""
    return pool[name][:]
