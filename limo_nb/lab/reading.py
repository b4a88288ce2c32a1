"""What the lab's models read: training pages, drawn from seeds and the training split.

Pages are drawn in chunks, each from a seed of its own, and the shipped logs say how far
difficulty had been raised at every chunk; so all problems that a model was trained on can
be listed, and a test compares them with those it is tested on. Chapters 1 and 2.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from limo_nb.lab import shipped, texts
from limo_nb.lab.recipe import Phase, PhaseName, recipes
from limo_nb.lab.world import FAMILIES, LabProblem, draw

DOCUMENTS_PER_CHUNK = 256

Page = tuple[LabProblem | None, texts.Document]  # facts belong to no problem


def page(rng: random.Random, kind: str, steps: int) -> Page:
    """One training page of `kind`, and its problem, which is of the training split."""
    if kind == "facts":
        return None, texts.fact_page(rng)
    problem = draw(rng, rng.choice(tuple(FAMILIES)), steps, "train")
    if kind == "worked":
        return problem, texts.worked_page(rng, problem)
    if kind == "foreign":
        return problem, texts.foreign_page(rng, problem)
    if kind == "foreign_chat":
        return problem, texts.chat_page(rng, problem, texts.foreign_solution(rng, problem))
    if kind == "told":
        return problem, texts.told_page(rng, problem)
    if kind == "drill":
        return problem, texts.drill_page(rng, problem)
    if kind == "terse":
        return problem, texts.terse_page(rng, problem)
    if kind == "terse_chat":
        return problem, texts.chat_page(rng, problem, texts.terse(problem))
    if kind == "worked_chat":
        manner = texts.draw_reasoner_manner(rng)
        return problem, texts.chat_page(
            rng, problem, texts.worked_solution(rng, problem, manner)
        )
    raise ValueError(f"unknown kind of page: {kind}")


def chunk_pages(rng: random.Random, phase: Phase, max_steps: int) -> list[tuple[str, Page]]:
    """The pages of one chunk with their kinds, in the order in which they are drawn.

    Each page has random numbers of its own, so that the places of a chunk hold the same
    problems whatever kind of page is made of them.
    """
    kinds, shares = zip(*phase.pages.items(), strict=True)
    return [
        (kind, page(random.Random(rng.random()), kind, rng.randint(1, max_steps)))
        for kind in rng.choices(kinds, shares, k=DOCUMENTS_PER_CHUNK)
    ]


def chunk_rng(seed: int, index: int) -> random.Random:
    """The random numbers of chunk `index`: a run that continues draws the same pages."""
    return random.Random(f"{seed}/{index}")


def problems_read(name: str) -> Iterator[tuple[str, LabProblem]]:
    """(kind of page, problem) of every page that model `name` was trained on.

    Where a recipe starts from another, the pretraining of that one comes first. Single
    steps on pages of facts are no problems and are left out.
    """
    yield from _drawn_again(recipes()[name].start_from or name, "pretrain")
    yield from _drawn_again(name, "tune")


def _drawn_again(name: str, which: PhaseName) -> Iterator[tuple[str, LabProblem]]:
    phase, seed = recipes()[name].phase(which)
    lines = (shipped.model_path(name) / "log.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["phase"] == which]
    for index, row in enumerate(rows):
        for kind, (problem, _) in chunk_pages(chunk_rng(seed, index), phase, row["max_steps"]):
            if problem is not None:
                yield kind, problem
