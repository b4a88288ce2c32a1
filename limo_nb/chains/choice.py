"""Which chains to keep, and which for comparison: the best, and levels of quality.

Of equal scores the shorter chain wins, a rule of ours (`ties` in `scoring.yaml`). LIMO v3
cuts chains in five levels of quality, L1 to L5; how, it does not say. Chapters 5 and 9.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from limo_nb.chains.measures import assess
from limo_nb.chains.scoring import Scale, chain_rules, count_words, weights
from limo_nb.problems import plain_answer


# ---------------------------------------------------------------- the best
def _order(row: Mapping[str, Any]) -> tuple:
    """Best first; of equal scores the shorter chain, then the earlier teacher and sample."""
    length = _tie(row["tokens"])
    return (-row["score"], length, row["question_id"], row.get("teacher", ""), row["sample"])


def _tie(length: float) -> float:
    """What is smaller for the better of two chains with the same score."""
    return {"shorter": length, "longer": -length}[chain_rules()["ties"]]


def _some(chains: Dataset) -> list[dict]:
    if not len(chains):
        raise ValueError("no chains to choose from")
    return sorted(chains.to_list(), key=_order)


def best_per_question(chains: Dataset) -> Dataset:
    """The best-scored chain of every question, best first."""
    best: dict[str, dict] = {}
    for row in _some(chains):
        best.setdefault(row["question_id"], row)
    return Dataset.from_list(list(best.values()))


def best_rows(chains: Dataset, n: int) -> Dataset:
    """The `n` best (question, chain) pairs, one per question; fewer if there are fewer."""
    if n < 1:
        raise ValueError(f"n is {n}, but a training set has at least one row")
    best = best_per_question(chains)
    return best.select(range(min(n, len(best))))


# ---------------------------------------------------------------- levels of quality
def levels(chains: Dataset, bands: int = 5, within: str = "question") -> Dataset:
    """Chains in `bands` bands of quality: column `band`, 1 (worst) to `bands` (best).

    Within "question" (our reading of L1 to L5): every question with at least `bands`
    different chains gives one chain to every band, evenly spaced in its own ranking, so
    that the bands differ in chains only. Within "pool": the scores of all questions
    together are cut into bands of equal size, so that the bands differ in questions too.
    Ordered by band, then question. Raises ValueError if no question qualifies.
    """
    if bands < 2:
        raise ValueError(f"bands is {bands}: quality needs at least two bands to differ")
    if within == "pool":
        rows = _pool_bands(_some(chains), bands)
    elif within == "question":
        rows = _question_bands(_some(chains), bands)
    else:
        raise ValueError(f'within is {within!r}: it may be "question" or "pool"')
    return Dataset.from_list(
        sorted(rows, key=lambda r: (r["band"], r["question_id"], _order(r)))
    )


def _question_bands(ranked: list[dict], bands: int) -> list[dict]:
    return [
        {**row, "band": band + 1}
        for rows in _worst_first(ranked, bands).values()
        for band, row in enumerate(_evenly(rows, bands))
    ]


def _worst_first(ranked: list[dict], least: int) -> dict[str, list[dict]]:
    """The chains of every question that has at least `least`, worst first."""
    groups: dict[str, list[dict]] = {}
    for row in reversed(ranked):
        groups.setdefault(row["question_id"], []).append(row)
    groups = {key: rows for key, rows in groups.items() if len(rows) >= least}
    if not groups:
        raise ValueError(
            f"no question has {least} different correct chains: sample more chains per question"
        )
    return groups


def _evenly(rows: Sequence[dict], n: int) -> list[dict]:
    """`n` of `rows`, evenly spaced, the first and the last among them."""
    return [rows[round(place * (len(rows) - 1) / (n - 1))] for place in range(n)]


def _pool_bands(ranked: list[dict], bands: int) -> list[dict]:
    if len(ranked) < bands:
        raise ValueError(f"{len(ranked)} chains cannot fill {bands} bands")
    worst_first = ranked[::-1]
    return [
        {**row, "band": 1 + place * bands // len(worst_first)}
        for place, row in enumerate(worst_first)
    ]


# ---------------------------------------------------------------- the control of length
def habits(row: Mapping[str, Any]) -> float:
    """The score of a chain without its length, scaled to lie between 0 and 1."""
    parts = {name: weight for name, weight in weights().items() if name != "length"}
    return sum(parts[name] * row[name] for name in parts) / sum(parts.values())


def matched_levels(chains: Dataset, bands: int = 2, tolerance: float = 0.1) -> Dataset:
    """The control beside `levels`: bands that differ in habits and not in length.

    Length is 30 % of the score, so L5 is longer than L1. Here every question gives the
    `bands` chains whose `habits` differ most among those whose token counts lie within
    `tolerance` of each other (ours; 0.1: the longest has at most 1.1 times the tokens of
    the shortest). Columns `habits` and `band`, 1 (poorest) to `bands`. Ordered by band,
    then question. Raises ValueError if no question has such chains.
    """
    if bands < 2 or tolerance < 0:
        raise ValueError(f"bands {bands}, tolerance {tolerance}: need at least 2, and 0")
    rows = [
        {**row, "band": band + 1}
        for group in _worst_first(_some(chains), bands).values()
        for band, row in enumerate(_widest(group, bands, tolerance))
    ]
    if not rows:
        raise ValueError(
            f"no question has {bands} chains within {tolerance:.0%} of the same length: "
            "sample more chains per question, or raise `tolerance`"
        )
    return Dataset.from_list(sorted(rows, key=lambda row: (row["band"], row["question_id"])))


def _widest(group: list[dict], bands: int, tolerance: float) -> list[dict]:
    """`bands` chains of equal length and the widest range of habits, poorest first."""
    rows = [{**row, "habits": round(habits(row), 9)} for row in group]
    best: list[dict] = []
    for shortest in rows:
        limit = shortest["tokens"] * (1 + tolerance)
        window = [row for row in rows if shortest["tokens"] <= row["tokens"] <= limit]
        window.sort(key=lambda row: (row["habits"], _order(row)))
        if len(window) >= bands and (not best or _range(window) > _range(best)):
            best = _evenly(window, bands)
    return best


def _range(rows: list[dict]) -> float:
    return rows[-1]["habits"] - rows[0]["habits"]


def levels_and_control(chains: Dataset, most: int = 5) -> dict[str, Dataset]:
    """`levels` and, as "matched", its control of equal length, as far as the chains allow.

    As many bands as ten questions, or half of them, can fill, at most `most`; a set that
    no question can fill is left out.
    """
    counts = np.array(list(Counter(chains["question_id"]).values()))
    enough = min(10, len(counts) / 2)
    bands = next((n for n in range(most, 1, -1) if (counts >= n).sum() >= enough), 0)
    if not bands:
        return {}
    found = {"levels": levels(chains, bands)}
    try:
        found["matched"] = matched_levels(chains)
    except ValueError:  # no two chains of a question are equally long
        pass
    return found


# ---------------------------------------------------------------- rows of any file
def score_rows(
    rows: Sequence[Mapping[str, Any]],
    bands: int = 5,
    within: str = "pool",
    scale: Scale | None = None,
    count: Callable[[str], float] = count_words,
) -> tuple[list[dict[str, Any]], Scale]:
    """(score, level, dimensions and measures of every row, the scale), in order.

    A row has question and solution. The scale is that of the rows unless given.

    `level` is the band of equal size, 1 (worst) to `bands`, in the ranking of all rows
    ("pool") or of those with the same question ("question"); None in a group of fewer
    than `bands`. Of equal scores the shorter chain is better, then the earlier. An
    `answer` lets `after_answer` be measured. `count`, which is that of `measure_chain`,
    tells lengths too.
    """
    if within not in ("pool", "question"):
        raise ValueError(f'within is {within!r}: it may be "question" or "pool"')
    found, scale = assess(
        [row["solution"] for row in rows],
        [plain_answer(row.get("answer")) for row in rows],
        [row.get("finished") for row in rows],
        scale,
        count=count,
    )
    groups: dict[Any, list[tuple]] = {}
    for place, (row, known) in enumerate(zip(rows, found, strict=True)):
        key = row["question"] if within == "question" else None
        rank = (known.score.total, -_tie(known.length), -place)
        groups.setdefault(key, []).append((rank, place))
    level = {
        place: 1 + rank * bands // len(group)
        for group in groups.values()
        if len(group) >= bands
        for rank, (_, place) in enumerate(sorted(group))
    }
    scored = [
        {"score": known.score.total, "level": level.get(place), **vars(known.score),
         **vars(known.measures)}
        for place, known in enumerate(found)
    ]  # fmt: skip
    return scored, scale
