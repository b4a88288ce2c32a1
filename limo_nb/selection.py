"""Choosing questions: filter by solving, then balance and avoid redundancy.

A question is judged by what models make of it, never by what its author or generator
knows about its difficulty (LIMO v3, section 3.1). Chapter 4.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from scipy.stats import beta
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.preprocessing import normalize
from skmatter.sample_selection import FPS

from limo_nb.generation import (
    Engine,
    chat_prompt,
    complete,
    load_tokenizer,
    open_engine,
    quiet_bars,
    shared_store,
    source_of,
)
from limo_nb.problems import DROPPED, Sieved
from limo_nb.profiles import EngineSettings, FilterSettings, Sampling
from limo_nb.progress import progress
from limo_nb.verifiers import MATHEMATICS, Verifier

CONFIDENCE = 0.95
FEATURES = 2**12  # of questions that are compared
GRID = 2**22  # steps of a coordinate: products of two have 44 bits, a float has 53


# ---------------------------------------------------------------- solving
def solve(
    problems: Dataset,
    model: str,
    settings: FilterSettings,
    engine: EngineSettings | Engine,
    system_prompt: str,
    folder: Path,
    verifier: Verifier = MATHEMATICS,
) -> Dataset:
    """Every problem attempted `settings.sampling.samples` times by `model`, and verified.

    Columns: id, sample, text, tokens, finished, correct (True, False, or None where the
    answer cannot be verified). `engine` says how completions of `model` are made, or makes
    them itself; `verifier` says which are right. With `settings.stop_every`, attempts are
    drawn in rounds of so many, and a problem that has more right answers than its band
    allows gets no more, except those of `never_stopped`. Completions are kept in a store
    that the stages of a run share, so that a killed run, another band or a longer pool
    finds what was sampled.
    """
    if not len(problems):
        raise ValueError("no problems to solve: the filter before this one left none")
    whole = set(never_stopped(problems, settings))
    total = settings.sampling.samples
    size = settings.stop_every or total
    rounds: list[Dataset] = []
    ours = isinstance(engine, EngineSettings)
    with open_engine(engine, model) if ours else engine as opened:
        store = shared_store(folder, opened)
        for first in range(0, total, size):
            asked = _open(problems, rounds, settings, whole)
            if not len(asked):
                break
            sampling = _round(settings.sampling, min(size, total - first))
            items = [(row["id"], chat_prompt(row["question"], system_prompt)) for row in asked]
            label = model if size == total else f"{model}, from {first + 1}"
            answers = complete(opened, items, sampling, store, label, first)
            rounds.append(grade_attempts(asked, answers, verifier))
    return _by_problem(problems, concatenate_datasets(rounds))


def never_stopped(problems: Dataset, settings: FilterSettings) -> list[str]:
    """The ids of a fair sample of `settings.never_stopped` problems, or of all.

    A rate from attempts that ended at a success is too high, and one that ended at the
    upper end of the band is censored. Distributions are drawn from these, which get all
    attempts whatever comes.
    """
    names = sorted(problems["id"])
    if settings.stop_every is None:
        return names
    order = np.random.default_rng(settings.sampling.seed).permutation(len(names))
    return sorted(names[place] for place in order[: settings.never_stopped])


def fair_counts(counts: Dataset, problems: Dataset, settings: FilterSettings) -> Dataset:
    """Of `counts`, those whose rates may be drawn as a distribution (see never_stopped)."""
    fair = set(never_stopped(problems, settings))
    return counts.select([n for n, name in enumerate(counts["id"]) if name in fair])


def _round(sampling: Sampling, samples: int) -> Sampling:
    return sampling.model_copy(update={"samples": samples})


def _open(
    problems: Dataset, rounds: list[Dataset], settings: FilterSettings, whole: set[str]
) -> Dataset:
    """The problems whose verdict the next attempts can still change, and the `whole`."""
    right = Counter(
        name
        for attempts in rounds
        for name, correct in zip(attempts["id"], attempts["correct"], strict=True)
        if correct
    )
    places = [
        place
        for place, name in enumerate(problems["id"])
        if name in whole or right[name] <= settings.keep[1]
    ]
    return problems.select(places)


def _by_problem(problems: Dataset, attempts: Dataset) -> Dataset:
    """`attempts` in the order of `problems`, then of sampling."""
    place = {name: number for number, name in enumerate(problems["id"])}
    keys = [
        (place[name], sample)
        for name, sample in zip(attempts["id"], attempts["sample"], strict=True)
    ]
    return attempts.select(sorted(range(len(keys)), key=keys.__getitem__))


def grade_attempts(
    problems: Dataset, answers: Dataset, verifier: Verifier = MATHEMATICS
) -> Dataset:
    """`answers` (id, sample, text, tokens, finished) with the column `correct`.

    An answer given several times to one question is judged once.
    """
    references = dict(zip(problems["id"], problems["answer"], strict=True))
    pairs = [
        (references[name], text)
        for name, text in zip(answers["id"], answers["text"], strict=True)
    ]
    different = list(dict.fromkeys(pairs))
    verdicts = verifier.verify([r for r, _ in different], [t for _, t in different])
    known = {pair: verdict.correct for pair, verdict in zip(different, verdicts, strict=True)}
    rows = answers.select_columns(["id", "sample", "text", "tokens", "finished"]).to_list()
    graded = [{**row, "correct": known[pair]} for row, pair in zip(rows, pairs, strict=True)]
    return Dataset.from_list(graded)


# ---------------------------------------------------------------- counting
def jeffreys(correct: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of a rate from `correct` of `n` (Jeffreys' prior).

    With none or all correct the open end is 0 or 1 (Brown, Cai and DasGupta 2001).
    """
    tail = (1 - CONFIDENCE) / 2
    low = beta.ppf(tail, correct + 0.5, n - correct + 0.5)
    high = beta.ppf(1 - tail, correct + 0.5, n - correct + 0.5)
    return np.where(correct == 0, 0.0, low), np.where(correct == n, 1.0, high)


def solve_counts(attempts: Dataset) -> Dataset:
    """Per question: id, correct, wrong, unverifiable, n, rate, low, high.

    `rate` is correct / n: an unverifiable attempt is in n and earns nothing.
    """
    if not len(attempts):
        raise ValueError("no attempts to count")
    tally: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for name, correct in zip(attempts["id"], attempts["correct"], strict=True):
        tally[name][2 if correct is None else 0 if correct else 1] += 1
    counts = np.array(list(tally.values()))
    n = counts.sum(axis=1)
    low, high = jeffreys(counts[:, 0], n)
    return Dataset.from_dict(
        {
            "id": list(tally),
            "correct": counts[:, 0],
            "wrong": counts[:, 1],
            "unverifiable": counts[:, 2],
            "n": n,
            "rate": counts[:, 0] / n,
            "low": low,
            "high": high,
        }
    )


def outcomes(attempts: Dataset) -> dict[str, np.ndarray]:
    """Per question, whether each attempt was right (bool), in the order of sampling.

    An attempt that cannot be verified is not right.
    """
    found: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    columns = (attempts[name] for name in ("id", "sample", "correct"))
    for name, sample, correct in zip(*columns, strict=True):
        found[name].append((sample, bool(correct)))
    return {
        name: np.array([right for _, right in sorted(rows)]) for name, rows in found.items()
    }


def mean_interval(values: Iterable[float], seed: int = 0) -> tuple[float, float, float]:
    """The mean of one value per question and its 95 % interval: (mean, low, high).

    Bootstrap over questions, since the attempts at one question belong together. Of one
    question the ends are not known (nan).
    """
    values = np.asarray(list(values), float)
    if not len(values):
        raise ValueError("no values: there is no mean of nothing")
    if len(values) == 1:
        return float(values[0]), math.nan, math.nan
    picks = np.random.default_rng(seed).integers(len(values), size=(2000, len(values)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values[picks].mean(axis=1), (tail, 1 - tail))
    return float(values.mean()), float(low), float(high)


# ---------------------------------------------------------------- filtering
def keep_by_rate(problems: Dataset, counts: Dataset, keep: tuple[int, int]) -> Sieved:
    """Problems solved between `keep[0]` and `keep[1]` times (inclusive), and the others.

    An unverifiable attempt might have been right: a problem stays only if it would stay
    either way. Raises ValueError if a problem has no count, or fewer attempts than the
    rest although more could change its verdict.
    """
    low, high = keep
    if low > high:
        raise ValueError(f"keep is {keep}: its first number may not exceed the second")
    by_id = {row["id"]: row for row in counts}
    missing = [name for name in problems["id"] if name not in by_id]
    if missing:
        raise ValueError(f"{len(missing)} problems were never attempted, e.g. {missing[0]!r}")
    most = max((by_id[name]["n"] for name in problems["id"]), default=0)
    tried = {
        row["n"]
        for row in map(by_id.__getitem__, problems["id"])
        if row["n"] < most and row["correct"] <= high
    }
    if tried:
        raise ValueError(
            f"problems that may stay were attempted {sorted(tried | {most})} times: "
            "finish the sampling first"
        )
    reasons = [_why_dropped(by_id[name], low, high) for name in problems["id"]]
    kept = [place for place, reason in enumerate(reasons) if not reason]
    fallen = [
        (name, reason) for name, reason in zip(problems["id"], reasons, strict=True) if reason
    ]
    return Sieved(kept=problems.select(kept), dropped=_dropped(fallen))


def _dropped(fallen: list[tuple[str, str]]) -> Dataset:
    """Pairs of id and reason with the columns of `problems.DROPPED`; no counterparts."""
    columns = {
        "id": [name for name, _ in fallen],
        "reason": [reason for _, reason in fallen],
        "counterpart": [""] * len(fallen),
        "overlap": [0.0] * len(fallen),
    }
    return Dataset.from_dict(columns, features=DROPPED)


def _why_dropped(count: dict, low: int, high: int) -> str:
    """Why a question leaves, as one of three reasons that can be counted; empty if not.

    Without the number of attempts, which differs where sampling stops early.
    """
    correct, unsure = count["correct"], count["unverifiable"]
    if correct > high:
        return f"too easy: more than {high} correct"
    if correct + unsure < low:
        return f"too hard: fewer than {low} correct"
    if correct < low or correct + unsure > high:
        return "undecided: attempts that cannot be verified"
    return ""


# ---------------------------------------------------------------- balancing
def balanced(
    problems: Dataset, k: int, seed: int, vectors: np.ndarray | None = None
) -> Dataset:
    """`k` problems spread evenly over subject and level, each unlike those chosen before.

    Subject–level cells take turns in a seeded order; a cell whose turn it is gives the
    problem whose nearest chosen one is farthest (cosine of `tfidf` rows), so that what is
    left out is what is already there. Rows come in the order of choice with two columns
    more: `similarity` to the nearest earlier choice (0 to 1) and `reason`. Deterministic,
    and independent of the order of `problems`. All problems are kept if there are no more
    than `k`. `vectors` (problems, width), as `embed` makes them, take the place of TF-IDF.
    LIMO's own rule is not published; this is ours.

    Raises ValueError for no problems, a `k` below 1, or vectors that do not fit.
    """
    if not len(problems):
        raise ValueError("no problems to choose from: the filters left none")
    if k < 1:
        raise ValueError(f"k is {k}, but at least one question must be chosen")
    names = problems["id"]
    places = sorted(range(len(names)), key=lambda place: names[place])
    rows = problems.select(places).to_list()
    if vectors is None:
        compared = tfidf([row["question"] for row in rows])
    else:
        compared = _directions(vectors, len(rows))[places]
    cells, rng = _cells(rows), np.random.default_rng(seed)
    takers = [cells[sorted(cells)[place]] for place in rng.permutation(len(cells))]
    first = int(rng.choice(takers[0]))  # nothing to be far from yet
    order, nearest = _farthest_first(compared, _turns(takers, k), first)
    chosen = [
        {
            **rows[i],
            "similarity": near,
            "reason": _why_kept(rows[i], cells, near, first=not turn),
        }
        for turn, (i, near) in enumerate(zip(order, nearest, strict=True))
    ]
    return Dataset.from_list(chosen)


def _turns(cells: Sequence[list[int]], k: int) -> list[list[int]]:
    """The cell of each turn: round by round, those left out that have given all they have."""
    turns = [(i, place) for place, cell in enumerate(cells) for i in range(len(cell))]
    return [cells[place] for _, place in sorted(turns)[:k]]


class _InTurns(FPS):
    """Farthest-first choice whose step n takes one of the rows in `turns[n]`."""

    turns: list[list[int]]

    def score(self, X: np.ndarray, y: None = None) -> np.ndarray:
        distances = self.get_distance()
        allowed = np.full(len(distances), -np.inf)
        cell = self.turns[self.n_selected_]
        allowed[cell] = distances[cell]
        return allowed


def _farthest_first(
    vectors: np.ndarray, turns: list[list[int]], first: int
) -> tuple[list[int], list[float]]:
    """The row taken at each turn, and its similarity to the nearest one taken before."""
    if len(vectors) == 1:  # skmatter wants two
        return [first], [0.0]
    steps = _InTurns(initialize=first, n_to_select=len(turns))
    steps.turns = turns
    steps.fit(vectors)
    squared = steps.get_select_distance()  # of rows of length 1; the first has no neighbour
    return steps.selected_idx_.tolist(), np.clip(1 - squared / 2, 0, 1).tolist()


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


def cells_in_effect(problems: Dataset) -> float:
    """The effective number of subject–level cells: the exponential of their entropy.

    Equal to the number of cells where all are equally full; 1 where one holds everything.
    """
    sizes = np.array([len(places) for places in _cells(problems.to_list()).values()])
    share = sizes / sizes.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _cells(rows: list[dict]) -> dict[tuple[str, int], list[int]]:
    cells: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        cells[row["subject"], row["level"]].append(place)
    return cells


def tfidf(texts: list[str]) -> np.ndarray:
    """TF-IDF (texts, `FEATURES`) of length 1, of n-grams of 2 to 4 characters.

    Of characters, so that Chinese needs no word splitter; hashed into so many features,
    so that memory does not grow with the vocabulary. Of 400 lab questions a cosine is off
    by 0.01 on average, by 0.07 at most.
    """
    hashed = HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), n_features=FEATURES, norm=None
    )
    weighted = TfidfTransformer().fit_transform(hashed.transform(texts))
    return _directions(weighted.toarray(), len(texts))


def embed(texts: Sequence[str], model: str, batch_size: int = 64) -> np.ndarray:
    """Sentence embeddings (texts, width) of length 1: mean last hidden states of `model`.

    `model` is a Hub id, a folder or `lab:NAME`. Any language model will do; one that was
    trained for sentences, with mean pooling, does better. Raises ValueError where there is
    no such model.
    """
    import torch

    network, tokenizer = _encoder(model)
    rows = []
    with progress(len(texts), "texts", "embedded") as bar:
        for start in range(0, len(texts), batch_size):
            part = list(texts[start : start + batch_size])
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
    return np.concatenate(rows)


def _encoder(model: str) -> tuple[Any, Any]:
    """(network without a head, tokenizer) of `model`."""
    import torch
    from transformers import AutoModel

    source, revision = source_of(model)
    try:
        with quiet_bars():
            network = AutoModel.from_pretrained(source, revision=revision, dtype=torch.float32)
        return network.eval(), load_tokenizer(model)
    except (OSError, ValueError) as error:  # no folder, no Hub, no model in what was found
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"no model for embeddings at {model!r}: name a folder with config.json, weights "
            f"and tokenizer, `lab:NAME`, or a Hub id while online ({first})"
        ) from error


def _why_kept(row: dict, cells: dict, similarity: float, first: bool) -> str:
    size = len(cells[row["subject"], row["level"]])
    turn = (
        f"kept because {row['subject']}, level {row['level']} ({size} candidates) had its turn"
    )
    if first:
        return f"{turn}, the first of all"
    return f"{turn} and this one is {similarity:.2f} similar to its nearest earlier choice"
