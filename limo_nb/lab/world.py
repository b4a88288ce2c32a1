"""The lab's ten families of step-by-step problems.

A problem starts from a state and applies dependent steps to it; its difficulty is the
number of steps. Steps cannot be merged or left out without doing their work. Four
families are *in domain* (they may appear in fine-tuning), six are *out of domain* (they
appear in pretraining only). Chapters 1 and 2 tell the story.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

MAX_STEPS = 16
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
COLOURS = "red blue green gold pink grey black white".split()
LETTERS = "ABCDEFGHJKLMNPRSTUVW"
VARIABLES = LETTERS.lower()
PEOPLE = LETTERS[:10]
NAMES = "Ann Ben Cid Dora Eli Fay".split()
BUTTONS = {  # what each button does to the position of a colour in COLOURS
    "P": (1, 2, 3, 4, 5, 6, 7, 0),
    "Q": (2, 5, 0, 7, 6, 1, 4, 3),
    "R": (4, 0, 6, 1, 3, 7, 2, 5),
    "S": (7, 3, 5, 0, 2, 4, 1, 6),
}


@dataclass(frozen=True)
class Step:
    """One dependent step: ``2) plus 4: 7+4=1``.

    Label and wording are the question's own, so that a step can be looked up there.
    """

    label: str  # "2)" or "c=", repeated in question and solution
    told: str  # how the question says it, e.g. "plus 4"; may be empty
    work: str  # what is worked on, e.g. "7+4" or the state before the step
    value: str  # the state after the step, e.g. "1"
    joiner: str = "="

    @property
    def named(self) -> str:
        """Label and wording as in the question, e.g. ``2) plus 4``."""
        return f"{self.label}{' ' if self.label.endswith(')') else ''}{self.told}".strip()

    def line(self, value: str | None = None) -> str:
        """The solved step; `value` replaces the true one (a slip)."""
        gap = ": " if self.told else ("" if self.label.endswith("=") else " ")
        return f"{self.named}{gap}{self.equation(value)}"

    def equation(self, value: str | None = None) -> str:
        """The step without its name, e.g. ``7+4=1``."""
        return f"{self.work}{self.joiner}{self.value if value is None else value}"


@dataclass(frozen=True)
class LabProblem:
    """A question with its dependent steps; the last step's value is the answer."""

    family: str
    question: str
    steps: tuple[Step, ...]
    key: str = field(repr=False)  # the problem without its wording
    opening: str = field(repr=False)  # its start and first two steps, without wording

    @property
    def answer(self) -> str:
        """The value of the last step."""
        return self.steps[-1].value

    @property
    def level(self) -> int:
        """Difficulty: the number of dependent steps."""
        return len(self.steps)

    @property
    def split(self) -> str:
        """``train`` or ``test``, decided by a hash of how the problem opens.

        So no problem of two steps or more opens a longer problem of the other split.
        """
        digest = hashlib.blake2b(self.opening.encode(), digest_size=4).digest()
        return "test" if digest[0] < 32 else "train"


# What one step does to a state: (how the question tells it, what is worked on, new state).
Operation = Callable[[random.Random, str], tuple[str, str, str]]


def _chain(
    rng: random.Random,
    family: str,
    start: str,
    openings: tuple[str, ...],
    asks: tuple[str, ...],
    count: int,
    operate: Operation,
    joiner: str = "=",
) -> LabProblem:
    """A problem whose steps are told one by one: ``1) plus 4, 2) times 3``."""
    state, steps = start, []
    for number in range(1, count + 1):
        wording, work, value = operate(rng, state)
        steps.append(Step(f"{number})", wording, work, value, joiner))
        state = value
    told = [f"{step.label} {step.told}" for step in steps]
    listed = ", ".join(told)
    question = f"{rng.choice(openings).format(start)} {listed}. {rng.choice(asks)}"
    key, opening = f"{family}|{start}|{listed}", f"{family}|{start}|{', '.join(told[:2])}"
    return LabProblem(family, question, tuple(steps), key, opening)


def dial(rng: random.Random, count: int) -> LabProblem:
    """Arithmetic on a dial with ten marks: only the last digit is kept."""

    def operate(rng: random.Random, state: str) -> tuple[str, str, str]:
        word, sign = rng.choice((("plus", "+"), ("minus", "-"), ("times", "*")))
        amount = rng.choice((3, 7, 9)) if sign == "*" else rng.randint(1, 9)
        old = int(state)
        new = {"+": old + amount, "-": old - amount, "*": old * amount}[sign] % 10
        return f"{word} {amount}", f"{old}{sign}{amount}", str(new)

    return _chain(
        rng, "dial", str(rng.randint(0, 9)),
        ("A dial of ten marks is at {}:", "The hand of a ten mark dial is at {}. Turn it:"),
        ("Where is the hand?", "Which mark is it at?"), count, operate,
    )  # fmt: skip


def purse(rng: random.Random, count: int) -> LabProblem:
    """Coins that come and go: sums up to 99 with carries."""

    def operate(rng: random.Random, state: str) -> tuple[str, str, str]:
        old, amount = int(state), rng.randint(2, 9)
        gains = old + amount <= 99 and (old - amount < 10 or rng.random() < 0.5)
        word = rng.choice(("gets", "finds") if gains else ("pays", "loses"))
        new = old + amount if gains else old - amount
        return f"{word} {amount}", f"{old}{'+' if gains else '-'}{amount}", str(new)

    name = rng.choice(NAMES)
    return _chain(
        rng, "purse", str(rng.randint(12, 90)),
        (name + " has {} coins:", "There are {} coins in the purse of " + name + ":"),
        ("How many coins are there now?", "How many coins are left?"), count, operate,
    )  # fmt: skip


def months(rng: random.Random, count: int) -> LabProblem:
    """Steps forward and back through the months of the year."""

    def operate(rng: random.Random, state: str) -> tuple[str, str, str]:
        amount = rng.randint(1, 9)
        word, sign = rng.choice((("later", 1), ("before", -1)))
        new = MONTHS[(MONTHS.index(state) + sign * amount) % 12]
        return f"{amount} {word}", state, new

    return _chain(
        rng, "months", rng.choice(MONTHS),
        ("It is {}. Go on by months:", "A trip of months starts in {}:"),
        ("Which month is it?", "Which month does it end in?"), count, operate, " gives ",
    )  # fmt: skip


def grid(rng: random.Random, count: int) -> LabProblem:
    """Moves on a board of ten by ten squares whose edges are joined."""

    def operate(rng: random.Random, state: str) -> tuple[str, str, str]:
        x, y = int(state[1]), int(state[3])
        word, dx, dy = rng.choice(
            (("right", 1, 0), ("left", -1, 0), ("up", 0, 1), ("down", 0, -1))
        )
        amount = rng.randint(1, 9)
        new = f"({(x + dx * amount) % 10},{(y + dy * amount) % 10})"
        return f"{word} {amount}", state, new

    return _chain(
        rng, "grid", f"({rng.randint(0, 9)},{rng.randint(0, 9)})",
        ("On a ring board a piece is at {}:", "A piece is at {} on the ring board. It goes:"),
        ("Where is the piece?", "Which square is it at?"), count, operate, " gives ",
    )  # fmt: skip


def recurrence(rng: random.Random, count: int) -> LabProblem:
    """Each term is the last digit of the one before plus the one three before."""
    terms, steps = [rng.randint(0, 9) for _ in range(3)], []
    stated = ", ".join(f"x{index}={term}" for index, term in enumerate(terms, 1))
    for index in range(4, count + 4):
        work = f"{terms[-1]}+{terms[-3]}"
        terms.append((terms[-1] + terms[-3]) % 10)
        steps.append(Step(f"x{index}=", "", work, str(terms[-1])))
    rule = rng.choice(
        (
            "each next x is the one before plus the one three before, last digit only",
            "add the one before and the one three before, keep the last digit",
        )
    )
    question = f"A list starts with {stated}: {rule}. What is x{count + 3}?"
    opening = f"recurrence|{stated}"  # all further terms follow from these
    return LabProblem("recurrence", question, tuple(steps), f"{opening}|{count}", opening)


def swaps(rng: random.Random, count: int) -> LabProblem:
    """Four cups in a row that change places."""

    def operate(rng: random.Random, state: str) -> tuple[str, str, str]:
        cups = state.split()
        i, j = sorted(rng.sample(range(4), 2))
        cups[i], cups[j] = cups[j], cups[i]
        return f"swap {i + 1} and {j + 1}", state, " ".join(cups)

    start = " ".join(rng.sample("ABCD", 4))
    return _chain(
        rng, "swaps", start,
        ("Four cups stand as {}:", "The cups in a row are {}. Move them:"),
        ("How do the cups stand?", "What is the row of cups?"), count, operate, " gives ",
    )  # fmt: skip


def arrows(rng: random.Random, count: int) -> LabProblem:
    """Roads between places, told out of order: follow them.

    A road leaves every place, the last one too, so that only following finds the end.
    """
    places = rng.sample(LETTERS, len(LETTERS))[: count + 2]
    roads = list(pairwise(places[:-1]))
    steps = tuple(
        Step(f"{number})", "", f"{a} to", b, " ") for number, (a, b) in enumerate(roads, 1)
    )
    for place in places[-2:]:
        roads.append((place, rng.choice([other for other in places if other != place])))
    shuffled = rng.sample(roads, len(roads))
    listed = ", ".join(f"{a} to {b}" for a, b in shuffled)
    ask = rng.choice(("Where do you end?", "Which place is the end?"))
    question = f"The roads go {listed}. You start at {places[0]} and take {count}. {ask}"
    opening = f"arrows|{' '.join(places[: min(count, 2) + 1])}"
    return LabProblem("arrows", question, steps, f"arrows|{places[0]}|{listed}", opening)


def substitution(rng: random.Random, count: int) -> LabProblem:
    """Variables defined one after the other, last digits only."""
    names = VARIABLES
    value = rng.randint(0, 9)
    listed, steps = [f"a={value}"], []
    for index in range(1, count + 1):
        sign = rng.choice("+-*")
        amount = rng.choice((3, 7, 9)) if sign == "*" else rng.randint(1, 9)
        work = f"{value}{sign}{amount}"
        value = {"+": value + amount, "-": value - amount, "*": value * amount}[sign] % 10
        told = f"{names[index - 1]}{sign}{amount}"
        listed.append(f"{names[index]}={told}")
        steps.append(Step(f"{names[index]}=", told, work, str(value)))
    opening = rng.choice(("Keep the last digit only:", "With last digits only let"))
    question = f"{opening} {', '.join(listed)}. What is {names[count]}?"
    key, opening = f"substitution|{listed}", f"substitution|{listed[:3]}"
    return LabProblem("substitution", question, tuple(steps), key, opening)


def queue(rng: random.Random, count: int) -> LabProblem:
    """A line of people: some join, some leave, some go to the end."""

    def operate(rng: random.Random, state: str) -> tuple[str, str, str]:
        line = state.split()
        choices = ["first to end", "last to front"]
        if len(line) > 2:
            choices += ["first leaves", "last leaves"]
        if len(line) < 5:
            choices += ["join", "join"]
        told = rng.choice(choices)
        if told == "join":
            new = rng.choice([c for c in PEOPLE if c not in line])
            told, line = f"{new} joins", line + [new]
        elif told == "first leaves":
            line = line[1:]
        elif told == "last leaves":
            line = line[:-1]
        elif told == "first to end":
            line = line[1:] + line[:1]
        else:
            line = line[-1:] + line[:-1]
        return told, state, " ".join(line)

    start = " ".join(rng.sample(PEOPLE, rng.randint(3, 4)))
    return _chain(
        rng, "queue", start,
        ("People wait in line as {}:", "The line of people is {}. Then:"),
        ("What is the line?", "How do they stand?"), count, operate, " gives ",
    )  # fmt: skip


def colours(rng: random.Random, count: int) -> LabProblem:
    """A lamp with four buttons whose laws are facts to be known by heart."""

    def operate(rng: random.Random, state: str) -> tuple[str, str, str]:
        button = rng.choice("PQRS")
        new = COLOURS[BUTTONS[button][COLOURS.index(state)]]
        return f"press {button}", state, new

    return _chain(
        rng, "colours", rng.choice(COLOURS),
        ("The lamp is {}:", "A lamp shows {}. You"),
        ("What does the lamp show?", "Which colour is it?"), count, operate, " gives ",
    )  # fmt: skip


FAMILIES: dict[str, Callable[[random.Random, int], LabProblem]] = {
    maker.__name__: maker
    for maker in (
        dial, purse, months, grid,
        recurrence, swaps, arrows, substitution, queue, colours,
    )
}  # fmt: skip
IN_DOMAIN = ("dial", "purse", "months", "grid")
OUT_OF_DOMAIN = tuple(name for name in FAMILIES if name not in IN_DOMAIN)


def draw(rng: random.Random, family: str, steps: int, split: str) -> LabProblem:
    """A random problem of `family` with `steps` steps that belongs to `split`.

    Raises ValueError where no such problem turns up in 1,000 draws.
    """
    for _ in range(1000):
        problem = FAMILIES[family](rng, steps)
        if problem.split == split:
            return problem
    raise ValueError(f"no {split} problem of {family} with {steps} steps in 1,000 draws")
