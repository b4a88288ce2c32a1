"""Model text is never executed, and nothing that it says hangs or harms the caller."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limo_nb.grading import isolation
from limo_nb.grading.canonical import clean
from limo_nb.grading.equivalence import quick_match
from limo_nb.grading.extraction import final_answer
from limo_nb.grading.verdicts import (
    Verdict,
    grade,
    grade_many,
)

HERE = Path(__file__).resolve().parent
GRADER = HERE.parents[1] / "shared" / "grader"
PACKAGE = str(Path(isolation.__file__).parent.parent)
real = pytest.mark.skipif(not GRADER.is_dir(), reason="the grader's data are not there")
BOMBS = [r"\boxed{9^{9^{9^{9}}}}", r"\boxed{(10^{6})!}", r"\boxed{\prod_{k=1}^{10^{9}} k}"]
ATTACKS = [
    "{c}", 'eval("{c}")', r"\text{{{c}}}", 'S("{c}")', "(lambda: {c})()", "x = {c}", "1, {c}",
    r"\begin{{pmatrix}} {c} \\ 1 \end{{pmatrix}}", r"\frac{{{c}}}{{2}}", "1 + {c}",
    "{{'a': {c}}}", "[1, {c}]", r"\operatorname{{{c}}}(x)", "x_{{{c}}}", "parse_expr('{c}')",
]  # fmt: skip


def rows(name: str) -> list[dict]:
    lines = (GRADER / name).read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line.strip()]


def attacks(target: Path) -> list[str]:
    command = f"__import__('os').system('touch {target}')"
    return [rf"\boxed{{{attack.format(c=command)}}}" for attack in ATTACKS]


# ---------------------------------------------------------------- no string is evaluated
# What sympy itself says: index arithmetic for polynomials, a late import, a constant.
OF_SYMPY = (
    "exec by sympy.polys.monomials", "exec by dataclasses",
    "sympify by sympy.simplify.simplify: '1/log(1)'",
)  # fmt: skip


@pytest.fixture
def guard(monkeypatch, tmp_path):
    """In workers, `eval`, `exec`, `parse_expr` and `sympify` of a string raise."""
    log = tmp_path / "guard.log"
    monkeypatch.setenv("GUARD_LOG", str(log))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE / "guard"), PACKAGE]))
    return log


def evaluated(log: Path) -> list[str]:
    """The strings that were to be evaluated in guarded workers, sympy's own left out."""
    lines = log.read_text("utf-8").splitlines()
    assert "installed" in lines
    named = [line for line in lines if line != "installed"]
    return [line for line in named if not line.startswith(OF_SYMPY)]


CALLS = ["eval('1')", "exec('1')", "parse_expr('x')", "sympify('x')", "S('x')", "Number('1')"]


@pytest.mark.parametrize("call", CALLS)
def test_the_guard_guards(guard, call):
    script = (
        "import os, math_verify\nfrom sympy import Number, S, parse_expr, sympify\n"
        f"if os.fork() == 0:\n    {call}\n    os._exit(0)\n_, code = os.wait()\n"
        "raise SystemExit(os.waitstatus_to_exitcode(code))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 1 and "of a string" in found.stderr
    assert len(evaluated(guard)) == 1


def test_no_string_is_evaluated(guard, tmp_path):
    forms = yaml.safe_load((HERE / "grading_cases.yaml").read_text("utf-8"))
    cases = [case for cases in forms.values() for case in cases]
    texts = attacks(tmp_path / "executed")
    found = grade_many(
        [reference for reference, _, _ in cases] + ["42", "x=1", "(1,2)"] * len(texts),
        [rf"\boxed{{{a}}}" for _, a, _ in cases] + [t for t in texts for _ in range(3)],
    )
    assert [v.correct for v in found[: len(cases)]] == [wanted for _, _, wanted in cases]
    assert not any(v.correct for v in found[len(cases) :])
    assert evaluated(guard) == [] and not (tmp_path / "executed").exists()


@real
@pytest.mark.slow
def test_no_string_of_the_pairs_and_hostile_responses_is_evaluated(guard):
    pairs, hostile = rows("pairs.jsonl"), rows("hostile.jsonl")
    both = pairs + hostile
    found = grade_many([r["gold"] for r in both], [r["response"] for r in both], seconds=2.0)
    agreeing = sum(
        v.correct is p["label"] for p, v in zip(pairs, found[: len(pairs)], strict=True)
    )
    assert agreeing / len(pairs) >= 0.985  # nothing needed what was forbidden
    assert evaluated(guard) == []


# ---------------------------------------------------------------- limits
def test_what_hangs_is_killed_and_spares_its_neighbours():
    references = ["42", "x+1"] * 3
    responses = [text for bomb in BOMBS for text in (bomb, r"\boxed{1+x}")]
    verdicts = grade_many(references, responses, seconds=0.5)
    assert [v.correct for v in verdicts[1::2]] == [True] * 3
    assert all(v.correct is not True for v in verdicts[0::2])
    assert "out of time" in {v.reason for v in verdicts[0::2]}


def test_long_and_deep_responses_end():
    deep = r"\frac{1}{1+" * 300 + "1" + "}" * 300
    texts = [r"\boxed{" * 20_000, "}" * 100_000, "$" * 100_000, rf"\boxed{{{deep}}}",
             r"\boxed{" + "1+" * 20_000 + "1}", "answer is " * 20_000, "$1$ " * 50_000,
             r"\boxed{" + "{" * 50_000, r"\boxed{" + "(" * 900 + "1" + ")" * 900 + "}",
             r"\boxed{" + "(1," * 400 + "1" + ")" * 400 + "}", "is 1 " * 40_000,
             "Therefore " * 30_000, r"\boxed{" + "1,2;" * 400 + "}"]  # fmt: skip
    started = time.process_time()
    verdicts = grade_many(["42"] * len(texts), texts, seconds=1.0)
    assert not any(v.correct for v in verdicts)
    assert time.process_time() - started < 20


def test_a_worker_has_less_than_two_gibibytes():
    """In a process of its own, whose children are the grader's workers and no others."""
    huge = r"\boxed{\det\begin{pmatrix}" + r"\\".join("&".join("abcdef") for _ in range(6))
    script = (
        "import json, resource, sys\n"
        "from limo_nb.grading.verdicts import grade_many\n"
        "texts = json.load(sys.stdin)\n"
        "found = grade_many(['42'] * len(texts), texts, seconds=2.0)\n"
        "print(len(found), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps([*BOMBS, huge + r"\end{pmatrix}}"]),
        env=os.environ | {"PYTHONPATH": PACKAGE}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    graded, used = map(int, done.stdout.split())
    assert graded == 4 and used > 0
    assert used * (1 if sys.platform == "darwin" else 1024) < 2 << 30
    assert isolation.MEMORY <= 2 << 30


@real
@pytest.mark.slow
def test_hostile_responses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = rows("hostile.jsonl")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    verdicts = grade_many(
        [c["gold"] for c in cases], [c["response"] for c in cases], seconds=2.0
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    missed = {
        case["id"]
        for case, verdict in zip(cases, verdicts, strict=True)
        if "want" in case and verdict.correct is not case["want"]
    }
    assert missed == set()
    assert list(tmp_path.iterdir()) == [] and not Path("/tmp/pwned").exists()
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 120
    assert after.ru_maxrss * 1024 < 2 << 30


# ---------------------------------------------------------------- random text
PIECES = st.sampled_from(
    r"\frac \sqrt \boxed \left( \right) { } ( ) [ ] \{ \} ^ _ , ; = < > + - * / | ! % & \\ $ "
    r"\cup \in \pm \infty \begin{pmatrix} \end{pmatrix} \text{ or } \le \pi x i e 1 23 0.5 ∞ 或"
    .split(" ")
)  # fmt: skip
LATEX = st.lists(PIECES | st.text(max_size=3), max_size=25).map("".join)


@given(LATEX, LATEX)
@settings(max_examples=300, deadline=None)
def test_rules_end_and_agree_with_themselves(reference, answer):
    found = final_answer(answer)
    assert found is None or found
    one, other = clean(reference), clean(answer)
    assert quick_match(one, other) in (True, False, None)
    assert not one or quick_match(one, one) is True


@given(st.lists(st.tuples(LATEX, LATEX), min_size=30, max_size=30))
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_latex_gets_verdicts(pairs):
    texts = [rf"\boxed{{{answer}}}" for _, answer in pairs]
    found = grade_many([reference for reference, _ in pairs], texts, seconds=1.0)
    assert all(v.correct in (True, False, None) and v.reason for v in found)


# ---------------------------------------------------------------- from anywhere
EQUAL = Verdict(True, "0.5x", "equal values")


def test_grading_from_a_thread():
    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.append(grade("x/2", r"\boxed{0.5x}")))
    thread.start()
    thread.join()
    assert found == [EQUAL]


def test_grading_in_an_event_loop():
    async def both() -> list[Verdict]:
        here = grade("x/2", r"\boxed{0.5x}")
        return [here, await asyncio.to_thread(grade, "x/2", r"\boxed{0.5x}")]

    assert asyncio.run(both()) == [EQUAL] * 2


def run(*command: str | Path) -> str:
    found = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env={"PYTHONPATH": PACKAGE}
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_a_script_needs_no_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\nfrom limo_nb.grading.verdicts import grade\n"
        r"print(grade('x/2', r'\boxed{0.5x}').correct)"
    )
    assert run(script).split() == ["once", "True"]


def test_workers_do_not_load_torch():
    code = "import sys, limo_nb.grading.verdicts, math_verify; print('torch' in sys.modules)"
    assert run("-c", code).strip() == "False"
