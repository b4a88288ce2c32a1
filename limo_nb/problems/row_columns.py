"""The columns of one record, looked up by what they say (chapter 3).

Names are those of `dialects`; a record may hold another, whose columns count too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limo_nb.problems.dialects import WRAPPERS, bare_name, places_of
from limo_nb.problems.replies import end_of, opened

# What a row of ours has in the place of the columns where it was found.
REPLACED = {"question", "answer", "chain", "solution", "thought", "correct", "system"}
WRAPPING = {bare_name(name) for name in WRAPPERS}


class Unclear(ValueError):
    """Two columns have an equal claim and say different things."""


@dataclass(frozen=True)
class FoundValue:
    """A value that a record has for something."""

    place: str  # as a reader would write it: "messages", "reward_model.ground_truth"
    value: Any


class Columns:
    """One record, and what was found in it so far."""

    def __init__(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> None:
        self.record, self.columns = record, columns
        self.took: dict[str, str] = {}
        self.used: set[str] = set()
        self.seen: set[str] = set()
        # A row inside a row has its own names; what stands outside goes before.
        self.layers = [("", record)]
        for name, value in record.items():
            if isinstance(name, str) and bare_name(name) in WRAPPING:
                # A reply may be JSON, and no wrapper.
                inner = value if bare_name(name) == "response" else opened(value)
                while isinstance(inner, Mapping):
                    self.layers.append((f"{name}.", inner))
                    name, inner = f"{name}.body", opened(inner.get("body"))
        self.places = places_of(tuple(names_of(layer) for _, layer in self.layers))

    def _groups(self, what: str) -> Iterator[list[FoundValue]]:
        """What the record has for `what`: a list for each group, empty values left out."""
        if what in self.columns:
            value = self._named(what)
            if value is not None:
                yield [FoundValue(self.columns[what], value)]
            return
        for group in self.places[what]:
            found = []
            for number, name in group:
                prefix, layer = self.layers[number]
                if not is_empty(layer[name]):
                    found.append(FoundValue(prefix + name, layer[name]))
            if found:
                yield found

    def _named(self, what: str) -> Any:
        """The value of the column that was named for `what`, perhaps deeper.

        Not every row has a level, a subject or a source; for the rest, ValueError.
        """
        column, value = self.columns[what], self.record
        parts = [column] if column in self.record else column.split(".")
        for part in parts:
            value = opened(value)
            if not isinstance(value, Mapping) or part not in value:
                if what in ("level", "subject", "source"):
                    return None
                found = ", ".join(map(str, self.record)) or "nothing"
                raise ValueError(f"no {column} (found: {found})")
            value = value[part]
        self.seen.add(what)
        return value

    def _first(self, what: str) -> Any:
        """The first value for `what`, whatever it is."""
        for group in self._groups(what):
            return self._take(what, group[0])
        return None

    def _take(self, what: str, found: FoundValue) -> Any:
        self.took[what] = found.place
        if found.place in self.record and what in REPLACED:
            self.used.add(found.place)
        return found.value


def names_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of `record` that have a text as their name."""
    return tuple(name for name in record if isinstance(name, str))


def is_empty(value: Any) -> bool:
    """Whether a column has nothing: no text, no list, no number (NaN is none)."""
    nan = isinstance(value, float) and value != value
    return nan or value is None or value in ("", [], {})


def agreed(
    what: str,
    found: Sequence[tuple[FoundValue, Any]],
    same: Callable[[Any, Any], Any] | None = None,
) -> tuple[FoundValue, Any]:
    """The one of `found` that is meant. Raises Unclear where two say different things."""
    chosen, value = found[0]
    for other, own in found[1:]:
        if own == value or _stripped(own) == _stripped(value):
            continue
        better = same(value, own) if same else None
        if better is None:
            shown = "; ".join(f"{f.place}: {_short(v)}" for f, v in found)
            raise Unclear(f"which is the {what}? {shown}. Say it: --columns {what}=NAME")
        if better is own:
            chosen, value = other, own
    return chosen, value


def _stripped(value: Any) -> Any:
    if isinstance(value, list):
        return [_stripped(own) for own in value]
    return value.strip() if isinstance(value, str) else value


def shorter(one: str, other: str) -> str | None:
    """The shorter of two texts one of which holds the other; None where neither does."""
    a, b = " ".join(one.split()), " ".join(other.split())
    return one if a in b else other if b in a else None


def same_answer(one: Any, other: Any) -> Any:
    """The shorter of two references that end alike; None where they differ."""
    ends = [end_of(value) for value in (one, other)]
    if ends[0] != ends[1]:
        return None
    return min((one, other), key=lambda value: len(str(value)))


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return repr(text if len(text) <= 40 else text[:37] + "...")
