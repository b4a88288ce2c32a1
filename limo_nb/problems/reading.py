"""Rows of files and data sets, whatever they call their columns, as one table (chapter 3).

`dialects` says what a record holds; here files of them become problems, questions or chains.
A row that cannot be read is an error that names its place, never left out in silence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from datasets import Dataset, Features, concatenate_datasets

from limo_nb.core.file_names import KINDS, kind_of
from limo_nb.core.records import BATCH, read_records
from limo_nb.grading.extraction import final_answer
from limo_nb.problems.reader import ReadRow, RowReader
from limo_nb.problems.schema import COLUMNS, TEXTS, Problem, Question

Numbered = Iterable[tuple[int, tuple[str, Any]]]  # number in the source, place, row
Row = TypeVar("Row", Problem, Question)


@dataclass(frozen=True)
class Layout:
    """How the rows of a source are read; see the head of `sources.yaml`."""

    fields: Mapping[str, str] = field(default_factory=dict)
    boxed: str = ""
    mark: str = ""  # GSM8K's is always known
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
    def reader(self) -> RowReader:
        """What reads the rows."""
        return RowReader(self.fields)

    def part(self, record: Any) -> Any:
        """The row without the fields that are not read, which may be most of it."""
        if not isinstance(record, Mapping):
            return record
        more = {name: record[name] for name in (self.boxed, *self.below) if name in record}
        return self.reader.kept(record, COLUMNS) | more

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
        files = sorted(file for file in path.iterdir() if kind_of(file))
    if not files or not all(map(kind_of, files)):
        raise ValueError(f"{path}: expected files that end in {', '.join(KINDS)}")
    layout = Layout(fields or {}, answered=answered)
    tables = [
        table_of(enumerate(read_records(file, broken), 1), source or file.stem, layout, broken)
        for file in files
    ]
    layout.reader.check_seen(str(path))
    return concatenate_datasets(tables)


def read_texts(
    path: Path, columns: Mapping[str, str] | None = None, label: bool = False,
    broken: list[str] | None = None, named: bool = False,
) -> Dataset:  # fmt: skip
    """id, question, answer and row (its number from 0) of every row of a file.

    `columns` says what the file calls them, where not by a usual name; the answer is ""
    where there is none. The id is the row's own, or "row N" counted from 1, prefixed by
    the file's name with `label`. A row that cannot be read, or has the id of another, is a
    ValueError that names it; with a list `broken`, the message is put there. With `named`, a
    repeated id is no fault: its row's number is put behind it.
    """
    reader, prefix = RowReader(columns), f"{path.stem}-" if label else ""

    def read(record: Any, place: str, number: int) -> Question:
        return _text(reader.read(record, place), record, place, prefix, number)

    rows = _sound(enumerate(read_records(path, broken), 1), read, broken, named)
    table = _gathered(rows, TEXTS, str(path), broken)
    reader.check_seen(str(path))
    return table


@dataclass
class Told:
    """How the rows of a file were read."""

    ways: Counter[str] = field(default_factory=Counter)  # what was found where → rows

    def told(self) -> list[str]:
        """A line for each way in which rows were read."""
        return [
            way if len(self.ways) == 1 else f"{count:,} rows: {way}"
            for way, count in self.ways.most_common()
        ]


@dataclass
class Asked(Told):
    """Questions of a file for a model, and the columns that their rows have besides."""

    asked: list[dict[str, Any]] = field(default_factory=list)  # id, question
    carried: dict[str, dict[str, Any]] = field(default_factory=dict)  # id → columns

    def joined(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """An answer's row: the columns of its question, and the `response` of the model."""
        made = {("response" if name == "text" else name): own for name, own in answer.items()}
        return self.carried[made["id"]] | made


def read_asked(
    path: Path, columns: Mapping[str, str] | None = None, broken: list[str] | None = None
) -> Asked:
    """The questions of a file, each with the columns of its row.

    Columns that hold chains are left out, since the model's answer takes their place.
    Faults are those of `read_texts`.
    """
    found, reader = Asked(), RowReader(columns)

    def read(record: Any, place: str, number: int) -> Question:
        own = reader.read(record, place)
        row = _text(own, record, place, "", number)
        found.ways[own.told()] += 1
        reference = {} if own.answer is None else {"answer": own.answer}
        rest = record if isinstance(record, Mapping) else {}
        found.carried[row["id"]] = {
            k: v for k, v in rest.items() if k not in own.used
        } | reference
        return row

    for row in _sound(enumerate(read_records(path, broken), 1), read, broken):
        found.asked.append({"id": row["id"], "question": row["question"]})
    if not found.asked:
        raise ValueError(f"{path}: no questions in it" + (f": {broken[0]}" if broken else ""))
    reader.check_seen(str(path))
    return found


def read_choices(
    path: Path, columns: Mapping[str, str] | None = None, broken: list[str] | None = None
) -> Dataset:
    """The different questions of a file as problems, with `row`, its number from 0.

    Of rows with one question the one with the highest `score` stands for all, else the
    first. A row all of whose chains are marked wrong stands for none. Faults are those of
    `read_problems`.
    """
    layout = Layout(columns or {}, answered=False)
    best: dict[str, tuple[float, int, Problem]] = {}

    def read(record: Any, place: str, number: int) -> Problem | None:
        own = layout.reader.read(record, place)
        row = _problem(own, record, place, path.stem, number, layout)
        _storable(row, place)  # before it stands for its question
        if own.chains and all(chain.correct is False for chain in own.chains):
            return None
        score = record.get("score") if isinstance(record, Mapping) else None
        rank = float(score) if isinstance(score, int | float) else 0.0
        key = " ".join(row["question"].split())
        if key not in best or rank > best[key][0]:
            best[key] = (rank, number - 1, row)
        return row

    for _ in _sound(enumerate(read_records(path, broken), 1), read, broken, named=True):
        pass
    rows: list[Any] = [{**problem, "row": number} for _, number, problem in best.values()]
    features = Features({**COLUMNS, "row": TEXTS["row"]})
    table = _gathered(iter(rows), features, str(path), broken)
    layout.reader.check_seen(str(path))
    return table


# ---------------------------------------------------------------- chains
@dataclass
class ChainRows(Told):
    """The chains of a file, one a row, and what was read to find them."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)  # of each row, for messages
    broken: list[str] = field(default_factory=list)
    wrong: int = 0  # left out, since their row says that they are wrong

    def told(self) -> list[str]:
        """A line for each way in which rows were read, and one for chains left out."""
        gone = f"left out: {self.wrong:,} chains that are marked wrong"
        return super().told() + [gone] * bool(self.wrong)


def read_chains(
    records: Iterable[tuple[str, Any]], columns: Mapping[str, str] | None = None,
    wrong: bool = False, faults: list[str] | None = None, by_reward: bool = False,
) -> ChainRows:  # fmt: skip
    """The chains of `records` (place, row): question, solution, answer and what else they have.

    A row with several chains becomes several, numbered in `chain`; `correct` is what the row
    says of each, and one that is marked wrong is left out but for `wrong`. Where a row has no
    reference, the answer is read from its chain. With `by_reward`, every row needs a
    reference and gives one row, with a chain or without. Faults are gathered, after those of
    `faults`.
    """
    found, reader = ChainRows(broken=faults if faults is not None else []), RowReader(columns)
    for place, record in records:
        try:
            read = reader.read(record, place)
            rows = (
                [_asked_row(read, record, place)] if by_reward
                else list(_chain_rows(read, record, place))
            )  # fmt: skip
        except ValueError as error:
            found.broken.append(str(error))
            continue
        kept = [row for row in rows if wrong or row.get("correct") is not False]
        found.wrong += len(rows) - len(kept)
        found.ways[read.told()] += 1
        found.rows += kept
        found.places += [place] * len(kept)
    return found


def _chain_rows(read: ReadRow, record: Any, place: str) -> Iterator[dict[str, Any]]:
    """The chains of one row, with its further columns."""
    question = _worded(read.question, "question", record, place)
    texts = [chain.text for chain in read.chains] or [read.solution]
    correct = [chain.correct for chain in read.chains] or [None]
    rest: Mapping[str, Any] = record if isinstance(record, Mapping) else {}
    rest = {name: own for name, own in rest.items() if name not in (*read.used, "system")}
    for number, (text, mark) in enumerate(zip(texts, correct, strict=True)):
        row = {**rest, "question": question, "solution": _worded(text, "chain", record, place)}
        known = read.answer not in (None, "")
        row["answer"] = read.answer if known else final_answer(row["solution"]) or ""
        if read.system:
            row["system"] = read.system
        if len(texts) > 1:
            row["chain"] = number
        if mark is not None:
            row["correct"] = mark
        yield row


def _asked_row(read: ReadRow, record: Any, place: str) -> dict[str, Any]:
    """A row to be answered: its question and its reference, with its further columns."""
    if read.answer in (None, ""):
        raise lacking(record, "answer", place)
    rest: Mapping[str, Any] = record if isinstance(record, Mapping) else {}
    row = {name: own for name, own in rest.items() if name not in read.used}
    row |= {"question": _worded(read.question, "question", record, place)}
    return row | {"answer": read.answer, "solution": read.solution}


def _worded(text: str | None, what: str, record: Any, place: str) -> str:
    """`text`, which must have a word; ValueError says what is missing and what there is."""
    if text is None or not text.strip():
        raise lacking(record, what, place)
    _storable({what: text}, place)
    if not any(map(str.isalnum, text)):
        raise ValueError(f"{place}: the {what} has no words")
    return text


def lacking(record: Any, what: str, place: str) -> ValueError:
    """The error for a row without `what`: which columns it has, and how one is named."""
    names = [_spelled(name) for name in record] if isinstance(record, Mapping) else []
    found = ", ".join(names) or "nothing"
    return ValueError(f"{place}: no {what} (found: {found}); --columns {what}=NAME")


def _spelled(name: Any) -> str:
    """A column's name that can be printed: half a character is spelled out."""
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


# ---------------------------------------------------------------- rows
def table_of(
    rows: Numbered, source: str, layout: Layout, broken: list[str] | None = None
) -> Dataset:
    """The `Problem` rows that `rows` of `source` become."""

    def read(record: Any, place: str, number: int) -> Problem | None:
        wanted = layout.wants(record, place)
        if not wanted:
            return None
        return _problem(
            layout.reader.read(record, place), record, place, source, number, layout
        )

    return _gathered(_sound(rows, read, broken), COLUMNS, source, broken)


def _sound(
    rows: Numbered,
    read: Callable[[Any, str, int], Row | None],
    broken: list[str] | None,
    named: bool = False,
) -> Iterator[Row]:
    """What `read` makes of the rows, None left out; each id once, all texts storable.

    A fault is an error; with a list `broken`, it is put there and the row left out. An id
    that is taken is a fault; with `named`, the row's number is put behind it.
    """
    places: dict[str, str] = {}
    for number, (place, record) in rows:
        try:
            row = read(record, place, number)
            if row is None:
                continue
            _storable(row, place)
            if named and row["id"] in places:
                row["id"] = f"{row['id']} (row {number})"
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


def _text(read: ReadRow, record: Any, place: str, prefix: str, number: int) -> Question:
    if read.question is None:
        raise lacking(record, "question", place)
    name = f"row {number}" if read.id in (None, "") else str(read.id)
    answer = plain_answer(read.answer).strip()
    return {"id": prefix + name, "question": read.question, "answer": answer, "row": number - 1}


def _problem(
    read: ReadRow, record: Any, place: str, source: str, number: int, layout: Layout
) -> Problem:
    if read.question is None:
        raise lacking(record, "question", place)
    if not read.question.strip():
        raise ValueError(f"{place}: the question is empty")
    answer, solution = _answer(read, record, layout, place)
    return {
        "id": f"{source}-{number if read.id in (None, '') else read.id}",
        "question": read.question,
        "answer": answer.strip(),
        "solution": solution,
        "source": str(read.source or source),
        "subject": plain_answer(read.subject),
        "level": level_of(read.level, place),
    }


def _answer(read: ReadRow, record: Any, layout: Layout, place: str) -> tuple[str, str]:
    """(answer, solution) of a row, where the two may share a field."""
    solution = read.solution or (read.chains[0].text if read.chains else "")
    if layout.boxed:
        return final_answer(str(record.get(layout.boxed) or ""), True) or "", solution
    whole = plain_answer(record.get(layout.fields.get("answer", "answer")))
    if layout.mark and layout.mark in whole:
        solution, _, answer = whole.rpartition(layout.mark)
        return answer, solution
    answer = plain_answer(read.answer)
    if layout.answered and read.answer is None and not layout.reader.has(record, "answer"):
        raise lacking(record, "answer", place)
    return answer, solution


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
