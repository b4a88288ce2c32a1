"""Asking a model the benchmarks' items and grading its answers (chapter 8; paper, section 4).

Completions and verdicts are kept as they are made, so that a killed run continues. The
statistics are in `estimates`; the names that chapters use are here too.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from limo_nb.core.digests import code_digest
from limo_nb.core.settings import (
    EngineSettings,
    Sampling,
)
from limo_nb.evaluation.estimates import (
    Estimate,
    accuracy,
    compared,
    difference,
    groups,
    majority_vote,
    pass_at_k,
    relation,
    table,
    told,
    wilson,
)
from limo_nb.grading.verdicts import (
    Verdict,
    grade_many,
)
from limo_nb.inference import (
    chat_prompt,
    complete,
    open_engine,
)

__all__ = [  # besides what is defined here
    "Estimate", "accuracy", "compared", "difference", "groups", "majority_vote", "pass_at_k",
    "relation", "table", "told", "wilson",
]  # fmt: skip

RESULTS = Features(
    {
        "benchmark": Value("string"),
        "in_domain": Value("bool"),
        "level": Value("int64"),
        "id": Value("string"),
        "sample": Value("int64"),
        "correct": Value("bool"),  # None: could not be verified
        "answer": Value("string"),
        "reason": Value("string"),
        "text": Value("string"),
        "tokens": Value("int64"),
        "finished": Value("bool"),
    }
)
CHUNK = 400  # answers that are graded between two commits: seconds of work
CUT = Verdict(False, None, "truncated")
Pair = tuple[str, str]  # reference, response


# ---------------------------------------------------------------- runs
def evaluate(
    model: str,
    items: Dataset,
    sampling: Sampling,
    engine_settings: EngineSettings,
    system_prompt: str,
    folder: Path,
) -> Dataset:
    """The answers of `model` to `items`, graded: a row of RESULTS per item and sample.

    Completions are kept in `folder` as they arrive, so that a killed run continues. The
    system prompt is the one of fine-tuning (README of the LIMO repository).
    """
    with open_engine(engine_settings, model) as engine:
        prompts = asked(items, system_prompt)
        store = folder / "completions.sqlite"
        answers = complete(engine, prompts, sampling, store, label=f"{Path(model).name}")
    return grade_answers(items, answers)


def asked(items: Dataset, system_prompt: str) -> list[tuple[str, Any]]:
    """(id, conversation) of each item: what `complete` takes."""
    return [(row["id"], chat_prompt(row["question"], system_prompt)) for row in items]


# ---------------------------------------------------------------- verdicts
def grade_answers(
    items: Dataset, answers: Dataset, tolerance: float = 0.0, store: Path | None = None
) -> Dataset:
    """`answers` (id, sample, text, tokens, finished) to `items` as rows of RESULTS.

    An answer that was cut off is wrong. `tolerance` is relative, for references that are
    not integers. With `store`, verdicts are kept there as they are made, and those that
    it has are not made again.
    """
    verdicts = verdicts_of(pairs_of(items, finished(answers)), tolerance, store)
    return graded_rows(items, answers, verdicts)


def finished(answers: Dataset) -> Dataset:
    """The answers that were not cut off: those that are graded."""
    return answers.select([place for place, done in enumerate(answers["finished"]) if done])


def pairs_of(items: Dataset, answers: Dataset) -> list[Pair]:
    """(reference, response) of each answer."""
    references = dict(zip(items["id"], items["answer"], strict=True))
    return [(references[row["id"]], row["text"]) for row in answers]


def graded_rows(items: Dataset, answers: Dataset, verdicts: Sequence[Verdict]) -> Dataset:
    """Rows of RESULTS from `answers` and the verdicts on those that were not cut off."""
    facts, waiting = {row["id"]: row for row in items}, iter(verdicts)
    rows = []
    for answer in answers:
        verdict = next(waiting) if answer["finished"] else CUT
        rows.append({**answer, **_fields(verdict)})
        item = facts[answer["id"]]
        rows[-1] |= {name: item[name] for name in ("benchmark", "in_domain", "level")}
    columns = {name: [row[name] for row in rows] for name in RESULTS}
    return Dataset.from_dict(columns, features=RESULTS)


def _fields(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in ("correct", "answer", "reason")}


def verdicts_of(
    pairs: Sequence[Pair], tolerance: float = 0.0, store: Path | None = None
) -> list[Verdict]:
    """The verdicts on `pairs`, in order; see `grade_answers` for `store`."""
    if store is None:
        return _graded(pairs, tolerance)
    keys = [_verdict_key(pair, tolerance) for pair in pairs]
    store.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(store, timeout=60)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, row TEXT)")
        known = dict(database.execute("SELECT key, row FROM verdicts"))
        missing = {k: p for k, p in zip(keys, pairs, strict=True) if k not in known}
        waiting = list(missing.items())
        for start in range(0, len(waiting), CHUNK):
            chunk = waiting[start : start + CHUNK]
            made = _graded([pair for _, pair in chunk], tolerance)
            rows = [
                (key, json.dumps(_fields(verdict)))
                for (key, _), verdict in zip(chunk, made, strict=True)
            ]
            with database:
                database.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", rows)
            known.update(rows)
    return [Verdict(**json.loads(known[key])) for key in keys]


def _graded(pairs: Sequence[Pair], tolerance: float) -> list[Verdict]:
    references, responses = [p[0] for p in pairs], [p[1] for p in pairs]
    return grade_many(references, responses, tolerance=tolerance)


def _verdict_key(pair: Pair, tolerance: float) -> str:
    """What a verdict depends on: the pair, the tolerance, and the grader."""
    facts = json.dumps([grader_version(), tolerance, *pair])
    return hashlib.sha256(facts.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@cache
def grader_version() -> str:
    """A digest of the grader's code, with the version of math-verify."""
    return f"{code_digest(grade_many)}, math-verify {metadata.version('math-verify')}"


# ---------------------------------------------------------------- a check of the grader
@dataclass(frozen=True)
class Agreement:
    """Our verdicts beside those that were recorded with real outputs."""

    outputs: int
    agreeing: int
    unverifiable: int
    disagreements: tuple[dict[str, Any], ...]  # id, model, recorded, ours, reference, answer

    @property
    def share(self) -> float:
        """The share of outputs on which both verdicts are the same."""
        return self.agreeing / self.outputs


RECORDED_MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def recorded_agreement(root: Path) -> Agreement:
    """Grade the recorded GSM8K outputs of four models under `root`/pool and compare.

    The file is openai/grade-school-math's: 1,319 problems, each with the output of four
    models and whether it was found correct. No problem text is in the result.
    """
    path = root / "pool" / "gsm8k_model_solutions.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: it is part of LIMO_NB_DATA/pool")
    outputs = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        if line.strip():
            record = json.loads(line)
            reference = record["ground_truth"].rpartition("A: ")[2].strip()
            outputs += [
                (f"gsm8k-test-{number}", model, reference, record[model])
                for model in RECORDED_MODELS
            ]
    verdicts = grade_many([o[2] for o in outputs], [o[3]["solution"] for o in outputs])
    differing = tuple(
        {"id": name, "model": model, "recorded": output["is_correct"],
         "ours": verdict.correct, "reference": reference, "answer": verdict.answer}
        for (name, model, reference, output), verdict in zip(outputs, verdicts, strict=True)
        if verdict.correct != output["is_correct"]
    )  # fmt: skip
    unverifiable = sum(verdict.correct is None for verdict in verdicts)
    return Agreement(len(outputs), len(outputs) - len(differing), unverifiable, differing)
