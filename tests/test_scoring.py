"""Scoring a model by a protocol: folders, tables, exports, comparisons, kills."""

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from tiny import tiny_model

from limo_nb import inference
from limo_nb.cli.evaluate import (
    BROAD,
    _disagreements,
    _scores,
)
from limo_nb.core.settings import EngineSettings
from limo_nb.evaluation import (
    benchmarks,
    scoring,
)
from limo_nb.evaluation.protocols import protocol
from limo_nb.inference import Completion

ROOT = Path(__file__).resolve().parents[1]
ENGINE = EngineSettings(dtype="float32", batch_size=8)


def write_items(data: Path) -> None:
    """A file in the place of AIME 2025 I: 15 questions of ours."""
    rows = [{"question": f"What is {n} plus {n}?", "answer": str(2 * n)} for n in range(15)]
    (data / "benchmarks").mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "benchmarks" / "aime2025-I.jsonl").write_text(text)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with data and two models."""
    home = tmp_path_factory.mktemp("scoring")
    write_items(home / "data")
    for seed in (0, 1):
        tiny_model(home / f"model-{seed}", seed)
    return home


@pytest.fixture(autouse=True)
def settled(home, monkeypatch):
    monkeypatch.setenv("LIMO_NB_DATA", str(home / "data"))
    monkeypatch.setenv("LIMO_NB_RUNS", str(home / "runs"))


def job(home: Path, *names: str, model: int = 0, name: str = "paper-v3", **changes):
    chosen = protocol(name, **{"max_new_tokens": 12, **changes})
    return scoring.ScoreRequest(str(home / f"model-{model}"), names, chosen, ENGINE, items=6)


@pytest.fixture(scope="module")
def scored(home) -> Path:
    """The folder of a run on the lab and on a small set, both with six items at most."""
    patch = pytest.MonkeyPatch()
    patch.setenv("LIMO_NB_DATA", str(home / "data"))
    patch.setenv("LIMO_NB_RUNS", str(home / "runs"))
    found = scoring.score_model(job(home, "lab", "aime25_1"), home / "out")
    patch.undo()
    return found.path


def test_a_run_leaves_results_a_table_and_says_what_made_it(home, scored):
    found, results = scoring.load_scores(scored)
    assert len(results) == 60 + 6 * 4
    made = found.manifest
    assert made["protocol"]["name"] == "paper-v3"
    assert made["protocol"]["departures"] == ["max_new_tokens=12"]
    assert made["engine"]["kind"] == "transformers" and made["versions"]["math-verify"]
    assert made["hardware"] and made["model_digest"] and made["grader"]
    aime = made["benchmarks"]["aime25_1"]
    assert (aime["items"], aime["source"], len(aime["sha256"])) == (6, "local", 64)
    assert aime["title"] == "AIME25 I" and made["benchmarks"]["lab"]["terms"]


def test_the_table_has_three_counts_and_what_varies(scored):
    rows = {row["group"]: row for row in json.loads((scored / "table.json").read_text())}
    assert len(rows) == 11 + 3  # benchmarks, in and out of domain, all
    for row in rows.values():
        answers = row["right"] + row["wrong"] + row["unverifiable"]
        assert row["protocol"] == "paper-v3 (max_new_tokens=12)"
        assert row["truncation"] == row["truncated"] / answers
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert row["low"] < row["high"]
    small = rows["aime25_1"]
    assert (small["k"], small["samples"], small["varies"]) == (4, 4, "items, samples")
    assert small["pass_at_k"]["value"] >= small["accuracy"]
    assert "k" not in rows["all"]


def test_a_finished_run_is_not_run_again(home, scored, monkeypatch):
    monkeypatch.setattr(scoring, "open_engine", None)  # whoever calls it fails
    again = scoring.score_model(job(home, "lab", "aime25_1"), home / "out")
    assert again.path == scored


def test_a_score_does_not_depend_on_what_else_was_asked(home, scored):
    alone = scoring.score_model(job(home, "aime25_1"), home / "alone")
    mine = alone.path / "results-aime25_1.parquet"
    rows = [scoring.Dataset.from_parquet(str(f)).to_list() for f in (
        mine, scored / "results-aime25_1.parquet"
    )]  # fmt: skip
    assert rows[0] == rows[1]
    other = scoring.score_model(job(home, "aime25_1", seed=1), home / "alone")
    assert other.path != alone.path
    texts = [scoring.load_scores(found.path)[1]["text"] for found in (alone, other)]
    assert list(texts[0]) != list(texts[1])


def test_what_cannot_be_scored(home):
    with pytest.raises(ValueError, match="unknown benchmark"):
        scoring.score_model(job(home, "aime24"), home / "out")
    with pytest.raises(ValueError, match="name a benchmark"):
        scoring.score_model(job(home), home / "out")
    with pytest.raises(ValueError, match="no model at .*model-9"):
        scoring.score_model(job(home, "lab", model=9), home / "out")
    with pytest.raises(FileNotFoundError, match="no finished run"):
        scoring.load_scores(home)


def test_two_models_are_compared_on_the_same_items(home, scored):
    other = scoring.score_model(job(home, "lab", "aime25_1", model=1), home / "out").path
    rows = scoring.compare([scored], [other])
    assert [row["group"] for row in rows][-1] == "all" and len(rows) == 14
    tables = [json.loads((folder / "table.json").read_text()) for folder in (scored, other)]
    for row, a, b in zip(rows, *tables, strict=True):
        assert row["value"] == pytest.approx(a["accuracy"] - b["accuracy"])
        assert row["right"] == a["right"] + b["right"] and 0 < row["p"] <= 1
    greedy = scoring.score_model(job(home, "aime25_1", name="greedy"), home / "out").path
    with pytest.raises(ValueError, match="named twice on one side"):
        scoring.compare([scored, scored], [other])
    with pytest.raises(ValueError, match="different protocols"):
        scoring.compare([scored], [greedy])


# ---------------------------------------------------------------- a judge
class Scripted:
    """An engine that says of every second answer that it is the same."""

    identity, batch_size = {"kind": "scripted"}, 4

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def length(self, prompt):
        return 1

    def run(self, batches, sampling):
        for batch in batches:
            yield [
                (ask.key, Completion(f"So.\nVERDICT: {'SAME' if place % 2 else 'no'}", 4, True))
                for place, ask in enumerate(batch)
            ]


@pytest.fixture
def judged_benchmark(monkeypatch):
    monkeypatch.setitem(benchmarks.benchmark_registry()["aime25_1"], "judge", True)


def test_a_judge_decides_where_the_paper_has_one(
    home, judged_benchmark, monkeypatch
):  # fmt: skip
    judge, plain = str(home / "model-1"), inference.open_engine
    monkeypatch.setattr(
        scoring, "open_engine", lambda s, m: Scripted() if m == judge else plain(s, m)
    )
    asked = dataclasses.replace(job(home, "aime25_1", max_new_tokens=200), judge=judge)
    found = scoring.score_model(asked, home / "out")
    (row,) = found.json("table.json")
    assert row["graded_by"] == f"judge {judge}"
    assert found.manifest["judge"] == judge and found.manifest["judge_digest"]
    judged = scoring.Dataset.from_parquet(str(found / "judgements-aime25_1.parquet"))
    results = scoring.Dataset.from_parquet(str(found / "results-aime25_1.parquet"))
    ended = [row for row in results if row["finished"]]
    assert len(judged) == len(ended) > 4
    said = dict(zip(judged["id"], judged, strict=True))
    same = [said[f"{row['id']}/{row['sample']}"]["correct"] for row in ended]
    assert any(same) and None in same
    for row, verdict in zip(ended, same, strict=True):
        assert row["correct"] is True if verdict else row["correct"] in (False, None)
    assert all(row["reply"] for row in judged if row["answer"])
    listed = found.json("disagreements-aime25_1.json")
    assert {row["id"] for row in listed} <= set(judged["id"]) and listed
    assert row_of(found) == (len(listed), ["disagreements-aime25_1.json"])
    (said,) = _disagreements(found.json("table.json"), found.path)
    file = found / "disagreements-aime25_1.json"
    assert said == f"aime25_1: judge and rules disagree on {len(listed)}: {file}"


def row_of(found) -> tuple[int, list[str]]:
    (row,) = found.json("table.json")
    return row["disagreements"], row["disagreement_files"]


def test_disagreements_are_added_up_over_benchmarks(scored):
    results = {"aime25_1": scoring.load_scores(scored)[1]}
    rows = scoring.tabulated(results, protocol("greedy"), apart={"aime25_1": 3, "dial": 4})
    counts = {row["group"]: row.get("disagreements") for row in rows}
    assert counts["aime25_1"] == 3 and counts["all"] == 7
    assert {counts[name] for name in set(counts) - set(BROAD)} >= {3, None}


def test_the_printed_table_has_pass_and_cons_where_there_are_several_samples(home, scored):
    rows = json.loads((scored / "table.json").read_text())
    heads = [column.header for column in _scores(rows, "").columns]
    assert "pass@k (%)" in heads and "cons@k (%)" in heads
    cells = list(_scores(rows, "").columns[heads.index("cons@k (%)")].cells)
    told = dict(zip([row["group"] for row in rows], cells, strict=True))
    assert told["aime25_1"].startswith("k = 4: ") and told["all"] == ""
    greedy = [row for row in rows if "k" not in row]
    assert "pass@k (%)" not in [column.header for column in _scores(greedy, "").columns]


def test_a_judge_leaves_other_benchmarks_to_the_rules(home, scored):
    results = {"lab": scoring.load_scores(scored)[1].select(range(60))}
    rows = scoring.tabulated(results, protocol("greedy"), judge="someone")
    assert {row["graded_by"] for row in rows} == {"rule"}


def test_without_a_judge_rules_grade_and_the_table_says_so(home, judged_benchmark):
    found = scoring.score_model(job(home, "aime25_1"), home / "out")
    (row,) = found.json("table.json")
    assert row["graded_by"] == "rule"


# ---------------------------------------------------------------- lm-evaluation-harness
def test_a_run_killed_after_its_export_leaves_one_file_of_results(home):
    asked = job(home, "aime25_1", name="greedy")
    found = scoring.score_model(asked, home / "out")
    (file,) = (found / "lm-eval").glob("*/results_*.json")
    file.rename(file.with_name("results_2000-01-01T00-00-00.json"))
    (found / "manifest.json").unlink()
    again = scoring.score_model(asked, home / "out")
    assert again.path == found.path and again.manifest["resumed"]
    (new,) = (found / "lm-eval").glob("*/results_*.json")
    assert "2000" not in new.name


# The keys of lm_eval/result_schema.py, lm-eval 0.4.13.
SCHEMA = {
    "results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better",
    "n-samples", "samples", "config", "git_hash", "date", "pretty_env_info",
    "transformers_version", "lm_eval_version", "upper_git_hash", "tokenizer_pad_token",
    "tokenizer_eos_token", "tokenizer_bos_token", "eot_token_id", "max_length", "model_source",
    "model_name", "model_name_sanitized", "system_instruction", "system_instruction_sha",
    "fewshot_as_multiturn", "chat_template", "chat_template_sha", "task_hashes",
    "total_evaluation_time_seconds",
}  # fmt: skip
SAMPLE = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics",
    "doc_hash", "prompt_hash", "target_hash",
}  # fmt: skip


def test_scores_are_exported_in_the_harness_format(scored):
    (file,) = (scored / "lm-eval").glob("*/results_*.json")
    document = json.loads(file.read_text())
    assert set(document) <= SCHEMA
    tasks = set(document["results"])
    assert len(tasks) == 11 and "limo_nb_aime25_1" in tasks
    for part in ("configs", "versions", "n-shot", "higher_is_better", "n-samples"):
        assert set(document[part]) == tasks
    table = {row["group"]: row for row in json.loads((scored / "table.json").read_text())}
    mine = document["results"]["limo_nb_aime25_1"]
    assert mine["exact_match,none"] == pytest.approx(table["aime25_1"]["accuracy"])
    assert mine["truncated,none"] == pytest.approx(table["aime25_1"]["truncation"])
    assert mine["exact_match_stderr,none"] >= 0 and mine["sample_len"] == 6
    config = document["configs"]["limo_nb_aime25_1"]
    assert config["repeats"] == 4 and config["generation_kwargs"]["temperature"] == 0.6
    assert document["n-samples"]["limo_nb_aime25_1"] == {"original": 15, "effective": 6}
    lines = next(file.parent.glob("samples_limo_nb_aime25_1_*.jsonl")).read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert len(samples) == 6 and all(len(sample["resps"][0]) == 4 for sample in samples)
    assert all(set(sample) == SAMPLE | set(sample["metrics"]) for sample in samples)


def test_the_harness_prints_our_results(scored):
    utils = pytest.importorskip("lm_eval.utils", reason="lm-eval is not installed here")
    (file,) = (scored / "lm-eval").glob("*/results_*.json")
    table = utils.make_table(json.loads(file.read_text()))
    assert "limo_nb_aime25_1" in table and "exact_match" in table


# ---------------------------------------------------------------- kills
# Runs the command, and writes down the keys that are made and how many answers are graded.
LOGGED = """
import os, sys, time
from limo_nb.evaluation import attempts
from limo_nb.inference import transformers_engine
from limo_nb.inference.base import Underway
sys.argv[0] = "limo-nb"
engine, graded = transformers_engine.TransformersEngine, attempts._graded
run, attempts.CHUNK = engine.run, 2

def note(*words):
    with open(os.environ["LOGGED"], "a") as log:
        print(*words, file=log)

def slower(self, batches, sampling):
    for ready in run(self, batches, sampling):
        if not isinstance(ready, Underway):
            note(*(key for key, _ in ready))
        time.sleep(0.05)  # so that a kill finds it at work
        yield ready

def counted(pairs, tolerance):
    note("graded", len(pairs))
    time.sleep(0.5)
    return graded(pairs, tolerance)

engine.run, attempts._graded = slower, counted
from limo_nb.cli import main
main()
"""


def start(home: Path, out: Path, log: Path) -> subprocess.Popen:
    script = home / "logged.py"  # a file, since the code of a stage is part of its key
    script.write_text(LOGGED)
    return subprocess.Popen(
        [sys.executable, script, "evaluate", "--model", home / "model-0",
         "--benchmark", "aime25_1", "--protocol", "paper-v1", "--max-new-tokens", "12",
         "--batch-size", "8", "--dtype", "float32", "--out", out, "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LOGGED": str(log)}, cwd=home, text=True,
        stdout=subprocess.PIPE, stderr=log.with_suffix(".stderr").open("a"),
    )  # fmt: skip


def rows_of(store: Path, table: str) -> int:
    if not store.exists():
        return 0
    try:
        with closing(sqlite3.connect(store)) as database:
            return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    except sqlite3.OperationalError:  # the table is not there yet
        return 0


def kill_when(process: subprocess.Popen, errors: Path, ready, seconds: float = 300) -> None:
    """Kill -9 as soon as `ready()`; fails if the process ended by itself."""
    started = time.monotonic()
    while not ready():
        assert process.poll() is None, (
            f"it ended before it could be killed: {errors.read_text()}"
        )
        assert time.monotonic() - started < seconds, "waited in vain"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_killed_twice_it_ends_as_if_nothing_had_happened(home, tmp_path):
    whole = start(home, tmp_path / "whole", tmp_path / "whole.log")
    document = json.loads(whole.communicate()[0])
    out, log, answers = tmp_path / "out", tmp_path / "out.log", 15 * 16
    completions, verdicts = out / "completions.sqlite", out / "verdicts.sqlite"
    errors = log.with_suffix(".stderr")
    kill_when(start(home, out, log), errors, lambda: 24 <= rows_of(completions, "completions"))
    kept = rows_of(completions, "completions")
    assert 24 <= kept < answers
    kill_when(start(home, out, log), errors, lambda: rows_of(verdicts, "verdicts"))
    assert rows_of(completions, "completions") == answers
    judged = rows_of(verdicts, "verdicts")
    again = start(home, out, log)
    second = json.loads(again.communicate()[0])
    assert second["resumed"] and not document["resumed"]
    assert second["table"] == document["table"]
    names = {path.name for path in Path(second["folder"]).iterdir()}
    assert {"manifest.json", "table.json", "results-aime25_1.parquet", "lm-eval"} == names
    made = [w for line in log.read_text().splitlines() if "graded" not in line
            for w in line.split()]  # fmt: skip
    # What was kept at the first kill was not made again; the batch that was on its way was.
    assert answers <= len(made) <= answers + 8 and len(set(made)) == answers
    graded = [int(line.split()[1]) for line in log.read_text().splitlines() if "graded" in line]
    total = rows_of(verdicts, "verdicts")
    assert 0 < judged < total <= sum(graded) <= total + 2
