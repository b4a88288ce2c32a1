"""Paired differences between variants (chapters 8 and 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from datasets import Dataset

from limo_nb.evaluation import DifferenceRow, difference

Results = Mapping[str, Sequence[Dataset]]  # a variant's tables, one a training seed
Group = Callable[[Mapping[str, Any]], bool]  # whether a row of results belongs to it

GROUPS: dict[str, Group] = {
    "in domain": lambda row: row["in_domain"],
    "out of domain": lambda row: not row["in_domain"],
    "all": lambda row: True,
}


def headline_differences(results: Results) -> list[DifferenceRow]:
    """Paired differences: limo against every other model, and each against its base."""
    pairs = [("limo", other) for other in results if other not in ("limo", "poor")]
    return paired(
        results, pairs + [("poor-limo", "poor"), ("bulk", "base"), ("random", "base")]
    )


def paired(
    results: Results,
    pairs: Iterable[tuple[str, str]],
    groups: Mapping[str, Group] = GROUPS,
    together: int = 1,
) -> list[DifferenceRow]:
    """One row per pair and group: the left model's accuracy less the right one's.

    `groups` says which rows of the results belong to each group, and `together` how many
    differences are read together (`evaluation.difference`).
    """
    rows = []
    for left, right in pairs:
        for group, belongs in groups.items():
            a, b = (_part(results[name], belongs) for name in (left, right))
            named = {"model": left, "against": right, "group": group}
            rows.append(cast(DifferenceRow, named | vars(difference(a, b, together=together))))
    return rows


def _part(tables: Sequence[Dataset], belongs: Group) -> list[Dataset]:
    return [
        table.select([place for place, row in enumerate(table) if belongs(row)])
        for table in tables
    ]
