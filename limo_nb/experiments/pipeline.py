"""The pipeline with one part left out: rows that limo's chapters would give without it.

Every set has at most as many rows as limo's. Where a filter is left out, the chains are those
that were sampled for the filters, by the strong solver, or for the questions of the pool, by
the teachers, so that nothing is sampled again; where a profile has other teachers than the
strong solver, that is a difference, too. Chapter 9; OpenThoughts leaves out parts likewise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

from datasets import Dataset

from limo_nb.chains import best_rows, collect
from limo_nb.core.records import load_table
from limo_nb.core.runs import Run
from limo_nb.core.settings import FilterSettings, Profile
from limo_nb.selection import select

LEFT_OUT = {
    "no-gate": "best finished chains, right or wrong",
    "no-coarse": "questions that the coarse filter did not see",
    "no-fine": "questions that the fine filter did not see",
    "no-balance": "questions at random behind the filters",
    "no-score": "questions and right chains without the score",
    "several-chains": "a quarter of the questions, four chains each",
}
CHAINS = 4  # of a question, in several-chains


def without_parts(
    run: Run, profile: Profile, drawn: Dataset
) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of every arm of `LEFT_OUT` that the profile names.

    `drawn` are right chains of questions of the pool that no filter has seen. Raises
    ValueError where a part cannot be left out because nothing remains.
    """
    known = {name: run.load(name) for name in ("coarse", "fine", "questions", "chains")}
    harder, rare = (load_table(known[name], "kept") for name in ("coarse", "fine"))
    questions = load_table(known["questions"], "questions")
    chains, attempts = (load_table(known["chains"], name) for name in ("chains", "attempts"))
    rows, count, seed = profile.chains.rows, profile.chains.questions, profile.pool.seed
    firsts = _firsts(chains)
    sampled = collect(harder, load_table(known["fine"], "attempts"))

    def best_of(asked: Dataset, found: Dataset) -> list[Mapping[str, Any]]:
        wanted = set(asked["id"])
        own = found.filter(lambda row: row["question_id"] in wanted)
        return best_rows(own, rows).to_list()

    made: dict[str, Callable[[], list[Mapping[str, Any]]]] = {
        "no-gate": lambda: best_of(questions, collect(questions, _as_if_right(attempts))),
        "no-coarse": lambda: best_of(
            select(_asked(drawn, _in_band(drawn, profile.fine, profile.ablations.samples)),
                   count, seed), drawn,
        ),
        "no-fine": lambda: best_of(select(harder, count, seed), sampled),
        "no-balance": lambda: best_of(
            rare.shuffle(seed=seed).select(range(min(count, len(rare)))), sampled
        ),
        "no-score": lambda: Random(f"{seed}/no-score").sample(firsts, min(rows, len(firsts))),
        "several-chains": lambda: _several(chains, rows),
    }  # fmt: skip
    return {name: made[name]() for name in LEFT_OUT if name in profile.ablations.arms}


def _as_if_right(attempts: Dataset) -> Dataset:
    """Attempts that count as right where they ended with an answer."""
    finished = attempts["finished"][:]
    return attempts.remove_columns("correct").add_column("correct", finished)


def _in_band(drawn: Dataset, settings: FilterSettings, samples: int) -> set[str]:
    """Questions with as large a share of different right chains as the fine filter keeps.

    Of few samples that is one right chain at least, where the filter asks for any.
    """
    low, high = (round(share * samples / settings.sampling.samples) for share in settings.keep)
    low = max(low, min(1, settings.keep[0]))
    high = max(low, high)
    counts = Counter(drawn["question_id"])
    return {name for name, right in counts.items() if low <= right <= high}


def _asked(drawn: Dataset, wanted: set[str]) -> Dataset:
    """The questions of `drawn` that are `wanted`, as problems."""
    names = ("question", "answer", "subject", "level")
    found = {
        row["question_id"]: {name: row[name] for name in names}
        for row in drawn if row["question_id"] in wanted
    }  # fmt: skip
    if not found:
        raise ValueError(
            "no-coarse: the fine filter would keep none of the drawn questions; raise "
            "ablations.asked or ablations.samples, or leave it out of ablations.arms"
        )
    return Dataset.from_list([{"id": name, **row} for name, row in found.items()])


def _firsts(chains: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The earliest right chain of every question."""
    first: dict[str, Mapping[str, Any]] = {}
    for row in sorted(chains, key=lambda row: (row["question_id"], row["sample"])):
        first.setdefault(row["question_id"], row)
    return list(first.values())


def _several(chains: Iterable[Mapping[str, Any]], rows: int) -> list[Mapping[str, Any]]:
    """`CHAINS` best chains of each of the questions whose best chains score highest."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(
        chains, key=lambda row: (-row["score"], row["question_id"], row["sample"])
    ):
        found.setdefault(row["question_id"], []).append(row)
    full = [own[:CHAINS] for own in found.values() if len(own) >= CHAINS]
    return [row for own in full[: max(1, rows // CHAINS)] for row in own]
