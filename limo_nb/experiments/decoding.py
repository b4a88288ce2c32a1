"""How decoding shapes what a model scores: the measurements of chapter 7.

Nothing here is read by the evaluation of chapter 8, whose protocol is the profile's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from limo_nb.book import plots
from limo_nb.core.files import write_json
from limo_nb.core.runs import (
    Artifact,
    Run,
)
from limo_nb.core.settings import (
    EngineSettings,
    EvaluationSettings,
    Profile,
    Sampling,
)
from limo_nb.evaluation.attempts import grade_answers
from limo_nb.evaluation.benchmarks import benchmark_items
from limo_nb.evaluation.estimates import (
    Estimate,
    accuracy,
    difference,
    majority_vote,
)
from limo_nb.experiments import headline
from limo_nb.inference import (
    Engine,
    Prompt,
    chat_prompt,
    complete,
    model_digest,
    open_engine,
    shared_store,
    throughput,
)
from limo_nb.inference.budget_forcing import Forcer

HEATS = (0.4, 1.2)  # temperatures beside greedy and the profile's votes
NUCLEUS = 0.9  # top-p at the higher of them, which is also measured without
WAITS = 2  # times that a chain is made to go on
PARTS = (32, 16, 8, 4)  # a chain is made to conclude after these parts of the limit


def part_of(settings: EvaluationSettings) -> EvaluationSettings:
    """`settings` with a tenth of the items of each benchmark, at least two."""
    return settings.model_copy(update={"items": max(2, settings.items // 10)})


def ways(settings: EvaluationSettings) -> dict[str, Sampling]:
    """The decodings that are compared: greedy, the profile's votes, other temperatures.

    The others take a quarter of the votes' samples. The hottest is drawn from the whole
    distribution, and from the likeliest tokens that hold `NUCLEUS` of it (top-p).
    """
    votes = settings.votes
    samples = max(1, votes.samples // 4)
    mild, hot = (
        votes.model_copy(update={"samples": samples, "temperature": heat}) for heat in HEATS
    )
    return {
        "greedy": settings.sampling.model_copy(update={"temperature": 0.0, "samples": 1}),
        "votes": votes,
        "mild": mild,
        "hot": hot.model_copy(update={"top_p": 1.0}),
        "hot-nucleus": hot.model_copy(update={"top_p": NUCLEUS}),
    }


def limits(sampling: Sampling) -> list[int]:
    """The numbers of tokens after which chains are made to conclude."""
    return [max(1, sampling.max_new_tokens // part) for part in PARTS]


def named(sampling: Sampling) -> str:
    """A decoding in words: "greedy", "T = 0.8" or "T = 1.2, top-p 0.9"."""
    if sampling.temperature == 0:
        return "greedy"
    nucleus = "" if sampling.top_p == 1 else f", top-p {sampling.top_p:g}"
    return f"T = {sampling.temperature:g}{nucleus}"


def measure(run: Run) -> Artifact:
    """Stage `decoding`: <way>.parquet of the LIMO model, base.parquet, clock.json; and of
    forced budgets, waits/<times>.parquet and concluded/<limit>.parquet.

    The model is that of the first seed. Tables are rows of `evaluation.RESULTS`.
    Completions are kept in the store that the stages of a run share.
    """
    profile, base = run.profile, run.profile.models.base
    model = str(headline.trained(run, "limo", profile.sft.seeds[0]) / "model")
    part, chosen = part_of(profile.evaluation), ways(profile.evaluation)

    def make(folder: Path) -> None:
        items = benchmark_items(part)
        prompts = prompts_of(items, profile.system_prompt)
        # A few short answers: starting worker processes would take longer.
        with open_engine(_alone(profile), base) as engine:
            _answer(engine, items, prompts, {"base": chosen["greedy"]}, folder)
        with open_engine(profile.engine, model) as engine:
            _answer(engine, items, prompts, chosen, folder)
            _force(engine, model, items, prompts, part.sampling.max_new_tokens, folder)
        clocked = [prompt for _, prompt in prompts]
        write_json(
            folder / "clock.json", throughput.clock(_alone(profile), model, clocked, folder)
        )

    return run.make(
        "decoding", make, inputs=[run.load("models/trained")],
        params={
            "part": part, "ways": chosen, "base": model_digest(base),
            "waits": WAITS, "limits": limits(part.sampling),
            "system_prompt": profile.system_prompt, "engine": profile.engine,
        },
    )  # fmt: skip


def prompts_of(items: Dataset, system: str) -> list[tuple[str, Prompt]]:
    """(id, conversation) of every item."""
    return [(row["id"], chat_prompt(row["question"], system)) for row in items]


def _answer(
    engine: Engine, items: Dataset, prompts: Sequence[tuple[str, Prompt]],
    samplings: Mapping[str, Sampling], folder: Path,
) -> None:  # fmt: skip
    """Write the graded answers of an opened model, one table per way of sampling."""
    for name, sampling in samplings.items():
        answers = complete(engine, prompts, sampling, shared_store(folder, engine), name)
        grade_answers(items, answers).to_parquet(str(folder / f"{name}.parquet"))


def _force(
    engine: Engine, model: str, items: Dataset, prompts: Sequence[tuple[str, Prompt]],
    room: int, folder: Path,
) -> None:  # fmt: skip
    """Write the graded greedy answers under forced budgets (see `forcing`)."""
    greedy = Dataset.from_parquet(str(folder / "greedy.parquet"), keep_in_memory=True)
    forcer = Forcer(engine, model, shared_store(folder, engine))
    forced, answers = {}, greedy
    for times in range(1, WAITS + 1):
        answers = forcer.lengthened(prompts, answers, room)
        forced[f"waits/{times}"] = answers
    for limit in limits(Sampling(max_new_tokens=room)):
        forced[f"concluded/{limit}"] = forcer.concluded(prompts, greedy, limit)
    for name, table in forced.items():
        (folder / name).parent.mkdir(exist_ok=True)
        grade_answers(items, table).to_parquet(str(folder / f"{name}.parquet"))


def _alone(profile: Profile) -> EngineSettings:
    """The profile's engine without worker processes."""
    return profile.engine.model_copy(update={"workers": 1})


def load(stage: Artifact, pattern: str = "*.parquet") -> dict[str, Dataset]:
    """The tables of a stage by name, with the items of all benchmarks as one sample.

    A few items of each benchmark are asked. Drawn within their benchmark, as the
    evaluation draws its many, three that are all right would seem to be certain.
    """
    return {path.stem: _pooled(path) for path in sorted(stage.path.glob(pattern))}


def _pooled(path: Path) -> Dataset:
    table = Dataset.from_parquet(str(path), keep_in_memory=True)
    rows = [{**row, "benchmark": "all"} for row in table]
    return Dataset.from_list(rows, features=table.features)


def cut(results: Dataset, limit: int) -> Dataset:
    """The same answers as they would have ended under a limit of `limit` new tokens.

    The end token needs room too, so an answer of t tokens ends where t < limit. What is
    cut counts as wrong, as in the evaluation. A limit above that of `results` changes
    nothing.
    """

    def ended(row: dict[str, Any]) -> dict[str, Any]:
        if row["tokens"] < limit:
            return row
        return {**row, "correct": False, "answer": None, "reason": "truncated",
                "finished": False, "tokens": limit}  # fmt: skip

    return Dataset.from_list([ended(row) for row in results], features=results.features)


def voted(results: Dataset, votes: int) -> Dataset:
    """Majority votes among `votes` samples of each item: a row per item and first voter.

    The voters are every run of `votes` neighbouring samples, the last followed by the
    first, so that an estimate does not hang on the order in which samples were drawn;
    the rows of an item are its `sample`s.
    """
    own: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(results, key=lambda row: row["sample"]):
        own.setdefault(row["id"], []).append(row)
    ballots = [
        {**rows[(first + place) % len(rows)], "id": f"{first} {name}", "sample": place}
        for name, rows in own.items()
        for first in range(len(rows))
        for place in range(votes)
    ]
    winners = majority_vote(Dataset.from_list(ballots, features=results.features), votes)
    return winners.map(_by_item, features=results.features)


def _by_item(row: dict[str, Any]) -> dict[str, Any]:
    first, _, name = row["id"].partition(" ")
    return {"id": name, "sample": int(first)}


def compared(results: Dataset, others: Dataset) -> tuple[str, Estimate]:
    """(word, difference) of two accuracies over the same items: whether one is higher.

    "not clearly apart" says that the 95 % interval of the difference holds zero.
    """
    gap = difference([results], [others])
    word = "higher" if gap.low > 0 else "lower" if gap.high < 0 else "not clearly apart"
    return word, gap


def against(results: Dataset, others: Dataset) -> tuple[str, str]:
    """The word of `compared`, and the difference in points with its 95 % interval."""
    word, gap = compared(results, others)
    value, low, high = plots.percent(gap)
    return word, f"{value:+.1f} points ({low:+.1f} to {high:+.1f})".replace("-", "−")


def summary(named_results: Mapping[str, Dataset]) -> list[dict[str, Any]]:
    """A row for `plots.points` and a table: accuracy with interval, lengths, what was cut."""
    rows = []
    for name, results in named_results.items():
        score = accuracy([results])
        rows.append(
            {
                **plots.row(name, score),
                "decoding": name,
                "answers": len(results),
                "right (%)": f"{100 * score.value:.1f}",
                "median tokens": f"{np.median(results['tokens']):.0f}",
                "cut off": score.truncated,
                "not verifiable": score.unverifiable,
            }
        )
    return rows


def told(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `summary` as a sentence, for the text beside a picture."""
    return "; ".join(
        f"{r['label']}: {r['value']:.1f} % ({r['low']:.1f} to {r['high']:.1f})" for r in rows
    )


def beside_first(named_results: Mapping[str, Dataset]) -> str:
    """How each compares with the first, in pairs: "Against greedy: T = 1.2 lower"."""
    (name, first), *others = named_results.items()
    groups: dict[str, list[str]] = {}
    for other, results in others:
        groups.setdefault(compared(results, first)[0], []).append(other)
    said = "; ".join(f"{' and '.join(names)} {word}" for word, names in groups.items())
    return f"Against {name}: {said}"


def curve(results: Dataset, limits: Sequence[int]) -> list[tuple[float, float, float]]:
    """(value, low, high) in percent of the same answers under each limit."""
    return [plots.percent(accuracy([cut(results, limit)])) for limit in limits]


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
    one = plots.percent(accuracy([sampled]))
    return {
        "pass@k: one of k is right": [plots.percent(accuracy([sampled], k=k)) for k in ks],
        "cons@k: majority of k": [plots.percent(accuracy([voted(sampled, k)])) for k in ks],
        "pass@1": [one] * len(ks),
    }
