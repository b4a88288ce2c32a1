"""Models trained on two more domains, logic and games (chapter 12).

Each domain is a family of reasoning-gym. One arm learns its questions with chains, the
other the same questions with their answers alone, for as many steps; both are asked about
both domains and about the benchmarks of the run, so that it shows what transfers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from limo_nb.core.files import write_json
from limo_nb.core.records import load_table, save_tables
from limo_nb.core.runs import Artifact, Run
from limo_nb.core.settings import EvaluationSettings, Profile
from limo_nb.evaluation import accuracies, benchmark_items, tenth_of
from limo_nb.evaluation.benchmarks import BENCHMARK_COLUMNS
from limo_nb.experiments.differences import Group, paired
from limo_nb.experiments.processes import in_processes, job_processes
from limo_nb.experiments.training_runs import TrainingRun, TrainingSpec, carry_out, results_of
from limo_nb.experiments.variants import FIRST_ROUND, sampled_chains, training_rows
from limo_nb.experiments.worked import worked_out
from limo_nb.inference import model_digest
from limo_nb.problems import COLUMNS, gym_facts, gym_rows

DOMAINS = {"logic": "knights_knaves", "games": "countdown"}
ARMS = ("chains", "answers")
# What a model of the lab's size might learn; other models get those of problems/gym.yaml.
SMALL: dict[str, dict[str, Any]] = {
    "knights_knaves": {"n_people": 2},
    "countdown": {"min_numbers": 3, "max_numbers": 3, "min_value": 2, "max_value": 30,
                  "min_target": 5, "max_target": 60, "operators": ["+", "-"]},
}  # fmt: skip
LONGEST = 288  # tokens of an answer by a model of the lab: what a worked solution may take
ITEMS = 2  # times evaluation.items, of each domain


def of_lab(model: str) -> bool:
    """Whether a model is one of the lab's."""
    return model.startswith("lab:")


def configs(profile: Profile) -> dict[str, dict[str, Any]]:
    """Family -> its configuration, for both domains."""
    known = SMALL if of_lab(profile.models.base) else gym_facts()["in_domain"]
    return {family: known[family] for family in DOMAINS.values()}


def domain_sets(run: Run) -> Artifact:
    """Stage `beyond/sets`: the tables <domain>-chains and <domain>-answers, and items.

    Both arms have the same questions, `chains.rows` of each domain. A chain is worked out
    by a procedure for a model of the lab, and sampled from the teachers for others: the
    first right one, as in the random set of chapter 6. The items are test questions of both
    domains, and a tenth of the run's own benchmarks.
    """

    def make(folder: Path, profile: Profile) -> None:
        for domain, family in DOMAINS.items():
            count = profile.chains.rows
            asked = count if of_lab(profile.models.base) else count + count // 2 + 4
            config = {family: configs(profile)[family]}
            drawn = gym_rows(config, asked, profile.pool.seed, "train")
            chains = _chains(profile, drawn, folder / f"teachers-{domain}")[:count]
            plain = {row["id"]: row for row in drawn}
            answers = [plain[row["question_id"]] for row in chains]
            rows = ({**row, "question_id": row["id"]} for row in answers)
            arms = dict(zip(ARMS, map(training_rows, (chains, rows)), strict=True))
            save_tables(folder, **{f"{domain}-{arm}": own for arm, own in arms.items()})
        save_tables(folder, items=_items(profile))

    return run.make(
        "beyond/sets", make,
        reads=("pool", "chains", "models", "engine", "system_prompt", "evaluation"),
        params={"gym": gym_facts(), "small": SMALL,
                "teachers": {name: model_digest(name) for name in run.profile.teachers}},
    )  # fmt: skip


def _chains(profile: Profile, drawn: list[Any], folder: Path) -> list[Mapping[str, Any]]:
    """Training rows with chains for the problems in `drawn`, or for those that got one."""
    if of_lab(profile.models.base):
        return [{**row, "question_id": row["id"], "solution": worked_out(row)} for row in drawn]
    first = profile.chains.every_sample.model_copy(
        update={"keep": (0, 0), "stop_every": FIRST_ROUND, "never_stopped": 0}
    )
    asked = Dataset.from_list(drawn, features=COLUMNS)
    found: dict[str, Mapping[str, Any]] = {}
    for row in sorted(sampled_chains(profile, asked, folder, first), key=lambda r: r["sample"]):
        found.setdefault(row["question_id"], row)
    if not found:
        family = drawn[0]["subject"]
        raise ValueError(f"no teacher solved a task of {family}: raise chains.sampling.samples")
    return [found[row["id"]] for row in drawn if row["id"] in found]


def _items(profile: Profile) -> Dataset:
    """Test questions of both domains, and a tenth of the run's own benchmarks."""
    names = {family: domain for domain, family in DOMAINS.items()}
    size = ITEMS * profile.evaluation.items * len(names)
    rows = gym_rows(configs(profile), size, gym_facts()["seed"], "test")
    tested = [{**row, "benchmark": names[row["subject"]], "in_domain": False} for row in rows]
    own: EvaluationSettings = tenth_of(profile.evaluation)
    before = benchmark_items(own)
    before = before.remove_columns("benchmark").add_column(
        "benchmark", ["mathematics"] * len(before)
    )
    return concatenate_datasets(
        [Dataset.from_list(tested, features=BENCHMARK_COLUMNS), before.cast(BENCHMARK_COLUMNS)]
    )


GROUPS: dict[str, Group] = {
    name: lambda row, name=name: row["benchmark"] == name  # type: ignore[misc]
    for name in (*DOMAINS, "mathematics")
}


def train_on_domains(run: Run) -> Artifact:
    """Stage `beyond/trained`: the base, and each arm of each domain, trained and evaluated.

    One training seed each, the first of `sft.seeds`. Leaves results-<model>-0, table.json
    (rows of `AccuracyRow`) and differences.json (rows of `DifferenceRow`, by domain: each
    arm against the base, and chains against answers).
    """
    sets, base = run.load("beyond/sets"), run.profile.models.base

    def make(folder: Path, profile: Profile) -> None:
        save_tables(folder, items=load_table(sets, "items"))
        settings = profile.sft.model_copy(update={"keep_epochs": False, "held_out": 0.0})
        arms = [f"{domain}-{arm}" for domain in DOMAINS for arm in ARMS]
        seed = settings.seeds[0]
        trainings = {
            name: TrainingSpec(sets / f"{name}.parquet", settings, seed) for name in arms
        }
        sampling = profile.evaluation.sampling
        if of_lab(base):
            shorter = {"max_new_tokens": min(LONGEST, sampling.max_new_tokens)}
            sampling = sampling.model_copy(update=shorter)
        runs = [
            TrainingRun(
                f"{name}-0", base, folder, sampling, profile.engine,
                profile.system_prompt, trainings.get(name),
            )
            for name in ("base", *arms)
        ]  # fmt: skip
        in_processes(
            carry_out, runs, job_processes(profile.engine, base), "trained and evaluated"
        )
        results = {name: results_of(folder, name) for name in ("base", *arms)}
        write_json(folder / "table.json", accuracies(results))
        pairs = [(name, "base") for name in arms]
        pairs += [(f"{domain}-chains", f"{domain}-answers") for domain in DOMAINS]
        write_json(folder / "differences.json", paired(results, pairs, GROUPS))

    return run.make(
        "beyond/trained", make, inputs=[sets],
        reads=("sft", "evaluation", "engine", "system_prompt"),
        params={"base": model_digest(base)},
    )  # fmt: skip
