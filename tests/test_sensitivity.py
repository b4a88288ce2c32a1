"""What other graders and estimators make of the same completions."""

from __future__ import annotations

import pytest
from datasets import Dataset

from limo_nb.core import settings
from limo_nb.evaluation import (
    attempts,
    estimates,
)
from limo_nb.experiments import sensitivity

REFERENCES = {"a": "7", "b": "1/2"}


def results(rows: list[tuple[str, int, str, bool | None, bool]]) -> Dataset:
    made = [
        {"benchmark": "all", "in_domain": True, "level": 1, "id": name, "sample": sample,
         "correct": correct, "answer": None, "reason": "", "text": text, "tokens": 3,
         "finished": finished}
        for name, sample, text, correct, finished in rows
    ]  # fmt: skip
    return Dataset.from_list(made, features=attempts.RESULTS)


TEXTS = results(
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
    again = sensitivity.regraded(TEXTS, REFERENCES, grader)
    assert list(again["correct"]) == [bool(value) for value in right]
    assert list(again["text"]) == list(TEXTS["text"]) and again.features == TEXTS.features


def test_any_right_takes_one_row_an_item_and_is_pass_at_n() -> None:
    rows = results(
        [("a", 0, "", False, True), ("a", 1, "", True, True),
         ("b", 0, "", None, True), ("b", 1, "", False, True)]
    )  # fmt: skip
    best = sensitivity.any_right(rows)
    assert list(best["id"]) == ["a", "b"] and list(best["sample"]) == [1, 0]
    value = estimates.accuracy([best]).value
    assert value == estimates.accuracy([rows], k=2).value == 0.5


def test_single_runs_average_to_the_accuracy_of_all_samples() -> None:
    runs = sensitivity.single_runs(TEXTS)
    assert runs == [1.0, 1.0, 0.5, 0.0]
    assert sum(runs) / 4 == pytest.approx(estimates.accuracy([TEXTS]).value)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_first_samples_are_the_runs_that_would_have_come_first(k: int) -> None:
    turned = TEXTS.select(range(len(TEXTS) - 1, -1, -1))
    few = sensitivity.first_samples(turned, k)
    assert [(row["id"], row["sample"]) for row in few] == [
        (name, sample) for name in "ba" for sample in range(k)
    ]
    value = estimates.accuracy([few]).value
    assert value == pytest.approx(sum(sensitivity.single_runs(TEXTS)[:k]) / k)


@pytest.mark.parametrize("k", [0, 5])
def test_samples_that_are_not_there(k: int) -> None:
    with pytest.raises(ValueError, match=f"{k} samples of each item .* there are 4"):
        sensitivity.first_samples(TEXTS, k)


@pytest.mark.parametrize("name", settings.profile_names())
def test_one_thing_at_a_time(name: str) -> None:
    profile = settings.load_profile(name)
    ways = sensitivity.ways(profile)
    assert len(ways) == len(sensitivity.SAMPLED) + len(sensitivity.PROMPTS)
    for prompt in sensitivity.PROMPTS:
        assert ways[prompt][0] != profile.system_prompt
        assert ways[prompt][1] == ways["greedy"][1]
    warm, reference = ways["T 0.6"][1], ways["T 0.7"][1]
    assert warm == reference.model_copy(update={"temperature": 0.6})
    limits = {sampling.max_new_tokens for _, sampling in ways.values()}
    assert limits == {profile.evaluation.sampling.max_new_tokens}
