"""Chains from attempts: which are kept, with what, and from several teachers."""

import pytest
from datasets import Dataset
from test_chain_scoring import BARE, LAB

from limo_nb.chains import choice, collection, scoring
from limo_nb.chains.measures import first_right, measure_chain
from limo_nb.chains.scoring import Scale, score
from limo_nb.inference import token_counter


# ---------------------------------------------------------------- collecting
def problems(*names):
    return Dataset.from_list(
        [
            {
                "id": name, "question": f"What is {name}?", "answer": "6", "solution": "",
                "source": "test", "subject": "dial", "level": 3,
            }
            for name in names
        ]
    )  # fmt: skip


def attempt(name, sample, text, correct=True, finished=True):
    return {
        "id": name, "sample": sample, "text": text, "tokens": len(text),
        "finished": finished, "correct": correct,
    }  # fmt: skip


def test_collect_keeps_different_correct_finished_chains():
    attempts = Dataset.from_list(
        [
            attempt("b", 1, LAB),
            attempt("b", 0, LAB.replace("\n", "\n ") + "\n"),  # the same but for spaces
            attempt("a", 0, BARE),
            attempt("a", 1, LAB + " wrong", correct=False),
            attempt("a", 2, LAB + " unsure", correct=None),
            attempt("a", 3, LAB + " cut", finished=False),
        ]
    )
    found = collection.collect(problems("a", "b"), attempts)
    assert list(zip(found["question_id"], found["sample"], strict=True)) == [("a", 0), ("b", 0)]
    row = found[0]
    assert row["question"] == "What is a?" and row["solution"] == BARE and row["level"] == 3
    assert row["score"] == score(BARE, Scale.of([BARE, LAB])).total
    assert found.column_names == list(collection.Chain.__annotations__)
    assert row["teacher"] == "" and row["truncated"] is False and row["after_answer"] == 0


def test_collect_is_independent_of_order():
    rows = [attempt(n, s, t) for n in "ab" for s, t in enumerate((LAB, BARE))]
    one = collection.collect(problems("a", "b"), Dataset.from_list(rows))
    other = collection.collect(problems("b", "a"), Dataset.from_list(rows[::-1]))
    assert one.to_list() == other.to_list()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([attempt("a", 0, BARE, correct=False)], "no attempt is correct"),
        ([attempt("z", 0, BARE)], "not among the problems"),
    ],
)
def test_collect_says_what_is_wrong(rows, message):
    with pytest.raises(ValueError, match=message):
        collection.collect(problems("a"), Dataset.from_list(rows))


def test_share_behind_the_answer_in_tokens():
    count = token_counter("lab:foundation")
    assert count("12 + 3") > scoring.count_words("12 + 3")  # digits are tokens of their own
    text = "12 + 3 = 15. The answer is \\boxed{15}. Check: 15 - 3 = 12."
    (place,) = first_right([text], ["15"])
    expected = count(" Check: 15 - 3 = 12.") / count(text)
    share = measure_chain(text, place, count=count).after_answer
    assert 0 < share == pytest.approx(expected, abs=0.05)
    attempts = Dataset.from_list([attempt("a", 0, text)])
    asked = problems("a").map(lambda row: {"answer": "15"})
    (row,) = collection.collect(asked, attempts, count=count)
    (graded,), _ = choice.score_rows(
        [{"question": "?", "solution": text, "answer": "15"}], count=count
    )
    assert row["after_answer"] == graded["after_answer"] == share
    assert row["after_answer"] != measure_chain(text, place).after_answer


# ---------------------------------------------------------------- teachers
def taught(answers):
    """`solve` of teachers whose attempts are given, noting the folders that it was handed."""
    folders = []

    def solve(teacher, folder):
        folders.append(folder)
        return Dataset.from_list(answers[teacher])

    return solve, folders


def test_chains_of_several_teachers_compete_for_a_question(tmp_path):
    solve, folders = taught(
        {
            "strong": [attempt("a", 0, LAB), attempt("b", 0, BARE, correct=False)],
            "terse": [attempt("a", 0, BARE), attempt("b", 0, BARE), attempt("a", 1, LAB)],
        }
    )
    attempts = collection.from_teachers(["strong", "terse"], solve, tmp_path)
    assert len(set(folders)) == 2  # each keeps its completions apart
    found = collection.collect(problems("a", "b"), attempts)
    # the same text of two teachers counts once, for the first in alphabetical order
    assert [(r["question_id"], r["teacher"], r["sample"]) for r in found] == [
        ("a", "strong", 0), ("a", "terse", 0), ("b", "terse", 0),
    ]  # fmt: skip
    best = choice.best_per_question(found)
    assert dict(zip(best["question_id"], best["teacher"], strict=True)) == {
        "a": "strong", "b": "terse",
    }  # fmt: skip
    strong, terse = collection.teachers_table(attempts, found, best)
    assert [strong[k] for k in ("samples", "right", "chains", "chosen")] == [2, 1, 1, 1]
    assert [terse[k] for k in ("samples", "right", "chains", "chosen")] == [3, 3, 2, 1]
    assert strong["score"] > terse["score"]


@pytest.mark.parametrize("teachers", [[], ["a", "a"]])
def test_teachers_must_differ(teachers, tmp_path):
    with pytest.raises(ValueError, match="name one or more, each once"):
        collection.from_teachers(teachers, taught({})[0], tmp_path)
