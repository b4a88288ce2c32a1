"""The arms of the experiment: which rows train which model, and what came of it.

The headline arms (chapter 6) are trained by DeepSpeed, all of them by one start; the
small arms of the ablations (chapter 9) by the same `Trainer` in a few resident
processes. Every arm keeps the learning rate, schedule and seeds of its profile.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from datasets import Dataset

from limo_nb import benchmarks, chains, evaluation, problems, selection
from limo_nb.artifacts import Artifact, Run, write_json
from limo_nb.generation import (
    ALLOCATOR,
    chat_prompt,
    load_tokenizer,
    model_digest,
    plain_ids,
    prompt_ids,
    resolve,
)
from limo_nb.precision import ONE_THREAD
from limo_nb.profiles import FilterSettings, Profile, Sampling, SftSettings
from limo_nb.progress import progress
from limo_nb.sft import Task, epochs, fine_tune_here, fine_tune_many
from limo_nb.sft.encoding import closing_ids


@dataclass(frozen=True)
class Arm:
    """A model to train: the backbone (a field of `profile.models`) and its rows."""

    name: str
    backbone: str
    rows: str
    what: str


HEADLINE = {
    arm.name: arm
    for arm in (
        Arm("bulk", "base", "bulk", "many ordinary rows with short answers, equal steps"),
        Arm("random", "base", "random", "as many chains, of questions drawn at random"),
        Arm("limo", "base", "limo", "the chosen questions with their best chains"),
        Arm("poor-limo", "poor", "limo", "the same rows on the poor backbone"),
    )
}
FIRST_ROUND = 4  # samples in a round, where the first right one ends the asking
ROW_COLUMNS = ("question_id", "question", "solution", "answer", "subject", "level")


def table(path: Path) -> Dataset:
    """The parquet table at `path`, in memory."""
    return Dataset.from_parquet(str(path), keep_in_memory=True)


# ----------------------------------------------------------------------- training sets
def training_sets(run: Run) -> Artifact:
    """Stage `models/sets`: limo.parquet, random.parquet and bulk.parquet.

    `random` has as many rows as `limo`: questions drawn from the clean pool without any
    filter, each with the first correct chain of the same teacher. `bulk` has
    `sft.bulk_factor` times as many, with the pool's own short solutions. With
    `sft.held_out`, held-out.parquet has the questions that choose among epochs, which are
    in no set.
    """
    profile, pool, rows = run.profile, run.load("pool"), run.load("rows")
    selected = [run.load("questions")] if profile.sft.held_out else []

    def make(folder: Path) -> None:
        limo = table(rows / "limo.parquet").select_columns(list(ROW_COLUMNS))
        limo.to_parquet(folder / "limo.parquet")
        kept: list[dict] = []
        for stage in selected:
            kept = held_out(profile, table(stage / "questions.parquet"), limo)
            Dataset.from_list(kept).to_parquet(folder / "held-out.parquet")
        free = _without(table(pool / "pool.parquet"), kept)
        random_rows(profile, free, len(limo), folder)
        bulk_rows(profile, profile.sft.bulk_factor * len(limo), kept).to_parquet(
            folder / "bulk.parquet"
        )

    return run.make(
        "models/sets", make, inputs=[pool, rows, *selected],
        params={
            "factor": profile.sft.bulk_factor, "pool": profile.pool, "chains": profile.chains,
            "teachers": {name: model_digest(name) for name in profile.teachers},
            "held_out": profile.sft.held_out,
        },
    )  # fmt: skip


def held_out(profile: Profile, questions: Dataset, limo: Dataset) -> list[dict]:
    """The share `sft.held_out` of the selected `questions`, drawn from those not in `limo`.

    These passed both filters and got no place among the best chains. Raises ValueError
    where too few are left.
    """
    share, taken = profile.sft.held_out, set(limo["question_id"])
    free = [row for row in questions if row["id"] not in taken]
    count = max(1, round(share * len(questions)))
    if len(free) < count:
        raise ValueError(
            f"sft.held_out={share} takes {count} of {len(questions)} selected questions, and "
            f"{len(free)} are in no training row: lower it, or raise chains.questions"
        )
    drawn = random.Random(profile.pool.seed + 2).sample(free, count)
    names = ("id", "question", "answer", "level")
    return [{name: row[name] for name in names} for row in drawn]


def _without(rows: Dataset, unwanted: Sequence[Mapping]) -> Dataset:
    """`rows` whose question is none of the `unwanted`, whatever its id and its spaces."""
    gone = {problems.normalise(row["question"]) for row in unwanted}
    questions = enumerate(rows["question"])
    return rows.select([n for n, text in questions if problems.normalise(text) not in gone])


def random_rows(profile: Profile, pool: Dataset, count: int, folder: Path) -> None:
    """`count` random questions of `pool`, each with its first correct chain."""
    # Some questions get no correct chain; half as many more are asked at once.
    asked = pool.shuffle(seed=profile.pool.seed + 1).select(
        range(min(len(pool), count + count // 2 + 4))
    )
    first = profile.chains.every_sample.model_copy(
        update={"keep": (0, 0), "stop_every": FIRST_ROUND, "never_stopped": 0}
    )
    found = sampled_chains(profile, asked, folder, "random", first)
    firsts: dict[str, dict] = {}
    for row in sorted(found, key=lambda row: row["sample"]):
        firsts.setdefault(row["question_id"], row)
    kept = [firsts[key] for key in asked["id"] if key in firsts][:count]
    if not kept:
        raise ValueError(
            "no random question got a correct chain: raise chains.sampling.samples"
        )
    _rows(kept).to_parquet(folder / "random.parquet")


def sampled_chains(
    profile: Profile,
    asked: Dataset,
    folder: Path,
    name: str,
    settings: FilterSettings | None = None,
) -> Dataset:
    """Correct, distinct chains of the teachers for the questions in `asked`.

    From all samples of `profile.chains`, or as `settings` say.
    """
    settings = settings or profile.chains.every_sample
    engine, prompt = profile.engine, profile.system_prompt

    def solve(teacher: str, place: Path) -> Dataset:
        return selection.solve(asked, teacher, settings, engine, prompt, place)

    return chains.collect(asked, chains.from_teachers(profile.teachers, solve, folder / name))


def bulk_rows(profile: Profile, count: int, unwanted: Sequence[Mapping] = ()) -> Dataset:
    """`count` ordinary rows: the pool's source, cleaned as in chapter 3, short solutions.

    Without the questions of `unwanted`.
    """
    settings = profile.pool.model_copy(
        update={"size": count + count // 8 + 8, "seed": profile.pool.seed + 1000}
    )
    avoid = benchmarks.to_avoid(profile.evaluation)
    pool = _without(
        problems.sieve(problems.load_pool(settings), avoid, settings).kept, unwanted
    )
    rows = [
        {**row, "question_id": row["id"]} for row in pool.select(range(min(count, len(pool))))
    ]
    return _rows(rows)


def _rows(rows: Iterable[dict]) -> Dataset:
    return Dataset.from_list([{name: row[name] for name in ROW_COLUMNS} for row in rows])


# ---------------------------------------------------------------------------- training
def steps_of(settings: SftSettings, rows: int) -> int:
    """Optimiser steps that `settings` takes over `rows` rows."""
    return settings.epochs * math.ceil(rows / settings.batch_size)


def at_equal_steps(settings: SftSettings, rows: int, steps: int) -> SftSettings:
    """Settings that see `rows` rows once in about `steps` steps (a larger batch).

    The batch is a multiple of the ranks, which share it out, so steps may be a few less.
    """
    size = settings.ranks * math.ceil(rows / steps / settings.ranks)
    return settings.model_copy(update={"epochs": 1, "batch_size": size})


def train(run: Run) -> Artifact:
    """Stage `models/trained`: every headline model, by one start of DeepSpeed's ranks.

    Each arm and seed has a folder of its own, see `trained`. With `sft.held_out` its model
    is that of the epoch that answers the most held-out questions.
    """
    profile, sets = run.profile, run.load("models/sets")
    settings, backbones = profile.sft, dict(profile.models)

    def make(folder: Path) -> None:
        tasks = []
        for arm in HEADLINE.values():
            rows = table(sets / f"{arm.rows}.parquet")
            own = settings
            if arm.name == "bulk":
                limo = table(sets / "limo.parquet")
                own = at_equal_steps(settings, len(rows), steps_of(settings, len(limo)))
            for seed in settings.seeds:
                place = folder / f"{arm.name}-{seed}"
                backbone = backbones[arm.backbone]
                tasks.append(Task(rows, backbone, own, seed, profile.system_prompt, place))
        fine_tune_many(tasks)
        if settings.held_out:
            items = table(sets / "held-out.parquet")
            for task in tasks:
                if task.settings.epochs > 1:
                    choose_epoch(profile, task.folder, items)

    return run.make(
        "models/trained", make, inputs=[sets],
        params={
            "sft": settings, "system_prompt": profile.system_prompt,
            "backbones": {
                arm.backbone: model_digest(backbones[arm.backbone]) for arm in HEADLINE.values()
            },
        },
    )  # fmt: skip


def choose_epoch(profile: Profile, folder: Path, questions: Dataset) -> dict[str, Any]:
    """See `epochs.choose`: by greedy answers to `questions` (id, question, answer, level)."""
    facts = [{**row, "benchmark": "held out", "in_domain": True} for row in questions]
    items, limit = Dataset.from_list(facts), profile.evaluation.sampling.max_new_tokens
    greedy = Sampling(max_new_tokens=limit)

    def right(model: Path) -> int:
        results = evaluation.evaluate(
            str(model), items, greedy, profile.engine, profile.system_prompt, folder / "epochs"
        )
        return sum(verdict is True for verdict in results["correct"])

    return epochs.choose(folder, right, len(items))


PRECISION_ROWS, PRECISION_STEPS = 8, 4  # short: one of the two may be emulated


def in_both_precisions(run: Run) -> Artifact:
    """Stage `models/precision`: the same few steps in float32 and in bfloat16.

    The shortest rows of LIMO's set, one process. Leaves float32/ and bfloat16/, each with
    log.jsonl and done.json.
    """
    profile, sets = run.profile, run.load("models/sets")
    batch = PRECISION_ROWS // 2
    short = profile.sft.model_copy(
        update={"batch_size": batch, "epochs": PRECISION_STEPS * batch // PRECISION_ROWS,
                "ranks": 1, "keep_epochs": False, "held_out": 0.0}
    )  # fmt: skip

    def make(folder: Path) -> None:
        rows = sorted(table(sets / "limo.parquet"), key=lambda row: len(row["solution"]))
        shortest = Dataset.from_list(rows[:PRECISION_ROWS])
        for dtype in ("float32", "bfloat16"):
            settings = short.model_copy(update={"dtype": dtype})
            fine_tune_here(
                shortest, profile.models.base, settings, short.seeds[0],
                profile.system_prompt, folder / dtype,
            )  # fmt: skip

    return run.make(
        "models/precision", make, inputs=[sets],
        params={"sft": short, "base": model_digest(profile.models.base)},
    )  # fmt: skip


def trained(run: Run, arm: str, seed: int) -> Path:
    """The folder of one headline model: `model/`, log.jsonl and done.json."""
    return run.load("models/trained") / f"{arm}-{seed}"


def models(run: Run) -> dict[str, list[str]]:
    """Every model of the evaluation: name -> its folders or ids, one a training seed."""
    found = {"base": [run.profile.models.base], "poor": [run.profile.models.poor]}
    for arm in HEADLINE:
        seeds = run.profile.sft.seeds
        found[arm] = [str(trained(run, arm, seed) / "model") for seed in seeds]
    return found


# -------------------------------------------------------------------------- evaluation
def evaluate_all(run: Run) -> Artifact:
    """Stage `evaluation`: every headline model on every benchmark.

    Leaves results-<model>-<number>.parquet, table.json (accuracies with intervals) and
    differences.json (each model against base, and limo against each).
    """
    profile, named = run.profile, models(run)

    def make(folder: Path) -> None:
        items = benchmarks.benchmark_items(profile.evaluation)
        items.to_parquet(folder / "items.parquet")
        jobs = [
            _Job(f"{name}-{number}", model, profile, str(folder))
            for name, folders in named.items()
            for number, model in enumerate(folders)
        ]
        spread(_evaluate_job, jobs, profile.engine.workers, "models evaluated")
        results = {
            name: [
                table(folder / f"results-{name}-{number}.parquet")
                for number in range(len(folders))
            ]
            for name, folders in named.items()
        }
        write_json(folder / "table.json", evaluation.table(results))
        write_json(folder / "differences.json", differences(results))

    return run.make(
        "evaluation", make, inputs=[run.load("models/trained")],
        params={
            "evaluation": profile.evaluation, "engine": profile.engine,
            "system_prompt": profile.system_prompt,
            "base": model_digest(profile.models.base),
            "poor": model_digest(profile.models.poor),
        },
    )  # fmt: skip


GROUPS: dict[str, Callable[[dict], bool]] = {
    "in domain": lambda row: row["in_domain"],
    "out of domain": lambda row: not row["in_domain"],
    "all": lambda row: True,
}


def differences(results: dict[str, list[Dataset]]) -> list[dict[str, Any]]:
    """Paired differences: limo against every other model, and each against its base."""
    pairs = [("limo", other) for other in results if other not in ("limo", "poor")]
    return paired(
        results, pairs + [("poor-limo", "poor"), ("bulk", "base"), ("random", "base")]
    )


def results_of(stage: Artifact, name: str) -> list[Dataset]:
    """The tables of one model in `evaluation` or `ablations`, one a fine-tuning seed."""
    files = sorted(stage.path.glob(f"results-{name}-[0-9]*.parquet"))
    return [table(path) for path in files]


def paired(
    results: dict[str, list[Dataset]],
    pairs: Iterable[tuple[str, str]],
    groups: Mapping[str, Callable[[dict], bool]] = GROUPS,
) -> list[dict[str, Any]]:
    """One row per pair and group: the left model's accuracy less the right one's.

    `groups` says which rows of the results belong to each group.
    """
    rows = []
    for left, right in pairs:
        for group, keep in groups.items():
            a, b = (_chosen(results[name], keep) for name in (left, right))
            facts = asdict(evaluation.difference(a, b))
            rows.append({"model": left, "against": right, "group": group, **facts})
    return rows


def _chosen(tables: Sequence[Dataset], keep: Callable[[dict], bool]) -> list[Dataset]:
    return [t.select([i for i, row in enumerate(t) if keep(row)]) for t in tables]


@dataclass(frozen=True)
class _Job:
    """One model to evaluate, or to train and evaluate (where it has rows)."""

    name: str
    model: str
    profile: Profile
    folder: str
    rows: str = ""  # parquet of training rows, or nothing to train
    settings: SftSettings | None = None
    seed: int = 0


def _evaluate_job(job: _Job) -> None:
    """Write results-<name>.parquet; a file that is there is final."""
    folder = Path(job.folder)
    out = folder / f"results-{job.name}.parquet"
    if out.exists():
        return
    model, work = job.model, folder / f"work-{job.name}"
    if job.rows:
        model = str(
            fine_tune_here(
                table(Path(job.rows)), job.model, job.settings, job.seed,
                job.profile.system_prompt, work,
            )
        )  # fmt: skip
    # One process a model: starting workers would take longer than the work.
    engine = job.profile.engine.model_copy(update={"workers": 1})
    results = evaluation.evaluate(
        model, table(folder / "items.parquet"), job.profile.evaluation.sampling, engine,
        job.profile.system_prompt, work / "completions",
    )  # fmt: skip
    partial = out.with_suffix(".partial")
    results.to_parquet(partial)
    partial.replace(out)
    shutil.rmtree(work, ignore_errors=True)


def spread(
    function: Callable[[Any], Any], jobs: Sequence[Any], processes: int, label: str
) -> list[Any]:
    """What `function` returns for every job; run in resident processes.

    A failing job raises after the ones that run have ended; finished jobs keep what
    they wrote.
    """
    context = get_context("spawn")
    count = max(1, min(processes, len(jobs)))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    with _variables(ONE_THREAD | ALLOCATOR), pool:
        futures = [pool.submit(function, job) for job in jobs]
        try:
            with progress(len(jobs), "jobs", label) as bar:
                for future in as_completed(futures):
                    future.result()
                    bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _start_worker() -> None:
    """Make this process one of several: one core, no output, no life without its parent."""
    import torch

    torch.set_num_threads(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # bars of several processes would mix; errors are raised
        os.dup2(nowhere, stream)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A kernel that was killed would leave workers that wait for jobs for ever."""
    parent_process().join()
    os._exit(1)


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
    return chains.levels(found, within=within), within


def _matched(found: Dataset, limit: int) -> dict[str, list[dict]]:
    """The arms of equal length; none where no question has two chains equally long."""
    try:
        banded = chains.matched_levels(found)
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
    best = chains.best_per_question(found)
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


def row_tokens(profile: Profile, rows: Iterable[dict]) -> list[int]:
    """Tokens of each training row for the base model: prompt, solution and its end."""
    tokenizer = load_tokenizer(resolve(profile.models.base))
    closing = len(closing_ids(tokenizer))
    return [
        len(prompt_ids(tokenizer, chat_prompt(row["question"], profile.system_prompt)))
        + len(plain_ids(tokenizer, row["solution"]))
        + closing
        for row in rows
    ]


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
        write_json(folder / "table.json", evaluation.table(results))
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
