"""The second domain: problems with tests, and a writer that slips."""

from __future__ import annotations

from random import Random

import pytest
from datasets import Dataset

from limo_nb.core.settings import (
    FilterSettings,
    Sampling,
)
from limo_nb.experiments import programs
from limo_nb.grading import sandbox
from limo_nb.grading.verifiers import (
    UnitTests,
    program_of,
)
from limo_nb.inference import chat_prompt
from limo_nb.problems import COLUMNS
from limo_nb.problems.cleaning import drop_duplicates
from limo_nb.selection import solving

VERIFIER = UnitTests(sandbox.Limits(seconds=0.3), trusted=True)
ALL = [*programs.STEPS, *programs.ENDS]


def answer(*lines: str) -> str:
    body = [f"    {line}" for text in lines for line in text.split("\n")]
    return "\n".join(["```python", "def f(xs):", *body, "```"])


def question_of(step: programs.ProgramStep) -> str:
    if step in programs.ENDS:
        return f"{programs.OPENING} 1) {programs.STEPS[2].says}. It returns {step.says}."
    return f"{programs.OPENING} 1) {step.says}. It returns the list."


def lines_of(step: programs.ProgramStep, line: str) -> str:
    if step in programs.ENDS:
        return answer(programs.STEPS[2].line, line)
    return answer(line, "return xs")


def test_every_line_does_its_step_and_no_slip_does():
    cases = [(step, step.line, True) for step in ALL]
    cases += [(step, slip, False) for step in ALL for slip in step.slips]
    references = [programs.reference(question_of(step), 60) for step, _, _ in cases]
    found = VERIFIER.verify(references, [lines_of(step, line) for step, line, _ in cases])
    wrong = [
        (step.says, line, verdict.reason)
        for (step, line, right), verdict in zip(cases, found, strict=True)
        if verdict.correct is not right
    ]
    assert wrong == []


def test_problems_are_read_as_they_were_made():
    pool = programs.problems(40, seed=3)
    assert pool.features == COLUMNS
    assert pool.to_list() == programs.problems(40, seed=3).to_list()
    for row in pool:
        steps = programs.steps_asked(row["question"])
        assert len(steps) == row["level"] + 1 and steps[-1].says == row["subject"]
        assert programs.program(steps) == row["solution"]
    assert 0 < len(drop_duplicates(pool).kept) <= 40
    with pytest.raises(ValueError, match="no question of this kind"):
        programs.steps_asked("What is 1 + 1?")


def test_reference_solutions_pass():
    pool = programs.problems(6, seed=4)
    texts = [f"```python\n{row['solution']}```" for row in pool]
    assert [v.correct for v in VERIFIER.verify(pool["answer"], texts)] == [True] * 6


def test_tests_try_the_empty_list_and_zero():
    assert [0] in programs.inputs(3) and [] in programs.inputs(3)
    assert programs.inputs(8) == programs.inputs(20)[:8] != programs.inputs(8, seed=1)


@pytest.mark.parametrize("writer", [programs.WEAK, programs.STRONG])
def test_an_answer_has_one_program_and_depends_on_its_seed_only(writer):
    question = programs.problems(1, seed=5)[0]["question"]
    texts = [writer.write(question, Random(seed)) for seed in range(20)]
    assert texts == [writer.write(question, Random(seed)) for seed in range(20)]
    assert len(set(texts)) > 3
    assert all(program_of(text).startswith("def f(xs):\n") for text in texts)


def test_who_never_slips_writes_the_solution_and_who_notices_all_too():
    row = programs.problems(9, seed=6)[8]
    sure = programs.Writer("sure", slip=0, hasty=0, careful=0, notices=0)
    wary = programs.Writer("wary", slip=1, hasty=0, careful=1, notices=1)
    for writer in (sure, wary):
        text = writer.write(row["question"], Random(1))
        assert program_of(text) == row["solution"]
    assert "Perhaps" in text and "Check" in text


def test_the_filter_takes_a_writer_as_its_engine(tmp_path):
    pool = programs.problems(3, seed=7)
    settings = FilterSettings(
        sampling=Sampling(samples=3, temperature=1.0, max_new_tokens=200), keep=(1, 2)
    )
    engine = programs.STRONG
    args = (pool, engine.name, settings, engine, "", tmp_path, VERIFIER)
    attempts = solving.solve(*args)
    assert attempts["id"] == [name for name in pool["id"] for _ in range(3)]
    assert attempts.to_list() == solving.solve(*args).to_list()
    assert set(attempts["correct"]) <= {True, False} and all(attempts["finished"])
    short = settings.sampling.model_copy(update={"max_new_tokens": 5})
    cut = solving.solve(*args[:2], settings.model_copy(update={"sampling": short}), *args[3:])
    assert not any(cut["finished"]) and not any(cut["correct"])
    assert engine.length(chat_prompt("abc", None)) == 3


def test_new_tests_find_what_the_old_ones_let_through():
    pool = programs.problems(1, seed=8)
    right = f"```python\n{pool[0]['solution']}```"
    wrong = "```python\ndef f(xs):\n    return 5\n```"
    attempts = Dataset.from_list(
        [{"id": pool["id"][0], "text": text, "correct": True} for text in (right, wrong) * 2]
    )
    found = programs.tried_again(pool, attempts, VERIFIER, tests=12, most=5)
    assert len(found) == 1 and found["tests"] == [12]
    passed = {
        programs.tried_again(pool, attempts, VERIFIER, 12, 5, seed)["passed"][0] == 12
        for seed in range(8)
    }
    assert passed == {True, False}
