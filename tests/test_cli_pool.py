"""The commands that clean a file of problems, let a model answer it, and choose from it."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from test_cli import limo_nb as command
from tiny import tiny_model
from typer.testing import CliRunner

from limo_nb import lab, problems
from limo_nb.cli import app
from limo_nb.core.records import read_records
from limo_nb.selection import choice

ITEM = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
QUESTIONS = [  # a copy, a passage inside another text, one of its own, the first one again
    ITEM.upper(),
    f"Before: {ITEM}, after.",
    "Something else entirely?",
    "Something  ELSE entirely?",
]


def call(*arguments: object) -> dict:
    """What a command prints with --json; what it writes lies beside its file, or as asked."""
    command, file, *rest = map(str, arguments)
    home, kind = Path(file).parent, ".parquet" if file.endswith(".parquet") else ".jsonl"
    if "--out" not in rest and command != "score":
        rest += ["--out", str(home / f"{command}-out{kind}")]
    if "--report" not in rest and command == "decontaminate":
        rest += ["--report", str(home / "dropped.jsonl")]
    more = [] if command == "score" else ["--replace"]
    done = CliRunner().invoke(app, [command, file, *rest, *more, "--json"])
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)


def rows_of(path: Path) -> list[dict]:
    return [row for _, row in read_records(path)]


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    (tmp_path / "exam.jsonl").write_text(json.dumps({"id": 7, "question": ITEM}) + "\n")
    return tmp_path / "exam.jsonl"


def write(path: Path, rows: list[dict]) -> Path:
    """`rows` in the format that the name of `path` says."""
    if path.suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(str(path))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---------------------------------------------------------------- decontaminate
@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet", "p.json"])
def test_decontaminate_keeps_rows_as_they_are(tmp_path, exam, name):
    rows = [{"problem": q, "extra": {"n": n}} for n, q in enumerate(QUESTIONS)]
    file = write(tmp_path / name, rows)
    facts = call("decontaminate", file, "--against", exam)
    assert (facts["rows"], facts["kept"]) == (4, 2)
    assert facts["dropped"] == {"shares the whole question": 1, "shares 13 words": 1}
    assert rows_of(Path(facts["out"])) == rows[2:]
    report = rows_of(Path(facts["report"]))
    assert [row["id"] for row in report] == ["row 2", "row 1"]  # the more doubtful first
    assert [row["passage"] for row in report] == [ITEM, ITEM]
    assert [(row["overlap"], row["quoted"]) for row in report] == [(0.5, 1.0), (1.0, 1.0)]
    assert {row["counterpart"] for row in report} == {"exam-7"}


def test_duplicates_are_dropped_on_request(tmp_path, exam):
    rows = [{"id": f"q{n}", "question": q} for n, q in enumerate(QUESTIONS)]
    file = write(tmp_path / "p.jsonl", rows)
    facts = call("decontaminate", file, "--against", exam, "--duplicates", "--out",
                 tmp_path / "o.jsonl", "--report", tmp_path / "r.jsonl")  # fmt: skip
    assert rows_of(tmp_path / "o.jsonl") == rows[2:3]
    found = {
        row["id"]: (row["reason"], row["counterpart"]) for row in rows_of(tmp_path / "r.jsonl")
    }
    assert found["q3"] == ("exact duplicate", "q2") and facts["dropped"]["exact duplicate"] == 1


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (("--ngram", 20), 2),  # a whole item inside is found at any n
        (("--threshold", 0.9), 2),  # all of the item is in both
        (("--ngram", 5), 2),
        (("--normalisation", "case"), 2),
        (("--normalisation", "none"), 3),
    ],
)
def test_parameters_of_decontaminate(tmp_path, exam, options, kept):
    file = write(tmp_path / "p.jsonl", [{"question": question} for question in QUESTIONS])
    assert call("decontaminate", file, "--against", exam, *options)["kept"] == kept


def test_a_counterpart_names_its_file_or_is_an_error(tmp_path, exam):
    """Items of two files may have the same ids, but then the files have other names."""
    other = "a question that is nowhere else"
    (tmp_path / "more").mkdir()
    paths = [tmp_path / "test.jsonl", tmp_path / "more" / "exam.jsonl"]
    for path in paths:
        write(path, [{"id": 7, "question": other}])
    file = write(tmp_path / "p.jsonl", [{"question": other}, {"question": ITEM}])
    twice = ("decontaminate", file, "--against", exam, "--against", exam, "--against")
    facts = call(*twice, paths[0])
    report = rows_of(Path(facts["report"]))
    assert facts["benchmark items"] == 2
    assert [row["counterpart"] for row in report] == ["test-7", "exam-7"]
    done = CliRunner().invoke(app, [str(argument) for argument in (*twice, paths[1])])
    assert isinstance(done.exception, ValueError)
    message = str(done.exception)
    assert f"{exam} and {paths[1]} both have an item 'exam-7': rename one file" in message


def test_the_labs_benchmarks_go_by_name(tmp_path):
    items = lab.benchmarks(2)
    file = write(tmp_path / "p.jsonl", [{"text": row["question"]} for row in items])
    facts = call("decontaminate", file, "--against", "lab", "--columns", "question=text")
    assert facts["kept"] == 0 and set(facts["dropped"]) == {"shares the whole question"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real benchmarks are not there")
@pytest.mark.parametrize(
    ("against", "items"),
    [
        ((), 2233),
        (("--against", "paper"), 2233),
        (("--against", "aime", "--against", "amc"), 70),
    ],
)
def test_a_family_of_benchmarks_goes_by_name(tmp_path, monkeypatch, against, items):
    monkeypatch.setenv("LIMO_NB_DATA", str(SHARED))
    file = write(tmp_path / "p.jsonl", [{"question": ITEM}])
    assert call("decontaminate", file, *against)["benchmark items"] == items


ERRORS = [
    ([{"text": "What?"}], (), r"line 1: no question \(found: text\)"),
    ([{"question": "What?"}] * 2, ("--out", "p.jsonl"), "p.jsonl is FILE too"),
    (
        [{"question": "What?"}],
        ("--out", "o.csv"),
        "--out o.csv: expected a file that ends in .jsonl",
    ),
    ([{"question": "What?"}], ("--against", "nothing"), "nothing"),
]


@pytest.mark.parametrize(("rows", "options", "message"), ERRORS)
def test_errors_say_what_is_wrong(tmp_path, monkeypatch, exam, rows, options, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "p.jsonl", rows)
    options = options if "--against" in options else (*options, "--against", str(exam))
    done = CliRunner().invoke(app, ["decontaminate", "p.jsonl", *options])
    assert isinstance(done.exception, ValueError)
    assert re.search(message, str(done.exception)), done.exception
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("decontaminate FILE --report y.txt", "--report y.txt: expected a file that ends in"),
        (
            "decontaminate FILE --out o.parquet",
            "--out o.parquet: .* ends in .jsonl or .jsonl.gz$",
        ),
        ("decontaminate FILE --out o.jsonl --report o.jsonl", "o.jsonl is --out too"),
        ("sample FILE --model lab:weak --out ./p.jsonl", "--out p.jsonl is FILE too"),
        ("sample FILE --model lab:weak --out x.txt", "ends in .jsonl or .* or .parquet"),
        ("sample FILE --model lab:weak --store p.jsonl", "--store p.jsonl is FILE too"),
        ("select FILE -k 2 --out p.jsonl", "--out p.jsonl is FILE too"),
        ("select FILE -k 2 --out x", "ends in .jsonl or .* or .parquet"),
        ("score FILE --out p.jsonl", "--out p.jsonl is FILE too"),
        ("score FILE --out x.json", "ends in .jsonl or .* or .parquet"),
        ("convert FILE p.jsonl --to alpaca", "OUT p.jsonl is FILE too"),
        ("convert FILE x.txt --to alpaca", "ends in .json or .jsonl or .* or .parquet"),
    ],
)
def test_where_results_go_is_checked_first(tmp_path, monkeypatch, command, message):
    """Before anything is read: this file could not be."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text("{")
    done = CliRunner().invoke(app, command.replace("FILE", "p.jsonl").split())
    assert isinstance(done.exception, ValueError)
    assert re.search(message, str(done.exception)), done.exception
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("p.jsonl", "{")]


BROKEN = [  # a line of a file, and what is said of it
    ("{", "not valid JSON"),
    ("7", "expected a mapping, found int"),
    ('{"text": "What?"}', r"no question \(found: text\)"),
    (
        '{"question": "a \\ud83d b", "answer": "1"}',
        "the question has half a character",
    ),
]
SOUND = [{"id": "a", "question": ITEM, "answer": "1"}, {"question": "Else?", "answer": "2"}]


@pytest.mark.parametrize(
    ("command", "count"),
    [
        ("decontaminate p.jsonl --against exam.jsonl", "kept"),
        ("sample p.jsonl --model lab:weak --max-new-tokens 4 --profile smoke", "questions"),
        ("select p.jsonl -k 9", "chosen"),
    ],
)
def test_broken_rows_are_named_and_left_out_on_request(
    tmp_path, monkeypatch, exam, command, count
):
    monkeypatch.chdir(tmp_path)
    first, last = map(json.dumps, SOUND)
    lines = [first, *(line for line, _ in BROKEN), last]
    Path("p.jsonl").write_text("\n".join(lines) + "\n")
    done = CliRunner().invoke(app, command.split())
    assert "p.jsonl, line 2: not valid JSON" in str(done.exception)
    told = call(*command.split(), "--skip-broken")
    assert told[count] == (1 if count == "kept" else 2)
    places = enumerate(zip(told["broken"], BROKEN, strict=True), 2)
    for number, (fault, (_, message)) in places:
        assert re.match(f"p.jsonl, line {number}: .*{message}", fault), fault
    found = rows_of(Path(told["out"]))
    assert {row["question"] for row in found} <= {row["question"] for row in SOUND}
    if count == "kept":
        assert found == SOUND[1:]
    again = [*command.split(), "--out", "again.jsonl", "--skip-broken"]
    errors = CliRunner().invoke(app, again).stderr
    assert errors.count("left out: p.jsonl, line") == len(BROKEN)


def test_the_right_rows_of_a_parquet_file_are_left_out(tmp_path, exam):
    rows = [{"question": text} for text in (None, "First?", ITEM, None, "Last?")]
    file = write(tmp_path / "p.parquet", rows)
    told = call("decontaminate", file, "--against", exam, "--skip-broken")
    assert rows_of(Path(told["out"])) == [rows[1], rows[4]] and len(told["broken"]) == 2


def test_a_file_of_broken_rows_says_why(tmp_path):
    file = write(tmp_path / "p.jsonl", [{"text": "What?"}])
    done = CliRunner().invoke(app, ["select", str(file), "-k", "1", "--skip-broken"])
    assert "no problems in it that can be read: " in str(done.exception)
    assert "line 1: no question" in str(done.exception)


def test_the_command_line_itself(tmp_path, exam):
    """An error is one line without a traceback; numbers are told without --json too."""
    file = write(tmp_path / "p.jsonl", [{"question": question} for question in QUESTIONS])
    command = [sys.executable, "-m", "limo_nb", "decontaminate", str(file)]
    done = subprocess.run([*command, "--against", str(exam)], capture_output=True, text=True)
    assert done.returncode == 0 and "dropped: 1 × shares the whole" in done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"question": question} for question in QUESTIONS[2:]
    ]
    file.write_text("{")
    done = subprocess.run([*command, "--against", str(exam)], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "p.jsonl, line 1: not valid JSON" in done.stderr


# ---------------------------------------------------------------- sample and select
def test_sample_continues_where_it_was(tmp_path):
    rows = [
        {"id": r["id"], "question": r["question"], "answer": r["answer"]}
        for r in lab.pool(3, 1)
    ]
    file = write(tmp_path / "p.jsonl", rows)
    options = ["--model", "lab:weak", "--samples", 2, "--max-new-tokens", 8]
    options += ["--profile", "smoke", "--temperature", 1.0, "--out", tmp_path / "a.jsonl"]
    facts = call("sample", file, *options)
    assert (facts["questions"], facts["completions"]) == (3, 6)
    first = rows_of(tmp_path / "a.jsonl")
    assert [row["id"] for row in first] == [r["id"] for r in rows for _ in range(2)]
    assert {"question", "answer", "sample", "response", "tokens", "finished"} <= set(first[0])
    assert Path(facts["store"]).exists()
    call("sample", file, *options)
    assert rows_of(tmp_path / "a.jsonl") == first
    scored = call("score", tmp_path / "a.jsonl", "--out", tmp_path / "s.jsonl")
    assert scored["chains"] == 6 and scored["broken"] == []
    for row, told, answer in zip(scored["rows"], rows_of(tmp_path / "s.jsonl"), first,
                                 strict=True):  # fmt: skip
        assert row["truncated"] is not answer["finished"]
        assert (told["solution"], told["sample"]) == (answer["response"], answer["sample"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--temperature", 0, "--samples", 2), "  several samples at temperature 0 would"),
        (("--top-p", 0), "  top_p: Input should be greater than 0"),
    ],
)
def test_sampling_that_cannot_be_is_told_in_a_line(tmp_path, options, message):
    file = write(tmp_path / "p.jsonl", [{"question": "What?"}])
    done = CliRunner().invoke(
        app, ["sample", str(file), "--model", "lab:weak", *map(str, options)]
    )
    head, told = str(done.exception).split("\n")
    assert head == "the sampling is not valid:" and told.startswith(message)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is here")
def test_sample_names_the_command_that_installs_an_engine(tmp_path):
    write(tmp_path / "p.jsonl", [{"question": "What?"}])
    options = ("--model", "lab:weak", "--override", "engine.kind=vllm", "--out", "a.jsonl")
    done = command(tmp_path, "sample", "p.jsonl", *options)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "limo-nb: engine.kind is vllm, which needs a library" in done.stderr
    assert "pip install 'limo-nb[vllm]'" in done.stderr


def test_select_balances_and_explains(tmp_path):
    pool = problems.COLUMNS
    rows = [
        {**row, "subject": "A" if n < 9 else "B", "level": 1}
        for n, row in enumerate(lab.pool(12, 1))
    ]
    file = write(tmp_path / "p.parquet", [{name: row[name] for name in pool} for row in rows])
    facts = call("select", file, "-k", 6, "--seed", 3)
    chosen = rows_of(Path(facts["out"]))
    assert len(chosen) == facts["chosen"] == 6
    assert [row["subject"] for row in chosen].count("B") == 3
    assert facts["cells after"] == 2.0 > facts["cells before"]
    assert all("kept because" in row["reason"] for row in chosen)
    assert call("select", file, "-k", 6, "--seed", 3) == facts


def test_select_by_embeddings_of_a_local_model(tmp_path):
    rows = [{**row, "subject": "A", "level": 1} for row in lab.pool(12, 1)]
    file = write(tmp_path / "p.jsonl", rows)
    model = str(tiny_model(tmp_path / "model"))
    facts = call("select", file, "-k", 4, "--embed", model, "--out", tmp_path / "e.jsonl")
    assert facts["compared by"] == f"embeddings of {model}"
    pool = problems.read_problems(file)
    vectors = choice.embed(pool["question"][:], model)
    wanted = choice.select(pool, 4, 0, vectors)
    found = [f"p-{row['id']}" for row in rows_of(tmp_path / "e.jsonl")]  # ids of a pool
    assert found == wanted["id"][:]
    assert call("select", file, "-k", 4)["compared by"] == "TF-IDF"


def test_select_names_a_missing_model_and_writes_nothing(tmp_path):
    file = write(tmp_path / "p.jsonl", lab.pool(3, 1))
    missing = str(tmp_path / "nowhere")
    done = CliRunner().invoke(app, ["select", str(file), "-k", "2", "--embed", missing])
    assert isinstance(done.exception, ValueError)
    assert "no model for embeddings at" in str(done.exception) and missing in str(
        done.exception
    )
    assert done.stdout == ""


def test_select_needs_no_answers(tmp_path):
    file = write(tmp_path / "p.jsonl", [{"question": f"Number {n}?"} for n in range(4)])
    facts = call("select", file, "-k", 2)
    assert [set(row) for row in rows_of(Path(facts["out"]))] == [
        {"question", "reason", "similarity"}
    ] * 2  # a row stays as it was


def test_select_does_not_overwrite_its_file(tmp_path):
    file = write(tmp_path / "p.jsonl", lab.pool(3, 1))
    done = CliRunner().invoke(app, ["select", str(file), "-k", "2", "--out", str(file)])
    assert "is FILE too" in str(done.exception) and len(rows_of(file)) == 3


def test_select_reads_columns_by_the_names_it_is_told(tmp_path):
    rows = [{"text": f"Number {n}?", "answer": "1", "stars": n % 2} for n in range(8)]
    file = write(tmp_path / "p.jsonl", rows)
    facts = call("select", file, "-k", 2, "--columns", "question=text,level=stars")
    assert facts["cells after"] == 2.0
    for columns, message in [
        ("text", "is not WHAT=COLUMN"),
        ("question=text,level=nolevel", "p.jsonl: no row has nolevel"),
    ]:
        done = CliRunner().invoke(app, ["select", str(file), "-k", "2", "--columns", columns])
        assert message in str(done.exception)
