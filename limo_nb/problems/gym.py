"""Problems drawn from reasoning-gym, whose texts may be shown (chapters 3 and 12).

A task depends on its family, the family's configuration and a seed, and on nothing else: it
is drawn in a worker process with a fixed order of hashes and with all random states set, so
the same seed gives the same rows on every machine that has the same versions.

Training and test tasks come from different seeds, and that is not enough: a family with
few tasks draws the same one from many seeds. So the text decides, by a hash of its normal
form, to which part a task belongs. No pool has a question of a benchmark, whatever seeds,
sizes and configurations they have.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import zip_longest
from typing import Any, Literal

import yaml
from datasets import Dataset

from limo_nb.grading.gym import (
    LOAD,
    checked_config,
    draw_task,
    gym_reference,
    told_answer,
)
from limo_nb.grading.isolation import in_workers
from limo_nb.problems.schema import COLUMNS, Problem
from limo_nb.problems.text import normalise

Part = Literal["train", "test"]
REGION = 1 << 20  # seeds of a part
SEEDS = (1 << 31) // REGION  # NumPy takes 32 bits, and there are two parts
TEST_SHARE = 4  # one question in so many is a test question
SECONDS = 20.0  # of processor time for one task
WORKERS = 2
FRUITLESS = 10  # times the draws that should do, after which a family has no more


@cache
def gym_facts() -> dict[str, Any]:
    """What `gym.yaml` says: families in and out of domain; seed and items of benchmarks."""
    return yaml.safe_load(resources.files("limo_nb.problems").joinpath("gym.yaml").read_text())


def gym_pool(families: Mapping[str, Mapping[str, Any]], size: int, seed: int) -> Dataset:
    """`size` training problems in equal parts of `families` (those in domain if none).

    Raises ValueError for a family or a value that reasoning-gym does not have.
    """
    rows = gym_rows(families or gym_facts()["in_domain"], size, seed, "train")
    return Dataset.from_list(rows, features=COLUMNS)


def gym_rows(
    families: Mapping[str, Mapping[str, Any]], size: int, seed: int, part: Part
) -> list[Problem]:
    """`size` problems of `part` with different questions, the families in turn.

    `families` says the configuration of each (`grading.gym.checked_config`). A family that
    has too few tasks gives those that it has, with a warning that counts them; one that has
    none is a ValueError.
    """
    if not 0 <= seed < SEEDS:
        raise ValueError(f"the gym takes seeds from 0 to {SEEDS - 1}, not {seed}")
    share, more = divmod(size, len(families))
    wanted = [
        Wanted(family, checked_config(family, values or {}), share + (number < more), part)
        for number, (family, values) in enumerate(families.items())
    ]
    first = (2 * seed + (part == "test")) * REGION
    while rows := [(own, number) for own in wanted for number in own.next_numbers()]:
        calls = [(own.family, json.dumps(own.config), first, number) for own, number in rows]
        found = in_workers(draw_task, calls, WORKERS, SECONDS, LOAD, ("tasks", "drawing"))
        for (own, number), (task, why) in zip(rows, found, strict=True):
            own.take(first + number, task, why)
    for own in wanted:
        own.tell()
    levels = {family: (values or {}).get("level", 0) for family, values in families.items()}
    drawn = (
        [_row(own, levels[own.family], *task) for task in own.tasks.items()] for own in wanted
    )
    return [row for turn in zip_longest(*drawn) for row in turn if row is not None]


@dataclass
class Wanted:
    """The tasks that are wanted of a family, and those that were drawn so far."""

    family: str
    config: Mapping[str, Any]
    count: int
    part: Part
    tasks: dict[int, dict[str, Any]] = field(default_factory=dict)  # by seed
    seen: set[str] = field(default_factory=set)  # normal forms of questions
    drawn: int = 0
    other: int = 0  # draws that belong to the other part
    failed: str = ""

    def next_numbers(self) -> range:
        """What to draw next, counted from the region's first seed; nothing at the end."""
        rate = TEST_SHARE if self.part == "test" else TEST_SHARE / (TEST_SHARE - 1)
        most = min(REGION, FRUITLESS * round(rate * self.count) + 50)
        lacking = self.count - len(self.tasks)
        start = self.drawn
        if lacking:
            # Each round is larger than all before it: it takes a second, whatever it draws.
            self.drawn = min(most, start + max(8, round(1.1 * rate * lacking), 3 * start))
        return range(start, self.drawn)

    def take(self, seed: int, task: dict[str, Any] | None, why: str) -> None:
        """Keep `task` if it is of the part, new, and still wanted."""
        if task is None:
            self.failed = why
            return
        text = normalise(task["question"])
        own = part_of(text) == self.part
        if own and text not in self.seen and len(self.tasks) < self.count:
            self.tasks[seed] = task
        self.other += not own
        self.seen.add(text)

    def tell(self) -> None:
        """Warn where the family had too few tasks; raise ValueError where it had none."""
        if len(self.tasks) == self.count:
            return
        why = f"; some failed: {self.failed}" if self.failed else ""
        told = (
            f"{self.family}: {len(self.tasks)} different questions for the {self.part} part "
            f"in {self.drawn} draws, {self.count} were wanted ({len(self.seen)} different "
            f"ones in all, {self.other} draws were of the other part{why}): widen its "
            "configuration, or ask for fewer"
        )
        if not self.tasks:
            raise ValueError(told)
        warnings.warn(told, stacklevel=3)


def part_of(text: str) -> Part:
    """Whether the question with this normal form is for training or for tests."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return "test" if int.from_bytes(digest, "big") % TEST_SHARE == 0 else "train"


def _row(own: Wanted, level: int, seed: int, task: Mapping[str, Any]) -> Problem:
    reference = gym_reference(own.family, own.config, task["answer"], task["metadata"])
    told = told_answer(reference)
    return {
        "id": f"gym-{own.family}-{seed}",
        "question": task["question"].strip(),
        "answer": reference,
        "solution": rf"\boxed{{{told}}}" if told else "",
        "source": "gym",
        "subject": own.family,
        "level": level,
    }
