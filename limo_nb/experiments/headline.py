"""The headline experiment: the variants of chapter 6 trained, and evaluated in chapter 8.

All are trained by one start of DeepSpeed's ranks, and evaluated in as many processes as
the engine has workers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from limo_nb.core.files import write_json
from limo_nb.core.recorded_runs import AnyRun
from limo_nb.core.records import load_table, save_tables
from limo_nb.core.runs import Artifact, Run
from limo_nb.core.settings import Profile, Sampling
from limo_nb.evaluation import accuracies, benchmark_items, evaluate
from limo_nb.experiments.asking import shots_of
from limo_nb.experiments.budgets import at_equal_steps, steps_of
from limo_nb.experiments.differences import headline_differences
from limo_nb.experiments.processes import in_processes, job_processes
from limo_nb.experiments.training_runs import TrainingRun, carry_out, results_of
from limo_nb.experiments.variants import HEADLINE
from limo_nb.inference import model_digest
from limo_nb.sft import Task, epochs, fine_tune_here, fine_tune_many

PRECISION_ROWS, PRECISION_STEPS = 8, 4  # short: one of the two may be emulated


# ---------------------------------------------------------------------------- training
def train(run: Run) -> Artifact:
    """Stage `models/trained`: every headline model, by one start of DeepSpeed's ranks.

    Each variant and seed has a folder of its own, see `trained`. With `sft.held_out` its
    model is that of the epoch that answers the most held-out questions.
    """
    sets, models = run.load("models/sets"), dict(run.profile.models)
    backbones = {own.backbone: models[own.backbone] for own in HEADLINE.values()}

    def make(folder: Path, profile: Profile) -> None:
        settings = profile.sft
        limo = load_table(sets, "limo")
        tasks = []
        for variant in HEADLINE.values():
            rows, own = load_table(sets, variant.rows), settings
            if variant.name == "bulk":
                own = at_equal_steps(settings, len(rows), steps_of(settings, len(limo)))
            for seed in settings.seeds:
                place = folder / f"{variant.name}-{seed}"
                backbone = backbones[variant.backbone]
                tasks.append(Task(rows, backbone, own, seed, profile.system_prompt, place))
        fine_tune_many(tasks)
        if settings.held_out:
            items = load_table(sets, "held-out")
            for task in tasks:
                if task.settings.epochs > 1:
                    choose_epoch(profile, task.folder, items)

    # The other sections are read where an epoch is chosen.
    more = ("engine", "evaluation") if run.profile.sft.held_out else ()
    return run.make(
        "models/trained", make, inputs=[sets], reads=("sft", "system_prompt", *more),
        params={name: model_digest(model) for name, model in backbones.items()},
    )  # fmt: skip


def choose_epoch(profile: Profile, folder: Path, questions: Dataset) -> dict[str, Any]:
    """See `epochs.choose`: by greedy answers to `questions` (id, question, answer, level)."""
    facts = [{**row, "benchmark": "held out", "in_domain": True} for row in questions]
    items, limit = Dataset.from_list(facts), profile.evaluation.sampling.max_new_tokens
    greedy = Sampling(max_new_tokens=limit)

    def right(model: Path) -> int:
        results = evaluate(
            model, items, greedy, profile.engine, profile.system_prompt, folder / "epochs"
        )
        return sum(verdict is True for verdict in results["correct"])

    return epochs.choose(folder, right, len(items))


def in_both_precisions(run: Run) -> Artifact:
    """Stage `models/precision`: the same few steps in float32 and in bfloat16.

    The shortest rows of LIMO's set, one process. Leaves float32/ and bfloat16/, each with
    log.jsonl and done.json.
    """
    sets, base = run.load("models/sets"), run.profile.models.base

    def make(folder: Path, profile: Profile) -> None:
        batch = PRECISION_ROWS // 2
        short = profile.sft.model_copy(
            update={"batch_size": batch, "epochs": PRECISION_STEPS * batch // PRECISION_ROWS,
                    "ranks": 1, "keep_epochs": False, "held_out": 0.0}
        )  # fmt: skip
        rows = sorted(load_table(sets, "limo"), key=lambda row: len(row["solution"]))
        shortest = Dataset.from_list(rows[:PRECISION_ROWS])
        for dtype in ("float32", "bfloat16"):
            settings = short.model_copy(update={"dtype": dtype})
            fine_tune_here(
                shortest, base, settings, short.seeds[0], profile.system_prompt, folder / dtype
            )

    return run.make(
        "models/precision", make, inputs=[sets], reads=("sft", "system_prompt"),
        params={"base": model_digest(base)},
    )  # fmt: skip


def trained(run: AnyRun, variant: str, seed: int) -> Path:
    """The folder of one headline model: `model/`, log.jsonl and done.json."""
    return run.load("models/trained") / f"{variant}-{seed}"


# -------------------------------------------------------------------------- evaluation
def evaluate_all(run: Run) -> Artifact:
    """Stage `evaluation`: every headline model on every benchmark, and the baselines.

    A baseline is the base asked in another way, few-shot after limo's shortest rows.

    Leaves the tables results-<model>-<number>, table.json (rows of `AccuracyRow`) and
    differences.json (rows of `DifferenceRow`: each model against base, and limo against
    each).
    """
    models = evaluated_models(run)
    shots = shots_of(load_table(run.load("models/sets"), "limo"))

    def make(folder: Path, profile: Profile) -> None:
        save_tables(folder, items=benchmark_items(profile.evaluation))
        runs = [
            TrainingRun(
                f"{name}-{number}", model, folder, profile.evaluation.sampling,
                profile.engine, profile.system_prompt,
            )
            for name, folders in models.items()
            for number, model in enumerate(folders)
        ]  # fmt: skip
        ways = [
            replace(runs[0], name=f"{way}-0", way=way, shots=shots)
            for way in profile.evaluation.baselines
        ]
        # Untrained models ask for longest: they come first, so that none is left alone.
        runs = [*ways, *runs]
        processes = job_processes(profile.engine, models["base"][0])
        in_processes(carry_out, runs, processes, "models evaluated")
        names = [*models, *profile.evaluation.baselines]
        results = {name: results_of(folder, name) for name in names}
        write_json(folder / "table.json", accuracies(results))
        write_json(folder / "differences.json", headline_differences(results))

    return run.make(
        "evaluation", make, inputs=[run.load("models/trained"), run.load("models/sets")],
        reads=("evaluation", "engine", "system_prompt"),
        params={name: model_digest(models[name][0]) for name in ("base", "poor")},
    )  # fmt: skip


def evaluated_models(run: Run) -> dict[str, list[str]]:
    """Every model of the evaluation: name -> its folders or ids, one a training seed."""
    found = {"base": [run.profile.models.base], "poor": [run.profile.models.poor]}
    for variant in HEADLINE:
        seeds = run.profile.sft.seeds
        found[variant] = [str(trained(run, variant, seed) / "model") for seed in seeds]
    return found
