"""What a model knows against what it shows: one problem in two prompt formats (chapter 2).

In a *chat* the model answers as it was tuned to; at the opening of a *textbook* page it
continues as it was pretrained to. The same problems in both formats, so that the difference
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
from limo_nb.core.records import save_tables, table_digest
from limo_nb.core.runs import Artifact, Run
from limo_nb.core.settings import EvaluationSettings, Profile, Sampling
from limo_nb.evaluation import Estimate, accuracy, difference, grade_answers
from limo_nb.experiments.asking import prompts
from limo_nb.inference import complete, model_digest, open_engine
from limo_nb.lab.facts import single_facts

ROLES = ("base", "poor")  # fields of profile.models
FORMATS = ("chat", "textbook")  # of the prompt
SEED = 20  # of the problems


def drawn(settings: EvaluationSettings) -> Dataset:
    """Problems of the lab, `settings.ladder` of every family and number of steps.

    None is in a benchmark; columns of a problem, benchmark, in_domain.
    """
    return Dataset.from_list(lab.ladder(settings.ladder, SEED))


def greedy(settings: EvaluationSettings) -> Sampling:
    """One answer, the most probable token each time."""
    return Sampling(max_new_tokens=settings.sampling.max_new_tokens)


def run_elicitation(run: Run) -> Artifact:
    """Stage `elicitation`: both models' answers in both formats, and to facts.

    Leaves the tables results (`evaluation.RESULTS` with model and format) and facts,
    table.json and differences.json.
    """
    models = {role: getattr(run.profile.models, role) for role in ROLES}
    items = drawn(run.profile.evaluation)

    def make(folder: Path, profile: Profile) -> None:
        results = _answers(profile, models, items, folder)
        facts = _facts(profile, models, folder)
        save_tables(folder, results=results, facts=facts)
        write_json(folder / "table.json", estimates(results) + fact_estimates(facts))
        write_json(folder / "differences.json", gaps(results))

    digests = {role: model_digest(model) for role, model in models.items()}
    return run.make(
        "elicitation", make, reads=("evaluation", "engine", "system_prompt"),
        params={**digests, "problems": table_digest(items)},
    )  # fmt: skip


def _answers(profile: Profile, models: dict[str, str], items: Dataset, folder: Path) -> Dataset:
    """Graded answers to `items`, with the columns model and format."""
    parts, sampling = [], greedy(profile.evaluation)
    for role, model in models.items():
        with open_engine(profile.engine, model) as engine:
            for prompt_format in FORMATS:
                asked = prompts(prompt_format, items, profile.system_prompt, model)
                store = folder / "answers.sqlite"
                made = complete(engine, asked, sampling, store, f"{role}, {prompt_format}")
                graded = grade_answers(items, made)
                for name, value in (("model", role), ("format", prompt_format)):
                    graded = graded.add_column(name, [value] * len(graded))
                parts.append(graded)
    return concatenate_datasets(parts)


def _facts(profile: Profile, models: dict[str, str], folder: Path) -> Dataset:
    """Both models' continuations of pages of facts; right if the page goes on as it must."""
    facts = single_facts(2 * profile.evaluation.ladder, SEED)
    asked = [(fact["id"], f"Facts. {fact['given']}") for fact in facts]
    rows = []
    for role, model in models.items():
        with open_engine(profile.engine, model) as engine:
            store = folder / "answers.sqlite"
            made = complete(engine, asked, Sampling(max_new_tokens=16), store, f"{role}, facts")
        for fact, text in zip(facts, made["text"], strict=True):
            outcome = {"correct": text.startswith(fact["follows"]), "text": text}
            rows.append({"model": role, **fact, **outcome, "sample": 0, "finished": True})
    return Dataset.from_list(rows)


# ---------------------------------------------------------------- tables
def estimates(results: Dataset) -> list[dict[str, Any]]:
    """A row per model, format and group: "1 step", "2 steps" …, "many steps"."""
    groups = {steps(level): (level, level) for level in sorted(set(results["level"]))}
    results, rows = pooled(results), []
    for role, prompt_format in _asked(results):
        for group, levels in (groups | {"many steps": lab.MANY_STEPS}).items():
            found = accuracy([answers_of(results, role, prompt_format, levels)])
            rows.append(_row(role, prompt_format, group, found))
    return rows


def fact_estimates(facts: Dataset) -> list[dict[str, Any]]:
    """A row per model: the share of single facts that it completes rightly."""
    rows = []
    for role in dict.fromkeys(facts["model"]):
        own = pooled(facts.select([i for i, m in enumerate(facts["model"]) if m == role]))
        rows.append(_row(role, "facts", "single facts", accuracy([own])))
    return rows


def _row(role: str, prompt_format: str, group: str, found: Estimate) -> dict[str, Any]:
    """A row of `evaluation.AccuracyRow` with the format of the prompt."""
    facts = dict(vars(found))
    names = {"model": role, "format": prompt_format, "group": group}
    return {**names, "accuracy": facts.pop("value"), **facts}


def gaps(results: Dataset) -> list[dict[str, Any]]:
    """Textbook page less chat on many-step problems, paired by problem, per model."""
    results, rows = pooled(results), []
    for role in dict.fromkeys(results["model"]):
        page, chat = (
            answers_of(results, role, own, lab.MANY_STEPS) for own in ("textbook", "chat")
        )
        names = {"model": f"{role} textbook", "against": f"{role} chat"}
        rows.append({**names, "group": "many steps", **vars(difference([page], [chat]))})
    return rows


def _asked(results: Dataset) -> Iterable[tuple[str, str]]:
    return dict.fromkeys(zip(results["model"], results["format"], strict=True))


def answers_of(
    results: Dataset, role: str, prompt_format: str, levels: tuple[int, int]
) -> Dataset:
    """One model's answers in one format, to problems with `levels[0]..levels[1]` steps."""
    columns = zip(results["model"], results["format"], results["level"], strict=True)
    wanted = [
        index
        for index, (model, own, level) in enumerate(columns)
        if (model, own) == (role, prompt_format) and levels[0] <= level <= levels[1]
    ]
    return results.select(wanted)


def pooled(results: Dataset) -> Dataset:
    """The same answers as of one benchmark: an accuracy is then the share of problems.

    A family and level has few problems, so few that they say little apart.
    """
    rest = results.remove_columns("benchmark")
    return rest.add_column("benchmark", ["elicitation"] * len(rest))


def steps(level: int) -> str:
    """The name of the group of problems with `level` steps."""
    return "1 step" if level == 1 else f"{level} steps"
