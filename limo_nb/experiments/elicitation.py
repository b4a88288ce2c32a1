"""What a model knows against what it shows: one problem, put in two ways (chapter 2).

In a *chat* the model answers as it was tuned to; at the opening of a *textbook* page it
continues as it was pretrained to. The same problems in both ways, so that the difference
can be taken problem by problem. A third question, single facts, tells whether two
backbones differ in what they know or in what they can do with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from limo_nb import lab
from limo_nb.core.files import write_json
from limo_nb.core.records import table_digest
from limo_nb.core.runs import (
    Artifact,
    Run,
)
from limo_nb.core.settings import (
    Profile,
    Sampling,
)
from limo_nb.evaluation.attempts import grade_answers
from limo_nb.evaluation.estimates import (
    accuracy,
    difference,
)
from limo_nb.inference import (
    Prompt,
    chat_prompt,
    complete,
    model_digest,
    open_engine,
)
from limo_nb.lab.facts import single_facts

ROLES = ("base", "poor")  # fields of profile.models
WAYS = ("chat", "textbook")
SEED = 20  # of the problems
MANY = lab.HARD  # steps of "many steps", as in the benchmarks


def drawn(profile: Profile) -> Dataset:
    """Problems of every family and number of steps, a quarter as many of each as the
    benchmarks have, and none that is in one; columns of a problem, benchmark, in_domain.
    """
    return Dataset.from_list(lab.ladder(max(1, profile.evaluation.items // 4), SEED))


def greedy(profile: Profile) -> Sampling:
    """One answer, the most probable token each time."""
    return Sampling(max_new_tokens=profile.evaluation.sampling.max_new_tokens)


def prompt(way: str, question: str, system: str) -> Prompt:
    """`question` in a chat, or as the opening of a textbook page."""
    if way == "textbook":
        return lab.worked_prompt(question)
    return chat_prompt(question, system)


def make(run: Run) -> Artifact:
    """Stage `probe`: results.parquet, table.json and differences.json; see `ask`."""
    profile, items = run.profile, drawn(run.profile)
    models = {role: model_digest(getattr(profile.models, role)) for role in ROLES}
    params = {
        **models,
        "problems": table_digest(items),
        "sampling": greedy(profile),
        "engine": profile.engine,
        "system_prompt": profile.system_prompt,
    }
    return run.make("probe", lambda folder: ask(profile, items, folder), params=params)


def ask(profile: Profile, items: Dataset, folder: Path) -> None:
    """Both models' answers in both ways, and to facts: results.parquet, facts.parquet,
    table.json, differences.json."""
    parts = []
    for role in ROLES:
        with open_engine(profile.engine, getattr(profile.models, role)) as engine:
            for way in WAYS:
                asked = [
                    (row["id"], prompt(way, row["question"], profile.system_prompt))
                    for row in items
                ]
                store = folder / "answers.sqlite"
                answers = complete(engine, asked, greedy(profile), store, f"{role}, {way}")
                graded = grade_answers(items, answers)
                for name, value in (("model", role), ("way", way)):
                    graded = graded.add_column(name, [value] * len(graded))
                parts.append(graded)
    results, facts = concatenate_datasets(parts), ask_facts(profile, folder)
    results.to_parquet(str(folder / "results.parquet"))
    facts.to_parquet(str(folder / "facts.parquet"))
    write_json(folder / "table.json", estimates(results) + fact_estimates(facts))
    write_json(folder / "differences.json", gaps(results))


# ---------------------------------------------------------------- single facts
def ask_facts(profile: Profile, folder: Path) -> Dataset:
    """Both models' continuations of pages of facts; right if the page goes on as it must."""
    facts = single_facts(2 * max(1, profile.evaluation.items // 4), SEED)
    asked = [(fact["id"], f"Facts. {fact['given']}") for fact in facts]
    rows = []
    for role in ROLES:
        with open_engine(profile.engine, getattr(profile.models, role)) as engine:
            store = folder / "answers.sqlite"
            made = complete(engine, asked, Sampling(max_new_tokens=16), store, f"{role}, facts")
        for fact, text in zip(facts, made["text"], strict=True):
            outcome = {"correct": text.startswith(fact["follows"]), "text": text}
            counts = {"sample": 0, "finished": True}
            rows.append({"model": role, **fact, **outcome, **counts})
    return Dataset.from_list(rows)


def fact_estimates(facts: Dataset) -> list[dict[str, Any]]:
    """A row per model: the share of single facts that it completes rightly."""
    rows = []
    for role in dict.fromkeys(facts["model"]):
        own = pooled(facts.select([i for i, m in enumerate(facts["model"]) if m == role]))
        found = dict(vars(accuracy([own])))
        names = {"model": role, "way": "facts", "group": "single facts"}
        rows.append({**names, "accuracy": found.pop("value"), **found})
    return rows


# ---------------------------------------------------------------- answers to problems


def chosen(results: Dataset, role: str, way: str, levels: tuple[int, int]) -> Dataset:
    """One model's answers, asked one way, to problems with `levels[0]..levels[1]` steps."""
    columns = zip(results["model"], results["way"], results["level"], strict=True)
    wanted = [
        index
        for index, (model, asked, level) in enumerate(columns)
        if (model, asked) == (role, way) and levels[0] <= level <= levels[1]
    ]
    return results.select(wanted)


def pooled(results: Dataset) -> Dataset:
    """The same answers as of one benchmark: an accuracy is then the share of problems.

    A family and level has few problems, so few that resampling within it says nothing.
    """
    rest = results.remove_columns("benchmark")
    return rest.add_column("benchmark", ["probe"] * len(rest))


def steps(level: int) -> str:
    """The name of the group of problems with `level` steps."""
    return "1 step" if level == 1 else f"{level} steps"


def estimates(results: Dataset) -> list[dict[str, Any]]:
    """A row per model, way and group: "1 step" … "8 steps", "many steps"."""
    groups = {steps(level): (level, level) for level in sorted(set(results["level"]))}
    results, rows = pooled(results), []
    for role, way in _asked(results):
        for group, levels in (groups | {"many steps": MANY}).items():
            facts = dict(vars(accuracy([chosen(results, role, way, levels)])))
            names = {"model": role, "way": way, "group": group}
            rows.append({**names, "accuracy": facts.pop("value"), **facts})
    return rows


def _asked(results: Dataset) -> Iterable[tuple[str, str]]:
    return dict.fromkeys(zip(results["model"], results["way"], strict=True))


def gaps(results: Dataset) -> list[dict[str, Any]]:
    """Textbook page less chat on many-step problems, paired by problem, per model."""
    results, rows = pooled(results), []
    for role in dict.fromkeys(results["model"]):
        page, chat = (chosen(results, role, way, MANY) for way in ("textbook", "chat"))
        names = {"model": f"{role} textbook", "against": f"{role} chat"}
        rows.append({**names, "group": "many steps", **vars(difference([page], [chat]))})
    return rows
