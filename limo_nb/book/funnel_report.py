"""What chapter 4 shows of the question funnel: tables, shares and sentences from its counts.

Nothing here decides about a question; the filters and the choice are in `selection`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from limo_nb.book.plots import HeatRow, PointRow
from limo_nb.core.paper import reported
from limo_nb.core.recorded_runs import AnyRun
from limo_nb.core.records import (
    load_table,
    read_records,
    required,
)
from limo_nb.core.settings import (
    FilterSettings,
    Profile,
)
from limo_nb.inference import model_digest
from limo_nb.problems import COLUMNS
from limo_nb.selection import cells_in_effect, mean_interval, select

Groups = Mapping[str, Dataset]  # a name ("pool", "chosen") → its problems


# ---------------------------------------------------------------- the two filters
def beside_paper(profile: Profile) -> pd.DataFrame:
    """Both filters as the paper describes them (v3) and as `profile` sets them."""
    paper, models = reported()["funnel"], profile.models
    rows: dict[str, tuple[Any, Any]] = {}
    for name, solver in (("coarse", models.weak), ("fine", models.strong)):
        theirs, ours = paper[name], getattr(profile, name)
        attempts = theirs.get("attempts", theirs.get("samples"))
        low, high = theirs.get("keep", (0, 0))  # coarse: dropped if any attempt is right
        rows[f"{name}: solver"] = (theirs["solver"], solver)
        rows[f"{name}: attempts"] = (attempts, ours.sampling.samples)
        rows[f"{name}: correct, to stay"] = (_band(low, high), _band(*ours.keep))
    rows["questions left"] = (f"{paper['fine']['left']:,}", "see below")
    return pd.DataFrame(rows, index=["LIMO (v3)", "this run"]).T


def _band(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def depends_on(profile: Profile, model: str, settings: FilterSettings) -> dict[str, Any]:
    """What the result of a filter depends on, besides its problems and its code."""
    shared = profile.model_dump(include={"engine", "system_prompt"})
    return {"model": [model, model_digest(model)], "settings": settings, **shared}


def account(stage: Any) -> str:
    """The drops of a filter's stage by reason, its unverifiable attempts, time and memory."""
    reasons = Counter(load_table(stage, "dropped")["reason"])
    lines = [f"{count:>6,}  {reason}" for reason, count in reasons.most_common()]
    unsure = sum(load_table(stage, "counts")["unverifiable"])
    facts = stage.manifest
    return "\n".join(
        [
            *lines,
            f"attempts that could not be verified: {unsure:,}",
            f"{facts['stage']}: {facts['seconds']:.0f} s, "
            f"peak memory {facts['peak_memory_gib']:.2f} GiB",
        ]
    )


def bars(counts: Dataset) -> str:
    """The picture of `plots.rates` in words."""
    return f"Questions by correct attempts: {np.bincount(counts['correct']).tolist()}."


def path_of(run: AnyRun, asked: int) -> list[tuple[str, int]]:
    """(what was left, how many) from the raw pool of `asked` problems to the training set."""

    def size(stage: str, name: str) -> int:
        return len(load_table(run.load(stage), name))

    return [
        ("raw pool", asked),
        ("clean (chapter 3)", size("pool", "pool")),
        ("not solved by the weak solver (4)", size("coarse", "kept")),
        ("solved sometimes by the reasoner (4)", size("fine", "kept")),
        ("selected (4)", size("questions", "questions")),
        ("rows to train on (5)", size("rows", "limo")),
    ]


# ---------------------------------------------------------------- rates
def deviations(counts: Dataset) -> tuple[float, float]:
    """(standard deviation of the counts of right attempts, the part that is luck).

    The second is that of a binomial at the mean rate: what equal questions would show.
    """
    n, mean = max(counts["n"]), float(np.mean(counts["rate"]))
    return float(np.std(counts["correct"])), float(np.sqrt(n * mean * (1 - mean)))


def example_rates(counts: Dataset, n: int) -> list[PointRow]:
    """`n` questions from the most rarely to the most often solved, for `plots.points`."""
    order = np.argsort(counts["correct"], kind="stable")
    picks = order[np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)]
    return [
        PointRow(
            label=row["id"],
            value=100 * row["rate"],
            low=100 * row["low"],
            high=100 * row["high"],
        )
        for row in counts.select(picks)
    ]


def in_papers_band(counts: Dataset) -> int:
    """How many questions the paper's band of rates would keep."""
    fine = reported()["funnel"]["fine"]
    low, high = (number / fine["samples"] for number in fine["keep"])
    return sum(low <= rate <= high for rate in counts["rate"])


def by_level(counts: Dataset, problems: Dataset) -> list[PointRow]:
    """Mean solving rates of the quarters of `problems` with the lowest and highest level.

    Two rows for `plots.points`, over the problems of each quarter that were attempted.
    Quarters are larger where levels tie.
    """
    level = dict(zip(problems["id"], problems["level"], strict=True))
    low, high = np.quantile(problems["level"], (0.25, 0.75))
    attempted = [(level[row["id"]], row["rate"]) for row in counts]
    quarters = {
        "lowest levels": [rate for at, rate in attempted if at <= low],
        "highest levels": [rate for at, rate in attempted if at >= high],
    }
    rows = []
    for label, rates in quarters.items():
        value, low, high = (100 * number for number in mean_interval(rates))
        rows.append(PointRow(label=label, value=value, low=low, high=high))
    return rows


def tells_levels(solver: str, ends: Sequence[PointRow]) -> str:
    """What the two rows of `by_level` say about `solver`, as a sentence without its stop."""
    lowest, highest = ends
    clearly = lowest["low"] > highest["high"]
    verdict = "solves" if clearly else "does not clearly solve"
    return f"The {solver} solver {verdict} short problems more often than long ones"


# ---------------------------------------------------------------- what stays
def survival(problems: Dataset, kept: Dataset) -> list[HeatRow]:
    """The share of every subject and level that is in `kept`, in percent, for `plots.heat`."""
    before, after = _cells(problems), _cells(kept)
    return [
        HeatRow(family=subject, level=level, value=100 * after[subject, level] / size)
        for (subject, level), size in sorted(before.items())
    ]


def mean_levels(problems: Dataset, kept: Dataset) -> tuple[float, float]:
    """The mean level of what is in `kept`, and of the rest (nan for no problem)."""
    stays = np.isin(problems["id"], kept["id"])
    levels = np.array(problems["level"], float)
    parts = (levels[stays], levels[~stays])
    inside, outside = (float(np.mean(part)) if len(part) else np.nan for part in parts)
    return inside, outside


def fallen(steps: Iterable[tuple[str, Dataset, Dataset]], n: int = 5) -> pd.DataFrame:
    """The first `n` that fell at each step: step, reason, question.

    A step is (name, the problems before it, what fell: `id` and `reason`).
    """
    rows = []
    for name, before, dropped in steps:
        asked = dict(zip(before["id"], before["question"], strict=True))
        rows += [(name, row["reason"], asked[row["id"]]) for row in dropped.take(n)]
    return pd.DataFrame(rows, columns=["step", "reason", "question"])


def passed_over(problems: Dataset, chosen: Dataset) -> Dataset:
    """What a choice left, as rows of id and reason."""
    taken = set(chosen["id"])
    left = [name for name in problems["id"] if name not in taken]
    return Dataset.from_dict({"id": left, "reason": ["others had their turn"] * len(left)})


# ---------------------------------------------------------------- balance
def _cells(problems: Dataset) -> Counter[tuple[str, int]]:
    return Counter(zip(problems["subject"], problems["level"], strict=True))


def effective_cells(groups: Groups) -> str:
    """The effective number of subject–level cells of each group, as a finding."""
    parts = (f"{cells_in_effect(group):.1f} ({where})" for where, group in groups.items())
    return f"Cells in effect: {', '.join(parts)}"


def level_shares(groups: Groups) -> tuple[list[int], dict[str, list[float]]]:
    """All levels, and the share of each in every group (%), for `plots.lines`."""
    levels = sorted({level for group in groups.values() for level in group["level"]})
    held = {where: Counter(group["level"]) for where, group in groups.items()}
    return levels, {
        where: [100 * counts[level] / counts.total() for level in levels]
        for where, counts in held.items()
    }


def subjects(groups: Groups) -> pd.DataFrame:
    """How many problems of each subject every group has."""
    columns = {where: Counter(group["subject"]) for where, group in groups.items()}
    table = pd.DataFrame(columns).fillna(0).astype(int)
    return table.sort_index().rename_axis("subject")


def fullness(groups: Groups) -> list[HeatRow]:
    """Every cell in percent of the fullest one of its group, for `plots.heat`.

    The levels of a group stand side by side, group after group. A group in perfect balance
    shows 100 everywhere.
    """
    sizes = {where: _cells(group) for where, group in groups.items()}
    names = sorted({subject for found in sizes.values() for subject, _ in found})
    return [
        HeatRow(
            family=subject,
            level=f"{where}\n{level}",
            value=100 * found[subject, level] / max(found.values()),
        )
        for where, found in sizes.items()
        for subject in names
        for level in sorted({level for _, level in found})
    ]


def redundancy(chosen: Dataset, candidates: Dataset, seed: int) -> str:
    """How alike chosen questions are, beside as many drawn blindly, as a sentence.

    Both are ordered by the same rule, since an early choice has little before it.
    """
    k = len(chosen)
    if len(candidates) <= k:
        return f"All {len(candidates)} survivors were taken: there was nothing to choose."
    blind = candidates.shuffle(seed).select(range(k))
    ours, theirs = (
        float(np.mean(select(some, k, seed)["similarity"])) for some in (chosen, blind)
    )
    return (
        f"By TF-IDF, a chosen question is on average {ours:.2f} similar to the nearest taken "
        f"before it; among as many drawn blindly, ordered by the same rule, {theirs:.2f}."
    )


# ---------------------------------------------------------------- real problems
# Whose recorded answers play which filter's solver: two attempts each.
RECORDED = {
    "weak": ("6b_finetuning", "6b_verification"),
    "strong": ("175b_finetuning", "175b_verification"),
}


def recorded_attempts(root: Path) -> tuple[Dataset, dict[str, Dataset]]:
    """Real problems and attempts at them that others recorded: (problems, by solver).

    1,319 GSM8K problems in `root`/pool/gsm8k_model_solutions.jsonl, with the answers of
    two models of 6 and two of 175 billion parameters, and whether they are right (Cobbe
    et al. 2021). The level is the number of calculations in the reference solution.
    Attempts have id, sample, correct. Raises FileNotFoundError where there is no file.
    """
    problems: list[dict[str, Any]] = []
    attempts: dict[str, list[dict[str, Any]]] = {solver: [] for solver in RECORDED}
    for place, row in read_records(root / "pool" / "gsm8k_model_solutions.jsonl"):
        row = required(row, ("question", "ground_truth"), place)
        name = f"gsm8k-{len(problems):04d}"
        solution, _, answer = row["ground_truth"].rpartition("\nA: ")
        problems.append(
            {
                "id": name, "question": row["question"], "answer": answer.strip(),
                "solution": solution, "source": "gsm8k", "subject": "word problems",
                "level": solution.count("<<"),
            }
        )  # fmt: skip
        for solver, models in RECORDED.items():
            attempts[solver] += [
                {"id": name, "sample": n, "correct": row[model]["is_correct"]}
                for n, model in enumerate(models)
            ]
    tables = {solver: Dataset.from_list(rows) for solver, rows in attempts.items()}
    return Dataset.from_list(problems, features=COLUMNS), tables
