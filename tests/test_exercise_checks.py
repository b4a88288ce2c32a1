"""Every checker of the book calls right submissions right and wrong ones wrong.

The checker's cell is taken from the chapter's text, and run where names of the chapter's run
stand for small tables made here; submissions are in `exercise_submissions.yaml`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT
from datasets import Dataset, disable_progress_bars

from limo_nb import chains, evaluation, evidence
from limo_nb.book import exercise_cases, exercises, pairs
from limo_nb.core import settings
from limo_nb.core.files import write_json
from limo_nb.core.runs import Run
from limo_nb.experiments import reanalysis
from limo_nb.grading import grade

FILE = Path(__file__).with_name("exercise_submissions.yaml")
SUBMISSIONS = yaml.safe_load(FILE.read_text("utf-8"))
ITEM = "how many apples are there in the basket of the old woman from the north at noon"
disable_progress_bars()


# ---------------------------------------------------------------- the chapters' text
@cache
def code_cells(chapter: int) -> list[str]:
    (file,) = (ROOT / "book" / "text").glob(f"{chapter:02d}-*.md")
    notebook = pairs.from_text(file)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def cells_of(number: str) -> tuple[str, str]:
    """The checker's cell of exercise `number` and the solution's."""
    cells = code_cells(int(number.split(".")[0]))
    checker = f"def check_{number.replace('.', '')}("
    place = next(place for place, source in enumerate(cells) if checker in source)
    return cells[place], cells[place + 1]


def imports_of(chapter: int) -> str:
    nodes = [node for source in code_cells(chapter) for node in ast.parse(source).body]
    found = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    return "\n".join(map(ast.unparse, found))


def named_in(chapter: int, *names: str) -> str:
    """The chapter's own definitions of `names`."""
    found = []
    for node in (node for source in code_cells(chapter) for node in ast.parse(source).body):
        targets = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
        if isinstance(node, ast.Assign):
            targets = [own.id for own in node.targets if isinstance(own, ast.Name)]
        if set(targets) & set(names):
            found.append(ast.unparse(node))
    assert len(found) == len(names), names
    return "\n".join(found)


def until_the_call(solution: str, call: str) -> str:
    """The part of a solution's cell that answers: what it prints needs the whole run."""
    body = ast.parse(solution).body
    calls = call.partition("(")[0] + "("
    last = next(place for place, node in enumerate(body) if calls in ast.unparse(node))
    return "\n".join(map(ast.unparse, body[: last + 1]))


# ---------------------------------------------------------------- a small run
def asked_twice() -> dict[str, Any]:
    return {"sides": list(exercise_cases.two_sides()[2])}


def overlapping() -> dict[str, Any]:
    """Pools in which copies, and problems with the item's first nine words, are dropped."""
    other = "and then the young man sells all of them to his three brothers at the market"
    opening = " ".join([*ITEM.split()[:9], other])
    questions = [ITEM, f"{ITEM} exactly", opening, other]
    names = [f"p{place}" for place in range(len(questions))]
    return {
        "distinct": Dataset.from_dict({"id": names, "question": questions}),
        "benchmark": Dataset.from_dict({"id": ["b"], "question": [ITEM]}),
    }


def scored_chains() -> dict[str, Any]:
    """Four questions with five chains; dimensions in coarse steps, so that scores tie."""
    rng, weights = Random(5), chains.weights()
    rows = []
    for place in range(20):
        marks = {name: rng.choice((0.0, 0.5, 1.0)) for name in chains.DIMENSIONS}
        score = round(sum(weights[name] * mark for name, mark in marks.items()), 9)
        own = {"question_id": f"q{place % 4}", "teacher": rng.choice("ab"), "sample": place}
        rows.append({**own, "tokens": rng.choice((30, 40)), "score": score, **marks})
    table = Dataset.from_list(rows)
    texts = ["1) 2+2=4. Check: yes. Therefore 4.", "1) 3+3=6. 2) 6+1=7. Perhaps. So 7."]
    return {
        "frame": table.to_pandas(), "top": chains.best_per_question(table),
        "scale": chains.Scale.of(texts), "rows": {"score": [0.55, 0.6, 0.65]},
    }  # fmt: skip


def sampled() -> dict[str, Any]:
    table = exercise_cases.graded_table(Random(7), 6, samples=4)
    return {"sampled": table, "majority": evaluation.majority_vote(table, 4)}


def trained_on_rows() -> dict[str, Any]:
    accuracies = {8: 0.5, 32: 0.7, 64: 0.9}
    rows = {("limo", "all"): {"accuracy": 0.9, "low": 0.8, "high": 0.95}}
    rows |= {(f"rows-{size}", "all"): {"accuracy": value} for size, value in accuracies.items()}
    names = {size: f"rows-{size}" for size in accuracies}
    tables = exercise_cases.tables_of_seeds()[2][0]
    return {"known": rows, "arms_by_rows": names, "x": list(names),
            "results": lambda name: tables}  # fmt: skip


def evaluated() -> dict[str, Any]:
    """A run whose evaluation has a table; `gain` of the chapter lies between 41.3 and 55."""
    accuracies = {"base": 0.1, "random": 0.6, "bulk": 0.2, "limo": 0.9}
    rows = [
        {"model": name, "group": "all", "accuracy": value, "low": value - 0.03,
         "high": value + 0.03, "items": 400, "seeds": 3}
        for name, value in accuracies.items()
    ]  # fmt: skip

    def write(folder: Path) -> None:
        write_json(folder / "table.json", rows)
        write_json(folder / "differences.json", [])
        table = exercise_cases.graded_table(Random(1), 3)
        for name in ("base", "limo-0"):
            table.to_parquet(str(folder / f"{name}.parquet"))

    run = Run("smoke")
    run.make("evaluation", write)
    gain = {"value": 48.0, "low": 41.3, "high": 55.0}
    return {"run": run, "overall": {row["model"]: row for row in rows},
            "ledger": evidence.load_ledger(),
            "by_id": {"in-domain": {"measured": {"gain": gain}}}}  # fmt: skip


def answered() -> dict[str, Any]:
    table, references = exercise_cases.mentions()[1]
    return {"tables": {"limo-T 0.7": table}, "references": references}


SMALL_RUN: dict[int, Callable[[], dict[str, Any]]] = {
    2: asked_twice,
    3: overlapping,
    5: scored_chains,
    6: lambda: {"sft": settings.load_profile("smoke").sft},
    7: sampled,
    9: trained_on_rows,
    10: evaluated,
    11: answered,
}
# What a checker or a submission takes of its own chapter.
TAKEN = {
    3: ["base"], 4: ["needed"], 8: ["WORDS", "items_needed"],
    12: ["verifier", "plus_one", "program"],
}  # fmt: skip
MORE = {
    "7.2": lambda names: exec(cells_of("7.2")[1].partition("\n\n\n")[0], names),
    "8.2": lambda names: names.update(smallest=next(
        d for d in range(1, 40) if names["items_needed"](0.6, 0.6 + d / 100) <= 30)),
}  # fmt: skip


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """The names that the checker of an exercise finds."""
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path))
    monkeypatch.chdir(ROOT / "book")

    def names_of(number: str) -> dict[str, Any]:
        chapter = int(number.split(".")[0])
        names: dict[str, Any] = {"np": np}
        exec(imports_of(chapter), names)
        names |= SMALL_RUN.get(chapter, dict)()
        exec(named_in(chapter, *TAKEN.get(chapter, [])), names)
        checker, names["solution"] = cells_of(number)
        exec(checker, names)
        MORE.get(number, lambda own: None)(names)
        return names

    return names_of


# ---------------------------------------------------------------- the verdicts
def submissions(kind: str) -> Iterator[Any]:
    for number, own in SUBMISSIONS.items():
        for place, code in enumerate(own[kind], 1):
            yield pytest.param(number, own["call"], code, id=f"{number}-{kind}-{place}")


def submitted(names: dict[str, Any], code: str, call: str) -> None:
    """Run a submission and its check; one that begins with `solution` edits the chapter's."""
    if code.startswith("solution"):
        code = until_the_call(eval(code, names), call).rpartition("\n")[0]
    exec(f"{code}\n{call}", names)


def test_every_exercise_has_submissions_enough() -> None:
    numbers = {
        f"{chapter}.{number}"
        for chapter in range(1, 13)
        for number in re.findall(rf"def check_{chapter}(\d)\(", "\n".join(code_cells(chapter)))
    }
    assert set(SUBMISSIONS) == numbers
    few = [n for n, own in SUBMISSIONS.items() if len(own["wrong"]) < 3 or not own["right"]]
    assert few == []


@pytest.mark.parametrize("number", SUBMISSIONS)
def test_the_chapters_own_solution_is_right(number, book, capsys) -> None:
    names = book(number)
    exec(until_the_call(names["solution"], SUBMISSIONS[number]["call"]), names)
    assert f"exercise {number}: correct\n" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "call", "code"), submissions("right"))
def test_a_right_submission_is_right_in_any_way(number, call, code, book, capsys) -> None:
    submitted(book(number), code, call)
    assert f"exercise {number}: correct\n" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "call", "code"), submissions("wrong"))
def test_a_wrong_submission_gets_a_hint(number, call, code, book, capsys) -> None:
    with pytest.raises(exercises.NotYet, match=rf"exercise {re.escape(number)}: .*Hint: "):
        submitted(book(number), code, call)
    assert "correct" not in capsys.readouterr().out


def test_the_reference_of_the_token_limit_is_the_package(book) -> None:
    for table, share in exercise_cases.limits_and_shares():
        limit = exercise_cases.smallest_limit(table, share)
        right = sum(map(bool, table["correct"]))
        kept = sum(map(bool, reanalysis.cut(table, limit)["correct"]))
        less = sum(map(bool, reanalysis.cut(table, limit - 1)["correct"]))
        assert kept >= share * right and (limit == 1 or less < share * right)


def test_what_exercise_8_1_mends_is_not_read_by_the_grader() -> None:
    assert grade("42", r"\boxed{forty-two}").correct is False
    assert grade("12", r"\boxed{twelve}").correct is True
