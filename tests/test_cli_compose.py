"""What one command writes the next one reads, with a person's own columns; and bad input."""

import gzip
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limo_nb import lab
from limo_nb.cli import app
from limo_nb.core.records import read_records, write_records
from limo_nb.problems.dialects import COLUMNS_OF

STRONG = "lab:reasoner"


def call(*words, given=None):
    done = CliRunner().invoke(app, [str(word) for word in words], input=given)
    assert done.exit_code == 0, (words, done.exception, done.output)
    return done


def rows_of(path):
    return [row for _, row in read_records(path)]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """Questions as a person has them: other names, columns of their own, a packed file."""
    file = tmp_path_factory.mktemp("own") / "mine.jsonl.gz"
    rows = [
        {"uuid": f"u{n}", "Problem": row["question"], "Final Answer": row["answer"], "note": n}
        for n, row in enumerate(lab.pool(6, 4))
    ]
    write_records(rows, file)
    return file


@pytest.fixture(scope="module")
def walked(own) -> dict[str, Path]:
    """Every step on what the one before it has written."""
    home = own.parent
    found = {name: home / f"{name}.jsonl" for name in ("sampled", "graded", "scored", "chosen")}
    call("sample", own, "--model", STRONG, "--profile", "smoke", "--samples", 2,
         "--max-new-tokens", 300, "--out", found["sampled"])  # fmt: skip
    call("grade", found["sampled"], "--out", found["graded"])
    call("score", found["graded"], "--out", found["scored"])
    call("select", found["scored"], "-k", 3, "--out", found["chosen"])
    return found


def test_own_columns_and_ids_go_all_the_way(own, walked):
    first = {row["uuid"]: row for row in rows_of(own)}
    for name, path in walked.items():
        rows = rows_of(path)
        assert len(rows) == (3 if name == "chosen" else 12), name
        for row in rows:
            assert row["note"] == first[row["uuid"]]["note"]
            assert row["id"] == row["uuid"]
    for row in rows_of(walked["scored"]):
        assert row["answer"] == first[row["uuid"]]["Final Answer"]


def test_of_a_questions_chains_the_best_is_chosen(walked):
    best = {}
    for row in rows_of(walked["scored"]):
        best[row["id"]] = max(best.get(row["id"], 0), row["score"])
    chosen = rows_of(walked["chosen"])
    assert len({row["id"] for row in chosen}) == 3
    assert all(row["score"] == best[row["id"]] for row in chosen)


def test_what_was_chosen_is_encoded_and_converted(walked):
    right = [row for row in rows_of(walked["chosen"]) if row["correct"] is not False]
    assert right, "the strong model solves its own world"
    done = call("encode", walked["chosen"], "--model", "lab:foundation", "--json")
    made = json.loads(done.stdout)
    assert [row["id"] for row in made["rows"]] == [row["id"] for row in right]
    target = walked["chosen"].with_name("alpaca.json")
    call("convert", walked["chosen"], target, "--to", "alpaca")
    assert [row["note"] for row in json.loads(target.read_text())] == [r["note"] for r in right]


def test_rows_pass_from_command_to_command(own, walked):
    """Through `-`, and what is not a row goes to standard error."""
    lines = walked["graded"].read_text()
    chosen = call("select", "-", "-k", 2, given=lines)
    rows = [json.loads(line) for line in chosen.stdout.splitlines()]
    assert len(rows) == 2 and "chosen: 2" in chosen.stderr
    encoded = call("show", "-", given=chosen.stdout)
    assert "question: question; answer: answer; chain: response" in encoded.stdout
    cells = own.with_name("table.csv")
    call("select", walked["graded"], "-k", 2, "--out", cells)
    assert {row["uuid"] for row in rows_of(cells)} == {row["uuid"] for row in rows}


def test_own_questions_are_scored(own, tmp_path):
    words = ("evaluate", "-m", STRONG, "-b", own, "--max-new-tokens", 300, "--out", tmp_path)
    document = json.loads(call(*words, "--json").stdout)
    (row,) = [row for row in document["table"] if row["group"] == "mine"]
    assert row["items"] == 6 and row["right"] >= 3
    assert document["benchmarks"]["mine"]["source"] == str(own)
    again = json.loads(call(*words, "--json").stdout)
    assert again["key"] == document["key"]


def test_nothing_of_a_persons_is_overwritten(own, walked, tmp_path):
    there = tmp_path / "notes.jsonl"
    there.write_text('{"mine": 1}\n')
    for words in (
        ("select", own, "-k", 1, "--out", there),
        ("decontaminate", own, "--against", "lab", "--out", there),
        ("decontaminate", own, "--against", "lab", "--report", there),
        ("sample", own, "-m", STRONG, "--out", there),
        ("grade", walked["sampled"], "--out", there),
        ("score", walked["sampled"], "--out", there),
        ("convert", walked["sampled"], there, "--to", "messages"),
    ):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 1 and "is there already" in str(done.exception), words
    assert there.read_text() == '{"mine": 1}\n' and list(tmp_path.iterdir()) == [there]


# ---------------------------------------------------------------- bad input
BAD = {  # words with FILE, what FILE holds, what is said in one line
    "show": ("show FILE", b"[1]", "no row that can be read"),
    "score": ("score FILE", b'{"question": "q"}', "no chain (found: question)"),
    "grade": ("grade FILE", b"\xff", "no row that can be graded"),
    "select": ("select FILE -k 2", b"", "no problems in it"),
    "decontaminate": ("decontaminate FILE --against lab", b'{"a": 1}', "(found: a)"),
    "sample": ("sample FILE -m nowhere/model", b'{"question": "q"}', "nowhere/model"),
    "encode": ("encode FILE -m lab:foundation", b'{"question": "q"}', "no chain"),
    "sft": ("sft FILE -m ./nowhere", b'{"question": "q", "solution": "s 1"}', "nowhere"),
    "evaluate": ("evaluate -m lab:weak -b FILE", b'{"question": "q"}', "no answer"),
    "convert": ("convert FILE out.jsonl --to csv", b"{}", "Invalid value for '--to'"),
    "columns": ("score FILE --columns x", b"{}", "is not WHAT=COLUMN"),
    "unclear": ("show FILE", b'{"question": "a?", "problem": "b?"}', "which is the question"),
    "packed": ("show FILE.gz", b"no gzip", "not a whole gzip file"),
    "compare": ("compare --a FILE --b FILE", b"{}", "FILE"),
    "launch": ("launch FILE --print", b"{}", "FILE"),
    "garbage store": ("sample FILE -m lab:weak --store S --out o.jsonl",
                      b'{"question": "q"}', "S"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_a_line(name, tmp_path):
    words, held, said = BAD[name]
    file = tmp_path / ("rows.jsonl.gz" if "FILE.gz" in words else "rows.jsonl")
    file.write_bytes(held)
    (tmp_path / "S").write_bytes(b"no database" * 100)
    words = [
        word.replace("FILE.gz", file.name).replace("FILE", file.name) for word in words.split()
    ]
    done = subprocess.run(
        [sys.executable, "-m", "limo_nb", *words], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert said.replace("FILE", file.name) in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.strip()]) < 9, done.stderr
    left = {path.name for path in tmp_path.iterdir()} - {file.name, "S", "runs", ".lock"}
    assert not left and file.read_bytes() == held


def test_a_missing_file_is_told_before_anything_is_imported(tmp_path):
    code = (
        "import sys; sys.argv = ['limo-nb', 'COMMAND', 'nowhere.jsonl', *sys.argv[1:]]\n"
        "from limo_nb.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n"
        "    print([m for m in ('torch', 'datasets', 'pyarrow') if m in sys.modules])"
    )
    for command, rest in {
        "select": ["-k", "1"], "sample": ["-m", "x"], "score": [], "grade": [], "show": [],
        "encode": ["-m", "x"], "sft": ["-m", "x"], "convert": ["o.jsonl", "--to", "limo"],
        "decontaminate": [],
    }.items():  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code.replace("COMMAND", command), *rest], cwd=tmp_path,
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip
        assert done.stderr == "limo-nb: nowhere.jsonl does not exist\n", command
        assert done.stdout == "[]\n", command


def test_files_as_people_have_them(tmp_path):
    """A mark of byte order, capital endings, lines in `.json`, CSV, packed files."""
    row = {"question": "Was ist 2·3?", "answer": "6"}
    line = json.dumps(row, ensure_ascii=False).encode()
    for name, held in {
        "bom.jsonl": b"\xef\xbb\xbf" + line,
        "CAPITAL.JSONL": line,
        "lines.json": line + b"\n" + line,
        "bom.json": b"\xef\xbb\xbf[" + line + b"]", "x.ndjson": line,
        "packed.jsonl.gz": gzip.compress(line),
        "list.json.gz": gzip.compress(b"[" + line + b"]"),
        "cells.csv": '\ufeffquestion,answer\r\n"Was ist 2·3?",6\r\n'.encode(),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(held)
        assert rows_of(tmp_path / name)[0] == row, name
    (tmp_path / "wide.csv").write_text("a,b\n1,2\n1,2,3\n")
    broken = []
    assert [row for _, row in read_records(tmp_path / "wide.csv", broken)] == [
        {"a": "1", "b": "2"}
    ]
    assert broken == [f"{tmp_path / 'wide.csv'}, line 3: more cells than the 2 columns"]
    for name in ("out.csv", "out.jsonl.gz", "out.parquet"):
        write_records([row, {**row, "level": 3}], tmp_path / name)
        found = rows_of(tmp_path / name)
        assert [own["question"] for own in found] == [row["question"]] * 2
        assert str(found[1]["level"]) == "3" and not list(tmp_path.glob(".*"))


# ---------------------------------------------------------------- the page
def test_the_page_has_the_names_that_the_reader_knows(repository):
    page = (repository / "book" / "files.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| (`.*`) \|$", page, re.M))
    told = {
        what: tuple(
            tuple(re.findall(r"`([a-z_]+)`", group)) for group in names.split("; then ")
        )
        for what, names in rows.items()
    }
    assert told == COLUMNS_OF


def test_every_command_s_example_is_a_line_of_the_page(repository):
    """So it works as it stands: the session runs, in a slow test."""
    page = (repository / "book" / "files.md").read_text("utf-8").splitlines()
    modules = [
        f"limo_nb.cli.{n}" for n in ("show", "pool", "grade", "chains", "sft", "evaluate")
    ]
    own = [info for info in app.registered_commands if info.callback.__module__ in modules]
    for info in own:
        example = (info.epilog or "").removeprefix("Example: ")
        assert example.startswith(f"limo-nb {info.callback.__name__}"), info.callback.__name__
        assert example in page or info.callback.__name__ == "benchmarks", example


@pytest.mark.slow
def test_the_page_s_session_runs_as_it_stands(repository, tmp_path):
    """From questions to a fine-tuned model: every line of it, one after the other."""
    page = (repository / "book" / "files.md").read_text("utf-8")
    session = re.search(r"```sh\n(limo-nb examples.*?)```", page, re.S)[1]
    commands = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", session], cwd=tmp_path, capture_output=True,
        text=True, env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    walk = tmp_path / "walk"
    clean = {row["uuid"] for row in rows_of(walk / "clean.jsonl")}
    assert len(clean) > 50 and not {"copied", "twice"} & clean  # the pool has repetitions too
    chosen = rows_of(walk / "rows.jsonl")
    assert all(row["correct"] and row["uuid"] in clean for row in chosen)
    assert len(rows_of(walk / "tokens.jsonl")) == len(chosen) <= 32
    assert (walk / "tuned" / "model" / "model.safetensors").exists()
    assert "difference (points)" in done.stdout


# ---------------------------------------------------------------- a full disk
@pytest.fixture
def small_disk(tmp_path):
    """A file system of a quarter of a megabyte; skips where none can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(words, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: it takes root and Linux")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".parquet"])
def test_a_full_disk_is_named_and_nothing_is_left(small_disk, tmp_path, ending):
    rng = random.Random(1)
    rows = [
        {"question": f"{n}: {rng.randbytes(2000).hex()}?", "response": f"\\boxed{{{n}}}",
         "answer": str(n)} for n in range(300)
    ]  # fmt: skip
    file = tmp_path / "rows.jsonl"
    write_records(rows, file)
    held, out = file.read_bytes(), small_disk / f"out{ending}"
    for words in (
        ["grade", file, "--out", out], ["score", file, "--out", out],
        ["select", file, "-k", 200, "--out", out],
        *([["convert", file, out, "--to", "messages"]] if ending != ".csv" else []),
        *([["decontaminate", file, "--against", "lab", "--out", out]] * ("json" in ending)),
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "limo_nb", *map(str, words)], cwd=tmp_path,
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip
        assert done.returncode == 1 and "Traceback" not in done.stderr, (words, done.stderr)
        assert f"{out} could not be written" in done.stderr, (words, done.stderr)
        assert list(small_disk.iterdir()) == [], words
    assert file.read_bytes() == held
