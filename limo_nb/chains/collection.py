"""Chains from the attempts of teachers (chapter 5; LIMO v3, section 3.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from datasets import Dataset, concatenate_datasets

from limo_nb.chains.measures import Assessment, assess
from limo_nb.chains.scoring import Scale, count_words
from limo_nb.grading.verifiers import BY_REFERENCE, Verifier
from limo_nb.problems import Problem

Attempts = Iterable[Mapping[str, Any]]  # rows of selection's Attempt, perhaps with a teacher


class Chain(TypedDict):
    """A row of a table of chains: a right, finished solution with its score and measures."""

    question_id: str
    teacher: str  # the model, "" where one only was asked
    sample: int  # its number among the attempts at the question
    question: str
    answer: str  # the reference
    solution: str  # the chain
    subject: str
    level: int  # of the problem; 0: unknown
    score: float  # 0 to 1: the weighted sum of the next four, each 0 to 1
    length: float
    verification: float
    exploration: float
    granularity: float
    steps: int  # from here on see `Measures`
    checks: int
    backtracks: int
    repetition: float
    mixing: float
    truncated: bool
    after_answer: float | None
    tokens: int  # of the solution, by the teacher's tokenizer


def from_teachers(
    teachers: Sequence[str], solve: Callable[[str, Path], Dataset], folder: Path
) -> Dataset:
    """The attempts of several teachers in one table, with the column `teacher`.

    `solve(teacher, folder)` returns the attempts of one (`selection.solve`), and keeps
    its work in a folder of its own. Raises ValueError for no teacher, or one named twice.
    """
    if not teachers or len(set(teachers)) < len(teachers):
        raise ValueError(f"teachers are {list(teachers)}: name one or more, each once")
    tables = []
    for number, teacher in enumerate(teachers):
        attempts = solve(teacher, folder / f"teacher-{number}")
        tables.append(attempts.add_column("teacher", [teacher] * len(attempts)))
    return concatenate_datasets(tables)


def collect(
    problems: Dataset,
    attempts: Dataset,
    scale: Scale | None = None,
    verifier: Verifier = BY_REFERENCE,
    count: Callable[[str], float] = count_words,
) -> Dataset:
    """The different correct, finished chains of `attempts`, with scores.

    `verifier` is that of the attempts (`selection.solve`); it finds where a chain is done.
    `count` is that of `measure_chain`.

    Rows of `Chain`. The scale is that of these chains unless given. Raises ValueError if no
    attempt is correct.
    """
    by_id = {row["id"]: row for row in problems}
    correct = list(_different(row for row in attempts if row["correct"] and row["finished"]))
    if not correct:
        raise ValueError(
            "no attempt is correct and finished: raise `samples` or `max_new_tokens`, "
            "or choose a stronger model"
        )
    unknown = {row["id"] for row in correct} - by_id.keys()
    if unknown:
        raise ValueError(f"attempts at questions not among the problems: {sorted(unknown)[:3]}")
    asked: list[Problem] = [by_id[row["id"]] for row in correct]
    texts = [row["text"].strip() for row in correct]
    answers, finished = [row["answer"] for row in asked], [True] * len(texts)
    found, _ = assess(texts, answers, finished, scale, verifier, count)
    return Dataset.from_list(list(map(_chain, asked, correct, found)))


def _different(attempts: Attempts) -> Iterator[Mapping[str, Any]]:
    """Attempts by question, teacher and sample, without repeated texts of a question."""
    seen = set()
    for row in sorted(attempts, key=lambda r: (r["id"], r.get("teacher", ""), r["sample"])):
        key = (row["id"], " ".join(row["text"].split()))
        if key not in seen:
            seen.add(key)
            yield row


def _chain(problem: Problem, attempt: Mapping[str, Any], found: Assessment) -> Chain:
    return {
        "question_id": problem["id"],
        "teacher": attempt.get("teacher", ""),
        "sample": attempt["sample"],
        "question": problem["question"],
        "answer": problem["answer"],
        "solution": attempt["text"].strip(),
        "subject": problem["subject"],
        "level": problem["level"],
        "score": found.score.total,
        "length": found.score.length,
        "verification": found.score.verification,
        "exploration": found.score.exploration,
        "granularity": found.score.granularity,
        "steps": found.measures.steps,
        "checks": found.measures.checks,
        "backtracks": found.measures.backtracks,
        "repetition": found.measures.repetition,
        "mixing": found.measures.mixing,
        "truncated": found.measures.truncated,
        "after_answer": found.measures.after_answer,
        "tokens": attempt["tokens"],
    }


def teachers_table(attempts: Dataset, chains: Dataset, chosen: Dataset) -> list[dict]:
    """What each teacher gave: its samples, right ones, different chains, and chosen rows.

    Also the mean score of its chains, None without any.
    """
    tally = {name: Counter(table["teacher"]) for name, table in
             (("samples", attempts), ("chains", chains), ("chosen", chosen))}  # fmt: skip
    right = Counter(row["teacher"] for row in attempts if row["correct"])
    scores: dict[str, list[float]] = {}
    for row in chains:
        scores.setdefault(row["teacher"], []).append(row["score"])
    return [
        {
            "teacher": name,
            "samples": tally["samples"][name],
            "right": right[name],
            "chains": tally["chains"][name],
            "score": float(np.mean(scores[name])) if name in scores else None,
            "chosen": tally["chosen"][name],
        }
        for name in dict.fromkeys(attempts["teacher"])
    ]
