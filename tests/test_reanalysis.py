"""What other limits, votes, graders and estimators make of the same completions."""

import numpy as np
import pytest
from datasets import Dataset
from graded import answers, samples

from limo_nb.core.runs import Artifact
from limo_nb.evaluation import RESULTS, accuracy
from limo_nb.experiments import reanalysis


@pytest.mark.parametrize(
    ("limit", "right", "cut"),
    [
        (1, [False, False, False], 3),
        (4, [False, False, False], 3),  # four tokens and the end token need five places
        (5, [True, False, False], 2),
        (10, [True, False, None], 0),
        (99, [True, False, None], 0),
    ],
)
def test_cut_is_what_a_smaller_limit_would_leave(limit, right, cut) -> None:
    shorter = reanalysis.cut(answers([4, 9, 9], [True, False, None]), limit)
    assert list(shorter["correct"]) == right
    assert list(shorter["finished"]).count(False) == cut
    assert max(shorter["tokens"]) <= limit
    assert shorter.features == RESULTS


def test_accuracy_never_falls_with_a_larger_limit() -> None:
    rng = np.random.default_rng(0)
    table = answers(rng.integers(1, 60, 40).tolist(), (rng.random(40) < 0.6).tolist())
    values = [accuracy([reanalysis.cut(table, n)]).value for n in range(1, 64, 3)]
    assert values == sorted(values) and values[0] == 0 < values[-1]


@pytest.mark.parametrize(
    ("answers", "votes", "right"),
    [
        ("aab", 1, [True, True, False]),  # one voter: the sample itself
        ("aab", 3, [True, True, True]),
        ("abc", 2, [True, False, False]),  # ties go to the first voter
        ("a--", 2, [True, False, True]),  # samples without an answer do not vote
        ("bba", 3, [False, False, False]),
    ],
)
def test_votes_are_taken_from_every_run_of_neighbours(answers, votes, right) -> None:
    table = Dataset.from_list(samples(answers, "x y"), features=RESULTS)
    winners = reanalysis.voted(table, votes)
    assert list(winners["correct"]) == right
    assert list(winners["sample"]) == [0, 1, 2] and set(winners["id"]) == {"x y"}


def test_one_voter_has_the_accuracy_of_a_sample() -> None:
    rows = samples("aabc", "1") + samples("cbba", "2") + samples("aaaa", "3")
    table = Dataset.from_list(rows, features=RESULTS)
    one, single = (accuracy([t]) for t in (reanalysis.voted(table, 1), table))
    assert one == single


def test_loaded_tables_are_one_sample_of_items(tmp_path) -> None:
    rows = samples("a", "1") + [{**row, "benchmark": "c"} for row in samples("b", "2")]
    table = Dataset.from_list(rows, features=RESULTS)
    table.to_parquet(str(tmp_path / "greedy.parquet"))
    loaded = reanalysis.pooled_tables(Artifact(tmp_path, {}))
    assert set(loaded) == {"greedy"} and set(loaded["greedy"]["benchmark"]) == {"all"}
    # Drawn within its benchmark, a single item would be certain.
    estimate = accuracy([loaded["greedy"]])
    assert estimate.value == 0.5 and estimate.low < 0.2 and estimate.high > 0.8


# ---------------------------------------------------------------- graders, estimators
REFERENCES = {"a": "7", "b": "1/2"}


def sampled(rows: list[tuple[str, int, str, bool | None, bool]]) -> Dataset:
    made = [
        {"benchmark": "all", "in_domain": True, "level": 1, "id": name, "sample": sample,
         "correct": correct, "answer": None, "reason": "", "text": text, "tokens": 3,
         "finished": finished}
        for name, sample, text, correct, finished in rows
    ]  # fmt: skip
    return Dataset.from_list(made, features=RESULTS)


TEXTS = sampled(
    [
        ("a", 0, r"\boxed{7}", True, True),
        ("a", 1, "The answer is 7.", True, True),
        ("a", 2, r"3+4=7, so \boxed{8}", False, True),
        ("a", 3, r"3+4=7, and then", False, False),
        ("b", 0, r"\boxed{\frac12}", True, True),
        ("b", 1, r"\boxed{0.5}", True, True),
        ("b", 2, r"\boxed{1/2}", True, True),
        ("b", 3, r"\boxed{3}", None, True),
    ]
)


@pytest.mark.parametrize(
    ("grader", "right"),
    [
        ("no box, no answer", [1, 0, 0, 0, 1, 1, 1, 0]),
        ("the same text", [1, 1, 0, 0, 0, 0, 1, 0]),
        ("mentioned anywhere", [1, 1, 1, 1, 0, 0, 1, 0]),
    ],
)
def test_graders_differ_where_they_should(grader: str, right: list[int]) -> None:
    again = reanalysis.regraded(TEXTS, REFERENCES, grader)
    assert list(again["correct"]) == [bool(value) for value in right]
    assert list(again["text"]) == list(TEXTS["text"]) and again.features == TEXTS.features


def test_any_right_takes_one_row_an_item_and_is_pass_at_n() -> None:
    rows = sampled(
        [("a", 0, "", False, True), ("a", 1, "", True, True),
         ("b", 0, "", None, True), ("b", 1, "", False, True)]
    )  # fmt: skip
    best = reanalysis.any_right(rows)
    assert list(best["id"]) == ["a", "b"] and list(best["sample"]) == [1, 0]
    value = accuracy([best]).value
    assert value == accuracy([rows], k=2).value == 0.5


def test_single_runs_average_to_the_accuracy_of_all_samples() -> None:
    runs = reanalysis.single_runs(TEXTS)
    assert runs == [1.0, 1.0, 0.5, 0.0]
    assert sum(runs) / 4 == pytest.approx(accuracy([TEXTS]).value)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_first_samples_are_the_runs_that_would_have_come_first(k: int) -> None:
    turned = TEXTS.select(range(len(TEXTS) - 1, -1, -1))
    few = reanalysis.first_samples(turned, k)
    assert [(row["id"], row["sample"]) for row in few] == [
        (name, sample) for name in "ba" for sample in range(k)
    ]
    value = accuracy([few]).value
    assert value == pytest.approx(sum(reanalysis.single_runs(TEXTS)[:k]) / k)


@pytest.mark.parametrize("k", [0, 5])
def test_samples_that_are_not_there(k: int) -> None:
    with pytest.raises(ValueError, match=f"{k} samples of each item .* there are 4"):
        reanalysis.first_samples(TEXTS, k)
