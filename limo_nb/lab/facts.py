"""Single facts of the lab's world, to ask a model what it knows. Chapter 2."""

from __future__ import annotations

import random

from limo_nb.lab.texts import fact
from limo_nb.lab.world import FAMILIES

TOLD_ONLY = ("arrows",)  # where a road leads is said by its problem, so it is no fact


def single_facts(per_family: int, seed: int) -> list[dict[str, str]]:
    """Up to `per_family` different facts of each family: id, benchmark, given, follows.

    For example given "plus 4: 7+4", follows "=1.".
    """
    rows = []
    for family in FAMILIES:
        if family in TOLD_ONLY:
            continue
        rng = random.Random(f"facts/{seed}/{family}")
        pairs = dict(fact(rng, family) for _ in range(20 * per_family))
        for number, (given, follows) in enumerate(list(pairs.items())[:per_family]):
            name = {"id": f"fact-{family}-{number}", "benchmark": family}
            rows.append({**name, "given": given, "follows": follows})
    return rows
