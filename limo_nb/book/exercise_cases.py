"""What the functions of the exercises should return, and the cases that show whether they do.

For each exercise a reference, written for clearness and not as a reader would, and cases
that are drawn by a fixed seed, with the edges among them. Where the package or the chapter
has a function that can serve as the reference, the chapter takes that one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from math import ceil, sqrt
from random import Random
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from scipy import stats

from limo_nb import problems
from limo_nb.chains import best_per_question
from limo_nb.evaluation import RESULTS, accuracy
from limo_nb.evaluation.separation import POWER, t_test_power

Cases = list[tuple[Any, ...]]
VERDICTS = (True, False, None)


def graded_table(
    rng: Random, items: int, samples: int = 1, verdicts: Sequence[bool | None] = VERDICTS
) -> Dataset:
    """A made-up table of graded answers (`evaluation.RESULTS`), benchmarks of unequal size."""
    rows = [
        {
            "benchmark": rng.choice(("few", "more", "more", "more")),
            "in_domain": True,
            "level": rng.randint(5, 8),
            "id": f"item {item}",
            "reason": "",
            "finished": True,
        }
        for item in range(items)
    ]
    drawn = [
        {
            **row,
            "sample": sample,
            "correct": rng.choice(verdicts),
            "answer": rng.choice(("4", "7", "red", None)),
            "text": f"1) {rng.randint(0, 9)}. The answer is {rng.randint(0, 9)}.",
            "tokens": rng.randint(1, 60),
        }
        for row in rows
        for sample in range(samples)
    ]
    return Dataset.from_list(drawn, features=RESULTS)


# ---------------------------------------------------------------- chapters 1 and 2
def intervals() -> Cases:
    """1.2: (low, high, bound), in steps so coarse that ends and bounds often coincide."""
    rng = Random(12)
    drawn = [[rng.randint(-4, 4) for _ in range(3)] for _ in range(60)]
    return [(min(a, b), max(a, b), bound) for a, b, bound in drawn] + [(-0.5, 0.25, 0.0)]


def two_sides() -> Cases:
    """2.1, 2.2: (page, chat), answers to the same problems, right and wrong in both ways."""
    rng = Random(21)
    sizes = [2, 5, 9, 20]
    return [(graded_table(rng, size), graded_table(rng, size)) for size in sizes]


def token_ratio(page: Dataset, chat: Dataset) -> float:
    """2.1: all tokens of `page` over all tokens of `chat`."""
    return float(np.sum(page["tokens"]) / np.sum(chat["tokens"]))


def hidden_shares(page: Dataset, chat: Dataset) -> tuple[float, float]:
    """2.2: the shares of problems that are right on the page only, and in the chat only."""
    sides = (page, chat)
    one, other = (np.array([value is True for value in side["correct"]]) for side in sides)
    return float(np.mean(one & ~other)), float(np.mean(other & ~one))


# ---------------------------------------------------------------- chapters 3 and 4
def quotations() -> Cases:
    """3.2: (problem, item, n), where a part of the item stands in the problem."""
    rng = Random(32)
    vocabulary = [a + b + c for a in "bdklmn" for b in "aeiou" for c in "prst"]
    cases: Cases = []
    for _ in range(20):
        words = rng.sample(vocabulary, 40)
        item, other = words[: rng.randint(6, 12)], words[12:]
        start = rng.randint(0, len(item) - 1)
        part = item[start : rng.randint(start, len(item))]
        place = rng.randint(0, len(other))
        problem = [*other[:place], *part, *other[place:]]
        cases.append((" ".join(problem), " ".join(item).capitalize(), rng.randint(2, 5)))
    return cases


def quoted_share(problem: str, item: str, n: int) -> float:
    """3.2: the share of the item's n-grams that stand in the problem."""
    found, wanted = (problems.ngrams(problems.words(text), n) for text in (problem, item))
    return sum(gram in found for gram in wanted) / len(wanted)


def attempts_and_bands() -> Cases:
    """4.2: (outcomes, low, high), empty bands and bands that hold every count among them."""
    rng = Random(42)
    drawn: Cases = [
        (np.array([1, 1, 0, 0]), 0, 1),
        (np.array([0, 0, 0, 0]), 0, 0),
        (np.array([0, 0, 0, 1]), 2, 3),
        (np.array([1, 0, 1, 0]), 1, 4),
        (np.array([1, 0]), 0, 2),
        (np.array([1, 0]), 2, 1),
        (np.array([0, 1]), 3, 5),
    ]
    for _ in range(60):
        n = rng.randint(1, 7)
        outcomes = np.array([rng.randint(0, 1) for _ in range(n)])
        drawn.append((outcomes, rng.randint(0, n), rng.randint(0, n)))
    return drawn


def attempts_to_settle(outcomes: Sequence[int], low: int, high: int) -> int:
    """4.2: attempts until all ways to go on lead to the same decision."""
    for tried in range(len(outcomes) + 1):
        right = int(np.sum(outcomes[:tried]))
        ends = range(right, right + len(outcomes) - tried + 1)
        if len({low <= end <= high for end in ends}) == 1:
            return tried
    raise AssertionError("all attempts settle everything")


# ---------------------------------------------------------------- chapters 5 to 7
def weightings(names: Sequence[str]) -> list[dict[str, float]]:
    """5.2: other weights of the dimensions `names`, each alone and some mixtures."""
    rng = Random(52)
    alone = [{name: float(name == only) for name in names} for only in names]
    drawn = [[rng.random() for _ in names] for _ in range(4)]
    mixed = [
        {name: value / sum(values) for name, value in zip(names, values, strict=True)}
        for values in drawn
    ]
    return alone + mixed


def best_by_weights(table: pd.DataFrame, weights: Mapping[str, float]) -> dict[str, int]:
    """5.2: the sample of each question's best chain, by the package's own choice."""
    total = sum(weight * table[name] for name, weight in weights.items())
    scored = table.assign(score=np.round(total, 9))
    best = best_per_question(Dataset.from_pandas(scored, preserve_index=False))
    return dict(zip(best["question_id"], best["sample"], strict=True))


def training_lengths() -> Cases:
    """6.1: (rows, batch, epochs): whole batches, broken ones, batches larger than the rows."""
    rng = Random(61)
    drawn = [(rng.randint(1, 900), rng.randint(1, 70), rng.randint(1, 15)) for _ in range(40)]
    return [*drawn, (800, 64, 15), (817, 32, 15), (64, 8, 3), (3, 8, 5), (1, 1, 1)]


def sharded_models() -> Cases:
    """6.2: (parameters, ranks, stage)."""
    rng = Random(62)
    sizes = [(rng.uniform(1e8, 7e10), rng.randint(1, 64)) for _ in range(8)]
    return [(*size, stage) for size in [*sizes, (1e9, 4), (1e9, 1)] for stage in range(4)]


def sharded_gigabytes(parameters: float, ranks: int, stage: int) -> float:
    """6.2: optimiser states are divided from stage 1 on, gradients from 2, weights from 3."""
    states, gradients, weights = 12.0, 2.0, 2.0
    if stage >= 1:
        states /= ranks
    if stage >= 2:
        gradients /= ranks
    if stage >= 3:
        weights /= ranks
    return parameters * (states + gradients + weights) / 1e9


def limits_and_shares() -> Cases:
    """7.1: (results, share); shares whose products are exact, so that no rounding decides."""
    rng = Random(71)
    tables = [graded_table(rng, items) for items in (1, 3, 8, 15)]
    tables.append(graded_table(rng, 5, verdicts=(False, None)))  # none is right
    return [(table, share) for table in tables for share in (0.25, 0.5, 0.75, 1.0)]


def smallest_limit(results: Dataset, share: float) -> int:
    """7.1: the least limit under which `share` of the right answers are ended, else 1."""
    pairs = zip(results["tokens"], results["correct"], strict=True)
    right = [tokens for tokens, correct in pairs if correct]
    limits = count(1)
    return next(n for n in limits if sum(t < n for t in right) >= share * len(right))


def vote_tables() -> Cases:
    """7.2: (results,): several samples an item, some without an answer."""
    rng = Random(72)
    return [(graded_table(rng, items, samples),) for items, samples in ((1, 1), (4, 3), (9, 5))]


def agreeing_shares(results: Dataset) -> dict[str, float]:
    """7.2: by item, the share of all its samples that give the most frequent answer."""
    answers: dict[str, list[str | None]] = {}
    for name, answer in zip(results["id"], results["answer"], strict=True):
        answers.setdefault(name, []).append(answer)
    alike = {
        name: max(sum(one == given for one in own if one is not None) for given in own)
        for name, own in answers.items()
    }
    return {name: alike[name] / len(own) for name, own in answers.items()}


# ---------------------------------------------------------------- chapters 8 and 9
def number_texts(tens: Sequence[str], units: Sequence[str]) -> Cases:
    """8.1: (text,): numbers of two words, their halves alone, in capitals, in longer words."""
    rng = Random(81)
    others = ["forty-twofold", "forty-second", "twenty", "seven", "plenty-one", "x", "Is", "42"]
    marks = [" ", ", ", ". ", " (", ") ", "}", "{"]
    cases: Cases = [(r"\boxed{forty-two}",), ("It is Ninety-Nine.",), ("no number",), ("",)]
    for _ in range(40):
        pairs = [f"{rng.choice(tens)}-{rng.choice(units)}" for _ in range(3)]
        parts = [*pairs, pairs[0].title(), pairs[1].upper(), *rng.sample(others, 3)]
        rng.shuffle(parts)
        cases.append(("".join(part + rng.choice(marks) for part in parts),))
    return cases


def digits_for_words(text: str, tens: Sequence[str], units: Sequence[str]) -> str:
    """8.1: whole words such as forty-two, in any case, by their number."""
    numbers = {
        f"{ten}-{unit}": str(10 * (2 + place) + 1 + more)
        for place, ten in enumerate(tens)
        for more, unit in enumerate(units)
    }
    words = re.compile(r"[^\W\d_]+-[^\W\d_]+")
    return words.sub(lambda match: numbers.get(match.group().lower(), match.group()), text)


def learning_curves() -> Cases:
    """9.1: (sizes, accuracies, target); sizes are not powers of anything."""
    rng = Random(91)
    cases: Cases = [([10, 100], [0.2, 0.5], 1000), ([1, 10, 100], [0.0, 0.3, 0.0], 10)]
    for _ in range(10):
        sizes = sorted(rng.sample(range(2, 900), rng.randint(2, 6)))
        cases.append((sizes, [rng.random() for _ in sizes], rng.randint(1, 2000)))
    return cases


def line_in_the_logarithm(
    sizes: Sequence[float], accuracies: Sequence[float], target: float
) -> float:
    """9.1: the value at `target` of the least-squares line over log(size)."""
    line = stats.linregress(np.log(sizes), accuracies)
    return float(line.intercept + line.slope * np.log(target))


def tables_of_seeds() -> Cases:
    """9.2: (tables,): one to four seeds, benchmarks of unequal size."""
    rng = Random(92)
    cases: Cases = []
    for seeds in (1, 2, 3, 4):
        table = graded_table(rng, 12)
        trained = [
            table.remove_columns("correct").add_column(
                "correct", [rng.random() < 0.6 for _ in table], feature=RESULTS["correct"]
            )
            for _ in range(seeds)
        ]
        cases.append((trained,))
    return cases


def range_over_seeds(tables: Sequence[Dataset]) -> float:
    """9.2: the largest accuracy (a mean over benchmarks) less the smallest."""
    return float(np.ptp([accuracy([table]).value for table in tables]))


# ---------------------------------------------------------------- chapters 11 and 12
def spreads_and_gaps() -> Cases:
    """11.1: (sd, gap); from differences that one run shows to such as take a hundred."""
    rng = Random(111)
    spreads = [rng.uniform(0.5, 6) for _ in range(20)]
    return [(5, 5), (5, 10), (2, 1), (1, 100), *((s, s * rng.uniform(0.4, 3)) for s in spreads)]


def runs_by_normal(sd: float, gap: float, z: float = 1.96 + 0.84) -> int:
    """11.1: with `sd` taken as known."""
    return ceil(2 * (z * sd / gap) ** 2)


def runs_by_exact_normal(sd: float, gap: float) -> int:
    """11.1: the same with quantiles that are not rounded."""
    return runs_by_normal(sd, gap, float(stats.norm.ppf(0.975) + stats.norm.ppf(POWER)))


def runs_by_t_quantiles(sd: float, gap: float) -> int:
    """11.1: with Student's quantiles, since `sd` is estimated from the runs."""
    return next(
        runs
        for runs in count(2)
        if gap >= sd * sqrt(2 / runs) * float(np.sum(stats.t.ppf((0.975, POWER), 2 * runs - 2)))
    )


def runs_by_t_power(sd: float, gap: float) -> int:
    """11.1: with the power of the t-test itself."""
    return next(
        runs
        for runs in count(2)
        if t_test_power(gap, sd * sqrt(2 / runs), 2 * runs - 2) >= POWER
    )


def mentions() -> Cases:
    """11.2: (results, references): texts that hold the reference, right or wrong."""
    rng = Random(112)
    cases: Cases = []
    for items in (1, 4, 15):
        table = graded_table(rng, items, samples=3, verdicts=(True, False))
        cases.append((table, {name: str(rng.randint(1, 9)) for name in table["id"]}))
    return cases


def lucky_share(results: Dataset, references: Mapping[str, str]) -> float:
    """11.2: the share of all answers that are wrong and hold the reference somewhere."""
    rows: Iterator[Mapping[str, Any]] = iter(results)
    return float(
        np.mean([references[r["id"]] in r["text"] and r["correct"] is not True for r in rows])
    )


def option_responses() -> tuple[list[str], list[str], list[bool | None]]:
    """12.1: references, responses and verdicts; words that begin with an option among them."""
    rng = Random(121)
    cases: list[tuple[str, str, bool | None]] = [
        ("C", "Inert. Answer: C", True),
        ("C", "Answer: C? No. Answer: B", False),
        ("C", "It is C.", False),
        ("He", "Answer: C", None),
        ("E", "Answer: E", None),
        ("B", "Answer: Both", False),
        ("A", "Answer: A. Answer: Both are close.", True),
        ("D", "", False),
        ("", "Answer: A", None),
    ]
    for _ in range(30):
        said = rng.choices("ABCD", k=rng.randint(0, 3))
        reference = rng.choice("ABCD")
        text = " ".join(f"Perhaps. Answer: {letter}." for letter in said)
        cases.append((reference, text, bool(said) and said[-1] == reference))
    references, responses, verdicts = zip(*cases, strict=True)
    return list(references), list(responses), list(verdicts)
