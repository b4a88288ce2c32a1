"""The dose of knowledge: foundations that read less or more, and what the same rows elicit.

LIMO's hypothesis says that a few rows bring out what pretraining laid down. So foundations
of the lab that differ in nothing but the number of tokens that they read are fine-tuned on
the same rows. What a foundation knows is its share of right answers at the foot of a textbook
page; what it shows is that in a chat, before and after. Chapter 9; no paper has this figure.
"""

from __future__ import annotations

from pathlib import Path

from limo_nb import lab
from limo_nb.core.files import write_json
from limo_nb.core.records import load_table
from limo_nb.core.runs import Artifact, Run
from limo_nb.core.settings import Profile, SftSettings
from limo_nb.evaluation import accuracies
from limo_nb.experiments.ablations import ablation_settings
from limo_nb.experiments.budgets import steps_of
from limo_nb.experiments.setups import ModelSetup, carry_out_all
from limo_nb.inference import model_digest

BEFORE = ("textbook", "chat")  # how a foundation is asked before it is fine-tuned


def run_doses(run: Run) -> Artifact:
    """Stage `doses`: every dose of `ablations.doses` asked, fine-tuned, and asked again.

    Leaves the tables results-<dose>-<way>-<seed>, where a way is one of `BEFORE` or a set of
    `ablations.dose_sets`, and table.json, whose models are named "<millions> <way>". Raises
    ValueError for a dose that no model has.
    """
    sets, models = run.load("models/sets"), foundations(run.profile)

    def make(folder: Path, profile: Profile) -> None:
        own = profile.ablations
        setups = [
            setup
            for dose, model in models.items()
            for setup in (
                *(ModelSetup(f"{dose} {way}", model, way=way) for way in BEFORE),
                *(
                    ModelSetup(
                        f"{dose} {rows}", model, sets / f"{rows}.parquet",
                        equal_steps(profile, sets, rows), own.dose_seeds,
                    )
                    for rows in own.dose_sets
                ),
            )
        ]  # fmt: skip
        results = carry_out_all(folder, profile, setups, "foundations asked and fine-tuned")
        write_json(folder / "table.json", accuracies(results))

    return run.make(
        "doses", make, inputs=[sets],
        reads=("ablations", "sft", "evaluation", "engine", "system_prompt"),
        params={model: model_digest(model) for model in models.values()},
    )  # fmt: skip


def foundations(profile: Profile) -> dict[int, str]:
    """The foundation of every dose of the profile, in millions of tokens read.

    Raises ValueError for a dose that no model has.
    """
    known, wanted = lab.doses(), profile.ablations.doses
    unknown = [dose for dose in wanted if dose not in known]
    if unknown:
        there = ", ".join(map(str, known))
        raise ValueError(
            f"no foundation has read {unknown[0]} million tokens; there are {there}"
        )
    return {dose: f"lab:{known[dose]}" for dose in wanted}


def equal_steps(profile: Profile, sets: Artifact, rows: str) -> SftSettings:
    """As in chapter 6: as many steps for every set."""
    steps = steps_of(profile.sft, len(load_table(sets, "limo")))
    return ablation_settings(profile.sft, rows, len(load_table(sets, rows)), steps)
