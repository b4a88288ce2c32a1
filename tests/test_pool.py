"""What chapter 3 shows of the pool: what is left, what fell, what must be avoided."""

import pytest
from datasets import Dataset

from limo_nb import lab
from limo_nb.core import records
from limo_nb.core.settings import load_profile
from limo_nb.evaluation import benchmarks
from limo_nb.problems import (
    cleaning,
    sources,
    text,
)


@pytest.fixture(scope="module")
def settings():
    return load_profile("smoke")


@pytest.fixture(scope="module")
def pool(settings):
    return sources.load_pool(settings.pool)


@pytest.fixture(scope="module")
def sieved(settings, pool):
    return cleaning.sieve(pool, benchmarks.to_avoid(settings.evaluation), settings.pool)


def test_left_counts_down_to_what_was_kept(pool, sieved):
    names, counts = zip(*sieved.left(), strict=True)
    assert counts[0] == len(pool) and counts[-1] == len(sieved.kept)
    assert list(counts) == sorted(counts, reverse=True)
    assert names[0] == "all problems" and "exact duplicate" in names[1]


def test_table_accounts_for_every_problem(pool, sieved):
    table = sieved.table(pool)
    assert table["problems"].sum() == len(pool)
    assert set(table.index) == set(pool["subject"])  # those that lost nothing too
    reasons = table.drop(columns=["lost (%)", "problems"])
    assert reasons.sum().to_dict() == sieved.reasons()


def test_every_leaked_benchmark_problem_falls(settings, pool, sieved):
    exam = {text.normalise(row["question"]) for row in lab.benchmarks(40)}
    leaked = {r["id"] for r in pool if text.normalise(r["question"]) in exam}
    assert leaked and leaked <= set(sieved.dropped["id"])


def test_all_items_are_avoided_however_few_are_evaluated(settings):
    few = settings.evaluation.model_copy(update={"items": 1})
    assert len(benchmarks.to_avoid(few)) == 10 * benchmarks.LAB_ITEMS


def test_real_benchmarks_need_the_folder(settings, monkeypatch):
    monkeypatch.delenv("LIMO_NB_DATA", raising=False)
    real = settings.evaluation.model_copy(update={"benchmarks": ("lab", "aime")})
    with pytest.raises(FileNotFoundError, match="'aime' is not at .* set LIMO_NB_DATA"):
        benchmarks.to_avoid(real)


def test_digest_changes_with_any_row(pool):
    rows = pool.to_list()
    changed = [{**rows[0], "answer": "other"}, *rows[1:]]
    other = Dataset.from_list(changed, features=sources.COLUMNS)
    assert records.table_digest(pool) == records.table_digest(Dataset.from_list(rows))
    assert records.table_digest(pool) != records.table_digest(other)
