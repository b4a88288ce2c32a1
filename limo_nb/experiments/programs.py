"""A second domain in the lab's size: tiny programs, their tests, and who writes them.

A problem asks for a function of a list of whole numbers that takes a few steps; its
reference is a set of unit tests (`as_reference`). The `Writer` is a small random
program and no language model: it reads the question, writes a line for each step, and now
and then slips. What a slip does to the program it does not know; that is for the tests to
find out. Chapter 12.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from datasets import Dataset

from limo_nb.core.settings import Sampling
from limo_nb.grading import UnitTests
from limo_nb.grading.verifiers import as_reference
from limo_nb.inference import Batch, Completion
from limo_nb.problems import COLUMNS

TESTS = 8  # of a problem
OPENING = "Write a function f(xs) of a list of whole numbers. In this order:"
TASK = re.compile(r"(?:^|, )\d+\) (.+?)(?=, \d+\) |\. It returns )")
# To be changed when a writer's answers change; they are drawn from a key that has it.
DRAWS = "d019b068e30ae488"
RESULT = re.compile(r"It returns (.+)\.$")


@dataclass(frozen=True)
class ProgramStep:
    """One step: the words of the task, what it does, the line for it, and slips of it."""

    says: str
    does: Callable[[list[int]], Any]
    line: str
    slips: tuple[str, ...]


def _odd_part(x: int) -> int:
    while x and x % 2 == 0:
        x //= 2
    return x


STEPS = (
    ProgramStep("keep the even numbers", lambda xs: [x for x in xs if x % 2 == 0],
         "xs = [x for x in xs if x % 2 == 0]", ("xs = [x for x in xs if x % 2]",)),
    ProgramStep("keep the numbers greater than 2", lambda xs: [x for x in xs if x > 2],
         "xs = [x for x in xs if x > 2]",
         ("xs = [x for x in xs if x >= 2]", "xs = [x for x in xs if x < 2]")),
    ProgramStep("double each number", lambda xs: [2 * x for x in xs],
         "xs = [2 * x for x in xs]", ("xs = [x ** 2 for x in xs]", "xs = xs * 2")),
    ProgramStep("add 3 to each number", lambda xs: [x + 3 for x in xs],
         "xs = [x + 3 for x in xs]", ("xs = xs + [3]", "xs = [x + x for x in xs]")),
    ProgramStep("replace each number by its absolute value", lambda xs: [abs(x) for x in xs],
         "xs = [abs(x) for x in xs]", ("xs = [-x for x in xs]", "xs = abs(xs)")),
    ProgramStep("take the remainder of each number by 5", lambda xs: [x % 5 for x in xs],
         "xs = [x % 5 for x in xs]", ("xs = [x // 5 for x in xs]",)),
    ProgramStep("put the numbers in increasing order", lambda xs: sorted(xs),
         "xs = sorted(xs)", ("xs = xs.sort()", "xs = sorted(set(xs))")),
    ProgramStep("reverse the list", lambda xs: xs[::-1],
         "xs = xs[::-1]", ("xs = xs[:-1]", "xs = sorted(xs, reverse=True)")),
    ProgramStep("drop repeated numbers and keep the first of each",
         lambda xs: list(dict.fromkeys(xs)), "xs = list(dict.fromkeys(xs))",
         ("xs = sorted(set(xs))", "xs = [x for x in xs if xs.count(x) == 1]")),
    ProgramStep("replace each number by the sum of all up to it",
         lambda xs: [sum(xs[: i + 1]) for i in range(len(xs))],
         "xs = [sum(xs[:i + 1]) for i in range(len(xs))]",
         ("xs = [sum(xs[:i]) for i in range(len(xs))]",
          "xs = [sum(xs[:i]) for i in range(1, len(xs))]")),
    ProgramStep("replace the list by the differences of neighbours",
         lambda xs: [xs[i + 1] - xs[i] for i in range(len(xs) - 1)],
         "xs = [b - a for a, b in zip(xs, xs[1:])]",
         ("xs = [a - b for a, b in zip(xs, xs[1:])]",
          "xs = [xs[i + 1] - xs[i] for i in range(len(xs))]")),
    ProgramStep("keep every second number from the first on", lambda xs: xs[::2],
         "xs = xs[::2]", ("xs = xs[1::2]",)),
    ProgramStep("multiply each number by its position counted from 1",
         lambda xs: [i * x for i, x in enumerate(xs, 1)],
         "xs = [i * x for i, x in enumerate(xs, 1)]",
         ("xs = [i * x for i, x in enumerate(xs)]",)),
    ProgramStep("halve each number until it is odd but leave 0 as it is",
         lambda xs: [_odd_part(x) for x in xs],
         "for i in range(len(xs)):\n    while xs[i] and xs[i] % 2 == 0:\n        xs[i] //= 2",
         ("for i in range(len(xs)):\n    while xs[i] % 2 == 0:\n        xs[i] //= 2",)),
)  # fmt: skip
ENDS = (
    ProgramStep("their sum", sum, "return sum(xs)", ("return sum(xs[1:])",)),
    ProgramStep("the largest number or 0 for an empty list", lambda xs: max(xs, default=0),
         "return max(xs, default=0)", ("return max(xs)", "return max([0] + xs)")),
    ProgramStep("how many numbers are left", len, "return len(xs)", ("return len(set(xs))",)),
    ProgramStep("the list", lambda xs: xs, "return xs", ("return print(xs)",)),
    ProgramStep("the last number or 0 for an empty list", lambda xs: xs[-1] if xs else 0,
         "return xs[-1] if xs else 0", ("return xs[-1]", "return xs[0] if xs else 0")),
)  # fmt: skip


# ---------------------------------------------------------------- problems
def problems(size: int, seed: int, most: int = 6) -> Dataset:
    """`size` problems of 1 to `most` steps (rows of `Problem`).

    The subject is what the function returns, the level the number of its steps.
    """
    rng = Random(seed)
    rows = []
    for number in range(size):
        steps, end = rng.sample(STEPS, rng.randint(1, most)), rng.choice(ENDS)
        tasks = ", ".join(f"{n}) {step.says}" for n, step in enumerate(steps, 1))
        question = f"{OPENING} {tasks}. It returns {end.says}."
        rows.append(
            {
                "id": f"program-{number:04d}", "question": question,
                "answer": reference(question), "solution": program([*steps, end]),
                "source": "lab programs", "subject": end.says, "level": len(steps),
            }
        )  # fmt: skip
    return Dataset.from_list(rows, features=COLUMNS)


def steps_asked(question: str) -> list[ProgramStep]:
    """The steps that a question asks for, the last of which is what is returned."""
    asked = question.removeprefix(OPENING).strip()
    tasks, result = TASK.findall(asked), RESULT.search(asked)
    if not tasks or not result:
        raise ValueError(f"no question of this kind: {question!r}")
    known = {step.says: step for step in STEPS}
    ends = {step.says: step for step in ENDS}
    return [*(known[task] for task in tasks), ends[result[1]]]


def reference(question: str, count: int = TESTS, seed: int = 0) -> str:
    """Unit tests of a question. Those of a seed have the same arguments for all questions."""
    *steps, end = steps_asked(question)
    tests = []
    for xs in inputs(count, seed):
        value: Any = list(xs)
        for step in (*steps, end):
            value = step.does(value)
        tests.append(([xs], value))
    return as_reference("f", tests)


def inputs(count: int, seed: int = 0) -> list[list[int]]:
    """Lists of whole numbers; the first are what programs often fall over: [0], []."""
    rng = Random(seed)
    drawn = [[rng.randint(-9, 12) for _ in range(rng.randint(2, 7))] for _ in range(count)]
    return [drawn[0], [0], [], *drawn[1:]][:count]


def program(steps: list[ProgramStep], lines: list[str] | None = None) -> str:
    """The program that takes `steps`, with other `lines` in place of theirs."""
    body = "\n".join(lines or [step.line for step in steps])
    return "def f(xs):\n" + "\n".join(f"    {line}" for line in body.split("\n")) + "\n"


def tried_again(
    asked: Dataset, attempts: Dataset, verifier: UnitTests, tests: int, most: int, seed: int = 1
) -> Dataset:
    """Up to `most` different answers among `attempts`, run on `tests` new tests.

    At most half of those that there are, drawn at random. Columns: id, correct (as it was
    found), passed (new tests before the first that failed), tests.
    """
    questions = dict(zip(asked["id"], asked["question"], strict=True))
    different = list({(row["id"], row["text"]): row for row in attempts}.values())
    some = Random(seed).sample(different, min(most, len(different) // 2))
    references = [reference(questions[row["id"]], tests, seed) for row in some]
    trials = verifier.trials(references, [row["text"] for row in some])
    return Dataset.from_list(
        [
            {"id": row["id"], "correct": row["correct"], "passed": trial.passed, "tests": tests}
            for row, trial in zip(some, trials, strict=True)
        ]
    )


# ---------------------------------------------------------------- who writes them
@dataclass(frozen=True)
class Writer:
    """An engine (`inference.Engine`) that writes programs; its skill is four numbers.

    It slips at a step with probability `slip`. In a `careful` share of its answers it
    tries each step on an example, and `notices` that share of the slips it then makes. It
    is `hasty` in another share, and writes the program only.
    """

    name: str
    slip: float
    hasty: float
    careful: float
    notices: float
    batch_size: int = 256

    @property
    def identity(self) -> dict[str, str]:
        """What its answers depend on: all of its fields, and how it writes."""
        return {name: str(value) for name, value in vars(self).items()} | {"code": DRAWS}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def length(self, prompt: Any) -> int:
        """Characters of the question."""
        return len(_question(prompt))

    def run(
        self, batches: Iterable[Batch], sampling: Sampling
    ) -> Iterator[list[tuple[str, Completion]]]:
        """Answers, each drawn from its key; a token is a word, a temperature is no use."""
        for batch in batches:
            yield [(ask.key, self._complete(ask.prompt, ask.seed, sampling)) for ask in batch]

    def _complete(self, prompt: Any, seed: int, sampling: Sampling) -> Completion:
        text = self.write(_question(prompt), Random(seed))
        words = len(text.split())
        if words > sampling.max_new_tokens:
            ends = list(re.finditer(r"\S+", text))[sampling.max_new_tokens - 1].end()
            return Completion(text[:ends], sampling.max_new_tokens, False)
        return Completion(text, words, True)

    def write(self, question: str, rng: Random) -> str:
        """An answer to `question`: some thoughts, and a program in a block."""
        steps, mood = steps_asked(question), rng.random()
        hasty, careful = mood < self.hasty, mood >= 1 - self.careful
        thoughts, lines, example = [], [], [4, 0, -3, 4]
        for number, step in enumerate(steps, 1):
            line = rng.choice(step.slips) if rng.random() < self.slip else step.line
            before, example = example, step.does(list(example))
            thought = f"{number}) For “{step.says}”, I write `{_short(line)}`."
            if careful:
                right = line == step.line or rng.random() >= self.notices
                thought += f" Check: {before} must become {example}"
                thought += ", right." if right else (
                    f". Wait, that is another step. Perhaps `{_short(step.line)}`, "
                    f"since this makes {example}, right."
                )  # fmt: skip
                line = line if right else step.line
            thoughts.append(thought)
            lines.append(line)
        said = [] if hasty else [*thoughts, "Therefore the program is"]
        return "\n".join([*said, "```python", program(steps, lines) + "```"])


WEAK = Writer("weak", slip=0.35, hasty=1.0, careful=0.0, notices=0.0)
STRONG = Writer("strong", slip=0.2, hasty=0.2, careful=0.4, notices=0.6)


def _question(prompt: Any) -> str:
    """The last message of a chat, or a text as it is."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def _short(line: str) -> str:
    return " ".join(line.split())
