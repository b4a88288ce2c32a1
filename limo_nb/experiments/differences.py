"""The arms of the experiment: which rows train which model, and what came of it.

The headline arms (chapter 6) are trained by DeepSpeed, all of them by one start; the
small arms of the ablations (chapter 9) by the same `Trainer` in a few resident
processes. Every arm keeps the learning rate, schedule and seeds of its profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from datasets import Dataset

from limo_nb.core.runs import (
    Artifact,
)
from limo_nb.evaluation import (
    estimates,
)
from limo_nb.experiments.variants import table

GROUPS: dict[str, Callable[[dict], bool]] = {
    "in domain": lambda row: row["in_domain"],
    "out of domain": lambda row: not row["in_domain"],
    "all": lambda row: True,
}


def differences(results: dict[str, list[Dataset]]) -> list[dict[str, Any]]:
    """Paired differences: limo against every other model, and each against its base."""
    pairs = [("limo", other) for other in results if other not in ("limo", "poor")]
    return paired(
        results, pairs + [("poor-limo", "poor"), ("bulk", "base"), ("random", "base")]
    )


def results_of(stage: Artifact, name: str) -> list[Dataset]:
    """The tables of one model in `evaluation` or `ablations`, one a fine-tuning seed."""
    files = sorted(stage.path.glob(f"results-{name}-[0-9]*.parquet"))
    return [table(path) for path in files]


def paired(
    results: dict[str, list[Dataset]],
    pairs: Iterable[tuple[str, str]],
    groups: Mapping[str, Callable[[dict], bool]] = GROUPS,
) -> list[dict[str, Any]]:
    """One row per pair and group: the left model's accuracy less the right one's.

    `groups` says which rows of the results belong to each group.
    """
    rows = []
    for left, right in pairs:
        for group, keep in groups.items():
            a, b = (_chosen(results[name], keep) for name in (left, right))
            facts = asdict(estimates.difference(a, b))
            rows.append({"model": left, "against": right, "group": group, **facts})
    return rows


def _chosen(tables: Sequence[Dataset], keep: Callable[[dict], bool]) -> list[Dataset]:
    return [t.select([i for i, row in enumerate(t) if keep(row)]) for t in tables]
