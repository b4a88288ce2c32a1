"""The commands evaluate, compare and benchmarks, in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_model

ROOT = Path(__file__).resolve().parents[1]


def limo_nb(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "limo_nb", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> tuple[Path, dict]:
    """A folder with a model, and the document of its evaluation on the lab."""
    home = tmp_path_factory.mktemp("cli")
    tiny_model(home / "model")
    done = limo_nb(
        home, "evaluate", "--model", home / "model", "--benchmark", "lab", "--items", 2,
        "--max-new-tokens", 8, "--dtype", "float32", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return home, json.loads(done.stdout)


def test_evaluate_prints_one_document(evaluated):
    home, document = evaluated
    assert document["protocol"]["departures"] == ["max_new_tokens=8"]
    rows = {row["group"]: row for row in document["table"]}
    everything = rows["all"]
    assert len(rows) == 13 and everything["items"] == 20
    assert everything["right"] + everything["wrong"] + everything["unverifiable"] == 20
    assert Path(document["folder"]).is_relative_to(home / "runs" / "evaluate")
    assert document["versions"]["torch"] and document["hardware"]


def test_the_same_command_again_shows_the_same_as_a_table(evaluated):
    home, document = evaluated
    done = limo_nb(
        home, "evaluate", "-m", home / "model", "-b", "lab", "--items", 2,
        "--max-new-tokens", 8, "--dtype", "float32",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for head in ("95 % interval", "varies", "right / wrong / unverifiable", "cut off (%)"):
        assert head in done.stdout
    assert f"results: {document['folder']}" in done.stdout
    assert "greedy (max_new_tokens=8)" in done.stdout and "engine transformers" in done.stdout


def test_compare(evaluated):
    home, document = evaluated
    folder = document["folder"]
    rows = json.loads(limo_nb(home, "compare", "--a", folder, "--b", folder, "--json").stdout)
    assert {row["value"] for row in rows} == {0.0} and {row["p"] for row in rows} == {1.0}
    mean = next(row["accuracy"] for row in document["table"] if row["group"] == "all")
    assert rows[-1]["accuracies"] == [mean, mean]
    words = ("compare", "--a", folder, "--b", folder, "--figure", home / "apart.svg")
    shown = limo_nb(home, *words).stdout
    assert "varies: items" in shown and "unverifiable" in shown and "both (%)" in shown
    assert "<svg" in (home / "apart.svg").read_text()
    assert "apart.svg is there already" in limo_nb(home, *words).stderr


def test_compare_takes_a_folder_for_each_training_seed(evaluated, tmp_path):
    home, document = evaluated
    again = shutil.copytree(document["folder"], tmp_path / "seed-1")
    both = ("--a", document["folder"], "--a", again)
    (row, *_) = json.loads(
        limo_nb(home, "compare", *both, "--b", document["folder"], "--json").stdout
    )
    assert row["seeds"] == 2 and row["model"] == f"{row['against']} and 1 more"
    assert row["varies"] == "items, seeds" and row["value"] == 0.0


def test_benchmarks_are_listed_with_what_is_wrong_with_them(evaluated):
    home, _ = evaluated
    rows = json.loads(limo_nb(home, "benchmarks", "--json").stdout)
    assert len(rows) == 15 and {"title", "role", "language", "terms", "defects"} <= set(rows[0])
    text = limo_nb(home, "benchmarks").stdout
    assert "gpqa: the reference of every item is A; options are permuted" in text


WRONG = [
    (("--protocol", "paper-v2"), "'paper-v2' is not one of 'paper-v1'"),
    (("--benchmark", "aime24"), "unknown benchmark 'aime24'; there are lab"),
    (("--engine", "magic"), "'magic' is not one of 'transformers'"),
    (("--top-p", "2"), "less than or equal to 1"),
    (("--benchmark", "aime"), "set LIMO_NB_DATA to a folder that has benchmarks/aime.jsonl"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_mistakes_are_told_without_a_traceback(evaluated, options, said):
    home, _ = evaluated
    done = limo_nb(home, "evaluate", "-m", home / "model", "-b", "lab", *options)
    # An option that is wrong by itself, or what a room says of it.
    assert done.returncode == (2 if "Usage: " in done.stderr else 1)
    assert said in done.stderr and "Traceback" not in done.stderr
