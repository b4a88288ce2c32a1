"""Estimates against known values and simulations; the path from items to a table."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from tiny import tiny_model

from limo_nb import evaluation, profiles
from limo_nb.evaluation import (
    RESULTS,
    accuracy,
    benchmark_items,
    difference,
    evaluate,
    grade_answers,
    majority_vote,
    pass_at_k,
    table,
    wilson,
)
from limo_nb.profiles import EngineSettings, EvaluationSettings, Sampling

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def results_of(scores: dict[str, list[list[bool | None]]]) -> Dataset:
    """Rows of results: benchmark → items → samples."""
    rows = [
        {"benchmark": name, "in_domain": name.startswith("in"), "level": 5,
         "id": f"{name}-{item}", "sample": sample, "correct": correct,
         "answer": str(correct), "reason": "", "text": "", "tokens": 3, "finished": True}
        for name, items in scores.items()
        for item, samples in enumerate(items)
        for sample, correct in enumerate(samples)
    ]  # fmt: skip
    return Dataset.from_list(rows, features=RESULTS)


def greedy(right: int, count: int, name: str = "in") -> Dataset:
    """One sample for each of `count` items, the first `right` of them correct."""
    return results_of({name: [[item < right] for item in range(count)]})


PASS_AT_K = [  # n, c, k, value
    (1, 0, 1, 0.0), (1, 1, 1, 1.0), (4, 1, 1, 0.25), (4, 1, 4, 1.0), (4, 2, 2, 5 / 6),
    (10, 3, 5, 1 - 21 / 252), (10, 0, 7, 0.0), (10, 6, 5, 1.0), (200, 13, 1, 13 / 200),
]  # fmt: skip


@pytest.mark.parametrize(("n", "c", "k", "value"), PASS_AT_K)
def test_pass_at_k(n, c, k, value):
    assert pass_at_k(n, c, k) == pytest.approx(value)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 3), (6, 1, 2), (7, 4, 4)])
def test_pass_at_k_is_the_mean_over_all_choices(n, c, k):
    chosen = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(np.mean([any(part) for part in chosen]))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 4, 1), (3, 1, 0), (3, -1, 1)])
def test_undefined_pass_at_k(n, c, k):
    with pytest.raises(ValueError, match="undefined"):
        pass_at_k(n, c, k)


WILSON = [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (20, 40, 0.3520, 0.6480)]


@pytest.mark.parametrize(("right", "count", "low", "high"), WILSON)
def test_wilson_by_the_published_formula(right, count, low, high):
    assert wilson(right, count) == pytest.approx((low, high), abs=1e-4)
    found = accuracy([greedy(right, count)])
    assert found.value == right / count
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_the_bootstrap_has_the_variance_of_the_mean():
    rng = np.random.default_rng(1)
    samples = [[bool(x) for x in row] for row in rng.random((60, 4)) < rng.random((60, 1))]
    found = accuracy([results_of({"in": samples})])
    means = np.mean(samples, axis=1)
    half = 1.96 * means.std(ddof=1) / np.sqrt(60)
    assert found.value == pytest.approx(means.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert found.samples == 4 and found.items == 60


def test_benchmarks_weigh_the_same_whatever_their_size():
    scores = {"in a": [[True]] * 10, "out b": [[False]] * 90 + [[True]] * 10}
    assert accuracy([results_of(scores)]).value == pytest.approx((1.0 + 0.1) / 2)


@pytest.mark.parametrize("right", [0, 30])
def test_equal_outcomes_do_not_give_a_point(right):
    found = accuracy([greedy(right, 30)] * 3)
    assert found.high - found.low == pytest.approx(wilson(0, 30)[1])


def test_what_is_not_verified_or_cut_off_is_counted():
    rows = results_of({"in": [[True], [None], [False], [False]]}).to_list()
    rows[3]["finished"] = False
    found = accuracy([Dataset.from_list(rows, features=RESULTS)])
    assert (found.value, found.unverifiable, found.truncated) == (0.25, 1, 1)


def simulated(rng: np.random.Generator, seeds: int, items: int) -> list[Dataset]:
    """Items of random difficulty, answered by models whose seeds differ; mean 1/2."""
    hard = rng.normal(0, 1, items)
    skill = rng.normal(0, 0.3, seeds)
    return [
        results_of({"in": [[bool(x)] for x in rng.normal(s, 1, items) > hard]}) for s in skill
    ]


def test_coverage_with_three_seeds():
    rng, hits, runs = np.random.default_rng(7), 0, 60
    for _ in range(runs):
        found = accuracy(simulated(rng, 3, 30))
        hits += found.low <= 0.5 <= found.high
    assert hits / runs >= 0.88  # 0.98 in 150 runs with 40 items; one seed alone has 0.86


def test_paired_differences_are_narrower_than_unpaired():
    rng = np.random.default_rng(3)
    base = [[bool(x)] for x in rng.random(80) < 0.5]
    better = [[was or bool(more)] for (was,), more in zip(base, rng.random(80) < 0.2)]  # noqa: B905
    a, b = [results_of({"in": better})], [results_of({"in": base})]
    found, one, other = difference(a, b), accuracy(a), accuracy(b)
    assert found.value == pytest.approx(one.value - other.value)
    assert found.low > 0
    assert found.high - found.low < np.hypot(one.high - one.low, other.high - other.low)
    assert difference(b, a).value == pytest.approx(-found.value)


def test_no_difference_is_not_certain():
    found = difference([greedy(10, 30)], [greedy(10, 30)])
    assert found.value == 0 and found.low == pytest.approx(-found.high) and found.high > 0.05


def test_an_untuned_model_is_paired_with_every_seed():
    found = difference([greedy(20, 30), greedy(25, 30), greedy(22, 30)], [greedy(5, 30)])
    assert found.value == pytest.approx((20 + 25 + 22) / 90 - 5 / 30)
    assert found.seeds == 3 and found.low < found.value < found.high


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="3 and 2 seeds cannot be paired"):
        difference([greedy(1, 3)] * 3, [greedy(1, 3)] * 2)
    with pytest.raises(ValueError, match="not over the same items: in/in-3 differs"):
        difference([greedy(1, 3)], [greedy(1, 4)])
    with pytest.raises(ValueError, match="no results"):
        accuracy([])


def test_estimates_repeat_and_do_not_depend_on_row_order():
    rows = results_of({"in a": [[True], [False]] * 9, "out b": [[True], [False]] * 5})
    turned = rows.select(range(len(rows) - 1, -1, -1))
    assert accuracy([rows, rows]) == accuracy([turned, turned])


def test_table_has_a_row_for_each_group():
    scores = {"in a": [[True]] * 4, "in b": [[False], [True]], "out c": [[False]] * 3}
    rows = table({"LIMO": [results_of(scores)] * 3})
    values = {row["group"]: row["accuracy"] for row in rows}
    assert values == {
        "in a": 1.0, "in b": 0.5, "out c": 0.0,
        "in domain": 0.75, "out of domain": 0.0, "all": 0.5,
    }  # fmt: skip
    assert set(rows[0]) == {
        "model", "group", "accuracy", "low", "high", "items", "samples", "seeds",
        "unverifiable", "truncated",
    }  # fmt: skip
    single = table({"base": [results_of({"in a": [[True], [False]]})]})
    assert [row["group"] for row in single] == ["in a"]


VOTES = [  # answers with their verdicts, votes, the winner's verdict
    ("3+ 3+ 7-", 3, True), ("3+ 7- 7-", 3, False), ("7- 3+ 3+", 2, False),
    ("7- 3+", 2, False), ("", 1, False), ("0 3+ 0", 3, True),
]  # fmt: skip


@pytest.mark.parametrize(("spelled", "votes", "correct"), VOTES)
def test_majority_vote(spelled, votes, correct):
    rows = results_of({"in": [[False] * max(1, len(spelled.split()))]}).to_list()
    for row in rows:
        row["answer"] = None
    for row, word in zip(rows, spelled.split(), strict=False):
        row["answer"], row["correct"] = (
            (None, False) if word == "0" else (word[0], word[1] == "+")
        )
    voted = majority_vote(Dataset.from_list(rows, features=RESULTS), votes)
    assert len(voted) == 1 and voted[0]["correct"] is correct


# ---------------------------------------------------------------- from items to results
def test_lab_items():
    items = benchmark_items(profiles.load("smoke").evaluation)
    assert len(set(items["benchmark"])) == 10 and len(items) == 40
    assert len(set(items["id"])) == 40


def test_real_items_need_the_folder(monkeypatch):
    settings = profiles.load("smoke").evaluation.model_copy(update={"benchmarks": ("aime",)})
    monkeypatch.delenv("LIMO_NB_DATA", raising=False)
    with pytest.raises(ValueError, match="LIMO_NB_DATA"):
        benchmark_items(settings)


def test_cut_off_answers_are_wrong_even_if_they_hold_the_answer():
    items = benchmark_items(profiles.load("smoke").evaluation).select([0])
    right = rf"\boxed{{{items['answer'][0]}}}"
    answers = [
        {"id": items["id"][0], "sample": n, "text": right, "tokens": 5, "finished": not n}
        for n in range(2)
    ]
    graded = grade_answers(items, Dataset.from_list(answers))
    assert list(graded["correct"]) == [True, False]
    assert list(graded["reason"]) == ["same", "truncated"]


def test_a_model_is_evaluated(tmp_path):
    model = str(tiny_model(tmp_path / "model"))
    items = benchmark_items(profiles.load("smoke").evaluation).select(range(0, 40, 8))
    sampling = Sampling(samples=2, temperature=1.0, max_new_tokens=8)
    engine = EngineSettings(dtype="float32", batch_size=4)
    results = evaluate(model, items, sampling, engine, "Be brief.", tmp_path)
    assert results.features == RESULTS and len(results) == 10
    assert {row["group"] for row in table({"tiny": [results]})} > {"all"}
    again = evaluate(model, items, sampling, engine, "Be brief.", tmp_path)
    assert again.to_list() == results.to_list()


# ---------------------------------------------------------------- real data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not beside the repository")
def test_real_items_and_recorded_outputs(monkeypatch):
    monkeypatch.setenv("LIMO_NB_DATA", str(SHARED))
    settings = EvaluationSettings(
        benchmarks=("aime", "gpqa", "lab"), items=33, sampling=Sampling(),
        votes=Sampling(samples=2, temperature=1.0),
    )  # fmt: skip
    items = benchmark_items(settings)
    assert len(items) == 30 + 33 + 330
    agreement = evaluation.recorded_agreement(SHARED)
    assert agreement.outputs == 5276
    assert agreement.share >= 0.999, agreement.disagreements[:5]
    assert len(agreement.disagreements) == agreement.outputs - agreement.agreeing
