"""The study: comparisons too long for a laptop's evening, group by group (chapter 9).

Each group asks one question of the ablations with more of what costs time: pretraining seeds,
sizes, teachers, epochs, rows in several draws, adapters, more ways to ask foundations, and
every arm at a learning rate of its own. A group is a stage, which depends on its own settings
alone, so that a long study can be interrupted, recorded in part (`limo-nb record --add`) and
continued elsewhere. The profile says what each group has (`StudySettings`); one without is not
made. Models are those of the last epoch, also where chapter 8 chooses one.
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
from limo_nb.core.settings import LoraSettings, Profile, SftSettings, StudySettings
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
from limo_nb.problems import normalise

Tables = dict[str, list[Dataset]]  # a name -> its tables, one a seed
HELD_OUT = "held out"  # the one benchmark that learning rates are chosen on
FEWEST = 8  # questions that two teachers are compared on
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
    """What a group builds on: the stages before it, the profile, and its own settings."""

    run: Run
    profile: Profile
    study: StudySettings  # with the values of this group alone
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
            equal_steps(self.profile, self.sets, rows), self.study.seeds,
        )  # fmt: skip

    def own_rows(self, name: str, rows: Iterable[Mapping]) -> Path:
        """A table of training rows of this group; where to find it."""
        save_tables(self.folder, **{name: training_rows(rows)})
        return self.folder / f"{name}.parquet"


# ---------------------------------------------------------------- backbones
def _backbones(given: Given) -> Group:
    """Rich and poor backbones of several pretraining seeds, before and after training."""
    study, setups, stacked = given.study, [], {}
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
    setups, pairs, models = [], [], given.study.sizes
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
    own, setups = given.study, []
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
    """The selected questions with chains of other teachers, the own ones, and half of each.

    The questions are those that both solve, at most as many as limo's rows; of every question
    the best chain. Raises ValueError where they are fewer than FEWEST.
    """
    profile = given.profile
    selected = load_table(given.run.load("questions"), "questions")
    best = best_per_question(load_table(given.run.load("chains"), "chains"))
    own = {row["question_id"]: row for row in best}
    setups, pairs = [], []
    for teacher in given.study.teachers:
        asked = profile.model_copy(
            update={"chains": profile.chains.model_copy(update={"teachers": (teacher,)})}
        )
        name = _short(teacher)
        found = best_per_question(sampled_chains(asked, selected, given.folder / name))
        theirs = {row["question_id"]: row for row in found}
        both = sorted(own.keys() & theirs.keys())
        if len(both) < FEWEST:
            raise ValueError(
                f"{teacher} and the own teachers both solve {len(both)} of the selected "
                f"questions: raise chains.sampling.samples, or leave it out of study.teachers"
            )
        count = min(len(both), profile.chains.rows)
        both = Random(f"{profile.pool.seed}/{name}").sample(both, count)
        halves = [(theirs if place % 2 else own)[key] for place, key in enumerate(both)]
        sets = {f"{name}, own": [own[key] for key in both], name: [theirs[key] for key in both],
                f"{name}, mixed": halves}  # fmt: skip
        setups += [_with_rows(given, called, rows) for called, rows in sets.items()]
        pairs += [(f"{name}, own", name), (f"{name}, own", f"{name}, mixed")]
    return Group(setups, pairs)


def _with_rows(given: Given, name: str, rows: list[Mapping]) -> ModelSetup:
    """The base trained on `rows` for as many steps as limo."""
    steps = steps_of(given.profile.sft, len(load_table(given.sets, "limo")))
    file_name = name.replace(", ", "-").replace(" ", "-")
    return ModelSetup(
        name, given.base, given.own_rows(file_name, rows),
        ablation_settings(given.profile.sft, name, len(rows), steps), given.study.seeds,
    )  # fmt: skip


def _epochs(given: Given) -> Group:
    """Limo's rows read more or less often."""
    passes = given.study.epochs
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
    arms = given.run.load("ablations/sets")
    if "many-full" not in arms.json("sizes.json"):
        raise ValueError("study.rows wants the arm many-full: add it to ablations.arms")
    found = load_table(arms, "many-full").to_list()
    setups, stacked = [], {}
    study = given.study
    for count in sorted(study.rows):
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
    for rank in given.study.ranks:
        setup = given.trained(f"rank {rank}", given.base, "limo")
        lora = {"lora": LoraSettings(rank=rank, alpha=2 * rank),
                "learning_rate": given.study.lora_rate}  # fmt: skip
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
    study = given.study
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
    """Problems of the pool of which no arm has a row, by their texts.

    They were not selected either; that the drawn ones among them have no right chain makes
    them a little harder than the pool.
    """
    arms = given.run.load("ablations/sets")
    tables = [load_table(given.sets, name) for name in HEADLINE_SETS]
    tables += [load_table(arms, name) for name in arms.json("sizes.json")]
    tables.append(load_table(given.run.load("questions"), "questions"))
    used = {normalise(text) for table in tables for text in table["question"]}
    pool = load_table(given.run.load("pool"), "pool")
    free = [row for row in pool if normalise(row["question"]) not in used]
    if not free:
        raise ValueError("no problem of the pool is held out: lower ablations.asked")
    names = ("id", "question", "answer", "level")
    return Dataset.from_list(
        [{name: row[name] for name in names} | {"benchmark": HELD_OUT, "in_domain": True}
         for row in free[: given.study.held_out]]
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
                given.study.seeds,
            )
            for name, (rows, settings) in _arms(given).items()
        ],
        _contrasts(given),
    )  # fmt: skip


def _tokens(given: Given) -> Group:
    """Every arm at its own learning rate, with about as many loss tokens as limo.

    The rates are those that were found at equal steps.
    """
    rates, base = chosen_rates(given.run.load("study/rates")), given.base
    arms, setups, profile = _arms(given), [], given.profile

    def tokens(table: Dataset) -> list[int]:
        own = profile.sft
        return loss_tokens(base, profile.system_prompt, table, own.chat, own.max_tokens)

    budget = profile.sft.epochs * sum(tokens(load_table(given.sets, "limo")))
    for name, (rows, settings) in arms.items():
        table = load_table(rows.parent, rows.stem)
        batch = settings.model_copy(update={"batch_size": profile.sft.batch_size})
        fitted, count = at_equal_tokens(batch, tokens(table), budget)
        own = given.own_rows(name, table.select(range(count)))
        tuned = fitted.model_copy(update={"learning_rate": rates[name]})
        setups.append(ModelSetup(name, base, own, tuned, given.study.seeds))
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
OWN = {  # settings of each group; the first is the one without which it is not made
    "backbones": ("rich", "poor"), "sizes": ("sizes",), "doses": ("pass_at",),
    "teachers": ("teachers",), "epochs": ("epochs",), "rows": ("rows", "draws"),
    "lora": ("ranks", "lora_rate"), "rates": ("rates", "held_out"), "tuned": ("rates",),
    "tokens": ("rates",),
}  # fmt: skip
NEEDS = {"rows": "ablations/sets", "rates": "ablations/sets", "tuned": "study/rates",
         "tokens": "study/rates", "teachers": "chains"}  # fmt: skip


def groups_of(profile: Profile) -> list[str]:
    """The groups of the study that `profile` has."""
    return [name for name in GROUPS if getattr(profile.study, OWN[name][0])]


def run_group(run: Run, name: str) -> Artifact:
    """Stage `study/<name>`: the setups of a group carried out, every one final as it ends.

    Leaves results-<setup>-<seed>, table.json, differences.json (rows of `DifferenceRow`),
    and settings.json with rows, training and loss tokens of each setup. Raises ValueError
    before anything is trained where the settings do not fit together.
    """
    stages = {"models/sets", "evaluation", "questions", "pool", NEEDS.get(name, "pool")}
    stages |= {"ablations/sets"} if name in ("tuned", "tokens") else set()
    evaluated = run.load("evaluation")
    known = {key: getattr(run.profile.study, key) for key in ("seeds", *OWN[name])}
    study = StudySettings(**known)

    def make(folder: Path, profile: Profile) -> None:
        given = Given(run, profile, study, folder)
        group = GROUPS[name](given)
        compared = {model: results_of(evaluated, model) for model in EVALUATED}
        check_group(name, group, compared)
        items = held_out_items(given) if name == "rates" else None
        made = carry_out_all(folder, profile, group.setups, f"study: {name}", items)
        results = tables_of(group, made)
        write_json(folder / "table.json", accuracies(results))
        write_json(folder / "differences.json", paired(compared | results, group.pairs))
        facts = {setup.name: _facts(setup, profile) for setup in group.setups}
        write_json(folder / "settings.json", facts)

    models = {model: model_digest(model) for model in sorted(set(_models(run.profile, name)))}
    return run.make(
        f"study/{name}", make, inputs=[run.load(stage) for stage in sorted(stages)],
        reads=("models", "ablations", "chains", "sft", "evaluation", "engine", "pool",
               "system_prompt"),
        params={"study": study.model_dump(mode="json"), "models": models},
    )  # fmt: skip


def check_group(name: str, group: Group, others: Mapping[str, Sequence[Dataset]]) -> None:
    """Raise ValueError where a group is empty or its pairs have other numbers of tables.

    `others` are the models of chapter 8 that it is compared with.
    """
    counts = {setup.name: len(setup.seeds) for setup in group.setups}
    counts |= {own: len(parts) for own, parts in group.stacked.items()}
    if not counts or not all(counts.values()):
        lacking = ", ".join(f"study.{key}" for key in OWN[name])
        raise ValueError(f"the study's group {name} has nothing to compare: see {lacking}")
    counts = {own: len(tables) for own, tables in others.items()} | counts
    for left, right in group.pairs:
        a, b = counts[left], counts[right]
        if a != b and 1 not in (a, b):
            raise ValueError(
                f"{left} has {a} seeds and {right} {b}, which cannot be paired: study.seeds "
                "and study.draws must be as many as sft.seeds, rich backbones as many as poor"
            )


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


def _facts(setup: ModelSetup, profile: Profile) -> dict[str, object]:
    if not (setup.rows and setup.settings):
        return {"model": setup.model, "way": setup.way}
    own, rows = setup.settings, load_table(setup.rows.parent, setup.rows.stem)
    system = profile.system_prompt
    tokens = sum(loss_tokens(setup.model, system, rows, own.chat, own.max_tokens))
    return {
        "model": setup.model, "way": setup.way, "rows": len(rows), "epochs": own.epochs,
        "batch": own.batch_size, "steps": steps_of(own, len(rows)), "rate": own.learning_rate,
        "loss_tokens": own.epochs * tokens,
    }  # fmt: skip
