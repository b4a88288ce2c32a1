"""The benchmarks: the registry, their files, and what is done about known defects."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from limo_nb.core import paper as problems
from limo_nb.core.pins import locked
from limo_nb.evaluation import benchmarks

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared" / "data"
real = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real benchmarks are not beside the repository"
)


def test_the_registry_and_the_paper_agree():
    facts, paper = benchmarks.benchmark_registry(), problems.reported()["results"]
    assert sum(facts[name]["rows"] for name in benchmarks.of_paper()) == 2233
    assert sorted(benchmarks.of_paper()) == sorted(paper["benchmarks"])
    for model, scores in paper["models"].items():
        mean = sum(scores) / 10
        # The published averages are rounded, and some are of unrounded scores.
        assert mean == pytest.approx(paper["average"][model], abs=0.11), model


def test_every_entry_is_complete():
    needed = {"title", "language", "answers", "judge", "terms"}
    of_files = {"source", "file", "rows", "question", "answer", "references", "in_domain"}
    for name, facts in benchmarks.benchmark_registry().items():
        assert needed <= set(facts), name
        if not facts.get("synthetic"):
            assert of_files <= set(facts) and set(facts["references"]) <= set(benchmarks.KINDS)
            assert all(set(defect) == {"found", "done"} for defect in facts.get("defects", []))
    assert [row["name"] for row in benchmarks.overview()] == list(
        benchmarks.benchmark_registry()
    )


NAMES = [
    (["lab", "lab"], 1), (["paper"], 10), (["paper", "aime"], 10), (["aime25", "paper"], 12),
    (["gym", "gym:countdown"], 2), (["math500", "math", "gsm8k"], 2),
]  # fmt: skip


@pytest.mark.parametrize(("names", "count"), NAMES)
def test_names_and_families(names, count):
    assert len(benchmarks.known(names)) == count


def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown benchmark 'aime24'; there are lab, gym"):
        benchmarks.known(["aime24"])


def test_options_are_permuted_with_their_letter():
    question = "Which?\n\nA. red\nB. blue\nC. green\nD. grey\n\nPlease reason step by step."
    seen = set()
    for seed in range(40):
        text, letter = benchmarks.shuffle_options(question, "A", str(seed))
        assert f"\n{letter}. red\n" in text and text.endswith("Please reason step by step.")
        seen.add(letter)
    assert seen == set("ABCD")
    with pytest.raises(ValueError, match="expected options"):
        benchmarks.shuffle_options("Which?", "A", "0", "here")


# ---------------------------------------------------------------- rows that do not fit
GOOD = {"aime": {"problem": "How many?", "answer": "7"}}
GOOD["amc"] = {"problem": "How many?", "answer": 7.0}
GOOD["gaokao"] = {"question": "Which?", "answer": "C. 1", "choice_answer": "C"}
GOOD["gpqa"] = {"question": "Which?\nA. a\nB. b\nC. c\nD. d", "answer": "A"}
BROKEN = [  # benchmark, what is changed, what is said
    ("aime", {"answer": "7.5"}, "'answer' is '7.5', expected integer"),
    ("aime", {"answer": None}, "no 'answer'"),
    ("aime", {"problem": ""}, "no 'problem'"),
    ("aime", {"problem": ["How"]}, "'problem' is not text"),
    ("amc", {"answer": 27.5}, "'answer' is 27.5, expected whole"),
    ("amc", {"answer": True}, "'answer' is True, expected whole"),
    ("gaokao", {"choice_answer": "E"}, "'choice_answer' is 'E', expected A to D"),
    ("gaokao", {"answer": 3}, "'answer' is 3, expected text"),
    ("gpqa", {"answer": "E"}, "'answer' is 'E', expected letter"),
    ("gpqa", {"question": "Which?"}, "expected options A. to D."),
]


@pytest.mark.parametrize(("name", "change", "said"), BROKEN)
def test_a_row_that_does_not_fit_is_named(tmp_path, name, change, said):
    rows = [GOOD[name], {**GOOD[name], **change}, GOOD[name]]
    file = tmp_path / benchmarks.benchmark_registry()[name]["file"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="line 2") as error:
        benchmarks.read_benchmark(file)
    assert said in str(error.value) and str(file) in str(error.value)


def test_every_broken_row_is_named_and_none_is_dropped(tmp_path):
    file = tmp_path / "aime.jsonl"
    lines = [json.dumps(GOOD["aime"]), "not JSON", "[1]", '{"answer": "1"}'] + ["{}"] * 4
    file.write_text("\n".join(lines))
    with pytest.raises(ValueError) as error:
        benchmarks.read_benchmark(file)
    told = str(error.value)
    assert [f"jsonl, line {n}:" in told for n in (1, 2, 3, 4)] == [False, True, True, True]
    assert told.endswith("and 2 more")
    file.write_text(json.dumps(GOOD["aime"]))
    with pytest.raises(ValueError, match="1 rows, the release has 30"):
        benchmarks.read_benchmark(file)


# ---------------------------------------------------------------- where files come from
@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A folder of data and one of runs, both empty."""
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LIMO_NB_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "benchmarks").mkdir(parents=True)
    return tmp_path


def aime25(text: str = "How many?") -> str:
    rows = [{"question": f"{n}. {text}", "answer": str(n)} for n in range(15)]
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_local_file_comes_first(home):
    (home / "data" / "benchmarks" / "aime2025-I.jsonl").write_text(aime25())
    found = benchmarks.locate("aime25_1")
    assert (found.source, found.revision) == ("local", "") and not locked("benchmarks")
    assert len(benchmarks.load_benchmark("aime25_1")) == 15
    few = benchmarks.load_benchmark("aime25_1", 4)
    assert (
        list(few["id"]) == list(benchmarks.load_benchmark("aime25_1", 4)["id"])
        and len(few) == 4
    )


def test_a_local_file_that_is_not_the_released_one_is_refused(home):
    file = home / "data" / "benchmarks" / "aime.jsonl"
    file.write_text("".join(json.dumps(GOOD["aime"]) + "\n" for _ in range(30)))
    with pytest.raises(ValueError, match="aime.jsonl is not the released file of 'aime'"):
        benchmarks.load_benchmark("aime")


def test_a_file_that_is_nowhere_is_told_with_the_way_out(home):
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE is set.*set LIMO_NB_DATA"):
        benchmarks.load_benchmark("aime25_2")


FETCH = """
import json, sys
from limo_nb.evaluation import benchmarks
from limo_nb.core.pins import locked
name, url, hub = sys.argv[1:]
sources = benchmarks._facts()["_sources"]
if url:
    sources["limo"]["urls"] = [f"{url}/no/{{file}}.gone", f"{url}/{{file}}"]
if hub:
    sources["aime25"]["hub"] = hub
try:
    print(json.dumps([str(benchmarks.locate(name)), locked("benchmarks")]))
except (ValueError, OSError) as error:
    print(json.dumps(["error", str(error)]))
"""


@pytest.fixture
def served(tmp_path):
    """A folder, and a function that fetches from a server over it in a fresh process."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = subprocess.Popen(
        [sys.executable, HERE / "hub_server.py", folder, "c" * 40],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    address = server.stdout.readline().strip()

    def fetch(name: str, by_url: bool = False, hub: str = "", **more: str) -> list:
        # The libraries read these when they are imported.
        environment = {k: v for k, v in os.environ.items() if "OFFLINE" not in k}
        environment |= {
            "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "NO_PROXY": "*",
            "LIMO_NB_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(HERE.parent),
            "HF_HUB_DISABLE_XET": "1",
        } | more  # fmt: skip
        command = [sys.executable, "-c", FETCH, name, address if by_url else "", hub]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    yield folder, fetch
    server.stdin.close()
    server.wait(10)


def test_the_first_fetch_from_the_hub_is_recorded_and_checked(served, tmp_path):
    folder, fetch = served
    (folder / "aime2025-I.jsonl").write_text(aime25())
    _, lock = fetch("aime25_1")
    entry = lock["aime25_1"]
    assert entry["revision"] == "c" * 40 and len(entry["sha256"]) == 64
    (folder / "aime2025-I.jsonl").write_text(aime25("How few?"))
    found, _ = fetch("aime25_1", HF_HUB_OFFLINE="1")  # what was fetched is kept
    assert "runs/benchmarks/aime2025-I.jsonl" in found and "c" * 40 in found
    (tmp_path / "runs" / "benchmarks" / "aime2025-I.jsonl").unlink()
    said, message = fetch("aime25_1", HF_HOME=str(tmp_path / "another"))
    assert said == "error" and "is not what was fetched first for 'aime25_1'" in message
    assert "Delete that entry" in message


def test_a_folder_stands_for_a_hub_data_set(served, tmp_path):
    folder, fetch = served
    (folder / "aime2025-II.jsonl").write_text(aime25())
    found, lock = fetch("aime25_2", hub=str(folder))
    entry = lock["aime25_2"]
    assert entry["source"] == f"hub:{folder}/aime2025-II.jsonl" and entry["revision"] == ""
    kept = tmp_path / "runs" / "benchmarks" / "aime2025-II.jsonl"
    assert str(kept) in found and kept.read_text() == aime25()
    said, message = fetch("aime25_1", hub=str(folder))
    assert said == "error" and "connect, or set LIMO_NB_DATA" in message


def test_a_url_is_tried_after_another_and_the_digest_decides(served, tmp_path):
    folder, fetch = served
    (folder / "aime.jsonl").write_text("something else\n")
    said, message = fetch("aime", by_url=True)
    assert said == "error" and "404" in message
    assert "hash of downloaded file (aime.jsonl) does not match" in message
    assert not (tmp_path / "runs" / "benchmarks" / "aime.jsonl").exists()


# ---------------------------------------------------------------- real data
@real
def test_real_benchmarks_are_whole(monkeypatch):
    monkeypatch.setenv("LIMO_NB_DATA", str(SHARED))
    items = benchmarks.real_benchmarks(SHARED)
    assert len(items) == 2233 and len(set(items["id"])) == 2233
    letters = [row["answer"] for row in items if row["benchmark"] == "gpqa"]
    assert all(30 <= letters.count(letter) <= 70 for letter in "ABCD")
    with pytest.raises(ValueError, match="unknown benchmark"):
        benchmarks.real_benchmarks(SHARED, ["aime2"])
    for name in benchmarks.of_paper():  # digests are those of the registry
        assert benchmarks.locate(name).source == "local"


@real
def test_a_released_file_is_fetched_by_url(served):
    folder, fetch = served
    (folder / "aime.jsonl").write_bytes((SHARED / "benchmarks" / "aime.jsonl").read_bytes())
    found, lock = fetch("aime", by_url=True)
    assert "runs/benchmarks/aime.jsonl" in found
    assert lock["aime"]["sha256"] == benchmarks.benchmark_registry()["aime"]["sha256"]
    assert lock["aime"]["source"].startswith("http://127.0.0.1")


@real
def test_known_duplicates_are_there():
    found = benchmarks.duplicates(benchmarks.real_benchmarks(SHARED))
    counts = [later.rpartition("-")[0] for later, _ in found]
    assert {name: counts.count(name) for name in set(counts)} == {
        "gaokao": 3, "kaoyan": 4, "grade_school_math": 1,
    }  # fmt: skip
