"""The ablations of chapter 9: small variants that differ from limo in one thing.

Each has a few rows, is trained with every seed of `ablations.seeds` in one process, and
takes the learning rate and the schedule of the headline variants. What they are is told in
`arms`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from datasets import Dataset, concatenate_datasets

from limo_nb.chains import levels, matched_levels
from limo_nb.core.files import write_json
from limo_nb.core.records import load_table, save_tables
from limo_nb.core.runs import Artifact, Run
from limo_nb.core.settings import Profile, SftSettings
from limo_nb.evaluation import accuracies, benchmark_items
from limo_nb.experiments.arms import CONTRASTS, Material, Row, arm_rows
from limo_nb.experiments.budgets import (
    at_equal_steps,
    row_tokens,
    rows_within,
    steps_of,
    with_more_epochs,
)  # fmt: skip
from limo_nb.experiments.differences import paired
from limo_nb.experiments.pipeline import LEFT_OUT, without_parts
from limo_nb.experiments.processes import in_processes, job_processes
from limo_nb.experiments.training_runs import TrainingRun, TrainingSpec, carry_out, results_of
from limo_nb.experiments.variants import sampled_chains, training_rows
from limo_nb.inference import model_digest

EVALUATED = ("base", "limo", "random", "bulk")  # models of chapter 8 that arms are paired with


# ---------------------------------------------------------------- training sets
def ablation_sets(run: Run) -> Artifact:
    """Stage `ablations/sets`: a table of rows for every arm (`arms`), and sizes.json.

    The chains of the questions that are drawn from the pool are sampled here. levels.json
    says within what the levels of chains were cut, see `quality_bands`.
    """
    pool, found, rows = run.load("pool"), run.load("chains"), run.load("rows")
    parts = set(LEFT_OUT) & set(run.profile.ablations.arms)
    funnel = [run.load(name) for name in ("coarse", "fine", "questions") if parts]
    sets, base = run.load("models/sets"), run.profile.models.base

    def make(folder: Path, profile: Profile) -> None:
        settings, chains = profile.ablations, load_table(found, "chains")
        limo, bulk = load_table(rows, "limo"), load_table(sets, "bulk")
        random = load_table(sets, "random")
        banded, within = quality_bands(chains)
        write_json(folder / "levels.json", {"within": within})
        lengths, more = (
            row_tokens(base, profile.system_prompt, own, profile.sft.chat)
            for own in (limo, bulk)
        )
        drawn = _drawn(profile, load_table(pool, "pool"), random, folder)
        fitting = bulk.select(range(rows_within(more, profile.sft.epochs * sum(lengths))))
        material = Material(
            limo=limo.to_list(), random=random.to_list(), bulk=fitting.to_list(),
            candidates=chains.to_list(),
            wrong=_wrong(load_table(found, "attempts"), limo),
            drawn=drawn.to_list(), banded=banded.to_list(), matched=_matched(chains),
            left_out=without_parts(run, profile, drawn) if parts else {},
            settings=settings, seed=profile.pool.seed,
        )  # fmt: skip
        tables = {name: training_rows(own) for name, own in arm_rows(material).items()}
        save_tables(folder, **tables)
        write_json(folder / "sizes.json", {name: len(own) for name, own in tables.items()})

    return run.make(
        "ablations/sets", make, inputs=[pool, found, rows, sets, *funnel],
        reads=("ablations", "chains", "engine", "models", "pool", "sft", "system_prompt",
               *(["fine"] if parts else [])),
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


def _matched(found: Dataset) -> list[Row]:
    """The pairs of equal length; none where no question has two chains equally long."""
    try:
        return matched_levels(found).to_list()
    except ValueError:
        return []


def _wrong(attempts: Dataset, limo: Dataset) -> list[Row]:
    """Finished attempts at the chosen questions whose answer is wrong."""
    chosen = set(limo["question_id"])
    return [
        {**row, "question_id": row["id"]}
        for row in attempts
        if row["id"] in chosen and row["finished"] and row["correct"] is False
    ]


def _drawn(profile: Profile, pool: Dataset, random: Dataset, folder: Path) -> Dataset:
    """Chains of `ablations.asked` questions of the pool, those of `random` first."""
    taken = set(random["question_id"])
    rest = pool.shuffle(seed=profile.pool.seed + 1).filter(lambda row: row["id"] not in taken)
    count = max(0, min(len(rest), profile.ablations.asked - len(taken)))
    asked = concatenate_datasets(
        [pool.filter(lambda row: row["id"] in taken), rest.select(range(count))]
    )
    every = profile.chains.every_sample
    sampling = every.sampling.model_copy(update={"samples": profile.ablations.samples})
    settings = every.model_copy(
        update={"sampling": sampling, "keep": (0, profile.ablations.samples)}
    )
    return sampled_chains(profile, asked, folder / "drawn", settings)


# ---------------------------------------------------------------- training, evaluation
def run_ablations(run: Run) -> Artifact:
    """Stage `ablations`: train and evaluate every small variant with every seed.

    Leaves the tables results-<variant>-<seed>, table.json and differences.json as chapter
    8 does, together.json (differences with intervals that hold for all of them together),
    and settings.json: rows, epochs, batch and steps of every variant. The differences are
    those of `arms.CONTRASTS`, also to the models of chapter 8, and of each size to base.
    """
    sets, rows, evaluated = (
        run.load(name) for name in ("ablations/sets", "rows", "evaluation")
    )
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
        results |= {name: results_of(evaluated, name) for name in EVALUATED}
        pairs = contrasts(sizes)
        write_json(folder / "differences.json", paired(results, pairs))
        read = [(c.left, c.right) for c in CONTRASTS if (c.left, c.right) in pairs]
        write_json(folder / "together.json", paired(results, read, together=3 * len(read)))

    return run.make(
        "ablations", make, inputs=[sets, rows, evaluated],
        reads=("ablations", "sft", "evaluation", "engine", "system_prompt"),
        params={"base": model_digest(base)},
    )  # fmt: skip


def contrasts(arms: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs that can be compared where these `arms` were trained."""
    known = {*EVALUATED, *arms}
    found = [(c.left, c.right) for c in CONTRASTS if {c.left, c.right} <= known]
    for size in (name for name in arms if name.startswith("rows-")):
        found += [(size, "base"), ("limo", size)]
    return found


def ablation_settings(settings: SftSettings, name: str, rows: int, steps: int) -> SftSettings:
    """How variant `name` is trained: for `steps` steps, and bulk-tokens for one epoch.

    Few rows are repeated more often; many are read once, in larger batches. The small
    variants differ in their rows alone: no epoch is chosen.
    """
    plain = settings.model_copy(update={"keep_epochs": False, "held_out": 0.0})
    if name == "bulk-tokens":
        return plain.model_copy(update={"epochs": 1})
    if rows > steps * settings.batch_size:
        return at_equal_steps(plain, rows, steps)
    return with_more_epochs(plain, rows, steps)


def _settings_table(
    settings: Mapping[str, SftSettings], sizes: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    return {
        name: {"rows": sizes[name], "epochs": own.epochs, "batch": own.batch_size,
               "steps": steps_of(own, sizes[name])}
        for name, own in settings.items()
    }  # fmt: skip
