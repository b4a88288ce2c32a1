"""The dose of knowledge: foundations that read less or more, and what the same rows elicit.

LIMO's hypothesis says that a few rows bring out what pretraining laid down. So foundations
of the lab that differ in nothing but the number of tokens that they read are fine-tuned on
the same rows. What a foundation knows is its share of right answers at the foot of a textbook
page; what it shows is that in a chat, before and after. Chapter 9; no paper has this figure.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from limo_nb import lab
from limo_nb.core.files import write_json
from limo_nb.core.records import load_table, save_tables
from limo_nb.core.runs import Artifact, Run
from limo_nb.core.settings import Profile, SftSettings
from limo_nb.evaluation import accuracies, benchmark_items, grade_answers, save_results
from limo_nb.experiments.ablations import ablation_settings
from limo_nb.experiments.budgets import steps_of
from limo_nb.experiments.elicitation import greedy, prompt
from limo_nb.experiments.processes import in_processes, job_processes
from limo_nb.experiments.training_runs import TrainingRun, TrainingSpec, carry_out, results_of
from limo_nb.inference import complete, model_digest, open_engine

BEFORE = ("textbook", "chat")  # how a foundation is asked before it is fine-tuned


@dataclass(frozen=True)
class PageRun:
    """A foundation to be asked the items of `folder` at the foot of textbook pages."""

    name: str
    model: str
    folder: Path
    profile: Profile


def run_doses(run: Run) -> Artifact:
    """Stage `doses`: every dose of `ablations.doses` asked, fine-tuned, and asked again.

    Leaves the tables results-<dose>-<way>-<seed>, where a way is one of `BEFORE` or a set of
    `ablations.dose_sets`, and table.json, whose models are named "<millions> <way>". Raises
    ValueError for a dose that no model has.
    """
    sets, known = run.load("models/sets"), lab.doses()
    wanted = run.profile.ablations.doses
    unknown = [dose for dose in wanted if dose not in known]
    if unknown:
        there = ", ".join(map(str, known))
        raise ValueError(
            f"no foundation has read {unknown[0]} million tokens; there are {there}"
        )
    models = {dose: f"lab:{known[dose]}" for dose in wanted}

    def make(folder: Path, profile: Profile) -> None:
        save_tables(folder, items=benchmark_items(profile.evaluation))
        ways = (*BEFORE, *profile.ablations.dose_sets)
        jobs: list[TrainingRun | PageRun] = []
        for dose, model in models.items():
            asked = (folder, profile.evaluation.sampling, profile.engine, profile.system_prompt)
            jobs += [
                PageRun(f"{dose}-textbook-0", model, folder, profile),
                TrainingRun(f"{dose}-chat-0", model, *asked),
            ]
            jobs += [
                TrainingRun(
                    f"{dose}-{way}-{seed}", model, *asked,
                    TrainingSpec(sets / f"{way}.parquet", _settings(profile, sets, way), seed),
                )
                for way in profile.ablations.dose_sets for seed in profile.ablations.dose_seeds
            ]  # fmt: skip
        processes = job_processes(profile.engine, next(iter(models.values())))
        in_processes(_carry_out, jobs, processes, "foundations asked and fine-tuned")
        names = [(dose, way) for dose in models for way in ways]
        results = {f"{dose} {way}": results_of(folder, f"{dose}-{way}") for dose, way in names}
        write_json(folder / "table.json", accuracies(results))

    return run.make(
        "doses", make, inputs=[sets],
        reads=("ablations", "sft", "evaluation", "engine", "system_prompt"),
        params={model: model_digest(model) for model in models.values()},
    )  # fmt: skip


def _settings(profile: Profile, sets: Artifact, way: str) -> SftSettings:
    """As in chapter 6: as many steps for both sets."""
    steps = steps_of(profile.sft, len(load_table(sets, "limo")))
    return ablation_settings(profile.sft, way, len(load_table(sets, way)), steps)


def _carry_out(job: TrainingRun | PageRun) -> None:
    if isinstance(job, TrainingRun):
        carry_out(job)
    else:
        ask_on_pages(job)


def ask_on_pages(run: PageRun) -> None:
    """Write results-<name>.parquet of answers on textbook pages; a file there is final."""
    out, work = run.folder / f"results-{run.name}.parquet", run.folder / f"work-{run.name}"
    if out.exists():
        return
    items: Dataset = load_table(run.folder, "items")
    profile = run.profile
    asked = [
        (row["id"], prompt("textbook", row["question"], profile.system_prompt)) for row in items
    ]
    work.mkdir(exist_ok=True)
    engine = profile.engine.model_copy(update={"workers": 1})
    with open_engine(engine, run.model) as opened:
        made = complete(
            opened, asked, greedy(profile.evaluation), work / "answers.sqlite", run.name
        )
    save_results(grade_answers(items, made), out)
    shutil.rmtree(work, ignore_errors=True)
