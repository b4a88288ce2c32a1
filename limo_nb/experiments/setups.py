"""Lines of a table that are each a model, perhaps trained, and a way to ask it (chapter 9).

A setup has a run for each of its seeds. The stages that compare many of them, the doses of
knowledge and the groups of the study, are lists of setups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from limo_nb.core.records import save_tables
from limo_nb.core.settings import Profile, Sampling, SftSettings
from limo_nb.evaluation import benchmark_items
from limo_nb.experiments.asking import Shot
from limo_nb.experiments.processes import in_processes, job_processes
from limo_nb.experiments.training_runs import TrainingRun, TrainingSpec, carry_out, results_of


@dataclass(frozen=True)
class ModelSetup:
    """A model, what it is trained on with each seed (nothing without), and how it is asked."""

    name: str  # in tables
    model: str
    rows: Path | None = None  # a Parquet file
    settings: SftSettings | None = None  # of the training
    seeds: tuple[int, ...] = (0,)
    way: str = "chat"
    shots: tuple[Shot, ...] = ()
    sampling: Sampling | None = None  # instead of that of the evaluation

    @property
    def file_name(self) -> str:
        """Its part of the names of result files."""
        return self.name.replace(" ", "-")


def carry_out_all(
    folder: Path, profile: Profile, setups: Sequence[ModelSetup], label: str,
    items: Dataset | None = None,
) -> dict[str, list[Dataset]]:  # fmt: skip
    """The tables of answers of every setup, one a seed; results that are there are final.

    They answer `items`, those of the benchmarks without. Raises ValueError where two setups
    would write to one file.
    """
    names = [setup.file_name for setup in setups]
    double = next((name for name in names if names.count(name) > 1), None)
    if double:
        raise ValueError(f"two setups are called {double!r}: their results would be one file")
    save_tables(folder, items=items or benchmark_items(profile.evaluation))
    runs = [run for setup in setups for run in _runs(setup, folder, profile)]
    models = {setup.model for setup in setups}
    processes = min(job_processes(profile.engine, model) for model in models)
    in_processes(carry_out, runs, processes, label)
    return {setup.name: results_of(folder, setup.file_name) for setup in setups}


def _runs(setup: ModelSetup, folder: Path, profile: Profile) -> Iterable[TrainingRun]:
    for seed in setup.seeds:
        training = (
            TrainingSpec(setup.rows, setup.settings, seed)
            if setup.rows and setup.settings else None
        )  # fmt: skip
        yield TrainingRun(
            f"{setup.file_name}-{seed}", setup.model, folder,
            setup.sampling or profile.evaluation.sampling, profile.engine,
            profile.system_prompt, training, setup.way, setup.shots,
        )  # fmt: skip
