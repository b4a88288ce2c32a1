"""What decontamination takes of a pool, by n and by how much is shared (chapter 3).

For readers without the real pools the package has the counts of one run, and what a list
by sentence embeddings held of a hundred paraphrases: figures only.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import product
from typing import Any, TypedDict

from datasets import Dataset

from limo_nb.problems.cleaning import decontaminate
from limo_nb.problems.contamination import COMMON

SHARES = {"half or more": 0.5, "a fifth or more": 0.2, "less than a fifth": 0.0}


class Catch(TypedDict):
    """How many problems of one source fall for n words in a row."""

    n: int
    phrases: str  # common ones: "counted" or "left out"
    source: str
    share: str  # a key of SHARES: the larger of both sides' shares
    problems: int


def count_catches(
    pool: Dataset, benchmark_rows: Dataset, sizes: Sequence[int] = (8, 13)
) -> list[Catch]:
    """The problems of `pool` that fall, with common phrases counted as evidence and not."""
    source = dict(zip(pool["id"][:], pool["source"][:], strict=True))
    rows = []
    for n, (phrases, common) in product(sizes, (("counted", 0), ("left out", COMMON))):
        fell = decontaminate(pool, benchmark_rows, n, common=common).dropped
        found = Counter((source[row["id"]], _share(row)) for row in fell)
        for name, share in product(dict.fromkeys(source.values()), SHARES):
            rows.append(Catch(n=n, phrases=phrases, source=name, share=share,
                              problems=found[name, share]))  # fmt: skip
    return rows


def _share(drop: dict[str, Any]) -> str:
    share = max(drop["overlap"], drop["quoted"])
    return next(name for name, least in SHARES.items() if share >= least)


@cache
def recorded_catches() -> dict[str, Any]:
    """The figures of `benchmarks/contamination.py --record`.

    `problems`, `items`, `catches`; and `paraphrases`, a row for each similarity. With the
    `commands` that made them and the `date`.
    """
    made = resources.files("limo_nb.problems").joinpath("recorded.json").read_text("utf-8")
    return json.loads(made)
