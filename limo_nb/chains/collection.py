"""Reasoning chains: how good they are, what they contain, and which to keep.

LIMO v3 scores a chain by four dimensions (length 30 %, self-verification 20 %,
exploration 25 %, granularity 25 %) and counts keywords relative to the length of the
text. Words and weights stand in `scoring.yaml` with their reasons. Not published, so ours:
a dimension grows linearly up to a reference and is 1 beyond it; the reference of a batch
is its 95th percentile; of equal scores the shorter chain wins. Chapter 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from limo_nb.chains.measures import Measures, first_right, measure
from limo_nb.chains.scoring import ChainScore, Scale, count_words, score
from limo_nb.grading.verifiers import (
    MATHEMATICS,
    Verifier,
)


# ---------------------------------------------------------------- collecting
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
    verifier: Verifier = MATHEMATICS,
    count: Callable[[str], float] = count_words,
) -> Dataset:
    """The different correct, finished chains of `attempts`, with scores.

    `verifier` is that of the attempts (`selection.solve`); it finds where a chain is done.
    `count` is that of `measure`.

    Columns: question_id, teacher, sample, question, answer, solution (the chain),
    subject, level, score, the four dimensions, the fields of `Measures`, tokens. The
    scale is that of these chains unless given. Raises ValueError if no attempt is correct.
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
    texts = [row["text"].strip() for row in correct]
    scale = scale or Scale.of(texts)
    references = [by_id[row["id"]]["answer"] for row in correct]
    answered = first_right(texts, references, verifier)
    return Dataset.from_list(
        [
            _chain(by_id[row["id"]], row, score(text, scale), measure(text, place, True, count))
            for row, text, place in zip(correct, texts, answered, strict=True)
        ]
    )


def _different(attempts: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Attempts by question, teacher and sample, without repeated texts of a question."""
    seen = set()
    for row in sorted(attempts, key=lambda r: (r["id"], r.get("teacher", ""), r["sample"])):
        key = (row["id"], " ".join(row["text"].split()))
        if key not in seen:
            seen.add(key)
            yield row


def _chain(
    problem: Mapping[str, Any],
    attempt: Mapping[str, Any],
    parts: ChainScore,
    measures: Measures,
) -> dict:
    return {
        "question_id": problem["id"],
        "teacher": attempt.get("teacher", ""),
        "sample": attempt["sample"],
        **{name: problem[name] for name in ("question", "answer")},
        "solution": attempt["text"].strip(),
        **{name: problem[name] for name in ("subject", "level")},
        "score": parts.total,
        **asdict(parts),
        **asdict(measures),
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
