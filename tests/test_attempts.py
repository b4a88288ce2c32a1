"""Asking and grading: from items to results, kept verdicts, the recorded outputs."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from datasets import Dataset
from tiny import tiny_model

from limo_nb.core.settings import (
    EngineSettings,
    EvaluationSettings,
    Sampling,
    load_profile,
)
from limo_nb.evaluation import (
    RESULTS,
    GradedResponse,
    accuracies,
    benchmark_items,
    compare,
    evaluate,
    grade_answers,
    recorded_agreement,
)
from limo_nb.evaluation.attempts import verdicts_of

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


# ---------------------------------------------------------------- from items to results
def test_lab_items():
    items = benchmark_items(load_profile("smoke").evaluation)
    assert len(set(items["benchmark"])) == 10 and len(items) == 40
    assert len(set(items["id"])) == 40


def test_real_items_need_the_folder(monkeypatch):
    settings = load_profile("smoke").evaluation.model_copy(update={"benchmarks": ("aime",)})
    monkeypatch.delenv("LIMO_NB_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set LIMO_NB_DATA to a folder that has bench"):
        benchmark_items(settings)


def test_cut_off_answers_are_wrong_even_if_they_hold_the_answer():
    items = benchmark_items(load_profile("smoke").evaluation).select([0])
    right = rf"\boxed{{{items['answer'][0]}}}"
    answers = [
        {"id": items["id"][0], "sample": n, "text": right, "tokens": 5, "finished": not n}
        for n in range(2)
    ]
    graded = grade_answers(items, Dataset.from_list(answers))
    assert list(graded["correct"]) == [True, False]
    assert list(graded["reason"]) == ["same", "truncated"]


def test_a_model_is_evaluated(tmp_path):
    model = str(tiny_model(tmp_path / "model"))
    items = benchmark_items(load_profile("smoke").evaluation).select(range(0, 40, 8))
    sampling = Sampling(samples=2, temperature=1.0, max_new_tokens=8)
    engine = EngineSettings(dtype="float32", batch_size=4)
    results = evaluate(model, items, sampling, engine, "Be brief.", tmp_path)
    assert results.features == RESULTS and len(results) == 10
    assert {row["group"] for row in accuracies({"tiny": [results]})} > {"all"}
    again = evaluate(model, items, sampling, engine, "Be brief.", tmp_path)
    assert again.to_list() == results.to_list()


def test_rows_of_one_s_own_need_a_question_and_an_answer_only(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path / "runs"))
    model = tiny_model(tmp_path / "model")
    rows = [{"question": "What is 2+3?", "answer": 5}, {"question": "2*3?", "answer": 0}]
    few = Sampling(max_new_tokens=4)
    results = evaluate(model, rows, few)
    assert list(results["id"]) == ["question-1", "question-2"]
    assert set(results["benchmark"]) == {"questions"} and results.features == RESULTS
    assert (tmp_path / "runs" / "evaluate" / "completions.sqlite").exists()
    (row,) = compare(results, [results], ("one", "same"))
    assert (row["model"], row["value"], row["items"]) == ("one", 0, 2)
    for lacking, told in (
        ({"answer": "5"}, "no 'question'"),
        ({"question": "?"}, "no 'answer'"),
    ):
        with pytest.raises(ValueError, match=f"item 2 has {told}"):
            evaluate(model, [rows[0], lacking], few)


def test_a_benchmark_is_named(tmp_path):
    model = tiny_model(tmp_path / "model")
    found = evaluate(model, "lab", Sampling(max_new_tokens=1), folder=tmp_path)
    assert len(found) == 400 and len(set(found["benchmark"])) == 10


def test_the_table_on_disk_is_the_documented_one():
    assert list(RESULTS) == list(GradedResponse.__annotations__)


# ---------------------------------------------------------------- verdicts that are kept
PAIRS = [("12", r"so \boxed{12}"), ("12", r"so \boxed{13}"), ("12", "no idea")]


def test_verdicts_are_kept_and_not_made_again(tmp_path):
    store = tmp_path / "verdicts.sqlite"
    first = verdicts_of(PAIRS[:2], store=store)
    assert first == verdicts_of(PAIRS[:2]) and [v.correct for v in first] == [True, False]
    with closing(sqlite3.connect(store)) as database, database:
        database.execute("UPDATE verdicts SET row = replace(row, 'same', 'kept')")
        assert database.execute("SELECT count(*) FROM verdicts").fetchone() == (2,)
    again = verdicts_of(PAIRS, store=store)
    assert [v.reason for v in again] == ["kept", first[1].reason, "no answer"]


def test_a_verdict_depends_on_the_tolerance(tmp_path):
    pair, store = [("4.50", r"\boxed{4.52}")], tmp_path / "verdicts.sqlite"
    found = [verdicts_of(pair, t, store)[0].correct for t in (0.0, 0.01, 0.0)]
    assert found == [False, True, False]


# ---------------------------------------------------------------- real data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not beside the repository")
def test_real_items_and_recorded_outputs(monkeypatch):
    monkeypatch.setenv("LIMO_NB_DATA", str(SHARED))
    settings = EvaluationSettings(
        benchmarks=("aime", "gpqa", "lab"), items=33, sampling=Sampling(),
        votes=Sampling(samples=2, temperature=1.0),
    )  # fmt: skip
    items = benchmark_items(settings)
    assert len(items) == 30 + 33 + 330
    agreement = recorded_agreement(SHARED)
    assert agreement.outputs == 5276
    assert agreement.share >= 0.999, agreement.disagreements[:5]
    assert len(agreement.disagreements) == agreement.outputs - agreement.agreeing
