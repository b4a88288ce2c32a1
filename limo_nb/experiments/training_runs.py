"""One model: trained, if there are rows for it, then put to the benchmarks.

The evaluation of chapter 8 and the ablations of chapter 9 are many of these, each in a
process (`processes.in_processes`).
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from limo_nb.core.records import load_table
from limo_nb.core.runs import Artifact
from limo_nb.core.settings import EngineSettings, Sampling, SftSettings
from limo_nb.evaluation import evaluate, save_results
from limo_nb.experiments.asking import Shot, prompts
from limo_nb.sft import fine_tune_here


@dataclass(frozen=True)
class TrainingSpec:
    """The rows of a model, a Parquet file, and how it is trained on them."""

    rows: Path
    settings: SftSettings
    seed: int


@dataclass(frozen=True)
class TrainingRun:
    """A model to evaluate on `folder`/items.parquet, after `training` where there is one.

    It is asked in the way `way` (`asking.WAYS`), few-shot after `shots`.
    """

    name: str  # variant and seed, as in results-<name>.parquet
    model: str
    folder: Path
    sampling: Sampling
    engine: EngineSettings
    system_prompt: str
    training: TrainingSpec | None = None
    way: str = "chat"
    shots: tuple[Shot, ...] = ()


def carry_out(run: TrainingRun) -> None:
    """Write results-<name>.parquet; a file that is there is final."""
    out, work = run.folder / f"results-{run.name}.parquet", run.folder / f"work-{run.name}"
    if out.exists():
        return
    model = run.model
    if run.training:
        rows = load_table(run.training.rows.parent, run.training.rows.stem)
        model = str(
            fine_tune_here(
                rows, model, run.training.settings, run.training.seed, run.system_prompt, work
            )
        )
    # One process a model: starting workers would take longer than the work.
    engine = run.engine.model_copy(update={"workers": 1})
    items, kept = load_table(run.folder, "items"), work / "completions"
    system = run.system_prompt
    asked = prompts(run.way, items, system, model, run.shots, engine.chat)
    save_results(evaluate(model, items, run.sampling, engine, system, kept, prompts=asked), out)
    shutil.rmtree(work, ignore_errors=True)


def results_of(stage: Artifact | Path, name: str) -> list[Dataset]:
    """The tables of one model in `evaluation` or `ablations`, one a training seed."""
    folder = stage.path if isinstance(stage, Artifact) else stage
    own = re.compile(rf"results-{re.escape(name)}-\d+")
    files = sorted(file.stem for file in folder.glob("results-*.parquet"))
    return [load_table(folder, stem) for stem in files if own.fullmatch(stem)]
