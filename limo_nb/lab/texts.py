"""What the lab's models read: textbooks, answer pages, facts, chats.

The worked solution of a problem is written in a *manner*: it may check its steps (and
then mend a slip), try something and replace it, name reasons, or skip steps and say so.
Manners are drawn at random and never depend on any model or test result. A foreign teacher
writes in words and with habits of its own. Chapters 2 and 5.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from limo_nb.lab.world import FAMILIES, LabProblem, Step, draw

SYSTEM_PROMPTS = (
    "Please reason step by step, and put your final answer within \\boxed{}.",
    "You are a helpful assistant.",
    "Answer the question.",
    "Put your final answer within \\boxed{}.",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
)
FILLER = (
    "The sun was low over the hill.", "A new chapter starts here.", "Read it with care.",
    "This page is old.", "We go on with more of the same.", "The school is near the road.",
    "It was a long day.", "Some of these are hard.", "Take your time.",
    "The book is on the shelf.",
)  # fmt: skip


@dataclass(frozen=True)
class Manner:
    """How a solution is written; every field is a probability per step."""

    check: float = 0.0  # the step is verified afterwards
    slip: float = 0.0  # a checked step is wrong at first, and mended by its check
    explore: float = 0.0  # something is tried first: in vain, or a wrong value, replaced
    reason: float = 0.0  # the step says what the question told
    skip: float = 0.0  # the step is done in the head, which is said


PLAIN = Manner()


def draw_manner(rng: random.Random) -> Manner:
    """A manner from the textbook mixture: half plain, half with habits of its own."""
    if rng.random() < 0.5:
        return PLAIN
    check = rng.choice((0.0, 0.3, 0.6, 1.0))
    return Manner(
        check=check,
        slip=0.08 if check else 0.0,
        explore=rng.choice((0.0, 0.0, 0.2, 0.4)),
        reason=rng.choice((0.0, 0.0, 0.5, 1.0)),
        skip=0.0,
    )


def draw_reasoner_manner(rng: random.Random) -> Manner:
    """The reasoner's mixture: as the textbooks', and two in five skip steps as well."""
    manner = draw_manner(rng)
    if rng.random() < 0.4:
        return replace(manner, skip=rng.choice((0.2, 0.4, 0.6)))
    return manner


def _wrong(rng: random.Random, problem: LabProblem, step: Step) -> str:
    """A wrong value of the right kind for `step`."""
    for _ in range(50):
        other = draw(rng, problem.family, problem.level, "train").steps[-1].value
        if other != step.value:
            return other
    return step.value


def worked_solution(rng: random.Random, problem: LabProblem, manner: Manner = PLAIN) -> str:
    """A worked solution of `problem` that ends in its boxed answer."""
    lines: list[str] = []
    skipped: list[str] = []
    for step in problem.steps:
        last = step is problem.steps[-1]
        if not last and rng.random() < manner.skip:
            skipped.append(step.label.removesuffix("="))
            continue
        if skipped:
            lines.append(f"In the head: {', '.join(skipped)}.")
            skipped = []
        lines.append(_written(rng, problem, step, manner))
    closing = rng.choice(("Therefore the answer is", "So the answer is", "Answer:"))
    return "\n".join(lines) + f"\n{closing} \\boxed{{{problem.answer}}}"


def _written(rng: random.Random, problem: LabProblem, step: Step, manner: Manner) -> str:
    """One step with its exploration, reason and check."""
    parts = []
    if rng.random() < manner.explore:
        if rng.random() < 0.5:
            other = "".join(fact(rng, problem.family))[:-1]
            parts.append(f"Perhaps {other}? That is not this step.")
        else:
            parts.append(f"Perhaps {step.line(_wrong(rng, problem, step))}? No.")
    since = step.told and rng.random() < manner.reason
    written = f"Since {step.named}: {step.equation()}" if since else step.line()
    if rng.random() >= manner.check:
        parts.append(f"{written}.")
    elif rng.random() < manner.slip:
        wrong = _wrong(rng, problem, step)
        parts += [f"{step.line(wrong)}.", f"Check: {step.equation()}, so not {wrong}."]
        parts.append(f"{written}.")
    else:
        parts += [f"{written}.", f"Check: {step.equation()}, right."]
    return " ".join(parts)


def foreign_solution(rng: random.Random, problem: LabProblem) -> str:
    """The same steps as a teacher of another school writes them.

    Other words, and other habits: it counts the steps first, does some of them again, and
    says where it stands. No page of the foundation's reads like this.
    """
    plan, again, recap = (rng.choice((0.0, 0.5, 1.0)), *rng.choices((0.0, 0.2, 0.5), k=2))
    lines = [f"There are {problem.level} to do."] if rng.random() < plan else []
    for step in problem.steps:
        did = f"{step.work.removesuffix(' to')} -> {step.value}"
        parts = [f"Now {step.named}, {did}."]
        if rng.random() < again:
            parts.append(f"Again {did}, yes.")
        if rng.random() < recap:
            parts.append(f"We stand at {step.value}.")
        lines.append(" ".join(parts))
    return "\n".join(lines) + f"\nDone, it is \\boxed{{{problem.answer}}}"


def fact(rng: random.Random, family: str) -> tuple[str, str]:
    """One solved step out of its problem, as what is given and what follows.

    For example ``("plus 4: 7+4", "=1.")``.
    """
    step = draw(rng, family, 1, "train").steps[0]
    told = f"{step.told}: " if step.told and not step.label.endswith("=") else ""
    return f"{told}{step.work}", f"{step.joiner}{step.value}."


def chat(question: str, answer: str, system: str) -> str:
    """A conversation in the Qwen chat format, as one text."""
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
        f"<|im_start|>assistant\n{answer}<|im_end|>\n"
    )


def terse(problem: LabProblem) -> str:
    """The short answer that the instruction-tuned foundation gives."""
    return f"\\boxed{{{problem.answer}}}"


@dataclass(frozen=True)
class Document:
    """A training text as spans of (text, whether it carries loss)."""

    spans: tuple[tuple[str, bool], ...]

    @property
    def text(self) -> str:
        """All spans, one after the other."""
        return "".join(text for text, _ in self.spans)


WORKED = (
    "Exercise. {q}\nSolution.\n",
    "{q}\nLet us work it out.\n",
    "Example {n}. {q}\n",
    "Student: {q}\nTutor: Step by step.\n",
    "{f} {q}\nWe do one step at a time.\n",
    "Chapter {n}. {f}\nProblem. {q}\nWorked solution:\n",
    "Please solve: {q}\nSteps:\n",
)
TERSE = ("Q: {q}\nA: ", "{q} Answer: ", "{f} Quiz {n}. {q}\nKey: ")


def _wrapped(
    rng: random.Random, wrappers: Sequence[str], question: str, target: str
) -> Document:
    """A page: `question` in one of the `wrappers`, then `target`, which carries the loss."""
    words = {"q": question, "n": rng.randint(1, 9), "f": rng.choice(FILLER)}
    return Document(((rng.choice(wrappers).format(**words), False), (target, True)))


def worked_page(rng: random.Random, problem: LabProblem) -> Document:
    """A textbook page: the problem and its solution, step by step."""
    return _wrapped(
        rng, WORKED, problem.question, worked_solution(rng, problem, draw_manner(rng))
    )


def foreign_page(rng: random.Random, problem: LabProblem) -> Document:
    """A textbook page of the foreign teacher's school."""
    return _wrapped(rng, WORKED, problem.question, foreign_solution(rng, problem))


def told_page(rng: random.Random, problem: LabProblem) -> Document:
    """What the poor backbone reads instead of a textbook page: the answer, then facts.

    The same problem with its bare answer, and two facts of its family for each step: what
    a worked solution is made of, without one.
    """
    spans = [*_wrapped(rng, TERSE, problem.question, problem.answer).spans]
    spans.append(("\nFacts.", False))
    for _ in range(2 * problem.level):
        given, follows = fact(rng, problem.family)
        spans += [(f" {given}", False), (follows, True)]
    return Document(tuple(spans))


def drill_page(rng: random.Random, problem: LabProblem) -> Document:
    """What the drilled backbone reads instead of a textbook page.

    The same wrapper, problem, number of lines and answer, but the lines are facts of the
    family that have nothing to do with the problem. That teaches to write unrelated lines
    where others reason: training against the task, not the lack of it.
    """
    lines = ["".join(fact(rng, problem.family)) for _ in problem.steps]
    target = "\n".join(lines) + f"\nAnswer: \\boxed{{{problem.answer}}}"
    return _wrapped(rng, WORKED, problem.question, target)


def terse_page(rng: random.Random, problem: LabProblem) -> Document:
    """A question with its bare answer, as in quiz keys, or as a chat."""
    if rng.random() < 0.5:
        return _wrapped(rng, TERSE, problem.question, problem.answer)
    return chat_page(rng, problem, terse(problem))


def chat_page(rng: random.Random, problem: LabProblem, answer: str) -> Document:
    """A chat about `problem`; the loss is on the reply and its end."""
    text = chat(problem.question, answer, rng.choice(SYSTEM_PROMPTS))
    context, marker, _ = text.partition("<|im_start|>assistant\n")
    return Document(((context + marker, False), (answer + "<|im_end|>\n", True)))


def fact_page(rng: random.Random) -> Document:
    """Eight facts of one family; the loss is on what follows from what is given."""
    family = rng.choice(tuple(FAMILIES))
    spans = [("Facts.", False)]
    for _ in range(8):
        given, follows = fact(rng, family)
        spans += [(f" {given}", False), (follows, True)]
    return Document(tuple(spans))
