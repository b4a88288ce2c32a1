"""Which benchmark items a problem resembles in meaning: a list to look at (chapter 3).

N-grams find copies, and no paraphrase. Sentence embeddings find paraphrases, and with them
whatever has the same subject: an exercise with other numbers is as near as one in other
words. So nothing falls by this; a person decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
from datasets import Dataset
from sklearn.neighbors import NearestNeighbors


class Resemblance(TypedDict):
    """A problem, an item that is near it, and both texts."""

    id: str
    counterpart: str  # the item's id
    similarity: float  # the cosine of their embeddings, -1 to 1
    question: str
    item: str


def nearest_items(
    pool: Dataset,
    benchmark_rows: Dataset,
    embed: Callable[[Sequence[str]], np.ndarray],
    top: int = 3,
    least: float = 0.7,
) -> list[Resemblance]:
    """The pairs of a problem and one of its `top` nearest items, most alike first.

    Both tables have `id` and `question`. `embed` makes vectors (texts, width) of length 1, as
    `selection.embed` with a model does; pairs have a cosine of `least` or more.
    """
    questions, items = pool["question"][:], benchmark_rows["question"][:]
    if not questions or not items:
        return []
    index = NearestNeighbors(n_neighbors=min(top, len(items)), metric="cosine")
    distances, places = index.fit(embed(items)).kneighbors(embed(questions))
    ids, names = pool["id"][:], benchmark_rows["id"][:]
    pairs = [
        Resemblance(
            id=ids[row], counterpart=names[item], similarity=round(float(1 - distance), 4),
            question=questions[row], item=items[item],
        )
        for row, (own, far) in enumerate(zip(places, distances, strict=True))
        for item, distance in zip(own.tolist(), far, strict=True)
        if 1 - distance >= least
    ]  # fmt: skip
    return sorted(pairs, key=lambda pair: -pair["similarity"])
