"""What decides whether a response is right: one protocol, three domains.

The funnel (`selection`) and the chain stage (`chains`) ask a problem for its verdict and
know nothing else about its domain. By default its reference says what that is: a task of
reasoning-gym (`gym`), or mathematics. Programs are judged by unit tests that are executed
in a locked process (`sandbox`). Chapter 12.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from limo_nb.core.progress import progress_bar
from limo_nb.grading import sandbox
from limo_nb.grading.extraction import final_answer, shown
from limo_nb.grading.gym import Gym, is_gym
from limo_nb.grading.isolation import PROGRESS_FROM
from limo_nb.grading.verdicts import Verdict, grade_many

# A sentence of one line; "2. " at its start is a label and does not end it.
SENTENCE = re.compile(r"(?:\d{1,3}\.[ \t]+)?\S.*?(?:[.!?](?=\s|</|$)|[。！？]|$)", re.MULTILINE)
STATEMENT = re.compile(
    r"\\boxed|\banswer\**\s*(?:is\b|:|=)|答案(?:是|为|為|：|:)", re.IGNORECASE
)
BLOCK = re.compile(r"^```[ \t]*(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
LANGUAGES = ("", "python", "python3", "py")
LONGEST = 20_000  # characters of a program that is run


class Verifier(Protocol):
    """What a domain brings to the filters and the chain stage."""

    def verify(self, references: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        """The verdicts on `responses`, in order, by the column `answer` of their problems.

        True, False, or None for what cannot be decided. Raises ValueError where the
        lengths differ.
        """

    def statements(self, text: str) -> Iterator[tuple[int, str]]:
        """Every place of a chain that states an answer: where it ends, and the answer.

        The answer is a response that `verify` can judge.
        """


# ---------------------------------------------------------------- mathematics
@dataclass(frozen=True)
class Mathematics:
    """Final answers, compared by value (`grading`); the reference is the answer."""

    workers: int = 2
    seconds: float = 5.0  # of processor time for one comparison
    tolerance: float = 0.0  # relative, for references that are not integers
    boxed_only: bool = False

    def verify(self, references: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        """Whether the final answers are the references."""
        return grade_many(
            references, responses, self.workers, self.seconds, self.tolerance, self.boxed_only
        )

    def statements(self, text: str) -> Iterator[tuple[int, str]]:
        """Boxes and sentences that say that something is the answer.

        A number may also turn up on the way, so a bare one does not count.
        """
        for match in SENTENCE.finditer(text):
            if STATEMENT.search(match.group()):
                span = final_answer(re.sub(r"</?think>", " ", match.group()))
                if span is not None:
                    yield match.end(), rf"\boxed{{{span}}}"


MATHEMATICS = Mathematics()


@dataclass(frozen=True)
class ByReference:
    """What a reference is for decides: a task of reasoning-gym, or a mathematical answer."""

    mathematics: Mathematics = MATHEMATICS
    gym: Gym = Gym()

    def verify(self, references: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        """The verdicts of both, in order."""
        if len(references) != len(responses):
            raise ValueError(f"{len(references)} references for {len(responses)} responses")
        verdicts: list[Verdict | None] = [None] * len(references)
        for verifier, wanted in ((self.gym, True), (self.mathematics, False)):
            places = [n for n, own in enumerate(references) if is_gym(own) is wanted]
            some = ([own[n] for n in places] for own in (references, responses))
            for place, verdict in zip(places, verifier.verify(*some), strict=True):
                verdicts[place] = verdict
        return [verdict for verdict in verdicts if verdict is not None]

    def statements(self, text: str) -> Iterator[tuple[int, str]]:
        """As in mathematics: boxes and sentences that say that something is the answer."""
        return self.mathematics.statements(text)


BY_REFERENCE = ByReference()


# ---------------------------------------------------------------- programs
def as_reference(entry: str, tests: Sequence[tuple[Sequence[Any], Any]]) -> str:
    """Unit tests as text for the column `answer`: pairs of arguments and result."""
    return json.dumps({"entry": entry, "tests": [[list(a), b] for a, b in tests]})


@lru_cache(1000)
def _tests(reference: str) -> tuple[str, list[list[Any]], list[str]]:
    """The function's name, the arguments of each test, and the repr of each result."""
    try:
        read = json.loads(reference)
        calls = [list(arguments) for arguments, _ in read["tests"]]
        return str(read["entry"]), calls, [repr(wanted) for _, wanted in read["tests"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            'a reference for UnitTests is {"entry": NAME, "tests": [[[ARGUMENT, …], RESULT], '
            f"…]}} as JSON, not {reference[:80]!r} ({error})"
        ) from None


def program_of(response: str) -> str | None:
    """The last complete Python block behind the thoughts, None without one."""
    said = shown(response) or ""
    blocks = [body for language, body in BLOCK.findall(said) if language.lower() in LANGUAGES]
    return blocks[-1] if blocks else None


@dataclass(frozen=True)
class Trial:
    """How far a program came: the tests that it passed before the first that it did not."""

    program: str | None
    passed: int
    tests: int
    why: str  # what came then: "another result", an exception, how the process ended

    def verdict(self) -> Verdict:
        """True for all tests; None where a process waited, or there was nothing to judge."""
        if self.why in ("no tests", "too long to run", sandbox.WAITED):
            return Verdict(None, self.program, self.why)
        if self.passed == self.tests:
            return Verdict(True, self.program, f"{self.tests} tests passed")
        return Verdict(False, self.program, self.why)


@dataclass(frozen=True)
class UnitTests:
    """Programs, run on the arguments of each test; the reference is that of `as_reference`.

    Right if every call returns what its test wants, compared by repr: `1` is not `True`,
    and a tuple is no list. Wrong if one does not, raises, or takes too much time or memory;
    None if there is no test, or the program waited until it was ended. The comparison is
    made here and not where the program runs, so that all a program can do to pass is to
    return the right values. It sees the arguments of the tests and never their results.

    `trusted` says that you know the programs' writer: without it, a machine on which
    `sandbox.closed` finds something open runs none of them.
    """

    limits: sandbox.Limits = sandbox.Limits()
    modules: tuple[str, ...] = sandbox.MODULES
    workers: int = 2
    trusted: bool = False

    def verify(self, references: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        """Whether the programs pass their tests."""
        return [trial.verdict() for trial in self.trials(references, responses)]

    def statements(self, text: str) -> Iterator[tuple[int, str]]:
        """Every complete block of Python."""
        for match in BLOCK.finditer(text):
            if match[1].lower() in LANGUAGES:
                yield match.end(), match.group()

    def trials(self, references: Sequence[str], responses: Sequence[str]) -> list[Trial]:
        """How far the program of each response comes; equal ones are run once.

        Raises RuntimeError for an open machine, see `trusted`.
        """
        if len(references) != len(responses):
            raise ValueError(f"{len(references)} references for {len(responses)} responses")
        self._demand_a_lock()
        pairs = list(zip(references, map(program_of, responses), strict=True))
        different = list(dict.fromkeys(pairs))
        shown = len(different) >= PROGRESS_FROM
        bar = progress_bar(len(different), "programs", "testing") if shown else None
        found = {}
        shell = bar if bar is not None else nullcontext()
        with ThreadPoolExecutor(self.workers) as pool, shell:
            for pair, trial in zip(different, pool.map(self._try, different), strict=True):
                found[pair] = trial
                if bar is not None:
                    bar.update()
        return [found[pair] for pair in pairs]

    def _demand_a_lock(self) -> None:
        still_open = [] if self.trusted else [n for n, s in sandbox.closed().items() if not s]
        if still_open:
            raise RuntimeError(
                f"programs would reach the {', '.join(still_open)} of this machine: run them "
                "on Linux where `unshare` may make namespaces, or say trusted=True if you "
                "know who wrote them"
            )

    def _try(self, pair: tuple[str, str | None]) -> Trial:
        return _trial(*pair, self.limits, self.modules)


@lru_cache(10_000)  # a chain's program is met by the filter and again where the chain is kept
def _trial(
    reference: str, program: str | None, limits: sandbox.Limits, modules: tuple[str, ...]
) -> Trial:
    entry, calls, wanted = _tests(reference)
    if not calls:
        return Trial(program, 0, 0, "no tests")
    if program is None:
        return Trial(None, 0, len(calls), "no program")
    if len(program) > LONGEST:
        return Trial(program[:LONGEST], 0, len(calls), "too long to run")
    outcome = sandbox.run(program, entry, calls, limits, modules)
    for passed, result in enumerate(outcome.results):
        if result != f"= {wanted[passed]}":
            why = result[2:] if result.startswith("! ") else "another result"
            return Trial(program, passed, len(calls), why)
    return Trial(program, len(outcome.results), len(calls), outcome.ended or "ended early")
