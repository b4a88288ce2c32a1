"""Solutions of two families of reasoning-gym, worked out step by step (chapter 12).

The library gives answers and no chains. These come from procedures that solve the task as
its question puts it and never look at the answer: each writes down what it does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

TARGET = re.compile(r"(?:equals|make|Calculate) (\d+)")
NUMBERS = re.compile(r"numbers:? (\d+(?:, \d+)*)")


def signs_for(question: str) -> str:
    """A task of `countdown` that needs + and − only: which numbers to take away.

    Half of what the sum of all has too much is the sum of those that get a minus. Raises
    ValueError where no choice of signs reaches the target.
    """
    found = NUMBERS.search(question), TARGET.search(question)
    if not all(found):
        raise ValueError(f"no task of countdown: {question[:80]!r}")
    numbers = [int(number) for number in found[0][1].split(", ")]  # type: ignore[index]
    target, total = int(found[1][1]), sum(numbers)  # type: ignore[index]
    lines = [f"{'+'.join(map(str, numbers))}={total}"]
    places = range(len(numbers))
    for count in places:
        for taken in combinations(places, count):
            left = sum(numbers[place] for place in taken)
            if total - 2 * left != target:
                continue
            if taken:
                some = "+".join(str(numbers[place]) for place in taken)
                lines.append(f"{total}-{target}={2 * left}, half of it is {left}")
                lines.append(f"take away {some}")
            kept = [numbers[place] for place in places if place not in taken]
            said = " + ".join(map(str, kept))
            said += "".join(f" - {numbers[place]}" for place in taken)
            return "\n".join([*lines, rf"\boxed{{{said}}}"])
    raise ValueError(f"signs alone do not make {target} of {numbers}")


def who_lies(question: str, metadata: Mapping[str, Any]) -> str:
    """A task of `knights_knaves`: try the cases in order until every statement fits.

    `metadata` has the statements as trees, as the library drew them before it put them
    into words. Raises ValueError where no case fits.
    """
    names, terms = metadata["names"], metadata["knight_knave_terms"]
    lines = []
    for case in product((True, False), repeat=len(names)):
        kinds = [terms["knight" if honest else "knave"] for honest in case]
        told = ", ".join(f"{name} {kind}" for name, kind in zip(names, kinds, strict=True))
        holds = [_holds(statement, case) for statement in metadata["statements"]]
        said = ", ".join(
            f"{name} says {'true' if true else 'false'}"
            for name, true in zip(names, holds, strict=True)
        )
        fits = all(true == honest for true, honest in zip(holds, case, strict=True))
        lines.append(f"{told}: {said}, {'fits' if fits else 'no'}")
        if fits:
            words = [terms["a_knight" if honest else "a_knave"] for honest in case]
            parts = [f"{name} is {word}" for name, word in zip(names, words, strict=True)]
            answer = ", ".join(parts[:-1]) + f", and {parts[-1]}."
            return "\n".join([*lines, rf"\boxed{{{answer}}}"])
    raise ValueError(f"no case fits: {question[:80]!r}")


def _holds(statement: Sequence[Any], honest: Sequence[bool]) -> bool:
    kind, *parts = statement
    if kind in ("telling-truth", "lying"):
        return honest[parts[0]] == (kind == "telling-truth")
    values = [_holds(part, honest) for part in parts]
    return {
        "not": lambda: not values[0],
        "and": lambda: all(values),
        "or": lambda: any(values),
        "->": lambda: not values[0] or values[1],
        "<=>": lambda: values[0] == values[1],
    }[kind]()


PROCEDURES: dict[str, Callable[[str, Mapping[str, Any]], str]] = {
    "countdown": lambda question, metadata: signs_for(question),
    "knights_knaves": who_lies,
}


def worked_out(problem: Mapping[str, Any]) -> str:
    """The worked solution of a row of `problems.gym_rows`, whose family has a procedure."""
    metadata = json.loads(problem["answer"])["metadata"]
    return PROCEDURES[problem["subject"]](problem["question"], metadata)
