"""Loading, duplicates and contamination: lab rows, local files, and the real pool."""

import json
import time
from itertools import combinations
from pathlib import Path

import pytest
from datasets import Dataset

from limo_nb import lab, problems
from limo_nb.problems import COLUMNS, Sieved
from limo_nb.profiles import PoolSettings

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
    pool = problems.load_pool(settings(tmp_path / name))
    assert pool.features == COLUMNS
    assert list(pool["answer"]) == ["1", "2"]
    assert pool["question"][1] == "Two?" and len(set(pool["id"])) == 2


def test_parquet_and_folders(tmp_path):
    Dataset.from_list([{"question": "One?", "answer": "1", "level": "Level 4"}]).to_parquet(
        str(tmp_path / "a.parquet")
    )
    (tmp_path / "b.json").write_text(FILES["p.json"])
    pool = problems.load_pool(settings(tmp_path))
    assert list(pool["source"]) == ["a", "b", "b"]
    assert list(pool["level"]) == [4, 0, 0]


def test_gsm8k_answers_are_split_off(tmp_path):
    (tmp_path / "g.jsonl").write_text(FILES["g.jsonl"])
    row = problems.load_pool(settings(tmp_path / "g.jsonl"))[0]
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
        problems.load_pool(settings(tmp_path / "p.json"))


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"question": "Q", "answer": "1"}\n{"question": "Q"')
    with pytest.raises(ValueError, match=r"p\.jsonl, line 2: not valid JSON"):
        problems.load_pool(settings(tmp_path / "p.jsonl"))


def test_sizes_and_seeds(tmp_path):
    rows = [{"question": f"Question {n}?", "answer": str(n)} for n in range(50)]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    small = [
        list(problems.load_pool(PoolSettings(source=str(tmp_path), size=9, seed=s))["id"])
        for s in (1, 1, 2)
    ]
    assert small[0] == small[1] != small[2] and len(small[0]) == 9
    assert small[0] == sorted(small[0], key=lambda name: int(name.split("-")[1]))


def test_real_sources_need_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("LIMO_NB_DATA", raising=False)
    with pytest.raises(ValueError, match="set LIMO_NB_DATA"):
        problems.load_pool(settings("math"))
    monkeypatch.setenv("LIMO_NB_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="LIMO_NB_DATA"):
        problems.data_root()


SAME = [
    ("Find  $x$\n", "find x"),
    (r"Is $\dfrac{1}{2}$ big?", r"is \(\frac{1}{2}\)  big?"),
    (r"$\left( a , b \right)$", "(a,b)"),
    (r"a\,b\!c \quad d", "a b c d"),
    ("Ｆｉｎｄ\u200b x", "find x"),
    ("$m_{}$", "m"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_normalise_ignores(one, other):
    assert problems.normalise(one) == problems.normalise(other)


@pytest.mark.parametrize(
    ("one", "other"), [("1 4/5", "14/5"), ("a b", "ab"), (r"\frac12", r"\leftarrow 12")]
)
def test_what_normalise_keeps(one, other):
    assert problems.normalise(one) != problems.normalise(other)


def test_chinese_characters_are_words():
    assert problems.words("已知 x=2，求y") == ["已", "知", "x", "2", "求", "y"]


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
    sieved = problems.drop_duplicates(pool_of(*questions, answers=answers), near=0.9)
    dropped = {row["id"]: row["counterpart"] for row in sieved.dropped}
    assert dropped == fallen
    assert len(sieved.kept) + len(sieved.dropped) == len(questions)


@pytest.mark.parametrize("near", [0.6, 0.8, 0.95])
def test_lsh_finds_what_all_pairs_find(near):
    rows = lab.pool(150, 5)
    pool = Dataset.from_list([{**r, "answer": "1"} for r in rows], features=COLUMNS)
    pool = problems.drop_duplicates(pool, 1.0).kept
    shingles = [problems.ngrams(problems.words(q), 3) for q in pool["question"]]
    near_pairs = {
        (b, a)
        for a, b in combinations(range(len(pool)), 2)
        if problems.jaccard(shingles[a], shingles[b]) >= near
    }
    found = set(problems._candidates(shingles, near))
    assert len(near_pairs - found) <= 0.02 * len(near_pairs)


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


@pytest.mark.parametrize(("question", "ngram", "falls"), CONTAMINATION)
def test_contamination(question, ngram, falls):
    benchmark = pool_of(BENCHMARK, "find x now", "问：已知集合甲乙丙丁戊己庚辛壬癸？")
    sieved = problems.decontaminate(pool_of(question), benchmark, ngram)
    assert (len(sieved.dropped) == 1) == falls
    assert set(sieved.dropped["counterpart"]) <= {"p0", "p1", "p2"}


def test_unanswered_problems_fall():
    sieved = problems.drop_unanswered(pool_of("A?", "B?", answers=("", "2")))
    assert list(sieved.kept["id"]) == ["p1"] and sieved.reasons() == {"no answer": 1}


def test_the_registry_and_the_paper_agree():
    facts, paper = problems.registry(), problems.published()["results"]
    names = [name for name in facts if "file" in facts[name]]
    assert sum(facts[name]["rows"] for name in names) == 2233
    assert sorted(names) == sorted(paper["benchmarks"])
    for model, scores in paper["models"].items():
        mean = sum(scores) / 10
        # The published averages are rounded, and some are of unrounded scores.
        assert mean == pytest.approx(paper["average"][model], abs=0.11), model


def test_options_are_permuted_with_their_letter():
    question = "Which?\n\nA. red\nB. blue\nC. green\nD. grey\n\nPlease reason step by step."
    seen = set()
    for seed in range(40):
        text, letter = problems.shuffle_options(question, "A", str(seed))
        assert f"\n{letter}. red\n" in text and text.endswith("Please reason step by step.")
        seen.add(letter)
    assert seen == set("ABCD")
    with pytest.raises(ValueError, match="expected options"):
        problems.shuffle_options("Which?", "A", "0", "here")


# ---------------------------------------------------------------- real data
@pytest.fixture(scope="module")
def benchmarks():
    return problems.real_benchmarks(SHARED)


@real
def test_real_pools_and_benchmarks_are_whole(monkeypatch, benchmarks):
    monkeypatch.setenv("LIMO_NB_DATA", str(SHARED))
    counts = {name: len(problems.load_pool(settings(name, 10**6))) for name in ("aime", "math")}
    assert counts == {"aime": 975, "math": 7474}
    assert len(problems.load_pool(settings("real", 10**6))) == 15922
    assert len(benchmarks) == 2233 and len(set(benchmarks["id"])) == 2233
    letters = [row["answer"] for row in benchmarks if row["benchmark"] == "gpqa"]
    assert all(30 <= letters.count(letter) <= 70 for letter in "ABCD")
    with pytest.raises(ValueError, match="unknown benchmarks"):
        problems.real_benchmarks(SHARED, ["aime2"])


@real
def test_real_pool_is_sieved_within_a_minute(benchmarks):
    pool = problems.real_pool(SHARED)
    started = time.process_time()
    sieved: Sieved = problems.sieve(pool, benchmarks, settings("real"))
    assert time.process_time() - started < 40
    assert len(sieved.kept) + len(sieved.dropped) == len(pool)
    known = {*pool["id"], *benchmarks["id"], ""}
    assert set(sieved.dropped["counterpart"]) <= known
    reasons = sieved.reasons()
    assert set(reasons) == {
        "no answer", "exact duplicate", "near duplicate", "shares 13 words",
    }  # fmt: skip
    again = problems.sieve(sieved.kept, benchmarks, settings("real"))
    assert len(again.dropped) == 0  # nothing is left to find


@real
def test_a_benchmark_poured_into_the_pool_falls_out_again(benchmarks):
    leaked = benchmarks.select_columns(list(COLUMNS)).select(range(0, len(benchmarks), 7))
    sieved = problems.decontaminate(leaked, benchmarks)
    assert len(sieved.kept) == 0
    assert set(sieved.dropped["overlap"]) == {1.0}
