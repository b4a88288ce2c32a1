"""Where a chain about a lab problem first goes wrong (chapter 9).

The lab knows every step of its problems, so a chain can be read step by step: is the step
there, is it the question's, is it worked out rightly?
"""

from __future__ import annotations

import re
from typing import Literal

from limo_nb.lab.world import LabProblem, Step

Mistake = Literal["none", "no steps", "left out", "miscopied", "miscalculated", "answer"]
MISTAKES: tuple[Mistake, ...] = (
    "no steps", "left out", "miscopied", "miscalculated", "answer", "none",
)  # fmt: skip
SENTENCE = re.compile(r"[^.?\n]+[.?]?")
NO_STEP = re.compile(r"Check:|In the head:")


def first_mistake(problem: LabProblem, text: str) -> Mistake:
    """The first thing in `text` that is not as `problem` has it.

    "no steps": none is written at all; "left out": a step is missing; "miscopied": a step is
    not the question's, or goes on from another state than the one before left; "miscalculated":
    its value is wrong; "answer": all steps are right and the boxed answer is not. Where a step
    stands several times, as after a check, the last time counts.
    """
    said = [own for own in SENTENCE.findall(text) if not NO_STEP.search(own)]
    written = [_last_of(step, said) for step in problem.steps]
    if not any(written):
        right = f"\\boxed{{{problem.answer}}}" in text
        return "none" if right else "no steps"
    for step, sentence in zip(problem.steps, written, strict=True):
        if sentence is None:
            return "left out"
        if step.named not in sentence or f"{step.work}{step.joiner}" not in sentence:
            return "miscopied"
        if not re.search(rf"{re.escape(step.equation())}(?![\w(]|\s[A-Z]\b)", sentence):
            return "miscalculated"
    return "none" if f"\\boxed{{{problem.answer}}}" in text else "answer"


def _last_of(step: Step, said: list[str]) -> str | None:
    """The last sentence that takes `step`, by its label."""
    label = re.compile(rf"(?<!\S){re.escape(step.label)}")
    return next((own for own in reversed(said) if label.search(own)), None)
