"""Benchmarks, evaluation and estimates with intervals (chapter 8; paper, section 4).

An accuracy is a mean over benchmarks of the mean over items of the share of samples that
are right, as the papers average. Answers that were cut off or could not be verified count
as not right, and every table says how many there were.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, Features, Value, concatenate_datasets
from scipy.stats import binomtest

from limo_nb import lab
from limo_nb.generation import chat_prompt, complete, open_engine
from limo_nb.grading import Verdict, grade_many
from limo_nb.problems import BENCHMARK_COLUMNS, data_root, real_benchmarks
from limo_nb.profiles import EngineSettings, EvaluationSettings, Sampling

DRAWS = 4000  # bootstrap resamples
LEVEL = 0.95
RESULTS = Features(
    {
        "benchmark": Value("string"),
        "in_domain": Value("bool"),
        "level": Value("int64"),
        "id": Value("string"),
        "sample": Value("int64"),
        "correct": Value("bool"),  # None: could not be verified
        "answer": Value("string"),
        "reason": Value("string"),
        "text": Value("string"),
        "tokens": Value("int64"),
        "finished": Value("bool"),
    }
)


# ---------------------------------------------------------------- items and runs
def benchmark_items(settings: EvaluationSettings) -> Dataset:
    """At most `settings.items` items of each benchmark, with the columns of a problem,
    `benchmark` and `in_domain`.

    "lab" stands for the lab's ten; other names are read from `LIMO_NB_DATA`. Where a
    benchmark has more items, the same random ones are taken every time.
    """
    tables = []
    if "lab" in settings.benchmarks:
        rows = lab.benchmarks(settings.items)
        tables.append(Dataset.from_list(rows, features=BENCHMARK_COLUMNS))
    names = [name for name in settings.benchmarks if name != "lab"]
    if names:
        root = data_root()
        if root is None:
            raise ValueError(
                f"benchmarks {names} are read from LIMO_NB_DATA/benchmarks: set it"
            )
        tables.append(_at_most(real_benchmarks(root, names), settings.items))
    if not tables:
        raise ValueError("evaluation.benchmarks is empty: name lab or a benchmark")
    return concatenate_datasets(tables)


def _at_most(items: Dataset, count: int) -> Dataset:
    places: dict[str, list[int]] = {}
    for index, name in enumerate(items["benchmark"]):
        places.setdefault(name, []).append(index)
    chosen = [
        index
        for name, own in places.items()
        for index in sorted(random.Random(name).sample(own, min(count, len(own))))
    ]
    return items.select(chosen)


def evaluate(
    model: str,
    items: Dataset,
    sampling: Sampling,
    engine_settings: EngineSettings,
    system_prompt: str,
    folder: Path,
) -> Dataset:
    """The answers of `model` to `items`, graded: a row of RESULTS per item and sample.

    Completions are kept in `folder` as they arrive, so that a killed run continues. The
    system prompt is the one of fine-tuning (README of the LIMO repository).
    """
    prompts = [(row["id"], chat_prompt(row["question"], system_prompt)) for row in items]
    with open_engine(engine_settings, model) as engine:
        store = folder / "completions.sqlite"
        answers = complete(engine, prompts, sampling, store, label=f"{Path(model).name}")
    return grade_answers(items, answers)


def grade_answers(items: Dataset, answers: Dataset) -> Dataset:
    """`answers` (id, sample, text, tokens, finished) to `items` as rows of RESULTS."""
    facts = {row["id"]: row for row in items}
    ended = answers.filter(lambda finished: finished, input_columns="finished")
    references = [facts[identifier]["answer"] for identifier in ended["id"]]
    verdicts = iter(grade_many(references, list(ended["text"])))
    cut = Verdict(False, None, "truncated")
    rows = []
    for answer in answers:
        item = facts[answer["id"]]
        verdict = next(verdicts) if answer["finished"] else cut
        rows.append({**answer, **vars(verdict)})
        rows[-1] |= {name: item[name] for name in ("benchmark", "in_domain", "level")}
    columns = {name: [row[name] for row in rows] for name in RESULTS}
    return Dataset.from_dict(columns, features=RESULTS)


def majority_vote(results: Dataset, votes: int) -> Dataset:
    """One row per item: the most frequent answer of its first `votes` samples.

    Samples without an answer do not vote; of equally frequent answers the one that came
    first wins. Two answers that are equal as mathematics but not as cleaned text count
    as two. The paper reports pass@1 only; chapter 7 compares.
    """
    chosen = []
    for _, rows in results.to_pandas().groupby(["benchmark", "id"], sort=False):
        first = rows.sort_values("sample").head(votes)
        counts = Counter(first["answer"].dropna())
        winner = counts.most_common(1)[0][0] if counts else None
        voted = first[first["answer"] == winner] if counts else first
        chosen.append(int(voted.index[0]))
    return results.select(chosen)


# ---------------------------------------------------------------- estimates
@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval (fractions), and what it rests on."""

    value: float
    low: float
    high: float
    items: int
    samples: int  # per item and seed
    seeds: int
    unverifiable: int  # answers, over all seeds
    truncated: int  # answers, over all seeds

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The unbiased estimate of P(at least one of k samples is right), from `samples`.

    1 − C(n−c, k) / C(n, k) (Chen et al. 2021, section 2.1). Raises ValueError unless
    1 ≤ k ≤ n and 0 ≤ c ≤ n.
    """
    if not (1 <= k <= samples and 0 <= correct <= samples):
        raise ValueError(f"pass@{k} of {correct} right among {samples} samples is undefined")
    return 1 - comb(samples - correct, k) / comb(samples, k)


def accuracy(results_by_seed: Sequence[Dataset], k: int = 1, seed: int = 0) -> Estimate:
    """pass@k of a model, from one table of results per fine-tuning seed.

    The value is the mean over benchmarks of the mean over items. The interval is a
    cluster bootstrap: items are drawn with replacement within their benchmark (all
    samples of an item together, the same items for all seeds), fine-tuning seeds
    are drawn with replacement, and the 2.5 and 97.5 percentiles of 4,000 draws are
    taken. Deviations are widened by √(n / (n − 1)), because the bootstrap variance of
    few clusters is too small by (n − 1) / n.

    What to expect of a 95 % interval: with three seeds whose differences outweigh all
    else it held the truth in 82 % of 150 simulations, because percentiles of three
    values lack the long tails of so few draws; where items and single answers dominate,
    in 98 %, because drawing seeds and items both counts the noise of single answers more
    than once (Owen 2007). With one seed the interval says nothing about other seeds. One
    benchmark, one seed, one sample: Wilson's interval.
    """
    tables = [_table_of(results) for results in results_by_seed]
    strata = _strata(tables, k)
    value, low, high = _interval(strata, (0.0, 1.0), seed)
    return Estimate(value, low, high, **_counts(tables))


def difference(
    a: Sequence[Dataset], b: Sequence[Dataset], k: int = 1, seed: int = 0
) -> Estimate:
    """pass@k of `a` minus that of `b`, paired over items, with the bootstrap of `accuracy`.

    Equally many seeds are paired in order; where one side has a single table (a model
    that was not fine-tuned), it is compared with every seed of the other. Raises
    ValueError for other numbers of seeds or different items.
    """
    tables_a, tables_b = ([_table_of(results) for results in side] for side in (a, b))
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise ValueError(f"{len(a)} and {len(b)} seeds cannot be paired: give equally many")
    _same_items(tables_a + tables_b)
    pairs = zip(_strata(tables_a, k), _strata(tables_b, k), strict=True)
    value, low, high = _interval([one - other for one, other in pairs], (-1.0, 1.0), seed)
    one, other = _counts(tables_a), _counts(tables_b)
    counts = {name: max(one[name], other[name]) for name in ("items", "samples", "seeds")}
    counts |= {name: one[name] + other[name] for name in ("unverifiable", "truncated")}
    return Estimate(value, low, high, **counts)


def _table_of(results: Dataset) -> pd.DataFrame:
    columns = ["benchmark", "id", "sample", "correct", "finished"]
    return results.select_columns(columns).to_pandas()


def _same_items(tables: Sequence[pd.DataFrame]) -> None:
    sets = [set(zip(t["benchmark"], t["id"], strict=True)) for t in tables]
    if not sets or not sets[0]:
        raise ValueError("no results to estimate from")
    for items in sets[1:]:
        if items != sets[0]:
            odd = sorted(items ^ sets[0])[0]
            raise ValueError(f"results are not over the same items: {'/'.join(odd)} differs")


def _strata(tables: Sequence[pd.DataFrame], k: int) -> list[np.ndarray]:
    """For each benchmark, in order of name, pass@k as an array of seeds × items."""
    _same_items(tables)
    scored = []
    for table in tables:
        right = table["correct"].eq(True).groupby([table["benchmark"], table["id"]])
        grouped = right.agg(["size", "sum"]).sort_index()
        scores = [
            pass_at_k(int(n), int(c), k)
            for n, c in zip(grouped["size"], grouped["sum"], strict=True)
        ]
        scored.append(pd.Series(scores, index=grouped.index))
    wide = pd.DataFrame(scored)  # seeds × (benchmark, id)
    names = wide.columns.get_level_values(0)
    return [wide.loc[:, names == name].to_numpy() for name in names.unique()]


def _interval(
    strata: Sequence[np.ndarray], bounds: tuple[float, float], seed: int
) -> tuple[float, float, float]:
    """Value and 95 % interval of the mean of stratum means; see `accuracy`."""
    value = float(np.mean([scores.mean() for scores in strata]))
    items = sum(scores.shape[1] for scores in strata)
    everything = np.concatenate([scores.ravel() for scores in strata])
    if np.ptp(everything) == 0:  # resampling cannot tell: the bound of n equal outcomes
        _, reach = wilson(0, items)
        low, high = value - reach, value + reach
    elif everything.size == strata[0].size == items and set(everything) <= {0.0, 1.0}:
        low, high = wilson(int(everything.sum()), items)
    else:
        tail = 100 * (1 - LEVEL) / 2
        low, high = np.percentile(_draws(strata, value, seed), [tail, 100 - tail])
    return value, max(bounds[0], float(low)), min(bounds[1], float(high))


def _draws(strata: Sequence[np.ndarray], value: float, seed: int) -> np.ndarray:
    """Bootstrap draws of the mean of stratum means: DRAWS numbers."""
    rng = np.random.default_rng(seed)
    seeds = strata[0].shape[0]
    by_seed = np.zeros((DRAWS, seeds))
    for scores in strata:
        count = scores.shape[1]
        means = scores.mean(axis=1)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS) / count
        by_seed += means + (weights @ scores.T - means) * _widening(count)
    by_seed /= len(strata)
    chosen = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS) / seeds
    effects = np.mean([scores.mean(axis=1) for scores in strata], axis=0) - value
    return (by_seed * chosen).sum(axis=1) + (_widening(seeds) - 1) * (chosen @ effects)


def _widening(count: int) -> float:
    return float(np.sqrt(count / (count - 1))) if count > 1 else 1.0


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    found = binomtest(right, count).proportion_ci(LEVEL, method="wilson")
    return found.low, found.high


def _counts(tables: Sequence[pd.DataFrame]) -> dict[str, int]:
    first = tables[0].groupby(["benchmark", "id"]).size()
    return {
        "items": len(first),
        "samples": int(first.max()),
        "seeds": len(tables),
        "unverifiable": sum(int(t["correct"].isna().sum()) for t in tables),
        "truncated": sum(int((~t["finished"].astype(bool)).sum()) for t in tables),
    }


# ---------------------------------------------------------------- tables
def groups(results: Dataset) -> dict[str, list[int]]:
    """Row numbers of each benchmark and of "in domain", "out of domain" and "all"."""
    names, inside = list(results["benchmark"]), list(results["in_domain"])
    found: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        found.setdefault(name, []).append(index)
    if len(found) > 1:
        found["in domain"] = [index for index, own in enumerate(inside) if own]
        found["out of domain"] = [index for index, own in enumerate(inside) if not own]
        found["all"] = list(range(len(names)))
    return {name: rows for name, rows in found.items() if rows}


def table(results: Mapping[str, Sequence[Dataset]]) -> list[dict[str, Any]]:
    """A row per model and group with its estimate: what `limo-nb results` prints.

    `results` maps each model to its tables, one per fine-tuning seed.
    """
    rows = []
    for model, by_seed in results.items():
        for group in groups(by_seed[0]):
            parts = [part.select(groups(part)[group]) for part in by_seed]
            facts = dict(vars(accuracy(parts)))
            rows.append(
                {"model": model, "group": group, "accuracy": facts.pop("value"), **facts}
            )
    return rows


def told(row: Mapping[str, Any], signed: bool = False) -> str:
    """A row of `table`, or a difference, in percent or points: "63.4 (58.1 to 68.0)"."""
    name, shape = "accuracy" if "accuracy" in row else "value", "+.1f" if signed else ".1f"
    value, low, high = (f"{100 * row[key]:{shape}}" for key in (name, "low", "high"))
    return f"{value} ({low} to {high})"


def relation(row: Mapping[str, Any]) -> str:
    """What a difference shows: "above", "below" or, if its interval holds 0, neither."""
    if row["low"] > 0:
        return "above"
    return "below" if row["high"] < 0 else "not separated from"


def compared(row: Mapping[str, Any]) -> str:
    """A difference as a sentence: "limo is above base: +31.2 points (+27.0 to +35.4)"."""
    value, _, interval = told(row, signed=True).partition(" ")
    return f"{row['model']} is {relation(row)} {row['against']}: {value} points {interval}"


# ---------------------------------------------------------------- a check of the grader
@dataclass(frozen=True)
class Agreement:
    """Our verdicts beside those that were recorded with real outputs."""

    outputs: int
    agreeing: int
    unverifiable: int
    disagreements: tuple[dict[str, Any], ...]  # id, model, recorded, ours, reference, answer

    @property
    def share(self) -> float:
        """The share of outputs on which both verdicts are the same."""
        return self.agreeing / self.outputs


RECORDED_MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def recorded_agreement(root: Path) -> Agreement:
    """Grade the recorded GSM8K outputs of four models under `root`/pool and compare.

    The file is openai/grade-school-math's: 1,319 problems, each with the output of four
    models and whether it was found correct. No problem text is in the result.
    """
    path = root / "pool" / "gsm8k_model_solutions.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: it is part of LIMO_NB_DATA/pool")
    outputs = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        if line.strip():
            record = json.loads(line)
            reference = record["ground_truth"].rpartition("A: ")[2].strip()
            outputs += [
                (f"gsm8k-test-{number}", model, reference, record[model])
                for model in RECORDED_MODELS
            ]
    verdicts = grade_many([o[2] for o in outputs], [o[3]["solution"] for o in outputs])
    differing = tuple(
        {"id": name, "model": model, "recorded": output["is_correct"],
         "ours": verdict.correct, "reference": reference, "answer": verdict.answer}
        for (name, model, reference, output), verdict in zip(outputs, verdicts, strict=True)
        if verdict.correct != output["is_correct"]
    )  # fmt: skip
    unverifiable = sum(verdict.correct is None for verdict in verdicts)
    return Agreement(len(outputs), len(outputs) - len(differing), unverifiable, differing)
