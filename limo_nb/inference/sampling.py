"""Answers of a model to questions, from Python: what `limo-nb sample` does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from datasets import Dataset

from limo_nb.core.settings import SYSTEM_PROMPT, EngineSettings, Sampling
from limo_nb.inference.chat import chat_prompt
from limo_nb.inference.engines import open_engine
from limo_nb.inference.request import complete

GREEDY, DEFAULT_ENGINE = Sampling(), EngineSettings()


def sample(
    questions: Iterable[str | Mapping[str, Any]],
    model: str,
    *,
    sampling: Sampling = GREEDY,
    system_prompt: str | None = SYSTEM_PROMPT,
    engine: EngineSettings = DEFAULT_ENGINE,
    store: Path | None = None,
) -> Dataset:
    """Answers of `model` to `questions`, `sampling.samples` each, question by question.

    A question is a text, or a row with `question`, an `id` and whatever else; rows without
    an id are called "row 1", "row 2" and so on. The table has the columns of the rows, those of
    `CompletionRow` and `model`. `model` is `lab:NAME`, a folder, a
    GGUF file, or a Hub id.

    Answers are kept in the SQLite file `store` as they arrive: the same call continues
    interrupted work, and a later one with more questions makes only what is missing.
    Without a store nothing is kept. Raises ValueError for a row without a question and for
    two of the same id; and see `complete`. Chapter 4 asks a whole pool so.
    """
    rows = [_row(question, number) for number, question in enumerate(questions, 1)]
    prompts = [(row["id"], chat_prompt(row["question"], system_prompt)) for row in rows]
    with tempfile.TemporaryDirectory() if store is None else nullcontext() as folder:
        kept = store or Path(folder or "") / "completions.sqlite"
        with open_engine(engine, model) as opened:
            answers = complete(opened, prompts, sampling, kept, label=model)
    by_id = {row["id"]: row for row in rows}
    blank = dict.fromkeys(name for row in rows for name in row)
    return Dataset.from_list(
        [{**blank, **by_id[row["id"]], **row, "model": model} for row in answers]
    )


def _row(question: str | Mapping[str, Any], number: int) -> dict[str, Any]:
    row = {"question": question} if isinstance(question, str) else dict(question)
    if not isinstance(row.get("question"), str):
        raise ValueError(f"row {number} has no text in `question`")
    known = row.get("id") not in (None, "")
    return row | {"id": str(row["id"]) if known else f"row {number}"}
