"""Rows of files and data sets, whatever they call their columns, as one table (chapter 3).

A row that cannot be read is an error that names its place, never left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from datasets import Dataset, Features, concatenate_datasets

from limo_nb.core.records import BATCH, SUFFIXES, read_records
from limo_nb.grading.extraction import final_answer
from limo_nb.problems.schema import COLUMNS, TEXTS, Problem, Question

# What sources call the columns; the first name that a row has is taken.
NAMES = {
    "id": ("id", "unique_id", "idx"),
    "question": ("question", "problem", "prompt"),
    "answer": ("answer", "final_answer", "ground_truth"),
    "solution": ("solution",),
    "source": ("source",),
    "subject": ("subject", "type"),
    "level": ("level", "difficulty"),
}

Numbered = Iterable[tuple[int, tuple[str, Any]]]  # number in the source, place, row
Row = TypeVar("Row", Problem, Question)


@dataclass(frozen=True)
class Layout:
    """How the rows of a source are read; see the head of `sources.yaml`."""

    fields: Mapping[str, str] = field(default_factory=dict)
    boxed: str = ""
    mark: str = "\n#### "  # GSM8K's, which other sets have taken over
    below: Mapping[str, int] = field(default_factory=dict)
    answered: bool = True  # every row has an answer

    def __post_init__(self) -> None:
        unknown = [name for name in self.fields if name not in COLUMNS]
        if unknown:
            raise ValueError(f"no column {unknown[0]!r}: fields may name {', '.join(COLUMNS)}")

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Layout:
        """The part of a registry entry that says how to read rows."""
        return cls(**{name: facts[name] for name in cls.__annotations__ if name in facts})

    @cached_property
    def _read(self) -> set[str]:
        """The fields that are looked at."""
        columns = [
            [self.fields[column]] if column in self.fields else usual
            for column, usual in NAMES.items()
        ]
        return {name for names in columns for name in names} | {self.boxed, *self.below}

    def part(self, record: Any) -> Any:
        """The row without the fields that are not read, which may be most of it."""
        if not isinstance(record, Mapping):
            return record
        return {name: record[name] for name in record if name in self._read}

    def wants(self, record: Any, place: str) -> bool:
        """Whether the row belongs to the pool; False where a benchmark begins."""
        for name, limit in self.below.items():
            if not isinstance(record, Mapping) or record.get(name) is None:
                raise ValueError(f"{place}: no {name}, which says where a benchmark begins")
            if int(record[name]) >= limit:
                return False
        return True


# ---------------------------------------------------------------- files
def read_problems(
    path: Path, source: str | None = None, fields: Mapping[str, str] | None = None,
    answered: bool = True, broken: list[str] | None = None,
) -> Dataset:  # fmt: skip
    """The problems in a JSON, JSONL, Parquet or Arrow file, or in all such of a folder.

    `fields` maps a column of ours to what the file calls it, as in `sources.yaml`. Each row
    must have an answer if `answered`. A row that cannot be read is a ValueError that names
    it; with a list `broken`, the message is put there.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not files or any(file.suffix not in SUFFIXES for file in files):
        raise ValueError(f"{path}: expected files that end in {', '.join(SUFFIXES)}")
    layout = Layout(fields or {}, answered=answered)
    tables = [
        table_of(enumerate(read_records(file, broken), 1), source or file.stem, layout, broken)
        for file in files
    ]
    return concatenate_datasets(tables)


def read_texts(
    path: Path, question: str | None = None, label: bool = False,
    broken: list[str] | None = None,
) -> Dataset:  # fmt: skip
    """id, question, answer and row (its number from 0) of every row of a file.

    The question is in field `question`, or under one of its usual names; the answer is ""
    where there is none. The id is the row's own, or "row N" counted from 1, prefixed by
    the file's name with `label`. A row that cannot be read, or has the id of another, is a
    ValueError that names it; with a list `broken`, the message is put there.
    """
    layout = Layout({"question": question} if question else {})
    prefix = f"{path.stem}-" if label else ""

    def read(record: Any, place: str, number: int) -> Question:
        return _text(record, place, prefix, number, layout)

    rows = _sound(enumerate(read_records(path, broken), 1), read, broken)
    return _gathered(rows, TEXTS, str(path), broken)


# ---------------------------------------------------------------- rows
def table_of(
    rows: Numbered, source: str, layout: Layout, broken: list[str] | None = None
) -> Dataset:
    """The `Problem` rows that `rows` of `source` become."""

    def read(record: Any, place: str, number: int) -> Problem | None:
        wanted = layout.wants(record, place)
        return _problem(record, place, source, number, layout) if wanted else None

    return _gathered(_sound(rows, read, broken), COLUMNS, source, broken)


def _sound(
    rows: Numbered,
    read: Callable[[Any, str, int], Row | None],
    broken: list[str] | None,
) -> Iterator[Row]:
    """What `read` makes of the rows, None left out; each id once, all texts storable.

    A fault is an error; with a list `broken`, it is put there and the row left out.
    """
    places: dict[str, str] = {}
    for number, (place, record) in rows:
        try:
            row = read(record, place, number)
            if row is None:
                continue
            _storable(row, place)
            if row["id"] in places:
                raise ValueError(
                    f"{place}: the id {row['id']!r} is taken by {places[row['id']]}"
                )
        except ValueError as error:
            if broken is None:
                raise
            broken.append(str(error))
            continue
        places[row["id"]] = place
        yield row


def _storable(row: Mapping[str, Any], place: str) -> None:
    """Raise ValueError for a lone surrogate, which JSON can spell and Arrow cannot store."""
    for name, value in row.items():
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            sign = ascii(value[error.start])[1:-1]
            raise ValueError(
                f"{place}: the {name} has half a character, {sign}: correct or remove it"
            ) from None


def _gathered(
    rows: Iterator[Row], columns: Features, source: str, broken: list[str] | None
) -> Dataset:
    """The table of `rows`; BATCH of them at a time become Arrow, so that millions fit."""
    tables = []
    while batch := list(islice(rows, BATCH)):
        tables.append(pa.Table.from_pylist(batch, schema=columns.arrow_schema))
    if not tables:
        rest = f" that can be read: {broken[0]}" if broken else ""
        raise ValueError(f"{source}: no problems in it{rest}")
    # Without a fingerprint `datasets` makes one of a copy of the whole table.
    digest = blake2b(digest_size=8)
    for table in tables:
        for batch in table.to_batches():
            digest.update(batch.serialize())
    return Dataset(pa.concat_tables(tables), fingerprint=digest.hexdigest())


def _mapping(record: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(record, Mapping):
        raise ValueError(f"{place}: expected a mapping, found {type(record).__name__}")
    return record


def _text(record: Any, place: str, prefix: str, number: int, layout: Layout) -> Question:
    identifier = _field(_mapping(record, place), "id", layout)
    name = f"row {number}" if identifier in (None, "") else str(identifier)
    text = _field(record, "question", layout, place)
    if not isinstance(text, str):
        raise ValueError(f"{place}: the question is not text")
    answer = plain_answer(_field(record, "answer", layout)).rpartition(layout.mark)[2].strip()
    return {"id": prefix + name, "question": text, "answer": answer, "row": number - 1}


def _problem(record: Any, place: str, source: str, number: int, layout: Layout) -> Problem:
    question = _field(_mapping(record, place), "question", layout, place)
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"{place}: the question is empty or not text")
    answer, solution = _answer(record, layout, place)
    identifier = _field(record, "id", layout)
    return {
        "id": f"{source}-{number if identifier in (None, '') else identifier}",
        "question": question,
        "answer": answer.strip(),
        "solution": str(solution),
        "source": str(_field(record, "source", layout) or source),
        "subject": str(_field(record, "subject", layout) or ""),
        "level": level_of(_field(record, "level", layout), place),
    }


def _answer(record: Mapping, layout: Layout, place: str) -> tuple[str, str]:
    """(answer, solution) of a row, where the two may share a field."""
    solution = _field(record, "solution", layout) or ""
    if layout.boxed:
        return final_answer(str(record.get(layout.boxed) or ""), True) or "", solution
    answer = plain_answer(_field(record, "answer", layout, place if layout.answered else ""))
    if layout.mark in answer:
        solution, _, answer = answer.rpartition(layout.mark)
    return answer, solution


def _field(record: Mapping, column: str, layout: Layout, place: str = "") -> Any:
    """The value of `column` under its name or names; required where `place` is given."""
    names = (layout.fields[column],) if column in layout.fields else NAMES[column]
    for name in names:
        if name in record:
            return record[name]
    if place:
        found = ", ".join(map(str, record))
        raise ValueError(f"{place}: no {' or '.join(names)} (found: {found})")
    return None


def level_of(value: Any, place: str) -> int:
    """A difficulty such as 4, 4.25 or "Level 5" as an integer, 0 where there is none.

    MATH says "Level ?" of a problem whose level nobody knows.
    """
    if value in (None, "", "Level ?"):
        return 0
    found = re.search(r"\d+(\.\d+)?", str(value))
    if not found:
        raise ValueError(f"{place}: the level {value!r} is no number")
    return int(float(found[0]) + 0.5)


def plain_answer(value: Any) -> str:
    """A reference as text: 27.0 is "27", lists and mappings are joined, None is ""."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {plain_answer(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain_answer(inner) for inner in value)
    return str(value)
