"""The problem pool: without what must not be in it (chapter 3; paper, section 3).

A problem is a row of `COLUMNS`, whatever its source called them (`limo_nb.problems.sources`).
Nothing leaves the pool silently: each sieve returns what it kept and, for what it dropped,
why and because of which counterpart. How texts are compared is in `limo_nb.problems`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, Features, Value, concatenate_datasets

from limo_nb.core.settings import PoolSettings
from limo_nb.problems.contamination import Exam
from limo_nb.problems.duplicates import (
    Marks,
    Shingles,
    candidates,
    mark,
    repeated,
)
from limo_nb.problems.text import (
    CHUNK,
    FORMS,
    normalise,
)

DROPPED = Features(
    {
        "id": Value("string"),
        "reason": Value("string"),
        "counterpart": Value("string"),  # the id of what it repeats, "" if nothing
        "overlap": Value("float64"),  # Jaccard, or the share of its n-grams found
    }
)
Drops = Mapping[int, tuple[str, str, float]]  # row → reason, counterpart, overlap
# What the chapters on real data say where there is none.
WITHOUT_DATA = """\
LIMO_NB_DATA is not set, so this section has nothing to show. It wants a folder with
  pool/aime_train.json, pool/math_train.json  (agentica-project/rllm on GitHub)
  pool/gsm8k_train.jsonl                      (openai/grade-school-math)
  pool/gsm8k_model_solutions.jsonl            (its example_model_solutions.jsonl)
  benchmarks/*.jsonl                          (GAIR-NLP/LIMO, eval/data)"""


@dataclass(frozen=True)
class Sieved:
    """A pool after a sieve: what stayed, and what fell with its reason."""

    kept: Dataset
    dropped: Dataset  # columns of DROPPED

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

    def then(self, sieve: Callable[[Dataset], Sieved]) -> Sieved:
        """This sieve followed by another; the drops of both."""
        after = sieve(self.kept)
        return Sieved(after.kept, concatenate_datasets([self.dropped, after.dropped]))


def nothing() -> Dataset:
    """A report of no drops."""
    return Dataset.from_dict({name: [] for name in DROPPED}, features=DROPPED)


# ---------------------------------------------------------------- sieves
def drop_unanswered(pool: Dataset) -> Sieved:
    """Without the problems that have no reference answer: they cannot be graded."""
    drops = {
        index: ("no answer", "", 0.0)
        for index, answer in enumerate(_column(pool, "answer"))
        if not answer.strip()
    }
    return _sieved(pool, drops)


def drop_duplicates(pool: Dataset, near: float = 0.9) -> Sieved:
    """Without repetitions: of equal or nearly equal problems the first stays.

    Equal: the same normalised text. Nearly equal: word 3-shingles with a Jaccard index of
    `near` or more, found by MinHash-LSH and then computed, *and* the same answer – one
    changed number leaves most shingles as they were and makes another problem.
    """
    marks = mark(_chunks(pool), len(pool), near=near)
    return _sieved(pool, _duplicates(pool, marks, near))


def decontaminate(
    pool: Dataset,
    benchmark_rows: Dataset,
    ngram: int = 13,
    characters: int = 13,
    threshold: float = 0.0,
    normal: Callable[[str], str] = normalise,
) -> Sieved:
    """Without the problems that share `ngram` consecutive words with a benchmark item.

    For an item in Chinese it is `characters` consecutive characters. A problem that is an
    item as a whole falls whatever its length, even where all spaces differ; an item of
    fewer words than that matches as a whole only. `threshold` is the least share of a
    problem's n-grams that one item must have (0: one n-gram is enough), `normal` the form
    in which texts are compared (sieves.FORMS). The papers do not say which n they took: s1
    uses 13 words, open-r1 8. A common phrase of that length (AIME's "where m and n are
    relatively prime …") drops clean problems as well; `overlap`, the share found in the
    counterpart, tells them apart.
    """
    exam = Exam(
        tuple(_column(benchmark_rows, "question")), ngram, characters, threshold, normal
    )
    marks = mark(_chunks(pool), len(pool), exam=exam)
    suspects = np.flatnonzero(marks.suspects)
    return _sieved(pool, _contaminated(pool, suspects, exam, _column(benchmark_rows, "id")))


def sieve(pool: Dataset, benchmark_rows: Dataset, settings: PoolSettings) -> Sieved:
    """All sieves in order: answers, duplicates, contamination; the texts are read once."""
    exam = Exam(
        tuple(_column(benchmark_rows, "question")), settings.ngram, settings.characters,
        settings.threshold, FORMS[settings.normalisation],
    )  # fmt: skip
    return drop_unanswered(pool).then(
        lambda left: _compared(
            left, exam, _column(benchmark_rows, "id"), settings.near_duplicate
        )
    )


def _compared(pool: Dataset, exam: Exam, names: list[str], near: float) -> Sieved:
    """`drop_duplicates` and then `decontaminate`, from one pass over the texts."""
    marks = mark(_chunks(pool), len(pool), near, exam)
    twice = _duplicates(pool, marks, near)
    suspects = [row for row in np.flatnonzero(marks.suspects).tolist() if row not in twice]
    return _sieved(pool, twice, _contaminated(pool, suspects, exam, names))


def _duplicates(pool: Dataset, marks: Marks, near: float) -> Drops:
    """The exact duplicates, and the near ones among what these leave."""
    first: dict[bytes, int] = {}
    fallen: dict[int, tuple[str, int, float]] = {}
    for row, text in enumerate(marks.exact):
        original = first.setdefault(text, row)
        if original != row:
            fallen[row] = ("exact duplicate", original, 1.0)
    left = np.array(list(first.values()), np.int64)
    answers = [normalise(answer) for answer in _column(pool.select(left), "answer")]
    pairs = left[candidates([marks.signatures[row] for row in left], answers, near)]
    texts = np.unique(pairs)
    shingles = Shingles(texts, _chunks(pool.select(texts)))
    for row, (earlier, overlap) in repeated(pairs, shingles.jaccard, near).items():
        fallen[row] = ("near duplicate", earlier, overlap)
    names = _column(pool.select([earlier for _, earlier, _ in fallen.values()]), "id")
    return {
        row: (reason, name, overlap)
        for (row, (reason, _, overlap)), name in zip(fallen.items(), names, strict=True)
    }


def _contaminated(pool: Dataset, suspects: Any, exam: Exam, names: list[str]) -> Drops:
    """What `exam` finds among the rows `suspects`."""
    found = {}
    for row, question in zip(suspects, _column(pool.select(suspects), "question"), strict=True):
        match = exam.match(question)
        if match:
            found[int(row)] = (match.reason, names[match.item], match.overlap)
    return found


def _chunks(pool: Dataset) -> Iterator[list[str]]:
    """The questions of `pool`, CHUNK at a time."""
    for batch in pool.select_columns(["question"]).iter(CHUNK):
        yield batch["question"]


def _column(pool: Dataset, name: str) -> list[Any]:
    """One column as a list; iterating over it would fetch row by row."""
    return pool[name][:]


def _sieved(pool: Dataset, *stages: Drops) -> Sieved:
    """`pool` without the rows of `stages`, which are reported one after the other."""
    drops = [(row, *stage[row]) for stage in stages for row in sorted(stage)]
    gone = np.zeros(len(pool), bool)
    gone[[row for row, *_ in drops]] = True
    columns = {
        "id": _column(pool.select([row for row, *_ in drops]), "id"),
        "reason": [reason for _, reason, _, _ in drops],
        "counterpart": [name for _, _, name, _ in drops],
        "overlap": [overlap for *_, overlap in drops],
    }
    return Sieved(
        pool.select(np.flatnonzero(~gone)), Dataset.from_dict(columns, features=DROPPED)
    )
