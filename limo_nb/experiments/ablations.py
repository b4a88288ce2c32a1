"""The ablations of chapter 9: small variants that differ from limo in one thing.

Each has a few rows, is trained with every seed of `ablations.seeds` in one process, and
takes the learning rate and the schedule of the headline variants.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from limo_nb.chains import best_per_question, levels, matched_levels
from limo_nb.core.files import write_json
from limo_nb.core.records import load_table, save_tables
from limo_nb.core.runs import Artifact, Run
from limo_nb.core.settings import Profile, SftSettings
from limo_nb.evaluation import accuracies, benchmark_items
from limo_nb.experiments.budgets import row_tokens, rows_within, steps_of, with_more_epochs
from limo_nb.experiments.differences import paired
from limo_nb.experiments.processes import in_processes, job_processes
from limo_nb.experiments.training_runs import TrainingRun, TrainingSpec, carry_out, results_of
from limo_nb.experiments.variants import sampled_chains, training_rows
from limo_nb.inference import model_digest

BANDS = {"easy": (1, 2), "medium": (3, 5), "hard": (6, 8)}  # levels of the questions
MATCHED = {"matched-poor": 1, "matched-rich": 2}  # variants -> bands of `matched_levels`
ABLATION_PAIRS = (
    ("quality-L5", "quality-L1"), ("matched-rich", "matched-poor"),
    ("questions-hard", "questions-easy"),
)  # fmt: skip

Rows = Iterable[Mapping[str, Any]]


# ---------------------------------------------------------------- training sets
def ablation_sets(run: Run) -> Artifact:
    """Stage `ablations/sets`: a table of rows for every small variant, and sizes.json.

    quality-L1..L5, those of `ablations.levels`: the same questions with their worst to best
    correct chain; where no question has five chains, bands over all chains (levels.json
    says which).
    matched-poor/rich: two chains a question of equal length, with the poorest and the
    richest habits; absent where no question has two such chains.
    questions-easy/medium/hard: questions by level, best chain each.
    rows-N: N of the chosen rows at random, each set within the next larger one.
    bulk-tokens: bulk rows with as many tokens as the chosen rows have over all epochs.
    """
    pool, found, rows = run.load("pool"), run.load("chains"), run.load("rows")
    sets, base = run.load("models/sets"), run.profile.models.base

    def make(folder: Path, profile: Profile) -> None:
        limit, chains = profile.ablations.rows, load_table(found, "chains")
        limo, bulk = load_table(rows, "limo"), load_table(sets, "bulk")
        banded, within = quality_bands(chains)
        write_json(folder / "levels.json", {"within": within})
        chosen: dict[str, Rows] = {
            f"quality-L{band}": one_band(banded, band, limit)
            for band in profile.ablations.levels
        }
        chosen |= _matched(chains, limit)
        chosen |= _by_level(profile, load_table(pool, "pool"), limit, folder)
        for size in profile.ablations.sizes:
            shuffled = limo.shuffle(seed=profile.pool.seed)
            chosen[f"rows-{size}"] = shuffled.select(range(min(size, len(limo))))
        lengths, more = (
            row_tokens(base, profile.system_prompt, own, profile.sft.chat)
            for own in (limo, bulk)
        )
        budget = profile.sft.epochs * sum(lengths)
        chosen["bulk-tokens"] = bulk.select(range(rows_within(more, budget)))
        tables = {name: training_rows(own) for name, own in chosen.items()}
        save_tables(folder, **tables)
        write_json(folder / "sizes.json", {name: len(own) for name, own in tables.items()})

    return run.make(
        "ablations/sets", make, inputs=[pool, found, rows, sets],
        reads=("ablations", "chains", "engine", "models", "pool", "sft", "system_prompt"),
        params={
            "base": model_digest(base),
            "teachers": {name: model_digest(name) for name in run.profile.teachers},
        },
    )  # fmt: skip


def quality_bands(found: Dataset) -> tuple[Dataset, str]:
    """Chains in five bands, and within what: each "question", or the "pool" of all.

    The second where no question has five different correct chains, as happens with few
    samples: then the bands differ in questions too.
    """
    counts = Counter(found["question_id"])
    within = "question" if max(counts.values()) >= 5 else "pool"
    return levels(found, within=within), within


def one_band(banded: Dataset, band: int, limit: int) -> list[dict]:
    """One chain of `band` per question, for the first `limit` questions by id."""
    rows = {row["question_id"]: row for row in banded if row["band"] == band}
    return [rows[key] for key in sorted(rows)][:limit]


def _matched(found: Dataset, limit: int) -> dict[str, list[dict]]:
    """The sets of equal length; none where no question has two chains equally long."""
    try:
        banded = matched_levels(found)
    except ValueError:
        return {}
    return {name: one_band(banded, band, limit) for name, band in MATCHED.items()}


def _by_level(
    profile: Profile, pool: Dataset, limit: int, folder: Path
) -> dict[str, list[dict]]:
    """Best chains of easy, medium and hard questions; equal counts."""
    rng = random.Random(profile.pool.seed)
    asked: list[dict] = []
    for low, high in BANDS.values():
        fitting = [row for row in pool if low <= row["level"] <= high]
        asked += rng.sample(fitting, min(len(fitting), limit + limit // 3 + 2))
    found = sampled_chains(profile, Dataset.from_list(asked), folder / "by-level")
    best = best_per_question(found)
    chosen = {
        f"questions-{name}": [row for row in best if low <= row["level"] <= high]
        for name, (low, high) in BANDS.items()
    }
    count = min(limit, *map(len, chosen.values()))
    if not count:
        lacking = ", ".join(name for name, rows in chosen.items() if not rows)
        raise ValueError(f"no chains for {lacking}: raise pool.size or chains.sampling.samples")
    return {name: rows[:count] for name, rows in chosen.items()}


# ---------------------------------------------------------------- training, evaluation
def run_ablations(run: Run) -> Artifact:
    """Stage `ablations`: train and evaluate every small variant with every seed.

    Leaves the tables results-<variant>-<seed>, table.json and differences.json as chapter
    8 does, and settings.json: rows, epochs, batch and steps of every variant.
    """
    sets, rows = run.load("ablations/sets"), run.load("rows")
    sizes, base = sets.json("sizes.json"), run.profile.models.base

    def make(folder: Path, profile: Profile) -> None:
        save_tables(folder, items=benchmark_items(profile.evaluation))
        steps = steps_of(profile.sft, len(load_table(rows, "limo")))
        settings = {
            name: ablation_settings(profile.sft, name, size, steps)
            for name, size in sizes.items()
        }
        runs = [
            TrainingRun(
                f"{name}-{seed}", base, folder, profile.evaluation.sampling, profile.engine,
                profile.system_prompt, TrainingSpec(sets / f"{name}.parquet", own, seed),
            )
            for seed in profile.ablations.seeds
            for name, own in settings.items()
        ]  # fmt: skip
        in_processes(
            carry_out, runs, job_processes(profile.engine, base), "trained and evaluated"
        )
        results = {name: results_of(folder, name) for name in sizes}
        write_json(folder / "settings.json", _settings_table(settings, sizes))
        write_json(folder / "table.json", accuracies(results))
        pairs = [pair for pair in ABLATION_PAIRS if set(pair) <= set(results)]
        write_json(folder / "differences.json", paired(results, pairs))

    return run.make(
        "ablations", make, inputs=[sets, rows],
        reads=("ablations", "sft", "evaluation", "engine", "system_prompt"),
        params={"base": model_digest(base)},
    )  # fmt: skip


def ablation_settings(settings: SftSettings, name: str, rows: int, steps: int) -> SftSettings:
    """How variant `name` is trained: for `steps` steps, and bulk-tokens for one epoch.

    The small variants differ in their rows alone: no epoch is chosen.
    """
    plain = settings.model_copy(update={"keep_epochs": False, "held_out": 0.0})
    if name == "bulk-tokens":
        return plain.model_copy(update={"epochs": 1})
    return with_more_epochs(plain, rows, steps)


def _settings_table(
    settings: Mapping[str, SftSettings], sizes: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    return {
        name: {"rows": sizes[name], "epochs": own.epochs, "batch": own.batch_size,
               "steps": steps_of(own, sizes[name])}
        for name, own in settings.items()
    }  # fmt: skip
