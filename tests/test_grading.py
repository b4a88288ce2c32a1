"""Verdicts: which span is the answer, what counts as equal, tolerance, agreement."""

import time
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from limo_nb import lab
from limo_nb.grading.answers import READERS, REMARKS, read
from limo_nb.grading.canonical import REWRITES, clean
from limo_nb.grading.equivalence import quick_match
from limo_nb.grading.extraction import BOXED, SAID, final_answer
from limo_nb.grading.latex import WHOLE
from limo_nb.grading.numbers import number
from limo_nb.grading.structure import (
    brackets,
    split,
)
from limo_nb.grading.units import conversion, unit_of
from limo_nb.grading.verdicts import (
    Verdict,
    agreement,
    grade,
    grade_many,
)

FORMS = yaml.safe_load((Path(__file__).parent / "grading_cases.yaml").read_text("utf-8"))
CASES = [case for cases in FORMS.values() for case in cases]

ANSWERS = [  # response, its answer
    (r"So \boxed{3}.", "3"),
    (r"\boxed{17}? No. Recomputing: \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"<think>\boxed{4}</think> It is \boxed{5}.", "5"),
    (r"<think>\boxed{4}", None),
    (r"<think>a</think> \boxed{1} <think>b</think> none", None),
    (r"\boxed{1} and then \boxed{2", "1"),
    (r"\boxed{{42}", None),
    (r"\boxed{}", None),
    (r"x \boxed{\{1, 2\}} y", r"\{1, 2\}"),
    (r"$\boxed{-2} \quad \text{and} \quad \boxed{1}$", "-2, 1"),
    (r"\boxed{42} \boxed{41}", "41"),
    (r"\boxed{\boxed{42}}", r"\boxed{42}"),
    (r"\begin{boxed}42\end{boxed}", "42"),
    ("Sum.\n#### 1,200", "1,200"),
    ("Sum.\nA: 18", "18"),
    ("The answer is $x+1$. Good.", "x+1"),
    ("The answer is 3. Wait, the answer is 4.", "4"),
    ("Final Answer: The largest $n$ is 34.", "34"),
    ("**Answer:** B", "B"),
    ("答案是 7。", "7"),
    ("Thus $a=1$ and hence $b=2$", "b=2"),
    ("The final answer: the tallest of them has 34 leaves.", "34"),
    ("So $a = 2$. Therefore, the chance that it rains is 2/3. I hope it is right.", "2/3"),
    ("We get $x$. Thus there are 12 such lists.", "12"),
    ("The price is not 10, it is 1,000.99m²", "1,000.99m²"),
    ("Let me think.\n\nC", "C"),
    (r"so \boxed 5.", "5"),
    ("Suppose first that the case n = 2 holds; then", None),
    (r"\boxed{1}、\boxed{2}", "1, 2"),
    (r"\boxed{1}，\boxed{2}", "1, 2"),
    (r"$x_1=\boxed{1}$, $x_2=\boxed{2}$", "1, 2"),
    (r"\boxed{1} was wrong, and so the value is \boxed{2}", "2"),
    ("故选B.", "B"),
    ("故选：B．", "B"),
    ("答案选B", "B"),
    ("综上，共有 42 种。", "42"),
    ("So the correct option is B.", "B"),
    ("The answer is (B) because A is wrong.", "B"),
    ("<answer>42</answer>", "42"),
    ("Nothing is said here", None),
    ("", None),
]


@pytest.mark.parametrize(("response", "answer"), ANSWERS)
def test_final_answer(response, answer):
    assert final_answer(response) == answer


@pytest.mark.parametrize(("response", "answer"), ANSWERS)
def test_what_has_no_box_can_be_left_out(response, answer):
    boxed = "boxed" in response and answer is not None
    assert final_answer(response, boxed_only=True) == (answer if boxed else None)
    if not boxed:
        assert grade("34", response, boxed_only=True).reason == "no answer"


@pytest.fixture(scope="module")
def verdicts():
    responses = [f"Let us see.\nSo it is \\boxed{{{answer}}}." for _, answer, _ in CASES]
    return grade_many([reference for reference, _, _ in CASES], responses)


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{r}|{a}" for r, a, _ in CASES])
def test_verdicts(verdicts, case):
    assert verdicts[case].correct is CASES[case][2], verdicts[case]


NUMBERS = ["", ".", "-", "1/0", r"\frac{1}{0}", "1e9999", "9" * 500, "1..2", "12 34", "x"]


@pytest.mark.parametrize("text", NUMBERS)
def test_what_is_no_number(text):
    assert number(text) is None


def test_cleaning_is_idempotent():
    for reference, answer, _ in CASES:
        for text in (reference, answer):
            assert clean(clean(text)) == clean(text), text


STATED = yaml.safe_load((Path(__file__).parent / "stated_answers.yaml").read_text("utf-8"))
RESPONSES = [case for cases in STATED.values() for case in cases]


@pytest.fixture(scope="module")
def stated():
    return grade_many([r for r, _, _ in RESPONSES], [text for _, text, _ in RESPONSES])


@pytest.mark.parametrize("case", range(len(RESPONSES)), ids=[t[:40] for _, t, _ in RESPONSES])
def test_stated_answers(stated, case):
    assert stated[case].correct is RESPONSES[case][2], stated[case]


FAR = [
    ("57", "The answer is 57. " + "This was checked again and it holds. " * 150),
    ("57", "Sum.\n#### 57\n" + "Some words follow here. " * 250),
    ("B", "**Answer:** B\n\n" + "A remark. " * 600),
]


@pytest.mark.parametrize(("reference", "response"), FAR, ids=["phrase", "line", "heading"])
def test_an_announced_answer_may_be_far_from_the_end(reference, response):
    assert grade(reference, response).correct is True


SPELLINGS = [*REWRITES, *WHOLE, *REMARKS]


@pytest.mark.parametrize("rule", SPELLINGS, ids=[rule.name for rule in SPELLINGS])
def test_every_rewrite_does_what_its_example_says(rule):
    assert rule(rule.before) == rule.after


@pytest.mark.parametrize("rule", [*BOXED, *SAID], ids=[rule.name for rule in (*BOXED, *SAID)])
def test_every_rule_finds_the_answer_of_its_example(rule):
    assert rule.find(rule.example) == rule.answer == final_answer(rule.example)


@pytest.mark.parametrize(("reader", "example"), READERS, ids=[r.__name__ for r, _ in READERS])
def test_every_reader_reads_its_example(reader, example):
    assert read(example) == reader(example) is not None


UNIT_PAIRS = [  # of one unit, how many of the other it takes
    ("km", "m", Fraction(1, 1000)), ("m/s", "km/h", Fraction(5, 18)), ("cm", "cm^2", 1),
    ("cm^2", "cm^3", None), ("h", "min", Fraction(1, 60)), ("N", "kg m/s^2", 1),
    ("kg", "m", None), ("dollars", "cents", None), ("", "kg", 1), ("apples", "kg", 1),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "rate"), UNIT_PAIRS)
def test_units_are_converted(one, other, rate):
    assert conversion(unit_of(one), unit_of(other)) == rate


SPLITS = [  # text, brackets around the whole, parts
    ("1,2", "", ["1", "2"]), ("(1,2)", "()", ["1", "2"]), ("(1,2]", "(]", ["1", "2"]),
    (r"\{1,(2,3)\}", "{}", ["1", "(2,3)"]), ("(1,2),(3,4)", "", ["(1,2)", "(3,4)"]),
    (r"x=1\text{or}x=2", "", ["x=1", "x=2"]), (r"\frac{1,000}{2}", "", [r"\frac{1,000}{2}"]),
    ("", "", []), ("((", "", ["(("]), ("1)", "", ["1)"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "shape", "parts"), SPLITS)
def test_brackets_and_parts(text, shape, parts):
    found, inner = brackets(text)
    assert (found, split(inner)) == (shape, parts)


TOLERANT = [  # reference, answer, tolerance, verdict
    ("3.14", "3.1", 0.0, False), ("3.14", "3.1", 0.02, True), ("3.14", "3.2", 0.01, False),
    ("4.5e33", "4.4e33", 0.05, True), ("4.5e33", "4.0e33", 0.05, False),
    ("4.5e-9", r"4.46 \times 10^{-9}", 0.01, True), ("100", "101", 0.05, False),
    ("27.0", "27.1", 0.05, False), (r"\sqrt{2}", "1.414", 0.01, True),
    (r"\sqrt{2}", "1.414", 0.0, False), ("0.33", r"\frac{1}{3}", 0.02, True),
    ("(1.5, 2.5)", "(1.49, 2.51)", 0.01, True), ("-3.0e8", "3.0e8", 0.5, False),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "answer", "tolerance", "verdict"), TOLERANT)
def test_tolerance_is_relative_and_spares_integers(reference, answer, tolerance, verdict):
    assert grade(reference, rf"\boxed{{{answer}}}", tolerance).correct is verdict


def test_each_row_may_have_its_tolerance():
    found = grade_many(["3.14"] * 2, [r"\boxed{3.1}"] * 2, tolerance=[0.0, 0.05])
    assert [v.correct for v in found] == [False, True]


def test_agreement_with_labels():
    made = [Verdict(correct, "1", "") for correct in (True, True, False, None, False)]
    found = agreement(made, [True, False, True, True, None])
    assert found == {
        "items": 5, "correct": 2, "wrong": 2, "unverifiable": 1, "labelled": 4,
        "accuracy": 0.25, "false_positives": 1.0, "false_negatives": 0.333333,
    }  # fmt: skip
    assert "accuracy" not in agreement(made, [None] * 5)


REFERENCES = [
    (42, "42"), ([35, 68], "35, 68"), ([35, 68], "68, 35"), ([35, 68], "[35, 68]"),
    ([[1, 2], [3, 4]], r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (27.0, "27"), ({"a": 1}, "a = 1"), (0.5, r"\frac12"),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "answer"), REFERENCES)
def test_a_reference_need_not_be_text(reference, answer):
    assert grade(reference, rf"\boxed{{{answer}}}").correct is True


GAPS = [" ", "$", ",", r"\quad ", r"\,", " and ", "x_", "{}", r"\text{ ", "a=", "，"]


@pytest.mark.parametrize("gap", GAPS)
def test_reading_takes_linear_time(gap):
    text = rf"\boxed{{1}}{gap * 50_000}x\boxed{{2}}"
    started = time.process_time()
    assert final_answer(text) == "2"
    assert time.process_time() - started < 1


@pytest.mark.parametrize("piece", [*GAPS, "1", "1,", "(", "1 ", "B ", "is ", "answer ", "天"])
def test_rules_take_little_time_on_long_answers(piece):
    text = rf"\boxed{{{piece * (1900 // len(piece))}x}}"
    started = time.process_time()
    for reference in ("42", "B", "5 cm", "(1,2)", "甲"):
        answer = final_answer(text)
        assert not answer or quick_match(reference, clean(answer)) is not True
    assert time.process_time() - started < 2


def test_no_reference_is_not_verifiable():
    assert grade(" ", r"\boxed{3}").correct is None


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 references for 1 responses"):
        grade_many(["1", "2"], ["1"])


def test_ten_thousand_lab_answers_need_no_worker():
    rows = lab.pool(1000, 3) * 10
    wrong = rows[1:] + rows[:1]
    texts = [rf"1) 7+4=1.\nSo the answer is \boxed{{{row['answer']}}}" for row in wrong]
    started = time.process_time()
    verdicts = grade_many([row["answer"] for row in rows], texts)
    assert time.process_time() - started < 10
    assert {verdict.reason for verdict in verdicts} == {"same", "different"}
    for row, other, verdict in zip(rows, wrong, verdicts, strict=True):
        assert verdict.correct is (row["answer"] == other["answer"])
