"""The grader on real data: labelled pairs, references against themselves, constants."""

import json
from pathlib import Path

import pytest

from limo_nb.evaluation import benchmarks
from limo_nb.grading.canonical import clean
from limo_nb.grading.equivalence import target
from limo_nb.grading.verdicts import (
    agreement,
    grade_many,
)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="labelled pairs and benchmarks are not beside the repository"
)


@pytest.fixture(scope="module")
def items():
    return benchmarks.real_benchmarks(SHARED / "data")


def labelled(name: str = "pairs") -> list[dict]:
    lines = (SHARED / "grader" / f"{name}.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line.strip()]


def measured(pairs: list[dict]) -> dict:
    verdicts = grade_many([p["gold"] for p in pairs], [p["response"] for p in pairs])
    return agreement(verdicts, [p["label"] for p in pairs])


def test_every_reference_grades_itself_correct(items):
    verdicts = grade_many(
        items["answer"], [f"Therefore \\boxed{{{answer}}}." for answer in items["answer"]]
    )
    wrong = [i for i, v in zip(items["id"], verdicts, strict=True) if v.correct is not True]
    assert wrong == []


@pytest.mark.parametrize("constant", ["123456", "0", "1", "2", "A", "C", r"\frac{1}{2}"])
def test_a_constant_answer_scores_its_true_share(items, constant):
    """No reference is taken for the constant but those that write it."""
    references = items["answer"]
    verdicts = grade_many(references, [rf"\boxed{{{constant}}}"] * len(references))
    taken = {r for r, v in zip(references, verdicts, strict=True) if v.correct}
    assert all(_writes(reference, constant) for reference in taken), taken


def _writes(reference: str, constant: str) -> bool:
    bare = target(clean(reference), clean(constant)).rpartition("=")[2].strip("() .:+")
    same = {clean(constant), clean(constant) + ".0", clean(constant) + "%"}
    equal = {"\\frac{1}{2}": {"1/2", "0.5", ".5", "\\frac12", "\\frac{1}{2}"}}
    spoken = bare.split("^\\circ")[0].split("\\text")[0].split("\\mbox")[0].strip()
    return spoken in same | equal.get(constant, set())


def test_labelled_pairs():
    found = measured(labelled()[::4])  # a quarter, in two dozen categories; all: test-slow
    assert found["accuracy"] >= 0.985 and found["false_positives"] <= 0.005


def test_labelled_rows_of_hard_kinds():
    found = measured(labelled("kinds"))
    assert found["accuracy"] >= 0.98 and found["false_positives"] <= 0.005


@pytest.mark.slow
def test_all_labelled_pairs():
    found = measured(labelled())
    assert found["accuracy"] >= 0.996 and found["false_positives"] == 0
