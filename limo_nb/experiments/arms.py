"""The arms of chapter 9: training sets that differ from limo's in one thing.

One definition for every profile; `ablations.arms` says which are trained. An arm is a name,
what it holds, and a function that takes its rows from `Material`. Rows that an edit has
changed keep their question and their answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from limo_nb.chains import edits
from limo_nb.core.settings import AblationSettings
from limo_nb.experiments.pipeline import LEFT_OUT

Row = Mapping[str, Any]
DIFFICULTIES = ("easy", "medium", "hard")  # thirds of the drawn questions, by level
MATCHED = {"matched-poor": 1, "matched-rich": 2}  # arms -> bands of `matched_levels`


@dataclass(frozen=True)
class Material:
    """What the arms take their rows from.

    Chains are rows of `Chain`: right, finished and different. `limo` are the chosen rows;
    `candidates` all chains of the selected questions, `wrong` their wrong but finished
    attempts; `drawn` the chains of questions drawn from the pool, the first of which are
    those of the set random.
    """

    limo: list[Row]
    random: list[Row]
    bulk: list[Row]
    candidates: list[Row]
    wrong: list[Row]
    drawn: list[Row]
    banded: list[Row]  # the candidates with their band of quality
    matched: list[Row]  # pairs of equal length with their band
    left_out: Mapping[str, list[Row]]  # rows of the pipeline without a part, by arm
    settings: AblationSettings
    seed: int

    def rng(self, name: str) -> Random:
        """Random numbers of one arm."""
        return Random(f"{self.seed}/{name}")


@dataclass(frozen=True)
class Arm:
    """A training set: what it is, for the tables, and its rows."""

    what: str
    rows: Callable[[Material], list[Row]]


@dataclass(frozen=True)
class Contrast:
    """Two arms that differ in one thing, as far as can be; those of chapter 8 among them."""

    left: str
    right: str
    what: str  # the left minus the right, in words


CONTRASTS = (
    Contrast("limo", "few-answers", "full chains minus answers alone"),
    Contrast("limo", "few-short", "full chains minus short solutions"),
    Contrast("few-short", "few-answers", "short solutions minus answers alone"),
    Contrast("limo", "many-full", "few chosen chains minus many"),
    Contrast("many-full", "bulk", "many chains minus many answers"),
    Contrast("limo", "bulk-tokens", "few chains minus as many tokens of answers"),
    Contrast("chosen-first", "random", "chosen minus random questions, first chains"),
    Contrast("limo", "random-best", "chosen minus random questions, best chains"),
    Contrast("limo", "chosen-first", "best minus first chains, chosen questions"),
    Contrast("random-best", "random", "best minus first chains, random questions"),
    Contrast("quality-L5", "quality-L1", "best minus worst chains"),
    Contrast("matched-rich", "matched-poor", "rich minus poor habits at equal length"),
    Contrast("questions-hard", "questions-easy", "hard minus easy questions"),
    Contrast("limo", "no-checks", "with checks minus without"),
    Contrast("limo", "no-detours", "with explorations minus without"),
    Contrast("limo", "no-keywords", "with counted words minus without"),
    Contrast("limo", "skipped-25", "all steps minus three quarters"),
    Contrast("limo", "skipped-50", "all steps minus half of them"),
    Contrast("limo", "wrong", "best right minus first wrong chains"),
    Contrast("chosen-first", "wrong", "first right minus first wrong chains"),
    Contrast("limo", "corrupted", "true minus corrupted digits"),
    Contrast("limo", "shuffled", "steps in order minus shuffled"),
    Contrast("random", "one-family", "several families minus one"),
    Contrast("limo", "no-gate", "with the gate of right answers minus without"),
    Contrast("limo", "no-coarse", "with the coarse filter minus without"),
    Contrast("limo", "no-fine", "with the fine filter minus without"),
    Contrast("limo", "no-balance", "balanced minus random choice"),
    Contrast("limo", "no-score", "with the score minus without"),
    Contrast("limo", "several-chains", "one chain a question minus four"),
)


# ---------------------------------------------------------------- choice among chains
def by_question(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of each question, in the order of its attempts."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["question_id"], row["sample"])):
        found.setdefault(row["question_id"], []).append(row)
    return found


def first(rows: list[Row]) -> Row:
    """The chain of the earliest attempt."""
    return rows[0]


def best(rows: list[Row]) -> Row:
    """The chain with the best score; of equal ones the shorter."""
    return max(rows, key=lambda row: (row["score"], -row["tokens"]))


def _picked(wanted: Iterable[Row], chains: Iterable[Row], pick: Callable) -> list[Row]:
    """For each of the questions of `wanted` its chain that `pick` takes; its own without."""
    found = by_question(chains)
    own = {row["question_id"]: row for row in wanted}
    return [pick(found[key]) if key in found else row for key, row in own.items()]


def _wrong(material: Material) -> list[Row]:
    """Each chosen question with its first wrong attempt; it loses those that have none."""
    found = by_question(material.wrong)
    asked = [row for row in material.limo if row["question_id"] in found]
    return [
        {**row, "solution": first(found[row["question_id"]])["text"].strip()} for row in asked
    ]


def _band(name: str, band: int, material: Material) -> list[Row]:
    """One chain of `band` per question, for the first `rows` questions by id."""
    source = material.banded if name == "banded" else material.matched
    rows = {row["question_id"]: row for row in source if row["band"] == band}
    return [rows[key] for key in sorted(rows)][: material.settings.rows]


def _third(place: int, material: Material) -> list[Row]:
    """The best chains of a third of the drawn questions, ordered by level, at most `rows`."""
    found = [best(rows) for rows in by_question(material.drawn).values()]
    found.sort(key=lambda row: (row["level"], row["question_id"]))
    size = len(found) // len(DIFFICULTIES)
    third = found[place * size : (place + 1) * size]
    count = min(material.settings.rows, size)
    return material.rng("difficulty").sample(third, count)


# ---------------------------------------------------------------- one thing changed
def _edited(edit: Callable[[str], str], material: Material) -> list[Row]:
    return [{**row, "solution": edit(row["solution"])} for row in material.limo]


def _edited_at_random(
    name: str, edit: Callable[[str, Random], str], material: Material
) -> list[Row]:
    rng = material.rng(name)
    return [{**row, "solution": edit(row["solution"], rng)} for row in material.limo]


def _many(material: Material) -> list[Row]:
    return [first(rows) for rows in by_question(material.drawn).values()]


def _one_family(material: Material) -> list[Row]:
    """Drawn questions of the family that has most of them."""
    groups: dict[str, list[Row]] = {}
    for row in _many(material):
        groups.setdefault(row["subject"], []).append(row)
    return max(groups.values(), key=len)[: len(material.limo)]


def _changed(what: str, edit: Callable[[str], str]) -> Arm:
    return Arm(what, partial(_edited, edit))


def _randomly(name: str, what: str, edit: Callable[[str, Random], str]) -> Arm:
    return Arm(what, partial(_edited_at_random, name, edit))


ARMS: dict[str, Arm] = {
    # Few or many, and what the rows tell.
    "few-answers": _changed("limo's questions, answers alone", edits.boxed),
    "few-short": _changed("limo's questions, short solutions", edits.shortened),
    "many-full": Arm("many drawn questions, full chains", _many),
    "many-short": Arm(
        "many drawn questions, short solutions",
        lambda m: [{**row, "solution": edits.shortened(row["solution"])} for row in _many(m)],
    ),
    "bulk-tokens": Arm("bulk, read once, tokens as limo over its epochs", lambda m: m.bulk),
    # Which questions, and which of their chains.
    "chosen-first": Arm(
        "limo's questions, first chain", lambda m: _picked(m.limo, m.candidates, first)
    ),
    "random-best": Arm(
        "random questions, best chain", lambda m: _picked(m.random, m.drawn, best)
    ),
    **{f"quality-L{n}": Arm(f"chains of level {n}", partial(_band, "banded", n))
       for n in range(1, 6)},
    **{name: Arm(f"equal length, {name.removeprefix('matched-')} habits",
                 partial(_band, "matched", band)) for name, band in MATCHED.items()},
    **{f"questions-{name}": Arm(f"{name} drawn questions, best chain", partial(_third, place))
       for place, name in enumerate(DIFFICULTIES)},
    # What is in a chain.
    "no-checks": _changed("no check", lambda text: edits.without_roles(text, {"check"})),
    "no-detours": _changed(
        "no exploration", lambda text: edits.without_roles(text, {"exploration"})
    ),
    "no-keywords": _changed("no word that the score counts", edits.without_keywords),
    "skipped-25": _randomly(
        "skipped-25", "a quarter of the steps skipped",
        lambda text, rng: edits.skipping(text, 0.25, rng),
    ),
    "skipped-50": _randomly(
        "skipped-50", "half of the steps skipped",
        lambda text, rng: edits.skipping(text, 0.5, rng),
    ),
    # Structure or content.
    "wrong": Arm("limo's questions, wrong attempts", _wrong),
    "corrupted": _randomly(
        "corrupted", "half of the digits replaced",
        lambda text, rng: edits.corrupted(text, 0.5, rng),
    ),
    "shuffled": _randomly("shuffled", "the steps in a random order", edits.shuffled),
    "one-family": Arm("drawn questions of one family, first chain", _one_family),
    # The pipeline with one part left out.
    **{name: Arm(what, partial(lambda name, m: m.left_out[name], name))
       for name, what in LEFT_OUT.items()},
}  # fmt: skip


def sized(material: Material) -> dict[str, list[Row]]:
    """rows-N: N of the chosen rows at random, each set within the next larger one."""
    shuffled = material.rng("rows").sample(material.limo, len(material.limo))
    return {f"rows-{size}": shuffled[:size] for size in material.settings.sizes}


def arm_rows(material: Material) -> dict[str, list[Row]]:
    """The rows of every arm of the settings; raises ValueError for one unknown or empty."""
    unknown = [name for name in material.settings.arms if name not in ARMS]
    if unknown:
        raise ValueError(f"no arm {unknown[0]!r}; there are {', '.join(ARMS)}")
    made = {name: ARMS[name].rows(material) for name in material.settings.arms}
    made |= sized(material)
    empty = [name for name, rows in made.items() if not rows]
    if empty:
        raise ValueError(
            f"no rows for {', '.join(empty)}: raise chains.sampling.samples or "
            "ablations.asked, or leave them out of ablations.arms"
        )
    return made
