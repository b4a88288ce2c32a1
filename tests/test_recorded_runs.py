"""Records of runs: no text of a problem in them, whole or not at all, read like a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from pyarrow import parquet

from limo_nb.core import recorded_runs
from limo_nb.core.files import write_json
from limo_nb.core.recorded_runs import RecordedRun, record_run, recorded_names
from limo_nb.core.records import load_table, save_tables
from limo_nb.core.runs import MissingArtifact, Run

SECRET = "A question that belongs to its author"
ANSWERS = [
    {"id": "q1", "benchmark": "b", "correct": True, "tokens": 3, "text": SECRET,
     "answer": SECRET, "reason": f"not parsed: {SECRET}", "prompts": [{"content": SECRET}]},
]  # fmt: skip
DROPPED = [{"id": "q2", "reason": "shares 13 words", "counterpart": "q1", "overlap": 0.5}]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with two stages, one of which trained something."""
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path / "runs"))
    run = Run("smoke", {"pool.size": 7})

    def evaluate(folder: Path) -> None:
        save_tables(folder, results=Dataset.from_list(ANSWERS))
        write_json(folder / "table.json", [{"accuracy": 0.5}])

    def train(folder: Path) -> None:
        save_tables(folder, dropped=Dataset.from_list(DROPPED))
        (folder / "limo-1" / "model").mkdir(parents=True)
        (folder / "limo-1" / "log.jsonl").write_text('{"loss": 1.0}\n')
        (folder / "limo-1" / "rows.jsonl").write_text(SECRET)
        write_json(folder / "limo-1" / "job.json", {"rows": "/a/place/of/this/machine"})
        write_json(folder / "limo-1" / "model" / "config.json", {})

    run.make("evaluation", evaluate, params={"model": "/home/somebody/models/tiny.gguf"})
    run.make("models/trained", train)
    return run


def test_a_record_is_read_like_a_run_and_holds_no_text(made: Run, tmp_path: Path) -> None:
    record_run(made, "tiny", ["pool.size=7"], root=tmp_path)
    assert recorded_names(tmp_path) == ["tiny"]
    read = RecordedRun("tiny", tmp_path)
    assert read.load("evaluation").json("table.json") == [{"accuracy": 0.5}]
    results = load_table(read.load("evaluation"), "results")
    assert results.to_list() == [{"id": "q1", "benchmark": "b", "correct": True, "tokens": 3}]
    assert read.load("evaluation").manifest["params"] == {"model": "tiny.gguf"}
    trained = read.load("models/trained")
    assert load_table(trained, "dropped").to_list() == DROPPED
    kept = {str(p.relative_to(trained.path)) for p in trained.path.rglob("*") if p.is_file()}
    assert kept == {"manifest.json", "dropped.parquet", "limo-1/log.jsonl"}
    for path in (tmp_path / "records").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    schema = parquet.read_schema(read.load("evaluation") / "results.parquet")
    assert not schema.metadata


def test_a_record_says_what_ran_where_and_how_again(made: Run, tmp_path: Path) -> None:
    local = "models.weak=/home/somebody/tiny.gguf"
    read = record_run(made, "tiny", ["pool.size=7", local], root=tmp_path)
    assert read.facts["overrides"] == ["pool.size=7", "models.weak=tiny.gguf"]
    assert read.facts["profile"]["pool"]["size"] == 7 and read.has("evaluation")
    assert read.facts["stages"] == ["models/trained", "evaluation"]
    assert read.facts["hardware"] in read.told
    assert "limo-nb run --profile smoke --override 'pool.size=7'" in read.told
    with pytest.raises(MissingArtifact, match="has no chains; it has models/trained"):
        read.load("chains")


def test_a_long_run_is_recorded_in_parts(
    made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_run(made, "tiny", ["pool.size=7"], root=tmp_path)
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path / "elsewhere"))
    later = Run("smoke", {"pool.size": 7})
    for stage in ("evaluation", "models/sets"):
        later.make(stage, lambda folder: write_json(folder / "table.json", ["later"]))
    read = record_run(later, "tiny", ["pool.size=7"], root=tmp_path, add=True)
    assert set(read.facts["stages"]) == {"evaluation", "models/sets", "models/trained"}
    assert read.load("evaluation").json("table.json") == ["later"]
    assert load_table(read.load("models/trained"), "dropped").to_list() == DROPPED
    other = Run("smoke", {"pool.size": 8})
    other.make("evaluation", lambda folder: write_json(folder / "table.json", []))
    with pytest.raises(ValueError, match="made with other settings than these: leave out"):
        record_run(other, "tiny", root=tmp_path, add=True)
    assert set(RecordedRun("tiny", tmp_path).facts["stages"]) == set(read.facts["stages"])


def test_stages_of_other_settings_are_left_out(made: Run, tmp_path: Path) -> None:
    other = Run("smoke", {"pool.size": 8})
    with pytest.raises(MissingArtifact, match="give --override as there"):
        record_run(other, "tiny", root=tmp_path)
    other.make("claims", lambda folder: write_json(folder / "claims.json", []))
    assert record_run(other, "tiny", root=tmp_path).facts["stages"] == ["claims"]


def test_a_new_record_replaces_the_old_one_whole_or_not_at_all(
    made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_run(made, "tiny", root=tmp_path, hours=7.5)
    assert RecordedRun("tiny", tmp_path).facts["hours"] == 7.5
    monkeypatch.setattr(recorded_runs, "MOST_BYTES", 10)
    made.make("claims", lambda folder: write_json(folder / "claims.json", []))
    with pytest.raises(ValueError, match="more than 0"):
        record_run(made, "tiny", root=tmp_path)
    assert not RecordedRun("tiny", tmp_path).has("claims")
    monkeypatch.undo()
    monkeypatch.setenv("LIMO_NB_RUNS", str(made.root.parent))
    assert record_run(made, "tiny", root=tmp_path).has("claims")


def test_an_unknown_record_names_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there are: none.*limo-nb record small"):
        RecordedRun("small", tmp_path)
