"""The recipes of the lab's models: every number that shapes one, read from `recipes.yaml`.

A model is made in two phases: *pretraining* on pages of textbooks, *tuning* on chats.
Chapter 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Literal

import yaml

from limo_nb.lab.world import MAX_STEPS

PhaseName = Literal["pretrain", "tune"]


@dataclass(frozen=True)
class Phase:
    """One training phase: which pages, how many tokens, which step sizes."""

    pages: dict[str, float]  # kind of page -> share of the documents
    tokens: int  # tokens read, padding not counted
    batch_tokens: int  # padded tokens per step
    matrix_lr: float  # Muon, for the matrices inside the layers; 0: AdamW for all
    other_lr: float  # AdamW, for embeddings and norms
    curriculum: float = 0.0  # share of the tokens over which difficulty is raised
    context_loss: float = 0.1  # share of the context's tokens that carry loss
    max_steps: int = MAX_STEPS  # of the problems on its pages

    def difficulty(self, tokens: int) -> int:
        """The most steps of a problem once `tokens` are read: raised along the curriculum."""
        progress = tokens / self.tokens
        reach = min(1.0, progress / self.curriculum) if self.curriculum else 1.0
        return max(2, math.ceil(self.max_steps * reach))

    def rate(self, tokens: int) -> float:
        """The share of the peak step size once `tokens` are read.

        Warm-up over 1 %, constant to the half, then linear to zero.
        """
        progress = min(1.0, tokens / self.tokens)
        return min(1.0, progress / 0.01 + 0.01) * min(1.0, 2.0 * (1.0 - progress))


@dataclass(frozen=True)
class Recipe:
    """A lab model: its shape, and the phases that make it."""

    name: str
    stands_for: str
    seed: int
    shape: dict[str, int]
    pretrain: Phase
    tune: Phase
    start_from: str = ""  # take the pretrained weights of this recipe

    def phase(self, name: PhaseName) -> tuple[Phase, int]:
        """Phase `name` and its seed."""
        return (self.pretrain, self.seed) if name == "pretrain" else (self.tune, self.seed + 1)


def doses() -> dict[int, str]:
    """The foundations that differ in the number of tokens they read: millions -> name."""
    main = recipes()["foundation"]
    alike = {
        name: own for name, own in recipes().items()
        if replace(own.pretrain, tokens=0) == replace(main.pretrain, tokens=0)
        and (own.seed, own.shape, own.tune) == (main.seed, main.shape, main.tune)
    }  # fmt: skip
    return dict(sorted((own.pretrain.tokens // 10**6, name) for name, own in alike.items()))


@cache
def recipes() -> dict[str, Recipe]:
    """All recipes, by name."""
    raw = yaml.safe_load(resources.files("limo_nb.lab").joinpath("recipes.yaml").read_text())
    shapes, phases = raw["shapes"], raw["phases"]
    return {
        name: Recipe(
            name=name,
            stands_for=row["stands_for"],
            seed=row["seed"],
            shape=shapes[row["shape"]],
            pretrain=Phase(**{**phases[row["pretrain"]], **row.get("budget", {})}),
            tune=Phase(**phases[row["tune"]]),
            start_from=row.get("start_from", ""),
        )
        for name, row in raw["models"].items()
    }
