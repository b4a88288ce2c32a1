"""The arms of the experiment: which rows train which model, and what came of it.

The headline arms (chapter 6) are trained by DeepSpeed, all of them by one start; the
small arms of the ablations (chapter 9) by the same `Trainer` in a few resident
processes. Every arm keeps the learning rate, schedule and seeds of its profile.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from limo_nb.core.files import write_json
from limo_nb.core.runs import (
    Artifact,
    Run,
)
from limo_nb.core.settings import (
    Profile,
    Sampling,
    SftSettings,
)
from limo_nb.evaluation import (
    attempts,
    benchmarks,
    estimates,
)
from limo_nb.experiments.differences import differences
from limo_nb.experiments.processes import spread
from limo_nb.experiments.variants import HEADLINE, table
from limo_nb.inference import (
    model_digest,
)
from limo_nb.sft import (
    Task,
    epochs,
    fine_tune_here,
    fine_tune_many,
)


# ---------------------------------------------------------------------------- training
def steps_of(settings: SftSettings, rows: int) -> int:
    """Optimiser steps that `settings` takes over `rows` rows."""
    return settings.epochs * math.ceil(rows / settings.batch_size)


def at_equal_steps(settings: SftSettings, rows: int, steps: int) -> SftSettings:
    """Settings that see `rows` rows once in about `steps` steps (a larger batch).

    The batch is a multiple of the ranks, which share it out, so steps may be a few less.
    """
    size = settings.ranks * math.ceil(rows / steps / settings.ranks)
    return settings.model_copy(update={"epochs": 1, "batch_size": size})


def train(run: Run) -> Artifact:
    """Stage `models/trained`: every headline model, by one start of DeepSpeed's ranks.

    Each arm and seed has a folder of its own, see `trained`. With `sft.held_out` its model
    is that of the epoch that answers the most held-out questions.
    """
    profile, sets = run.profile, run.load("models/sets")
    settings, backbones = profile.sft, dict(profile.models)

    def make(folder: Path) -> None:
        tasks = []
        for arm in HEADLINE.values():
            rows = table(sets / f"{arm.rows}.parquet")
            own = settings
            if arm.name == "bulk":
                limo = table(sets / "limo.parquet")
                own = at_equal_steps(settings, len(rows), steps_of(settings, len(limo)))
            for seed in settings.seeds:
                place = folder / f"{arm.name}-{seed}"
                backbone = backbones[arm.backbone]
                tasks.append(Task(rows, backbone, own, seed, profile.system_prompt, place))
        fine_tune_many(tasks)
        if settings.held_out:
            items = table(sets / "held-out.parquet")
            for task in tasks:
                if task.settings.epochs > 1:
                    choose_epoch(profile, task.folder, items)

    return run.make(
        "models/trained", make, inputs=[sets],
        params={
            "sft": settings, "system_prompt": profile.system_prompt,
            "backbones": {
                arm.backbone: model_digest(backbones[arm.backbone]) for arm in HEADLINE.values()
            },
        },
    )  # fmt: skip


def choose_epoch(profile: Profile, folder: Path, questions: Dataset) -> dict[str, Any]:
    """See `epochs.choose`: by greedy answers to `questions` (id, question, answer, level)."""
    facts = [{**row, "benchmark": "held out", "in_domain": True} for row in questions]
    items, limit = Dataset.from_list(facts), profile.evaluation.sampling.max_new_tokens
    greedy = Sampling(max_new_tokens=limit)

    def right(model: Path) -> int:
        results = attempts.evaluate(
            str(model), items, greedy, profile.engine, profile.system_prompt, folder / "epochs"
        )
        return sum(verdict is True for verdict in results["correct"])

    return epochs.choose(folder, right, len(items))


PRECISION_ROWS, PRECISION_STEPS = 8, 4  # short: one of the two may be emulated


def in_both_precisions(run: Run) -> Artifact:
    """Stage `models/precision`: the same few steps in float32 and in bfloat16.

    The shortest rows of LIMO's set, one process. Leaves float32/ and bfloat16/, each with
    log.jsonl and done.json.
    """
    profile, sets = run.profile, run.load("models/sets")
    batch = PRECISION_ROWS // 2
    short = profile.sft.model_copy(
        update={"batch_size": batch, "epochs": PRECISION_STEPS * batch // PRECISION_ROWS,
                "ranks": 1, "keep_epochs": False, "held_out": 0.0}
    )  # fmt: skip

    def make(folder: Path) -> None:
        rows = sorted(table(sets / "limo.parquet"), key=lambda row: len(row["solution"]))
        shortest = Dataset.from_list(rows[:PRECISION_ROWS])
        for dtype in ("float32", "bfloat16"):
            settings = short.model_copy(update={"dtype": dtype})
            fine_tune_here(
                shortest, profile.models.base, settings, short.seeds[0],
                profile.system_prompt, folder / dtype,
            )  # fmt: skip

    return run.make(
        "models/precision", make, inputs=[sets],
        params={"sft": short, "base": model_digest(profile.models.base)},
    )  # fmt: skip


def trained(run: Run, arm: str, seed: int) -> Path:
    """The folder of one headline model: `model/`, log.jsonl and done.json."""
    return run.load("models/trained") / f"{arm}-{seed}"


def models(run: Run) -> dict[str, list[str]]:
    """Every model of the evaluation: name -> its folders or ids, one a training seed."""
    found = {"base": [run.profile.models.base], "poor": [run.profile.models.poor]}
    for arm in HEADLINE:
        seeds = run.profile.sft.seeds
        found[arm] = [str(trained(run, arm, seed) / "model") for seed in seeds]
    return found


# -------------------------------------------------------------------------- evaluation
def evaluate_all(run: Run) -> Artifact:
    """Stage `evaluation`: every headline model on every benchmark.

    Leaves results-<model>-<number>.parquet, table.json (accuracies with intervals) and
    differences.json (each model against base, and limo against each).
    """
    profile, named = run.profile, models(run)

    def make(folder: Path) -> None:
        items = benchmarks.benchmark_items(profile.evaluation)
        items.to_parquet(folder / "items.parquet")
        jobs = [
            _Job(f"{name}-{number}", model, profile, str(folder))
            for name, folders in named.items()
            for number, model in enumerate(folders)
        ]
        spread(_evaluate_job, jobs, profile.engine.workers, "models evaluated")
        results = {
            name: [
                table(folder / f"results-{name}-{number}.parquet")
                for number in range(len(folders))
            ]
            for name, folders in named.items()
        }
        write_json(folder / "table.json", estimates.table(results))
        write_json(folder / "differences.json", differences(results))

    return run.make(
        "evaluation", make, inputs=[run.load("models/trained")],
        params={
            "evaluation": profile.evaluation, "engine": profile.engine,
            "system_prompt": profile.system_prompt,
            "base": model_digest(profile.models.base),
            "poor": model_digest(profile.models.poor),
        },
    )  # fmt: skip


@dataclass(frozen=True)
class _Job:
    """One model to evaluate, or to train and evaluate (where it has rows)."""

    name: str
    model: str
    profile: Profile
    folder: str
    rows: str = ""  # parquet of training rows, or nothing to train
    settings: SftSettings | None = None
    seed: int = 0


def _evaluate_job(job: _Job) -> None:
    """Write results-<name>.parquet; a file that is there is final."""
    folder = Path(job.folder)
    out = folder / f"results-{job.name}.parquet"
    if out.exists():
        return
    model, work = job.model, folder / f"work-{job.name}"
    if job.rows:
        model = str(
            fine_tune_here(
                table(Path(job.rows)), job.model, job.settings, job.seed,
                job.profile.system_prompt, work,
            )
        )  # fmt: skip
    # One process a model: starting workers would take longer than the work.
    engine = job.profile.engine.model_copy(update={"workers": 1})
    results = attempts.evaluate(
        model, table(folder / "items.parquet"), job.profile.evaluation.sampling, engine,
        job.profile.system_prompt, work / "completions",
    )  # fmt: skip
    partial = out.with_suffix(".partial")
    results.to_parquet(partial)
    partial.replace(out)
    shutil.rmtree(work, ignore_errors=True)
