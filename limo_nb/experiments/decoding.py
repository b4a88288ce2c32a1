"""How decoding shapes what a model scores: the measurements of chapter 7.

Nothing here is read by the evaluation of chapter 8, whose protocol is the profile's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from limo_nb.core.files import write_json
from limo_nb.core.records import load_table, save_tables
from limo_nb.core.runs import Artifact, Run
from limo_nb.core.settings import EvaluationSettings, Profile, Sampling
from limo_nb.evaluation import (
    Estimate,
    accuracy,
    benchmark_items,
    compared_part,
    difference,
    grade_answers,
    percent,
    prompts_of,
    told,
)
from limo_nb.experiments.headline import trained
from limo_nb.experiments.reanalysis import cut, voted
from limo_nb.inference import (
    BudgetForcer,
    Engine,
    Prompt,
    complete,
    model_digest,
    open_engine,
    shared_store,
    throughput,
)

TEMPERATURES = (0.4, 1.2)  # beside greedy and the profile's votes
NUCLEUS = 0.9  # top-p at the higher of them, which is also measured without
WAITS = 2  # times that a chain is made to go on
PARTS = (32, 16, 8, 4)  # a chain is made to conclude after these parts of the limit


def samplings(settings: EvaluationSettings) -> dict[str, Sampling]:
    """The decodings that are compared: greedy, the profile's votes, other temperatures.

    The others take a quarter of the votes' samples. The hottest is drawn from the whole
    distribution, and from the likeliest tokens that hold `NUCLEUS` of it (top-p).
    """
    votes = settings.votes
    samples = max(1, votes.samples // 4)
    mild, hot = (
        votes.model_copy(update={"samples": samples, "temperature": temperature})
        for temperature in TEMPERATURES
    )
    return {
        "greedy": settings.sampling.model_copy(update={"temperature": 0.0, "samples": 1}),
        "votes": votes,
        "mild": mild,
        "hot": hot.model_copy(update={"top_p": 1.0}),
        "hot-nucleus": hot.model_copy(update={"top_p": NUCLEUS}),
    }


def limits(max_new_tokens: int) -> list[int]:
    """The numbers of tokens after which chains are made to conclude."""
    return [max(1, max_new_tokens // part) for part in PARTS]


def named(sampling: Sampling) -> str:
    """A decoding in words: "greedy", "T = 0.8" or "T = 1.2, top-p 0.9"."""
    if sampling.temperature == 0:
        return "greedy"
    nucleus = "" if sampling.top_p == 1 else f", top-p {sampling.top_p:g}"
    return f"T = {sampling.temperature:g}{nucleus}"


# ---------------------------------------------------------------- the stage
def run_decodings(run: Run) -> Artifact:
    """Stage `decoding`: a table for each of `samplings`, base, clock.json; forced budgets.

    Of these, waits/<times>.parquet and concluded/<limit>.parquet. The model is limo's of
    the first seed; the tables are `evaluation.RESULTS`. Completions are kept in the store
    that the stages of a run share.
    """
    base = run.profile.models.base
    model = str(trained(run, "limo", run.profile.sft.seeds[0]) / "model")

    def make(folder: Path, profile: Profile) -> None:
        part, chosen = compared_part(profile.evaluation), samplings(profile.evaluation)
        items = benchmark_items(part)
        prompts = prompts_of(items, profile.system_prompt)
        # A few short answers: starting worker processes would take longer.
        alone = profile.engine.model_copy(update={"workers": 1})
        with open_engine(alone, base) as engine:
            _answer(engine, items, prompts, {"base": chosen["greedy"]}, folder)
        with open_engine(profile.engine, model) as engine:
            _answer(engine, items, prompts, chosen, folder)
            _force(engine, model, items, prompts, part.sampling.max_new_tokens, folder)
        clocked = [prompt for _, prompt in prompts]
        write_json(folder / "clock.json", throughput.clock(alone, model, clocked, folder))

    return run.make(
        "decoding", make, inputs=[run.load("models/trained")],
        reads=("evaluation", "engine", "system_prompt"),
        params={"base": model_digest(base), "seed": run.profile.sft.seeds[0]},
    )  # fmt: skip


def _answer(
    engine: Engine, items: Dataset, prompts: Sequence[tuple[str, Prompt]],
    chosen: Mapping[str, Sampling], folder: Path,
) -> None:  # fmt: skip
    """Write the graded answers of an opened model, one table per way of sampling."""
    for name, sampling in chosen.items():
        answers = complete(engine, prompts, sampling, shared_store(folder, engine), name)
        save_tables(folder, **{name: grade_answers(items, answers)})


def _force(
    engine: Engine, model: str, items: Dataset, prompts: Sequence[tuple[str, Prompt]],
    max_new_tokens: int, folder: Path,
) -> None:  # fmt: skip
    """Write the graded greedy answers under forced budgets (see `BudgetForcer`)."""
    greedy = load_table(folder, "greedy")
    forcer = BudgetForcer(engine, model, shared_store(folder, engine))
    for part in ("waits", "concluded"):
        (folder / part).mkdir(exist_ok=True)
    answers = greedy
    for times in range(1, WAITS + 1):
        answers = forcer.lengthened(prompts, answers, max_new_tokens)
        save_tables(folder / "waits", **{str(times): grade_answers(items, answers)})
    for limit in limits(max_new_tokens):
        concluded = forcer.concluded(prompts, greedy, limit)
        save_tables(folder / "concluded", **{str(limit): grade_answers(items, concluded)})


# ---------------------------------------------------------------- what the tables say
def direction(results: Dataset, others: Dataset) -> tuple[str, Estimate]:
    """(word, difference) of two accuracies over the same items: whether one is higher.

    "not clearly apart" says that the 95 % interval of the difference holds zero.
    """
    gap = difference([results], [others])
    word = "higher" if gap.low > 0 else "lower" if gap.high < 0 else "not clearly apart"
    return word, gap


def against(results: Dataset, others: Dataset) -> tuple[str, str]:
    """The word of `direction`, and the difference in points with its 95 % interval."""
    word, gap = direction(results, others)
    value, _, interval = told(vars(gap), signed=True).partition(" ")
    return word, f"{value} points {interval}"


def accuracy_rows(named_results: Mapping[str, Dataset]) -> list[dict[str, Any]]:
    """A row for `plots.points` and a table: accuracy with interval, lengths, what was cut."""
    rows = []
    for name, results in named_results.items():
        score = accuracy([results])
        value, low, high = percent(score)
        rows.append(
            {
                "label": name,
                "value": value,
                "low": low,
                "high": high,
                "decoding": name,
                "answers": len(results),
                "right (%)": f"{value:.1f}",
                "median tokens": f"{np.median(results['tokens']):.0f}",
                "cut off": score.truncated,
                "not verifiable": score.unverifiable,
            }
        )
    return rows


def rows_told(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `accuracy_rows` as a sentence, for the text beside a picture."""
    return "; ".join(
        f"{r['label']}: {r['value']:.1f} % ({r['low']:.1f} to {r['high']:.1f})" for r in rows
    )


def beside_first(named_results: Mapping[str, Dataset]) -> str:
    """How each compares with the first, in pairs: "Against greedy: T = 1.2 lower"."""
    (name, first), *others = named_results.items()
    groups: dict[str, list[str]] = {}
    for other, results in others:
        groups.setdefault(direction(results, first)[0], []).append(other)
    said = "; ".join(f"{' and '.join(names)} {word}" for word, names in groups.items())
    return f"Against {name}: {said}"


def curve(results: Dataset, limits: Sequence[int]) -> list[tuple[float, float, float]]:
    """(value, low, high) in percent of the same answers under each limit."""
    return [percent(accuracy([cut(results, limit)])) for limit in limits]


def steepest(
    name: str, values: Sequence[tuple[float, float, float]], limits: Sequence[int]
) -> str:
    """Where `values` reach half of their last one, and the limit before."""
    half = next(i for i, at in enumerate(values) if at[0] >= values[-1][0] / 2)
    return f"{name} has " + ", ".join(
        f"{values[place][0]:.0f} % right under a limit of {limits[place]} tokens"
        for place in sorted({max(0, half - 1), half})
    )


def by_votes(sampled: Dataset, ks: Sequence[int]) -> dict[str, list[Any]]:
    """pass@k, cons@k and pass@1 with their intervals, in percent, for each of `ks`."""
    one = percent(accuracy([sampled]))
    return {
        "pass@k: one of k is right": [percent(accuracy([sampled], k=k)) for k in ks],
        "cons@k: majority of k": [percent(accuracy([voted(sampled, k)])) for k in ks],
        "pass@1": [one] * len(ks),
    }
