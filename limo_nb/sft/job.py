"""A run as it is asked for (`Task`), and as its folder holds it (`TrainingJob`). Chapter 6.

`prepare` writes the folder: `rows.jsonl` and `job.json`, from which ranks on any machine can
start. What a run leaves there: `log.jsonl`, `model/` and, last, `done.json`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from limo_nb.core.files import write_atomic, write_json
from limo_nb.core.precision import settle
from limo_nb.core.settings import SftSettings
from limo_nb.inference import exact_name, load_tokenizer, model_digest
from limo_nb.inference.models import context_length
from limo_nb.sft.checkpoints import CheckpointRefused, complete_checkpoints
from limo_nb.sft.encoding import COLUMNS, THOUGHT, encode, over_length_report

if TYPE_CHECKING:
    from datasets import Dataset

CHECKPOINT_SECONDS = 60.0  # what a kill may cost
HELD_OUT_ROWS, HELD_OUT_LOG = "held-out-rows.jsonl", "held-out.jsonl"
# Fields of the settings that do not change what a run computes.
ELSEWHERE = {"seeds", "bulk_factor", "versions", "held_out", "force", "report_to"}


@dataclass(frozen=True)
class Task:
    """One model to be trained: rows, the base, how, and where to.

    The rows have question and solution, and reasoning where their thoughts stand apart.
    """

    rows: Dataset
    model: str
    settings: SftSettings
    seed: int
    system_prompt: str
    folder: Path
    held_out: Dataset | None = None  # rows whose loss is measured and not trained on


@dataclass(frozen=True)
class TrainingJob:
    """What one run depends on; `key` is a digest of all of it and of the rows."""

    model: str
    settings: SftSettings
    seed: int
    system_prompt: str
    key: str
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    why: str = ""  # the precision was chosen; empty where it was asked for
    rows: int = 0  # as they are encoded; 0 for a run that is done
    longest: int = 0  # tokens of the longest of them
    tokens: int = 0  # of all of them

    def save(self, folder: Path) -> None:
        """Write `job.json`."""
        values = {**asdict(self), "settings": self.settings.model_dump()}
        write_json(folder / "job.json", values)

    @staticmethod
    def load(folder: Path) -> TrainingJob:
        """Read `job.json`."""
        values = json.loads((folder / "job.json").read_text())
        return TrainingJob(**{**values, "settings": SftSettings(**values["settings"])})


class LogRow(TypedDict):
    """A line of `log.jsonl`: one optimiser step."""

    step: int
    loss: float  # nats a token, the mean over the response tokens of the step's rows
    learning_rate: float
    tokens_per_second: float  # since the run was started or continued
    seconds: float  # of all of it, interruptions left out
    memory_gib: float  # the peak of this rank


class HeldOutRow(TypedDict):
    """A line of `held-out.jsonl`: the loss of the held-out rows after an epoch (0: before)."""

    step: int
    epoch: int
    loss: float  # nats a token, the mean over rows of the mean over their response tokens


class PaceRow(TypedDict):
    """`pace.json`: how far the pass is that ended last, written about once a second."""

    step: int  # optimiser steps that are done
    pass_: int  # passes of the next one
    passes: int  # of every step
    tokens: int  # read since the run was started or continued
    earlier: int  # read before that
    seconds: float  # since then
    memory_gib: float  # the peak of this rank


def prepare(
    task: Task, checkpoint_seconds: float = CHECKPOINT_SECONDS, here: bool = False
) -> TrainingJob:
    """Write `rows.jsonl` and `job.json`, from which ranks on any machine can start.

    Rows that are held out go to `held-out-rows.jsonl`, which is empty without. Where ranks
    start `here`, what "auto" is on this machine belongs to the run and to its key; else the
    ranks settle it. Raises CheckpointRefused where the folder belongs to another run, and
    ValueError for rows that cannot be trained on.
    """
    task.folder.mkdir(parents=True, exist_ok=True)
    settings, why = task.settings, ""
    if here and settings.dtype == "auto":
        precision = settle("auto")
        settings, why = settings.model_copy(update={"dtype": precision.dtype}), precision.why
    text = _lines(task.rows, "training")
    held_out = _lines(task.held_out, "held-out") if task.held_out else ""
    facts = [
        text, model_digest(task.model), settings.model_dump(exclude=ELSEWHERE), task.seed,
        task.system_prompt, *filter(None, [held_out]),
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    job = TrainingJob(
        exact_name(task.model), settings, task.seed, task.system_prompt, key,
        checkpoint_seconds, why,
    )  # fmt: skip
    _refuse_another(task.folder, job)
    if not is_done(task.folder, key):
        lengths = _check_rows(task)
        job = replace(job, rows=len(lengths), longest=max(lengths), tokens=sum(lengths))
        write_atomic(task.folder / "rows.jsonl", text)
        write_atomic(task.folder / HELD_OUT_ROWS, held_out)
        if not held_out:  # of an earlier start, with rows that were held out
            (task.folder / HELD_OUT_LOG).unlink(missing_ok=True)
        job.save(task.folder)
        for old in task.folder.glob("error-rank*.txt"):
            old.unlink()
    return job


def _lines(rows: Dataset, kind: str) -> str:
    """Rows as JSON lines; ValueError where a column is missing."""
    missing = set(COLUMNS) - set(rows.column_names)
    if missing:
        raise ValueError(f"the {kind} rows have no column {', '.join(sorted(missing))}")
    names = [*COLUMNS, *({THOUGHT} & set(rows.column_names))]
    return "".join(json.dumps({name: row[name] for name in names}) + "\n" for row in rows)


def is_done(folder: Path, key: str) -> bool:
    """Whether `folder` holds the finished result of the run `key`."""
    done = folder / "done.json"
    return done.exists() and json.loads(done.read_text())["key"] == key


def read_log(path: Path) -> list[Any]:
    """The rows of `log.jsonl` (`LogRow`) or of `held-out.jsonl` (`HeldOutRow`).

    A last line that is being written is left out.
    """
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]


def read_pace(folder: Path) -> PaceRow | None:
    """What `pace.json` says; None where no pass has ended yet."""
    path = folder / "pace.json"
    return json.loads(path.read_text()) if path.exists() else None


def _refuse_another(folder: Path, job: TrainingJob) -> None:
    """Raise where `folder` has the checkpoints or the model of another run."""
    done = folder / "done.json"
    held = {said["key"] for said in complete_checkpoints(folder).values()}
    held |= {json.loads(done.read_text())["key"]} if done.exists() else set()
    if not held - {job.key}:
        return
    other = TrainingJob.load(folder)
    mine, theirs = (
        {"model": j.model, "seed": j.seed, "system prompt": j.system_prompt, **dict(j.settings)}
        for j in (job, other)
    )
    changes = [
        f"{name} {theirs[name]!r} there, {value!r} now"
        for name, value in mine.items()
        if value != theirs[name] and name not in ELSEWHERE
    ]
    what = "; ".join(changes) or "its rows or its base model's files differ"
    raise CheckpointRefused(
        f"{folder} belongs to another run ({what}): name another folder, or delete this one"
    )


def _check_rows(task: Task) -> list[int]:
    """Fail on faulty rows before any process starts; tell which rows are too long.

    The lengths of all rows as they are encoded.
    """
    tokenizer, settings = load_tokenizer(task.model), task.settings
    limit = settings.max_tokens
    if task.held_out:
        encode(
            task.held_out, tokenizer, task.system_prompt, limit, settings.over_length,
            chat=settings.chat,
        )  # fmt: skip
    encoded = encode(
        task.rows, tokenizer, task.system_prompt, limit, settings.over_length,
        chat=settings.chat,
    )  # fmt: skip
    print(encoded.manner)
    window = context_length(task.model)
    if window and max(encoded.lengths) > window:
        print(
            f"the longest row has {max(encoded.lengths):,} tokens, and the model was made for "
            f"{window:,}: set sft.max_tokens={window}, or expect positions that it never saw"
        )
    if encoded.over:
        print(over_length_report(encoded, limit))
    return encoded.lengths
