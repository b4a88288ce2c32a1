"""The tables that an evaluation passes on, column by column (chapter 8).

`RESULTS` is the table on disk; the others are lists of rows, in memory and as JSON.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NotRequired, TypedDict

from datasets import Dataset, Features, Value


class GradedResponse(TypedDict):
    """A row of `RESULTS`: one answer of a model to one item, and the verdict on it."""

    benchmark: str
    in_domain: bool
    level: int
    id: str  # of the item, within its benchmark
    sample: int  # 0, 1, … of this item
    correct: bool | None  # None: could not be verified
    answer: str | None  # what the grader compared
    reason: str  # of the verdict; "truncated" where the answer was cut off
    text: str
    tokens: int  # new ones, without the end token
    finished: bool  # not cut off


RESULTS = Features(
    {
        "benchmark": Value("string"),
        "in_domain": Value("bool"),
        "level": Value("int64"),
        "id": Value("string"),
        "sample": Value("int64"),
        "correct": Value("bool"),
        "answer": Value("string"),
        "reason": Value("string"),
        "text": Value("string"),
        "tokens": Value("int64"),
        "finished": Value("bool"),
    }
)


class Counts(TypedDict):
    """What an estimate rests on; answers are those of all seeds."""

    items: int
    samples: int  # the most of one item and seed
    seeds: int
    right: int  # answers
    wrong: int  # answers, those that were cut off among them
    unverifiable: int  # answers
    truncated: int  # answers
    varies: str  # what the interval accounts for: "items", "items, samples, seeds", …


class AccuracyRow(Counts):
    """A model's accuracy in a group of benchmarks; fractions with a 95 % interval."""

    model: str
    group: str  # a benchmark, "in domain", "out of domain" or "all"
    accuracy: float
    low: float
    high: float
    truncation: float  # the share of answers that were cut off
    limit_wanted: int | None  # where it is large: tokens that would do; see `truncation`


class DifferenceRow(Counts):
    """The accuracy of `model` less that of `against` on the same items; fractions."""

    model: str
    against: str
    group: str
    value: float
    low: float
    high: float


class ComparisonRow(DifferenceRow):
    """A difference with what else pairs of items tell; see `comparisons.comparison`."""

    better: int  # items on which `model` scores higher
    worse: int
    p: float
    detectable: float | None
    accuracies: tuple[float, float]  # of `model` and `against`
    truncations: tuple[float, float]  # the shares of `model` and `against`, cut off


class Bounds(TypedDict):
    """An estimate without what it rests on."""

    value: float
    low: float
    high: float


class ScoreRow(Counts):
    """A row of a scored model's `table.json`; see `scoring.tabulated`."""

    group: str
    protocol: str
    graded_by: str
    accuracy: float
    low: float
    high: float
    truncation: float  # the share of answers that were cut off
    limit_wanted: int | None  # where it is large: tokens that would do; see `truncation`
    separates: float | None
    k: NotRequired[int]  # samples of each item, where all have the same number above 1
    pass_at_k: NotRequired[Bounds]
    cons_at_k: NotRequired[Bounds]
    disagreements: NotRequired[int]  # answers on which judge and rules do not agree
    disagreement_files: NotRequired[list[str]]


def save_results(results: Dataset, file: Path) -> None:
    """Write a table to a Parquet file, whole or not at all, whoever else is writing it."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    results.to_parquet(str(partial))
    partial.replace(file)
