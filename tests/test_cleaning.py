"""The filters of the pool: duplicates, contamination, what is reported, the real pool."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
from datasets import Dataset

from limo_nb import lab
from limo_nb.core import records
from limo_nb.core.settings import Normalisation, PoolSettings, load_profile
from limo_nb.evaluation import benchmarks
from limo_nb.problems import (
    COLUMNS,
    cleaning,
    load_pool,
    normalise,
    real_pool,
    text,
    wording,
    words,
)
from limo_nb.problems.text import operators

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
real = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real pool and benchmarks are not beside the repository"
)


def pool_of(*questions: str, answers: tuple[str, ...] = ()) -> Dataset:
    """A pool with ids p0, p1, …; all answers are "1" unless given."""
    rows = [
        {"id": f"p{n}", "question": question, "answer": answers[n] if answers else "1",
         "solution": "", "source": "test", "subject": "", "level": 0}
        for n, question in enumerate(questions)
    ]  # fmt: skip
    return Dataset.from_list(rows, features=COLUMNS)


# ---------------------------------------------------------------- duplicates, contamination
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
    cleaned = cleaning.drop_duplicates(pool_of(*questions, answers=answers), near=0.9)
    dropped = {row["id"]: row["counterpart"] for row in cleaned.dropped}
    assert dropped == fallen
    assert len(cleaned.kept) + len(cleaned.dropped) == len(questions)


def test_every_counterpart_stays():
    chain = [LONG.format(*"123") + "x" * n for n in range(4)]
    cleaned = cleaning.drop_duplicates(pool_of(*chain), near=0.8)
    assert set(cleaned.dropped["counterpart"]) == {"p0"} and list(cleaned.kept["id"]) == ["p0"]


BENCHMARK = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
CONTAMINATION = [  # question, ngram, whether it falls
    (f"Before it: {BENCHMARK.upper()}, and after it", 13, True),
    (BENCHMARK.replace(" eight", ""), 13, False),
    (BENCHMARK.replace(" eight", ""), 6, True),
    ("Find $x$ now", 13, True),  # a benchmark item of three words, as a whole
    ("Find x now or later", 13, False),  # as a part it says too little
    ("已知集合甲乙丙丁戊己庚辛壬癸子丑寅卯", 13, True),
    ("已知集合甲乙丙丁戊己", 13, False),
]
CHINESE = "问：已知集合甲乙丙丁戊己庚辛壬癸？"


@pytest.mark.parametrize(("question", "ngram", "falls"), CONTAMINATION)
def test_contamination(question, ngram, falls):
    benchmark = pool_of(BENCHMARK, "find x now", CHINESE)
    cleaned = cleaning.decontaminate(pool_of(question), benchmark, ngram)
    assert (len(cleaned.dropped) == 1) == falls
    assert set(cleaned.dropped["counterpart"]) <= {"p0", "p1", "p2"}


def test_a_rephrased_item_falls_at_any_length():
    items = pool_of(r"Find $\frac{2x+1}{3}$ if $x = 4y$.", BENCHMARK)
    again = pool_of(
        "FIND \\( \\dfrac{2 x + 1}{3} \\)\nif \\(x\\,=\\,4\\! y\\).", BENCHMARK.title()
    )
    cleaned = cleaning.decontaminate(again, items)
    assert len(cleaned.kept) == 0
    assert cleaned.reasons() == {"shares the whole question": 2}


PART = f"{BENCHMARK} and then a question of its own that is longer than the item by far"


ALIKE = f"{BENCHMARK.rpartition(' ')[0]} and another question"
SHARES = [  # question, item, share of both
    (PART, BENCHMARK, 2 / 17, 1),  # a copy inside a problem is one at any threshold
    (f"It is {BENCHMARK}", PART, 2 / 4, 2 / 17),
    (PART, ALIKE, 1 / 17, 1 / 4),
]


@pytest.mark.parametrize(("question", "item", "overlap", "quoted"), SHARES)
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5])
def test_the_threshold_is_the_larger_share(question, item, overlap, quoted, threshold):
    cleaned = cleaning.decontaminate(pool_of(question), pool_of(item), threshold=threshold)
    shares = [(row["overlap"], row["quoted"]) for row in cleaned.dropped]
    assert shares == [(overlap, quoted)] * (max(overlap, quoted) >= threshold)


SPACED = BENCHMARK.replace("one two", r"one\quad two").replace(" ", r"\quad ")
PARAMETERS = [  # settings, question, why it falls (none: it stays)
    ({}, f"今{CHINESE}", {"shares 13 characters": 1}),
    ({"characters": 16}, f"今{CHINESE}", {"holds the whole question": 1}),
    ({"characters": 16}, f"今{CHINESE[:-3]}", {}),
    ({}, "今已知集合甲乙丙丁，求其和", {}),
    ({"characters": 8}, "今已知集合甲乙丙丁，求其和", {"shares 8 characters": 1}),
    ({"characters": 8}, PART, {"shares 13 words": 1}),
    ({"ngram": 15}, PART, {"holds the whole question": 1}),
    ({"ngram": 15}, PART[4:], {}),
    ({"threshold": 0.5}, PART, {"shares 13 words": 1}),
    ({"threshold": 0.5}, ALIKE, {"shares 13 words": 1}),
    ({"threshold": 0.6}, ALIKE, {}),
    ({}, SPACED, {"shares the whole question": 1}),
    ({"normalisation": "case"}, SPACED, {}),
    ({"normalisation": "case"}, BENCHMARK.title(), {"shares the whole question": 1}),
    ({"normalisation": "none"}, BENCHMARK.title(), {}),
    ({"normalisation": "none"}, f"{BENCHMARK}!", {"shares the whole question": 1}),
]


@pytest.mark.parametrize(("chosen", "question", "reasons"), PARAMETERS)
def test_every_parameter_of_the_profile_changes_a_verdict(chosen, question, reasons):
    made = PoolSettings(source="lab", size=1, **chosen)
    found = cleaning.clean_pool(pool_of(question), pool_of(BENCHMARK, CHINESE), made)
    assert found.reasons() == reasons


def test_the_forms_are_those_that_profiles_know():
    assert tuple(text.FORMS) == get_args(Normalisation)


@pytest.mark.parametrize("form", text.FORMS)
def test_one_pass_equals_the_filters_one_after_the_other(form):
    rows = lab.pool(600, 7)
    pool = Dataset.from_list(rows, features=COLUMNS)
    items = Dataset.from_list(lab.benchmarks(20))
    made = PoolSettings(source="lab", size=1, ngram=20, near_duplicate=0.8, normalisation=form)
    at_once = cleaning.clean_pool(pool, items, made)
    steps = (
        cleaning.drop_unanswered(pool)
        .then(lambda left: cleaning.drop_duplicates(left, 0.8))
        .then(lambda left: cleaning.decontaminate(left, items, 20, normal=text.FORMS[form]))
    )
    assert at_once.dropped.to_list() == steps.dropped.to_list()
    assert list(at_once.kept["id"]) == list(steps.kept["id"])
    assert len(at_once.dropped) > 10


def test_unanswered_problems_fall():
    cleaned = cleaning.drop_unanswered(pool_of("A?", "B?", answers=("", "2")))
    assert list(cleaned.kept["id"]) == ["p1"] and cleaned.reasons() == {"no answer": 1}


def test_what_fell_is_crossed_with_where_its_counterpart_is():
    pool = pool_of("one", "One", "two", "ONE")
    cleaned = cleaning.drop_duplicates(pool)
    labels = {"p0": "here", "p1": "here", "p2": "here", "p3": "there"}
    found = cleaned.crossed("duplicate", labels)
    assert found.to_dict() == {"here": {"here": 1, "there": 1}}
    assert cleaned.crossed("shares", labels).empty


# ---------------------------------------------------------------- what chapter 3 shows
@pytest.fixture(scope="module")
def smoke():
    return load_profile("smoke")


@pytest.fixture(scope="module")
def pool(smoke):
    return load_pool(smoke.pool)


@pytest.fixture(scope="module")
def cleaned(smoke, pool):
    return cleaning.clean_pool(pool, benchmarks.to_avoid(smoke.evaluation), smoke.pool)


def test_left_counts_down_to_what_was_kept(pool, cleaned):
    names, counts = zip(*cleaned.left(), strict=True)
    assert counts[0] == len(pool) and counts[-1] == len(cleaned.kept)
    assert list(counts) == sorted(counts, reverse=True)
    assert names[0] == "all problems" and "exact duplicate" in names[1]


def test_table_accounts_for_every_problem(pool, cleaned):
    table = cleaned.table(pool)
    assert table["problems"].sum() == len(pool)
    assert set(table.index) == set(pool["subject"])  # those that lost nothing too
    reasons = table.drop(columns=["lost (%)", "problems"])
    assert reasons.sum().to_dict() == cleaned.reasons()


def test_every_leaked_benchmark_problem_falls(smoke, pool, cleaned):
    asked = {normalise(row["question"]) for row in lab.benchmarks(40)}
    leaked = {r["id"] for r in pool if normalise(r["question"]) in asked}
    assert leaked and leaked <= set(cleaned.dropped["id"])


def test_all_items_are_avoided_however_few_are_evaluated(smoke):
    few = smoke.evaluation.model_copy(update={"items": 1})
    assert len(benchmarks.to_avoid(few)) == 10 * benchmarks.LAB_ITEMS


def test_real_benchmarks_need_the_folder(smoke, monkeypatch):
    monkeypatch.delenv("LIMO_NB_DATA", raising=False)
    real = smoke.evaluation.model_copy(update={"benchmarks": ("lab", "aime")})
    with pytest.raises(FileNotFoundError, match="'aime' is not at .* set LIMO_NB_DATA"):
        benchmarks.to_avoid(real)


# ---------------------------------------------------------------- tables of a stage
def test_tables_are_stored_and_read_again(tmp_path):
    pool = pool_of("one", "two")
    records.save_tables(tmp_path, pool=pool, rest=pool.select([1]), none=pool.select([]))
    assert records.load_table(tmp_path, "pool").to_list() == pool.to_list()
    assert records.load_table(tmp_path, "rest")["id"] == ["p1"]
    none = records.load_table(tmp_path, "none")
    assert len(none) == 0 and none.features == pool.features


def test_digest_changes_with_any_row(pool):
    rows = pool.to_list()
    changed = [{**rows[0], "answer": "other"}, *rows[1:]]
    other = Dataset.from_list(changed, features=COLUMNS)
    assert records.table_digest(pool) == records.table_digest(Dataset.from_list(rows))
    assert records.table_digest(pool) != records.table_digest(other)


# ---------------------------------------------------------------- real data
@pytest.fixture(scope="module")
def items():
    return benchmarks.real_benchmarks(SHARED)


@real
def test_real_pool_is_cleaned_within_a_minute(items):
    pool = real_pool(SHARED)
    started = time.process_time()
    cleaned = cleaning.clean_pool(pool, items, PoolSettings(source="real", size=10))
    assert time.process_time() - started < 40
    assert len(cleaned.kept) + len(cleaned.dropped) == len(pool)
    known = {*pool["id"], *items["id"], ""}
    assert set(cleaned.dropped["counterpart"]) <= known
    reasons = cleaned.reasons()
    duplicates = {"exact duplicate", "near duplicate"}
    shares = {"shares 13 words", "shares the whole question"}
    assert set(reasons) == {"no answer", *duplicates, *shares}
    again = cleaning.clean_pool(cleaned.kept, items, PoolSettings(source="real", size=10))
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
def test_a_rephrased_benchmark_falls(items, spelling):
    """AIME24 and MATH500 in particular, as the issue of contamination asks for."""
    some = items.filter(lambda row: row["benchmark"] in ("aime", "math"))
    rows = [{**r, "question": SPELLINGS[spelling](r["question"])} for r in some]
    leaked = Dataset.from_list(rows).select_columns(list(COLUMNS))
    assert cleaning.decontaminate(leaked, items).kept["id"] == []


@real
def test_no_item_of_aime24_is_left_in_the_real_pool(items):
    kept = cleaning.clean_pool(
        real_pool(SHARED), items, PoolSettings(source="real", size=10)
    ).kept

    def seen(table):  # letters, and signs: arcsin of 1/√2 is not that of -1/2
        forms = map(wording, table["question"])
        return {("".join(words(form)), *sorted(operators(form).items())) for form in forms}

    assert not seen(kept) & seen(items)


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
    *copies, passage = leaks  # some passages of 15 words are common phrases
    assert exact == 1 and near >= 0.95 and copies == [1, 1] and passage >= 0.96
    assert all(sum(found[way][2:]) < 3 for way in ("open-r1", "s1"))


@real
def test_a_benchmark_poured_into_the_pool_falls_out_again(items):
    leaked = items.select_columns(list(COLUMNS)).select(range(0, len(items), 7))
    cleaned = cleaning.decontaminate(leaked, items)
    assert len(cleaned.kept) == 0
    assert set(cleaned.dropped["overlap"]) == {1.0}
