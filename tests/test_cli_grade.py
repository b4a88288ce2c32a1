"""`limo-nb grade`: verdicts, agreement with labels, and broken rows."""

import json

import pytest
from typer.testing import CliRunner

from limo_nb.cli import app
from limo_nb.core import records as files

GOOD = [
    {"gold": "x/2", "response": r"\boxed{0.5x}", "label": True, "id": "one"},
    {"gold": 7, "response": r"\boxed{7}", "label": False},
    {"gold": "3.14", "response": "The answer is 3.1", "label": True},
    {"gold": "5", "response": "A line\u2028and \\boxed{5}"},
]


def graded(folder, lines, *options):
    file = folder / "rows.jsonl"
    text = "\n".join(lines) + "\n"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))  # \udcff is the byte ff
    out = () if "--out" in options else ("--out", str(folder / "rows.verdicts.jsonl"))
    found = CliRunner().invoke(app, ["grade", str(file), *options, *out, "--replace"])
    verdicts = folder / "rows.verdicts.jsonl"
    rows = verdicts.read_text("utf-8").split("\n")[:-1] if verdicts.exists() else []
    return found, [json.loads(row) for row in rows]


def test_labels_and_verdicts(tmp_path):
    found, rows = graded(tmp_path, [json.dumps(r, ensure_ascii=False) for r in GOOD], "--json")
    assert found.exit_code == 0, found.output
    summary = json.loads(found.stdout)
    assert summary.pop("items_per_second") > 0
    assert summary == {
        "items": 4, "correct": 3, "wrong": 1, "unverifiable": 0, "labelled": 3,
        "agreement with labels": 0.333333, "false_positives": 1.0, "false_negatives": 0.5,
        "broken": [],
        "verdicts": str(tmp_path / "rows.verdicts.jsonl"),
    }  # fmt: skip
    assert [row["correct"] for row in rows] == [True, True, False, True]
    assert rows[0]["id"] == "one" and rows[0]["extracted"] == "0.5x" and rows[0]["reason"]
    assert [row["response"] for row in rows] == [row["response"] for row in GOOD]


def test_options(tmp_path):
    lines = [json.dumps(row) for row in GOOD]
    _, rows = graded(tmp_path, lines, "--tolerance", "0.05")
    assert [row["correct"] for row in rows] == [True] * 4
    _, rows = graded(tmp_path, lines, "--boxed-only", "--tolerance", "0.05")
    assert rows[2]["correct"] is False and rows[2]["reason"] == "no answer"


BROKEN = [
    ("{", "not valid JSON"), ("[1]", "expected a mapping"), ('{"gold": "1"}', "no response"),
    ('{"gold": "1", "response": 3}', "no response (found: gold, response)"),
    ('{"gold": "1", "response": "1", "label": "perhaps"}', "label is 'perhaps'"),
    ('{"gold": "1", "response": "\udcff"}', "can't decode byte 0xff"),
    ("[" * 100_000 + "]" * 100_000, "recursion"),
    ('{"gold": ' + "1" * 5_000 + ', "response": "1"}', "limit (4300 digits)"),
    (r'{"gold": "1", "\ud800": 2}', r"no response (found: gold, \ud800)"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), BROKEN, ids=[m for _, m in BROKEN])
def test_a_broken_row_is_named_and_the_rest_graded(tmp_path, line, message):
    good = json.dumps(GOOD[3])
    found, rows = graded(tmp_path, [good, line, good], "--json")
    assert found.exit_code == 0 and len(rows) == 2
    summary = json.loads(found.stdout)
    assert "line 2" in summary["broken"][0] and message in summary["broken"][0]
    assert "line 2" in found.stderr
    assert summary["items"] == 2 and "agreement with labels" not in summary


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_surrogate_does_not_cost_the_other_verdicts(tmp_path, suffix):
    strange = r'{"gold": "5", "response": "So \\boxed{\ud800}", "id": "\ud800"}'
    out = tmp_path / f"out{suffix}"
    found, _ = graded(tmp_path, [json.dumps(GOOD[3]), strange], "--out", str(out))
    assert found.exit_code == 0, found.output
    verdicts = [row for _, row in files.read_records(out)]
    assert [row["correct"] for row in verdicts][0] is True and len(verdicts) == 2
    assert verdicts[1]["id"] == ("\ud800" if suffix == ".jsonl" else r"\ud800")


def test_nothing_to_grade_is_an_error(tmp_path):
    found, _ = graded(tmp_path, ["{"])
    assert isinstance(found.exception, ValueError) and "no row" in str(found.exception)


def test_the_summary_in_words(tmp_path):
    found, _ = graded(tmp_path, [json.dumps(GOOD[3])])
    assert "correct: 1" in found.stdout and "broken rows: 0" in found.stdout


LISTS = [  # a gold of JSON, an answer, the verdict
    ([1, 2], "2, 1", True), ("[1, 2]", "2, 1", False), ("[1, 2]", r"1 \le x \le 2", True),
    ([[1, 2], [3, 4]], r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", True),
    ({"a": 1, "b": 2}, "b = 2, a = 1", True), (0.5, "1/2", True),
]  # fmt: skip


def test_a_list_is_no_interval(tmp_path):
    rows = [{"gold": gold, "response": rf"\boxed{{{said}}}"} for gold, said, _ in LISTS]
    _, verdicts = graded(tmp_path, [json.dumps(row) for row in rows])
    assert [row["correct"] for row in verdicts] == [wanted for _, _, wanted in LISTS]
