"""The arms of the experiment: which rows train which model, and what came of it.

The headline arms (chapter 6) are trained by DeepSpeed, all of them by one start; the
small arms of the ablations (chapter 9) by the same `Trainer` in a few resident
processes. Every arm keeps the learning rate, schedule and seeds of its profile.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

from datasets import Dataset

from limo_nb.chains import (
    choice,
)
from limo_nb.core.files import write_json
from limo_nb.core.runs import (
    Artifact,
    Run,
)
from limo_nb.core.settings import (
    Profile,
    SftSettings,
)
from limo_nb.evaluation import (
    benchmarks,
    estimates,
)
from limo_nb.experiments.differences import paired
from limo_nb.experiments.headline import _evaluate_job, _Job, steps_of
from limo_nb.experiments.processes import spread
from limo_nb.experiments.variants import _rows, row_tokens, sampled_chains, table
from limo_nb.inference import (
    model_digest,
)

# --------------------------------------------------------------------------- ablations
BANDS = {"easy": (1, 2), "medium": (3, 5), "hard": (6, 8)}  # levels of the questions
MATCHED = {"matched-poor": 1, "matched-rich": 2}  # arms -> bands of `matched_levels`
ABLATION_PAIRS = (
    ("quality-L5", "quality-L1"), ("matched-rich", "matched-poor"),
    ("questions-hard", "questions-easy"),
)  # fmt: skip


def ablation_sets(run: Run) -> Artifact:
    """Stage `ablations/sets`: one parquet of rows for every small arm, and sizes.json.

    quality-L1..L5: the same questions with their worst to best correct chain; where no
    question has five chains, bands over all chains (levels.json says which).
    matched-poor/rich: two chains a question of equal length, with the poorest and the
    richest habits; absent where no question has two such chains.
    questions-easy/medium/hard: questions by level, best chain each.
    rows-N: N of the chosen rows at random, each set within the next larger one.
    bulk-tokens: bulk rows with as many tokens as the chosen rows have over all epochs.
    """
    profile = run.profile
    pool, found, rows = run.load("pool"), run.load("chains"), run.load("rows")
    sets = run.load("models/sets")

    def make(folder: Path) -> None:
        limit = profile.ablations.rows
        banded, within = quality_bands(table(found / "chains.parquet"))
        write_json(folder / "levels.json", {"within": within})
        names = {f"quality-L{band}": _band(banded, band, limit) for band in range(1, 6)}
        names |= _matched(table(found / "chains.parquet"), limit)
        names |= _by_level(profile, table(pool / "pool.parquet"), limit, folder)
        limo = table(rows / "limo.parquet")
        for size in profile.ablations.sizes:
            names[f"rows-{size}"] = limo.shuffle(seed=profile.pool.seed).select(
                range(min(size, len(limo)))
            )
        bulk = table(sets / "bulk.parquet")
        names["bulk-tokens"] = bulk.select(range(_equal_tokens(profile, limo, bulk)))
        for name, chosen in names.items():
            _rows(chosen).to_parquet(folder / f"{name}.parquet")
        write_json(folder / "sizes.json", {name: len(rows) for name, rows in names.items()})

    return run.make(
        "ablations/sets", make, inputs=[pool, found, rows, sets],
        params={
            "ablations": profile.ablations, "chains": profile.chains,
            "epochs": profile.sft.epochs,
            "teachers": {name: model_digest(name) for name in profile.teachers},
        },
    )  # fmt: skip


def quality_bands(found: Dataset) -> tuple[Dataset, str]:
    """Chains in five bands, and within what: each "question", or the "pool" of all.

    The second where no question has five different correct chains, as happens with few
    samples: then the bands differ in questions too.
    """
    counts = Counter(found["question_id"])
    within = "question" if max(counts.values()) >= 5 else "pool"
    return choice.levels(found, within=within), within


def _matched(found: Dataset, limit: int) -> dict[str, list[dict]]:
    """The arms of equal length; none where no question has two chains equally long."""
    try:
        banded = choice.matched_levels(found)
    except ValueError:
        return {}
    return {name: _band(banded, band, limit) for name, band in MATCHED.items()}


def _band(banded: Dataset, band: int, limit: int) -> list[dict]:
    """One chain of `band` per question, for the first `limit` questions by id."""
    rows = {row["question_id"]: row for row in banded if row["band"] == band}
    return [rows[key] for key in sorted(rows)][:limit]


def _by_level(profile: Profile, pool: Dataset, limit: int, folder: Path) -> dict[str, Any]:
    """Best chains of easy, medium and hard questions; equal counts."""
    rng = random.Random(profile.pool.seed)
    asked: list[dict] = []
    for low, high in BANDS.values():
        fitting = [row for row in pool if low <= row["level"] <= high]
        asked += rng.sample(fitting, min(len(fitting), limit + limit // 3 + 2))
    found = sampled_chains(profile, Dataset.from_list(asked), folder, "by-level")
    best = choice.best_per_question(found)
    chosen = {
        f"questions-{name}": [row for row in best if low <= row["level"] <= high]
        for name, (low, high) in BANDS.items()
    }
    count = min(limit, *map(len, chosen.values()))
    if not count:
        lacking = ", ".join(name for name, rows in chosen.items() if not rows)
        raise ValueError(f"no chains for {lacking}: raise pool.size or chains.sampling.samples")
    return {name: rows[:count] for name, rows in chosen.items()}


def _equal_tokens(profile: Profile, limo: Dataset, bulk: Dataset) -> int:
    """How many bulk rows have the tokens of the chosen rows over all epochs."""
    budget = profile.sft.epochs * sum(row_tokens(profile, limo))
    for count, tokens in enumerate(row_tokens(profile, bulk)):
        if budget <= 0:
            return max(1, count)
        budget -= tokens
    return len(bulk)


def run_ablations(run: Run) -> Artifact:
    """Stage `ablations`: train and evaluate every small arm with every seed.

    Leaves results-<arm>-<seed>.parquet, table.json and differences.json as chapter 8
    does, and settings.json: rows, epochs, batch and steps of every arm.
    """
    profile, sets, rows = run.profile, run.load("ablations/sets"), run.load("rows")
    sizes = sets.json("sizes.json")

    def make(folder: Path) -> None:
        benchmarks.benchmark_items(profile.evaluation).to_parquet(folder / "items.parquet")
        # The small arms differ in their rows alone: no epoch is chosen.
        plain = profile.sft.model_copy(update={"keep_epochs": False, "held_out": 0.0})
        limo = len(table(rows / "limo.parquet"))
        settings = {arm: _arm_settings(plain, arm, size, limo) for arm, size in sizes.items()}
        jobs = [
            _Job(
                f"{arm}-{seed}", profile.models.base, profile, str(folder),
                str(sets / f"{arm}.parquet"), settings[arm], seed,
            )
            for seed in profile.ablations.seeds
            for arm in sizes
        ]  # fmt: skip
        spread(_evaluate_job, jobs, profile.engine.workers, "arms trained and evaluated")
        results = {
            arm: [
                table(folder / f"results-{arm}-{seed}.parquet")
                for seed in profile.ablations.seeds
            ]
            for arm in sizes
        }
        write_json(
            folder / "settings.json",
            {
                arm: {
                    "rows": size, "epochs": settings[arm].epochs,
                    "batch": settings[arm].batch_size,
                    "steps": steps_of(settings[arm], size),
                }
                for arm, size in sizes.items()
            },
        )  # fmt: skip
        write_json(folder / "table.json", estimates.table(results))
        pairs = [pair for pair in ABLATION_PAIRS if set(pair) <= set(results)]
        write_json(folder / "differences.json", paired(results, pairs))

    return run.make(
        "ablations", make, inputs=[sets, rows],
        params={
            "sft": profile.sft, "ablations": profile.ablations,
            "evaluation": profile.evaluation, "system_prompt": profile.system_prompt,
            "base": model_digest(profile.models.base),
        },
    )  # fmt: skip


def _arm_settings(settings: SftSettings, arm: str, rows: int, limo: int) -> SftSettings:
    """The profile's settings; all arms but bulk take the steps of the chosen rows.

    With fewer rows an arm takes more epochs, so that arms differ in what they see and
    not in how long they train.
    """
    if arm == "bulk-tokens":
        return settings.model_copy(update={"epochs": 1})
    steps = steps_of(settings, limo)
    size = min(settings.batch_size, rows)
    epochs = max(1, round(steps / math.ceil(rows / size)))
    return settings.model_copy(update={"epochs": epochs, "batch_size": size})
