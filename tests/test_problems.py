"""Loading, duplicates and contamination: lab rows, local files, and the real pool."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
from datasets import Dataset
from hub import Hub

from limo_nb import lab
from limo_nb.core import records
from limo_nb.core.settings import (
    Normalisation,
    PoolSettings,
)
from limo_nb.evaluation.benchmarks import real_benchmarks
from limo_nb.problems import (
    cleaning,
    sources,
)
from limo_nb.problems import (
    sources as problems_sources,
)
from limo_nb.problems import (
    text as problems_text,
)
from limo_nb.problems.cleaning import Sieved
from limo_nb.problems.sources import COLUMNS

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
real = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real pool and benchmarks are not beside the repository"
)
FILES = {  # name → text; what two problems look like in each format
    "p.json": json.dumps(
        [{"problem": "One?", "answer": 1}, {"problem": "Two?", "answer": 2.0}]
    ),
    "p.jsonl": '{"question": "One?", "answer": "1"}\n\n{"question": "Two?", "answer": "2"}\n',
    "u.jsonl": '{"prompt": "One\u2028?", "answer": "1"}\n{"prompt": "Two?", "answer": "2"}',
    "g.jsonl": '{"question": "One?", "answer": "so\\n#### 1"}\n'
    '{"question": "Two?", "answer": "2"}',
}


def pool_of(*questions: str, answers: tuple[str, ...] = ()) -> Dataset:
    """A pool with ids p0, p1, …; all answers are "1" unless given."""
    rows = [
        {"id": f"p{n}", "question": question, "answer": answers[n] if answers else "1",
         "solution": "", "source": "test", "subject": "", "level": 0}
        for n, question in enumerate(questions)
    ]  # fmt: skip
    return Dataset.from_list(rows, features=COLUMNS)


def settings(source: object, size: int = 10) -> PoolSettings:
    return PoolSettings(source=str(source), size=size)


@pytest.mark.parametrize("name", FILES)
def test_formats_give_the_same_columns(tmp_path, name):
    (tmp_path / name).write_text(FILES[name], "utf-8")
    pool = problems_sources.load_pool(settings(tmp_path / name))
    assert pool.features == COLUMNS
    assert list(pool["answer"]) == ["1", "2"]
    assert pool["question"][1] == "Two?" and len(set(pool["id"])) == 2


def test_arrow_files_of_both_kinds(tmp_path):
    table = pa.table({"question": ["One?", "Two?"], "answer": ["1", "2"]})
    for name, opened in (("s.arrow", pa.ipc.new_stream), ("f.arrow", pa.ipc.new_file)):
        with pa.OSFile(str(tmp_path / name), "wb") as sink, opened(sink, table.schema) as out:
            out.write_table(table)
        pool = problems_sources.load_pool(settings(tmp_path / name))
        assert list(pool["answer"]) == ["1", "2"] and pool.features == COLUMNS
    (tmp_path / "broken.arrow").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"broken\.arrow: not a valid arrow file"):
        problems_sources.load_pool(settings(tmp_path / "broken.arrow"))


def test_parquet_and_folders(tmp_path):
    Dataset.from_list([{"question": "One?", "answer": "1", "level": "Level 4"}]).to_parquet(
        str(tmp_path / "a.parquet")
    )
    (tmp_path / "b.json").write_text(FILES["p.json"])
    pool = problems_sources.load_pool(settings(tmp_path))
    assert list(pool["source"]) == ["a", "b", "b"]
    assert list(pool["level"]) == [4, 0, 0]


def test_gsm8k_answers_are_split_off(tmp_path):
    (tmp_path / "g.jsonl").write_text(FILES["g.jsonl"])
    row = problems_sources.load_pool(settings(tmp_path / "g.jsonl"))[0]
    assert (row["solution"], row["answer"]) == ("so", "1")


CORRUPT = {
    '[{"question": "Q"}]': r"p\.json, row 1: no answer",
    '[{"question": "Q", "answer": "1"}, {"question": " ", "answer": "1"}]': "row 2: .* empty",
    '[{"question": 3, "answer": "1"}]': "row 1: the question is empty or not text",
    '[{"answer": "1"}]': "row 1: no question or problem or prompt",
    '[["question", "answer"]]': "row 1: expected a mapping, found list",
    '{"question": "Q", "answer": "1"}': "expected a list",
    '[{"question": "Q", ': "not valid JSON",
    "[]": "no problems",
    '[{"question": "Q", "answer": "1", "level": "hard"}]': "row 1: the level 'hard'",
    '[{"id": 1, "question": "Q", "answer": "1"}, {"id": 1, "question": "R", "answer": "1"}]': (
        "row 2: the id 'p-1' is taken by .* row 1"
    ),
}


@pytest.mark.parametrize("text", CORRUPT)
def test_corrupt_rows_are_named(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=CORRUPT[text]):
        problems_sources.load_pool(settings(tmp_path / "p.json"))


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"question": "Q", "answer": "1"}\n{"question": "Q"')
    with pytest.raises(ValueError, match=r"p\.jsonl, line 2: not valid JSON"):
        problems_sources.load_pool(settings(tmp_path / "p.jsonl"))


def test_sizes_and_seeds(tmp_path):
    rows = [{"question": f"Question {n}?", "answer": str(n)} for n in range(50)]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    small = [
        list(
            problems_sources.load_pool(PoolSettings(source=str(tmp_path), size=9, seed=s))["id"]
        )
        for s in (1, 1, 2)
    ]
    assert small[0] == small[1] != small[2] and len(small[0]) == 9
    assert small[0] == sorted(small[0], key=lambda name: int(name.split("-")[1]))


def test_a_table_is_known_by_its_rows():
    """By its fingerprint `datasets` knows what it has computed before."""
    rows = [(n, ("here", {"question": f"{n}?", "answer": "1"})) for n in range(9)]
    (first, again, other) = (sources._table(r, "t") for r in (rows, rows, rows[:8]))
    assert first._fingerprint == again._fingerprint != other._fingerprint


def test_a_real_pool_of_another_size_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "pool").mkdir()
    row = {"problem": "One?", "answer": "1", "year": 1983}
    file = tmp_path / "pool" / "aime_train.json"
    file.write_text(json.dumps([row, {**row, "year": 2024}]))
    monkeypatch.setenv("LIMO_NB_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="1 problems, the release has 975"):
        problems_sources.load_pool(settings("aime"))


TYPED = {"problem": "What?", "level": "Level 5", "type": "Algebra", "solution": ""}
HUB = [  # source; a row as the Hub has them, invented; answer, source, subject, level
    (
        "numinamath",
        {"problem": "What?", "solution": r"$\boxed{\frac{1}{2}}$.", "source": "olympiads"},
        (r"\frac{1}{2}", "olympiads", "", 0),
    ),
    (
        "numinamath",
        {"problem": "What?", "solution": "A proof.", "source": "olympiads"},
        ("", "olympiads", "", 0),
    ),
    (
        "deepscaler",
        {"problem": "What?", "answer": "3", "solution": "So 3."},
        ("3", "t", "", 0),
    ),
    (
        "aime",
        {"ID": "1983-1", "Year": 1983, "Question": "What?", "Answer": "60"},
        ("60", "t", "", 0),
    ),
    ("math", TYPED | {"solution": r"$\boxed{6}$, $\boxed{7}$"}, ("6, 7", "t", "Algebra", 5)),
    ("math", TYPED | {"solution": r"6. So $\boxed 7.$"}, ("7", "t", "Algebra", 5)),
    ("math", TYPED | {"solution": r"\fbox{7}"}, ("7", "t", "Algebra", 5)),
    ("math", TYPED | {"solution": r"\boxed{7"}, ("", "t", "Algebra", 5)),
    ("math", TYPED | {"level": "Level ?"}, ("", "t", "Algebra", 0)),
    ("gsm8k", {"question": "What?", "answer": "It is 2.\n#### 2"}, ("2", "t", "", 0)),
]


@pytest.mark.parametrize(("name", "row", "wanted"), HUB)
def test_the_registry_maps_what_the_hub_has(name, row, wanted):
    shape = sources.Shape.of(sources.registry()[name]["hub"])
    part = shape.part(row | {"messages": [{"content": "What?"}]})
    assert part == row
    (found,) = sources._table([(1, ("here", part))], "t", shape)
    assert found["question"] == "What?"
    assert tuple(found[column] for column in ("answer", "source", "subject", "level")) == wanted


def test_a_year_of_the_benchmark_is_left_out():
    shape = sources.Shape.of(sources.registry()["aime"]["hub"])
    row = {"Question": "What?", "Answer": "60"}
    rows = [(n, ("here", row | {"ID": str(n), "Year": n})) for n in (2023, 2024)]
    assert list(sources._table(rows, "t", shape)["id"]) == ["t-2023"]
    with pytest.raises(ValueError, match="here: no Year"):
        sources._table([(1, ("here", {"Question": "What?"}))], "t", shape)


def test_a_stream_is_sampled_evenly_and_the_same_for_a_seed():
    drawn = [list(sources.reservoir(range(40), 10, seed)) for seed in range(400)]
    assert drawn[3] == list(sources.reservoir(iter(range(40)), 10, 3)) != drawn[4]
    assert all(row == sorted(row) and len(set(row)) == 10 for row in drawn)
    counts = Counter(value for row in drawn for value in row)
    assert all(60 < counts[value] < 140 for value in range(40))  # 100 expected, sd 8.7
    assert list(sources.reservoir(range(3), 10, 0)) == [0, 1, 2]


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_the_revision_of_the_first_fetch_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path / "runs"))
    assert sources.pinned("some/pool", COMMIT) == COMMIT
    locked = json.loads((tmp_path / "limo-nb.lock.json").read_text())
    assert locked["pools"]["some/pool"]["revision"] == COMMIT
    assert sources.pinned("some/pool") == COMMIT  # without asking anyone
    with pytest.raises(ValueError, match="delete that entry"):
        sources.pinned("some/pool", COMMIT[::-1])


@pytest.mark.parametrize(
    ("name", "way"),
    [
        (
            "openai/gsm8k",
            ": connect, or set LIMO_NB_DATA to a folder with pool/gsm8k_train.jsonl",
        ),
        ("AI-MO/NuminaMath-CoT", ": connect"),
        ("other/pool", ": connect"),
    ],
)
def test_without_a_network_the_ways_out_are_told(monkeypatch, tmp_path, name, way):
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path / "runs"))
    with pytest.raises(ValueError, match=f"does not say which commit {name} .*{way}$"):
        sources.pinned(name)


LOAD = """
import json, sys
from limo_nb.core.settings import PoolSettings
from limo_nb.problems.sources import load_pool
for name in sys.argv[1:]:
    print(json.dumps(load_pool(PoolSettings(source=name, size=10, seed=1)).to_list()))
"""


def load_from(server: Hub, folder: Path, names: list[str]) -> list[list[dict]]:
    """Rows of the pools `names`, loaded by a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *names],
        env=server.environment(folder), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_pools_come_from_the_hub_at_the_first_revision(tmp_path):
    """Streamed (the first) and loaded whole (the others), from a Hub on this machine."""
    names = ["AI-MO/NuminaMath-CoT", "deepscaler", f"some/pool@{'c' * 40}"]
    with Hub() as server:
        first = load_from(server, tmp_path, names)
        server.commit = "d" * 40
        server.asked.clear()
        assert load_from(server, tmp_path, names) == first
    for rows, source in zip(first, ("numinamath", "deepscaler", "some/pool"), strict=True):
        assert len(rows) == 10
        for row in rows:
            number = int(row["id"].rpartition("-")[2]) - 1
            assert row["question"] == f"What is {number} + {number}?"
            assert (row["answer"], row["source"]) == (str(2 * number), source)
    read = [path for path in server.asked if path.endswith("/train.jsonl")]
    assert read and all("/aaaaaaaa" in path for path in read)  # the stream has no cache
    locked = json.loads((tmp_path / "limo-nb.lock.json").read_text())["pools"]
    commits = {name: entry["revision"][0] for name, entry in locked.items()}
    deepscaler = "agentica-org/DeepScaleR-Preview-Dataset"
    assert commits == {names[0]: "a", deepscaler: "a", "some/pool": "c"}


def test_real_sources_need_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("LIMO_NB_DATA", raising=False)
    for name in ("math", "limr", "nothing"):
        with pytest.raises(ValueError, match="set LIMO_NB_DATA|no pool 'nothing'"):
            problems_sources.load_pool(settings(name))
    monkeypatch.setenv("LIMO_NB_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="LIMO_NB_DATA"):
        problems_sources.data_root()


LONG = "A farmer has {} red hens and as many blue hens as there are days in a week; " * 3
DUPLICATES = [  # questions, answers, ids that fall with their counterparts
    (("Find x.", " FIND  $x$."), ("1", "1"), {"p1": "p0"}),
    (("Find x.", "Find y.", "find x."), ("1", "1", "2"), {"p2": "p0"}),
    ((LONG.format(*"123"), LONG.format(*"123") + "Now?"), ("9", "9"), {"p1": "p0"}),
    ((LONG.format(*"123"), LONG.format(*"123") + "Now?"), ("9", "8"), {}),
    ((LONG.format(*"123"), LONG.format(*"123") + "Now?"), ("9", ""), {"p1": "p0"}),
    (("One two three four.", "Five six seven eight."), ("1", "1"), {}),
]


@pytest.mark.parametrize(("questions", "answers", "fallen"), DUPLICATES)
def test_duplicates(questions, answers, fallen):
    sieved = cleaning.drop_duplicates(pool_of(*questions, answers=answers), near=0.9)
    dropped = {row["id"]: row["counterpart"] for row in sieved.dropped}
    assert dropped == fallen
    assert len(sieved.kept) + len(sieved.dropped) == len(questions)


def test_every_counterpart_stays():
    chain = [LONG.format(*"123") + "x" * n for n in range(4)]
    sieved = cleaning.drop_duplicates(pool_of(*chain), near=0.8)
    assert set(sieved.dropped["counterpart"]) == {"p0"} and list(sieved.kept["id"]) == ["p0"]


BENCHMARK = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
CONTAMINATION = [  # question, ngram, whether it falls
    (f"Before it: {BENCHMARK.upper()}, and after it", 13, True),
    (BENCHMARK.replace(" eight", ""), 13, False),
    (BENCHMARK.replace(" eight", ""), 6, True),
    ("Find $x$ now", 13, True),  # a benchmark item of three words, as a whole
    ("Find x now or later", 13, False),
    ("已知集合甲乙丙丁戊己庚辛壬癸子丑寅卯", 13, True),
    ("已知集合甲乙丙丁戊己", 13, False),
]
CHINESE = "问：已知集合甲乙丙丁戊己庚辛壬癸？"


@pytest.mark.parametrize(("question", "ngram", "falls"), CONTAMINATION)
def test_contamination(question, ngram, falls):
    benchmark = pool_of(BENCHMARK, "find x now", CHINESE)
    sieved = cleaning.decontaminate(pool_of(question), benchmark, ngram)
    assert (len(sieved.dropped) == 1) == falls
    assert set(sieved.dropped["counterpart"]) <= {"p0", "p1", "p2"}


def test_a_rephrased_item_falls_at_any_length():
    items = pool_of(r"Find $\frac{2x+1}{3}$ if $x = 4y$.", BENCHMARK)
    again = pool_of(
        "FIND \\( \\dfrac{2 x + 1}{3} \\)\nif \\(x\\,=\\,4\\! y\\).", BENCHMARK.title()
    )
    sieved = cleaning.decontaminate(again, items)
    assert len(sieved.kept) == 0
    assert sieved.reasons() == {"shares the whole question": 2}


PART = f"{BENCHMARK} and then a question of its own that is longer than the item by far"


@pytest.mark.parametrize(("threshold", "falls"), [(0.0, True), (0.1, True), (0.5, False)])
def test_the_threshold_is_a_share_of_the_problems_own_ngrams(threshold, falls):
    sieved = cleaning.decontaminate(pool_of(PART), pool_of(BENCHMARK), threshold=threshold)
    assert (len(sieved.dropped) == 1) == falls


SPACED = BENCHMARK.replace("one two", r"one\quad two").replace(" ", r"\quad ")
PARAMETERS = [  # settings, question, why it falls (none: it stays)
    ({}, f"今{CHINESE}", {"shares 13 characters": 1}),
    ({"characters": 16}, f"今{CHINESE}", {}),
    ({}, "今已知集合甲乙丙丁，求其和", {}),
    ({"characters": 8}, "今已知集合甲乙丙丁，求其和", {"shares 8 characters": 1}),
    ({"characters": 8}, PART, {"shares 13 words": 1}),
    ({"ngram": 15}, PART, {}),
    ({"threshold": 0.05}, PART, {"shares 13 words": 1}),
    ({"threshold": 0.5}, PART, {}),
    ({}, SPACED, {"shares the whole question": 1}),
    ({"normalisation": "case"}, SPACED, {}),
    ({"normalisation": "case"}, BENCHMARK.title(), {"shares the whole question": 1}),
    ({"normalisation": "none"}, BENCHMARK.title(), {}),
    ({"normalisation": "none"}, f"{BENCHMARK}!", {"shares the whole question": 1}),
]


@pytest.mark.parametrize(("chosen", "question", "reasons"), PARAMETERS)
def test_every_parameter_of_the_profile_changes_a_verdict(chosen, question, reasons):
    made = PoolSettings(source="lab", size=1, **chosen)
    found = cleaning.sieve(pool_of(question), pool_of(BENCHMARK, CHINESE), made)
    assert found.reasons() == reasons


def test_the_forms_are_those_that_profiles_know():
    assert tuple(problems_text.FORMS) == get_args(Normalisation)


@pytest.mark.parametrize("form", problems_text.FORMS)
def test_one_pass_equals_the_sieves_one_after_the_other(form):
    rows = lab.pool(300, 7)
    pool = Dataset.from_list(rows, features=COLUMNS)
    exam = Dataset.from_list(lab.benchmarks(20))
    made = PoolSettings(source="lab", size=1, ngram=20, near_duplicate=0.8, normalisation=form)
    at_once = cleaning.sieve(pool, exam, made)
    steps = (
        cleaning.drop_unanswered(pool)
        .then(lambda left: cleaning.drop_duplicates(left, 0.8))
        .then(
            lambda left: cleaning.decontaminate(
                left, exam, 20, normal=problems_text.FORMS[form]
            )
        )
    )
    assert at_once.dropped.to_list() == steps.dropped.to_list()
    assert list(at_once.kept["id"]) == list(steps.kept["id"])
    assert len(at_once.dropped) > 10


def test_unanswered_problems_fall():
    sieved = cleaning.drop_unanswered(pool_of("A?", "B?", answers=("", "2")))
    assert list(sieved.kept["id"]) == ["p1"] and sieved.reasons() == {"no answer": 1}


# ---------------------------------------------------------------- real data
@pytest.fixture(scope="module")
def exam():
    return real_benchmarks(SHARED)


@real
def test_real_pools_are_whole(monkeypatch):
    monkeypatch.setenv("LIMO_NB_DATA", str(SHARED))
    counts = {
        name: len(problems_sources.load_pool(settings(name, 10**6)))
        for name in ("aime", "math")
    }
    assert counts == {"aime": 975, "math": 7474}
    assert len(problems_sources.load_pool(settings("real", 10**6))) == 15922
    for name, entry in sources.registry().items():
        if "file" in entry:
            pool = sources.read_source(name)
            assert len(pool) == entry["file"]["rows"] and len(set(pool["id"])) == len(pool)
            assert sum(not answer for answer in pool["answer"]) < 10, name


@real
def test_real_pool_is_sieved_within_a_minute(exam):
    pool = problems_sources.real_pool(SHARED)
    started = time.process_time()
    sieved: Sieved = cleaning.sieve(pool, exam, settings("real"))
    assert time.process_time() - started < 40
    assert len(sieved.kept) + len(sieved.dropped) == len(pool)
    known = {*pool["id"], *exam["id"], ""}
    assert set(sieved.dropped["counterpart"]) <= known
    reasons = sieved.reasons()
    duplicates = {"exact duplicate", "near duplicate"}
    shares = {"shares 13 words", "shares the whole question"}
    assert set(reasons) == {"no answer", *duplicates, *shares}
    again = cleaning.sieve(sieved.kept, exam, settings("real"))
    assert len(again.dropped) == 0  # nothing is left to find


SPELLINGS = {  # white space, case, LaTeX spacing, fractions
    "spaces": lambda text: re.sub(r"\s+", " \n ", text),
    "case": str.upper,
    "delimiters": lambda text: re.sub(r"\$([^$]+)\$", r"\\(\1\\)", text),
    "signs": lambda text: re.sub(r"\s*([=+<>,])\s*", r" \1 ", text),
    "thin spaces": lambda text: re.sub(r"([=+])", r"\\,\1\\;", text),
    "fractions": lambda text: text.replace("\\frac", "\\dfrac"),
    "short fractions": lambda text: re.sub(r"\\frac\{(\d)\}\{(\d)\}", r"\\tfrac\1\2", text),
    "sizes": lambda text: re.sub(r"\(", r"\\left(", text).replace(")", "\\right)"),
    "lengths": lambda text: text.replace(" ", r" \hskip 1mm "),
    "kerns": lambda text: re.sub(r"([=+(])", r"\\mkern3mu\1\\kern-.5em ", text),
    "negative spaces": lambda text: text.replace(" ", " \\negmedspace\\negthickspace "),
    "paragraphs": lambda text: text.replace(" ", "\\vspace*{1ex}\\par\\noindent\n"),
    "empty texts": lambda text: text.replace(" ", r"\text{ } "),
    "no spaces": lambda text: re.sub(r"(?<!\\)\s+(?!\w)", "", text),
}


@real
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_rephrased_benchmark_falls(exam, spelling):
    """AIME24 and MATH500 in particular, as the issue of contamination asks for."""
    items = exam.filter(lambda row: row["benchmark"] in ("aime", "math"))
    rows = [{**r, "question": SPELLINGS[spelling](r["question"])} for r in items]
    leaked = Dataset.from_list(rows).select_columns(list(COLUMNS))
    assert cleaning.decontaminate(leaked, exam).kept["id"] == []


@real
def test_no_item_of_aime24_is_left_in_the_real_pool(exam):
    kept = cleaning.sieve(problems_sources.real_pool(SHARED), exam, settings("real")).kept
    letters = {"".join(problems_text.words(question)) for question in kept["question"]}
    items = {"".join(problems_text.words(question)) for question in exam["question"]}
    assert not letters & items


@real
@pytest.mark.slow
def test_the_benchmark_finds_what_it_planted(tmp_path):
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, str(root / "benchmarks" / "pool.py"), "--folder", str(tmp_path)]
    done = subprocess.run(
        [*command, "--sizes", "2000", "--rivals", "2000"],
        env={**os.environ, "LIMO_NB_DATA": str(SHARED)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line[:1] == "|"]
    found = {
        row[0].strip(): [float(cell) for cell in row[6:]] for row in lines[2:3] + lines[-2:]
    }
    exact, near, *leaks = found["ours"]
    assert exact == 1 and near >= 0.95 and leaks == [1, 1, 1]
    assert all(sum(found[way][2:]) < 3 for way in ("open-r1", "s1"))


@real
def test_a_benchmark_poured_into_the_pool_falls_out_again(exam):
    leaked = exam.select_columns(list(COLUMNS)).select(range(0, len(exam), 7))
    sieved = cleaning.decontaminate(leaked, exam)
    assert len(sieved.kept) == 0
    assert set(sieved.dropped["overlap"]) == {1.0}


def test_what_fell_is_crossed_with_where_its_counterpart_is():
    pool = pool_of("one", "One", "two", "ONE")
    sieved = cleaning.drop_duplicates(pool)
    labels = {"p0": "here", "p1": "here", "p2": "here", "p3": "there"}
    found = sieved.crossed("duplicate", labels)
    assert found.to_dict() == {"here": {"here": 1, "there": 1}}
    assert sieved.crossed("shares", labels).empty


def test_tables_are_stored_and_read_again(tmp_path):
    pool = pool_of("one", "two")
    records.save_tables(tmp_path, pool=pool, rest=pool.select([1]))
    assert records.load_table(tmp_path, "pool").to_list() == pool.to_list()
    assert records.load_table(tmp_path, "rest")["id"] == ["p1"]


def test_a_file_may_call_its_columns_as_it_likes(tmp_path):
    row = {"text": "One?", "key": 1, "stars": "Level 4", "area": "algebra"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    fields = {"question": "text", "answer": "key", "level": "stars", "subject": "area"}
    given = PoolSettings(source=str(tmp_path / "p.jsonl"), size=9, fields=fields)
    found = problems_sources.load_pool(given)[0]
    assert [found[name] for name in fields] == ["One?", "1", 4, "algebra"]


@pytest.mark.parametrize(
    ("source", "fields", "message"),
    [
        ("p.json", {"quest": "problem"}, "no column 'quest': fields may name id, question"),
        ("p.json", {"question": "text"}, "row 1: no text"),
        ("math", {"question": "text"}, "those of sources.yaml"),
        ("AI-MO/NuminaMath-CoT@main", {"question": "text"}, "those of sources.yaml"),
    ],
)
def test_fields_that_cannot_be_are_named(tmp_path, monkeypatch, source, fields, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.json").write_text(FILES["p.json"])
    with pytest.raises(ValueError, match=message):
        problems_sources.load_pool(PoolSettings(source=source, size=9, fields=fields))
