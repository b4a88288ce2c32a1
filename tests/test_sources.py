"""Where problems come from: formats, corrupt rows, the registry, the Hub, real pools."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Dataset
from hub import Hub

from limo_nb.core.settings import PoolSettings
from limo_nb.problems import COLUMNS, Problem, sources
from limo_nb.problems.reading import Layout, table_of

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


def settings(source: object, size: int = 10) -> PoolSettings:
    return PoolSettings(source=str(source), size=size)


@pytest.mark.parametrize("name", FILES)
def test_formats_give_the_same_columns(tmp_path, name):
    (tmp_path / name).write_text(FILES[name], "utf-8")
    pool = sources.load_pool(settings(tmp_path / name))
    assert pool.features == COLUMNS
    assert list(pool["answer"]) == ["1", "2"]
    assert pool["question"][1] == "Two?" and len(set(pool["id"])) == 2


def test_arrow_files_of_both_kinds(tmp_path):
    table = pa.table({"question": ["One?", "Two?"], "answer": ["1", "2"]})
    for name, opened in (("s.arrow", pa.ipc.new_stream), ("f.arrow", pa.ipc.new_file)):
        with pa.OSFile(str(tmp_path / name), "wb") as sink, opened(sink, table.schema) as out:
            out.write_table(table)
        pool = sources.load_pool(settings(tmp_path / name))
        assert list(pool["answer"]) == ["1", "2"] and pool.features == COLUMNS
    (tmp_path / "broken.arrow").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"broken\.arrow: not a valid arrow file"):
        sources.load_pool(settings(tmp_path / "broken.arrow"))


def test_parquet_and_folders(tmp_path):
    Dataset.from_list([{"question": "One?", "answer": "1", "level": "Level 4"}]).to_parquet(
        str(tmp_path / "a.parquet")
    )
    (tmp_path / "b.json").write_text(FILES["p.json"])
    pool = sources.load_pool(settings(tmp_path))
    assert list(pool["source"]) == ["a", "b", "b"]
    assert list(pool["level"]) == [4, 0, 0]


def test_gsm8k_answers_are_split_off(tmp_path):
    (tmp_path / "g.jsonl").write_text(FILES["g.jsonl"])
    row = sources.load_pool(settings(tmp_path / "g.jsonl"))[0]
    assert (row["solution"], row["answer"]) == ("so", "1")


CORRUPT = {
    '[{"question": "Q"}]': r"p\.json, row 1: no answer",
    '[{"question": "Q", "answer": "1"}, {"question": " ", "answer": "1"}]': "row 2: .* empty",
    '[{"question": 3, "answer": "1"}]': "row 1: the question in question is not text",
    '[{"answer": "1"}]': r"row 1: no question \(found: answer\)",
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
        sources.load_pool(settings(tmp_path / "p.json"))


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"question": "Q", "answer": "1"}\n{"question": "Q"')
    with pytest.raises(ValueError, match=r"p\.jsonl, line 2: not valid JSON"):
        sources.load_pool(settings(tmp_path / "p.jsonl"))


def test_sizes_and_seeds(tmp_path):
    rows = [{"question": f"Question {n}?", "answer": str(n)} for n in range(50)]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    small = [
        list(sources.load_pool(PoolSettings(source=str(tmp_path), size=9, seed=s))["id"])
        for s in (1, 1, 2)
    ]
    assert small[0] == small[1] != small[2] and len(small[0]) == 9
    assert small[0] == sorted(small[0], key=lambda name: int(name.split("-")[1]))


def test_a_row_of_a_pool_is_a_problem():
    assert list(Problem.__annotations__) == list(COLUMNS)


def test_a_table_is_known_by_its_rows():
    """By its fingerprint `datasets` knows what it has computed before."""
    rows = [(n, ("here", {"question": f"{n}?", "answer": "1"})) for n in range(9)]
    (first, again, other) = (table_of(r, "t", Layout()) for r in (rows, rows, rows[:8]))
    assert first._fingerprint == again._fingerprint != other._fingerprint


def test_a_real_pool_of_another_size_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "pool").mkdir()
    row = {"problem": "One?", "answer": "1", "year": 1983}
    file = tmp_path / "pool" / "aime_train.json"
    file.write_text(json.dumps([row, {**row, "year": 2024}]))
    monkeypatch.setenv("LIMO_NB_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="1 problems, the release has 975"):
        sources.load_pool(settings("aime"))


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
    layout = Layout.of(sources.source_registry()[name]["hub"])
    part = layout.part(row | {"messages": [{"content": "What?"}]})
    assert part == row
    (found,) = table_of([(1, ("here", part))], "t", layout)
    assert found["question"] == "What?"
    assert tuple(found[column] for column in ("answer", "source", "subject", "level")) == wanted


def test_a_year_of_the_benchmark_is_left_out():
    layout = Layout.of(sources.source_registry()["aime"]["hub"])
    row = {"Question": "What?", "Answer": "60"}
    rows = [(n, ("here", row | {"ID": str(n), "Year": n})) for n in (2023, 2024)]
    assert list(table_of(rows, "t", layout)["id"]) == ["t-2023"]
    with pytest.raises(ValueError, match="here: no Year"):
        table_of([(1, ("here", {"Question": "What?"}))], "t", layout)


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
            sources.load_pool(settings(name))
    monkeypatch.setenv("LIMO_NB_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="LIMO_NB_DATA"):
        sources.data_root()


def test_a_file_may_call_its_columns_as_it_likes(tmp_path):
    row = {"text": "One?", "key": 1, "stars": "Level 4", "area": "algebra"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    fields = {"question": "text", "answer": "key", "level": "stars", "subject": "area"}
    given = PoolSettings(source=str(tmp_path / "p.jsonl"), size=9, fields=fields)
    found = sources.load_pool(given)[0]
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
        sources.load_pool(PoolSettings(source=source, size=9, fields=fields))


# ---------------------------------------------------------------- real data
@real
def test_real_pools_are_whole(monkeypatch):
    monkeypatch.setenv("LIMO_NB_DATA", str(SHARED))
    counts = {name: len(sources.load_pool(settings(name, 10**6))) for name in ("aime", "math")}
    assert counts == {"aime": 975, "math": 7474}
    assert len(sources.load_pool(settings("real", 10**6))) == 15922
    for name, entry in sources.source_registry().items():
        if "file" in entry:
            pool = sources.read_source(name)
            assert len(pool) == entry["file"]["rows"] and len(set(pool["id"])) == len(pool)
            assert sum(not answer for answer in pool["answer"]) < 10, name
