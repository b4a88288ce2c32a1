"""What chapter 4 shows: counts, shares and sentences of the funnel."""

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from limo_nb import problems
from limo_nb.book import (
    funnel_report,
    plots,
)
from limo_nb.core.settings import load_profile
from limo_nb.evaluation.benchmarks import real_benchmarks
from limo_nb.selection import (
    choice,
    rates,
)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
real = pytest.mark.skipif(
    not (SHARED / "pool").is_dir(), reason="../shared/data/pool is not beside the repository"
)


def table(*cells):
    """Problems p0, p1, … from (subject, level)."""
    rows = [
        {"id": f"p{n}", "question": f"Question {n}?", "answer": "6", "solution": "",
         "source": "test", "subject": subject, "level": level}
        for n, (subject, level) in enumerate(cells)
    ]  # fmt: skip
    return Dataset.from_list(rows, features=problems.COLUMNS)


def counts(**right):
    """Counts of four attempts each from `name=number of right ones`."""
    rows = [
        {"id": name, "sample": n, "correct": n < number}
        for name, number in right.items()
        for n in range(4)
    ]
    return rates.solve_counts(Dataset.from_list(rows))


@pytest.mark.parametrize("name", ["smoke", "mini", "gpu", "paper"])
def test_the_filters_stand_beside_the_papers(name):
    profile = load_profile(name)
    shown = funnel_report.beside_paper(profile)
    assert shown.loc["coarse: correct, to stay", "LIMO (v3)"] == "0"
    assert shown.loc["fine: correct, to stay", "LIMO (v3)"] == "1 to 3"
    assert shown.loc["fine: attempts", "this run"] == profile.fine.sampling.samples
    assert not shown.isna().any(axis=None)


def test_some_questions_reach_from_the_rarest_to_the_most_frequent():
    rows = funnel_report.example_rates(counts(a=4, b=0, c=2, d=1, e=3), 3)
    assert [(row["label"], row["value"]) for row in rows] == [("b", 0), ("c", 50), ("a", 100)]
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    assert len(funnel_report.example_rates(counts(a=4), 10)) == 1


def test_spread_is_told_from_luck():
    alike, apart = counts(a=2, b=2), counts(a=4, b=0)
    assert funnel_report.deviations(alike) == (0.0, 1.0)  # all of it would be luck
    assert funnel_report.deviations(apart) == (2.0, 1.0)
    assert funnel_report.bars(apart) == "Questions by correct attempts: [1, 0, 0, 0, 1]."


def test_the_papers_band_counts_rates():
    rows = [
        {"id": str(right), "sample": n, "correct": n < right}
        for right in range(6)
        for n in range(32)
    ]
    found = rates.solve_counts(Dataset.from_list(rows))
    assert funnel_report.in_papers_band(found) == 3  # 1, 2 and 3 of 32


def test_by_level_compares_the_ends_among_what_was_attempted():
    pool = table(*[("dial", 1 + n) for n in range(8)])
    lowest, highest = funnel_report.by_level(counts(p0=4, p1=2, p3=0, p6=0, p7=2), pool)
    assert (lowest["label"], lowest["value"]) == ("lowest levels", 75.0)
    assert (highest["label"], highest["value"]) == ("highest levels", 25.0)
    assert all(row["low"] <= row["value"] <= row["high"] for row in (lowest, highest))


@pytest.mark.parametrize(("low", "verdict"), [(60, " solves "), (40, " does not clearly ")])
def test_a_solver_tells_levels_where_intervals_are_apart(low, verdict):
    said = funnel_report.tells_levels("weak", [{"low": low}, {"high": 50}])
    assert verdict in said and said.startswith("The weak solver")


def test_survival_and_mean_levels():
    pool = table(("dial", 1), ("dial", 1), ("dial", 2), ("dial", 2), ("grid", 1))
    kept = pool.select([0, 2, 3])
    assert funnel_report.survival(pool, kept) == [
        {"family": "dial", "level": 1, "value": 50.0},
        {"family": "dial", "level": 2, "value": 100.0},
        {"family": "grid", "level": 1, "value": 0.0},
    ]
    assert funnel_report.mean_levels(pool, kept) == pytest.approx((5 / 3, 1.0))
    assert np.isnan(funnel_report.mean_levels(pool, pool)[1])


def test_what_fell_is_shown_with_its_reason():
    pool = table(*[("dial", 1)] * 4)
    passed = funnel_report.passed_over(pool, pool.select([1]))
    shown = funnel_report.fallen([("choice", pool, passed)], n=2)
    assert shown.to_dict("list") == {
        "step": ["choice"] * 2,
        "reason": ["others had their turn"] * 2,
        "question": ["Question 0?", "Question 2?"],
    }


def test_balance_before_and_after():
    pool = table(*[("dial", 1)] * 4, *[("dial", 2)] * 2, ("grid", 2))
    groups = {"pool": pool, "chosen": choice.select(pool, 3, 0)}
    levels, shares = funnel_report.level_shares(groups)
    assert levels == [1, 2]
    assert shares["chosen"] == pytest.approx([100 / 3, 200 / 3])
    assert funnel_report.effective_cells(groups).endswith("3.0 (chosen)")
    assert funnel_report.subjects(groups).to_dict() == {
        "pool": {"dial": 6, "grid": 1}, "chosen": {"dial": 2, "grid": 1},
    }  # fmt: skip
    full = {
        (row["level"], row["family"]): row["value"] for row in funnel_report.fullness(groups)
    }
    assert full["pool\n1", "dial"] == 100 and full["pool\n2", "grid"] == 25
    assert full["chosen\n2", "dial"] == full["chosen\n2", "grid"] == 100
    plots.heat(funnel_report.fullness(groups), "balance")


def test_a_choice_is_compared_with_a_blind_one():
    pool = table(*[("dial", 1)] * 12)
    said = funnel_report.redundancy(choice.select(pool, 4, 0), pool, 0)
    assert "drawn blindly" in said
    assert "nothing to choose" in funnel_report.redundancy(pool, pool, 0)


# ---------------------------------------------------------------- real problems
@real
def test_a_recorded_walk():
    pool, attempts = funnel_report.recorded_attempts(SHARED)
    assert len(pool) == len(set(pool["id"])) == 1319
    assert all(pool["answer"]) and min(pool["level"]) >= 0 and max(pool["level"]) < 20
    found = {solver: rates.solve_counts(rows) for solver, rows in attempts.items()}
    assert np.mean(found["weak"]["rate"]) < np.mean(found["strong"]["rate"])
    harder = rates.keep_by_rate(pool, found["weak"], (0, 0)).kept
    rare = rates.keep_by_rate(harder, found["strong"], (1, 1)).kept
    assert 0 < len(rare) < len(harder) < len(pool)
    assert np.mean(harder["level"]) > np.mean(pool["level"])


@real
def test_a_walk_by_labels(monkeypatch):
    """MATH by type and difficulty: clean, hard, and even over both after the choice."""
    monkeypatch.setenv("LIMO_NB_DATA", str(SHARED))
    pool = problems.read_source("math")
    assert len(set(pool["subject"])) == 7 and set(pool["level"]) == set(range(6))
    clean = problems.decontaminate(pool, real_benchmarks(SHARED)).kept
    high = clean.filter(lambda row: row["level"] >= 4)
    chosen = choice.select(high, 140, 0)
    values = [row["value"] for row in funnel_report.fullness({"chosen": chosen})]
    assert len(values) == 14 and set(values) == {100.0}
    assert choice.cells_in_effect(high) < 13.5
    assert "drawn blindly" in funnel_report.redundancy(chosen, high, 0)
