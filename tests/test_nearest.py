"""The list of what resembles a benchmark item in meaning, and what such a list is worth."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import paraphrases
import pytest
from datasets import Dataset, concatenate_datasets
from paraphrases import CHANGED, ITEMS, PAIRS, PARAPHRASES, figures, is_own, table
from sentence_model import minilm  # noqa: F401
from test_cli_pool import call, rows_of, write
from tiny import tiny_model
from typer.testing import CliRunner

from limo_nb import problems, selection
from limo_nb.cli import app

ANGLES = {"a": 0.0, "b": 0.2, "c": 1.0, "d": 3.1, "x": 0.04, "y": 1.1}


def on_a_circle(texts):
    return np.array([[np.cos(ANGLES[text]), np.sin(ANGLES[text])] for text in texts])


@pytest.mark.parametrize(
    ("top", "least", "count"),
    [(1, -1, 2), (2, 0.5, 4), (4, -1, 8), (9, -1, 8), (4, 0.999, 1), (4, 0.7, 3)],
)
def test_pairs_are_the_nearest_first(top, least, count):
    pool, items = table("p", ["x", "y"]), table("i", ["a", "b", "c", "d"])
    pairs = problems.nearest_items(pool, items, on_a_circle, top, least)
    cosines = [pair["similarity"] for pair in pairs]
    assert cosines == sorted(cosines, reverse=True) and min(cosines) >= least
    for pair in pairs:
        angle = ANGLES[pair["question"]] - ANGLES[pair["item"]]
        assert pair["similarity"] == pytest.approx(np.cos(angle), abs=1e-4)
    assert len(pairs) == count


def test_each_problem_has_at_most_so_many_pairs():
    pool, items = table("p", ["x", "y"]), table("i", ["a", "b", "c", "d"])
    pairs = problems.nearest_items(pool, items, on_a_circle, 1, -1)
    assert [(pair["id"], pair["counterpart"]) for pair in pairs] == [
        ("p-0", "i-0"),
        ("p-1", "i-2"),
    ]


@pytest.mark.parametrize(("pool", "items"), [([], ["a"]), (["a"], []), ([], [])])
def test_nothing_resembles_nothing(pool, items):
    none = Dataset.from_dict({"id": [], "question": []})
    made = [table("t", own) if own else none for own in (pool, items)]
    assert problems.nearest_items(*made, on_a_circle) == []


def test_the_command_lists_and_drops_nothing_for_it(tmp_path):
    model = str(tiny_model(tmp_path / "model"))
    exam = write(tmp_path / "exam.jsonl", [{"id": 1, "question": PAIRS[0]["original"]}])
    rows = [{"question": pair["paraphrase"]} for pair in PAIRS[:5]]
    rows.append({"question": PAIRS[0]["original"]})
    file = write(tmp_path / "p.jsonl", rows)
    list_ = tmp_path / "nearest.jsonl"
    options = ("--nearest", model, "--list", list_, "--similarity", "-1", "--top", "2")
    facts = call("decontaminate", file, "--against", exam, *options)
    assert facts["kept"] == facts["pairs to look at"] == 5  # what fell is in the report
    listed = rows_of(Path(facts["list"]))
    assert {row["counterpart"] for row in listed} == {"exam-1"}
    assert {row["question"] for row in listed} == {row["question"] for row in rows[:5]}
    assert rows_of(Path(facts["out"])) == rows[:5]
    assert "list" not in call("decontaminate", file, "--against", exam)


def test_a_missing_model_is_told_before_anything_is_written(tmp_path):
    file = write(tmp_path / "p.jsonl", [{"question": "A?"}])
    exam = write(tmp_path / "exam.jsonl", [{"id": 1, "question": "B?"}])
    missing = str(tmp_path / "nowhere")
    arguments = ["decontaminate", str(file), "--against", str(exam), "--nearest", missing]
    arguments += ["--list", str(tmp_path / "nearest.jsonl")]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, ValueError) and missing in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exam.jsonl", "p.jsonl"]


def test_ngrams_miss_paraphrases_and_the_pairs_are_good_ones():
    assert len({json.dumps(pair) for pair in PAIRS}) == len(PAIRS) == 100
    assert not set(CHANGED["question"]) & set(ITEMS["question"])
    found = problems.decontaminate(PARAPHRASES, ITEMS, 8)
    assert len(found.dropped) <= 3
    numbers = [paraphrases.NUMBER.findall(pair["original"]) for pair in PAIRS]
    assert all(numbers)  # without one there is nothing to change


@pytest.mark.real
def test_a_real_model_lists_the_paraphrases(minilm):  # noqa: F811
    pool = concatenate_datasets([PARAPHRASES, CHANGED])
    embed = partial(selection.embed, model=minilm)
    listed = problems.nearest_items(pool, ITEMS, embed, top=3, least=0.5)
    first = figures(listed, 0.5)
    assert first["recall"] >= 0.95 and first["precision"] > 0.6
    strict = figures(listed, 0.7)
    assert strict["recall"] >= 0.7 and strict["precision"] > 0.95
    # A changed number is as near as a paraphrase: why nothing falls by this.
    changed = [p for p in listed if p["id"].startswith("changed") and is_own(p)]
    assert sum(pair["similarity"] >= 0.7 for pair in changed) >= 70
