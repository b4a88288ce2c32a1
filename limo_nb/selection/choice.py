"""A choice of questions that is balanced, and in which none repeats another (chapter 4).

LIMO v1 says that it balanced domains and complexity and avoided redundancy, and gives no
rule: this one is ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import numpy as np
from datasets import Dataset
from scipy.sparse import csr_array, vstack
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import row_norms

from limo_nb.core.progress import progress_bar
from limo_nb.inference import load_tokenizer, quiet_bars, source_of

FEATURES = 2**12  # of questions that are compared
GRID = 2**22  # steps of a coordinate: products of two have 44 bits, a float has 53
PART = 1000  # texts whose features are a dense table at a time
SHOWN_FROM = 20_000  # questions from which the choice takes long enough for a progress bar

Vectors: TypeAlias = "np.ndarray | csr_array"  # (questions, width), rows of length 1
Cell = tuple[str, int]  # subject, level


# ---------------------------------------------------------------- the choice
def select(problems: Dataset, k: int, seed: int, vectors: np.ndarray | None = None) -> Dataset:
    """`k` problems spread evenly over subject and level, each unlike those chosen before.

    Subject–level cells take turns in a seeded order; a cell whose turn it is gives the
    problem whose nearest chosen one is farthest (cosine of `tfidf` rows), so that what is
    left out is what is already there. Rows come in the order of choice with two columns
    more: `similarity` to the nearest earlier choice (0 to 1) and `reason`. Deterministic,
    and independent of the order of `problems`. All problems are kept if there are no more
    than `k`. `vectors` (problems, width), as `embed` makes them, take the place of TF-IDF.

    Raises ValueError for no problems, a `k` below 1, or vectors that do not fit.
    """
    if not len(problems):
        raise ValueError("no problems to choose from: the filters left none")
    if k < 1:
        raise ValueError(f"k is {k}, but at least one question must be chosen")
    names = problems["id"][:]
    places = sorted(range(len(names)), key=names.__getitem__)
    problems = problems.select(places)
    if vectors is None:
        compared: Vectors = tfidf(problems["question"][:])
    else:
        compared = _directions(vectors, len(problems))[places]
    cells, rng = _cells(problems), np.random.default_rng(seed)
    takers = [cells[sorted(cells)[place]] for place in rng.permutation(len(cells))]
    first = int(rng.choice(takers[0]))  # nothing to be far from yet
    order, similarities = _farthest_first(compared, _turns(takers, k), first)
    sizes = {cell: len(members) for cell, members in cells.items()}
    rows = zip(problems.select(order).to_list(), similarities, strict=True)
    return Dataset.from_list(
        [
            {**row, "similarity": near, "reason": _why_kept(row, sizes, near, first=not turn)}
            for turn, (row, near) in enumerate(rows)
        ]
    )


def _turns(cells: Sequence[list[int]], k: int) -> list[list[int]]:
    """The cell of each turn: round by round, those left out that have given all they have."""
    turns = [(i, place) for place, cell in enumerate(cells) for i in range(len(cell))]
    return [cells[place] for _, place in sorted(turns)[:k]]


def _farthest_first(
    vectors: Vectors, turns: list[list[int]], first: int
) -> tuple[list[int], list[float]]:
    """The row taken at each turn, and its similarity to the nearest one taken before.

    Gonzalez's farthest-first traversal (1985), with the choice of a turn limited to its
    cell; of equal distances the earlier row wins. Libraries have it for dense tables only.
    """
    squares = row_norms(vectors, squared=True)
    nearest = np.full(len(squares), np.inf)  # squared distance to what was taken
    order, taken_at = [first], [np.inf]
    large = len(squares) >= SHOWN_FROM
    with progress_bar(len(turns), "questions", "choosing") if large else nullcontext() as bar:
        for cell in turns[1:]:
            last = order[-1]
            row: Any = vectors[[last]]
            products = vectors @ (row if isinstance(row, np.ndarray) else row.toarray())[0]
            np.minimum(nearest, squares + squares[last] - 2 * products, out=nearest)
            nearest[last] = -np.inf  # it may not be taken again
            best = int(np.argmax(nearest[cell]))
            order.append(cell[best])
            taken_at.append(nearest[cell[best]])
            if bar is not None:
                bar.update()
    return order, np.clip(1 - np.array(taken_at) / 2, 0, 1).tolist()


def _why_kept(row: dict, sizes: dict[Cell, int], similarity: float, first: bool) -> str:
    size = sizes[row["subject"], row["level"]]
    turn = (
        f"kept because {row['subject']}, level {row['level']} ({size} candidates) had its turn"
    )
    if first:
        return f"{turn}, the first of all"
    return f"{turn} and this one is {similarity:.2f} similar to its nearest earlier choice"


def cells_in_effect(problems: Dataset) -> float:
    """The effective number of subject–level cells: the exponential of their entropy.

    Equal to the number of cells where all are equally full; 1 where one holds everything.
    """
    sizes = np.array([len(places) for places in _cells(problems).values()])
    share = sizes / sizes.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _cells(problems: Dataset) -> dict[Cell, list[int]]:
    """Subject and level → the rows that have them."""
    cells: dict[Cell, list[int]] = defaultdict(list)
    columns = problems["subject"][:], problems["level"][:]
    for place, cell in enumerate(zip(*columns, strict=True)):
        cells[cell].append(place)
    return cells


# ---------------------------------------------------------------- what is compared
def _directions(vectors: np.ndarray, rows: int) -> np.ndarray:
    """`vectors` at length 1, on a grid on which their products are exact.

    The order of a sum does not matter then, nor does the processor or the number of
    threads: of equal distances the earlier row wins, everywhere.
    """
    table = np.asarray(vectors, float)
    if table.ndim != 2 or len(table) != rows or table.shape[1] < 2:
        raise ValueError(f"vectors of shape {table.shape}: need {rows} rows of 2 or more")
    if not np.isfinite(table).all() or not table.any(axis=1).all():
        raise ValueError("a question is blank, or its vector zero or not finite")
    return np.round(normalize(table) * GRID) / GRID


def tfidf(texts: list[str]) -> csr_array:
    """TF-IDF (texts, `FEATURES`), sparse, of length 1, of n-grams of 2 to 4 characters.

    Of characters, so that Chinese needs no word splitter; hashed into so many features,
    so that memory does not grow with the vocabulary. Of 400 lab questions a cosine is off
    by 0.01 on average, by 0.07 at most.
    """
    vectorizer = HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), n_features=FEATURES, norm=None
    )
    parts = [vectorizer.transform(texts[i : i + PART]) for i in range(0, len(texts), PART)]
    weights = TfidfTransformer().fit(vstack(parts))
    for place, counts in enumerate(parts):
        dense = weights.transform(counts).toarray()
        parts[place] = csr_array(_directions(dense, len(dense)))
    return vstack(parts, format="csr")


def embed(texts: Sequence[str], model: str, batch_size: int = 64) -> np.ndarray:
    """Sentence embeddings (texts, width) of length 1: mean last hidden states of `model`.

    `model` is a Hub id, a folder or `lab:NAME`. Any language model will do; one that was
    trained for sentences, with mean pooling, does better. Raises ValueError where there is
    no such model.
    """
    import torch

    network, tokenizer = _encoder(model)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # little padding
    rows = []
    with progress_bar(len(texts), "texts", "embedded") as bar:
        for start in range(0, len(texts), batch_size):
            part = [texts[place] for place in order[start : start + batch_size]]
            given = tokenizer(
                part, return_tensors="pt", padding=True, padding_side="right", truncation=True
            )
            given = {name: given[name] for name in ("input_ids", "attention_mask")}
            with torch.inference_mode():
                states = network(**given).last_hidden_state
            mask = given["attention_mask"][:, :, None]
            mean = (states * mask).sum(1) / mask.sum(1)
            rows.append(torch.nn.functional.normalize(mean, dim=-1).numpy())
            bar.update(len(part))
    return np.concatenate(rows)[np.argsort(order)]


def _encoder(model: str) -> tuple[Any, Any]:
    """(network without a head, tokenizer) of `model`."""
    import torch
    from transformers import AutoModel

    try:
        source, revision = source_of(model, weights=True)
        with quiet_bars():
            network = AutoModel.from_pretrained(source, revision=revision, dtype=torch.float32)
        return network.eval(), load_tokenizer(model)
    except (OSError, ValueError) as error:  # no folder, no Hub, no model in what was found
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"no model for embeddings at {model!r}: name a folder with config.json, weights "
            f"and tokenizer, `lab:NAME`, or a Hub id while online ({first})"
        ) from error
