"""A judge for what rules cannot decide: a model compares answer and reference (chapter 8).

The paper has Kaoyan and GradeSchool judged by Qwen2.5-32B-Instruct at temperature 0
(issue 38 of its repository). Here any `Engine` judges, greedily, with the prompt of
model_judge.yaml. A reply without exactly one verdict in its last line decides nothing, and
every reply is kept: in the engine's store as it arrives, and in the table that
`judge_answers` returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, Features, Value

from limo_nb.core.settings import Sampling
from limo_nb.grading.extraction import final_answer, shown
from limo_nb.grading.verdicts import Verdict
from limo_nb.inference import (
    Engine,
    Prompt,
    complete,
)

TOKENS = 512  # for three sentences and a verdict
SHOWN = 2000  # characters at the end of a response that is shown where it has no answer
NAMED = re.compile(r"^[ \t]*VERDICT: (SAME|DIFFERENT|UNCLEAR)[ \t]*$", re.MULTILINE)
MEANS = {"SAME": True, "DIFFERENT": False, "UNCLEAR": None}
JUDGED = Features(
    {
        "id": Value("string"),
        "reference": Value("string"),
        "answer": Value("string"),  # what the judge was shown
        "correct": Value("bool"),  # None: unverifiable
        "reason": Value("string"),
        "reply": Value("string"),  # the judge's whole text, "" where it was not asked
        "judge": Value("string"),  # the engine's identity
    }
)


def judge_answers(
    engine: Engine, rows: Iterable[Mapping[str, Any]], store: Path, tokens: int = TOKENS
) -> Dataset:
    """Judgements (columns of JUDGED) of `rows`: id, question, reference, response.

    Greedy, one judgement each, resumable from the SQLite file `store`. A response without
    any text behind its thoughts is wrong and is not shown to the judge. Raises
    ValueError where two rows share an id.
    """
    rows = [dict(row) for row in rows]
    answers = [_shown(row["response"]) for row in rows]
    asked = [
        (row["id"], judge_prompt(row["question"], row["reference"], answer))
        for row, answer in zip(rows, answers, strict=True)
        if answer
    ]
    sampling = Sampling(temperature=0.0, max_new_tokens=tokens)
    made = complete(engine, asked, sampling, store, "judging") if asked else []
    replies = {reply["id"]: reply for reply in made}
    name = ", ".join(f"{key} {value}" for key, value in sorted(engine.identity.items()))
    judged = [
        _judged(row, answer, replies.get(row["id"]), name)
        for row, answer in zip(rows, answers, strict=True)
    ]
    return Dataset.from_list(judged, features=JUDGED)


def judge_prompt(question: str, reference: str, answer: str) -> Prompt:
    """The conversation that asks for one judgement."""
    texts = _texts()
    # One pass: braces and field names in the texts themselves stay as they are.
    fields = {"{question}": question, "{reference}": reference, "{answer}": answer}
    user = re.sub("|".join(map(re.escape, fields)), lambda m: fields[m[0]], texts["user"])
    return [{"role": "system", "content": texts["system"]}, {"role": "user", "content": user}]


@cache
def _texts() -> dict[str, str]:
    file = resources.files("limo_nb.evaluation").joinpath("model_judge.yaml")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def read_verdict(reply: str, finished: bool = True) -> tuple[bool | None, str]:
    """(verdict, reason) of a judge's reply; None unless its last line is the one verdict.

    The paper's code looks for "CORRECT" anywhere, and finds it in "INCORRECT".
    """
    if not finished:
        return None, "the judge was cut off"
    named = NAMED.findall(reply)
    if not named:
        return None, "the judge named no verdict"
    if len(named) > 1:
        return None, "the judge named several verdicts"
    if not NAMED.fullmatch(reply.rstrip().rpartition("\n")[2]):
        return None, "the judge went on after its verdict"
    return MEANS[named[0]], f"judged {named[0].lower()}"


def _shown(response: str) -> str:
    """The final answer, else the end of the response; "" where it has nothing to judge."""
    answer = final_answer(response, boxed_only=True)
    return answer if answer is not None else (shown(response) or "").strip()[-SHOWN:]


def _judged(row: Mapping, answer: str, reply: Mapping | None, name: str) -> dict[str, Any]:
    correct, reason = (
        read_verdict(reply["text"], reply["finished"]) if reply else (False, "no answer")
    )
    return {
        "id": row["id"], "reference": row["reference"], "answer": answer, "correct": correct,
        "reason": reason, "reply": reply["text"] if reply else "", "judge": name,
    }  # fmt: skip


def with_judge(
    verdicts: Sequence[Verdict], judged: Dataset, first: bool = False
) -> list[Verdict]:
    """`verdicts` of rules, with the judge's where the rules have none.

    With `first` it is the other way round, as in the paper's Kaoyan and GradeSchool. Both
    are in the same order. What they disagree on: `rule_disagreements`.
    """
    rows = zip(verdicts, judged, strict=True)
    return [_joint(verdict, row, first) for verdict, row in rows]


def _joint(verdict: Verdict, row: Mapping, first: bool) -> Verdict:
    asked = row["correct"] is not None and (first or verdict.correct is None)
    return replace(verdict, correct=row["correct"], reason=row["reason"]) if asked else verdict


def rule_disagreements(verdicts: Sequence[Verdict], judged: Dataset) -> list[dict[str, Any]]:
    """The rows of `judged` whose verdict is not that of the rules, with both.

    A row that only one of them could decide is listed too.
    """
    return [
        {**row, "rule": verdict.correct, "rule reason": verdict.reason}
        for verdict, row in zip(verdicts, judged, strict=True)
        if verdict.correct is not row["correct"]
    ]
