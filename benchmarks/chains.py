"""Scoring many chains: one process beside one a core, and choosing questions among as many.

`python benchmarks/chains.py --chains 200000` makes chains of the lab's textbooks with an answer
each, scores them both ways, chooses 800 of as many questions, and prints seconds, ratios and
peak memory (of the process and its children).
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from unittest.mock import patch

from datasets import Dataset

from limo_nb import lab, selection
from limo_nb.chains import choice, measures
from limo_nb.lab import texts, world


def rows_of(count: int) -> list[dict]:
    """`count` different problems of the lab with a worked page and its answer."""
    rng, rows = random.Random(1), []
    families = sorted(lab.STEPS_TESTED)
    for number in range(count):
        problem = world.draw(rng, rng.choice(families), rng.randint(4, 12), "train")
        page = "".join(text for text, _ in texts.worked_page(rng, problem).spans)
        rows.append(
            {"id": str(number), "question": problem.question, "solution": page,
             "answer": str(problem.answer), "subject": problem.family, "level": 4 + number % 9}
        )  # fmt: skip
    return rows


def seconds(function, *given) -> float:
    """How long a call takes."""
    began = time.monotonic()
    function(*given)
    return time.monotonic() - began


def peak() -> float:
    """The most memory of this process or one of its children, in GiB."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=200_000)
    parser.add_argument("--chosen", type=int, default=800)
    given = parser.parse_args()
    rows = rows_of(given.chains)
    words = sum(len(row["solution"].split()) for row in rows) / len(rows)
    print(f"{len(rows):,} chains of {words:.0f} words; memory {peak():.2f} GiB")
    several = seconds(choice.score_rows, rows)
    print(f"score, a process a core: {several:.1f} s, memory {peak():.2f} GiB")
    with patch.object(measures, "IN_PARTS_FROM", len(rows) + 1):
        alone = seconds(choice.score_rows, rows)
    print(f"score, one process: {alone:.1f} s, ratio {alone / several:.2f}")
    table = Dataset.from_list(rows)
    del rows
    chosen = seconds(selection.select, table, given.chosen, 1)
    print(f"select {given.chosen} of {len(table):,}: {chosen:.1f} s, memory {peak():.2f} GiB")


if __name__ == "__main__":
    main()
