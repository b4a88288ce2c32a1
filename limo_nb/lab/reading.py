"""What the lab's models have read: their training pages, drawn again (chapter 1).

Pages are drawn from seeds, and the shipped logs say how far difficulty had been raised at
every chunk; so all problems that a model was trained on can be listed, and a test compares
them with those it is tested on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from limo_nb.lab import shipped
from limo_nb.lab.pretrain import (
    Phase,
    chunk_rng,
    pages,
    recipes,
)
from limo_nb.lab.world import LabProblem


def problems_read(name: str) -> Iterator[tuple[str, LabProblem]]:
    """(kind of page, problem) of every page that model `name` was trained on.

    Where a recipe starts from another, the pretraining of that one comes first. Single
    steps on pages of facts are no problems and are left out.
    """
    recipe = recipes()[name]
    if recipe.start_from:
        yield from _drawn(recipe.start_from, "pretrain")
    else:
        yield from _drawn(name, "pretrain")
    yield from _drawn(name, "tune")


def _drawn(name: str, which: str) -> Iterator[tuple[str, LabProblem]]:
    recipe = recipes()[name]
    phase: Phase = getattr(recipe, which)
    seed = recipe.seed + (which == "tune")
    lines = (shipped.model_path(name) / "log.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["phase"] == which]
    for index, row in enumerate(rows):
        for kind, (problem, _) in pages(chunk_rng(seed, index), phase, row["max_steps"]):
            if problem is not None:
                yield kind, problem
