"""What the same completions would have said otherwise (chapters 7 and 11).

Under a smaller token limit, with votes, with fewer samples, by another estimator or another
grader: all from the tables of one run (`evaluation.RESULTS`), with nothing sampled again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from datasets import Dataset

from limo_nb.core.records import load_table
from limo_nb.core.runs import Artifact
from limo_nb.evaluation import majority_vote
from limo_nb.grading import clean, final_answer, grade_many


def pooled_tables(stage: Artifact, pattern: str = "*.parquet") -> dict[str, Dataset]:
    """The tables of a stage by name, with the items of all benchmarks as one sample.

    A few items of each benchmark are asked, so few that they say little apart.
    """
    files = sorted(stage.path.glob(pattern))
    return {file.stem: _pooled(load_table(file.parent, file.stem)) for file in files}


def _pooled(table: Dataset) -> Dataset:
    rows = [{**row, "benchmark": "all"} for row in table]
    return Dataset.from_list(rows, features=table.features)


# ---------------------------------------------------------------- another token limit
def cut(results: Dataset, limit: int) -> Dataset:
    """The same answers as they would have ended under a limit of `limit` new tokens.

    The end token is one of them, so an answer of t tokens ends where t < limit. What is
    cut counts as wrong, as in the evaluation. A limit above that of `results` changes
    nothing.
    """

    def ended(row: dict[str, Any]) -> dict[str, Any]:
        if row["tokens"] < limit:
            return row
        return {**row, "correct": False, "answer": None, "reason": "truncated",
                "finished": False, "tokens": limit}  # fmt: skip

    return Dataset.from_list([ended(row) for row in results], features=results.features)


# ---------------------------------------------------------------- other estimators
def voted(results: Dataset, votes: int) -> Dataset:
    """Majority votes among `votes` samples of each item: a row per item and first voter.

    The voters are every run of `votes` neighbouring samples, the last followed by the
    first, so that an estimate does not hang on the order in which samples were drawn;
    the rows of an item are its `sample`s.
    """
    own: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(results, key=lambda row: row["sample"]):
        own.setdefault(row["id"], []).append(row)
    ballots = [
        {**rows[(first + place) % len(rows)], "id": f"{first} {name}", "sample": place}
        for name, rows in own.items()
        for first in range(len(rows))
        for place in range(votes)
    ]
    winners = majority_vote(Dataset.from_list(ballots, features=results.features), votes)
    return winners.map(_by_item, features=results.features)


def _by_item(row: dict[str, Any]) -> dict[str, Any]:
    first, _, name = row["id"].partition(" ")
    return {"id": name, "sample": int(first)}


def first_samples(results: Dataset, k: int) -> Dataset:
    """The first `k` samples of each item, as one run with `k` samples each.

    Raises ValueError where an item has fewer.
    """
    own: dict[tuple[str, str], list[tuple[int, int]]] = {}
    columns = zip(results["benchmark"], results["id"], results["sample"], strict=True)
    for index, (benchmark, name, sample) in enumerate(columns):
        own.setdefault((benchmark, name), []).append((sample, index))
    fewest = min(map(len, own.values()))
    if not 1 <= k <= fewest:
        raise ValueError(f"{k} samples of each item are wanted and there are {fewest}")
    return results.select([index for found in own.values() for _, index in sorted(found)[:k]])


def any_right(results: Dataset) -> Dataset:
    """One row per item, right if any sample is: what some scripts report as accuracy."""
    best: dict[str, int] = {}
    for index, (name, correct) in enumerate(
        zip(results["id"], results["correct"], strict=True)
    ):
        if name not in best or (correct and not results[best[name]]["correct"]):
            best[name] = index
    return results.select(list(best.values()))


def single_runs(results: Dataset) -> list[float]:
    """The accuracy of each sample number on its own: as many runs with one sample each."""
    runs: dict[int, list[bool]] = {}
    for sample, correct in zip(results["sample"], results["correct"], strict=True):
        runs.setdefault(sample, []).append(bool(correct))
    return [float(np.mean(runs[sample])) for sample in sorted(runs)]


# ---------------------------------------------------------------- other graders
def _box_required(references: list[str], texts: list[str]) -> list[bool]:
    return [bool(v.correct) for v in grade_many(references, texts, boxed_only=True)]


def _same_text(references: list[str], texts: list[str]) -> list[bool]:
    answers = [final_answer(text) for text in texts]
    return [
        answer is not None and clean(answer) == clean(reference)
        for reference, answer in zip(references, answers, strict=True)
    ]


def _mentioned(references: list[str], texts: list[str]) -> list[bool]:
    return [reference in text for reference, text in zip(references, texts, strict=True)]


GRADERS: Mapping[str, Callable[[list[str], list[str]], list[bool]]] = {
    "no box, no answer": _box_required,
    "the same text": _same_text,
    "mentioned anywhere": _mentioned,
}


def regraded(results: Dataset, references: Mapping[str, str], grader: str) -> Dataset:
    """The same completions under another of GRADERS; `references` maps ids to answers.

    "mentioned anywhere" also counts answers that were cut off, as scripts that search the
    whole text do; the others count them as wrong.
    """
    wanted = [references[name] for name in results["id"]]
    right = np.array(GRADERS[grader](wanted, list(results["text"])))
    if grader != "mentioned anywhere":
        right &= np.array(results["finished"])
    columns = {name: results[name] for name in results.column_names}
    return Dataset.from_dict({**columns, "correct": right.tolist()}, features=results.features)
