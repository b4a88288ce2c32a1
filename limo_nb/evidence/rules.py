"""The claim ledger: rules that were fixed before there were numbers (chapters 1, 10).

`book/claims.yml` holds the claims with their rules. A rule is data (a quantity, an operator,
a number): nothing is evaluated as code.
"""

from __future__ import annotations

import re
from math import inf
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from limo_nb.book.contents import find_root
from limo_nb.core.paper import reported
from limo_nb.core.settings import Frozen
from limo_nb.evaluation import benchmark_registry


# ---------------------------------------------------------------- the ledger
class ClaimQuantity(Frozen):
    """`name` in `group` of `table`, less `minus`, or as a share of `over`.

    In the table `published` a name is a model of the papers' table of results, or a dotted
    path to a number of `paper.yaml`.
    """

    table: str
    name: str
    group: str = "all"
    minus: str | None = None
    minus_table: str | None = None  # where `minus` stands, if not in `table`
    over: str | None = None
    unit: Literal["points", "percent", "tokens", "number"] = "points"


class Condition(Frozen):
    """One comparison of a quantity's interval with a number, in the quantity's unit."""

    value: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Condition:
        if sum(b is not None for b in (self.at_least, self.above, self.at_most)) != 1:
            raise ValueError("a condition has exactly one of at_least, above, at_most")
        return self

    @property
    def bound(self) -> float:
        """The number that the interval is compared with."""
        return next(b for b in (self.at_least, self.above, self.at_most) if b is not None)

    @property
    def says(self) -> str:
        """The condition in words, e.g. ``at least 30``."""
        names = ("at_least", "above", "at_most")
        name = next(name for name in names if getattr(self, name) is not None)
        return f"{name.replace('_', ' ')} {self.bound:g}"

    def test(self, low: float, high: float) -> bool | None:
        """True if the whole interval meets it, False if none of it does, else None."""
        if self.at_least is not None:
            return _whole(low >= self.at_least, high >= self.at_least)
        if self.above is not None:
            return _whole(low > self.above, high > self.above)
        return _whole(high <= self.bound, low <= self.bound)


def _whole(worst: bool, best: bool) -> bool | None:
    return True if worst else None if best else False


class PaperGain(Frozen):
    """The mean over a group's benchmarks of one published column minus another."""

    model: str
    over: str
    group: Literal["in domain", "out of domain", "all"]


class Expected(Frozen):
    """A prediction in numbers: the verdict, and where the value of a quantity will lie."""

    verdict: str
    value: str = ""  # a quantity of the claim; its rule's first where none is named
    low: float = -inf
    high: float = inf


class Least(Frozen):
    """What a verdict must rest on, at the least."""

    items: int = Field(ge=1)  # problems that both sides answered
    seeds: int = Field(ge=1)  # training runs of the trained side


Basis = Literal["a run", "a record", "published numbers", "nothing here"]


class Claim(Frozen):
    """One claim: its words, the paper's figure, the quantities, the rule."""

    id: str
    title: str
    claim: str
    source: str  # who claims it, and where
    chapter: int
    section: str = ""  # the heading in that chapter where its figure stands
    paper: str  # what was published; may name `figures` in braces
    figures: dict[str, str | PaperGain] = {}
    values: dict[str, ClaimQuantity] = {}
    requires: tuple[Condition, ...] = ()
    rule: tuple[Condition, ...] = ()
    # The smallest difference of interest, in points: a whole interval below it shows that
    # there is no effect of size, and where it does not fit there is no room for one.
    effect: float = Field(5, gt=0)
    untested: str = ""  # why nothing here tests it, and what it would take
    record: str = ""  # the recorded run that it is about; none: the run at hand
    prediction: str = ""  # what was expected before that run
    predicted: str = ""  # the commit of the prediction
    expects: Expected | None = None  # the prediction's verdict and numbers
    least: Least

    @model_validator(mode="after")
    def _complete(self) -> Claim:
        unknown = {c.value for c in (*self.rule, *self.requires)} - set(self.values)
        if unknown:
            raise ValueError(f"the rule names unknown values: {', '.join(sorted(unknown))}")
        if bool(self.rule) == bool(self.untested):
            raise ValueError("a claim has a rule, or says in `untested` why it has none")
        if self.record and not self.prediction:
            raise ValueError("a claim about a recorded run has a prediction")
        if self.prediction and not (self.predicted and self.expects):
            raise ValueError("a prediction has `predicted`, its commit, and `expects`")
        return self

    @property
    def rests_on(self) -> Basis:
        """What can decide it."""
        if self.untested:
            return "nothing here"
        if all(quantity.table == "published" for quantity in self.values.values()):
            return "published numbers"
        return "a record" if self.record else "a run"

    @property
    def anchor(self) -> str:
        """The section's name in the address of its page, "" without one."""
        return re.sub(r"[^a-z0-9]+", "-", self.section.lower()).strip("-")

    @property
    def published(self) -> str:
        """The paper's figure, in words, with the numbers of `paper.yaml`."""
        found = {name: _figure(figure) for name, figure in self.figures.items()}
        return self.paper.format(**found)


def ledger_path() -> Path:
    """`book/claims.yml` of the book at or above the current folder."""
    return find_root() / "book" / "claims.yml"


def load_ledger(path: Path | None = None) -> list[Claim]:
    """The claims of the ledger; raises ValueError that names the claim and the field."""
    path = path or ledger_path()
    raw = yaml.safe_load(path.read_text())
    commits = raw.get("predicted", {})
    claims = [
        _claim(
            {"least": raw["least"], "predicted": commits.get(row.get("record", "mini"), "")}
            | row,
            path,
        )
        for row in raw["claims"]
    ]
    if len({claim.id for claim in claims}) != len(claims):
        raise ValueError(f"{path}: two claims have the same id")
    return claims


def _claim(row: dict[str, Any], path: Path) -> Claim:
    try:
        return Claim(**row)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        message = f"{path}, claim {row.get('id', '?')!r} is not valid:\n" + "\n".join(lines)
        raise ValueError(message) from None


def _figure(figure: str | PaperGain) -> Any:
    """A published number: by its dotted path in `paper.yaml`, or as a mean gain."""
    if isinstance(figure, PaperGain):
        return _paper_gain(figure)
    value: Any = reported()
    for key in figure.split("/" if "/" in figure else "."):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ValueError(f"paper.yaml has no {figure!r} (at {key!r})") from None
    return value


def _paper_gain(figure: PaperGain) -> float:
    results = reported()["results"]
    places = [
        place
        for place, name in enumerate(results["benchmarks"])
        if figure.group in ("all", _domain(benchmark_registry()[name]["in_domain"]))
    ]
    mine, other = results["models"][figure.model], results["models"][figure.over]
    return sum(mine[place] - other[place] for place in places) / len(places)


def published_number(path: str) -> float:
    """The number at a dotted `path` of `paper.yaml`; raises ValueError for anything else."""
    value = _figure(path)
    if not isinstance(value, int | float):
        raise ValueError(f"paper.yaml has no number at {path!r}, but {type(value).__name__}")
    return float(value)


def _domain(inside: bool) -> str:
    return "in domain" if inside else "out of domain"
