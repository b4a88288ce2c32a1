"""The variants of chapter 6, and the rows that each is trained on.

A variant is a backbone and a training set. All take the learning rate, the schedule and
the seeds of the profile.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from limo_nb.chains import collect, from_teachers
from limo_nb.core.records import load_table, save_tables
from limo_nb.core.runs import Artifact, Run
from limo_nb.core.settings import FilterSettings, Profile
from limo_nb.evaluation import to_avoid
from limo_nb.inference import model_digest
from limo_nb.problems import clean_pool, load_pool, normalise
from limo_nb.selection import solve


@dataclass(frozen=True)
class Variant:
    """What is trained: the backbone (a field of `profile.models`) and its rows."""

    name: str
    backbone: str
    rows: str  # a table of stage `models/sets`
    what: str


HEADLINE = {
    variant.name: variant
    for variant in (
        Variant("bulk", "base", "bulk", "many ordinary rows with short answers, equal steps"),
        Variant("random", "base", "random", "as many chains, of questions drawn at random"),
        Variant("limo", "base", "limo", "the chosen questions with their best chains"),
        Variant("poor-limo", "poor", "limo", "the same rows on the poor backbone"),
    )
}
FIRST_ROUND = 4  # samples in a round, where the first right one ends the asking
ROW_COLUMNS = ("question_id", "question", "solution", "answer", "subject", "level")


def training_sets(run: Run) -> Artifact:
    """Stage `models/sets`: the tables limo, random and bulk.

    `random` has as many rows as `limo`: questions drawn from the clean pool without any
    filter, each with the first correct chain of the same teacher. `bulk` has
    `sft.bulk_factor` times as many, with the pool's own short solutions. With
    `sft.held_out`, `held-out` has the questions that choose among epochs, which are in no
    set.
    """
    pool, rows = run.load("pool"), run.load("rows")
    selected = [run.load("questions")] if run.profile.sft.held_out else []

    def make(folder: Path, profile: Profile) -> None:
        limo = load_table(rows, "limo").select_columns(list(ROW_COLUMNS))
        kept: list[dict] = []
        for stage in selected:
            questions = load_table(stage, "questions")
            kept = held_out(profile.sft.held_out, questions, limo, profile.pool.seed)
            save_tables(folder, **{"held-out": Dataset.from_list(kept)})
        drawn = random_rows(
            profile, _without(load_table(pool, "pool"), kept), len(limo), folder
        )
        bulk = bulk_rows(profile, profile.sft.bulk_factor * len(limo), kept)
        save_tables(folder, limo=limo, random=drawn, bulk=bulk)

    return run.make(
        "models/sets", make, inputs=[pool, rows, *selected],
        reads=("pool", "chains", "sft", "models", "engine", "system_prompt", "evaluation"),
        params={"teachers": {name: model_digest(name) for name in run.profile.teachers}},
    )  # fmt: skip


def held_out(
    share: float, questions: Dataset, limo: Dataset, seed: int
) -> list[dict[str, Any]]:
    """`share` of the selected `questions`, drawn from those not in `limo`.

    These passed both filters and got no place among the best chains. Raises ValueError
    where too few are left.
    """
    taken = set(limo["question_id"])
    free = [row for row in questions if row["id"] not in taken]
    count = max(1, round(share * len(questions)))
    if len(free) < count:
        raise ValueError(
            f"sft.held_out={share} takes {count} of {len(questions)} selected questions, and "
            f"{len(free)} are in no training row: lower it, or raise chains.questions"
        )
    drawn = random.Random(seed + 2).sample(free, count)
    names = ("id", "question", "answer", "level")
    return [{name: row[name] for name in names} for row in drawn]


def _without(rows: Dataset, unwanted: Sequence[Mapping]) -> Dataset:
    """`rows` whose question is none of the `unwanted`, whatever its id and its spaces."""
    gone = {normalise(row["question"]) for row in unwanted}
    questions = enumerate(rows["question"])
    return rows.select([place for place, text in questions if normalise(text) not in gone])


def random_rows(profile: Profile, pool: Dataset, count: int, folder: Path) -> Dataset:
    """`count` random questions of `pool`, each with its first correct chain.

    Fewer where fewer get one; raises ValueError where none does.
    """
    # Some questions get no correct chain; half as many more are asked at once.
    asked = pool.shuffle(seed=profile.pool.seed + 1).select(
        range(min(len(pool), count + count // 2 + 4))
    )
    first = profile.chains.every_sample.model_copy(
        update={"keep": (0, 0), "stop_every": FIRST_ROUND, "never_stopped": 0}
    )
    found = sampled_chains(profile, asked, folder / "random", first)
    firsts: dict[str, dict] = {}
    for row in sorted(found, key=lambda row: row["sample"]):
        firsts.setdefault(row["question_id"], row)
    kept = [firsts[key] for key in asked["id"] if key in firsts][:count]
    if not kept:
        raise ValueError(
            "no random question got a correct chain: raise chains.sampling.samples"
        )
    return training_rows(kept)


def sampled_chains(
    profile: Profile, asked: Dataset, folder: Path, settings: FilterSettings | None = None
) -> Dataset:
    """Correct, distinct chains of the teachers for the questions in `asked`.

    From all samples of `profile.chains`, or as `settings` say.
    """
    settings = settings or profile.chains.every_sample
    engine, prompt = profile.engine, profile.system_prompt

    def attempts(teacher: str, place: Path) -> Dataset:
        return solve(asked, teacher, settings, engine, prompt, place)

    return collect(asked, from_teachers(profile.teachers, attempts, folder))


def bulk_rows(profile: Profile, count: int, unwanted: Sequence[Mapping] = ()) -> Dataset:
    """`count` ordinary rows: the pool's source, cleaned as in chapter 3, short solutions.

    Without the questions of `unwanted`.
    """
    settings = profile.pool.model_copy(
        update={"size": count + count // 8 + 8, "seed": profile.pool.seed + 1000}
    )
    clean = clean_pool(load_pool(settings), to_avoid(profile.evaluation), settings).kept
    pool = _without(clean, unwanted)
    return training_rows(
        {**row, "question_id": row["id"]} for row in pool.select(range(min(count, len(pool))))
    )


def training_rows(rows: Iterable[Mapping[str, Any]]) -> Dataset:
    """`rows` with the columns of a training set, `ROW_COLUMNS`, and no others."""
    return Dataset.from_list([{name: row[name] for name in ROW_COLUMNS} for row in rows])
