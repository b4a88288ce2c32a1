"""How much of a score is protocol? The measurements of the appendix on protocols.

The completions are fixed; what varies afterwards is the grader, the estimator, the number
of samples and the token limit. Temperature and prompt need completions of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from datasets import Dataset

from limo_nb.core.runs import (
    Artifact,
    Run,
)
from limo_nb.core.settings import (
    Profile,
    Sampling,
)
from limo_nb.evaluation.attempts import grade_answers
from limo_nb.evaluation.benchmarks import benchmark_items
from limo_nb.experiments import headline
from limo_nb.experiments.decoding import part_of
from limo_nb.grading.extraction import (
    clean,
    final_answer,
)
from limo_nb.grading.verdicts import grade_many
from limo_nb.inference import (
    Prompt,
    complete,
    model_digest,
    open_engine,
)

# The system prompts that are compared; None sends no system message at all, so that the
# chat template puts in its own.
PROMPTS: dict[str, str | None] = {
    "no system prompt": None,
    "helpful assistant": "You are a helpful assistant.",
    "box only": "Put your final answer within \\boxed{}.",
}
# What is sampled under the prompt of training: (samples, temperature). At 0 all samples
# of a problem would be the same; fewer than these are `first_samples` of them.
SAMPLED = {"greedy": (1, 0.0), "T 0.6": (16, 0.6), "T 0.7": (16, 0.7)}


def ways(profile: Profile) -> dict[str, tuple[str | None, Sampling]]:
    """What is asked of each model: name -> (system prompt, decoding)."""
    one = profile.evaluation.sampling
    found: dict[str, tuple[str | None, Sampling]] = {}
    for name, (samples, heat) in SAMPLED.items():
        sampling = one.model_copy(update={"samples": samples, "temperature": heat})
        found[name] = (profile.system_prompt, sampling)
    greedy = found["greedy"][1]
    return found | {name: (prompt, greedy) for name, prompt in PROMPTS.items()}


def measure(run: Run) -> Artifact:
    """Stage `sensitivity`: items.parquet, and <model>-<way>.parquet for base and limo.

    The LIMO model is that of the first seed. Tables are rows of `evaluation.RESULTS`.
    """
    profile, part = run.profile, part_of(run.profile.evaluation)
    asked, tuned = ways(profile), headline.trained(run, "limo", profile.sft.seeds[0])
    models = {"base": profile.models.base, "limo": str(tuned / "model")}

    def make(folder: Path) -> None:
        items = benchmark_items(part)
        items.to_parquet(str(folder / "items.parquet"))
        for name, model in models.items():
            with open_engine(profile.engine, model) as engine:
                for way, (system, sampling) in asked.items():
                    prompts = [(row["id"], _prompt(row["question"], system)) for row in items]
                    store = folder / "answers.sqlite"
                    answers = complete(engine, prompts, sampling, store, f"{name}, {way}")
                    graded = grade_answers(items, answers)
                    graded.to_parquet(str(folder / f"{name}-{way}.parquet"))

    return run.make(
        "sensitivity", make, inputs=[run.load("models/trained")],
        params={
            "part": part, "ways": asked, "engine": profile.engine,
            "base": model_digest(profile.models.base),
        },
    )  # fmt: skip


def _prompt(question: str, system: str | None) -> Prompt:
    opening = [] if system is None else [{"role": "system", "content": system}]
    return [*opening, {"role": "user", "content": question}]


# ---------------------------------------------------------------- other graders
def _box_required(references: list[str], texts: list[str]) -> list[bool]:
    return [bool(v.correct) for v in grade_many(references, texts, boxed_only=True)]


def _same_text(references: list[str], texts: list[str]) -> list[bool]:
    answers = [final_answer(text) for text in texts]
    return [
        answer is not None and clean(answer) == clean(reference)
        for reference, answer in zip(references, answers, strict=True)
    ]


def _mentioned(references: list[str], texts: list[str]) -> list[bool]:
    return [reference in text for reference, text in zip(references, texts, strict=True)]


GRADERS: Mapping[str, Callable[[list[str], list[str]], list[bool]]] = {
    "no box, no answer": _box_required,
    "the same text": _same_text,
    "mentioned anywhere": _mentioned,
}


def regraded(results: Dataset, references: Mapping[str, str], grader: str) -> Dataset:
    """The same completions under another of GRADERS; `references` maps ids to answers.

    "mentioned anywhere" also counts answers that were cut off, as scripts that search the
    whole text do; the others count them as wrong.
    """
    wanted = [references[name] for name in results["id"]]
    right = np.array(GRADERS[grader](wanted, list(results["text"])))
    if grader != "mentioned anywhere":
        right &= np.array(results["finished"])
    columns = {name: results[name] for name in results.column_names}
    return Dataset.from_dict({**columns, "correct": right.tolist()}, features=results.features)


# ---------------------------------------------------------------- other estimators
def first_samples(results: Dataset, k: int) -> Dataset:
    """The first `k` samples of each item, as one run with `k` samples each.

    Raises ValueError where an item has fewer.
    """
    own: dict[tuple[str, str], list[tuple[int, int]]] = {}
    columns = zip(results["benchmark"], results["id"], results["sample"], strict=True)
    for index, (benchmark, name, sample) in enumerate(columns):
        own.setdefault((benchmark, name), []).append((sample, index))
    fewest = min(map(len, own.values()))
    if not 1 <= k <= fewest:
        raise ValueError(f"{k} samples of each item are wanted and there are {fewest}")
    return results.select([index for found in own.values() for _, index in sorted(found)[:k]])


def any_right(results: Dataset) -> Dataset:
    """One row per item, right if any sample is: what some scripts report as accuracy."""
    best: dict[str, int] = {}
    for index, (name, correct) in enumerate(
        zip(results["id"], results["correct"], strict=True)
    ):
        if name not in best or (correct and not results[best[name]]["correct"]):
            best[name] = index
    return results.select(list(best.values()))


def single_runs(results: Dataset) -> list[float]:
    """The accuracy of each sample number on its own: as many runs with one sample each."""
    runs: dict[int, list[bool]] = {}
    for sample, correct in zip(results["sample"], results["correct"], strict=True):
        runs.setdefault(sample, []).append(bool(correct))
    return [float(np.mean(runs[sample])) for sample in sorted(runs)]
