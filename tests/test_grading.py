"""Verdicts: which span is the answer, what counts as equal, and isolation."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from limo_nb import grading, lab, problems
from limo_nb.grading import Verdict, clean, final_answer, grade, grade_many, number

SHARED = Path(__file__).resolve().parents[2] / "shared"
real = pytest.mark.skipif(
    not SHARED.is_dir(),
    reason="the labelled pairs and benchmarks are not beside the repository",
)

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
    ("Nothing is said here", None),
    ("", None),
]


@pytest.mark.parametrize(("response", "answer"), ANSWERS)
def test_final_answer(response, answer):
    assert final_answer(response) == answer


# reference, boxed answer, wanted verdict
CASES = [
    # the lab's kinds of answers
    ("3", "3", True), ("3", "7", False), ("42", "42.", True), ("42", "4 2", False),
    ("Sep", "sep", True), ("Sep", "Oct", False), ("white", r"\text{white}", True),
    ("red", "der", False),  # as a product of letters they would be equal
    ("(3,7)", "(3, 7)", True), ("(3,7)", "(7,3)", False), ("(3,7)", "3,7", True),
    ("(3,7)", "7,3", False), ("(3,7)", "37", False),
    ("B A C D", "B A C D", True), ("B A C D", "B, A, C, D", True),
    ("B A C D", "A B C D", False), ("B A C D", "BACD", False), ("A C", "C A", False),
    ("B", "B", True), ("B", "C", False), ("B", "2", False),
    # numbers
    ("1000", "1,000", True), ("1000", "1 000.0", True), ("1000", "1,001", False),
    (r"10,\!080", "10080", True), ("0.4", ".4", True), ("0.5", r"\frac{1}{2}", True),
    (r"\frac{10}{9}", "10/9", True), (r"\dfrac{1}{2}", r"\tfrac12", True),
    (r"1\frac{4}{5}", "1 4/5", True), (r"1\frac{4}{5}", "9/5", True),
    (r"1\frac{4}{5}", "14/5", False), ("4.5e33", r"4.5 \times 10^{33}", True),
    ("5.3e-9", "5.2e-9", False),  # equal to six decimals
    ("2.04", "204", False), ("10%", "10", True), ("10%", "0.1", True), ("10%", "1", False),
    ("90", r"90^\circ", True), ("15", r"15\text{ cm}^2", True), ("9", "9 个", True),
    ("78", "x = 78", True), ("-1", "−1", True), ("42", "𝟒𝟐", True), ("42", "4\u200b2", True),
    ("16", r"16 \text{ or } 18", False), ("42", "42, 43, 44", False), ("1/3", "0.3", False),
    # letters with text
    ("A", r"\text{(A)}", True), ("A", "Option A", True), ("A", r"\text{A. } 7", True),
    ("A", "A, B", False), ("A", r"\text{not } A", False),
    ("C. 1-i", "C", True), ("C. 1-i", "1 - i", True), ("C. 1-i", "B", False),
    # lists, sets, intervals
    ("1, 2, 3", r"\{3, 2, 1\}", True), ("1, 2, 3", "1, 2, 4", False),
    ("1,-2", "x = 1, x = -2", True), ("(1,2]", "[1,2]", False), ("(1,2]", "(1,2]", True),
    (r"x \in [-2,7]", r"-2 \le x \le 7", True), (r"(2,\infty)", "(2,∞)", True),
    # algebra
    ("x^2+2x+1", "(x+1)^2", True), ("x^2+2x+1", "(x+2)^2", False),
    (r"\sqrt{8}", r"2\sqrt{2}", True), ("x=5", "5", True), ("x < 3", "3 > x", True),
    ("360 = 2^3 * 3^2 * 5", "2^3 * 3^2 * 5 = 360", True),
    ("360 = 2^3 * 3^2 * 5", "360 = 2^3 * 3^3 * 5", False),
    (r"\begin{pmatrix} 1/2 \\ 3 \end{pmatrix}", r"\begin{pmatrix}.5 \\ 3\end{pmatrix}", True),
    # Chinese
    ("充要条件", r"\text{充要条件。}", True), ("不存在", "存在", False),
    # no answer at all
    ("42", "", False), ("42", "?", False), ("42", r"\text{...}", False), ("0", "0/0", False),
]  # fmt: skip


@pytest.fixture(scope="module")
def verdicts():
    references = [reference for reference, _, _ in CASES]
    responses = [f"Let us see.\nSo it is \\boxed{{{answer}}}." for _, answer, _ in CASES]
    return grade_many(references, responses)


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


def test_no_reference_is_not_verifiable():
    assert grade(" ", r"\boxed{3}").correct is None


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 references for 1 responses"):
        grade_many(["1", "2"], ["1"])


# ---------------------------------------------------------------- isolation
BOMBS = [r"\boxed{9^{9^{9^{9}}}}", r"\boxed{(10^{6})!}", r"\boxed{\prod_{k=1}^{10^{9}} k}"]


def test_what_hangs_is_killed_and_spares_its_neighbours():
    references = ["42", "x+1"] * 3
    responses = [text for bomb in BOMBS for text in (bomb, r"\boxed{1+x}")]
    verdicts = grade_many(references, responses, seconds=0.5)
    assert [v.correct for v in verdicts[1::2]] == [True] * 3
    assert all(v.correct is not True for v in verdicts[0::2])
    assert "out of time" in {v.reason for v in verdicts[0::2]}


def test_model_text_is_never_executed(tmp_path):
    target = tmp_path / "executed"
    command = f"__import__('os').system('touch {target}')"
    attacks = [
        command, f"eval(\"{command}\")", rf"\text{{{command}}}", f"S(\"{command}\")",
        f"(lambda: {command})()", f"x = {command}", f"1, {command}",
    ]  # fmt: skip
    verdicts = grade_many(["42"] * len(attacks), [rf"\boxed{{{a}}}" for a in attacks])
    assert not any(v.correct for v in verdicts) and not target.exists()


def test_long_and_deep_responses_end():
    deep = r"\frac{1}{1+" * 300 + "1" + "}" * 300
    texts = [r"\boxed{" * 20_000, "}" * 100_000, "$" * 100_000, rf"\boxed{{{deep}}}",
             r"\boxed{" + "1+" * 20_000 + "1}", "answer is " * 20_000, "$1$ " * 50_000,
             r"\boxed{" + "{" * 50_000]  # fmt: skip
    started = time.process_time()
    verdicts = grade_many(["42"] * len(texts), texts, seconds=1.0)
    assert not any(v.correct for v in verdicts)
    assert time.process_time() - started < 20


def test_grading_from_a_thread():
    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.append(grade("x/2", r"\boxed{0.5x}")))
    thread.start()
    thread.join()
    assert found == [Verdict(True, "0.5x", "equivalent")]


def test_a_script_needs_no_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\nfrom limo_nb.grading import grade\n"
        r"print(grade('x/2', r'\boxed{0.5x}').correct)"
    )
    path = str(Path(grading.__file__).parent.parent)
    found = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert found.stdout.split() == ["once", "True"], found.stderr


def test_workers_do_not_load_torch():
    code = "import sys, limo_nb.grading, math_verify; print('torch' in sys.modules)"
    path = str(Path(grading.__file__).parent.parent)
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert found.stdout.strip() == "False", found.stderr


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


# ---------------------------------------------------------------- real data
@real
def test_every_reference_grades_itself_correct():
    items = problems.real_benchmarks(SHARED / "data")
    verdicts = grade_many(
        items["answer"], [f"Therefore \\boxed{{{answer}}}." for answer in items["answer"]]
    )
    wrong = [i for i, v in zip(items["id"], verdicts, strict=True) if v.correct is not True]
    assert wrong == []


@real
def test_a_constant_answer_scores_about_zero():
    items = problems.real_benchmarks(SHARED / "data")
    right = sum(grading.settle(clean(answer), "123456") is True for answer in items["answer"])
    assert right == 0


def labelled() -> list[dict]:
    lines = (SHARED / "grader" / "pairs.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line.strip()]


@real
def test_labelled_pairs():
    pairs = labelled()[::4]  # a quarter, in two dozen categories; all of them in test-slow
    verdicts = grade_many([p["gold"] for p in pairs], [p["response"] for p in pairs])
    agreeing = sum(v.correct == p["label"] for p, v in zip(pairs, verdicts, strict=True))
    assert agreeing / len(pairs) >= 0.98


@real
@pytest.mark.slow
def test_all_labelled_pairs():
    pairs = labelled()
    verdicts = grade_many([p["gold"] for p in pairs], [p["response"] for p in pairs])
    both = list(zip(pairs, verdicts, strict=True))
    agreeing = sum(v.correct == p["label"] for p, v in both)
    assert agreeing / len(pairs) >= 0.985
    assert not [p["id"] for p, v in both if v.correct and not p["label"]]


@real
@pytest.mark.slow
def test_hostile_responses():
    lines = (SHARED / "grader" / "hostile.jsonl").read_text("utf-8").split("\n")
    cases = [json.loads(line) for line in lines if line.strip()]
    verdicts = grade_many(
        [c["gold"] for c in cases], [c["response"] for c in cases], seconds=2.0
    )
    missed = {
        case["id"]
        for case, verdict in zip(cases, verdicts, strict=True)
        if "want" in case and verdict.correct is not case["want"]
    }
    # math-verify reads i as a real symbol unless the answer is written as a complex number.
    assert missed == {"h146"}
