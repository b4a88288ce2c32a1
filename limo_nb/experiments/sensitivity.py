"""How much of a score is protocol? The measurements of the appendix, chapter 11.

The completions are fixed; what varies afterwards is in `reanalysis`. Temperature and
prompt need completions of their own.
"""

from __future__ import annotations

from pathlib import Path

from limo_nb.core.records import save_tables
from limo_nb.core.runs import Artifact, Run
from limo_nb.core.settings import EvaluationSettings, Profile, Sampling
from limo_nb.evaluation import benchmark_items, compared_part, grade_answers
from limo_nb.experiments.headline import trained
from limo_nb.inference import Prompt, complete, model_digest, open_engine

# The system prompts that are compared; None sends no system message at all, so that the
# chat template puts in its own.
PROMPTS: dict[str, str | None] = {
    "no system prompt": None,
    "helpful assistant": "You are a helpful assistant.",
    "box only": "Put your final answer within \\boxed{}.",
}
# What is sampled under the prompt of training, as many samples as votes are taken of; at 0
# all samples of a problem would be the same. Fewer are `reanalysis.first_samples` of them.
TEMPERATURES = {"greedy": 0.0, "T 0.6": 0.6, "T 0.7": 0.7}

Condition = tuple[str | None, Sampling]  # system prompt, decoding


def conditions(
    settings: EvaluationSettings, system_prompt: str
) -> dict[str, tuple[str | None, Sampling]]:
    """How each model is asked, by name.

    From the sampling and the votes of the evaluation, and the `system_prompt` of training.
    """
    found: dict[str, Condition] = {}
    for name, temperature in TEMPERATURES.items():
        samples = settings.votes.samples if temperature else 1
        changes = {"samples": samples, "temperature": temperature}
        found[name] = (system_prompt, settings.sampling.model_copy(update=changes))
    greedy = found["greedy"][1]
    return found | {name: (prompt, greedy) for name, prompt in PROMPTS.items()}


def run_conditions(run: Run) -> Artifact:
    """Stage `sensitivity`: the tables items, and <model>-<condition> for base and limo.

    The LIMO model is that of the first seed; the tables are `evaluation.RESULTS`.
    """
    base = run.profile.models.base
    tuned = trained(run, "limo", run.profile.sft.seeds[0]) / "model"
    models = {"base": base, "limo": str(tuned)}

    def make(folder: Path, profile: Profile) -> None:
        items = benchmark_items(compared_part(profile.evaluation))
        asked = conditions(profile.evaluation, profile.system_prompt)
        save_tables(folder, items=items)
        for name, model in models.items():
            with open_engine(profile.engine, model) as engine:
                for condition, (system, sampling) in asked.items():
                    prompts = [(row["id"], _prompt(row["question"], system)) for row in items]
                    store, label = folder / "answers.sqlite", f"{name}, {condition}"
                    answers = complete(engine, prompts, sampling, store, label)
                    save_tables(
                        folder, **{f"{name}-{condition}": grade_answers(items, answers)}
                    )

    return run.make(
        "sensitivity", make, inputs=[run.load("models/trained")],
        reads=("evaluation", "engine", "system_prompt"),
        params={"base": model_digest(base), "seed": run.profile.sft.seeds[0]},
    )  # fmt: skip


def _prompt(question: str, system: str | None) -> Prompt:
    opening = [] if system is None else [{"role": "system", "content": system}]
    return [*opening, {"role": "user", "content": question}]
