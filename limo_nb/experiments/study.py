"""The study: comparisons too long for a laptop's evening, group by group (chapter 9).

Each group asks one question of the ablations with more of what costs time: pretraining seeds,
sizes, teachers, epochs, rows in several draws, adapters, more ways to ask foundations, and
every arm at a learning rate of its own. A group is a stage of its own, so that a long study can
be interrupted, recorded in part (`limo-nb record --add`) and continued elsewhere. The profile
says what each group has (`StudySettings`); one without is not made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from datasets import Dataset

from limo_nb.chains import best_per_question
from limo_nb.core.files import write_json
from limo_nb.core.records import load_table, save_tables
from limo_nb.core.runs import Artifact, Run
from limo_nb.core.settings import LoraSettings, Profile, SftSettings
from limo_nb.evaluation import accuracies
from limo_nb.experiments.ablations import EVALUATED, ablation_settings, contrasts
from limo_nb.experiments.asking import shots_of
from limo_nb.experiments.budgets import at_equal_tokens, loss_tokens, steps_of
from limo_nb.experiments.differences import paired
from limo_nb.experiments.doses import equal_steps, foundations
from limo_nb.experiments.reanalysis import any_right
from limo_nb.experiments.setups import ModelSetup, carry_out_all
from limo_nb.experiments.training_runs import results_of
from limo_nb.experiments.variants import sampled_chains, training_rows
from limo_nb.inference import model_digest

Tables = dict[str, list[Dataset]]  # a name -> its tables, one a seed
HELD_OUT = "held out"  # the one benchmark that learning rates are chosen on
HEADLINE_SETS = ("limo", "random", "bulk")


@dataclass(frozen=True)
class Group:
    """What a group of the study trains and asks, and what is compared in it.

    `stacked` joins setups to one name: each of them becomes a table, which stands for one
    value of what varies (a pretraining seed), and its fine-tuning seeds become samples.
    """

    setups: list[ModelSetup]
    pairs: list[tuple[str, str]]
    stacked: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Given:
    """What the groups build on: the stages before them, and the profile."""

    run: Run
    profile: Profile
    folder: Path

    @property
    def sets(self) -> Artifact:
        """Stage `models/sets`: limo, random and bulk."""
        return self.run.load("models/sets")

    @property
    def base(self) -> str:
        """The foundation."""
        return self.profile.models.base

    def trained(self, name: str, model: str, rows: str) -> ModelSetup:
        """`model` trained on the headline's set `rows`, with every seed of the study."""
        return ModelSetup(
            name, model, self.sets / f"{rows}.parquet",
            equal_steps(self.profile, self.sets, rows), self.profile.study.seeds,
        )  # fmt: skip

    def own_rows(self, name: str, rows: Iterable[Mapping]) -> Path:
        """A table of training rows of this group; where to find it."""
        save_tables(self.folder, **{name: training_rows(rows)})
        return self.folder / f"{name}.parquet"


# ---------------------------------------------------------------- backbones
def _backbones(given: Given) -> Group:
    """Rich and poor backbones of several pretraining seeds, before and after training."""
    study, setups, stacked = given.profile.study, [], {}
    for kind, models in (("rich", study.rich), ("poor", study.poor)):
        for way in ("textbook", "chat", *HEADLINE_SETS):
            names = [f"{kind} {number} {way}" for number in range(1, len(models) + 1)]
            stacked[f"{kind} {way}"] = names
            setups += [
                given.trained(name, model, way) if way in HEADLINE_SETS
                else ModelSetup(name, model, way=way)
                for name, model in zip(names, models, strict=True)
            ]  # fmt: skip
    pairs = [("rich limo", f"rich {other}") for other in ("chat", "random", "bulk")]
    pairs += [("rich limo", "poor limo"), ("poor limo", "poor chat")]
    return Group(setups, [*pairs, ("rich textbook", "poor textbook")], stacked)


def _sizes(given: Given) -> Group:
    """Foundations of several widths, of equal tokens."""
    setups, pairs, models = [], [], given.profile.study.sizes
    for model in models:
        name = _short(model)
        setups += [ModelSetup(f"{name} {way}", model, way=way) for way in ("textbook", "chat")]
        setups += [given.trained(f"{name} {rows}", model, rows) for rows in HEADLINE_SETS]
        pairs += [(f"{name} limo", f"{name} {other}") for other in ("chat", "random", "bulk")]
    small, large = _short(models[0]), _short(models[-1])
    return Group(setups, [*pairs, (f"{large} limo", f"{small} limo")])


def _short(model: str) -> str:
    """A model's own name, without the folders or the hub's user before it."""
    return model.removeprefix("lab:").rpartition("/")[2]


def _doses(given: Given) -> Group:
    """All ways to bring out, without training, what foundations of several doses know."""
    own, setups = given.profile.study, []
    shots = shots_of(load_table(given.sets, "limo"))
    votes = given.profile.evaluation.votes.model_copy(update={"samples": own.pass_at})
    for dose, model in foundations(given.profile).items():
        setups += [ModelSetup(f"{dose} {way}", model, way=way) for way in ("textbook", "chat")]
        setups += [
            ModelSetup(f"{dose} few-shot", model, way="few-shot", shots=shots),
            ModelSetup(f"{dose} prefill", model, way="prefill"),
            ModelSetup(f"{dose} pass@{own.pass_at}", model, sampling=votes),
        ]
    return Group(setups, [])


# ---------------------------------------------------------------- rows and how often
def _teachers(given: Given) -> Group:
    """The chosen questions with chains of other teachers, and with a half of each."""
    profile = given.profile
    chosen = load_table(given.run.load("questions"), "questions")
    limo = {row["question_id"]: row for row in load_table(given.sets, "limo")}
    setups, pairs = [], []
    for teacher in profile.study.teachers:
        asked = profile.model_copy(
            update={"chains": profile.chains.model_copy(update={"teachers": (teacher,)})}
        )
        name = _short(teacher)
        found = best_per_question(sampled_chains(asked, chosen, given.folder / name))
        theirs = {row["question_id"]: row for row in found if row["question_id"] in limo}
        mixed = [
            row if place % 2 else limo[key] for place, (key, row) in enumerate(theirs.items())
        ]
        sets = {"own": [limo[key] for key in theirs], name: theirs.values(), "mixed": mixed}
        for kind, rows in sets.items():
            called = kind if kind == name else f"{name}, {kind}"
            setups.append(_with_rows(given, called, list(rows)))
        pairs += [(f"{name}, own", name), (f"{name}, own", f"{name}, mixed")]
    return Group(setups, pairs)


def _with_rows(given: Given, name: str, rows: list[Mapping]) -> ModelSetup:
    """The base trained on `rows` for as many steps as limo."""
    steps = steps_of(given.profile.sft, len(load_table(given.sets, "limo")))
    file_name = name.replace(", ", "-").replace(" ", "-")
    return ModelSetup(
        name, given.base, given.own_rows(file_name, rows),
        ablation_settings(given.profile.sft, name, len(rows), steps), given.profile.study.seeds,
    )  # fmt: skip


def _epochs(given: Given) -> Group:
    """Limo's rows read more or less often."""
    passes = given.profile.study.epochs
    setups = []
    for count in passes:
        setup = given.trained(f"epochs {count}", given.base, "limo")
        settings = setup.settings and setup.settings.model_copy(update={"epochs": count})
        setups.append(replace(setup, settings=settings))
    pairs = [(setup.name, "limo") for setup in setups if setup.settings
             and setup.settings.epochs != given.profile.sft.epochs]  # fmt: skip
    return Group(setups, pairs)


def _rows(given: Given) -> Group:
    """Random questions of the pool with their first right chains: sizes, in several draws.

    A draw has a fine-tuning seed of its own, so both are in the interval.
    """
    found = load_table(given.run.load("ablations/sets"), "many-full").to_list()
    setups, stacked = [], {}
    study = given.profile.study
    for count in study.rows:
        if count > len(found):
            raise ValueError(
                f"study.rows asks for {count} random rows and many-full has {len(found)}: "
                "raise ablations.asked"
            )
        names = []
        for draw in range(1, study.draws + 1):
            rows = Random(f"{given.profile.pool.seed}/{count}/{draw}").sample(found, count)
            names.append(f"random {count} draw {draw}")
            setups.append(replace(_with_rows(given, names[-1], rows), seeds=(draw,)))
        stacked[f"random {count}"] = names
    names = list(stacked)
    pairs = [(more, fewer) for place, more in enumerate(names) for fewer in names[:place]]
    return Group(setups, [*pairs, *(("limo", name) for name in names)], stacked)


def _lora(given: Given) -> Group:
    """Limo's rows by small matrices beside frozen weights."""
    setups = []
    for rank in given.profile.study.ranks:
        setup = given.trained(f"rank {rank}", given.base, "limo")
        lora = {"lora": LoraSettings(rank=rank, alpha=2 * rank),
                "learning_rate": given.profile.study.lora_rate}  # fmt: skip
        settings = setup.settings and setup.settings.model_copy(update=lora)
        setups.append(replace(setup, settings=settings))
    return Group(setups, [("limo", setup.name) for setup in setups])


# ---------------------------------------------------------------- every arm on its own terms
def _arms(given: Given) -> dict[str, tuple[Path, SftSettings]]:
    """Every arm of chapter 9 and the sets of the headline: rows, settings at equal steps."""
    sets, profile = given.run.load("ablations/sets"), given.profile
    steps = steps_of(profile.sft, len(load_table(given.sets, "limo")))
    found = {
        name: (given.sets / f"{name}.parquet", equal_steps(profile, given.sets, name))
        for name in HEADLINE_SETS
    }
    for name, size in sets.json("sizes.json").items():
        if not name.startswith("rows-"):
            settings = ablation_settings(profile.sft, name, size, steps)
            found[name] = (sets / f"{name}.parquet", settings)
    return found


def _rates(given: Given) -> Group:
    """Every arm with every learning rate, one seed, for `held_out_items`."""
    study = given.profile.study
    return Group(
        [
            ModelSetup(
                f"{name} {rate:g}", given.base, rows,
                settings.model_copy(update={"learning_rate": rate}), study.seeds[:1],
            )
            for name, (rows, settings) in _arms(given).items() for rate in study.rates
        ],
        [],
    )  # fmt: skip


def held_out_items(given: Given) -> Dataset:
    """Problems of the pool that no training row and no filter's question is of."""
    used = set(load_table(given.run.load("questions"), "questions")["id"])
    used |= set(load_table(given.run.load("ablations/sets"), "many-full")["question_id"])
    for name in HEADLINE_SETS:
        used |= set(load_table(given.sets, name)["question_id"])
    free = [row for row in load_table(given.run.load("pool"), "pool") if row["id"] not in used]
    if not free:
        raise ValueError("no problem of the pool is held out: lower ablations.asked")
    names = ("id", "question", "answer", "level")
    return Dataset.from_list(
        [{name: row[name] for name in names} | {"benchmark": HELD_OUT, "in_domain": True}
         for row in free[: given.profile.study.held_out]]
    )  # fmt: skip


def chosen_rates(rates: Artifact) -> dict[str, float]:
    """The learning rate with which each arm answers most held-out problems.

    Of equally good ones the lower.
    """
    best: dict[str, tuple[float, float]] = {}
    for row in rates.json("table.json"):
        if row["group"] == HELD_OUT:
            name, _, rate = row["model"].rpartition(" ")
            best[name] = max(best.get(name, (-1.0, 0.0)), (row["accuracy"], -float(rate)))
    return {name: -rate for name, (_, rate) in best.items()}


def _tuned(given: Given) -> Group:
    """Every arm at its own learning rate, at equal steps."""
    rates = chosen_rates(given.run.load("study/rates"))
    return Group(
        [
            ModelSetup(
                name, given.base, rows,
                settings.model_copy(update={"learning_rate": rates[name]}),
                given.profile.study.seeds,
            )
            for name, (rows, settings) in _arms(given).items()
        ],
        _contrasts(given),
    )  # fmt: skip


def _tokens(given: Given) -> Group:
    """Every arm at its own learning rate, with as many loss tokens as limo."""
    rates, base = chosen_rates(given.run.load("study/rates")), given.base
    arms, setups, profile = _arms(given), [], given.profile

    def tokens(table: Dataset) -> list[int]:
        return loss_tokens(base, profile.system_prompt, table, profile.sft.chat)

    budget = profile.sft.epochs * sum(tokens(load_table(given.sets, "limo")))
    for name, (rows, settings) in arms.items():
        table = load_table(rows.parent, rows.stem)
        batch = settings.model_copy(update={"batch_size": profile.sft.batch_size})
        fitted, count = at_equal_tokens(batch, tokens(table), budget)
        own = given.own_rows(name, table.select(range(count)))
        tuned = fitted.model_copy(update={"learning_rate": rates[name]})
        setups.append(ModelSetup(name, base, own, tuned, profile.study.seeds))
    return Group(setups, _contrasts(given))


def _contrasts(given: Given) -> list[tuple[str, str]]:
    arms = _arms(given)
    return [pair for pair in contrasts(arms) if set(pair) <= set(arms)]


# ---------------------------------------------------------------- the stages
GROUPS: dict[str, Callable[[Given], Group]] = {
    "backbones": _backbones,
    "sizes": _sizes,
    "doses": _doses,
    "teachers": _teachers,
    "epochs": _epochs,
    "rows": _rows,
    "lora": _lora,
    "rates": _rates,
    "tuned": _tuned,
    "tokens": _tokens,
}
ASKS = {  # the setting without which a group is not made
    "backbones": "rich", "sizes": "sizes", "doses": "pass_at", "teachers": "teachers",
    "epochs": "epochs", "rows": "rows", "lora": "ranks", "rates": "rates", "tuned": "rates",
    "tokens": "rates",
}  # fmt: skip


def groups_of(profile: Profile) -> list[str]:
    """The groups of the study that `profile` has."""
    return [name for name in GROUPS if getattr(profile.study, ASKS[name])]


def run_group(run: Run, name: str) -> Artifact:
    """Stage `study/<name>`: the setups of a group carried out, every one final as it ends.

    Leaves results-<setup>-<seed>, table.json, differences.json (rows of `DifferenceRow`),
    and settings.json with rows and training of each setup.
    """
    stages = ["models/sets", "evaluation", "questions", "pool"]
    stages += ["ablations/sets"] if name in ("rows", "rates", "tuned", "tokens") else []
    stages += ["study/rates"] if name in ("tuned", "tokens") else []
    evaluated = run.load("evaluation")

    def make(folder: Path, profile: Profile) -> None:
        given = Given(run, profile, folder)
        group = GROUPS[name](given)
        items = held_out_items(given) if name == "rates" else None
        made = carry_out_all(folder, profile, group.setups, f"study: {name}", items)
        results = tables_of(group, made)
        write_json(folder / "table.json", accuracies(results))
        for model in EVALUATED:
            results.setdefault(model, results_of(evaluated, model))
        write_json(folder / "differences.json", paired(results, group.pairs))
        write_json(folder / "settings.json", {s.name: _facts(s) for s in group.setups})

    models = set(_models(run.profile, name))
    return run.make(
        f"study/{name}", make, inputs=[run.load(stage) for stage in stages],
        reads=("study", "models", "ablations", "chains", "fine", "sft", "evaluation", "engine",
               "pool", "system_prompt"),
        params={model: model_digest(model) for model in sorted(models)},
    )  # fmt: skip


def _models(profile: Profile, name: str) -> Sequence[str]:
    study = profile.study
    more = {
        "backbones": [*study.rich, *study.poor], "sizes": study.sizes,
        "teachers": study.teachers, "doses": foundations(profile).values(),
    }  # fmt: skip
    return [profile.models.base, *more.get(name, ())]


def tables_of(group: Group, made: Mapping[str, list[Dataset]]) -> Tables:
    """The tables by name, stacked where the group says so; pass@k is one answer a problem."""
    inside = {name for names in group.stacked.values() for name in names}
    found = {name: tables for name, tables in made.items() if name not in inside}
    for name, tables in found.items():
        if "pass@" in name:
            found[name] = [any_right(table) for table in tables]
    for name, parts in group.stacked.items():
        found[name] = [as_samples(made[part]) for part in parts]
    return found


def as_samples(tables: Sequence[Dataset]) -> Dataset:
    """Tables over the same items as one, the answers of each as one more sample."""
    rows = [{**row, "sample": number} for number, table in enumerate(tables) for row in table]
    return Dataset.from_list(rows)


def _facts(setup: ModelSetup) -> dict[str, object]:
    if not (setup.rows and setup.settings):
        return {"model": setup.model, "way": setup.way}
    own, rows = setup.settings, len(load_table(setup.rows.parent, setup.rows.stem))
    return {
        "model": setup.model, "way": setup.way, "rows": rows, "epochs": own.epochs,
        "batch": own.batch_size, "steps": steps_of(own, rows), "rate": own.learning_rate,
    }  # fmt: skip
