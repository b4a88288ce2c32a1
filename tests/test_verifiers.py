"""Verifiers: mathematics as before, programs by their tests, and the stages on both."""

from __future__ import annotations

import pytest
from datasets import Dataset

from limo_nb.chains import collection
from limo_nb.grading import (
    sandbox,
    verdicts,
)
from limo_nb.grading.verifiers import (
    MATHEMATICS,
    UnitTests,
    as_reference,
    program_of,
)
from limo_nb.problems import COLUMNS
from limo_nb.selection import (
    rates,
    solving,
)

TESTS = as_reference("f", [([1], 2), ([5], 6), ([-1], 0)])
PROGRAMS = UnitTests(sandbox.Limits(seconds=0.2), trusted=True)


def block(*lines: str, language: str = "python") -> str:
    return "\n".join([f"```{language}", *lines, "```"])


RIGHT = block("def f(x):", "    return x + 1")


def test_mathematics_is_the_grader():
    references, responses = ["6", "6", "6", ""], [r"\boxed{6}", r"\boxed{5}", "hm", "6"]
    found = MATHEMATICS.verify(references, responses)
    assert found == verdicts.grade_many(references, responses)
    assert [verdict.correct for verdict in found] == [True, False, False, None]


@pytest.mark.parametrize(
    ("response", "program"),
    [
        (RIGHT, "def f(x):\n    return x + 1\n"),
        (f"{block('a = 1')}\nNo.\n{block('a = 2', language='')}\nDone.", "a = 2\n"),
        (block("1 2 3", language="text"), None),
        (f"<think>{block('a = 1')}</think>", None),
        (f"<think>{block('a = 1')}", None),
        (f"[THINK]{block('a = 1')}[/THINK]No.", None),
        (f"<think>{block('a = 1')}</think>\n{RIGHT}", "def f(x):\n    return x + 1\n"),
        ("```python\ndef f(x):\n    return x + 1\n", None),  # cut off
        ("def f(x): return x + 1", None),
        ("", None),
    ],
)
def test_which_program_is_meant(response, program):
    assert program_of(response) == program


@pytest.mark.parametrize(
    ("lines", "correct", "reason"),
    [
        (["def f(x):", "    return x + 1"], True, "3 tests passed"),
        (["def f(x):", "    return 2 * x"], False, "another result"),
        (["def f(x):", "    return float(x + 1)"], False, "another result"),
        (["def f(x):", "    raise ValueError"], False, "ValueError"),
        (["def f(x):", "    while True: pass"], False, sandbox.BUSY),
        # cheats
        (["print('= 2', '= 6', '= 0', sep='\\n')", "f = print"], False, "another result"),
        (["print('3 tests passed')", "import os", "os._exit(0)"], False, "ended early"),
        (["import sys", "sys.exit(0)"], False, "SystemExit"),
        (
            ["class Yes(int):", "    def __eq__(self, other): return True", "f = Yes"],
            False, "another result",
        ),
        (
            ["import builtins", "builtins.repr = lambda x: 'True'", "f = abs"],
            False, "another result",
        ),
        (
            ["import os", "for n in range(3, 9):", "    try: os.write(n, b'= 1\\n' * 9)",
             "    except OSError: pass", "os._exit(0)"],
            False, "another result",
        ),
        (
            ["import sys", "sys.modules['__main__'].perform = None",
             "sys._getframe(1).f_locals['calls'].clear()", "def f(x): return x"],
            False, "ended early",
        ),
    ],
)  # fmt: skip
def test_verdicts_on_programs(lines, correct, reason):
    (verdict,) = PROGRAMS.verify([TESTS], [block(*lines)])
    assert (verdict.correct, verdict.reason) == (correct, reason)


@pytest.mark.skipif(not all(sandbox.closed().values()), reason="this machine is open")
def test_no_attack_of_the_chapter_passes():
    attacks = [
        block("def f(x):", f"    {a}", "    return x + 1") for a in sandbox.ATTACKS.values()
    ]
    found = PROGRAMS.verify([TESTS] * len(attacks), attacks)
    assert [verdict.correct for verdict in found] == [False] * len(attacks)


def test_a_trial_says_how_far_a_program_came():
    tested = block("def f(x):", "    return x + 1 if x != 5 else 0")
    first, second = PROGRAMS.trials([TESTS] * 2, [tested, RIGHT])
    assert (first.passed, first.tests, first.why) == (1, 3, "another result")
    assert (second.passed, second.verdict().correct) == (3, True)


def test_what_cannot_be_decided():
    waits = block("import os", "def f(x):", "    os.read(os.pipe()[0], 1)")
    short = UnitTests(sandbox.Limits(clock=0.5), trusted=True)
    assert short.verify([TESTS], [waits])[0].correct is None
    assert PROGRAMS.verify([as_reference("f", [])], [RIGHT])[0].correct is None
    assert PROGRAMS.verify([TESTS], [block("#" * 30_000)])[0].correct is None
    assert PROGRAMS.verify([TESTS], ["I cannot."])[0].correct is False


def test_order_is_kept_and_faults_are_named():
    wrong = block("def f(x):", "    return x")
    responses = [RIGHT, wrong, RIGHT, "none"]
    found = PROGRAMS.verify([TESTS] * 4, responses)
    assert [verdict.correct for verdict in found] == [True, False, True, False]
    assert found[0] == found[2]
    with pytest.raises(ValueError, match="1 references for 2"):
        PROGRAMS.verify([TESTS], responses[:2])
    for reference in ("6", "{}", '{"entry": "f", "tests": [3]}'):
        with pytest.raises(ValueError, match="a reference for UnitTests is"):
            PROGRAMS.verify([reference], [RIGHT])


def test_an_open_machine_runs_no_stranger(monkeypatch):
    monkeypatch.setattr(sandbox, "closed", lambda: {"network": False, "files": True})
    with pytest.raises(RuntimeError, match="reach the network of this machine"):
        UnitTests().verify([TESTS], [RIGHT])
    assert UnitTests(trusted=True).verify([TESTS], [RIGHT])[0].correct


def test_statements_end_where_the_answer_does():
    text = f"Try:\n{RIGHT}\nThen\n{block('1 2', language='text')}"
    ((end, said),) = PROGRAMS.statements(text)
    assert said == RIGHT and text[:end].endswith(RIGHT)
    ((end, said),) = MATHEMATICS.statements(r"So \boxed{6}. Let me see.")
    assert (end, said) == (13, r"\boxed{6}")


# ---------------------------------------------------------------- the stages take either
def stage_inputs(answers: dict[str, str], texts: dict[str, list[str]]):
    rows = [
        {"id": name, "question": f"Question {name}?", "answer": answer, "solution": "",
         "source": "test", "subject": "test", "level": 1}
        for name, answer in answers.items()
    ]  # fmt: skip
    said = [
        {"id": name, "sample": n, "text": text, "tokens": len(text.split()), "finished": True}
        for name, some in texts.items()
        for n, text in enumerate(some)
    ]
    return Dataset.from_list(rows, features=COLUMNS), Dataset.from_list(said)


def test_funnel_and_chains_take_a_verifier():
    wrong = block("def f(x):", "    return x")
    once = f"Perhaps this.\n{RIGHT}\nCheck: 1 gives 2, right."
    problems, answers = stage_inputs(
        {"a": TESTS, "b": TESTS}, {"a": [wrong, once, f"{wrong}\n{RIGHT}"], "b": [wrong] * 3}
    )
    attempts = solving.grade_attempts(problems, answers, PROGRAMS)
    assert attempts["correct"] == [False, True, True, False, False, False]
    kept = rates.keep_by_rate(problems, rates.solve_counts(attempts), (1, 2)).kept
    assert kept["id"] == ["a"]
    found = collection.collect(problems, attempts, verifier=PROGRAMS)
    assert found["sample"] == [1, 2]
    after = found["after_answer"]
    assert after[0] > 0 and after[1] == 0, "words behind the first right program"
