"""Asking a model questions and grading its answers (chapter 8; paper, section 4).

Completions and verdicts are kept as they are made, so that a killed run continues. What
the answers say together is in `estimates`.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from datasets import Dataset

from limo_nb.core.digests import code_digest
from limo_nb.core.runs import runs_root
from limo_nb.core.settings import SYSTEM_PROMPT, EngineSettings, Sampling
from limo_nb.evaluation.benchmarks import load_benchmark
from limo_nb.evaluation.protocols import protocol
from limo_nb.evaluation.tables import RESULTS
from limo_nb.grading.verdicts import Verdict
from limo_nb.grading.verifiers import ByReference, Mathematics
from limo_nb.inference import Prompt, chat_prompt, complete, open_engine

CHUNK = 400  # answers that are graded between two commits: seconds of work
CUT = Verdict(False, None, "truncated")
GIVEN = {"benchmark": "questions", "in_domain": False, "level": 0}  # where a row has none
Pair = tuple[str, str]  # reference, response


# ---------------------------------------------------------------- asking
def evaluate(
    model: str | Path,
    items: Dataset | Iterable[Mapping[str, Any]] | str,
    sampling: Sampling | None = None,
    engine: EngineSettings | None = None,
    system_prompt: str = SYSTEM_PROMPT,
    folder: Path | None = None,
    prompts: Sequence[tuple[str, Prompt]] | None = None,
) -> Dataset:
    """The answers of `model` to `items`, graded: a row of `RESULTS` per item and sample.

    `model` is lab:NAME, a folder or a Hub id, optionally ID@REVISION. `items` are rows with
    `question` and `answer`, and perhaps `id`, `benchmark`, `in_domain` and `level`, or the
    name of a benchmark. By default each is asked once, greedily, with LIMO's system prompt,
    by transformers. Completions are kept below `folder` (runs/evaluate) as they arrive, so
    that the same call continues after a kill. `prompts`, (id, prompt) of each item, are asked
    in the place of that chat. Raises ValueError where two items share an id, and for a row
    without question or answer.

    >>> import limo_nb
    >>> results = limo_nb.evaluate("lab:weak", "lab")  # half a minute
    >>> print(limo_nb.evaluation.accuracy([results]))
    6.2% [4.3%, 9.1%]
    >>> rows = [{"question": "What is 2+3?", "answer": "5"}]
    >>> mine = limo_nb.evaluate("path/to/model", rows)
    """
    asked = load_benchmark(items) if isinstance(items, str) else _with_facts(items)
    sampling = sampling or protocol("greedy").other
    store = (folder or runs_root() / "evaluate") / "completions.sqlite"
    with open_engine(engine or EngineSettings(), str(model)) as opened:
        put = prompts or prompts_of(asked, system_prompt)
        answers = complete(opened, put, sampling, store, label=Path(model).name)
    return grade_answers(asked, answers)


def _with_facts(items: Dataset | Iterable[Mapping[str, Any]]) -> Dataset:
    """Items with all that a row of results tells of them."""
    if isinstance(items, Dataset) and {*GIVEN, "id"} <= set(items.column_names):
        return items
    rows = []
    for number, row in enumerate(items, 1):
        lacking = [name for name in ("question", "answer") if row.get(name) in (None, "")]
        if lacking:
            raise ValueError(f"item {number} has no {lacking[0]!r}")
        rows.append({"id": f"question-{number}", **GIVEN, **row, "answer": str(row["answer"])})
    return Dataset.from_list(rows)


def prompts_of(items: Dataset, system_prompt: str) -> list[tuple[str, Prompt]]:
    """(id, conversation) of each item: what `complete` takes."""
    return [(row["id"], chat_prompt(row["question"], system_prompt)) for row in items]


# ---------------------------------------------------------------- verdicts
def grade_answers(
    items: Dataset, answers: Dataset, tolerance: float = 0.0, store: Path | None = None
) -> Dataset:
    """`answers` (id, sample, text, tokens, finished) to `items` as rows of `RESULTS`.

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
    """Rows of `RESULTS` from `answers` and the verdicts on those that were not cut off."""
    facts, waiting = {row["id"]: row for row in items}, iter(verdicts)
    rows = []
    for answer in answers:
        verdict = next(waiting) if answer["finished"] else CUT
        rows.append({**answer, **_fields(verdict)})
        item = facts[answer["id"]]
        rows[-1] |= {name: item[name] for name in GIVEN}
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
    return ByReference(Mathematics(tolerance=tolerance)).verify(references, responses)


def _verdict_key(pair: Pair, tolerance: float) -> str:
    """What a verdict depends on: the pair, the tolerance, and the grader."""
    facts = json.dumps([grader_version(), tolerance, *pair])
    return hashlib.sha256(facts.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@cache
def grader_version() -> str:
    """A digest of the grader's code, with the versions of the libraries that it asks."""
    versions = (f"{name} {metadata.version(name)}" for name in ("math-verify", "reasoning-gym"))
    return ", ".join([code_digest(_graded), *versions])
