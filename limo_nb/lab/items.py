"""The lab's problems as rows: pool, benchmarks, and a ladder of difficulty."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

from limo_nb.lab.world import FAMILIES, IN_DOMAIN, MAX_STEPS, LabProblem, draw

BENCHMARK_SEED = 2025
# Steps of the benchmarks' problems: those at which the foundation, asked held-out problems at
# the foot of a textbook page, comes nearest to 65 % right (benchmarks/lab_room.py).
STEPS_TESTED = {
    "dial": (10, 16), "purse": (6, 12), "months": (2, 8), "grid": (2, 8),
    "recurrence": (9, 15), "swaps": (2, 8), "arrows": (3, 9), "substitution": (10, 16),
    "queue": (2, 8), "colours": (6, 12),
}  # fmt: skip
POOL_STEPS = 12  # the most of a problem in the pool
LADDER = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16)  # numbers of steps at which models are looked at
MANY_STEPS = (6, MAX_STEPS)  # what chapter 2 calls many steps


def benchmark_problems(items: int) -> Iterator[tuple[str, LabProblem]]:
    """(id, problem) of ten benchmarks, one a family, of `items` problems each.

    Their numbers of steps are those of `STEPS_TESTED`, in turn. All belong to the test
    split; a smaller `items` takes a prefix of each.
    """
    for family in FAMILIES:
        rng = random.Random(f"{BENCHMARK_SEED}/{family}")
        seen: set[str] = set()
        while len(seen) < items:
            low, high = STEPS_TESTED[family]
            problem = draw(rng, family, low + len(seen) % (high - low + 1), "test")
            if problem.key in seen:
                continue
            yield f"lab-{family}-{len(seen):03d}", problem
            seen.add(problem.key)


def benchmarks(items: int) -> list[dict[str, Any]]:
    """The problems of `benchmark_problems` as rows of a problem with its benchmark.

    Columns are those of a problem, `benchmark` and `in_domain`. No training text contains
    one of them.
    """
    return [
        _row(
            problem, identifier, benchmark=problem.family,
            in_domain=problem.family in IN_DOMAIN,
        )
        for identifier, problem in benchmark_problems(items)
    ]  # fmt: skip


def ladder(items: int, seed: int, levels: Iterable[int] = LADDER) -> list[dict[str, Any]]:
    """`items` problems of every family and number of steps, none of them in a benchmark.

    For looking at models by difficulty (chapter 2) and for choices made before any
    benchmark is seen (learning rates). Of the test split, so no training text has them;
    families with few short problems give fewer.
    """
    taken = {row["question"] for row in benchmarks(40)}
    rows: list[dict[str, Any]] = []
    for family in FAMILIES:
        rng = random.Random(f"ladder/{seed}/{family}")
        for level in levels:
            drawn = (draw(rng, family, level, "test") for _ in range(20 * items))
            fresh = {p.key: p for p in drawn if p.question not in taken}
            for problem in list(fresh.values())[:items]:
                row = _row(problem, f"ladder-{seed}-{family}-{level}-{len(rows)}")
                rows.append({**row, "benchmark": family, "in_domain": family in IN_DOMAIN})
    return rows


def pool(size: int, seed: int) -> list[dict[str, Any]]:
    """`size` problems of the in-domain families with 1 to 12 steps, as a crawl finds them.

    One in thirty is a copy of an earlier row and one in sixty a benchmark problem, both
    with other spacing or case: what chapter 3 is there to find.
    """
    rng = random.Random(f"pool/{seed}")
    leaked = [row for row in benchmarks(40) if row["in_domain"]]
    rows: list[dict[str, Any]] = []
    while len(rows) < size:
        identifier = f"pool-{seed}-{len(rows):05d}"
        chance = rng.random()
        if rows and chance < 1 / 30:
            copy = rng.choice(rows)
            rows.append(
                {**copy, "id": identifier, "question": _disguise(rng, copy["question"])}
            )
        elif chance < 1 / 30 + 1 / 60:
            copy = rng.choice(leaked)
            row = {key: copy[key] for key in copy if key not in ("benchmark", "in_domain")}
            rows.append({**row, "id": identifier, "question": _disguise(rng, copy["question"])})
        else:
            family = rng.choice(IN_DOMAIN)
            problem = draw(rng, family, rng.randint(1, POOL_STEPS), "train")
            rows.append(_row(problem, identifier))
    return rows


def _disguise(rng: random.Random, question: str) -> str:
    """The same question with other white space or case."""
    return rng.choice(
        (question, question.replace(". ", ".  "), question.upper(), question + " ")
    )


def _row(problem: LabProblem, identifier: str, **more: Any) -> dict[str, Any]:
    """`problem` in the columns of a pool, and `more` columns."""
    return {
        "id": identifier,
        "question": problem.question,
        "answer": problem.answer,
        "solution": f"\\boxed{{{problem.answer}}}",  # short, as official keys are
        "source": "lab",
        "subject": problem.family,
        "level": problem.level,
        **more,
    }


def worked_prompt(question: str) -> str:
    """The opening of a textbook page that the foundation can continue (chapter 2)."""
    return f"Exercise. {question}\nSolution.\n"
