"""The arms of the experiment: which rows train which model, and what came of it.

The headline arms (chapter 6) are trained by DeepSpeed, all of them by one start; the
small arms of the ablations (chapter 9) by the same `Trainer` in a few resident
processes. Every arm keeps the learning rate, schedule and seeds of its profile.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from limo_nb.chains import (
    collection,
)
from limo_nb.core.runs import (
    Artifact,
    Run,
)
from limo_nb.core.settings import (
    FilterSettings,
    Profile,
)
from limo_nb.evaluation import (
    benchmarks,
)
from limo_nb.inference import (
    chat_prompt,
    load_tokenizer,
    model_digest,
    plain_ids,
    prompt_ids,
    resolve,
)
from limo_nb.problems import (
    cleaning,
    sources,
)
from limo_nb.problems import (
    text as problems_text,
)
from limo_nb.selection import solving
from limo_nb.sft.encoding import closing_ids


@dataclass(frozen=True)
class Arm:
    """A model to train: the backbone (a field of `profile.models`) and its rows."""

    name: str
    backbone: str
    rows: str
    what: str


HEADLINE = {
    arm.name: arm
    for arm in (
        Arm("bulk", "base", "bulk", "many ordinary rows with short answers, equal steps"),
        Arm("random", "base", "random", "as many chains, of questions drawn at random"),
        Arm("limo", "base", "limo", "the chosen questions with their best chains"),
        Arm("poor-limo", "poor", "limo", "the same rows on the poor backbone"),
    )
}
FIRST_ROUND = 4  # samples in a round, where the first right one ends the asking
ROW_COLUMNS = ("question_id", "question", "solution", "answer", "subject", "level")


def table(path: Path) -> Dataset:
    """The parquet table at `path`, in memory."""
    return Dataset.from_parquet(str(path), keep_in_memory=True)


# ----------------------------------------------------------------------- training sets
def training_sets(run: Run) -> Artifact:
    """Stage `models/sets`: limo.parquet, random.parquet and bulk.parquet.

    `random` has as many rows as `limo`: questions drawn from the clean pool without any
    filter, each with the first correct chain of the same teacher. `bulk` has
    `sft.bulk_factor` times as many, with the pool's own short solutions. With
    `sft.held_out`, held-out.parquet has the questions that choose among epochs, which are
    in no set.
    """
    profile, pool, rows = run.profile, run.load("pool"), run.load("rows")
    selected = [run.load("questions")] if profile.sft.held_out else []

    def make(folder: Path) -> None:
        limo = table(rows / "limo.parquet").select_columns(list(ROW_COLUMNS))
        limo.to_parquet(folder / "limo.parquet")
        kept: list[dict] = []
        for stage in selected:
            kept = held_out(profile, table(stage / "questions.parquet"), limo)
            Dataset.from_list(kept).to_parquet(folder / "held-out.parquet")
        free = _without(table(pool / "pool.parquet"), kept)
        random_rows(profile, free, len(limo), folder)
        bulk_rows(profile, profile.sft.bulk_factor * len(limo), kept).to_parquet(
            folder / "bulk.parquet"
        )

    return run.make(
        "models/sets", make, inputs=[pool, rows, *selected],
        params={
            "factor": profile.sft.bulk_factor, "pool": profile.pool, "chains": profile.chains,
            "teachers": {name: model_digest(name) for name in profile.teachers},
            "held_out": profile.sft.held_out,
        },
    )  # fmt: skip


def held_out(profile: Profile, questions: Dataset, limo: Dataset) -> list[dict]:
    """The share `sft.held_out` of the selected `questions`, drawn from those not in `limo`.

    These passed both filters and got no place among the best chains. Raises ValueError
    where too few are left.
    """
    share, taken = profile.sft.held_out, set(limo["question_id"])
    free = [row for row in questions if row["id"] not in taken]
    count = max(1, round(share * len(questions)))
    if len(free) < count:
        raise ValueError(
            f"sft.held_out={share} takes {count} of {len(questions)} selected questions, and "
            f"{len(free)} are in no training row: lower it, or raise chains.questions"
        )
    drawn = random.Random(profile.pool.seed + 2).sample(free, count)
    names = ("id", "question", "answer", "level")
    return [{name: row[name] for name in names} for row in drawn]


def _without(rows: Dataset, unwanted: Sequence[Mapping]) -> Dataset:
    """`rows` whose question is none of the `unwanted`, whatever its id and its spaces."""
    gone = {problems_text.normalise(row["question"]) for row in unwanted}
    questions = enumerate(rows["question"])
    return rows.select(
        [n for n, text in questions if problems_text.normalise(text) not in gone]
    )


def random_rows(profile: Profile, pool: Dataset, count: int, folder: Path) -> None:
    """`count` random questions of `pool`, each with its first correct chain."""
    # Some questions get no correct chain; half as many more are asked at once.
    asked = pool.shuffle(seed=profile.pool.seed + 1).select(
        range(min(len(pool), count + count // 2 + 4))
    )
    first = profile.chains.every_sample.model_copy(
        update={"keep": (0, 0), "stop_every": FIRST_ROUND, "never_stopped": 0}
    )
    found = sampled_chains(profile, asked, folder, "random", first)
    firsts: dict[str, dict] = {}
    for row in sorted(found, key=lambda row: row["sample"]):
        firsts.setdefault(row["question_id"], row)
    kept = [firsts[key] for key in asked["id"] if key in firsts][:count]
    if not kept:
        raise ValueError(
            "no random question got a correct chain: raise chains.sampling.samples"
        )
    _rows(kept).to_parquet(folder / "random.parquet")


def sampled_chains(
    profile: Profile,
    asked: Dataset,
    folder: Path,
    name: str,
    settings: FilterSettings | None = None,
) -> Dataset:
    """Correct, distinct chains of the teachers for the questions in `asked`.

    From all samples of `profile.chains`, or as `settings` say.
    """
    settings = settings or profile.chains.every_sample
    engine, prompt = profile.engine, profile.system_prompt

    def solve(teacher: str, place: Path) -> Dataset:
        return solving.solve(asked, teacher, settings, engine, prompt, place)

    return collection.collect(
        asked, collection.from_teachers(profile.teachers, solve, folder / name)
    )


def bulk_rows(profile: Profile, count: int, unwanted: Sequence[Mapping] = ()) -> Dataset:
    """`count` ordinary rows: the pool's source, cleaned as in chapter 3, short solutions.

    Without the questions of `unwanted`.
    """
    settings = profile.pool.model_copy(
        update={"size": count + count // 8 + 8, "seed": profile.pool.seed + 1000}
    )
    avoid = benchmarks.to_avoid(profile.evaluation)
    pool = _without(cleaning.sieve(sources.load_pool(settings), avoid, settings).kept, unwanted)
    rows = [
        {**row, "question_id": row["id"]} for row in pool.select(range(min(count, len(pool))))
    ]
    return _rows(rows)


def _rows(rows: Iterable[dict]) -> Dataset:
    return Dataset.from_list([{name: row[name] for name in ROW_COLUMNS} for row in rows])


def row_tokens(profile: Profile, rows: Iterable[dict]) -> list[int]:
    """Tokens of each training row for the base model: prompt, solution and its end."""
    tokenizer = load_tokenizer(resolve(profile.models.base))
    closing = len(closing_ids(tokenizer))
    return [
        len(prompt_ids(tokenizer, chat_prompt(row["question"], profile.system_prompt)))
        + len(plain_ids(tokenizer, row["solution"]))
        + closing
        for row in rows
    ]
